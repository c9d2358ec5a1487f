//! What the providers send and make of real answers, over loopback HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use serde_json::json;

use super::loopback::Loopback;
use super::telegram::Bot;
use super::{
    ApiCall, AttachError, Client, Code, CodeGrant, CredentialKind, Failure, Provider, Providers, RevokeTokens,
    Variables,
};
use crate::clock::{Millis, SeededEntropy, Surroundings, TestClock};
use crate::config::ProviderSettings;
use crate::secret::Secret;

const NOW: Millis = Millis(1_790_000_000_000);
const BOT: &str = "123456789:AAvault-test-token-not-a-real-secret00";

fn providers(loopback: &Loopback) -> Providers {
    let at = |path: &str| Some(loopback.url(path));
    let google = ProviderSettings {
        token_url: at("/g/token"),
        revoke_url: at("/g/revoke"),
        jwks_url: at("/g/certs"),
        issuer: Some("https://issuer.test".into()),
        api_base_url: at("/g/api"),
        ..ProviderSettings::default()
    };
    let slack = ProviderSettings {
        token_url: at("/s/api/oauth.v2.access"),
        revoke_url: at("/s/api/auth.revoke"),
        api_base_url: at("/s/api"),
        ..ProviderSettings::default()
    };
    let telegram = ProviderSettings { api_base_url: at("/t/"), ..ProviderSettings::default() };
    let overrides = [("GOOGLE", google), ("slack", slack), ("telegram", telegram)];
    let overrides: BTreeMap<_, _> = overrides.into_iter().map(|(id, one)| (id.to_owned(), one)).collect();
    let clock = Arc::new(TestClock::at(NOW));
    let around = Surroundings { clock, entropy: Arc::new(SeededEntropy::new(1)) };
    Providers::new(loopback.outbound(), around, None, &overrides).expect("the catalogue")
}

fn get(providers: &Providers, id: &str) -> Arc<dyn Provider> {
    providers.get(id).expect("in the catalogue")
}

fn id_token(nonce: &str) -> (String, String) {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
    let key = EncodingKey::from_rsa_pem(include_bytes!("testdata/signing.pem")).expect("a key");
    let mut jwk = Jwk::from_encoding_key(&key, Algorithm::RS256).expect("a jwk");
    jwk.common.key_id = Some("k".to_owned());
    let seconds = NOW.unix_seconds();
    let claims = json!({"iss": "https://issuer.test", "aud": "cid", "sub": "1098", "nonce": nonce,
        "email": "ada@example.com", "email_verified": true, "iat": seconds, "exp": seconds + 3600});
    let header = Header { kid: Some("k".to_owned()), ..Header::new(Algorithm::RS256) };
    (jsonwebtoken::encode(&header, &claims, &key).expect("a token"), json!({ "keys": [jwk] }).to_string())
}

#[tokio::test]
async fn google_exchanges_a_code_and_knows_whose_it_is() {
    let loopback = Loopback::start().await;
    let google = get(&providers(&loopback), "google");
    let (token, keys) = id_token("n-1");
    let body = json!({"access_token": "ya29.a", "refresh_token": "1//r", "expires_in": "3599", "id_token": token,
        "scope": "openid https://www.googleapis.com/auth/userinfo.email", "token_type": "Bearer"});
    loopback.then(200, body.to_string()).then(200, keys);
    let (secret, code, verifier) = (Secret::new("cs&+"), Secret::new("4/0code"), Secret::new("v".repeat(43)));
    let grant = CodeGrant {
        redirect_uri: "https://vault.example/cb",
        code: &code,
        verifier: Some(&verifier),
        nonce: Some("n-1"),
        refresh_token_held: false,
    };
    let exchange = google
        .exchange(Client { id: "cid", secret: &secret, variables: Variables::NONE }, grant)
        .await
        .expect("tokens");

    assert_eq!((exchange.account.id.as_str(), exchange.account.email.as_deref()), ("1098", Some("ada@example.com")));
    let [tokens] = &exchange.tokens[..] else { panic!("one set") };
    assert_eq!(tokens.expires_in, Some(Duration::from_secs(3599)));
    assert_eq!(tokens.refresh_token.as_ref().map(Secret::expose), Some("1//r"));
    let seen = &loopback.seen()[0];
    assert_eq!((seen.method.as_str(), seen.uri.path()), ("POST", "/g/token"));
    let fields = [
        ("grant_type", "authorization_code"),
        ("code", "4/0code"),
        ("redirect_uri", "https://vault.example/cb"),
        ("code_verifier", verifier.expose()),
        ("client_id", "cid"),
        ("client_secret", "cs&+"),
    ];
    for (name, value) in fields {
        assert_eq!(seen.field(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(seen.header("accept"), Some("application/json"));
    assert_eq!(seen.header("authorization"), None);
}

#[tokio::test]
async fn google_without_a_needed_refresh_token_or_with_a_foreign_id_token_is_no_connection() {
    let loopback = Loopback::start().await;
    let google = get(&providers(&loopback), "google");
    let (secret, code) = (Secret::new("cs"), Secret::new("c"));
    let client = Client { id: "cid", secret: &secret, variables: Variables::NONE };
    let grant = CodeGrant {
        redirect_uri: "https://vault.example/cb",
        code: &code,
        verifier: None,
        nonce: Some("n-1"),
        refresh_token_held: false,
    };
    let body = |nonce| json!({"access_token": "a", "expires_in": 3599, "id_token": id_token(nonce).0}).to_string();
    loopback.then(200, body("n-1")).then(200, id_token("n-1").1).then(200, body("n-1")).then(200, body("n-2"));
    loopback.then(200, r#"{"access_token":"a","refresh_token":"r"}"#);

    let failure = google.exchange(client, grant).await.expect_err("no refresh token");
    assert_eq!(failure, Failure::Reauth { code: Code::own("refresh_token_missing") });
    let held = CodeGrant { refresh_token_held: true, ..grant };
    let exchange = google.exchange(client, held).await.expect("the stored one stays");
    assert!(exchange.tokens[0].refresh_token.is_none());
    let failure = google.exchange(client, held).await.expect_err("a replayed nonce (OA-08)");
    assert_eq!(failure.code(), Code::own("id_token_nonce"));
    let failure = google.exchange(client, held).await.expect_err("no id_token (OA-08)");
    assert_eq!(failure.code(), Code::own("id_token_missing"));
}

#[tokio::test]
async fn a_refresh_sends_one_request_and_says_what_came_of_it() {
    let loopback = Loopback::start().await;
    let providers = providers(&loopback);
    let secret = Secret::new("cs");
    let refresh = async |id: &str| {
        let client = Client { id: "c:id", secret: &secret, variables: Variables::NONE };
        get(&providers, id).refresh(client, CredentialKind::User, &Secret::new("r1"), None).await
    };
    loopback.then(200, r#"{"access_token":"a2","expires_in":3599,"scope":"openid"}"#);
    let tokens = refresh("google").await.expect("tokens");
    assert!(tokens.refresh_token.is_none() && tokens.subject.is_none());

    loopback
        .then(200, r#"{"ok":true,"access_token":"a2","refresh_token":"r2","expires_in":43200,"token_type":"user"}"#);
    let tokens = refresh("slack").await.expect("tokens");
    assert_eq!(tokens.refresh_token.as_ref().map(Secret::expose), Some("r2"));

    loopback.then_with(429, &[("retry-after", "30")], "");
    let after = Some(Duration::from_secs(30));
    assert_eq!(refresh("google").await.expect_err("429"), Failure::RateLimited { after });
    loopback.then_with(307, &[("location", "/elsewhere")], "");
    assert_eq!(refresh("google").await.expect_err("307").code(), Code::http(307));
    loopback.then(200, r#"{"ok":false,"error":"invalid_refresh_token"}"#);
    assert_eq!(refresh("slack").await.expect_err("dead"), Failure::Reauth { code: Code::own("invalid_refresh_token") });
    loopback.then(200, "x".repeat(100_000));
    assert!(matches!(refresh("slack").await.expect_err("too large"), Failure::Ambiguous { .. }));

    let seen = loopback.seen();
    assert_eq!(seen.len(), 6, "one request each; a redirect is not followed (OA-18)");
    assert_eq!(seen[0].field("client_secret").as_deref(), Some("cs"));
    assert_eq!(seen[1].field("client_secret"), None);
    assert_eq!(seen[1].header("authorization"), Some("Basic YyUzQWlkOmNz"), "form-encoded, then joined");
    assert_eq!(seen[1].field("grant_type").as_deref(), Some("refresh_token"));
    assert_eq!(seen[1].field("refresh_token").as_deref(), Some("r1"));
}

#[tokio::test]
async fn nobody_home_is_not_sent_and_a_hang_up_is_ambiguous() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut loopback = Loopback::start().await;
    loopback.address = listener.local_addr().expect("an address");
    let slack = get(&providers(&loopback), "slack");
    let secret = Secret::new("cs");
    let client = Client { id: "c", secret: &secret, variables: Variables::NONE };
    let token = Secret::new("r1");
    let hang_up = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a caller");
        let mut buffer = [0; 1024];
        let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await;
    });
    let failure = slack.refresh(client, CredentialKind::User, &token, None).await.expect_err("hung up");
    assert_eq!(failure, Failure::Ambiguous { code: Code::own("no_answer") });
    hang_up.await.expect("done");
    let failure = slack.refresh(client, CredentialKind::User, &token, None).await.expect_err("nobody");
    assert_eq!(failure, Failure::NotSent);
}

#[tokio::test]
async fn revoking_what_is_dead_is_done() {
    // OA-17, fact sheet A.6 and B.4
    let loopback = Loopback::start().await;
    let providers = providers(&loopback);
    let (secret, access, refresh) = (Secret::new("cs"), Secret::new("a"), Secret::new("r"));
    let tokens = RevokeTokens { access: Some(&access), refresh: Some(&refresh), kind: CredentialKind::User };
    let revoke = async |id: &str| {
        get(&providers, id).revoke(Client { id: "c", secret: &secret, variables: Variables::NONE }, &tokens).await
    };

    loopback.then(200, "");
    assert_eq!(revoke("google").await, Ok(()));
    loopback.then(400, r#"{"error":"invalid_token"}"#);
    assert_eq!(revoke("google").await, Ok(()));
    loopback.then(503, "");
    assert_eq!(revoke("google").await, Err(Failure::Transient { code: Code::http(503) }));
    loopback.then(200, r#"{"ok":true,"revoked":true}"#).then(200, r#"{"ok":false,"error":"token_revoked"}"#);
    assert_eq!(revoke("slack").await, Ok(()));
    loopback.then(500, "").then(200, r#"{"ok":true,"revoked":true}"#);
    assert_eq!(revoke("slack").await, Err(Failure::Transient { code: Code::http(500) }));
    assert_eq!(revoke("telegram").await, Err(Failure::Admin { code: Code::own("not_revocable") }));

    let seen = loopback.seen();
    assert_eq!(seen.len(), 7);
    assert_eq!(seen[0].field("token").as_deref(), Some("r"), "one call ends Google's whole grant");
    assert_eq!(seen[3].header("authorization"), Some("Bearer r"), "refresh token first");
    assert_eq!(seen[6].header("authorization"), Some("Bearer a"), "the second is tried whatever became of the first");
    assert!(seen.iter().all(|one| one.uri.query().is_none()), "no token in a URL");
}

#[tokio::test]
async fn telegram_checks_a_pasted_token() {
    let loopback = Loopback::start().await;
    let providers = providers(&loopback);
    let telegram = providers.telegram();
    let token = Secret::new(BOT);
    let me = |id: i64| json!({"ok": true, "result": {"id": id, "is_bot": true, "username": "valet_bot"}}).to_string();
    loopback.then(200, me(123_456_789)).then(200, me(5)).then(401, r#"{"ok":false,"error_code":401}"#);

    let bot = Bot { id: 123_456_789, username: "valet_bot".into(), name: None };
    assert_eq!(telegram.get_me(&token).await, Ok(bot));
    let failure = telegram.get_me(&token).await.expect_err("another bot");
    assert_eq!(failure.code(), Code::own("token_of_another_bot"));
    let failure = telegram.get_me(&token).await.expect_err("dead");
    assert_eq!(failure, Failure::Reauth { code: Code::own("token_revoked") });
    let failure = telegram.get_me(&Secret::new("1:../../x")).await.expect_err("not a token");
    assert_eq!(failure.code(), Code::own("token_malformed"));
    let seen = loopback.seen();
    assert_eq!(seen.len(), 3, "what is no token is never sent");
    assert_eq!(seen[0].uri.path(), format!("/t/bot{BOT}/getMe"));

    loopback.then(200, r#"{"ok":true,"result":{"url":"https://x.example"}}"#);
    assert_eq!(telegram.webhook(&token).await.as_deref(), Ok("https://x.example"));
    loopback.then(200, r#"{"ok":true,"result":{"url":""}}"#);
    assert_eq!(telegram.webhook(&token).await.as_deref(), Ok(""));
    let start = json!({"update_id": 9, "message": {"text": "/start abc", "chat": {"id": 7, "type": "private"},
        "from": {"id": 7, "first_name": "Ada"}}});
    loopback.then(200, json!({"ok": true, "result": [start, {"update_id": 10}, "junk"]}).to_string());
    let updates = telegram.get_updates(&token, 9).await.expect("updates");
    assert_eq!(updates.iter().map(|one| one.id).collect::<Vec<_>>(), [9, 10]);
}

#[tokio::test]
async fn attached_calls_carry_our_credential_and_nothing_of_the_tools() {
    // AG-12
    let loopback = Loopback::start().await;
    let providers = providers(&loopback);
    let outbound = loopback.outbound();
    let mut headers = HeaderMap::new();
    headers.insert("authorization", "Bearer evil".parse().expect("value"));
    headers.insert("cookie", "evil=1".parse().expect("value"));
    headers.insert("content-type", "application/json".parse().expect("value"));
    let body = bytes::Bytes::from_static(b"{\"chat_id\":666,\"text\":\"hi\"}");

    let call =
        ApiCall { query: Some("maxResults=1&access_token=evil"), ..ApiCall::new(Method::GET, "gmail/v1/x", &headers) };
    let request =
        get(&providers, "google").attach(call, CredentialKind::User, &Secret::new("ya29.a")).expect("a request");
    assert!(!format!("{request:?}").contains("ya29"), "{request:?}");
    outbound.send(request).await.expect("an answer");
    let call = ApiCall { body: body.clone(), ..ApiCall::new(Method::POST, "chat.postMessage", &headers) };
    let request =
        get(&providers, "slack").attach(call, CredentialKind::User, &Secret::new("xoxp-a")).expect("a request");
    outbound.send(request).await.expect("an answer");
    let call = ApiCall { body, query: Some("chat_id=666"), ..ApiCall::new(Method::GET, "sendMessage", &headers) };
    let telegram = get(&providers, "telegram");
    let unbound = telegram.attach(call.clone(), CredentialKind::Bot, &Secret::new(BOT));
    assert_eq!(unbound.map(|_| ()), Err(AttachError::NoChat));
    let request =
        telegram.attach(ApiCall { chat: Some(77), ..call }, CredentialKind::Bot, &Secret::new(BOT)).expect("a request");
    assert!(!format!("{request:?}").contains("AAvault"), "{request:?}");
    outbound.send(request).await.expect("an answer");

    let seen = loopback.seen();
    assert_eq!(seen[0].uri.to_string(), "/g/api/gmail/v1/x?maxResults=1");
    assert_eq!(seen[0].header("authorization"), Some("Bearer ya29.a"));
    assert_eq!(seen[1].uri.to_string(), "/s/api/chat.postMessage");
    assert_eq!(seen[1].header("authorization"), Some("Bearer xoxp-a"));
    assert_eq!(seen[2].uri.to_string(), format!("/t/bot{BOT}/sendMessage"));
    assert_eq!((seen[2].method.as_str(), seen[2].header("authorization")), ("POST", None));
    assert_eq!(seen[2].body, r#"{"chat_id":77,"text":"hi"}"#);
    assert!(seen.iter().all(|one| one.header("cookie").is_none()));
    for name in ["setWebhook", "getUpdates", "sendmessage", "logOut", "../getMe", "sendMessage/x", "getMe?x=1"] {
        let call = ApiCall { chat: Some(77), ..ApiCall::new(Method::POST, name, &headers) };
        assert!(telegram.attach(call, CredentialKind::User, &Secret::new(BOT)).is_err(), "{name}");
    }
}
