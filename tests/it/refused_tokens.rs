//! What becomes of a token that its provider refuses in the middle of a brokered call.

use serde_json::{Value, json};

use crate::harness::{Account, Client, Life, TestApp, Wishes};

const POST_MESSAGE: &str = "/v1/broker/slack/chat.postMessage";

/// A tool of an agent that calls the provider through the broker for u-1.
async fn tool(app: &TestApp, platform: &Client, provider: &str) -> Client {
    let needs = json!([{"provider": provider, "hand_over": "broker"}]);
    let desk = app.desk(platform, json!({"needs": needs, "broker": {provider: {"paths": ["*"]}}})).await;
    let started = app.start_websocket(platform, &desk, "u-1").await;
    app.tool_of(&started, &desk)
}

fn message() -> Value {
    json!({"channel": "C0GENERAL", "text": "hello"})
}

async fn standing(platform: &Client, connection: &str) -> (Value, Value) {
    let shown = platform.read(&format!("/v1/connections/{connection}")).await.ok();
    (shown["status"].clone(), shown["reason"].clone())
}

#[tokio::test]
async fn slacks_words_for_an_expired_token_bring_one_refresh_and_one_repetition() {
    // AG-12, fact sheet B.5: status 200, and the refusal in the body
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let connection = app.slack(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let tool = tool(&app, &platform, "slack").await;
    app.street.tell("/expire", json!({"provider": "slack"})).await;
    let before = app.street.counter("slack/api_calls").await;
    let said = tool.post(POST_MESSAGE, &message()).await.ok();
    assert_eq!(said["ok"], true, "{said}");
    assert_eq!(app.street.counter("slack/refreshes").await, 1);
    assert_eq!(app.street.counter("slack/api_calls").await, before + 2);

    // What it refuses for another reason is for the tool to read, and refreshes nothing.
    let nowhere = json!({"channel": "C0NOWHERE", "text": "hello"});
    assert_eq!(tool.post(POST_MESSAGE, &nowhere).await.ok()["error"], "channel_not_found");
    assert_eq!(app.street.counter("slack/refreshes").await, 1);

    app.street.tell("/revoke", json!({"provider": "slack"})).await;
    let refused = tool.post(POST_MESSAGE, &message()).await.ok();
    assert_eq!(refused["error"], "token_revoked", "the provider's own answer");
    assert_eq!(standing(&platform, &connection).await.0, "needs_reauth", "its refresh has found out");
    app.finish().await;
}

#[tokio::test]
async fn a_lasting_token_that_its_provider_ended_is_given_up() {
    // AG-12
    for wishes in Wishes::both() {
        let Some(app) = TestApp::start_with(Wishes { slack_without_rotation: true, ..wishes }).await else { continue };
        let platform = app.platform().await;
        let connection = app.slack(&platform, "u-1", Account::ADA, Life::Fresh).await;
        let tool = tool(&app, &platform, "slack").await;
        app.street.tell("/revoke", json!({"provider": "slack"})).await;
        assert_eq!(tool.post(POST_MESSAGE, &message()).await.ok()["error"], "token_revoked");
        assert_eq!(standing(&platform, &connection).await, (json!("needs_reauth"), json!("revoked_at_provider")));
        assert_eq!(app.entries("connection.needs_reauth").await, ["allowed"]);
        let calls = app.street.counter("slack/api_calls").await;
        assert_eq!(tool.post(POST_MESSAGE, &message()).await.problem().1, "needs_reauth");
        assert_eq!(app.street.counter("slack/api_calls").await, calls, "nobody calls with it any more");
        app.finish().await;
    }
}

#[tokio::test]
async fn a_bot_whose_token_was_taken_back_is_given_up() {
    // fact sheet C.4: 401, and so says getMe
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let bots = app.street.sandbox.ask("/telegram/bots").await.expect("bots");
    let bot = &bots["bots"][0];
    let draft = json!({"user": "u-1", "provider": "telegram", "bot_token": bot["token"]});
    let connection = platform.post("/v1/connections", &draft).await.ok();
    let id = connection["id"].as_str().expect("an id");
    let payload = connection["start_link"].as_str().and_then(|link| link.split("start=").nth(1)).expect("a link");
    let start = json!({"bot": bot["username"], "user": "ada@example.com", "payload": payload});
    app.street.tell("/telegram/start", start).await;
    app.until("Start was seen", async || {
        app.clock.advance(std::time::Duration::from_secs(2));
        standing(&platform, id).await.0 == "active"
    })
    .await;
    let tool = tool(&app, &platform, "telegram").await;
    app.street.tell("/revoke", json!({"provider": "telegram"})).await;
    let refused = tool.post("/v1/broker/telegram/sendMessage", &json!({"text": "hello"})).await;
    assert_eq!(refused.status, 401, "{}", refused.text);
    assert_eq!(standing(&platform, id).await, (json!("needs_reauth"), json!("revoked_at_provider")));
    app.finish().await;
}
