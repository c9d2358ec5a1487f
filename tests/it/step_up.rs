//! What an agent needs and an account was not granted: it is named, the link asks for it, and it stays asked for (OA-11).

use serde_json::{Value, json};
use valetkey::sandbox::person::Person;

use crate::handshakes::{at_the_portal, connections, platform};
use crate::harness::{Account, Client, TestApp};

const CONTACTS: &str = "https://www.googleapis.com/auth/contacts.readonly";
const MAIL: &str = "https://www.googleapis.com/auth/gmail.readonly";

async fn the_one_of(platform: &Client, user: &str) -> Value {
    let mut all = connections(platform, user).await;
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// Presses Continue on the page that the person sees; gives what Google is asked for.
async fn goes_on(person: &mut Person) -> String {
    let begun = person.submit("continue", &[]).await.expect("submitted");
    assert_eq!(begun.status, 303, "{}", begun.body);
    let asked = begun
        .location()
        .expect("to Google")
        .query_pairs()
        .find(|(name, _)| name == "scope")
        .map(|(_, scopes)| scopes.into_owned());
    person.follow().await.expect("the consent page");
    asked.expect("scopes")
}

/// The user, who has granted at the portal what the integration asks.
async fn connected(app: &TestApp, platform: &Client) -> Person {
    let mut person = at_the_portal(app, platform, "u-1").await;
    person.visit(&app.url("connections/connect/google")).await.expect("a page");
    goes_on(&mut person).await;
    person.consent(true, Account::ADA.email, None).await.expect("consents");
    assert_eq!(person.follow().await.expect("a page").status, 200);
    person
}

async fn start(platform: &Client, agent: &str) -> (u16, Value) {
    let body = json!({"agent_id": agent, "user": "u-1", "channel": {"type": "websocket"}});
    let answer = platform.post("/v1/conversations", &body).await;
    (answer.status, answer.json())
}

#[tokio::test]
async fn a_conversation_names_the_scope_that_it_lacks_and_its_link_asks_for_it_oa_11() {
    let app = TestApp::start().await;
    let platform = platform(&app).await;
    let mut person = connected(&app, &platform).await;
    assert_eq!(the_one_of(&platform, "u-1").await["missing_scopes"], json!([]));

    let needs = json!([{"provider": "google", "required": true, "scopes": [MAIL, CONTACTS]}]);
    let desk = app.desk(&platform, json!({ "needs": needs })).await;
    let (status, problem) = start(&platform, &desk.agent_id).await;
    assert_eq!(
        (status, &problem["code"], &problem["missing_scopes"]),
        (424, &json!("connection_required"), &json!([CONTACTS]))
    );
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(CONTACTS)), "{problem}");

    let mut elsewhere = app.person();
    elsewhere.visit(problem["connect_url"].as_str().expect("a link")).await.expect("a page");
    let asked = goes_on(&mut elsewhere).await;
    assert!(asked.split(' ').any(|scope| scope == CONTACTS), "{asked}");
    elsewhere.consent(true, Account::ADA.email, None).await.expect("consents");
    let back = elsewhere.step().await.expect("the callback");
    let (session, code) = (back.query("connect_session"), back.query("completion_code"));
    let confirm = format!("/v1/connect-sessions/{}/confirm", session.expect("an id"));
    platform.post(&confirm, &json!({"user": "u-1", "completion_code": code})).await.ok();
    assert_eq!(start(&platform, &desk.agent_id).await.0, 201);

    // Another consent without it: it is missing, and reconnecting asks for it, though the integration does not.
    let connection = the_one_of(&platform, "u-1").await;
    person
        .visit(
            &app.url(&format!("connections/connect/google?connection={}", connection["id"].as_str().expect("an id"))),
        )
        .await
        .expect("a page");
    let asked = goes_on(&mut person).await;
    assert!(asked.split(' ').any(|scope| scope == CONTACTS), "{asked}");
    app.finish().await;
}

#[tokio::test]
async fn a_scope_that_a_refresh_takes_away_is_missing_from_then_on_oa_11() {
    let app = TestApp::start().await;
    let platform = platform(&app).await;
    connected(&app, &platform).await;
    let connection = the_one_of(&platform, "u-1").await;
    let path = format!("/v1/connections/{}", connection["id"].as_str().expect("an id"));
    let desk = app
        .desk(
            &platform,
            json!({"needs": [{"provider": "google", "required": true, "scopes": [
        "https://www.googleapis.com/auth/calendar.events"]}]}),
        )
        .await;
    assert_eq!(start(&platform, &desk.agent_id).await.0, 201);

    app.street.fault("google", "refresh", "fewer_scopes", 1).await;
    platform.post(&format!("{path}/refresh"), &json!({})).await.ok();
    let narrowed = platform.read(&path).await.ok();
    assert_eq!(narrowed["missing_scopes"], json!(["https://www.googleapis.com/auth/calendar.events"]), "{narrowed}");
    let (status, problem) = start(&platform, &desk.agent_id).await;
    assert_eq!((status, &problem["missing_scopes"]), (424, &narrowed["missing_scopes"]));
    app.finish().await;
}

#[tokio::test]
async fn what_is_not_known_of_a_token_that_moved_in_keeps_nobody_from_starting_oa_11() {
    let app = TestApp::start().await;
    let platform = platform(&app).await;
    let tokens = app.street.google_tokens(Account::ADA).await;
    let credential = |scopes: Value| json!({"kind": "user", "access_token": tokens["access_token"], "refresh_token": tokens["refresh_token"], "scopes": scopes});
    let desk =
        app.desk(&platform, json!({"needs": [{"provider": "google", "required": true, "scopes": [MAIL]}]})).await;
    for (user, scopes, status) in [
        ("u-1", json!([]), 201),
        ("u-2", json!(["openid", "https://mail.google.com/"]), 201),
        ("u-3", json!(["openid", CONTACTS]), 424),
    ] {
        let row = json!({"user": user, "provider": "google", "account": {"id": Account::ADA.google}, "credentials": [credential(scopes)]});
        platform.post("/v1/connections/import", &json!({"connections": [row]})).await.ok();
        let body = json!({"agent_id": desk.agent_id, "user": user, "channel": {"type": "websocket"}});
        let answer = platform.post("/v1/conversations", &body).await;
        assert_eq!(answer.status, status, "{user}: {}", answer.json());
    }
    app.finish().await;
}
