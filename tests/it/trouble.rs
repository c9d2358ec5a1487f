//! When providers are down, refuse, or answer into the void.

use std::time::Duration;

use serde_json::{Value, json};
use valetkey::clock::Stopwatch;

use crate::harness::{Account, Client, Life, TestApp, Wishes};

async fn token(platform: &Client, id: &str, min_ttl: u64) -> crate::harness::Got {
    platform.post(&format!("/v1/connections/{id}/token"), &json!({ "min_ttl": min_ttl })).await
}

async fn connection(platform: &Client, id: &str) -> Value {
    platform.read(&format!("/v1/connections/{id}")).await.ok()
}

#[tokio::test]
async fn while_the_provider_is_down_a_living_token_is_lent_and_called_degraded() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    for fault in ["http_502_html", "drop_before", "http_429:30", "garbage"] {
        let user = format!("u-{}", fault.len());
        let id = app.google(&platform, &user, Account::ADA, Life::Fresh).await;
        app.street.fault("google", "refresh", fault, 1000).await;
        app.advance(45);
        let got = token(&platform, &id, 1800).await.ok();
        assert_eq!((&got["degraded"], &got["generation"]), (&json!(true), &json!(1)), "{fault}");
        assert_eq!(got["expires_in"], 900, "{fault}");
        app.until("the connection says so", async || connection(&platform, &id).await["degraded"] == true).await;
        assert_eq!(connection(&platform, &id).await["status"], "active", "{fault}: nobody has to do anything");

        // When its life is over there is nothing to lend, and the answer says when to come again.
        app.advance(20);
        let refused = token(&platform, &id, 60).await;
        assert!([502, 503, 429].contains(&refused.status), "{fault}: {} {}", refused.status, refused.text);
        assert!(!refused.header("retry-after").is_empty(), "{fault}");
        app.street.clear_faults().await;
        app.advance(30);
        app.until("it heals by itself", async || token(&platform, &id, 60).await.status == 200).await;
        let healed = connection(&platform, &id).await;
        assert_eq!((&healed["degraded"], &healed["status"]), (&json!(false), &json!("active")), "{fault}");
        platform.delete(&format!("/v1/connections/{id}")).await.ok();
    }
    app.finish().await;
}

#[tokio::test]
async fn rl_20_who_holds_a_living_token_does_not_wait_for_a_slow_provider() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let id = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    app.street.fault("google", "refresh", "delay_ms:8000", 1).await;
    app.advance(45);
    let watch = Stopwatch::start();
    let readers = (0..8).map(|_| token(&platform, &id, 1800));
    for got in futures_util::future::join_all(readers).await {
        let got = got.ok();
        assert_eq!((&got["degraded"], &got["generation"]), (&json!(true), &json!(1)), "{got}");
    }
    assert!(watch.elapsed() < Duration::from_secs(6), "{:?}", watch.elapsed());
    app.until("the new one comes all the same", async || token(&platform, &id, 60).await.ok()["generation"] == 2).await;
    app.finish().await;
}

#[tokio::test]
async fn a_withdrawn_grant_needs_its_user_and_says_so_everywhere() {
    for wishes in Wishes::both() {
        let Some(app) = TestApp::start_with(wishes).await else { continue };
        let platform = app.platform().await;
        let google = app.google(&platform, "u-1", Account::ADA, Life::Expired).await;
        let slack = app.slack(&platform, "u-1", Account::ADA, Life::Fresh).await;
        app.street.tell("/revoke", json!({"provider": "google"})).await;
        app.street.tell("/revoke", json!({"provider": "slack"})).await;
        let refused = token(&platform, &google, 60).await;
        assert_eq!(refused.problem(), (409, "needs_reauth".to_owned()));
        let shown = connection(&platform, &google).await;
        assert_eq!(shown["status"], "needs_reauth");
        assert!(shown["reason"].is_string(), "{shown}");
        app.advance(12 * 60);
        assert_eq!(token(&platform, &slack, 60).await.problem(), (409, "needs_reauth".to_owned()));
        let listed = platform.read("/v1/connections?status=needs_reauth").await.ok();
        assert_eq!(listed["data"].as_array().map(Vec::len), Some(2));

        let asked = app.street.counter("google/token_requests/refresh_token").await;
        assert_eq!(token(&platform, &google, 60).await.status, 409);
        app.advance(60);
        assert_eq!(app.street.counter("google/token_requests/refresh_token").await, asked, "nobody asks again in vain");
        assert_eq!(app.entries("connection.needs_reauth").await.len(), 2);
        app.finish().await;
    }
}

#[tokio::test]
async fn a_wrong_client_secret_pauses_the_integration_and_no_connection() {
    // API.md section 6, points 3 and 4
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let google = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let client = |secret: &str| json!({"client_id": "client-1", "client_secret": secret, "scopes": ["openid"]});
    platform.put("/v1/integrations/google", &client("vkcanary-not-the-secret")).await.ok();
    app.advance(45);
    let got = token(&platform, &google, 1800).await.ok();
    assert_eq!((&got["degraded"], &got["expires_in"]), (&json!(true), &json!(900)));
    let shown = connection(&platform, &google).await;
    assert_eq!((&shown["status"], &shown["degraded"]), (&json!("active"), &json!(true)), "{shown}");
    let integration = platform.read("/v1/integrations/google").await.ok();
    assert_eq!(integration["status"], "misconfigured", "{integration}");

    // Without life it is the tenant who can help.
    app.advance(20);
    assert_eq!(token(&platform, &google, 60).await.problem(), (409, "misconfigured".to_owned()));
    platform.put("/v1/integrations/google", &client(app.street.client_secret())).await.ok();
    let healed = token(&platform, &google, 60).await.ok();
    assert_eq!((&healed["degraded"], &healed["generation"]), (&json!(false), &json!(2)));
    assert_eq!(platform.read("/v1/integrations/google").await.ok()["status"], "active");
    app.finish().await;
}

#[tokio::test]
async fn a_refresh_with_a_wrong_client_secret_is_misconfigured_and_the_token_is_degraded_everywhere() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let id = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let neighbour = app.google(&platform, "u-2", Account::GRACE, Life::Fresh).await;
    let client = |secret: &str| json!({"client_id": "client-1", "client_secret": secret, "scopes": ["openid"]});
    let refresh = format!("/v1/connections/{id}/refresh");
    let degraded = async |id: &str| {
        let lent = token(&platform, id, 60).await.ok();
        (lent["degraded"].clone(), connection(&platform, id).await["degraded"].clone())
    };
    assert_eq!(degraded(&id).await, (json!(false), json!(false)));
    platform.put("/v1/integrations/google", &client("vkcanary-not-the-secret")).await.ok();
    for _ in 0..2 {
        let refused = platform.request(reqwest::Method::POST, &refresh, None).await;
        assert_eq!(refused.problem(), (409, "misconfigured".to_owned()));
    }
    assert!(connection(&platform, &id).await["last_error"].is_string());
    assert_eq!(degraded(&id).await, (json!(true), json!(true)));
    assert_eq!(degraded(&neighbour).await, (json!(true), json!(true)), "no refresh will come for it either");

    platform.put("/v1/integrations/google", &client(app.street.client_secret())).await.ok();
    assert_eq!(degraded(&neighbour).await, (json!(false), json!(false)));
    assert_eq!(degraded(&id).await, (json!(true), json!(true)), "its last refresh failed");
    platform.request(reqwest::Method::POST, &refresh, None).await.ok();
    assert_eq!(degraded(&id).await, (json!(false), json!(false)));
    app.finish().await;
}

#[tokio::test]
async fn a_wrong_client_secret_is_probed_once_a_minute() {
    // API.md section 6, point 4: it becomes readable again by itself.
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let id = app.google(&platform, "u-1", Account::ADA, Life::Expired).await;
    app.street.fault("google", "refresh", "invalid_client", 1).await;
    assert_eq!(token(&platform, &id, 60).await.problem(), (409, "misconfigured".to_owned()));
    for _ in 0..5 {
        assert_eq!(token(&platform, &id, 60).await.status, 409);
    }
    assert_eq!(app.street.counter("google/token_requests/refresh_token").await, 1);
    app.advance(2);
    app.until("the probe has healed it", async || token(&platform, &id, 60).await.status == 200).await;
    assert_eq!(platform.read("/v1/integrations/google").await.ok()["status"], "active");
    app.finish().await;
}

#[tokio::test]
async fn a_rotated_token_whose_answer_was_lost_is_never_spent_twice() {
    // RL-04; API.md section 6, point 5
    let wishes = Wishes { providers: vec![("slack", "replay", "unsafe")], ..Wishes::default() };
    let app = TestApp::start_with(wishes).await.expect("SQLite");
    let platform = app.platform().await;
    let id = app.slack(&platform, "u-1", Account::ADA, Life::Fresh).await;
    app.street.tell("/rotation", json!({"reuse": "family"})).await;
    app.street.fault("slack", "refresh", "drop_after_commit", 1).await;
    app.advance(11 * 60);
    let got = token(&platform, &id, 6 * 3600).await.ok();
    assert_eq!((&got["degraded"], &got["generation"]), (&json!(true), &json!(1)), "the old token still has life");
    app.advance(3);
    app.until("doubt has ended", async || connection(&platform, &id).await["status"] == "needs_reauth").await;
    assert_eq!(connection(&platform, &id).await["reason"], "rotation_response_lost");
    let got = token(&platform, &id, 60).await.ok();
    assert_eq!(got["degraded"], true, "it is lent for as long as it lives");
    app.advance(60);
    assert_eq!(token(&platform, &id, 60).await.problem(), (409, "needs_reauth".to_owned()));
    assert_eq!(app.street.counter("slack/token_requests/refresh_token").await, 1, "sent once");
    assert_eq!(app.street.counter("slack/reuses").await, 0);
    app.finish().await;
}

#[tokio::test]
async fn after_a_servers_error_a_rotating_token_serves_to_its_end_and_is_refreshed_then() {
    // RL-06; decision 0013
    let wishes = Wishes { providers: vec![("slack", "replay", "unsafe")], ..Wishes::default() };
    let app = TestApp::start_with(wishes).await.expect("SQLite");
    let platform = app.platform().await;
    let id = app.slack(&platform, "u-1", Account::ADA, Life::Fresh).await;
    app.street.tell("/rotation", json!({"reuse": "family"})).await;
    app.street.fault("slack", "refresh", "http_502_html", 1).await;
    app.advance(11 * 60);
    let got = token(&platform, &id, 6 * 3600).await.ok();
    assert_eq!((&got["degraded"], &got["generation"]), (&json!(true), &json!(1)));
    app.advance(30);
    let shown = connection(&platform, &id).await;
    assert_eq!(shown["status"], "active", "two minutes of doubt are long over: {shown}");
    assert!(shown["explanation"].as_str().is_some_and(|words| words.contains("likely good")), "{shown}");
    let mut user = app.end_user(&platform, "u-1").await;
    let page = user.get(&format!("/connections/{id}")).await.text;
    assert!(page.contains("was in trouble during the last renewal"), "{page}");
    app.advance(30);
    let got = token(&platform, &id, 60).await.ok();
    assert_eq!((&got["degraded"], &got["generation"]), (&json!(false), &json!(2)));
    assert_eq!(app.street.counter("slack/reuses").await, 0);
    app.finish().await;
}

#[tokio::test]
async fn whoever_forces_a_refresh_is_told_what_stands_in_its_way() {
    // API.md, errors: 429 with the provider's own time, 503 while the outcome is in doubt; the tokens live all the while.
    let wishes = Wishes { providers: vec![("slack", "replay", "unsafe")], ..Wishes::default() };
    let mut app = TestApp::start_with(wishes).await.expect("SQLite");
    let platform = app.platform().await;
    let google = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let slack = app.slack(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let refresh =
        async |id: &str| platform.request(reqwest::Method::POST, &format!("/v1/connections/{id}/refresh"), None).await;
    app.street.fault("google", "refresh", "http_429:600", 1).await;
    for attempt in 1..=2 {
        let got = refresh(&google).await;
        assert_eq!(got.problem(), (429, "rate_limited".to_owned()), "attempt {attempt}");
        let wait: u64 = got.header("retry-after").parse().expect("seconds");
        assert!((595..=600).contains(&wait), "{wait}");
    }
    assert_eq!(app.street.counter("google/token_requests/refresh_token").await, 1, "nothing is sent inside the pause");

    app.street.fault("slack", "refresh", "drop_before", 1).await;
    for attempt in 1..=2 {
        let got = refresh(&slack).await;
        assert_eq!(got.problem(), (503, "refresh_in_progress".to_owned()), "attempt {attempt}");
        let wait: u64 = got.header("retry-after").parse().expect("seconds");
        assert!((100..=120).contains(&wait), "{wait}");
    }
    for id in [&google, &slack] {
        assert_eq!(token(&platform, id, 0).await.ok()["degraded"], true);
    }

    // A server's error leaves a token that is likely good, and tried again when the other one has ended.
    let other = app.slack(&platform, "u-2", Account::GRACE, Life::Fresh).await;
    app.street.fault("slack", "refresh", "http_502_html", 1).await;
    refresh(&other).await;
    app.advance(5);
    let got = refresh(&other).await;
    assert_eq!(got.problem(), (503, "refresh_in_progress".to_owned()));
    let wait: u64 = got.header("retry-after").parse().expect("seconds");
    assert!((11 * 3600..=12 * 3600).contains(&wait), "{wait}");

    // The same key may come again with a refresh that has brought nothing.
    let third = app.google(&platform, "u-3", Account::GRACE, Life::Fresh).await;
    app.advance(10);
    app.street.fault("google", "refresh", "http_502_html", 3).await;
    // Its flight tries again after a pause.
    app.let_time_run();
    let keyed = platform.with("idempotency-key", "once");
    let path = format!("/v1/connections/{third}/refresh");
    let again = async || keyed.request(reqwest::Method::POST, &path, None).await;
    assert_eq!(again().await.problem(), (502, "upstream_failed".to_owned()));
    app.street.clear_faults().await;
    assert_eq!(again().await.status, 200, "nothing was left behind by the first");
    app.finish().await;
}

#[tokio::test]
async fn an_answer_lost_within_the_providers_grace_is_fetched_again() {
    // RL-04; B.4: Slack honours the used token for a while.
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let id = app.slack(&platform, "u-1", Account::ADA, Life::Expired).await;
    app.street.fault("slack", "refresh", "drop_after_commit", 1).await;
    let first = token(&platform, &id, 60).await;
    assert!([200, 502, 503].contains(&first.status), "{}", first.text);
    app.clock.advance(Duration::from_secs(40));
    app.until("the replay has brought it", async || token(&platform, &id, 60).await.status == 200).await;
    assert_eq!(app.street.counter("slack/replays_in_grace").await, 1);
    assert_eq!(connection(&platform, &id).await["status"], "active");
    app.finish().await;
}

#[tokio::test]
async fn a_refresh_that_answers_for_another_account_lends_nothing_and_is_quarantined() {
    // OA-10
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let id = app.google(&platform, "u-1", Account::ADA, Life::Expired).await;
    app.street.fault("google", "refresh", "swap_subject", 1).await;
    let refused = token(&platform, &id, 60).await;
    assert_eq!(refused.problem(), (409, "needs_reauth".to_owned()));
    let shown = connection(&platform, &id).await;
    assert_eq!((&shown["status"], &shown["reason"]), (&json!("quarantined"), &json!("identity_changed")));
    assert_eq!(token(&platform, &id, 60).await.status, 409, "nor later");
    assert!(app.entries("token.read").await.is_empty());
    app.finish().await;
}

#[tokio::test]
async fn an_attempt_whose_holder_died_is_told_before_anybody_has_settled_it() {
    // RL-03, RL-06
    let app = TestApp::start_with(Wishes { providers: vec![("SLACK", "REPLAY", "unsafe")], ..Wishes::default() })
        .await
        .expect("SQLite");
    let platform = app.platform().await;
    let id = app.slack(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let (now, end) = (crate::harness::START, crate::harness::START + 30_000);
    let claim = format!(
        "UPDATE credentials SET phase = 'sent', fence = 1, sent_at = {now}, lease_owner = 'dead', lease_until = {end}, due_at = {end}"
    );
    app.database.execute(&claim).await;
    assert_eq!(connection(&platform, &id).await["degraded"], false, "somebody is at it");
    app.advance(1);
    let shown = connection(&platform, &id).await;
    assert_eq!((&shown["status"], &shown["degraded"]), (&json!("active"), &json!(true)));
    assert_eq!(shown["last_error"], "in_doubt");
    let lent = token(&platform, &id, 60).await.ok();
    assert_eq!((&lent["generation"], &lent["degraded"]), (&json!(1), &json!(true)));
    app.advance(2);
    app.until("the sweep has settled it, though nobody needs a new token", async || {
        connection(&platform, &id).await["reason"] == "rotation_response_lost"
    })
    .await;
    assert_eq!(app.street.counter("slack/token_requests/refresh_token").await, 0, "and nothing was sent again");
    app.finish().await;
}

#[tokio::test]
async fn the_house_closes_while_a_refresh_waits_for_a_better_time() {
    // RL-32
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.street.fault("google", "refresh", "http_502_html", 1000).await;
    let id = app.google(&platform, "u-1", Account::ADA, Life::Expired).await;
    let (asking, path) = (platform.clone(), format!("/v1/connections/{id}/token"));
    let asked = async { asking.post(&path, &json!({})).await.status };
    let closed = async {
        app.until("the refresh was tried", async || {
            app.street.counter("google/token_requests/refresh_token").await > 0
        })
        .await;
        let watch = Stopwatch::start();
        app.finish().await;
        watch.elapsed()
    };
    let (status, took) = futures_util::join!(asked, closed);
    assert!([502, 503].contains(&status), "{status}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}
