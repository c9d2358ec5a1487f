//! The book, and the exits that want to see it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use crate::harness::{Account, Life, TestApp};

/// What makes the book unwritable on SQLite, and writable again.
const CLOSE: &str = "CREATE TRIGGER closed BEFORE INSERT ON audit_entries BEGIN SELECT RAISE(ABORT, 'full'); END";
const OPEN: &str = "DROP TRIGGER closed";

#[tokio::test]
async fn a_token_leaves_only_after_its_entry_is_in_the_book() {
    // AU-01
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let id = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let desk = app.desk(&platform, json!({"needs": [{"provider": "google"}]})).await;
    let started = app.start_websocket(&platform, &desk, "u-1").await;
    let tool = app.tool_of(&started, &desk);
    let path = format!("/v1/connections/{id}/token");
    let got = platform.post(&path, &json!({})).await;
    let sql = "SELECT actor_kind, object_id, result FROM audit_entries WHERE action = 'token.read' AND request_id = ";
    let entry = app.rows(&format!("{sql}'{}'", got.header("x-request-id"))).await;
    assert_eq!((entry.len(), entry[0][0].as_str(), entry[0][2].as_str()), (1, "key", "allowed"));

    app.database.execute(CLOSE).await;
    let before = app.entries("token.read").await.len();
    let refused = platform.post(&path, &json!({})).await;
    assert_eq!(refused.problem(), (503, "audit_unavailable".to_owned()));
    assert!(!refused.header("retry-after").is_empty() && !refused.text.contains("ya29"));
    let body = json!({"agent_id": desk.agent_id, "user": "u-1", "channel": {"type": "websocket"}});
    let refused = platform.post("/v1/conversations", &body).await;
    assert!(refused.status >= 500 && !refused.text.contains("vkt_"), "{}", refused.text);
    let refused = tool.post("/tokens/refresh", &json!({"provider": "google"})).await;
    assert!(refused.json()["status"] == "retry" && !refused.text.contains("ya29"), "{}", refused.text);
    let refused = tool.read("/v1/broker/google/gmail/v1/users/me/messages").await;
    assert_ne!(refused.status, 200);
    let refused = platform.post("/v1/api-keys", &json!({"name": "late", "scopes": ["connections:read"]})).await;
    assert!(refused.status >= 500 && !refused.text.contains("vk_test_"), "{}", refused.text);
    app.database.execute(OPEN).await;

    assert_eq!(app.entries("token.read").await.len(), before);
    // What the provider gave meanwhile was held in memory and is stored with its entry now, not asked for again.
    app.until("the refreshed token is stored", async || {
        app.clock.advance(std::time::Duration::from_secs(1));
        platform.post(&path, &json!({})).await.ok()["generation"] == 2
    })
    .await;
    assert_eq!(app.street.counter("google/token_requests/refresh_token").await, 1);
    app.finish().await;
}

#[tokio::test]
async fn every_entry_names_who_did_what_and_holds_ids_only() {
    // AU-01, SH-01
    let app = TestApp::start().await;
    let platform = app.platform().await;
    platform.put("/v1/users/u-1", &json!({"display_name": "Ada Vkperson", "email": "ada@example.com"})).await.ok();
    let id = app.google(&platform, "u-1", Account::ADA, Life::Expired).await;
    platform.post(&format!("/v1/connections/{id}/token"), &json!({})).await.ok();
    platform.delete(&format!("/v1/connections/{id}")).await.ok();
    let weak = app.platform_key(&["audit:read"]).await;
    assert_eq!(weak.post(&format!("/v1/connections/{id}/token"), &json!({})).await.status, 403);
    for action in [
        "api_key.create",
        "integration.set",
        "user.change",
        "connection.import",
        "credential.refresh",
        "token.read",
        "connection.delete",
        "permission.deny",
    ] {
        assert!(!app.entries(action).await.is_empty(), "{action} is not in the book");
    }
    assert_eq!(app.entries("permission.deny").await, ["denied"]);
    let columns = "actor_kind, actor_id, action, object_kind, object_id, user_id, conversation_id, reason, peer";
    for row in app.rows(&format!("SELECT {columns} FROM audit_entries")).await {
        let line = row.join(" ");
        assert!(!row[0].is_empty() && !row[1].is_empty(), "{line}");
        assert!(!line.contains("Vkperson") && !line.contains('@'), "{line}");
    }
    app.finish().await;
}

/// Where secrets may leave the house, and how often in each file. A new exit belongs here, with its reason.
const EXITS: &[(&str, usize)] = &[
    // The key is shown once, when it is made.
    ("accounts/api_keys.rs", 1),
    // The refresh tool: each proven path.
    ("conversations/refresh_tool.rs", 2),
    // A start: the relay's link, the real signed URL.
    ("conversations/start.rs", 2),
    // The first frame: ticket and token, bare and as a header.
    ("conversations/variables.rs", 4),
    // A token on loan, for whoever lends it further: the token route.
    ("credentials/read.rs", 1),
];

/// Where doors look into a secret, to answer with it.
const DOORS: &[(&str, usize)] = &[
    // A one-time link is for its user.
    ("http/api/connect_sessions.rs", 1),
    ("http/api/portal.rs", 1),
    // The tool header is copied into an ElevenLabs secret; it proves a workspace and opens nothing by itself.
    ("http/api/workspaces.rs", 1),
    // An answer that is kept for an Idempotency-Key.
    ("http/idempotent.rs", 1),
    // The browser's half of a handshake, in its own cookie.
    ("http/pages/handshake_cookie.rs", 1),
];

#[test]
fn the_exits_for_secrets_are_exactly_those_listed() {
    // AP-12
    let exits = count(Path::new("src"), "Exposed::new(", "audit/");
    assert_eq!(exits, listed(EXITS));
    let doors = count(Path::new("src/http"), ".expose()", "testing");
    assert_eq!(doors, listed(DOORS));
}

fn listed(list: &[(&str, usize)]) -> BTreeMap<String, usize> {
    list.iter().map(|(file, times)| ((*file).to_owned(), *times)).collect()
}

/// How often each file has `word` in what is compiled outside tests.
fn count(folder: &Path, word: &str, but: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            let name = path.strip_prefix("src").expect("below src").display().to_string();
            let text = std::fs::read_to_string(&path).expect("a text");
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            let times =
                code.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| line.matches(word).count());
            let times: usize = times.sum();
            if times > 0 && !name.contains(but) && !name.contains("test") && !name.contains("stories") {
                found.insert(name, times);
            }
        }
    }
    found
}
