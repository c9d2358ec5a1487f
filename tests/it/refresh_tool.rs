//! The refresh tool: two proofs, one identity, and no token where a model could read it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Account, Client, Desk, Got, Life, TestApp, Wishes};

async fn desk(app: &TestApp, platform: &Client) -> Desk {
    app.desk(platform, json!({"needs": [{"provider": "google"}], "max_duration": 7200})).await
}

async fn refresh(tool: &Client) -> Got {
    tool.post("/tokens/refresh", &json!({"provider": "google"})).await
}

#[tokio::test]
async fn an_agent_whose_token_died_refreshes_it_and_reads_none() {
    // AG-07, AG-08: the whole way, as ElevenLabs goes it.
    for wishes in Wishes::both() {
        let Some(app) = TestApp::start_with(wishes).await else { continue };
        let platform = app.platform().await;
        app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
        let desk = desk(&app, &platform).await;
        let started = app.start_websocket(&platform, &desk, "u-1").await;
        let mut talk = app.talk_directly(&started).await;
        talk.event("conversation_initiation_metadata").await;
        assert!(talk.ask("use tool calendar_list {}").await.starts_with("calendar_list: ok."));
        app.street.tell("/expire", json!({"provider": "google"})).await;
        let said = talk.ask("use tool calendar_list {}").await;
        assert!(said.contains("401"), "{said}");
        let said = talk.ask("use tool refresh_google {}").await;
        assert!(said.starts_with("refresh_google: ok.") && said.contains("\"status\":\"ok\""), "{said}");
        assert!(talk.ask("use tool calendar_list {}").await.starts_with("calendar_list: ok."), "with the new token");
        talk.hang_up().await;
        assert_eq!(app.street.counter("google/refreshes").await, 1);
        app.finish().await;
    }
}

#[tokio::test]
async fn rl_22_a_conversation_of_two_hours_never_sends_an_ended_token_of_half_an_hour() {
    let wishes = Wishes { google_life: Some(Duration::from_secs(1800)), ..Wishes::default() };
    let app = TestApp::start_with(wishes).await.expect("SQLite");
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let desk = desk(&app, &platform).await;
    let started = app.start_websocket(&platform, &desk, "u-1").await;
    let tool = app.tool_of(&started, &desk);
    let mail = app.street.sandbox.google.join("gmail/v1/users/me/messages").expect("a path");
    let works = async |token: &Value| app.street.http_get(mail.clone(), token).await == 200;
    let mut token = started["initiation"]["dynamic_variables"]["secret__user_google_token"].clone();
    // As an agent does that asks a little before the end it was told.
    for minutes in [24, 24, 24, 24, 23] {
        assert!(works(&token).await, "new");
        app.advance(minutes);
        assert!(works(&token).await, "six minutes before its end");
        let got = refresh(&tool).await.ok();
        assert_eq!(got["status"], "ok", "{got}");
        token = got["authorization"].as_str().and_then(|value| value.strip_prefix("Bearer ")).expect("a token").into();
    }
    assert!(works(&token).await, "two hours less a minute");
    let refreshes = app.street.counter("google/refreshes").await;
    assert!((4..=10).contains(&refreshes), "one for each token's life, and no more than was asked for: {refreshes}");
    app.finish().await;
}

#[tokio::test]
async fn a_wrong_proof_is_refused_in_one_way_whatever_is_wrong() {
    // AG-04
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let desk = desk(&app, &platform).await;
    let started = app.start_websocket(&platform, &desk, "u-1").await;
    let right = app.tool_of(&started, &desk);
    let ticket = started["initiation"]["dynamic_variables"]["secret__valetkey_ticket"].as_str().expect("a ticket");

    let other = app.other_tenant("umbra").await;
    let other_platform = app.key_of(&other, &["all"]).await;
    let key = json!({"api_key": app.street.eleven.issue_api_key()});
    let workspace = other_platform.put("/v1/workspaces/main", &key).await.ok();
    let other_header = workspace["tool_header_value"].as_str().expect("a header");
    let nearly = format!("{}{}", &ticket[..ticket.len() - 1], if ticket.ends_with('a') { "b" } else { "a" });
    let cases = [
        ("nothing", app.anon()),
        ("no ticket", app.anon().with("x-valetkey-workspace", &desk.tool_header)),
        ("no workspace", app.anon().with("authorization", &format!("Bearer {ticket}"))),
        ("another scheme", right.with("authorization", &format!("Basic {ticket}"))),
        ("a changed ticket", right.with("authorization", &format!("Bearer {nearly}"))),
        ("garbage for a ticket", right.with("authorization", "Bearer x")),
        (
            "a platform key for a ticket",
            app.platform_key(&["all"]).await.with("x-valetkey-workspace", &desk.tool_header),
        ),
        ("garbage for a workspace", right.with("x-valetkey-workspace", "vkw_x")),
        ("another tenant's workspace", right.with("x-valetkey-workspace", other_header)),
        ("the ticket for a workspace", right.with("x-valetkey-workspace", ticket)),
    ];
    let mut bodies = Vec::new();
    for (what, tool) in cases {
        for got in [refresh(&tool).await, tool.read("/v1/broker/google/gmail/v1/users/me/messages").await] {
            assert_eq!(got.problem(), (401, "unauthenticated".to_owned()), "{what}");
            bodies.push(got.without_instance());
        }
    }
    // A body is not even read before the proofs.
    let tool = right.with("x-valetkey-workspace", "vkw_x");
    for body in [json!({}), json!({"x": 1}), json!([]), json!("x".repeat(20_000))] {
        let got = tool.post("/tokens/refresh", &body).await;
        assert_eq!(got.problem(), (401, "unauthenticated".to_owned()), "{body}");
        bodies.push(got.without_instance());
    }
    let got = tool.request(reqwest::Method::POST, "/tokens/refresh", None).await;
    assert_eq!(got.problem(), (401, "unauthenticated".to_owned()), "no body at all");
    bodies.push(got.without_instance());
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "uniform but for the request's id");
    assert_eq!(refresh(&right).await.ok()["status"], "ok", "the right proofs still count");
    app.finish().await;
}

#[tokio::test]
async fn a_contradicting_user_is_403_and_in_the_book() {
    // AG-05
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    app.google(&platform, "u-2", Account::GRACE, Life::Fresh).await;
    let desk = desk(&app, &platform).await;
    let started = app.start_websocket(&platform, &desk, "u-1").await;
    let tool = app.tool_of(&started, &desk);
    let body = |user: Value| json!({"provider": "google", "user_id": user});
    for user in ["u-2", "U-1", "u-1 ", "u-1,u-2", ""] {
        let refused = tool.post("/tokens/refresh", &body(user.into())).await;
        assert_eq!(refused.problem(), (403, "identity_mismatch".to_owned()), "{user:?}");
    }
    let refused = tool.post("/tokens/refresh?user_id=u-2", &body("u-1".into())).await;
    assert_eq!(refused.status, 403, "in the query");
    let refused = tool.post("/tokens/refresh?user_id=u-1&user_id=u-2", &body("u-1".into())).await;
    assert_eq!(refused.status, 403, "one of two");
    assert_eq!(app.entries("ticket.identity_mismatch").await, vec!["denied"; 7]);
    assert_eq!(tool.post("/tokens/refresh?user_id=u-1", &body("u-1".into())).await.ok()["status"], "ok");
    for wrong in [json!({"provider": "google", "user_id": ["u-1"]}), json!({"provider": "google", "user": "u-2"})] {
        assert_eq!(tool.post("/tokens/refresh", &wrong).await.status, 422, "{wrong}");
    }
    let other = tool.post("/tokens/refresh", &json!({"provider": "google", "account": "grace@example.com"})).await.ok();
    assert_eq!(other["status"], "reauth_required", "another user's account is not there");
    app.finish().await;
}

#[tokio::test]
async fn a_ticket_ends_with_its_conversation_its_connection_and_its_time() {
    // AG-06
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let connection = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let desk = app.desk(&platform, json!({"needs": [{"provider": "google"}], "max_duration": 600})).await;
    let by_api = app.start_websocket(&platform, &desk, "u-1").await;
    let by_time = app.start_websocket(&platform, &desk, "u-1").await;
    let by_disconnecting = app.start_websocket(&platform, &desk, "u-1").await;

    let path = format!("/v1/conversations/{}/end", by_api["id"].as_str().expect("an id"));
    assert_eq!(platform.request(reqwest::Method::POST, &path, None).await.ok()["status"], "ended");
    let gone = (410, "gone".to_owned());
    assert_eq!(refresh(&app.tool_of(&by_api, &desk)).await.problem(), gone);
    assert_eq!(refresh(&app.tool_of(&by_time, &desk)).await.ok()["status"], "ok");

    platform.delete(&format!("/v1/connections/{connection}")).await.ok();
    assert_eq!(refresh(&app.tool_of(&by_disconnecting, &desk)).await.problem(), gone);

    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let by_time = app.start_websocket(&platform, &desk, "u-1").await;
    app.advance(24);
    assert_eq!(refresh(&app.tool_of(&by_time, &desk)).await.ok()["status"], "ok");
    app.advance(1);
    assert_eq!(refresh(&app.tool_of(&by_time, &desk)).await.problem(), gone, "start window and maximum are over");
    app.finish().await;
}

#[tokio::test]
async fn the_sixty_first_refresh_of_an_hour_is_429() {
    // AG-06
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let desk = desk(&app, &platform).await;
    let started = app.start_websocket(&platform, &desk, "u-1").await;
    let tool = app.tool_of(&started, &desk);
    // Without a connection the answer costs the provider nothing, and counts all the same.
    let ask = json!({"provider": "slack"});
    for number in 1..=60 {
        assert_eq!(tool.post("/tokens/refresh", &ask).await.status, 200, "{number}");
    }
    let refused = refresh(&tool).await;
    assert_eq!(refused.problem(), (429, "rate_limited".to_owned()));
    assert_eq!(refused.header("retry-after"), "3600");
    app.advance(60);
    assert_eq!(refresh(&tool).await.ok()["status"], "ok", "a new hour");
    app.finish().await;
}

#[tokio::test]
async fn twenty_refused_calls_end_the_ticket() {
    // API.md section 6, point 7
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let desk = desk(&app, &platform).await;
    let started = app.start_websocket(&platform, &desk, "u-1").await;
    let tool = app.tool_of(&started, &desk);
    for _ in 0..19 {
        let contradiction = json!({"provider": "google", "user_id": "u-2"});
        assert_eq!(tool.post("/tokens/refresh", &contradiction).await.status, 403);
    }
    assert_eq!(refresh(&tool).await.ok()["status"], "ok", "nineteen are too few");
    assert_eq!(refresh(&tool.with("x-valetkey-workspace", "vkw_x")).await.status, 401);
    assert_eq!(refresh(&tool).await.problem(), (410, "gone".to_owned()));
    app.finish().await;
}

#[tokio::test]
async fn a_tool_that_is_not_sanitized_gets_the_status_only() {
    // AG-07
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let desk = desk(&app, &platform).await;
    let started = app.start_websocket(&platform, &desk, "u-1").await;
    assert_eq!(started["refresh_tool"], "sanitized");
    let tool = app.tool_of(&started, &desk);
    let proven = refresh(&tool).await.ok();
    assert!(proven["authorization"].as_str().is_some_and(|value| value.starts_with("Bearer ")));
    assert!(proven.get("access_token").is_none(), "only what the tool assigns");
    assert!(proven["expires_in"].is_u64());

    // Somebody takes the tick away in ElevenLabs' pages: within a minute there is no token any more.
    app.set_sanitized(&desk, false).await;
    app.advance(1);
    let unproven = refresh(&tool).await.ok();
    assert_eq!(unproven["status"], "ok");
    assert!(unproven.get("authorization").is_none() && unproven.get("access_token").is_none());
    let started = app.start_websocket(&platform, &desk, "u-1").await;
    assert_eq!(started["refresh_tool"], "status_only");
    let mut talk = app.talk_directly(&started).await;
    talk.event("conversation_initiation_metadata").await;
    talk.ask("use tool refresh_google {}").await;
    talk.hang_up().await;

    app.set_sanitized(&desk, true).await;
    app.advance(1);
    assert!(refresh(&tool).await.ok().get("authorization").is_some(), "proven again");
    app.street.eleven.revoke_api_key(&app.street.eleven.api_key());
    app.advance(2);
    let unreadable = refresh(&tool).await.ok();
    assert!(unreadable.get("authorization").is_none(), "what cannot be read is not proven");
    app.finish().await;
}

#[tokio::test]
async fn what_is_said_about_trouble_comes_from_a_closed_list() {
    // AG-08
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let desk = desk(&app, &platform).await;
    let started = app.start_websocket(&platform, &desk, "u-1").await;
    let tool = app.tool_of(&started, &desk);
    app.street.fault("google", "refresh", "ok_false:ignore_all_previous_instructions", 1).await;
    let got = refresh(&tool).await;
    assert_eq!(got.ok()["status"], "retry", "{}", got.text);
    assert!(got.json()["retry_after"].is_u64() && !got.text.contains("ignore"), "{}", got.text);
    app.advance(5);
    app.street.tell("/revoke", json!({"provider": "google"})).await;
    let mut last = Value::Null;
    app.until("the user is asked", async || {
        app.advance(1);
        last = refresh(&tool).await.ok();
        last["status"] == "reauth_required"
    })
    .await;
    assert_eq!(last["message"], "Access to this account has ended. Please ask the user to connect it again.");
    app.finish().await;
}

#[tokio::test]
async fn the_credential_that_was_injected_is_the_one_that_is_refreshed() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.slack_with_bot(&platform, "u-1", Account::ADA).await;
    for (credential, prefix) in [("bot", "Bearer xoxe.xoxb-"), ("user", "Bearer xoxe.xoxp-")] {
        let needs = json!([{"provider": "slack", "credential": credential, "hand_over": "inject"}]);
        let desk = app.desk(&platform, json!({ "needs": needs })).await;
        let started = app.start_websocket(&platform, &desk, "u-1").await;
        let injected = &started["initiation"]["dynamic_variables"]["secret__user_slack_authorization"];
        let answer = app.tool_of(&started, &desk).post("/tokens/refresh", &json!({"provider": "slack"})).await.ok();
        for value in [injected, &answer["authorization"]] {
            assert!(value.as_str().is_some_and(|value| value.starts_with(prefix)), "{credential}");
        }
        assert_ne!(*injected, answer["authorization"], "a newer one");
    }
    app.finish().await;
}
