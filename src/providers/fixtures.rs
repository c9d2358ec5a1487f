//! Ten providers, held to `fixtures.toml`: authorize URL, exchange, identity, refresh, revocation, API call and errors, over loopback
//! HTTP. Its rows are transcribed from the provider fact sheet, so a catalogue that says otherwise fails here.

use std::collections::BTreeMap;
use std::sync::Arc;

use figment::Figment;
use figment::providers::{Format, Toml};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use super::address::Address;
use super::described::Described;
use super::loopback::{Loopback, Seen};
use super::{
    ApiCall, AuthorizeRequest, Client, CodeGrant, CredentialKind, Descriptor, Failure, Provider, RevokeTokens,
    TokenSet, Variables, catalogue,
};
use crate::clock::{Millis, SeededEntropy, Surroundings, TestClock};
use crate::secret::Secret;

const NOW: Millis = Millis(1_790_000_000_000);
const CALLBACK: &str = "https://vault.example/oauth/p/callback/int_1";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    authorize: String,
    query: BTreeMap<String, String>,
    /// What is added when an account is connected again without a refresh token.
    again: BTreeMap<String, String>,
    scopes: Vec<String>,
    #[serde(default)]
    user_scopes: Vec<String>,
    #[serde(default)]
    variables: BTreeMap<String, String>,
    token: String,
    /// `basic` or `post`.
    client: String,
    /// Whether requests to the token endpoint are JSON.
    #[serde(default)]
    json: bool,
    answer: String,
    claims: Option<Value>,
    /// Method and address, then what must be in the request.
    #[serde(default)]
    userinfo: Vec<String>,
    who: Option<String>,
    /// Id, e-mail, name; empty for none.
    account: [String; 3],
    tokens: Expected,
    #[serde(default)]
    learned: BTreeMap<String, String>,
    refreshed: Option<String>,
    /// The refresh token stays the one there was.
    #[serde(default)]
    kept: bool,
    /// Method and address, then what must be in the request.
    #[serde(default)]
    revoke: Vec<String>,
    revoked: Option<String>,
    revoked_with: Option<u16>,
    /// Method and path for the broker, the address, then headers.
    api: Vec<String>,
    errors: Vec<(u16, String, String)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    access: String,
    refresh: Option<String>,
    life: Option<u64>,
    refresh_life: Option<u64>,
    scopes: Option<Vec<String>>,
}

fn fixtures() -> BTreeMap<String, Fixture> {
    Figment::from(Toml::string(include_str!("fixtures.toml"))).extract().expect("fixtures")
}

/// One provider, moved to the loopback interface, where a fixture says what it answers.
struct Stage {
    id: String,
    fixture: Fixture,
    loopback: Loopback,
    real: Descriptor,
    moved: Described,
    variables: Variables,
    secret: Secret,
}

impl Stage {
    async fn open(id: &str, fixture: Fixture) -> Self {
        let loopback = Loopback::start().await;
        let real = catalogue::known(id);
        let mut moved = real.clone();
        let ends = &mut moved.endpoints;
        for one in [&mut ends.token, &mut ends.refresh, &mut ends.revoke, &mut ends.userinfo, &mut ends.jwks] {
            *one = one.take().map(|address| address.moved_to(&loopback.url("")));
        }
        let around = Surroundings { clock: Arc::new(TestClock::at(NOW)), entropy: Arc::new(SeededEntropy::new(1)) };
        let moved = Described::new(moved, loopback.outbound(), around);
        let variables = Variables::new(&real.variables, fixture.variables.clone()).expect("variables that fit");
        Self { id: id.to_owned(), fixture, loopback, real, moved, variables, secret: Secret::new("cs") }
    }

    fn client(&self) -> Client<'_> {
        Client { id: "cid", secret: &self.secret, variables: &self.variables }
    }

    fn at(&self, address: Option<&Address>) -> String {
        let url = address.and_then(|one| one.with(&self.variables, &[("client_id", "cid"), ("token", &self.shown())]));
        url.map(String::from).unwrap_or_default()
    }

    /// The token that a revocation or an identity address shows: the refresh token, unless only the access token is shown.
    fn shown(&self) -> String {
        let tokens = &self.fixture.tokens;
        tokens.refresh.clone().unwrap_or_else(|| tokens.access.clone())
    }

    fn request_is(&self, seen: &Seen, wanted: &[String], what: &str) {
        let id = &self.id;
        let (method, url) = wanted[0].split_once(' ').expect("method and address");
        assert_eq!((seen.method.as_str(), seen.uri.path()), (method, path_of(url).as_str()), "{id}: {what}");
        for part in &wanted[1..] {
            let as_header = part.split_once(": ").is_some_and(|(name, value)| seen.header(name) == Some(value));
            assert!(as_header || seen.body.contains(part.as_str()), "{id}: {what} must have {part}: {seen:?}");
        }
    }
}

fn path_of(url: &str) -> String {
    Url::parse(url).expect("an address").path().to_owned()
}

fn id_token(claims: &Value) -> (String, String) {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
    let key = EncodingKey::from_rsa_pem(include_bytes!("testdata/signing.pem")).expect("a key");
    let mut jwk = Jwk::from_encoding_key(&key, Algorithm::RS256).expect("a jwk");
    jwk.common.key_id = Some("k".to_owned());
    let seconds = NOW.unix_seconds();
    let mut whole = json!({"aud": "cid", "nonce": "n-1", "iat": seconds, "exp": seconds + 3600});
    whole.as_object_mut().expect("an object").extend(claims.as_object().expect("an object").clone());
    let header = Header { kid: Some("k".to_owned()), ..Header::new(Algorithm::RS256) };
    (jsonwebtoken::encode(&header, &whole, &key).expect("a token"), json!({ "keys": [jwk] }).to_string())
}

#[test]
fn consent_urls_are_those_of_the_fixtures() {
    assert_eq!(fixtures().len(), 10);
    for (id, fixture) in fixtures() {
        let descriptor = catalogue::known(&id);
        let variables = Variables::new(&descriptor.variables, fixture.variables.clone()).expect("variables that fit");
        let provider = Described::new(descriptor, super::loopback::outbound(&[]), Surroundings::system());
        let request = AuthorizeRequest {
            client_id: "cid",
            redirect_uri: CALLBACK,
            state: "s-1",
            nonce: Some("n-1"),
            challenge: Some("ch"),
            scopes: &fixture.scopes,
            user_scopes: &fixture.user_scopes,
            login_hint: None,
            force_consent: false,
            variables: &variables,
        };
        let standard = [("client_id", "cid"), ("redirect_uri", CALLBACK), ("response_type", "code"), ("state", "s-1")];
        let standard = standard.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let again = AuthorizeRequest { login_hint: Some("known@example.com"), force_consent: true, ..request };
        for (request, more) in [(request, BTreeMap::new()), (again, fixture.again)] {
            let url = provider.authorize_url(&request).expect(&id);
            assert_eq!(url.as_str().split('?').next(), Some(fixture.authorize.as_str()), "{id}");
            let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
            let seen: BTreeMap<_, _> = pairs.iter().cloned().collect();
            assert_eq!(pairs.len(), seen.len(), "{id}: no parameter twice");
            let wanted: BTreeMap<_, _> =
                fixture.query.clone().into_iter().chain(standard.clone()).chain(more).collect();
            assert_eq!(seen, wanted, "{id}");
        }
    }
}

#[tokio::test]
async fn a_code_becomes_the_account_and_tokens_of_the_fixtures() {
    for (id, fixture) in fixtures() {
        let stage = Stage::open(&id, fixture).await;
        let fixture = &stage.fixture;
        let signed = fixture.claims.as_ref().map(id_token);
        let token = signed.as_ref().map_or("", |(token, _)| token.as_str());
        stage.loopback.then(200, fixture.answer.replace("{id_token}", token));
        if let Some(identity) = signed.map(|(_, keys)| keys).or_else(|| fixture.who.clone()) {
            stage.loopback.then(200, identity);
        }
        let (code, verifier) = (Secret::new("code-1"), Secret::new("v".repeat(43)));
        let grant = CodeGrant {
            redirect_uri: CALLBACK,
            code: &code,
            verifier: Some(&verifier),
            nonce: Some("n-1"),
            refresh_token_held: false,
        };
        let exchange = stage.moved.exchange(stage.client(), grant).await.expect(&id);

        let account = [Some(exchange.account.id), exchange.account.email, exchange.account.name];
        assert_eq!(account.map(Option::unwrap_or_default), fixture.account, "{id}");
        tokens_are(&id, &exchange.tokens[0], &fixture.tokens);
        assert_eq!(exchange.variables, fixture.learned, "{id}");
        assert_eq!(stage.at(stage.real.endpoints.token.as_ref()), fixture.token, "{id}");
        let seen = stage.loopback.seen();
        assert_eq!((seen[0].method.as_str(), seen[0].uri.path()), ("POST", path_of(&fixture.token).as_str()), "{id}");
        let fields = fields_of(&seen[0], fixture.json);
        let wanted = [("grant_type", "authorization_code"), ("code", "code-1"), ("redirect_uri", CALLBACK)];
        for (name, value) in wanted {
            assert_eq!(fields.get(name).map(String::as_str), Some(value), "{id}: {name}");
        }
        let in_body = fields.get("client_id").zip(fields.get("client_secret"));
        let in_header = seen[0].header("authorization");
        match fixture.client.as_str() {
            "basic" => assert_eq!((in_header, in_body), (Some("Basic Y2lkOmNz"), None), "{id}"),
            _ => assert_eq!((in_header, in_body), (None, Some((&"cid".to_owned(), &"cs".to_owned()))), "{id}"),
        }
        assert_eq!(seen[0].header("accept"), Some("application/json"), "{id}");
        if let Some(userinfo) = seen.get(1).filter(|_| !fixture.userinfo.is_empty()) {
            stage.request_is(userinfo, &fixture.userinfo, "userinfo");
        }
    }
}

fn tokens_are(id: &str, seen: &TokenSet, wanted: &Expected) {
    assert_eq!(seen.access_token.expose(), wanted.access, "{id}");
    assert_eq!(seen.refresh_token.as_ref().map(Secret::expose), wanted.refresh.as_deref(), "{id}");
    assert_eq!(seen.expires_in.map(|life| life.as_secs()), wanted.life, "{id}");
    assert_eq!(seen.refresh_expires_in.map(|life| life.as_secs()), wanted.refresh_life, "{id}");
    assert_eq!(seen.scopes, wanted.scopes, "{id}");
    assert_eq!(seen.token_type.to_ascii_lowercase(), "bearer", "{id}");
}

fn fields_of(seen: &Seen, json: bool) -> BTreeMap<String, String> {
    if json {
        assert!(seen.header("content-type").is_some_and(|kind| kind.starts_with("application/json")));
        return serde_json::from_str(&seen.body).expect("a JSON object of texts");
    }
    form_urlencoded::parse(seen.body.as_bytes()).into_owned().collect()
}

#[tokio::test]
async fn a_refresh_brings_what_the_fixtures_say_and_an_error_is_what_they_say() {
    for (id, fixture) in fixtures() {
        let stage = Stage::open(&id, fixture).await;
        let fixture = &stage.fixture;
        let kind = if id == "slack" { CredentialKind::Bot } else { CredentialKind::User };
        let refresh = async || stage.moved.refresh(stage.client(), kind, &Secret::new("r-1"), None).await;
        if let Some(answer) = &fixture.refreshed {
            stage.loopback.then(200, answer.as_str());
            let tokens = refresh().await.expect(&id);
            assert_eq!(tokens.refresh_token.is_none(), fixture.kept, "{id}");
            assert_eq!(tokens.expires_in.map(|life| life.as_secs()), refreshed_life(fixture), "{id}");
            let fields = fields_of(&stage.loopback.seen()[0], fixture.json);
            assert_eq!(fields.get("grant_type").map(String::as_str), Some("refresh_token"), "{id}");
            assert_eq!(fields.get("refresh_token").map(String::as_str), Some("r-1"), "{id}");
            assert!(!fields.contains_key("scope"), "{id}: the grant stays as it is");
        }
        for (status, body, wanted) in &fixture.errors {
            stage.loopback.then(*status, body.as_str());
            let failure = refresh().await.map(|_| ()).expect_err(body);
            assert_eq!(told(&failure, stage.real.rotates()), *wanted, "{id}: {status} {body}");
        }
    }
}

fn refreshed_life(fixture: &Fixture) -> Option<u64> {
    let answer: Value = serde_json::from_str(fixture.refreshed.as_deref()?).expect("JSON");
    answer["expires_in"].as_u64().or(fixture.tokens.life)
}

/// Class and code in words. A server's failure is a passing problem for a provider that does not rotate.
fn told(failure: &Failure, rotates: bool) -> String {
    let class = match failure {
        Failure::NotSent => "not_sent",
        Failure::Ambiguous { .. } => "ambiguous",
        Failure::ServerError { .. } if rotates => "server_error",
        Failure::ServerError { .. } | Failure::Transient { .. } => "transient",
        Failure::Reauth { .. } => "reauth",
        Failure::Configuration { .. } => "configuration",
        Failure::RateLimited { .. } => "rate_limited",
        Failure::Admin { .. } => "admin",
        Failure::Unrecognised { .. } => "unrecognised",
    };
    format!("{class} {}", failure.code())
}

#[tokio::test]
async fn a_grant_is_ended_as_the_fixtures_say() {
    // OA-17
    for (id, fixture) in fixtures() {
        let stage = Stage::open(&id, fixture).await;
        let fixture = &stage.fixture;
        let access = Secret::new(fixture.tokens.access.as_str());
        let refresh = fixture.tokens.refresh.as_deref().map(Secret::new);
        let tokens = RevokeTokens { access: Some(&access), refresh: refresh.as_ref(), kind: CredentialKind::User };
        let body = fixture.revoked.clone().unwrap_or_default();
        stage.loopback.then(fixture.revoked_with.unwrap_or(200), body.clone()).then(200, body);
        let outcome = stage.moved.revoke(stage.client(), &tokens).await;
        if fixture.revoke.is_empty() {
            assert!(!stage.real.revocable(), "{id}");
            assert_eq!(outcome.map_err(|failure| failure.code().to_string()), Err("not_revocable".to_owned()), "{id}");
            assert!(stage.loopback.seen().is_empty(), "{id}");
            continue;
        }
        assert_eq!(outcome, Ok(()), "{id}");
        stage.request_is(&stage.loopback.seen()[0], &fixture.revoke, "revoke");
        let real = stage.at(stage.real.endpoints.revoke.as_ref());
        assert!(fixture.revoke[0].ends_with(&real), "{id}: {real}");
    }
}

#[test]
fn an_api_call_goes_where_the_fixtures_say_with_the_token_where_it_belongs() {
    for (id, fixture) in fixtures() {
        let descriptor = catalogue::known(&id);
        let said = [fixture.variables, fixture.learned].map(|one| serde_json::to_string(&one).expect("JSON"));
        let variables = descriptor.stored_variables(said.iter().map(String::as_str));
        let provider = Described::new(descriptor, super::loopback::outbound(&[]), Surroundings::system());
        let headers = HeaderMap::new();
        let (method, path) = fixture.api[0].split_once(' ').expect("method and path");
        let method = method.parse().expect("a method");
        let call = ApiCall { variables: &variables, ..ApiCall::new(method, path, &headers) };
        let request =
            provider.attach(call, CredentialKind::User, &Secret::new(fixture.tokens.access.as_str())).expect(&id);
        assert_eq!(request.url.as_str(), fixture.api[1], "{id}");
        for header in &fixture.api[2..] {
            let (name, value) = header.split_once(": ").expect("a header");
            assert_eq!(request.headers.get(name).and_then(|one| one.to_str().ok()), Some(value), "{id}: {name}");
        }
    }
}

#[test]
fn a_place_that_fits_no_more_is_not_replaced_by_another() {
    // OA-04: a default is for what was never said
    let gitlab = catalogue::known("gitlab");
    let host = |column: &str| gitlab.stored_variables([column]).get("host").map(str::to_owned);
    assert_eq!(host("{}").as_deref(), Some("gitlab.com"));
    assert_eq!(host(r#"{"host":"git.acme.example"}"#).as_deref(), Some("git.acme.example"));
    assert_eq!(host(r#"{"host":"git.acme.example/x"}"#), None);
}

#[test]
fn an_answer_that_leads_tokens_elsewhere_is_no_connection() {
    // Fact sheet G.24
    let salesforce = catalogue::known("salesforce");
    for address in
        ["https://evil.example", "http://acme.my.salesforce.com", "https://acme.my.salesforce.com@evil.example"]
    {
        let column = json!({ "instance_url": address }).to_string();
        let variables = salesforce.stored_variables([column.as_str()]);
        assert_eq!(salesforce.endpoints.api_base("services", &variables), None, "{address}");
    }
}
