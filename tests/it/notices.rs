//! What providers tell on their own: an access that has ended there ends here at once, once, and for whom it is meant.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::sync::Semaphore;
use valetkey::clock::Clock;

use crate::harness::{Account, Answer, Client, Got, Life, TestApp, Wishes, http_client};
use crate::shared::strict_slack;

const SIGNING_SECRET: &str = "vkcanary0signing0secret";
const GOOGLES_KEY: &str = include_str!("../../src/providers/testdata/signing.pem");
const OTHER_KEY: &str = include_str!("../../src/providers/testdata/other.pem");
const EVENT: &str = "https://schemas.openid.net/secevent/";

fn now(app: &TestApp) -> i64 {
    app.clock.now().unix_seconds()
}

/// Slack's call with this body, signed as Slack signs.
async fn slack(app: &TestApp, address: &str, secret: &str, body: &Value) -> Got {
    let at = now(app).to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
    mac.update(format!("v0:{at}:{body}").as_bytes());
    let signature = format!("v0={}", HEXLOWER.encode(&mac.finalize().into_bytes()));
    let slack = app.anon().with("x-slack-request-timestamp", &at).with("x-slack-signature", &signature);
    slack.post(address, body).await
}

/// An event of Slack's that happened so many seconds from now.
fn told(app: &TestApp, id: &str, seconds: i64, event: &Value) -> Value {
    json!({"type": "event_callback", "team_id": "T0SANDBOX", "event_id": id, "event_time": now(app) + seconds, "event": event})
}

fn revoked(users: &[&str], bots: &[&str]) -> Value {
    json!({"type": "tokens_revoked", "tokens": {"oauth": users, "bot": bots}})
}

/// The path of an integration's address for events.
async fn address(platform: &Client, provider: &str) -> String {
    let shown = platform.read(&format!("/v1/integrations/{provider}")).await.ok();
    let url = url::Url::parse(shown["events_url"].as_str().expect("an address")).expect("a URL");
    url.path().to_owned()
}

/// How a connection stands, and what becomes of who asks for its token.
async fn standing(platform: &Client, connection: &str) -> (String, Value, u16) {
    let shown = platform.read(&format!("/v1/connections/{connection}")).await.ok();
    let token = platform.post(&format!("/v1/connections/{connection}/token"), &json!({})).await;
    (shown["status"].as_str().expect("a status").to_owned(), shown["reason"].clone(), token.status)
}

fn works() -> (String, Value, u16) {
    ("active".to_owned(), Value::Null, 200)
}

fn ended(reason: &str) -> (String, Value, u16) {
    ("needs_reauth".to_owned(), json!(reason), 409)
}

#[tokio::test]
async fn who_was_removed_at_slack_is_removed_here_at_once() {
    // fact sheet B.7, AG-09
    for wishes in Wishes::both() {
        let Some(app) = TestApp::start_with(wishes).await else { continue };
        let platform = app.platform().await;
        let ada = app.slack(&platform, "u-1", Account::ADA, Life::Fresh).await;
        let also_ada = app.slack(&platform, "u-2", Account::ADA, Life::Fresh).await;
        let grace = app.slack_with_bot(&platform, "u-3", Account::GRACE).await;
        let ops = app.slack(&platform, "u-4", Account::OPS, Life::Fresh).await;
        let at = address(&platform, "slack").await;
        let adas = revoked(&["U0ADA"], &[]);

        let unset = slack(&app, &at, SIGNING_SECRET, &told(&app, "Ev0", 0, &adas)).await;
        assert_eq!(unset.problem(), (401, "unauthenticated".to_owned()), "nothing proves it without a signing secret");
        let shown = platform.put("/v1/integrations/slack", &json!({"signing_secret": SIGNING_SECRET})).await.ok();
        assert!(!shown.to_string().contains(SIGNING_SECRET));
        let hello =
            slack(&app, &at, SIGNING_SECRET, &json!({"type": "url_verification", "challenge": "3eZbrw1a"})).await;
        assert_eq!(hello.ok(), json!({"challenge": "3eZbrw1a"}));

        let theirs = app.key_of(&app.other_tenant("umbra").await, &["all"]).await;
        app.street.integrate(&theirs).await;
        let elsewhere = address(&theirs, "slack").await;
        let mut refusals = std::collections::BTreeSet::new();
        for (address, secret) in [
            (at.as_str(), "vkcanary0another0secret"),
            (elsewhere.as_str(), SIGNING_SECRET),
            ("/hooks/slack/int_nowhere", SIGNING_SECRET),
            (&address(&platform, "google").await.replace("/google/", "/slack/"), SIGNING_SECRET),
        ] {
            let got = slack(&app, address, secret, &told(&app, "Ev0", 0, &adas)).await;
            assert_eq!(got.problem(), (401, "unauthenticated".to_owned()), "{address}");
            refusals.insert(got.without_instance());
        }
        assert_eq!(refusals.len(), 1, "uniform");

        // The echo of an end that is older than the consent changes nothing.
        slack(&app, &at, SIGNING_SECRET, &told(&app, "Ev1", -5, &adas)).await.ok();
        assert_eq!(standing(&platform, &ada).await, works());

        let event = told(&app, "Ev2", 0, &adas);
        for _ in 0..3 {
            assert_eq!(slack(&app, &at, SIGNING_SECRET, &event).await.ok(), json!({}), "also when it was heard before");
        }
        assert_eq!(standing(&platform, &ada).await, ended("revoked_at_provider"));
        assert_eq!(standing(&platform, &also_ada).await, ended("revoked_at_provider"), "who shares the account");
        assert_eq!(standing(&platform, &grace).await, works());
        assert_eq!(app.entries("connection.needs_reauth").await.len(), 2, "each once");
        let shown = platform.read(&format!("/v1/connections/{ada}")).await.ok();
        assert!(shown["explanation"].as_str().expect("words").contains("taken back there"), "{shown}");
        let kept = "SELECT count(*) FROM credentials WHERE status = 'needs_reauth' AND (access_token IS NOT NULL OR refresh_token IS NOT NULL)";
        assert_eq!(app.rows(kept).await, [["0"]], "destroyed");

        // The bot alone: the person's own token goes on, but the connection is not whole any more.
        slack(&app, &at, SIGNING_SECRET, &told(&app, "Ev3", 0, &revoked(&[], &["U0BOT"]))).await.ok();
        let shown = platform.read(&format!("/v1/connections/{grace}")).await.ok();
        let statuses: Vec<_> = shown["credentials"].as_array().expect("credentials").iter().collect();
        let of = |kind: &str| statuses.iter().find(|one| one["kind"] == kind).expect("a credential")["status"].clone();
        assert_eq!((of("user"), of("bot")), (json!("active"), json!("needs_reauth")));

        slack(&app, &at, SIGNING_SECRET, &told(&app, "Ev4", 0, &json!({"type": "app_uninstalled"}))).await.ok();
        assert_eq!(standing(&platform, &grace).await, ended("revoked_at_provider"));
        assert_eq!(standing(&platform, &ops).await, works(), "another workspace");
        app.finish().await;
    }
}

/// Google, as far as its keys go.
async fn googles_keys() -> &'static str {
    let key = EncodingKey::from_rsa_pem(GOOGLES_KEY.as_bytes()).expect("a key");
    let mut jwk = Jwk::from_encoding_key(&key, Algorithm::RS256).expect("a key");
    jwk.common.key_id = Some("key-1".to_owned());
    let set = json!({"keys": [jwk]});
    let routes = axum::Router::new().route("/certs", axum::routing::get(move || async move { axum::Json(set) }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    format!("http://{at}/certs").leak()
}

/// The house, which knows the keys that these stories sign with as Google's.
async fn beside_google() -> TestApp {
    let keys = googles_keys().await;
    let wishes = Wishes {
        providers: vec![("google", "jwks_url", keys), ("google", "issuer", "https://accounts.google.com")],
        token_endpoint: Some(("notion", keys.to_owned())),
        ..Wishes::default()
    };
    TestApp::start_with(wishes).await.expect("SQLite")
}

fn signed(claims: &Value, key: &str, kid: &str) -> String {
    let key = EncodingKey::from_rsa_pem(key.as_bytes()).expect("a key");
    let header =
        Header { kid: Some(kid.to_owned()), typ: Some("secevent+jwt".to_owned()), ..Header::new(Algorithm::RS256) };
    jsonwebtoken::encode(&header, claims, &key).expect("a token")
}

async fn deliver(app: &TestApp, address: &str, token: String) -> (u16, String) {
    let call = http_client().post(app.url(address)).header("content-type", "application/secevent+jwt").body(token);
    let answer = call.send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("text"))
}

#[tokio::test]
async fn what_google_says_of_an_account_has_its_effect_here() {
    // fact sheet A.8, RFC 8935
    let app = beside_google().await;
    let platform = app.platform().await;
    let ada = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let also_ada = app.google(&platform, "u-2", Account::ADA, Life::Fresh).await;
    let grace = app.google(&platform, "u-3", Account::GRACE, Life::Fresh).await;
    let at = address(&platform, "google").await;
    let event = |id: &str, account: Account, kind: &str, seconds: i64| {
        let subject = json!({"subject_type": "iss-sub", "iss": "https://accounts.google.com/", "sub": account.google});
        json!({
            "iss": "https://accounts.google.com/", "aud": ["client-1"], "iat": now(&app) + seconds, "jti": id,
            "events": {format!("{EVENT}{kind}"): {"subject": subject}},
        })
    };
    let tell = async |claims: &Value| deliver(&app, &at, signed(claims, GOOGLES_KEY, "key-1")).await;
    let taken = (202, String::new());

    let change = "risc/event-type/account-credential-change-required";
    assert_eq!(tell(&event("e1", Account::GRACE, change, 0)).await, taken);
    let advised = ("active".to_owned(), json!("credential_change_required"), 200);
    assert_eq!(standing(&platform, &grace).await, advised);
    let shown = platform.read(&format!("/v1/connections/{grace}")).await.ok();
    assert!(shown["explanation"].as_str().expect("words").contains("Connecting again is advised"), "{shown}");

    let all = "oauth/event-type/tokens-revoked";
    assert_eq!(tell(&event("e2", Account::ADA, all, -5)).await, taken, "older than the consent");
    assert_eq!(standing(&platform, &ada).await, works());
    for quiet in ["risc/event-type/sessions-revoked", "risc/event-type/verification", "oauth/event-type/token-revoked"]
    {
        assert_eq!(tell(&event("e3", Account::ADA, quiet, 0)).await, taken);
        assert_eq!(standing(&platform, &ada).await, works(), "{quiet}");
    }
    for _ in 0..2 {
        assert_eq!(tell(&event("e4", Account::ADA, all, 0)).await, taken);
    }
    assert_eq!(standing(&platform, &ada).await, ended("revoked_at_provider"));
    assert_eq!(standing(&platform, &also_ada).await, ended("revoked_at_provider"));
    assert_eq!(app.entries("connection.needs_reauth").await.len(), 2, "each once");

    assert_eq!(tell(&event("e5", Account::GRACE, "risc/event-type/account-disabled", 0)).await, taken);
    assert_eq!(standing(&platform, &grace).await, ended("account_disabled"));
    assert_eq!(tell(&event("e6", Account::GRACE, "risc/event-type/account-enabled", 0)).await, taken);
    assert_eq!(standing(&platform, &grace).await, ended("revoked_at_provider"), "its tokens are gone all the same");
    app.finish().await;
}

#[tokio::test]
async fn what_is_not_googles_or_not_for_us_is_refused_in_the_words_of_the_standard() {
    // fact sheet A.8, RFC 8935 section 2.4
    let app = beside_google().await;
    let platform = app.platform().await;
    let ada = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let at = address(&platform, "google").await;
    let subject = json!({"iss": "https://accounts.google.com", "sub": Account::ADA.google});
    let right = json!({
        "iss": "https://accounts.google.com/", "aud": "client-1", "iat": now(&app), "jti": "e1",
        "events": {format!("{EVENT}oauth/event-type/tokens-revoked"): {"subject": subject}},
    });
    let with = |name: &str, value: Value| {
        let mut claims = right.clone();
        claims[name] = value;
        signed(&claims, GOOGLES_KEY, "key-1")
    };
    let good = signed(&right, GOOGLES_KEY, "key-1");
    let (head, rest) = good.split_once('.').expect("parts");
    let unsigned = data_encoding::BASE64URL_NOPAD.encode(br#"{"alg":"none","kid":"key-1"}"#);
    let rows = [
        ("another issuer", with("iss", json!("https://evil.example/")), "invalid_issuer"),
        ("another client", with("aud", json!("client-2")), "invalid_audience"),
        ("an unknown key", signed(&right, OTHER_KEY, "key-2"), "invalid_key"),
        ("another key by Google's name", signed(&right, OTHER_KEY, "key-1"), "authentication_failed"),
        ("no algorithm", format!("{unsigned}.{rest}"), "authentication_failed"),
        (
            "no signature",
            good.rsplit_once('.').map(|(text, _)| format!("{text}.")).expect("parts"),
            "authentication_failed",
        ),
        ("too old", with("iat", json!(now(&app) - 8 * 86_400)), "invalid_request"),
        ("from the future", with("iat", json!(now(&app) + 3600)), "invalid_request"),
        ("no name", with("jti", Value::Null), "invalid_request"),
        ("no event, like an id_token", with("events", Value::Null), "invalid_request"),
        ("half of it", head.to_owned(), "invalid_request"),
        ("nothing", String::new(), "invalid_request"),
    ];
    for (what, token, code) in rows {
        let (status, text) = deliver(&app, &at, token).await;
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        assert_eq!((status, answer["err"].as_str()), (400, Some(code)), "{what}: {text}");
        assert!(answer["description"].is_string());
    }
    let (status, text) = deliver(&app, "/hooks/google/int_nowhere", good).await;
    assert_eq!((status, text.contains("invalid_audience")), (400, true), "{text}");
    assert_eq!(standing(&platform, &ada).await, works());
    app.finish().await;
}

#[tokio::test]
async fn google_repeats_what_could_not_be_looked_at() {
    // fact sheet A.8: 503 so that Google retries
    let wishes = Wishes {
        providers: vec![("google", "jwks_url", "http://127.0.0.1:9/certs")],
        token_endpoint: Some(("notion", "http://127.0.0.1:9/".to_owned())),
        ..Wishes::default()
    };
    let app = TestApp::start_with(wishes).await.expect("SQLite");
    let platform = app.platform().await;
    let at = address(&platform, "google").await;
    let token = signed(&json!({"iss": "https://accounts.google.com/"}), GOOGLES_KEY, "key-1");
    assert_eq!(deliver(&app, &at, token).await.0, 503);
    app.finish().await;
}

/// A connection's generation, once whoever asks for its token gets a fresh one.
async fn generation(platform: &Client, connection: &str) -> Value {
    platform.post(&format!("/v1/connections/{connection}/token"), &json!({})).await.ok()["generation"].clone()
}

#[tokio::test]
async fn what_we_ended_ourselves_ends_nobody_elses_tokens_of_the_account() {
    // fact sheet B.7: Slack names users, not tokens. Of two people with one account, one leaves.
    for wishes in Wishes::both() {
        let Some(app) = TestApp::start_with(wishes).await else { continue };
        let platform = app.platform().await;
        platform.put("/v1/integrations/slack", &json!({"signing_secret": SIGNING_SECRET})).await.ok();
        let at = address(&platform, "slack").await;
        let leaves = app.slack(&platform, "u-1", Account::ADA, Life::Fresh).await;
        let stays = app.slack(&platform, "u-2", Account::ADA, Life::Fresh).await;
        assert_eq!(platform.delete(&format!("/v1/connections/{leaves}")).await.ok()["revoked"], true);
        let echo = revoked(&["U0ADA"], &[]);
        // Of each token that was ended Slack tells, and of the second when the first has been looked into.
        for (event, generation_then) in [("Ev1", 2), ("Ev1b", 3)] {
            app.clock.advance(Duration::from_millis(100));
            slack(&app, &at, SIGNING_SECRET, &told(&app, event, 0, &echo)).await.ok();
            assert_eq!(standing(&platform, &stays).await, works());
            assert_eq!(generation(&platform, &stays).await, generation_then, "it was looked into");
        }
        assert_eq!(app.entries("connection.needs_reauth").await.len(), 0);

        // Slack's answer is lost, and its event comes when it was asked again.
        app.advance(10);
        let leaves = app.slack(&platform, "u-1", Account::ADA, Life::Fresh).await;
        app.street.fault("slack", "revoke", "drop_after_commit", 1).await;
        assert_eq!(platform.delete(&format!("/v1/connections/{leaves}")).await.ok()["revoked"], false);
        let ended_at = now(&app);
        app.advance(4);
        let left = "SELECT CAST(count(*) AS TEXT) FROM revocations";
        app.until("Slack has confirmed it", async || app.rows(left).await == [["0"]]).await;
        slack(&app, &at, SIGNING_SECRET, &told(&app, "Ev1c", ended_at - now(&app), &echo)).await.ok();
        assert_eq!(standing(&platform, &stays).await, works());

        // The same echo, and she has taken back everything at the same time.
        app.advance(10);
        let leaves = app.slack(&platform, "u-1", Account::ADA, Life::Fresh).await;
        assert_eq!(platform.delete(&format!("/v1/connections/{leaves}")).await.ok()["revoked"], true);
        app.street.tell("/revoke", json!({"provider": "slack"})).await;
        slack(&app, &at, SIGNING_SECRET, &told(&app, "Ev2", 0, &echo)).await.ok();
        app.until("it is found out", async || standing(&platform, &stays).await.2 == 409).await;

        // Long after, Slack is believed without more ado.
        let grace = app.slack(&platform, "u-3", Account::ADA, Life::Fresh).await;
        app.advance(10);
        slack(&app, &at, SIGNING_SECRET, &told(&app, "Ev3", 0, &echo)).await.ok();
        assert_eq!(standing(&platform, &grace).await, ended("revoked_at_provider"));
        app.finish().await;
    }
}

#[tokio::test]
async fn an_answer_that_comes_after_the_next_consent_is_ended_and_its_echo_ends_nothing_rl_37() {
    for wishes in Wishes::both() {
        let Some((app, endpoint)) = strict_slack(wishes).await else { continue };
        let platform = app.platform().await;
        platform.put("/v1/integrations/slack", &json!({"signing_secret": SIGNING_SECRET})).await.ok();
        let at = address(&platform, "slack").await;
        let gate = Arc::new(Semaphore::new(0));
        let held = gate.clone();
        endpoint.answer(move |number, _| match number {
            0 => Answer::WhenTold(held.clone(), Box::new(Answer::Fresh)),
            _ => Answer::Fresh,
        });
        let consents = async |number: u8, seconds: u64| {
            let ends = app.clock.now().after(Duration::from_secs(seconds)).rfc3339();
            let tokens = json!({"kind": "user", "access_token": format!("ya29.vkcrowd-echo-{number}"), "expires_at": ends,
                "refresh_token": format!("xoxe-1-vkcrowd-echo-{number}"), "scopes": ["chat:write"]});
            let row = json!({"user": "u-1", "provider": "slack", "account": {"id": "T0SANDBOX/U0ADA"}, "credentials": [tokens]});
            let moved = platform.post("/v1/connections/import", &json!({"connections": [row]})).await;
            moved.ok()["data"][0]["id"].as_str().expect("an id").to_owned()
        };
        let first = consents(1, 1).await;
        app.advance(1);
        app.until("its token has left", async || endpoint.count() == 1).await;
        platform.delete(&format!("/v1/connections/{first}")).await.ok();
        let connection = consents(2, 36_000).await;
        let left = "SELECT CAST(count(*) AS TEXT) FROM revocations";
        assert_eq!(app.rows(left).await, [["0"]], "what was stored is ended");
        app.street.fault("slack", "revoke", "http_502_html", 1).await;
        gate.close();
        app.until("Slack does not end what comes now", async || app.rows(left).await == [["1"]]).await;
        slack(&app, &at, SIGNING_SECRET, &told(&app, "Ev1", 0, &revoked(&["U0ADA"], &[]))).await.ok();
        assert_eq!(standing(&platform, &connection).await, works());
        assert_eq!(generation(&platform, &connection).await, 2, "it was looked into");
        app.advance(2);
        app.until("Slack has ended it", async || app.rows(left).await == [["0"]]).await;
        assert_eq!(standing(&platform, &connection).await, works());
        app.finish().await;
    }
}
