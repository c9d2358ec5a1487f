//! Starting conversations: what the agent gets, and what happens when something is missing.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use valetkey::clock::Stopwatch;

use crate::harness::{Account, Client, Desk, Life, ORIGIN, TestApp, Wishes};

/// An agent that needs Google and can do with Slack.
async fn desk(app: &TestApp, platform: &Client) -> Desk {
    let needs = json!([{"provider": "google", "scopes": [], "hand_over": "auto"},
        {"provider": "slack", "required": false, "hand_over": "auto"}]);
    app.desk(platform, json!({"needs": needs, "client_variables": ["topic"], "max_duration": 1200})).await
}

fn websocket(desk: &Desk, user: &str) -> Value {
    json!({"agent_id": desk.agent_id, "user": user, "channel": {"type": "websocket"}})
}

async fn upstream_starts(app: &TestApp) -> u64 {
    app.street.eleven.counters()["signed_urls"].as_u64().expect("a number")
}

#[tokio::test]
async fn a_websocket_start_has_every_variable_and_secrets_only_under_secret_names() {
    // AG-02, RL-18, AM1
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let google = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    platform.put("/v1/users/u-1", &json!({"display_name": "Ada"})).await.ok();
    let desk = desk(&app, &platform).await;
    let mut body = websocket(&desk, "u-1");
    body["dynamic_variables"] = json!({"topic": "invoices", "order": 7});
    let answer = platform.post("/v1/conversations", &body).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let started = answer.json();

    let variables = started["initiation"]["dynamic_variables"].as_object().expect("variables").clone();
    let names: BTreeSet<&str> = variables.keys().map(String::as_str).collect();
    let wanted = BTreeSet::from([
        "order",
        "secret__user_google_authorization",
        "secret__user_google_token",
        "secret__user_slack_authorization",
        "secret__user_slack_token",
        "secret__valetkey_authorization",
        "secret__valetkey_ticket",
        "topic",
        "user_id",
        "user_name",
        "valetkey_conversation",
    ]);
    assert_eq!(names, wanted);
    let value = |name: &str| variables[name].as_str().unwrap_or_default().to_owned();
    assert_eq!((value("user_id").as_str(), value("user_name").as_str()), ("u-1", "Ada"));
    assert_eq!(variables["valetkey_conversation"], started["id"]);
    assert_eq!(value("secret__user_google_authorization"), format!("Bearer {}", value("secret__user_google_token")));
    assert_eq!(value("secret__valetkey_authorization"), format!("Bearer {}", value("secret__valetkey_ticket")));
    assert_eq!(value("secret__user_slack_token"), "not_connected", "a sentinel for the missing optional one");
    assert!(value("secret__valetkey_ticket").starts_with("vkt_"));

    let secrets: Vec<String> =
        variables.iter().filter(|(name, _)| name.starts_with("secret__")).map(|(_, v)| v.to_string()).collect();
    let mut rest = started.clone();
    for name in wanted.iter().filter(|name| name.starts_with("secret__")) {
        rest["initiation"]["dynamic_variables"][*name] = Value::Null;
    }
    for secret in secrets.iter().filter(|secret| !secret.contains("not_connected")) {
        assert!(!rest.to_string().contains(secret.trim_matches('"')), "a secret outside its variable");
    }
    let shown = &started["connections"];
    assert_eq!((&shown[0]["connection"], &shown[0]["hand_over"]), (&json!(google), &json!("inject")));
    assert_eq!((&shown[0]["status"], &shown[1]["status"]), (&json!("ready"), &json!("not_connected")));
    assert_eq!(started["refresh_tool"], "sanitized");
    assert!(started["conversation_id"].is_string() && shown[0]["expires_at"].is_string(), "{shown}");

    let mut talk = app.talk_directly(&started).await;
    talk.event("conversation_initiation_metadata").await;
    let said = talk.ask("use tool calendar_list {}").await;
    assert!(said.starts_with("calendar_list: ok."), "{said}");
    let said = talk.ask("use tool mail_list {}").await;
    assert!(said.contains("403"), "no broker rule allows it: {said}");
    talk.hang_up().await;
    app.finish().await;
}

#[tokio::test]
async fn of_two_accounts_the_first_named_is_injected_and_the_second_is_for_the_broker() {
    // API.md section 3
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let ada = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let grace = app.google(&platform, "u-1", Account::GRACE, Life::Fresh).await;
    let desk = desk(&app, &platform).await;
    for (first, second) in [(&ada, &grace), (&grace, &ada)] {
        let mut body = websocket(&desk, "u-1");
        body["connections"] = json!([{"provider": "google", "account": first, "hand_over": "inject"},
            {"provider": "google", "account": second, "hand_over": "inject"}]);
        let started = platform.post("/v1/conversations", &body).await.ok();
        let token = platform.post(&format!("/v1/connections/{first}/token"), &json!({})).await.ok();
        let variables = &started["initiation"]["dynamic_variables"];
        assert_eq!(variables["secret__user_google_token"], token["access_token"], "the first one's");
        let names = ["secret__user_google_token", "secret__user_google_authorization"];
        let shown = &started["connections"];
        assert_eq!((&shown[0]["connection"], &shown[1]["connection"]), (&json!(first), &json!(second)));
        assert_eq!((&shown[0]["hand_over"], &shown[1]["hand_over"]), (&json!("inject"), &json!("broker")));
        assert_eq!((&shown[0]["variables"], &shown[1]["variables"]), (&json!(names), &json!([])));
    }
    app.finish().await;
}

#[tokio::test]
async fn a_missing_required_account_is_424_and_nothing_is_created_upstream() {
    // RL-18
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let desk = desk(&app, &platform).await;
    let google = app.google(&platform, "u-2", Account::ADA, Life::Expired).await;
    app.street.tell("/revoke", json!({"provider": "google"})).await;
    for user in ["u-1", "u-2"] {
        for channel in ["websocket", "relay"] {
            let body = json!({"agent_id": desk.agent_id, "user": user, "channel": {"type": channel}});
            let refused = platform.post("/v1/conversations", &body).await;
            assert_eq!(refused.problem(), (424, "connection_required".to_owned()), "{user} {channel}");
            let problem = refused.json();
            assert_eq!(problem["provider"], "google");
            let link = problem["connect_url"].as_str().expect("a link for the user");
            assert!(link.starts_with(&app.url("connect/")), "{link}");
        }
    }
    assert_eq!(upstream_starts(&app).await, 0);
    assert!(platform.read("/v1/conversations").await.ok()["data"].as_array().is_some_and(Vec::is_empty));
    assert_eq!(platform.read(&format!("/v1/connections/{google}")).await.ok()["status"], "needs_reauth");
    app.finish().await;
}

#[tokio::test]
async fn what_is_broken_but_optional_becomes_a_sentinel() {
    // RL-18: two providers, each ready, missing, withdrawn or down.
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let optional = json!([{"provider": "google", "required": false}, {"provider": "slack", "required": false}]);
    let desk = app.desk(&platform, json!({ "needs": optional })).await;
    for (number, google) in ["ready", "missing", "withdrawn", "down"].into_iter().enumerate() {
        for (other, slack) in ["ready", "missing", "withdrawn", "down"].into_iter().enumerate() {
            let user = format!("u-{number}-{other}");
            if google != "missing" {
                let life = if google == "ready" { Life::Fresh } else { Life::Expired };
                app.google(&platform, &user, Account::ADA, life).await;
            }
            if slack != "missing" {
                let life = if slack == "ready" { Life::Fresh } else { Life::Expired };
                app.slack(&platform, &user, Account::ADA, life).await;
            }
            for (provider, state) in [("google", google), ("slack", slack)] {
                match state {
                    "withdrawn" => app.street.fault(provider, "refresh", "invalid_grant", 1000).await,
                    "down" => app.street.fault(provider, "refresh", "http_502_html", 1000).await,
                    _ => {}
                }
            }
            let started = app.start_websocket(&platform, &desk, &user).await;
            let variables = &started["initiation"]["dynamic_variables"];
            for (provider, state) in [("google", google), ("slack", slack)] {
                let token = variables[format!("secret__user_{provider}_token")].as_str().expect("always there");
                assert_eq!(token == "not_connected", state != "ready", "{user}: {provider} is {state}");
            }
            app.street.clear_faults().await;
        }
    }
    app.finish().await;
}

#[tokio::test]
async fn hanging_providers_take_their_budget_and_no_more() {
    // RL-19
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let optional = json!([{"provider": "google", "required": false}, {"provider": "slack", "required": false}]);
    let desk = app.desk(&platform, json!({ "needs": optional })).await;
    for provider in ["google", "slack"] {
        app.street.fault(provider, "refresh", "delay_ms:4000", 1).await;
    }
    app.google(&platform, "u-1", Account::ADA, Life::Expired).await;
    app.slack(&platform, "u-1", Account::ADA, Life::Expired).await;
    let watch = Stopwatch::start();
    let started = app.start_websocket(&platform, &desk, "u-1").await;
    assert!(watch.elapsed() < Duration::from_secs(3), "{:?}", watch.elapsed());
    assert_eq!(started["initiation"]["dynamic_variables"]["secret__user_google_token"], "not_connected");
    assert_eq!(started["initiation"]["dynamic_variables"]["secret__user_slack_token"], "not_connected");
    app.finish().await;
}

#[tokio::test]
async fn twenty_equal_starts_make_one_conversation() {
    // AP-11
    for wishes in Wishes::both() {
        let Some(app) = TestApp::start_with(wishes).await else { continue };
        let platform = app.platform().await;
        app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
        let desk = desk(&app, &platform).await;
        let keyed = platform.with("idempotency-key", "start-0001");
        let body = websocket(&desk, "u-1");
        let answers = join_all((0..20).map(|_| keyed.post("/v1/conversations", &body))).await;
        let (done, waiting): (Vec<_>, Vec<_>) = answers.into_iter().partition(|got| got.status == 201);
        assert!(!done.is_empty());
        for got in &waiting {
            assert_eq!(got.problem(), (409, "idempotency_conflict".to_owned()), "the first one has not ended");
        }
        let again = keyed.post("/v1/conversations", &body).await;
        assert_eq!((again.status, again.header("idempotency-replayed")), (201, "true"));
        let bodies: BTreeSet<&str> = done.iter().chain([&again]).map(|got| got.text.as_str()).collect();
        assert_eq!(bodies.len(), 1, "every answer is the same");
        assert_eq!(platform.read("/v1/conversations").await.ok()["data"].as_array().map(Vec::len), Some(1));
        assert_eq!(upstream_starts(&app).await, 1);
        let other = keyed.post("/v1/conversations", &websocket(&desk, "u-2")).await;
        assert_eq!(other.problem(), (422, "idempotency_mismatch".to_owned()));
        app.finish().await;
    }
}

#[tokio::test]
async fn a_key_gets_tokens_on_the_websocket_channel_only_if_it_may_read_tokens() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let desk = desk(&app, &platform).await;
    let starter = app.platform_key(&["conversations:write"]).await;
    let refused = starter.post("/v1/conversations", &websocket(&desk, "u-1")).await;
    assert_eq!(refused.problem(), (403, "insufficient_scope".to_owned()));
    assert_eq!(upstream_starts(&app).await, 0);
    let relay = starter.post("/v1/conversations", &json!({"agent_id": desk.agent_id, "user": "u-1"})).await.ok();
    assert!(relay.get("initiation").is_none(), "the relay keeps the secrets");
    let mut brokered = websocket(&desk, "u-1");
    brokered["connections"] = json!([{"provider": "google", "hand_over": "broker"}]);
    let started = starter.post("/v1/conversations", &brokered).await.ok();
    let variables = started["initiation"]["dynamic_variables"].as_object().expect("variables");
    assert!(!variables.contains_key("secret__user_google_token"), "a ticket opens nothing by itself");
    app.finish().await;
}

#[tokio::test]
async fn of_several_accounts_one_must_be_meant() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let desk = desk(&app, &platform).await;
    let ada = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let grace = app.google(&platform, "u-1", Account::GRACE, Life::Fresh).await;
    let ops = app.google(&platform, "u-1", Account::OPS, Life::Fresh).await;
    let chosen = |started: Value| started["connections"][0]["connection"].as_str().map(str::to_owned);
    let default = platform.post("/v1/conversations", &websocket(&desk, "u-1")).await.ok();
    assert_eq!(chosen(default).as_deref(), Some(ada.as_str()), "the first one is the default");
    let mut named = websocket(&desk, "u-1");
    named["connections"] = json!([{"provider": "google", "account": "GRACE@example.com"}]);
    let by_email = platform.post("/v1/conversations", &named).await.ok();
    assert_eq!(chosen(by_email).as_deref(), Some(grace.as_str()));

    platform.delete(&format!("/v1/connections/{ada}")).await.ok();
    let refused = platform.post("/v1/conversations", &websocket(&desk, "u-1")).await;
    assert_eq!(refused.problem(), (422, "ambiguous_account".to_owned()));
    let change = json!({"default": true});
    platform.request(reqwest::Method::PATCH, &format!("/v1/connections/{ops}"), Some(&change)).await.ok();
    let default = platform.post("/v1/conversations", &websocket(&desk, "u-1")).await.ok();
    assert_eq!(chosen(default).as_deref(), Some(ops.as_str()));

    named["connections"] = json!([{"provider": "google"}, {"provider": "google"}]);
    let twice = platform.post("/v1/conversations", &named).await;
    assert_eq!(twice.problem(), (422, "invalid".to_owned()), "the same account twice");
    app.finish().await;
}

#[tokio::test]
async fn an_agent_for_some_users_refuses_the_others() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let desk = app.desk(&platform, json!({"access": "granted", "needs": []})).await;
    platform.put("/v1/users/u-1", &json!({})).await.ok();
    let refused = platform.post("/v1/conversations", &websocket(&desk, "u-1")).await;
    assert_eq!(refused.problem(), (403, "not_granted".to_owned()));
    let grant = json!({"user": "u-1", "resource_type": "agent", "resource_id": desk.agent_id});
    platform.put("/v1/grants", &grant).await.ok();
    platform.post("/v1/conversations", &websocket(&desk, "u-1")).await.ok();
    let path = format!("/v1/grants?user=u-1&resource_type=agent&resource_id={}", desk.agent_id);
    platform.delete(&path).await.ok();
    assert_eq!(platform.post("/v1/conversations", &websocket(&desk, "u-1")).await.status, 403);
    assert_eq!(upstream_starts(&app).await, 1);
    app.finish().await;
}

#[tokio::test]
async fn reserved_names_and_unknown_fields_are_refused() {
    // AG-02
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let desk = app.desk(&platform, json!({"needs": []})).await;
    for name in ["secret__x", "Secret__x", "system__time", "user_id", "valetkey_conversation", "a b", ""] {
        let mut body = websocket(&desk, "u-1");
        body["dynamic_variables"] = json!({ name: "x" });
        let refused = platform.post("/v1/conversations", &body).await;
        assert_eq!(refused.problem(), (422, "invalid".to_owned()), "{name}");
    }
    for (field, value) in [("surprise", json!(1)), ("channel", json!({"type": "carrier_pigeon"}))] {
        let mut body = websocket(&desk, "u-1");
        body[field] = value;
        assert_eq!(platform.post("/v1/conversations", &body).await.status, 422, "{field}");
    }
    let nobody = json!({"agent_id": "agent_nobody", "user": "u-1"});
    assert_eq!(platform.post("/v1/conversations", &nobody).await.problem(), (404, "not_found".to_owned()));
    assert_eq!(upstream_starts(&app).await, 0);
    app.finish().await;
}

#[tokio::test]
async fn a_slack_token_that_never_expires_is_brokered_and_cannot_be_injected() {
    // AG-01
    let app = TestApp::start_with(Wishes { slack_without_rotation: true, ..Wishes::default() }).await.expect("SQLite");
    let platform = app.platform().await;
    app.slack(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let desk = app.desk(&platform, json!({"needs": [{"provider": "slack"}]})).await;
    let started = app.start_websocket(&platform, &desk, "u-1").await;
    assert_eq!(started["connections"][0]["hand_over"], "broker");
    assert_eq!(started["initiation"]["dynamic_variables"]["secret__user_slack_token"], "not_connected");
    let mut body = websocket(&desk, "u-1");
    body["connections"] = json!([{"provider": "slack", "hand_over": "inject"}]);
    let refused = platform.post("/v1/conversations", &body).await;
    assert_eq!(refused.problem(), (422, "not_injectable".to_owned()));
    // It was asked for, so it is not passed over in silence, whether it is needed or not.
    body["connections"][0]["required"] = json!(false);
    let refused = platform.post("/v1/conversations", &body).await;
    assert_eq!(refused.problem(), (422, "not_injectable".to_owned()));
    app.finish().await;
}

#[tokio::test]
async fn a_start_that_fails_upstream_leaves_no_conversation_open() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let desk = app.desk(&platform, json!({"needs": []})).await;
    assert!(app.street.eleven.fault("signed_url_500"));
    let refused = platform.post("/v1/conversations", &websocket(&desk, "u-1")).await;
    assert_eq!(refused.problem(), (502, "upstream_failed".to_owned()));
    let list = platform.read("/v1/conversations").await.ok();
    assert_eq!((&list["data"][0]["status"], list["data"].as_array().map(Vec::len)), (&json!("failed"), Some(1)));
    app.finish().await;
}

#[tokio::test]
async fn a_revoked_keys_conversations_go_on_or_end_with_it_as_wished() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let desk = desk(&app, &platform).await;
    for (wish, status, asked) in
        [("", "started", 200), ("?conversations=keep", "started", 200), ("?conversations=end", "ended", 410)]
    {
        let backend = app.platform_key(&["conversations:write", "tokens:read"]).await;
        let started = app.start_websocket(&backend, &desk, "u-1").await;
        let me = backend.read("/v1/me").await.ok();
        let key = me["key"]["id"].as_str().expect("an id");
        let refused = platform.delete(&format!("/v1/api-keys/{key}?conversations=perhaps")).await;
        assert_eq!(refused.problem(), (422, "invalid".to_owned()));
        let refused = platform.delete(&format!("/v1/api-keys/{key}?conversation=end")).await;
        assert_eq!(refused.problem(), (400, "malformed".to_owned()));
        assert_eq!(platform.delete(&format!("/v1/api-keys/{key}{wish}")).await.status, 204);
        assert_eq!(backend.read("/v1/me").await.status, 401);
        let conversation =
            platform.read(&format!("/v1/conversations/{}", started["id"].as_str().expect("an id"))).await.ok();
        assert_eq!(conversation["status"], status, "{wish}");
        let got = app.tool_of(&started, &desk).post("/tokens/refresh", &json!({"provider": "google"})).await;
        assert_eq!(got.status, asked, "{wish}: {}", got.text);
    }
    app.finish().await;
}

#[tokio::test]
async fn a_start_that_failed_upstream_can_be_made_again_with_its_key() {
    // AP-11: nothing was left behind, so the key is free.
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let desk = desk(&app, &platform).await;
    let keyed = platform.with("idempotency-key", "again");
    assert!(app.street.eleven.fault("signed_url_500"));
    assert_eq!(keyed.post("/v1/conversations", &websocket(&desk, "u-1")).await.problem().1, "upstream_failed");
    app.street.eleven.reset(false);
    let first = keyed.post("/v1/conversations", &websocket(&desk, "u-1")).await.ok();
    let again = keyed.post("/v1/conversations", &websocket(&desk, "u-1")).await.ok();
    assert_eq!(first["id"], again["id"]);
    app.finish().await;
}

#[tokio::test]
async fn what_no_provider_can_do_is_refused_when_it_is_said() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let desk = desk(&app, &platform).await;
    let mut unknown = websocket(&desk, "u-1");
    unknown["connections"] = json!([{"provider": "google"}, {"provider": "bogus"}]);
    let refused = platform.post("/v1/conversations", &unknown).await;
    assert_eq!((refused.status, &refused.json()["errors"][0]["field"]), (422, &json!("connections[1].provider")));
    for (need, field) in [
        (json!({"provider": "bogus"}), "needs[0].provider"),
        (json!({"provider": "google", "credential": "bot"}), "needs[0].credential"),
        (json!({"provider": "telegram", "hand_over": "inject"}), "needs[0].hand_over"),
    ] {
        let draft = json!({"workspace": "main", "needs": [need]});
        let refused = platform.put(&format!("/v1/agents/{}", desk.agent_id), &draft).await;
        assert_eq!((refused.status, &refused.json()["errors"][0]["field"]), (422, &json!(field)), "{}", refused.text);
    }
    let broker = json!({"workspace": "main", "broker": {"bogus": {"paths": ["**"]}}});
    let refused = platform.put(&format!("/v1/agents/{}", desk.agent_id), &broker).await;
    assert_eq!(refused.json()["errors"][0]["field"], "broker.bogus");
    app.finish().await;
}

#[tokio::test]
async fn telegram_has_no_hosted_link_and_none_is_offered() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let bots = app.street.sandbox.ask("/telegram/bots").await.expect("bots");
    let bot = json!({"bot_token": bots["bots"][0]["token"]});
    platform.put("/v1/integrations/telegram", &bot).await.ok();
    let wanted = json!({"user": "u-1", "providers": ["telegram"], "return_url": format!("{ORIGIN}/back")});
    let refused = platform.post("/v1/connect-sessions", &wanted).await;
    assert_eq!((refused.status, &refused.json()["errors"][0]["field"]), (422, &json!("providers[0]")));
    let desk = app.desk(&platform, json!({"needs": [{"provider": "telegram"}, {"provider": "google"}]})).await;
    let missing = platform.post("/v1/conversations", &websocket(&desk, "u-1")).await;
    assert_eq!(missing.problem(), (424, "connection_required".to_owned()));
    assert_eq!((&missing.json()["provider"], &missing.json()["connect_url"]), (&json!("telegram"), &Value::Null));
    app.finish().await;
}
