//! Disconnecting when the provider does not answer: it ends here at once, and there as soon as the provider can be reached (OA-17).

use std::time::Duration;

use serde_json::json;

use crate::harness::{Account, Client, Life, TestApp, Wishes};

const DAY: u64 = 24 * 60;

/// Whatever is left to be ended.
const LEFT: &str = "SELECT credential_id FROM revocations";

/// A Google connection that was ended while Google did not answer `failures` times.
async fn left(app: &TestApp, platform: &Client, failures: u32) {
    let connection = app.google(platform, "u-1", Account::ADA, Life::Fresh).await;
    app.street.fault("google", "revoke", "http_502_html", failures).await;
    let ended = platform.delete(&format!("/v1/connections/{connection}")).await.ok();
    assert_eq!(ended, json!({"deleted": true, "revoked": false}));
    assert_eq!(app.rows(LEFT).await.len(), 1);
}

/// What the job does by itself every quarter of a minute, now and then at the same time.
async fn retry(app: &TestApp) {
    app.rooms().credentials.revocations_retry().await.expect("retries");
}

async fn nothing_is_left(app: &TestApp) {
    app.until("nothing is left", async || app.rows(LEFT).await.is_empty()).await;
}

#[tokio::test]
async fn oa_17_what_a_failing_provider_has_not_ended_is_ended_later() {
    for wishes in Wishes::both() {
        let Some(app) = TestApp::start_with(wishes).await else { continue };
        let platform = app.platform().await;
        left(&app, &platform, 3).await;
        retry(&app).await;
        assert_eq!(app.rows(LEFT).await.len(), 1, "whoever disconnected may still be at it");
        // One, two and four minutes later.
        for _ in 0..8 {
            app.clock.advance(Duration::from_secs(60));
            retry(&app).await;
        }
        nothing_is_left(&app).await;
        assert_eq!(app.street.counter("google/revocations").await, 1);
        assert_eq!(app.entries("credential.revoke").await, ["failed", "allowed"]);
        app.finish().await;
    }
}

#[tokio::test]
async fn oa_17_a_provider_that_names_a_time_is_not_asked_before_it() {
    // RFC 7009 section 2.2.1
    for wishes in Wishes::both() {
        let Some(app) = TestApp::start_with(wishes).await else { continue };
        let platform = app.platform().await;
        let connection = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
        app.street.fault("google", "revoke", "http_429:1000", 1).await;
        platform.delete(&format!("/v1/connections/{connection}")).await.ok();
        for _ in 0..9 {
            app.clock.advance(Duration::from_secs(100));
            retry(&app).await;
        }
        assert_eq!(app.street.counter("google/revocations").await, 0, "after 900 of 1000 seconds");
        assert_eq!(app.rows(LEFT).await.len(), 1);
        app.clock.advance(Duration::from_secs(101));
        retry(&app).await;
        nothing_is_left(&app).await;
        assert_eq!(app.street.counter("google/revocations").await, 1);
        app.finish().await;
    }
}

#[tokio::test]
async fn oa_17_after_a_day_it_is_given_up_and_said() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    left(&app, &platform, 1000).await;
    for _ in 0..=DAY / 10 {
        app.clock.advance(Duration::from_secs(600));
        retry(&app).await;
    }
    app.clock.advance(Duration::from_secs(3600));
    retry(&app).await;
    nothing_is_left(&app).await;
    assert_eq!(app.entries("credential.revoke").await, ["failed", "failed"], "the first and the last time");
    app.finish().await;
}

#[tokio::test]
async fn whoever_connects_again_is_not_ended_by_what_was_left() {
    // fact sheet A.6: ending any token ends all that the account has granted
    for wishes in Wishes::both() {
        let Some(app) = TestApp::start_with(wishes).await else { continue };
        let platform = app.platform().await;
        left(&app, &platform, 1).await;
        let again = app.google(&platform, "u-2", Account::ADA, Life::Fresh).await;
        app.clock.advance(Duration::from_secs(120));
        retry(&app).await;
        nothing_is_left(&app).await;
        assert_eq!(app.street.counter("google/revocations").await, 0);
        platform.post(&format!("/v1/connections/{again}/refresh"), &json!({})).await.ok();
        app.finish().await;
    }
}

#[tokio::test]
async fn what_was_left_of_an_erased_user_cannot_be_read_any_more() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    left(&app, &platform, 1).await;
    platform.delete("/v1/users/u-1").await.ok();
    app.clock.advance(Duration::from_secs(120));
    retry(&app).await;
    nothing_is_left(&app).await;
    assert_eq!(app.street.counter("google/revocations").await, 0);
    app.finish().await;
}

/// GitLab at this host, and a connection there that a platform brings.
async fn gitlab(platform: &Client, host: &str, user: Option<&str>) -> Option<String> {
    let draft = json!({"client_id": "vault", "client_secret": "vkcanary-gitlabs", "scopes": ["api"], "variables": {"host": host}});
    platform.put("/v1/integrations/gitlab", &draft).await.ok();
    let user = user?;
    let tokens = json!({"kind": "user", "access_token": format!("vkcanary-access-{user}"), "scopes": ["api"],
        "refresh_token": format!("vkcanary-refresh-{user}"), "expires_at": "2099-01-01T00:00:00Z"});
    let row = json!({"user": user, "provider": "gitlab", "account": {"id": format!("{host}/{user}")}, "credentials": [tokens]});
    let moved = platform.post("/v1/connections/import", &json!({ "connections": [row] })).await.ok();
    moved["data"][0]["id"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn oa_04_what_one_host_has_granted_is_shown_to_no_other_when_it_is_ended() {
    for wishes in Wishes::both() {
        let Some(app) = TestApp::start_with(wishes).await else { continue };
        let platform = app.platform().await;
        // Nobody is there, so that it is tried again.
        let one = gitlab(&platform, "one.invalid", Some("u-1")).await.expect("connected");
        let other = gitlab(&platform, "one.invalid", Some("u-2")).await.expect("connected");
        assert_eq!(platform.delete(&format!("/v1/connections/{one}")).await.ok()["revoked"], false);
        app.clock.advance(Duration::from_secs(61));
        retry(&app).await;
        app.until("it was asked again", async || {
            app.rows("SELECT credential_id FROM revocations WHERE attempts > 0").await.len() == 1
        })
        .await;

        gitlab(&platform, "two.invalid", None).await;
        assert_eq!(platform.delete(&format!("/v1/connections/{other}")).await.ok()["revoked"], false);
        assert_eq!(app.rows(LEFT).await.len(), 1, "what was granted elsewhere is not kept to be ended here");
        app.clock.advance(Duration::from_secs(3600));
        retry(&app).await;
        nothing_is_left(&app).await;
        assert_eq!(app.entries("credential.revoke").await, ["failed", "failed", "failed"], "and each was said");
        app.finish().await;
    }
}
