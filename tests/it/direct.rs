//! Secrets that a platform hands over itself: tokens are minted from some, the others travel as they are and never leave.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Form, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use crate::harness::{Client, TestApp, Wishes};

/// Of the service account; made for tests.
const PRIVATE_KEY: &str = include_str!("../../src/providers/testdata/signing.pem");
const OTHER_KEY: &str = include_str!("../../src/providers/testdata/other.pem");
const CLIENT_SECRET: &str = "vkcanary-of-the-robot";
const PERSONAL_TOKEN: &str = "ghp_vkcanary0personal";

/// A provider that mints tokens and tells who a token belongs to.
#[derive(Clone, Default)]
struct Provider {
    forms: Arc<Mutex<Vec<BTreeMap<String, String>>>>,
    calls: Arc<Mutex<Vec<(String, HeaderMap)>>>,
    refuses: Arc<Mutex<Refuses>>,
}

/// Where no token is accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Refuses {
    #[default]
    Nowhere,
    InCalls,
    Everywhere,
}

impl Provider {
    /// Opens it; gives its address without a path.
    async fn open(&self) -> String {
        let routes = Router::new()
            .route("/token", post(mint))
            .route("/user", get(user))
            .route("/api/{*path}", any(call))
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, routes).await });
        format!("http://{address}")
    }

    fn refuses(&self) -> Refuses {
        *self.refuses.lock().expect("lock")
    }

    fn minted(&self) -> usize {
        self.forms.lock().expect("lock").len()
    }

    fn last_form(&self) -> BTreeMap<String, String> {
        self.forms.lock().expect("lock").last().cloned().expect("a form")
    }
}

async fn mint(
    State(provider): State<Provider>,
    Form(form): Form<BTreeMap<String, String>>,
) -> (StatusCode, Json<Value>) {
    let right = match form.get("grant_type").map(String::as_str) {
        Some("client_credentials") => form.get("client_secret").is_some_and(|secret| secret == CLIENT_SECRET),
        Some("urn:ietf:params:oauth:grant-type:jwt-bearer") => is_signed(form.get("assertion").expect("an assertion")),
        _ => false,
    };
    if !right {
        return (StatusCode::UNAUTHORIZED, Json(json!({"error": "invalid_client"})));
    }
    let mut forms = provider.forms.lock().expect("lock");
    forms.push(form);
    let token = format!("minted-vkcanary-{}", forms.len());
    (StatusCode::OK, Json(json!({"access_token": token, "expires_in": 3600, "token_type": "Bearer"})))
}

fn is_signed(assertion: &str) -> bool {
    let key = jsonwebtoken::EncodingKey::from_rsa_pem(PRIVATE_KEY.as_bytes()).expect("a key");
    let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, Algorithm::RS256).expect("a key");
    let mut rules = Validation::new(Algorithm::RS256);
    rules.validate_exp = false;
    rules.validate_aud = false;
    let key = DecodingKey::from_jwk(&jwk).expect("a key");
    jsonwebtoken::decode::<Value>(assertion, &key, &rules).is_ok()
}

async fn user(State(provider): State<Provider>, headers: HeaderMap) -> (StatusCode, Json<Value>) {
    let dead = provider.refuses() == Refuses::Everywhere;
    let right = !dead && headers.get("authorization").is_some_and(|value| value == &format!("Bearer {PERSONAL_TOKEN}"));
    if right {
        (StatusCode::OK, Json(json!({"id": 583_231, "login": "octo"})))
    } else {
        (StatusCode::UNAUTHORIZED, Json(json!({})))
    }
}

async fn call(
    State(provider): State<Provider>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> (StatusCode, Json<Value>) {
    provider.calls.lock().expect("lock").push((path, headers));
    match provider.refuses() {
        Refuses::Nowhere => (StatusCode::OK, Json(json!({"done": true}))),
        Refuses::InCalls | Refuses::Everywhere => (StatusCode::UNAUTHORIZED, Json(json!({"message": "no"}))),
    }
}

/// The house beside such a provider, which stands in for one of the catalogue.
async fn with(provider: &Provider, id: &'static str) -> (TestApp, Client) {
    let at = provider.open().await;
    let leak = |text: String| -> &'static str { text.leak() };
    let (userinfo, api, revoke) =
        (leak(format!("{at}/user")), leak(format!("{at}/api")), leak(format!("{at}/api/revoke")));
    let wishes = Wishes {
        providers: vec![(id, "userinfo_url", userinfo), (id, "api_base_url", api), (id, "revoke_url", revoke)],
        token_endpoint: Some((id, format!("{at}/token"))),
        ..Wishes::default()
    };
    let app = TestApp::start_with(wishes).await.expect("SQLite");
    let platform = app.platform().await;
    (app, platform)
}

async fn refused(platform: &Client, draft: &Value) -> Vec<String> {
    let answer = platform.post("/v1/connections", draft).await;
    assert_eq!(answer.problem(), (422, "invalid".to_owned()), "{draft}");
    let errors = answer.json()["errors"].as_array().cloned().expect("errors");
    errors.iter().map(|one| one["field"].as_str().expect("a field").to_owned()).collect()
}

#[tokio::test]
async fn a_client_that_asks_for_itself_is_checked_on_entry_and_asked_again_before_its_token_ends() {
    // M8
    let provider = Provider::default();
    let (app, platform) = with(&provider, "microsoft").await;
    let draft = |secret: &str| {
        json!({"provider": "microsoft", "kind": "client_credentials", "client_id": "robot", "client_secret": secret,
            "scopes": ["https://graph.microsoft.com/.default"], "variables": {"directory": "contoso.onmicrosoft.com"}})
    };
    assert_eq!(refused(&platform, &draft("vkcanary-mistyped")).await, ["client_secret"]);
    assert_eq!(platform.read("/v1/connections").await.ok()["data"], json!([]), "nothing is kept of it");
    let made = platform.post("/v1/connections", &draft(CLIENT_SECRET)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let made = made.json();
    assert_eq!(
        (&made["status"], &made["user"], &made["account"]["id"]),
        (&json!("active"), &Value::Null, &json!("contoso.onmicrosoft.com/robot")),
        "the same robot in another directory is another account"
    );
    let credential = &made["credentials"][0];
    assert_eq!((&credential["kind"], &credential["refreshable"]), (&json!("client_credentials"), &json!(true)));
    assert_eq!(provider.last_form()["scope"], "https://graph.microsoft.com/.default");

    let token = format!("/v1/connections/{}/token", made["id"].as_str().expect("an id"));
    assert_eq!(platform.post(&token, &json!({})).await.ok()["generation"], 1);
    app.advance(62);
    let second = platform.post(&token, &json!({})).await.ok();
    assert_eq!((&second["access_token"], &second["generation"]), (&json!("minted-vkcanary-2"), &json!(2)));
    assert_eq!(provider.minted(), 2);
    let again = platform.post("/v1/connections", &draft(CLIENT_SECRET)).await.json();
    assert_eq!(again["id"], made["id"], "the same account, handed over again");
    app.finish().await;
}

#[tokio::test]
async fn a_service_account_signs_for_itself_or_for_a_person_of_its_directory() {
    // M8, fact sheet A.9
    let provider = Provider::default();
    let (app, platform) = with(&provider, "google").await;
    let draft = |key: &str, subject: Value| {
        json!({"provider": "google", "kind": "jwt_bearer", "issuer": "robot@project.iam.example", "key_id": "k-1",
            "private_key": key, "subject": subject, "scopes": ["https://www.googleapis.com/auth/calendar.readonly"]})
    };
    assert_eq!(refused(&platform, &draft("-----BEGIN PRIVATE KEY-----", Value::Null)).await, ["private_key"], "no key");
    assert_eq!(refused(&platform, &draft(OTHER_KEY, Value::Null)).await, ["private_key"], "not the account's key");
    let made = platform.post("/v1/connections", &draft(PRIVATE_KEY, json!("ada@example.com"))).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(made.json()["account"]["id"], "robot@project.iam.example/ada@example.com");
    let assertion = provider.last_form()["assertion"].clone();
    let claims: Value = jsonwebtoken::dangerous::insecure_decode_claims(&assertion).expect("claims");
    let said = [&claims["iss"], &claims["sub"], &claims["scope"]];
    let wanted = ["robot@project.iam.example", "ada@example.com", "https://www.googleapis.com/auth/calendar.readonly"];
    assert_eq!(said, wanted.map(Value::from).each_ref());
    assert!(claims["exp"].as_i64().zip(claims["iat"].as_i64()).is_some_and(|(exp, iat)| exp - iat <= 3600));
    app.finish().await;
}

#[tokio::test]
async fn a_token_that_never_ends_is_used_by_the_broker_and_given_to_nobody() {
    // M8, AG-12
    let provider = Provider::default();
    let (app, platform) = with(&provider, "github").await;
    let draft = |token: &str| json!({"user": "u-1", "provider": "github", "kind": "bearer", "token": token});
    assert_eq!(refused(&platform, &draft("ghp_vkcanary0mistyped")).await, ["token"]);
    let made = platform.post("/v1/connections", &draft(PERSONAL_TOKEN)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let made = made.json();
    assert_eq!(made["account"], json!({"id": "583231", "name": "octo"}), "the provider says whose it is");
    let token = format!("/v1/connections/{}/token", made["id"].as_str().expect("an id"));
    assert_eq!(platform.post(&token, &json!({})).await.problem(), (422, "not_injectable".to_owned()));

    let needs = json!([{"provider": "github", "hand_over": "broker"}]);
    let desk = app.desk(&platform, json!({"needs": needs, "broker": {"github": {"paths": ["repos/**"]}}})).await;
    let started = app.start_websocket(&platform, &desk, "u-1").await;
    let tool = app.tool_of(&started, &desk);
    assert_eq!(tool.read("/v1/broker/github/repos/octo/hello").await.ok()["done"], true);
    let calls = provider.calls.lock().expect("lock").clone();
    assert_eq!(calls[0].0, "repos/octo/hello");
    assert_eq!(calls[0].1["authorization"], format!("Bearer {PERSONAL_TOKEN}"));

    let left = platform.delete(&format!("/v1/connections/{}", made["id"].as_str().expect("an id"))).await.ok();
    assert_eq!(left["revoked"], false, "who made the token can take it back");
    assert!(
        app.entries("credential.revoke").await.is_empty(),
        "GitHub's endpoint ends what it has granted to a client"
    );
    app.finish().await;
}

#[tokio::test]
async fn a_lasting_token_is_given_up_only_when_its_provider_no_longer_knows_whose_it_is() {
    // M8, AG-12
    let provider = Provider::default();
    let (app, platform) = with(&provider, "github").await;
    let draft = json!({"user": "u-1", "provider": "github", "kind": "bearer", "token": PERSONAL_TOKEN});
    let made = platform.post("/v1/connections", &draft).await.json();
    let needs = json!([{"provider": "github", "hand_over": "broker"}]);
    let desk = app.desk(&platform, json!({"needs": needs, "broker": {"github": {"paths": ["repos/**"]}}})).await;
    let started = app.start_websocket(&platform, &desk, "u-1").await;
    let tool = app.tool_of(&started, &desk);
    for (refuses, status, reason) in
        [(Refuses::InCalls, "active", Value::Null), (Refuses::Everywhere, "needs_reauth", json!("revoked_at_provider"))]
    {
        *provider.refuses.lock().expect("lock") = refuses;
        assert_eq!(tool.read("/v1/broker/github/repos/octo/hello").await.status, 401);
        let shown = platform.read(&format!("/v1/connections/{}", made["id"].as_str().expect("an id"))).await.ok();
        assert_eq!((&shown["status"], &shown["reason"]), (&json!(status), &reason), "{refuses:?}");
    }
    let calls = provider.calls.lock().expect("lock").len();
    assert_eq!(tool.read("/v1/broker/github/repos/octo/hello").await.problem().1, "needs_reauth");
    assert_eq!(provider.calls.lock().expect("lock").len(), calls, "nothing is sent with it any more");
    app.finish().await;
}

#[tokio::test]
async fn what_does_not_belong_to_a_kind_is_refused_by_name() {
    let provider = Provider::default();
    let (app, platform) = with(&provider, "zendesk").await;
    let rows = [
        (json!({"provider": "zendesk", "kind": "jwt_bearer"}), vec!["kind"]),
        (json!({"provider": "zendesk"}), vec!["kind"]),
        (json!({"provider": "nowhere", "kind": "basic"}), vec!["provider"]),
        (json!({"provider": "notion", "kind": "basic"}), vec!["provider"]),
        (
            json!({"provider": "zendesk", "kind": "basic", "username": "a", "password": "b", "variables": {"subdomain": "a.b"}}),
            vec!["variables.subdomain"],
        ),
        (json!({"provider": "zendesk", "kind": "basic", "username": "a:b"}), vec!["password", "username"]),
        (
            json!({"provider": "zendesk", "kind": "basic", "username": "a", "password": "b", "token": "c"}),
            vec!["token"],
        ),
        (json!({"provider": "zendesk", "kind": "bearer", "token": "a\r\nX-Evil: 1"}), vec!["token"]),
        (json!({"provider": "gitlab", "kind": "header", "headers": {}}), vec!["headers"]),
        (
            json!({"provider": "gitlab", "kind": "header", "headers": {"Host": "x", "A b": "x"}}),
            vec!["headers.A b", "headers.Host"],
        ),
    ];
    for (mut draft, wanted) in rows {
        if draft["provider"] == "zendesk" && draft["variables"].is_null() {
            draft["variables"] = json!({"subdomain": "acme"});
        }
        let mut fields = refused(&platform, &draft).await;
        fields.sort();
        assert_eq!(fields, wanted, "{draft}");
    }
    assert_eq!(provider.minted(), 0);
    app.finish().await;
}

/// A consent that moved in; gives the connection's path.
async fn imported(platform: &Client, user: &str, account: &str) -> String {
    let row = json!({"user": user, "provider": "gitlab", "account": {"id": account}, "credentials": [{"kind": "user",
        "access_token": format!("vkcanary-access-of-{user}"), "refresh_token": format!("vkcanary-refresh-of-{user}"),
        "expires_at": "2099-01-01T00:00:00Z", "scopes": ["read_user"]}]});
    let moved_in = platform.post("/v1/connections/import", &json!({"connections": [row]})).await;
    assert_eq!(moved_in.status, 201, "{}", moved_in.text);
    format!("/v1/connections/{}", moved_in.json()["data"][0]["id"].as_str().expect("an id"))
}

#[tokio::test]
async fn what_was_granted_at_one_place_is_not_shown_to_another() {
    // OA-04, OA-10, OA-18
    let provider = Provider::default();
    let (app, platform) = with(&provider, "gitlab").await;
    let client = |host: &str, secret: &str| json!({"client_id": "vault", "client_secret": secret, "scopes": ["read_user"], "variables": {"host": host}});
    let revocations = || provider.calls.lock().expect("lock").iter().filter(|(path, _)| path == "revoke").count();
    platform.put("/v1/integrations/gitlab", &client("git.acme.example", "vkcanary-one")).await.ok();
    let account = "git.acme.example/583231";
    let ada = imported(&platform, "u-1", account).await;

    // A secret for another place cannot take a consent's connection along.
    let elsewhere = json!({"user": "u-1", "provider": "gitlab", "kind": "bearer", "token": PERSONAL_TOKEN,
        "variables": {"host": "git.acme.example"}});
    assert_eq!(platform.post("/v1/connections", &elsewhere).await.problem(), (409, "conflict".to_owned()));
    let mut other = elsewhere.clone();
    other["account"] = json!("mine");
    assert_eq!(refused(&platform, &other).await, ["account"], "the provider says whose it is");
    assert_eq!(platform.read(&ada).await.ok()["status"], "active");

    platform.put("/v1/integrations/gitlab", &client("git.elsewhere.example", "vkcanary-two")).await.ok();
    assert_eq!(platform.read(&ada).await.ok()["reason"], "client_changed");
    assert_eq!(platform.delete(&ada).await.ok()["revoked"], false);
    assert_eq!(revocations(), 0, "the new place has not granted it");
    let ada = imported(&platform, "u-1", "git.elsewhere.example/583231").await;
    assert_eq!(platform.delete(&ada).await.ok()["revoked"], true);
    assert_eq!(revocations(), 2, "both of its tokens");
    app.finish().await;
}
