//! Handshakes with real doors on both sides: a person goes to the provider and comes back to the house.

use serde_json::{Value, json};
use url::Url;
use valetkey::sandbox::person::{Page, Person};

use crate::harness::{Account, Client, Life, ORIGIN, TestApp, Wishes};

/// A platform whose clients may send people back.
pub async fn platform(app: &TestApp) -> Client {
    let platform = app.platform().await;
    app.street.lets_back(&platform).await;
    platform
}

/// The user, signed in through the portal.
pub async fn at_the_portal(app: &TestApp, platform: &Client, user: &str) -> Person {
    let link = platform.post("/v1/portal-sessions", &json!({ "user": user })).await.ok();
    let mut person = app.person();
    person.visit(link["url"].as_str().expect("a link")).await.expect("a page");
    person.submit("continue", &[]).await.expect("submitted");
    assert_eq!(person.follow().await.expect("a page").status, 200);
    person
}

/// Presses Continue; the answer is not followed.
async fn begin(app: &TestApp, person: &mut Person, query: &str) -> Page {
    person.visit(&app.url(&format!("connections/connect/google{query}"))).await.expect("a page");
    person.submit("continue", &[]).await.expect("submitted")
}

/// Goes to Google and agrees; the callback that Google leads to, not visited yet.
async fn agree(app: &TestApp, person: &mut Person, query: &str) -> Url {
    let begun = begin(app, person, query).await;
    assert_eq!(begun.status, 303, "{}", begun.body);
    person.follow().await.expect("the consent page");
    person.consent(true, "ada@example.com", None).await.expect("consents").location().expect("a callback")
}

pub async fn exchanges(app: &TestApp) -> u64 {
    app.street.counter("google/token_requests/authorization_code").await
}

pub async fn connections(platform: &Client, user: &str) -> Vec<Value> {
    let list = platform.read(&format!("/v1/connections?user={user}")).await.ok();
    list["data"].as_array().cloned().expect("a list")
}

/// The callback as if this issuer had sent it.
fn from_issuer(callback: &Url, issuer: &str) -> Url {
    let mut changed = callback.clone();
    let others = callback.query_pairs().filter(|(name, _)| name != "iss");
    changed.query_pairs_mut().clear().extend_pairs(others).append_pair("iss", issuer);
    changed
}

#[tokio::test]
async fn a_callback_of_another_issuer_is_refused_before_any_exchange() {
    // OA-05
    let app = TestApp::start().await;
    let platform = platform(&app).await;
    let mut person = at_the_portal(&app, &platform, "u-1").await;
    let ours = app.street.sandbox.google.as_str().trim_end_matches('/').to_owned();
    for (number, wrong) in ["https://evil.example", &format!("{ours}/"), &ours.to_uppercase(), ""].iter().enumerate() {
        let callback = agree(&app, &mut person, "").await;
        let shown = person.visit(from_issuer(&callback, wrong).as_str()).await.expect("a page");
        assert!(shown.url.path().starts_with("/connections/result/"), "{:?}", shown.url);
        assert_eq!(app.entries("handshake.fail").await.len(), number + 1, "{wrong}");
        // The state is used up, so the right issuer comes too late.
        let late = person.visit(from_issuer(&callback, &ours).as_str()).await.expect("a page");
        assert_eq!(late.status, 400, "{wrong}");
    }
    assert_eq!(exchanges(&app).await, 0, "no code was shown to anybody");
    assert!(connections(&platform, "u-1").await.is_empty());

    let callback = agree(&app, &mut person, "").await;
    let connected = person.visit(from_issuer(&callback, &ours).as_str()).await.expect("a page");
    assert_eq!(connected.status, 200, "{}", connected.body);
    assert_eq!((exchanges(&app).await, connections(&platform, "u-1").await.len()), (1, 1));
    app.finish().await;
}

#[tokio::test]
async fn who_comes_too_late_or_twice_is_told_so_in_the_own_browser_and_nobody_else_is() {
    // OA-01
    let app = TestApp::start().await;
    let platform = platform(&app).await;
    let mut person = at_the_portal(&app, &platform, "u-1").await;
    let used = agree(&app, &mut person, "").await;
    assert_eq!(person.visit(used.as_str()).await.expect("a page").status, 200);
    let late = agree(&app, &mut person, "").await;
    app.clock.advance(std::time::Duration::from_secs(601));
    for (callback, words) in [(used, "each one works only once"), (late, "took more than ten minutes")] {
        let shown = person.visit(callback.as_str()).await.expect("a page");
        assert_eq!(shown.status, 400);
        assert!(shown.body.contains(words), "{}", shown.body);

        let mut other = at_the_portal(&app, &platform, "u-1").await;
        let shown = other.visit(callback.as_str()).await.expect("a page");
        assert_eq!(shown.status, 400);
        assert!(shown.body.contains("begun in this browser"), "{}", shown.body);
    }
    assert_eq!(exchanges(&app).await, 1, "nothing was shown to the provider");
    app.finish().await;
}

#[tokio::test]
async fn an_answer_without_an_issuer_is_not_of_a_provider_that_always_names_itself() {
    // OA-05, RFC 9207 section 2.4
    let names = Wishes { catalogue: Some("[google.endpoints]\nnames_issuer = true"), ..Wishes::default() };
    for (wishes, is_refused) in [(names, true), (Wishes::default(), false)] {
        let app = TestApp::start_with(wishes).await.expect("SQLite");
        let platform = platform(&app).await;
        let mut person = at_the_portal(&app, &platform, "u-1").await;
        let callback = agree(&app, &mut person, "").await;
        let mut nameless = callback.clone();
        nameless.query_pairs_mut().clear().extend_pairs(callback.query_pairs().filter(|(name, _)| name != "iss"));
        assert_ne!(nameless, callback, "it was named");
        person.visit(nameless.as_str()).await.expect("a page");
        let made = (exchanges(&app).await, connections(&platform, "u-1").await.len());
        assert_eq!(made, if is_refused { (0, 0) } else { (1, 1) });
        let callback = agree(&app, &mut person, "").await;
        assert_eq!(person.visit(callback.as_str()).await.expect("a page").status, 200);
        assert_eq!(connections(&platform, "u-1").await.len(), 1, "a whole answer connects");
        app.finish().await;
    }
}

#[tokio::test]
async fn that_googles_app_is_in_testing_is_said_until_it_is_published() {
    // fact sheet A.4, G.29: its grants end after seven days, which looks like withdrawals
    for wishes in Wishes::both() {
        let Some(app) = TestApp::start_with(wishes).await else { continue };
        let platform = platform(&app).await;
        let explanation = async || {
            let shown = platform.read("/v1/integrations/google").await.ok();
            assert_eq!(shown["status"], "active", "it works");
            shown["explanation"].as_str().expect("words").to_owned()
        };
        let connects = async |user: &str| {
            let mut person = at_the_portal(&app, &platform, user).await;
            let callback = agree(&app, &mut person, "").await;
            assert_eq!(person.visit(callback.as_str()).await.expect("a page").status, 200);
        };
        app.street.tell("/testing", json!({"google": "on"})).await;
        connects("u-1").await;
        let words = explanation().await;
        assert!(words.contains("in testing at Google") && words.contains("seven days"), "{words}");
        let ends = connections(&platform, "u-1").await[0]["credentials"][0]["refresh_expires_at"].clone();
        assert!(ends.is_string(), "and the connection says when");
        connects("u-2").await;
        assert_eq!(explanation().await, words, "since the first");

        app.street.tell("/testing", json!({"google": "off"})).await;
        connects("u-3").await;
        assert_eq!(explanation().await, "Nothing is known to be wrong.");
        app.finish().await;
    }
}

#[tokio::test]
async fn one_user_has_at_most_twenty_unfinished_handshakes() {
    // OA-13
    let app = TestApp::start().await;
    let platform = platform(&app).await;
    let mut person = at_the_portal(&app, &platform, "u-1").await;
    for number in 1..=20 {
        assert_eq!(begin(&app, &mut person, "").await.status, 303, "{number}");
    }
    let refused = begin(&app, &mut person, "").await;
    assert_eq!(refused.status, 429, "the twenty-first: {:?}", refused.location());
    assert_eq!(app.entries("handshake.begin").await.len(), 20);
    let mut other = at_the_portal(&app, &platform, "u-2").await;
    assert_eq!(begin(&app, &mut other, "").await.status, 303, "others are not held up");
    app.advance(11);
    assert_eq!(begin(&app, &mut person, "").await.status, 303, "the old ones have ended");
    app.finish().await;
}

#[tokio::test]
async fn a_flood_of_handshakes_ends_at_ten_thousand_and_holds_up_no_other_tenant() {
    // OA-13: a hundred thousand starts of one tenant's users, and what is left of them
    for wishes in Wishes::both() {
        let Some(app) = TestApp::start_with(Wishes { quiet: true, ..wishes }).await else { continue };
        let platform = platform(&app).await;
        let next_door = app.key_of(&app.other_tenant("umbra").await, &["all"]).await;
        next_door
            .put("/v1/integrations/google", &json!({"client_id": "umbra", "client_secret": "vkcanary-umbra"}))
            .await
            .ok();
        at_the_portal(&app, &platform, "u-2").await;
        for wave in 0..10 {
            let mut person = at_the_portal(&app, &platform, "u-1").await;
            let mut neighbour = at_the_portal(&app, &next_door, "u-1").await;
            assert_eq!(begin(&app, &mut person, "").await.status, 303, "wave {wave}: as if nothing had been");
            app.database.execute(&flood(wave)).await;
            assert_eq!(begin(&app, &mut person, "").await.status, 429, "wave {wave}");
            assert_eq!(begin(&app, &mut neighbour, "").await.status, 303, "wave {wave}: next door");
            app.advance(21);
            app.rooms().connections.handshakes_expire().await.expect("tidies up");
            assert_eq!(app.database.rows("SELECT count(*) FROM handshakes").await, [["0"]], "wave {wave}");
        }
        app.finish().await;
    }
}

/// Ten thousand unfinished handshakes of another user of the same tenant, as if each had begun with the one that is there.
fn flood(wave: usize) -> String {
    format!(
        "INSERT INTO handshakes (tenant_id, id, state_hash, browser_hash, user_id, integration_id, integration_revision, provider,
         redirect_uri, scopes, created_at, expires_at)
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 10000)
         SELECT h.tenant_id, h.id || '-{wave}-' || n.n, h.state_hash || '-{wave}-' || n.n, h.browser_hash, u.id, h.integration_id,
         h.integration_revision, h.provider, h.redirect_uri, h.scopes, h.created_at, h.expires_at
         FROM handshakes h JOIN users u ON u.tenant_id = h.tenant_id AND u.external_id = 'u-2' CROSS JOIN n
         WHERE h.id = (SELECT min(id) FROM handshakes)"
    )
}

/// A user who came back through a hosted link; the session, and the completion code that the platform was given.
async fn awaiting_confirmation(app: &TestApp, platform: &Client, user: &str) -> (String, String) {
    let wish = json!({"user": user, "providers": ["google"], "return_url": format!("{ORIGIN}/back")});
    let link = platform.post("/v1/connect-sessions", &wish).await.ok();
    let mut person = app.person();
    person.visit(link["url"].as_str().expect("a link")).await.expect("a page");
    person.submit("continue", &[]).await.expect("submitted");
    person.follow().await.expect("the consent page");
    person.consent(true, "ada@example.com", None).await.expect("consents");
    let back = person.step().await.expect("the callback");
    assert!(back.location().is_some_and(|url| url.as_str().starts_with(ORIGIN)), "{:?}", back.location());
    let id = link["id"].as_str().expect("an id").to_owned();
    (id, back.query("completion_code").expect("a code"))
}

#[tokio::test]
async fn nine_wrong_completion_codes_use_nothing_up_and_the_tenth_ends_the_session() {
    // API.md section 6, point 9
    let app = TestApp::start().await;
    let platform = platform(&app).await;
    for (user, wrong_ones, state) in [("u-1", 9, "awaiting_confirmation"), ("u-2", 10, "expired")] {
        let before = exchanges(&app).await;
        let (session, code) = awaiting_confirmation(&app, &platform, user).await;
        let path = format!("/v1/connect-sessions/{session}");
        for number in 1..=wrong_ones {
            let wrong = json!({"user": user, "completion_code": format!("{}{number}", &code[..code.len() - 2])});
            let refused = platform.post(&format!("{path}/confirm"), &wrong).await;
            assert_eq!(refused.problem(), (422, "invalid".to_owned()), "{number}");
        }
        assert_eq!(exchanges(&app).await, before, "the provider has not heard of it");
        assert_eq!(platform.read(&path).await.ok()["state"], state, "after {wrong_ones}");
        let right = json!({"user": user, "completion_code": code});
        let answer = platform.post(&format!("{path}/confirm"), &right).await;
        if wrong_ones == 9 {
            assert_eq!(answer.ok()["status"], "active");
        } else {
            assert_eq!(answer.problem(), (410, "gone".to_owned()));
        }
        assert_eq!(connections(&platform, user).await.len(), usize::from(wrong_ones == 9));
    }
    app.finish().await;
}

#[tokio::test]
async fn a_new_client_pauses_its_connections_until_they_reconnect_and_a_new_secret_pauses_nothing() {
    // API.md section 6, point 3; OA-04
    let app = TestApp::start().await;
    let platform = platform(&app).await;
    let google = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let slack = app.slack(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let shown = platform.read("/v1/integrations/google").await.ok();
    let (one, refresh) = (format!("/v1/connections/{google}"), format!("/v1/connections/{google}/refresh"));
    let set = async |client: &str, secret: &str| {
        app.street.register("google", client, secret, &shown["redirect_uri"]).await;
        let draft = json!({"client_id": client, "client_secret": secret, "scopes": shown["scopes"]});
        platform.put("/v1/integrations/google", &draft).await.ok()
    };

    set(crate::harness::CLIENT, "GOCSPX-vkcanary-the-second-secret").await;
    assert_eq!(platform.read(&one).await.ok()["status"], "active", "the same client goes on");
    platform.request(reqwest::Method::POST, &refresh, None).await.ok();
    assert_eq!(app.street.counter("google/refreshes").await, 1, "with the new secret, at once");

    let changed = set("client-2", "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t").await;
    assert_eq!(changed["redirect_uri"], shown["redirect_uri"], "the integration stays the same");
    let paused = platform.read(&one).await.ok();
    assert_eq!((&paused["status"], &paused["reason"]), (&json!("misconfigured"), &json!("client_changed")));
    let refused = platform.post(&format!("{one}/token"), &json!({})).await;
    assert_eq!(refused.problem(), (409, "misconfigured".to_owned()));
    assert_eq!(platform.request(reqwest::Method::POST, &refresh, None).await.status, 409);
    assert_eq!(app.street.counter("google/refreshes").await, 1, "nothing was sent for the old client");
    assert_eq!(platform.read(&format!("/v1/connections/{slack}")).await.ok()["status"], "active");

    let mut person = at_the_portal(&app, &platform, "u-1").await;
    let callback = agree(&app, &mut person, &format!("?connection={google}")).await;
    assert_eq!(person.visit(callback.as_str()).await.expect("a page").status, 200);
    assert_eq!(platform.read(&one).await.ok()["status"], "active", "the same connection, made again");
    platform.post(&format!("{one}/token"), &json!({})).await.ok();
    app.finish().await;
}

#[tokio::test]
async fn a_consent_and_a_refresh_never_wait_for_each_other_at_once() {
    // A refresh whose late answer heals its connection (RL-06) writes to the credential, then to the connection.
    let Some(app) = TestApp::start_with(Wishes { postgres: true, ..Wishes::default() }).await else { return };
    let platform = platform(&app).await;
    let google = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let mut person = at_the_portal(&app, &platform, "u-1").await;
    let callback = agree(&app, &mut person, &format!("?connection={google}")).await;
    let mut refresh = app.database.begin().await;
    refresh.execute("UPDATE credentials SET fence = fence").await;
    let late_answer = async {
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        app.until("the consent waits for the refresh", async || app.rows(waiting).await == [["1"]]).await;
        refresh.execute("UPDATE connections SET updated_at = updated_at").await;
        refresh.commit().await;
    };
    let (page, ()) = tokio::join!(person.visit(callback.as_str()), late_answer);
    assert_eq!(page.expect("a page").status, 200);
    assert_eq!(platform.read(&format!("/v1/connections/{google}")).await.ok()["status"], "active");
    app.finish().await;
}
