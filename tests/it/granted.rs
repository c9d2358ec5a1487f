//! What a provider has granted is kept, whoever hangs up; or it goes back, and takes nothing from those who live on the same.

use serde_json::{Value, json};
use valetkey::sandbox::person::{Page, Person};

use crate::handshakes::{at_the_portal, connections, exchanges, platform};
use crate::harness::{Account, CLIENT, Client, Life, TestApp, Wishes};

/// Connects or reconnects an account in the browser; the page at the end.
async fn connects(app: &TestApp, person: &mut Person, place: &str, account: Account) -> Page {
    person.visit(&app.url(&format!("connections/connect/{place}"))).await.expect("a page");
    let begun = person.submit("continue", &[]).await.expect("submitted");
    assert_eq!(begun.status, 303, "{}", begun.body);
    person.follow().await.expect("the consent page");
    person.consent(true, account.email, None).await.expect("consents");
    person.follow().await.expect("a page")
}

/// A user's one connection.
async fn the_one_of(platform: &Client, user: &str) -> Value {
    let mut all = connections(platform, user).await;
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn place(provider: &str, connection: &Value) -> String {
    format!("{provider}?connection={}", connection["id"].as_str().expect("an id"))
}

#[tokio::test]
async fn a_wrong_account_on_reconnect_costs_nobody_the_teams_bot_oa_10() {
    // fact sheet B.4: a lasting bot token belongs to app and team; whoever connects is given the same
    let app = TestApp::start_with(Wishes { slack_without_rotation: true, ..Wishes::default() }).await.expect("SQLite");
    let platform = platform(&app).await;
    let mut ada = at_the_portal(&app, &platform, "u-1").await;
    assert_eq!(connects(&app, &mut ada, "slack", Account::ADA).await.status, 200);
    let connection = the_one_of(&platform, "u-1").await;
    assert_eq!(connection["credentials"].as_array().map(Vec::len), Some(2), "her own and the bot's: {connection}");

    let shown = connects(&app, &mut ada, &place("slack", &connection), Account::GRACE).await;
    assert!(shown.body.contains("a different Slack account"), "{}", shown.body);
    assert_eq!(app.street.counter("slack/revocations").await, 1, "the other person's token, and not the bot's");
    assert_eq!(the_one_of(&platform, "u-1").await, connection);
    app.finish().await;
}

#[tokio::test]
async fn a_wrong_account_on_reconnect_costs_no_other_tenant_its_consent_oa_10() {
    // fact sheet A.6 and decision 0016: revoking ends all that the account has granted to the client, wherever it is kept
    for wishes in Wishes::both() {
        let Some(app) = TestApp::start_with(wishes).await else { continue };
        let staging = platform(&app).await;
        let production = app.key_of(&app.other_tenant("production").await, &["all"]).await;
        app.street.integrate(&production).await;
        let mut grace = at_the_portal(&app, &staging, "u-1").await;
        connects(&app, &mut grace, "google", Account::GRACE).await;
        let connection = the_one_of(&staging, "u-1").await;

        connects(&app, &mut grace, &place("google", &connection), Account::ADA).await;
        assert_eq!(app.street.counter("google/revocations").await, 1, "nobody lives on it");
        app.google(&production, "u-9", Account::ADA, Life::Fresh).await;
        connects(&app, &mut grace, &place("google", &connection), Account::ADA).await;
        assert_eq!(app.street.counter("google/revocations").await, 1, "somebody does");
        let ada = the_one_of(&production, "u-9").await;
        let refreshed = format!("/v1/connections/{}/refresh", ada["id"].as_str().expect("an id"));
        production.post(&refreshed, &json!({})).await.ok();
        app.finish().await;
    }
}

#[tokio::test]
async fn a_teams_bot_that_two_tenants_have_is_ended_by_the_last_of_them() {
    // fact sheet B.4 and decision 0016
    let app = TestApp::start_with(Wishes { slack_without_rotation: true, ..Wishes::default() }).await.expect("SQLite");
    let staging = platform(&app).await;
    let production = app.key_of(&app.other_tenant("production").await, &["all"]).await;
    app.street.integrate(&production).await;
    let mut ada = at_the_portal(&app, &staging, "u-1").await;
    connects(&app, &mut ada, "slack", Account::ADA).await;
    let bots = app.street.slack_installation(Account::GRACE, "chat:write").await;
    let credential = |kind: &str, tokens: &Value, scope: &str| json!({"kind": kind, "access_token": tokens["access_token"], "scopes": [scope]});
    let row = json!({"user": "u-9", "provider": "slack", "account": {"id": Account::GRACE.slack},
        "credentials": [credential("bot", &bots, "chat:write"), credential("user", &bots["authed_user"], "search:read")]});
    assert_eq!(production.post("/v1/connections/import", &json!({"connections": [row]})).await.status, 201);

    for (platform, user, ended) in [(&staging, "u-1", 1), (&production, "u-9", 1 + 2)] {
        let connection = the_one_of(platform, user).await;
        platform.delete(&format!("/v1/connections/{}", connection["id"].as_str().expect("an id"))).await.ok();
        assert_eq!(app.street.counter("slack/revocations").await, ended, "{user}");
    }
    app.finish().await;
}

/// Waits until so many statements wait for somebody's lock.
async fn waiting(app: &TestApp, number: usize) {
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    app.until("they wait for the lock", async || app.rows(waiting).await == [[number.to_string()]]).await;
}

#[tokio::test]
async fn what_a_client_was_granted_while_it_was_replaced_goes_back_to_it_oa_04() {
    let Some(app) = TestApp::start_with(Wishes { postgres: true, ..Wishes::default() }).await else { return };
    let platform = platform(&app).await;
    let mut person = at_the_portal(&app, &platform, "u-1").await;
    let mut administrator = app.database.begin().await;
    administrator.execute("UPDATE integrations SET revision = revision + 1 WHERE provider = 'google'").await;
    let saves = async {
        waiting(&app, 1).await;
        administrator.commit().await;
    };
    let (shown, ()) = tokio::join!(connects(&app, &mut person, "google", Account::ADA), saves);
    assert!(shown.url.path().starts_with("/connections/result/"), "{:?}", shown.url);
    assert!(shown.body.contains("settings"), "{}", shown.body);
    assert_eq!((exchanges(&app).await, app.street.counter("google/revocations").await), (1, 1));
    assert_eq!(app.entries("handshake.fail").await, ["failed"]);
    assert!(connections(&platform, "u-1").await.is_empty());
    app.finish().await;
}

#[tokio::test]
async fn a_former_clients_consent_is_left_to_the_tenant_that_still_has_it() {
    // fact sheet A.6 and decision 0016
    for changed in ["client-2", CLIENT] {
        for wishes in Wishes::both() {
            let Some(app) = TestApp::start_with(wishes).await else { continue };
            let staging = platform(&app).await;
            let production = app.key_of(&app.other_tenant("production").await, &["all"]).await;
            app.street.integrate(&production).await;
            let mut ada = at_the_portal(&app, &staging, "u-1").await;
            connects(&app, &mut ada, "google", Account::ADA).await;
            let connection = the_one_of(&staging, "u-1").await;
            app.google(&production, "u-9", Account::ADA, Life::Fresh).await;

            // Another client, or another secret of the same one.
            let draft = json!({"client_id": changed, "client_secret": "GOCSPX-vkcanary-of-staging-alone"});
            staging.put("/v1/integrations/google", &draft).await.ok();
            let left = staging.delete(&format!("/v1/connections/{}", connection["id"].as_str().expect("an id"))).await;
            assert_eq!(left.ok()["revoked"], false);
            assert_eq!(app.street.counter("google/revocations").await, 0, "{changed}");
            app.finish().await;
        }
    }
}

#[tokio::test]
async fn what_a_code_has_brought_is_kept_when_its_browser_has_gone_away() {
    let Some(app) = TestApp::start_with(Wishes { postgres: true, ..Wishes::default() }).await else { return };
    let platform = platform(&app).await;
    let mut person = at_the_portal(&app, &platform, "u-1").await;
    let mut somebody = app.database.begin().await;
    somebody.execute("SELECT id FROM integrations FOR NO KEY UPDATE").await;
    tokio::select! {
        shown = connects(&app, &mut person, "google", Account::ADA) => panic!("{}", shown.body),
        () = waiting(&app, 1) => {}
    }
    somebody.commit().await;
    app.until("it is kept", async || connections(&platform, "u-1").await.len() == 1).await;
    assert_eq!((exchanges(&app).await, app.street.counter("google/revocations").await), (1, 0));
    app.finish().await;
}

#[tokio::test]
async fn a_consent_does_not_wait_for_whoever_moves_in() {
    let Some(app) = TestApp::start_with(Wishes { postgres: true, ..Wishes::default() }).await else { return };
    let platform = platform(&app).await;
    let mut person = at_the_portal(&app, &platform, "u-1").await;
    let mut import = app.database.begin().await;
    import.execute("SELECT id FROM integrations FOR SHARE").await;
    assert_eq!(connects(&app, &mut person, "google", Account::ADA).await.status, 200);
    assert_eq!(connections(&platform, "u-1").await.len(), 1);
    import.commit().await;
    app.finish().await;
}

#[tokio::test]
async fn of_a_consent_and_an_erasure_at_the_same_time_nothing_is_left() {
    // Whichever comes first.
    let Some(app) = TestApp::start_with(Wishes { postgres: true, ..Wishes::default() }).await else { return };
    let platform = platform(&app).await;
    let mut person = at_the_portal(&app, &platform, "u-1").await;
    let mut somebody = app.database.begin().await;
    somebody.execute("SELECT id FROM integrations FOR NO KEY UPDATE").await;
    let lets_go = async {
        waiting(&app, 2).await;
        somebody.commit().await;
    };
    let consent = connects(&app, &mut person, "google", Account::ADA);
    let erasure = async { platform.delete("/v1/users/u-1").await.ok() };
    tokio::join!(consent, erasure, lets_go);
    assert_eq!((exchanges(&app).await, app.street.counter("google/revocations").await), (1, 1));
    let living =
        "SELECT id FROM connections WHERE deleted_at IS NULL UNION SELECT id FROM credentials WHERE deleted_at IS NULL";
    assert!(app.rows(living).await.is_empty());
    app.finish().await;
}
