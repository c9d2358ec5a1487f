//! Which id_tokens are believed, and how often their keys are fetched.

use super::*;
use crate::clock::{SeededEntropy, Surroundings, TestClock};
use crate::providers::loopback::Loopback;
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;
use std::sync::Arc;

const NOW: i64 = 1_790_000_000;
const KID: &str = "key-1";

fn signing() -> EncodingKey {
    EncodingKey::from_rsa_pem(include_bytes!("../testdata/signing.pem")).expect("a key")
}

fn other() -> EncodingKey {
    EncodingKey::from_rsa_pem(include_bytes!("../testdata/other.pem")).expect("a key")
}

fn public(key: &EncodingKey, kid: &str) -> Value {
    let mut jwk = Jwk::from_encoding_key(key, Algorithm::RS256).expect("a jwk");
    jwk.common.key_id = Some(kid.to_owned());
    serde_json::to_value(jwk).expect("json")
}

fn claims() -> Value {
    json!({
        "iss": "https://accounts.google.com", "aud": "client-1", "azp": "client-1", "sub": "1098",
        "email": "ada@example.com", "email_verified": true, "name": "Ada", "nonce": "n-1",
        "iat": NOW - 5, "exp": NOW + 3600,
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().expect("an object").remove(name);
    claims
}

fn header() -> Header {
    Header { kid: Some(KID.to_owned()), ..Header::new(Algorithm::RS256) }
}

fn sign(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(header, claims, key).expect("a token")
}

/// A token put together by hand, for headers that the library does not write.
fn by_hand(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    format!("{}.{}.{}", part(header), part(claims), BASE64URL_NOPAD.encode(signature))
}

fn street(loopback: &Loopback, clock: &TestClock) -> Street {
    let around = Surroundings { clock: Arc::new(clock.clone()), entropy: Arc::new(SeededEntropy::new(1)) };
    Street::new(loopback.outbound(), around)
}

fn expected<'a>(issuers: &'a [String], nonce: Option<&'a str>) -> Expected<'a> {
    Expected { issuers, client_id: "client-1", nonce, nonce_is_optional: false, now: Millis(NOW * 1000) }
}

fn believed(token: &str, keys: &[Value], algorithms: &[Algorithm], expected: Expected<'_>) -> Result<Claims, Failure> {
    let keys = read_keys(json!({"keys": keys}).to_string().as_bytes()).expect("keys");
    let kid = key_id(token, algorithms)?;
    let key = keys.get(&kid).ok_or(Refused::UnknownKey)?;
    let claims = decode_with(key, token)?;
    check(&claims, expected)?;
    Ok(claims)
}

fn check_token(token: &str) -> Result<Claims, Failure> {
    let issuers = ["https://accounts.google.com".to_owned(), "accounts.google.com".to_owned()];
    believed(token, &[public(&signing(), KID)], &[Algorithm::RS256], expected(&issuers, Some("n-1")))
}

#[test]
fn only_the_right_token_is_believed() {
    // OA-08
    let good = sign(&header(), &claims(), &signing());
    let accepted = [
        good.clone(),
        sign(&header(), &with("iss", json!("accounts.google.com")), &signing()),
        sign(&header(), &with("aud", json!(["client-1"])), &signing()),
        sign(&header(), &without("azp"), &signing()),
        sign(&header(), &with("iat", json!(NOW + 55)), &signing()),
        sign(&header(), &with("exp", json!(NOW - 55)), &signing()),
    ];
    for token in accepted {
        assert_eq!(check_token(&token).expect("believed").subject(), Some("1098"));
    }

    let modulus = public(&signing(), KID)["n"].as_str().expect("n").to_owned();
    let hs256 = Header { kid: Some(KID.to_owned()), ..Header::new(Algorithm::HS256) };
    let ps256 = Header { kid: Some(KID.to_owned()), ..Header::new(Algorithm::PS256) };
    let no_kid = Header::new(Algorithm::RS256);
    let foreign = Header { kid: Some("key-9".to_owned()), ..Header::new(Algorithm::RS256) };
    let carried = Header {
        jwk: Some(serde_json::from_value(public(&other(), "key-9")).expect("a jwk")),
        jku: Some("https://evil.example/keys".to_owned()),
        ..foreign.clone()
    };
    let critical = json!({"alg": "RS256", "kid": KID, "crit": ["exp"], "typ": "JWT"});
    let none = json!({"alg": "none", "kid": KID});
    let tampered = {
        let mut parts = good.split('.');
        let (head, _, signature) = (parts.next(), parts.next(), parts.next());
        let body = BASE64URL_NOPAD.encode(with("sub", json!("666")).to_string().as_bytes());
        format!("{}.{body}.{}", head.unwrap_or_default(), signature.unwrap_or_default())
    };
    let signed = |claims: Value| sign(&header(), &claims, &signing());
    let rows = [
        ("id_token_algorithm", by_hand(&none, &claims(), b"")),
        ("id_token_algorithm", sign(&hs256, &claims(), &EncodingKey::from_secret(modulus.as_bytes()))),
        ("id_token_algorithm", sign(&ps256, &claims(), &signing())),
        ("id_token_signature", sign(&header(), &claims(), &other())),
        ("id_token_signature", by_hand(&json!({"alg": "RS256", "kid": KID}), &claims(), &[0; 256])),
        ("id_token_signature", tampered),
        ("id_token_unknown_key", sign(&foreign, &claims(), &signing())),
        ("id_token_unknown_key", sign(&carried, &claims(), &other())),
        ("id_token_unknown_key", sign(&no_kid, &claims(), &signing())),
        ("id_token_malformed", by_hand(&critical, &claims(), &[0; 256])),
        ("id_token_malformed", "abc".to_owned()),
        ("id_token_malformed", format!("{good}.x")),
        ("id_token_malformed", "a.".repeat(20_000)),
        ("id_token_issuer", signed(with("iss", json!("https://accounts.google.com/")))),
        ("id_token_issuer", signed(with("iss", json!("https://ACCOUNTS.google.com")))),
        ("id_token_issuer", signed(without("iss"))),
        ("id_token_audience", signed(with("aud", json!("client-2")))),
        ("id_token_audience", signed(with("aud", json!(["client-1", "client-2"])))),
        ("id_token_audience", signed(with("aud", json!([])))),
        ("id_token_audience", signed(without("aud"))),
        ("id_token_authorized_party", signed(with("azp", json!("client-2")))),
        ("id_token_expired", signed(with("exp", json!(NOW - 61)))),
        ("id_token_expired", signed(with("exp", json!("2099")))),
        ("id_token_expired", signed(without("exp"))),
        ("id_token_issued_at", signed(with("iat", json!(NOW + 61)))),
        ("id_token_issued_at", signed(without("iat"))),
        ("id_token_issued_at", signed(with("nbf", json!(NOW + 61)))),
        ("id_token_nonce", signed(with("nonce", json!("n-2")))),
        ("id_token_nonce", signed(with("nonce", json!(["n-1"])))),
        ("id_token_nonce", signed(without("nonce"))),
        ("id_token_subject", signed(without("sub"))),
        ("id_token_subject", signed(with("sub", json!("")))),
        ("id_token_subject", signed(with("sub", json!(1098)))),
        ("id_token_subject", signed(with("sub", json!("a".repeat(256))))),
    ];
    for (wanted, token) in rows {
        let failure = check_token(&token).expect_err(wanted);
        assert_eq!(failure, Failure::Unrecognised { code: Code::own(wanted) });
    }
}

/// What a bot says of somebody who signed in (fact sheet C.1).
fn telegrams() -> Value {
    json!({
        "iss": "https://oauth.telegram.org", "aud": "123456789", "sub": "7002819301938475610", "id": 987_654_321,
        "name": "Ada", "preferred_username": "ada_test", "nonce": "n-1", "iat": NOW - 5, "exp": NOW + 3600,
    })
}

#[test]
fn telegrams_tokens_are_believed_with_each_of_its_algorithms_and_only_with_its_own_key_oa_08() {
    let descriptor = crate::providers::catalogue::known("telegram");
    let pem = |text: &[u8]| EncodingKey::from_ec_pem(text).or_else(|_| EncodingKey::from_ed_pem(text)).expect("a key");
    let (es256, eddsa) =
        (pem(include_bytes!("../testdata/signing-es256.pem")), pem(include_bytes!("../testdata/signing-eddsa.pem")));
    let all = [
        (Algorithm::RS256, signing(), "oidc-1"),
        (Algorithm::ES256, es256, "oidc-es256-1"),
        (Algorithm::EdDSA, eddsa, "oidc-eddsa-1"),
    ];
    let mut keys: Vec<Value> = all
        .iter()
        .map(|(algorithm, key, kid)| {
            let mut jwk = Jwk::from_encoding_key(key, *algorithm).expect("a jwk");
            jwk.common.key_id = Some((*kid).to_owned());
            serde_json::to_value(jwk).expect("json")
        })
        .collect();
    let (x, y) = (keys[1]["x"].clone(), keys[1]["y"].clone());
    keys.push(json!({"kty": "EC", "crv": "secp256k1", "alg": "ES256K", "kid": "oidc-es256k-1", "x": x, "y": y}));
    let judge = |token: &str| {
        let now = Millis(NOW * 1000);
        let issuers = &descriptor.endpoints.issuers;
        let nonce_is_optional = descriptor.identity.nonce_is_optional;
        let expected = Expected { issuers, client_id: "123456789", nonce: Some("n-1"), nonce_is_optional, now };
        believed(token, &keys, &descriptor.identity.algorithms, expected).map(|claims| claims.text_at("/id"))
    };
    let changed = |name: &str, value: Value| {
        let mut claims = telegrams();
        claims[name] = value;
        claims
    };
    let mut silent = telegrams();
    silent.as_object_mut().expect("an object").remove("nonce");
    let known = Ok(Some("987654321".to_owned()));
    let refused = |word| Err(Failure::Unrecognised { code: Code::own(word) });
    for (at, (algorithm, key, kid)) in all.iter().enumerate() {
        let header = |kid: &str| Header { kid: Some(kid.to_owned()), ..Header::new(*algorithm) };
        let signed = |claims: &Value| judge(&sign(&header(kid), claims, key));
        let unlisted = by_hand(&json!({"alg": "ES256K", "kid": "oidc-es256k-1"}), &telegrams(), &[1; 64]);
        let none = by_hand(&json!({"alg": "none", "kid": kid}), &telegrams(), b"");
        let forged = by_hand(&json!({"alg": algorithm, "kid": kid}), &telegrams(), &[1; 64]);
        let (_, _, neighbour) = &all[(at + 1) % all.len()];
        let secret = keys[at].get("x").or(keys[at].get("n")).and_then(Value::as_str).expect("public").to_owned();
        let hs256 = Header { kid: Some((*kid).to_owned()), ..Header::new(Algorithm::HS256) };
        let rows = [
            (known.clone(), signed(&telegrams())),
            (known.clone(), signed(&silent)),
            (refused("id_token_nonce"), signed(&changed("nonce", json!("n-2")))),
            (refused("id_token_nonce"), signed(&changed("nonce", json!("")))),
            (refused("id_token_audience"), signed(&changed("aud", json!("987654321")))),
            (refused("id_token_audience"), signed(&changed("aud", json!(123_456_789)))),
            (refused("id_token_issuer"), signed(&changed("iss", json!("https://oauth.telegram.org/")))),
            (refused("id_token_expired"), signed(&changed("exp", json!(NOW - 61)))),
            (refused("id_token_issued_at"), signed(&changed("iat", json!(NOW + 61)))),
            (refused("id_token_subject"), signed(&changed("sub", json!(7)))),
            (refused("id_token_algorithm"), judge(&sign(&header(neighbour), &telegrams(), key))),
            (refused("id_token_algorithm"), judge(&unlisted)),
            (refused("id_token_algorithm"), judge(&none)),
            (
                refused("id_token_algorithm"),
                judge(&sign(&hs256, &telegrams(), &EncodingKey::from_secret(secret.as_bytes()))),
            ),
            (refused("id_token_unknown_key"), judge(&sign(&header("oidc-es256k-1"), &telegrams(), key))),
            (refused("id_token_signature"), judge(&forged)),
        ];
        for (row, (wanted, seen)) in rows.into_iter().enumerate() {
            assert_eq!(seen, wanted, "{algorithm:?}, row {row}");
        }
    }
}

#[test]
fn an_unverified_email_is_not_shown_as_theirs() {
    let email = |verified: Value| {
        let token = sign(&header(), &with("email_verified", verified), &signing());
        check_token(&token).expect("believed").verified_email()
    };
    assert_eq!(email(json!(true)).as_deref(), Some("ada@example.com"));
    assert_eq!(email(json!(false)), None);
    assert_eq!(email(Value::Null), None);
}

#[test]
fn keys_that_are_not_for_signatures_are_skipped() {
    let rsa = |changes: &[(&str, &str)]| {
        let mut key = public(&signing(), "k");
        for (name, value) in changes {
            key[*name] = json!(value);
        }
        read_keys(json!({"keys": [key, 7, {"kty": "EC", "kid": "e"}]}).to_string().as_bytes()).expect("keys").len()
    };
    assert_eq!(rsa(&[]), 1);
    assert_eq!(rsa(&[("use", "enc")]), 0);
    assert_eq!(rsa(&[("alg", "RS512")]), 0);
    assert_eq!(rsa(&[("kty", "oct")]), 0);
    assert_eq!(rsa(&[("crv", "P-256")]), 0);
    assert!(read_keys(b"<html>").is_none() && read_keys(b"{\"keys\":{}}").is_none());
}

#[tokio::test]
async fn keys_are_cached_and_an_unknown_one_fetches_at_most_once_a_minute() {
    // fact sheet G.21
    let provider = Loopback::start().await;
    let clock = TestClock::at(Millis(NOW * 1000));
    let ring = KeyRing::new(street(&provider, &clock), vec![Algorithm::RS256]);
    let jwks = provider.url("/certs");
    let issuers = ["https://accounts.google.com".to_owned()];
    let old = json!({"keys": [public(&signing(), KID)]}).to_string();
    let new = json!({"keys": [public(&signing(), KID), public(&other(), "key-2")]}).to_string();
    provider.then_with(200, &[("cache-control", "public, max-age=20000")], old).then(200, new);
    let token = |header: &Header, key: &EncodingKey| Secret::new(sign(header, &claims(), key));
    let first = token(&header(), &signing());
    let second = token(&Header { kid: Some("key-2".to_owned()), ..Header::new(Algorithm::RS256) }, &other());
    let verify = async |token: &Secret| ring.verify(&jwks, token, expected(&issuers, Some("n-1"))).await.map(|_| ());
    let unknown = Err(Failure::from(Refused::UnknownKey));

    assert_eq!(verify(&first).await, Ok(()));
    assert_eq!(verify(&first).await, Ok(()));
    assert_eq!(verify(&second).await, unknown.clone(), "within the minute nothing is fetched again");
    assert_eq!(provider.seen().len(), 1);
    clock.advance(Duration::from_secs(61));
    assert_eq!(verify(&second).await, Ok(()), "a rotated key is found");
    assert_eq!(verify(&first).await, Ok(()));
    assert_eq!(provider.seen().len(), 2);
    clock.advance(Duration::from_secs(3601));
    assert_eq!(verify(&first).await, Ok(()), "old keys serve while the provider answers 404");
    assert_eq!(provider.seen().len(), 3);
    clock.advance(Duration::from_secs(86_400));
    let outdated = Failure::Transient { code: Code::own("id_token_keys_unavailable") };
    assert_eq!(verify(&first).await, Err(outdated), "but not for ever");
}

#[tokio::test]
async fn without_keys_nothing_is_believed() {
    let provider = Loopback::start().await;
    provider.then_with(302, &[("location", "/elsewhere")], "");
    let clock = TestClock::at(Millis(NOW * 1000));
    let ring = KeyRing::new(street(&provider, &clock), vec![Algorithm::RS256]);
    let issuers = ["https://accounts.google.com".to_owned()];
    let expected = expected(&issuers, None);
    let token = Secret::new(sign(&header(), &claims(), &signing()));
    let failure = ring.verify(&provider.url("/certs"), &token, expected).await.expect_err("no keys");
    assert_eq!(failure, Failure::Transient { code: Code::own("id_token_keys_unavailable") });
    assert_eq!(provider.seen().len(), 1, "a redirect is not followed (OA-18)");
    provider.then(200, json!({"keys": [public(&signing(), KID)]}).to_string());
    assert!(ring.verify(&provider.url("/certs"), &token, expected).await.is_ok(), "the next one asks again");
}

#[test]
fn the_subject_of_a_refresh_answer_is_read_or_not_but_never_an_error() {
    let token = Secret::new(sign(&header(), &claims(), &other()));
    let subject = |token: &Secret| unverified_claims(token).and_then(|claims| claims.subject().map(str::to_owned));
    assert_eq!(subject(&token).as_deref(), Some("1098"));
    for text in ["", "a.b.c", "<html>", "a.e30.c"] {
        assert_eq!(subject(&Secret::new(text)), None, "{text}");
    }
}
