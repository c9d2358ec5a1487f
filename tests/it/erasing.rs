//! A user is erased: what was sealed cannot be opened, what was granted is withdrawn, what was going on has ended.

use serde_json::{Value, json};

use crate::harness::{Account, Desk, Life, TestApp, Wishes};

/// A file of a user, besides accounts: what only the user's own key opens.
const NAME: &str = "Ada of the first file";

async fn keys_of(app: &TestApp, user: &str) -> Vec<Vec<String>> {
    let sql = format!(
        "SELECT state, CASE WHEN wrapped IS NULL THEN 'gone' ELSE 'there' END FROM data_keys
         WHERE owner_kind = 'user' AND owner_id = '{user}'"
    );
    app.rows(&sql).await
}

async fn refresh(app: &TestApp, started: &Value, desk: &Desk) -> u16 {
    app.tool_of(started, desk).post("/tokens/refresh", &json!({"provider": "google"})).await.status
}

#[tokio::test]
async fn nobody_waits_for_the_start_of_a_connection_that_is_gone() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let bots = app.street.sandbox.ask("/telegram/bots").await.expect("bots");
    let token = &bots["bots"][0]["token"];
    let mut ids = Vec::new();
    for user in ["u-1", "u-2", "u-3"] {
        let body = json!({"user": user, "provider": "telegram", "bot_token": token});
        let connection = platform.post("/v1/connections", &body).await.ok();
        assert_eq!(connection["status"], "awaiting_start");
        ids.push(connection["id"].as_str().expect("an id").to_owned());
    }
    platform.delete("/v1/users/u-1").await.ok();
    platform.delete(&format!("/v1/connections/{}", ids[1])).await.ok();
    assert_eq!(app.rows("SELECT connection_id FROM telegram_starts").await, [[ids[2].clone()]]);
    app.finish().await;
}

#[tokio::test]
async fn an_erased_user_can_be_read_by_nobody_and_is_revoked_at_every_provider() {
    // DESIGN section 5
    for wishes in Wishes::both() {
        let Some(app) = TestApp::start_with(wishes).await else { continue };
        let platform = app.platform().await;
        let google = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
        let slack = app.slack(&platform, "u-1", Account::ADA, Life::Fresh).await;
        let others = app.google(&platform, "u-2", Account::GRACE, Life::Fresh).await;
        platform.put("/v1/users/u-1", &json!({"display_name": NAME})).await.ok();
        let desk = app.desk(&platform, json!({"needs": [{"provider": "google"}]})).await;
        let started = app.start_websocket(&platform, &desk, "u-1").await;
        let started_by_other = app.start_websocket(&platform, &desk, "u-2").await;
        let token = platform.post(&format!("/v1/connections/{google}/token"), &json!({})).await.ok();
        let mail = app.street.sandbox.google.join("gmail/v1/users/me/messages").expect("a path");
        assert_eq!(app.street.http_get(mail.clone(), &token["access_token"]).await, 200);
        let user = app.rows("SELECT id FROM users WHERE external_id = 'u-1'").await[0][0].clone();
        assert_eq!(keys_of(&app, &user).await, [["active", "there"]]);
        app.database.execute(&format!("CREATE TABLE old_backup AS SELECT * FROM users WHERE id = '{user}'")).await;

        let receipt = platform.delete("/v1/users/u-1").await.ok()["receipt"].clone();
        assert_eq!(receipt["user"], "u-1");
        assert!(receipt["erased_at"].is_string(), "{receipt}");
        let mut ended: Vec<_> = receipt["connections"].as_array().expect("a list").iter().collect();
        ended.sort_by_key(|one| one["provider"].to_string());
        assert_eq!(ended.iter().map(|one| &one["provider"]).collect::<Vec<_>>(), ["google", "slack"]);
        for one in ended {
            assert_eq!(one["revoked"], true, "{one}");
            assert!(one["removal_page"].as_str().is_some_and(|page| page.starts_with("https://")), "{one}");
        }
        assert_eq!(app.street.counter("google/revocations").await, 1);
        assert!(app.street.counter("slack/revocations").await >= 1);
        assert_eq!(app.street.http_get(mail, &token["access_token"]).await, 401, "the provider's grant has ended");

        // What was going on.
        assert_eq!(refresh(&app, &started, &desk).await, 410);
        let path = format!("/v1/conversations/{}", started["id"].as_str().expect("an id"));
        let conversation = platform.read(&path).await.ok();
        assert_eq!((&conversation["status"], &conversation["end_reason"]), (&json!("ended"), &json!("erased")));
        for id in [&google, &slack] {
            let gone = platform.post(&format!("/v1/connections/{id}/token"), &json!({})).await;
            assert_eq!(gone.problem(), (404, "not_found".to_owned()));
        }
        assert_eq!(platform.read("/v1/users/u-1").await.status, 404);
        assert_eq!(platform.delete("/v1/users/u-1").await.status, 404, "once");
        assert_eq!(app.entries("user.erase").await, ["allowed"]);

        // The key: even a backup of the sealed values, brought back, stays closed.
        assert_eq!(keys_of(&app, &user).await, [["destroyed", "gone"]]);
        let brought_back = format!(
            "UPDATE users SET external_id = 'u-1-of-old', erased_at = NULL,
             profile = (SELECT profile FROM old_backup WHERE old_backup.id = users.id) WHERE id = '{user}'"
        );
        app.database.execute(&brought_back).await;
        let closed = platform.read("/v1/users/u-1-of-old").await;
        assert!(closed.status >= 400 && !closed.text.contains(NAME), "{} {}", closed.status, closed.text);

        // The same name is free for somebody new, who begins with nothing.
        platform.put("/v1/users/u-1", &json!({})).await.ok();
        let anew = platform.read("/v1/users/u-1").await.ok();
        assert!(anew["display_name"].is_null(), "{anew}");
        let list = platform.read("/v1/connections?user=u-1").await.ok();
        assert_eq!(list["data"], json!([]));
        let again = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
        platform.post(&format!("/v1/connections/{again}/token"), &json!({})).await.ok();

        // Others have noticed nothing.
        let token = platform.post(&format!("/v1/connections/{others}/token"), &json!({})).await.ok();
        assert!(token["access_token"].is_string());
        assert_eq!(refresh(&app, &started_by_other, &desk).await, 200);
        app.finish().await;
    }
}
