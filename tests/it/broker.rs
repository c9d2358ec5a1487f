//! The broker: the tool says what to do, the vault does it, and the credential stays inside.

use serde_json::{Value, json};

use crate::harness::{Account, Client, Desk, Life, TestApp, Wishes};

const MAIL: &str = "/v1/broker/google/gmail/v1/users/me/messages";
const CALENDAR: &str = "/v1/broker/google/calendar/v3/calendars/primary/events";

async fn desk(app: &TestApp, platform: &Client, providers: &[&str]) -> Desk {
    let needs: Vec<Value> =
        providers.iter().map(|provider| json!({"provider": provider, "hand_over": "broker"})).collect();
    let rules = json!({
        "google": {"paths": ["gmail/v1/users/me/**", "calendar/v3/calendars/*/events"]},
        "slack": {"methods": ["POST"], "paths": ["chat.postMessage", "auth.revoke"]},
        "telegram": {"paths": ["sendMessage", "getMe", "getUpdates"]},
    });
    app.desk(platform, json!({"needs": needs, "broker": rules})).await
}

async fn tool(app: &TestApp, platform: &Client, desk: &Desk) -> Client {
    let started = app.start_websocket(platform, desk, "u-1").await;
    app.tool_of(&started, desk)
}

async fn messages(app: &TestApp) -> Vec<Value> {
    app.street.sandbox.ask("/messages").await.expect("messages")["messages"].as_array().cloned().unwrap_or_default()
}

#[tokio::test]
async fn google_is_called_with_the_users_token_and_answers_filtered() {
    // AG-12
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let desk = desk(&app, &platform, &["google"]).await;
    let tool = tool(&app, &platform, &desk).await;
    let got = tool.read(&format!("{MAIL}?maxResults=5&access_token=evil")).await;
    assert!(got.ok()["messages"].as_array().is_some_and(|list| !list.is_empty()));
    let names: Vec<&str> = got.headers.keys().map(reqwest::header::HeaderName::as_str).collect();
    assert!(!names.contains(&"www-authenticate") && !names.contains(&"set-cookie"), "{names:?}");
    assert_eq!(got.header("content-type"), "application/json; charset=utf-8");
    let entry = json!({"summary": "Dentist", "start": {"date": "2026-12-01"}, "end": {"date": "2026-12-02"}});
    assert_eq!(tool.post(CALENDAR, &entry).await.ok()["summary"], "Dentist");
    let raw = data_encoding::BASE64URL.encode(b"Subject: hello\r\n\r\nthere");
    tool.post(&format!("{MAIL}/send"), &json!({ "raw": raw })).await.ok();
    assert_eq!(messages(&app).await[0]["sender"], "ada@example.com");
    // The provider's own refusal is for the tool to read.
    let refused = tool.read(&format!("{MAIL}/nothing")).await;
    assert_eq!((refused.status, &refused.json()["error"]["status"]), (404, &json!("NOT_FOUND")));
    assert_eq!(app.entries("credential.use").await.len(), 4, "each use is in the book");
    app.finish().await;
}

#[tokio::test]
async fn of_the_providers_headers_only_those_about_the_body_go_on() {
    // AG-12
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let desk = desk(&app, &platform, &["google"]).await;
    let tool = tool(&app, &platform, &desk).await;
    let plain = tool.read(MAIL).await;
    plain.ok();
    app.street.fault("google", "api", "stray_headers", 1).await;
    let got = tool.read(MAIL).await;
    got.ok();
    assert_eq!(got.header("content-language"), "en", "the provider has sent its headers");
    let names = |got: &crate::harness::Got| {
        got.headers.keys().map(|name| name.as_str().to_owned()).collect::<std::collections::BTreeSet<_>>()
    };
    let more: Vec<String> = names(&got).difference(&names(&plain)).cloned().collect();
    assert_eq!(more, ["content-language"]);
    app.finish().await;
}

#[tokio::test]
async fn a_large_answer_is_passed_on_and_one_that_breaks_off_is_not_taken_for_whole() {
    // AG-12, SS-05
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let desk = desk(&app, &platform, &["google"]).await;
    let started = app.start_websocket(&platform, &desk, "u-1").await;
    let tool = app.tool_of(&started, &desk);
    app.street.fault("google", "api", "large:3000", 1).await;
    let got = tool.read(MAIL).await;
    assert_eq!((got.status, got.text.len()), (200, 3000 * 1024), "more than any other answer may have");

    let proof = &started["initiation"]["dynamic_variables"]["secret__valetkey_authorization"];
    let proof = proof.as_str().expect("a header");
    let headers = format!("Authorization: {proof}\r\nX-Valetkey-Workspace: {}\r\n", desk.tool_header);
    let whole = app.raw_get(MAIL, &headers).await;
    assert!(whole.ends_with("\r\n0\r\n\r\n"), "this is how a whole one ends: {whole}");
    app.street.fault("google", "api", "cut_short", 1).await;
    let part = app.raw_get(MAIL, &headers).await;
    assert!(!part.ends_with("\r\n0\r\n\r\n"), "{part}");
    app.finish().await;
}

#[tokio::test]
async fn slack_takes_the_method_name_for_a_path() {
    // AG-12
    let app = TestApp::start_with(Wishes { slack_without_rotation: true, ..Wishes::default() }).await.expect("SQLite");
    let platform = app.platform().await;
    app.slack(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let desk = desk(&app, &platform, &["slack"]).await;
    let tool = tool(&app, &platform, &desk).await;
    let message = json!({"channel": "C0GENERAL", "text": "on my way"});
    assert_eq!(tool.post("/v1/broker/slack/chat.postMessage", &message).await.ok()["ok"], true);
    assert_eq!(messages(&app).await[0]["text"], "on my way");
    let own = json!({"channel": "C0GENERAL", "text": "x", "token": "xoxp-other"});
    let refused = tool.post("/v1/broker/slack/chat.postMessage", &own).await;
    assert!([400, 403, 422].contains(&refused.status), "a token in the body: {}", refused.text);
    let revoke = tool.post("/v1/broker/slack/auth.revoke", &json!({})).await;
    assert!([403, 404, 422].contains(&revoke.status), "no rule of an agent reaches it: {}", revoke.text);
    assert_eq!(tool.read("/v1/broker/slack/chat.postMessage").await.problem(), (403, "not_granted".to_owned()));
    assert_eq!((messages(&app).await.len(), app.street.counter("slack/revocations").await), (1, 0));
    app.finish().await;
}

#[tokio::test]
async fn telegram_writes_to_the_chat_that_the_vault_has_bound() {
    // AG-12: the token travels in the URL's path and never leaves the vault.
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let bots = app.street.sandbox.ask("/telegram/bots").await.expect("bots");
    let (token, bot) = (&bots["bots"][0]["token"], &bots["bots"][0]["username"]);
    let body = json!({"user": "u-1", "provider": "telegram", "bot_token": token});
    let connection = platform.post("/v1/connections", &body).await.ok();
    assert_eq!(connection["status"], "awaiting_start");
    let payload = connection["start_link"].as_str().and_then(|link| link.split("start=").nth(1)).expect("a link");
    let started = json!({"bot": bot, "user": "ada@example.com", "payload": payload});
    app.street.tell("/telegram/start", started).await;
    let path = format!("/v1/connections/{}", connection["id"].as_str().expect("an id"));
    app.until("Start was seen", async || {
        app.clock.advance(std::time::Duration::from_secs(2));
        platform.read(&path).await.ok()["status"] == "active"
    })
    .await;
    let token_path = format!("{path}/token");
    assert_eq!(platform.post(&token_path, &json!({})).await.problem(), (422, "not_injectable".to_owned()));

    let desk = desk(&app, &platform, &["telegram"]).await;
    let tool = tool(&app, &platform, &desk).await;
    let message = json!({"chat_id": 111, "text": "your table is booked"});
    let got = tool.post("/v1/broker/telegram/sendMessage", &message).await.ok();
    assert_eq!(got["result"]["chat"]["id"], 987_654_321, "the chat that pressed Start, whatever the tool says");
    assert_eq!(messages(&app).await.last().expect("a message")["to"], "987654321");
    let refused = tool.post("/v1/broker/telegram/getUpdates", &json!({})).await;
    assert!([403, 404, 422].contains(&refused.status), "other people's messages stay unread: {}", refused.text);

    // Who has blocked the bot is not written to again, and no conversation counts on it.
    app.street.tell("/telegram/block", json!({"bot": bot, "user": "ada@example.com"})).await;
    assert_eq!(tool.post("/v1/broker/telegram/sendMessage", &message).await.status, 403);
    let blocked = platform.read(&path).await.ok();
    assert_eq!((&blocked["status"], &blocked["reason"]), (&json!("needs_reauth"), &json!("chat_blocked")));
    let again = tool.post("/v1/broker/telegram/sendMessage", &message).await;
    assert_eq!(again.problem().1, "needs_reauth", "{}", again.text);
    let wish = json!({"agent_id": desk.agent_id, "user": "u-1", "channel": {"type": "relay"}});
    assert_eq!(platform.post("/v1/conversations", &wish).await.problem(), (424, "connection_required".to_owned()));
    app.finish().await;
}

#[tokio::test]
async fn only_what_the_agents_rules_name_is_called() {
    // AG-12
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    app.slack(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let desk = desk(&app, &platform, &["google"]).await;
    let tool = tool(&app, &platform, &desk).await;
    let before = app.street.counter("google/api_calls").await;
    let not_granted = (403, "not_granted".to_owned());
    for path in ["/v1/broker/google/drive/v3/files", "/v1/broker/google/gmail/v1/users/other/messages"] {
        assert_eq!(tool.read(path).await.problem(), not_granted, "{path}");
    }
    for method in [reqwest::Method::DELETE, reqwest::Method::PUT, reqwest::Method::PATCH] {
        assert_eq!(tool.request(method.clone(), MAIL, None).await.problem(), not_granted, "{method}");
    }
    let absent = tool.post("/v1/broker/slack/chat.postMessage", &json!({"channel": "C0GENERAL", "text": "x"})).await;
    assert_eq!(absent.problem(), (404, "not_found".to_owned()), "connected, but not in this conversation");
    assert_eq!(tool.read("/v1/broker/nowhere/x").await.problem(), not_granted);
    assert_eq!(app.street.counter("google/api_calls").await, before);
    app.finish().await;
}

#[tokio::test]
async fn no_rule_of_an_agents_reaches_beyond_what_the_catalogue_allows() {
    // AG-12: reading and sending, no administration
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let known = platform.read("/v1/providers").await.ok();
    let google = known["data"].as_array().expect("a list").iter().find(|one| one["id"] == "google").expect("Google");
    let sends = json!("POST gmail/v1/users/*/messages/send");
    assert!(google["broker"]["allow"].as_array().expect("a list").contains(&sends), "{google}");
    let needs = json!([{"provider": "google", "hand_over": "broker"}]);
    for rule in [json!({}), json!({"methods": ["GET", "POST", "PUT"], "paths": ["**"]})] {
        let desk = app.desk(&platform, json!({"needs": needs, "broker": {"google": rule}})).await;
        let tool = tool(&app, &platform, &desk).await;
        tool.read(MAIL).await.ok();
        let raw = data_encoding::BASE64URL.encode(b"Subject: hello\r\n\r\nthere");
        tool.post(&format!("{MAIL}/send"), &json!({ "raw": raw })).await.ok();
        let before = app.street.counter("google/api_calls").await;
        for settings in ["forwardingAddresses", "delegates", "filters", "s%65ndAs"] {
            let path = format!("/v1/broker/google/gmail/v1/users/me/settings/{settings}");
            let refused = tool.post(&path, &json!({"forwardingEmail": "eve@evil.example"})).await;
            assert_eq!(refused.problem(), (403, "not_granted".to_owned()), "{rule} {settings}");
        }
        assert_eq!(app.street.counter("google/api_calls").await, before);
    }
    app.finish().await;
}

#[tokio::test]
async fn a_path_that_can_be_read_in_two_ways_goes_nowhere() {
    // AG-12
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let desk = desk(&app, &platform, &["google"]).await;
    let before = app.street.counter("google/api_calls").await;
    for trick in [
        "gmail/v1/users/me/../../../../token",
        "gmail/v1/users/me/..%2f..%2fdrive/v3/files",
        "gmail/v1/users/me/%2e%2e/%2e%2e/drive",
        "gmail/v1/users/me/%252e%252e/x",
        "gmail/v1/users/me//messages",
        "gmail/v1/users/me/./messages",
        "gmail/v1/users/me/a\\..\\b",
        "gmail/v1/users/me/a%00b",
        "gmail/v1/users/me/a%0d%0aX-Evil:%201",
        "gmail/v1/users/me/@evil.example/x",
        "gmail/v1/users/me/messages;jsessionid=1/..;/x",
        "/evil.example/gmail/v1/users/me/messages",
        "gmail/v1/users/me/",
    ] {
        // One ticket each: refusals end a ticket after a while.
        let started = app.start_websocket(&platform, &desk, "u-1").await;
        let proof = &started["initiation"]["dynamic_variables"]["secret__valetkey_authorization"];
        let headers = format!(
            "Authorization: {}\r\nX-Valetkey-Workspace: {}\r\n",
            proof.as_str().expect("a header"),
            desk.tool_header
        );
        let answer = app.raw_get(&format!("/v1/broker/google/{trick}"), &headers).await;
        let status: u16 = answer.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
        assert!([400, 403, 404, 422].contains(&status), "{trick}: {answer}");
    }
    assert_eq!(app.street.counter("google/api_calls").await, before, "nothing was sent");
    app.finish().await;
}

#[tokio::test]
async fn a_401_brings_one_refresh_and_one_repetition() {
    // AG-12
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let desk = desk(&app, &platform, &["google"]).await;
    let tool = tool(&app, &platform, &desk).await;
    app.street.tell("/expire", json!({"provider": "google"})).await;
    let before = app.street.counter("google/api_calls").await;
    assert_eq!(tool.read(MAIL).await.status, 200);
    assert_eq!(app.street.counter("google/refreshes").await, 1);
    assert_eq!(app.street.counter("google/api_calls").await, before + 2);
    // A provider that says no to a new token as well is believed.
    app.street.fault("google", "api", "invalid_grant", 2).await;
    let refused = tool.read(MAIL).await;
    assert_eq!(refused.status, 401, "{}", refused.text);
    assert!(refused.headers.get("www-authenticate").is_none());
    assert_eq!(app.street.counter("google/refreshes").await, 2);
    app.finish().await;
}

#[tokio::test]
async fn the_account_header_chooses_among_the_tickets_accounts_only() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    app.google(&platform, "u-1", Account::GRACE, Life::Fresh).await;
    app.google(&platform, "u-1", Account::OPS, Life::Fresh).await;
    let desk = desk(&app, &platform, &["google"]).await;
    let body = json!({"agent_id": desk.agent_id, "user": "u-1", "channel": {"type": "websocket"}, "connections": [
        {"provider": "google", "account": "ada@example.com"}, {"provider": "google", "account": "grace@example.com"}]});
    let started = platform.post("/v1/conversations", &body).await.ok();
    let tool = app.tool_of(&started, &desk);
    let whose = async |tool: &Client| tool.read(CALENDAR).await.ok()["summary"].as_str().unwrap_or_default().to_owned();
    assert_eq!(whose(&tool).await, "ada@example.com", "the first one named");
    assert_eq!(whose(&tool.with("x-valetkey-account", "grace@example.com")).await, "grace@example.com");
    assert_eq!(whose(&tool.with("x-valetkey-account", "ada@example.com")).await, "ada@example.com");
    let refused = tool.with("x-valetkey-account", "ops@example.org").read(CALENDAR).await;
    assert_eq!(refused.problem(), (404, "not_found".to_owned()), "the user's, but not this ticket's");
    app.finish().await;
}

#[tokio::test]
async fn the_broker_has_limits_and_ends_with_the_ticket() {
    // AG-06
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let desk = desk(&app, &platform, &["google"]).await;
    let started = app.start_websocket(&platform, &desk, "u-1").await;
    let tool = app.tool_of(&started, &desk);
    tool.read(MAIL).await.ok();
    app.database.execute("UPDATE ticket_uses SET uses = 599 WHERE kind = 'broker'").await;
    tool.read(MAIL).await.ok();
    let refused = tool.read(MAIL).await;
    assert_eq!(refused.problem(), (429, "rate_limited".to_owned()));
    assert!(!refused.header("retry-after").is_empty());
    let contradiction = tool.read(&format!("{MAIL}?user_id=u-2")).await;
    assert_eq!(contradiction.problem(), (403, "identity_mismatch".to_owned()));
    let path = format!("/v1/conversations/{}/end", started["id"].as_str().expect("an id"));
    platform.request(reqwest::Method::POST, &path, None).await.ok();
    assert_eq!(tool.read(MAIL).await.problem(), (410, "gone".to_owned()));
    app.finish().await;
}

#[tokio::test]
async fn the_credential_that_the_agent_needs_is_used_and_no_other() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.slack_with_bot(&platform, "u-1", Account::ADA).await;
    let message = json!({"channel": "C0GENERAL", "text": "hello"});
    for (credential, sender) in [("bot", "sandbox"), ("user", "ada@example.com")] {
        let needs = json!([{"provider": "slack", "credential": credential, "hand_over": "broker"}]);
        let desk = app.desk(&platform, json!({"needs": needs, "broker": {"slack": {"paths": ["*"]}}})).await;
        let tool = tool(&app, &platform, &desk).await;
        assert_eq!(tool.post("/v1/broker/slack/chat.postMessage", &message).await.ok()["ok"], true);
        assert_eq!(messages(&app).await.last().expect("a message")["sender"], sender);
    }
    app.finish().await;
}

#[tokio::test]
async fn a_body_that_names_another_user_is_refused() {
    // AG-05: a contradicting user_id anywhere.
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.slack(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let desk = desk(&app, &platform, &["slack"]).await;
    let tool = tool(&app, &platform, &desk).await;
    let path = "/v1/broker/slack/chat.postMessage";
    let mismatch = (403, "identity_mismatch".to_owned());
    for user in [json!("u-2"), json!(1), json!(["u-1"])] {
        let body = json!({"channel": "C0GENERAL", "text": "x", "user_id": user});
        assert_eq!(tool.post(path, &body).await.problem(), mismatch, "{user}");
    }
    let form = [("channel", "C0GENERAL"), ("text", "x"), ("user_id", "u-2")];
    assert_eq!(tool.clone().submit(path, &form).await.problem(), mismatch, "a form");
    assert_eq!(tool.post(&format!("{path}?user_id=u-2"), &json!({})).await.problem(), mismatch, "the query");
    assert_eq!(app.entries("ticket.identity_mismatch").await, vec!["denied"; 5]);
    assert!(messages(&app).await.is_empty());
    let own = json!({"channel": "C0GENERAL", "text": "x", "user_id": "u-1"});
    assert_eq!(tool.post(path, &own).await.ok()["ok"], true);
    app.finish().await;
}

#[tokio::test]
async fn calls_that_no_rule_allows_do_not_end_the_conversation() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let desk = desk(&app, &platform, &["google"]).await;
    let tool = tool(&app, &platform, &desk).await;
    for _ in 0..25 {
        assert_eq!(tool.read("/v1/broker/google/drive/v3/files").await.status, 403);
    }
    assert_eq!(tool.read(MAIL).await.status, 200);
    assert_eq!(app.entries("ticket.refuse").await, vec!["denied"; 25], "each is in the book");
    app.finish().await;
}
