//! Verifies id_tokens (OA-08, OpenID Connect Core section 3.1.3.7, provider fact sheet A.7).
//!
//! Only RS256, only keys published at the pinned address and found by `kid`; `jku`, `jwk`, `x5u` and `x5c` in the
//! token's header are never looked at. Keys are cached; an unknown `kid` fetches them again, but not more often than
//! once a minute, so that forged tokens cannot make us hammer the provider.

use std::collections::HashMap;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use url::Url;

use super::answer::text_of;
use super::errors::{Code, Failure};
use super::oauth2::Street;
use crate::clock::Millis;
use crate::outbound::Request;
use crate::secret::Secret;

/// How far clocks may be apart (OA-08).
const SKEW: Duration = Duration::from_secs(60);
/// Shortest time between two fetches of the keys.
const REFETCH_AFTER: Duration = Duration::from_secs(60);
const SHORTEST_CACHE: Duration = Duration::from_secs(300);
const LONGEST_CACHE: Duration = Duration::from_secs(86_400);
/// How long keys serve after their time while new ones cannot be fetched.
const LONGEST_STALE: Duration = Duration::from_secs(86_400);
const DEFAULT_CACHE: Duration = Duration::from_secs(3600);
const LONGEST_TOKEN: usize = 16 * 1024;
const MOST_KEYS: usize = 32;

/// Why an id_token is not believed. Nobody does anything different; the word helps whoever reads the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Malformed,
    Algorithm,
    UnknownKey,
    Signature,
    Issuer,
    Audience,
    AuthorizedParty,
    Expired,
    IssuedAt,
    Nonce,
    Subject,
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        let word = match refused {
            Refused::Malformed => "id_token_malformed",
            Refused::Algorithm => "id_token_algorithm",
            Refused::UnknownKey => "id_token_unknown_key",
            Refused::Signature => "id_token_signature",
            Refused::Issuer => "id_token_issuer",
            Refused::Audience => "id_token_audience",
            Refused::AuthorizedParty => "id_token_authorized_party",
            Refused::Expired => "id_token_expired",
            Refused::IssuedAt => "id_token_issued_at",
            Refused::Nonce => "id_token_nonce",
            Refused::Subject => "id_token_subject",
        };
        Self::Unrecognised { code: Code::own(word) }
    }
}

/// What a token must say.
#[derive(Clone, Copy)]
pub(super) struct Expected<'a> {
    pub issuers: &'a [String],
    pub client_id: &'a str,
    pub nonce: Option<&'a str>,
    pub now: Millis,
}

/// The claims that are used.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Claims {
    iss: Value,
    aud: Value,
    azp: Value,
    exp: Value,
    iat: Value,
    nbf: Value,
    nonce: Value,
    sub: Value,
    email: Value,
    email_verified: Value,
    name: Value,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Claims {
    /// Case-sensitive, 1 to 255 characters of visible ASCII (OpenID Connect Core section 2).
    pub fn subject(&self) -> Option<&str> {
        let fits = |sub: &&str| (1..=255).contains(&sub.len()) && sub.bytes().all(|b| b.is_ascii_graphic());
        self.sub.as_str().filter(fits)
    }

    /// Only when the issuer vouches for it.
    pub fn verified_email(&self) -> Option<String> {
        let verified = self.email_verified == Value::Bool(true) || self.email_verified == "true";
        let email = self.email.as_str().filter(|_| verified)?;
        displayable(email)
    }

    pub fn name(&self) -> Option<String> {
        self.name.as_str().and_then(displayable)
    }

    /// A claim beside the standard ones, to which a JSON pointer (RFC 6901) leads.
    pub fn text_at(&self, pointer: &str) -> Option<String> {
        text_of(self.rest.get(pointer.strip_prefix('/')?)?)
    }

    /// Whether the issuer is one of these. One with `{name}` in it has the token's own claim of that name there: Microsoft's issuer
    /// names the directory.
    fn is_issued_by(&self, issuers: &[String]) -> bool {
        let Some(issuer) = self.iss.as_str() else { return false };
        issuers.iter().any(|known| {
            match known.split_once('{').and_then(|(start, rest)| Some((start, rest.split_once('}')?))) {
                None => known == issuer,
                Some((start, (name, end))) => {
                    let claim = self.rest.get(name).and_then(Value::as_str).filter(|claim| is_directory(claim));
                    claim.is_some_and(|claim| issuer == format!("{start}{claim}{end}"))
                }
            }
        })
    }
}

/// Text from a provider that people will see: bounded, without control characters.
pub(super) fn displayable(text: &str) -> Option<String> {
    let text: String = text.chars().filter(|c| !c.is_control()).take(320).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The keys of one issuer, cached.
pub(super) struct KeyRing {
    street: Street,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    keys: HashMap<String, DecodingKey>,
    fresh_until: Option<Millis>,
    last_fetch: Option<Millis>,
}

impl KeyRing {
    pub fn new(street: Street) -> Self {
        Self { street, cache: Mutex::new(Cache::default()) }
    }

    /// Verifies everything and returns the claims.
    pub async fn verify(&self, jwks: &Url, token: &Secret, expected: Expected<'_>) -> Result<Claims, Failure> {
        let claims = self.signed(jwks, token).await??;
        check(&claims, expected)?;
        Ok(claims)
    }

    /// What a token says that is signed with one of these keys; nothing of it is checked. Fails when the keys cannot be had.
    pub async fn signed<T: DeserializeOwned>(&self, jwks: &Url, token: &Secret) -> Result<Result<T, Refused>, Failure> {
        let kid = match key_id(token.expose()) {
            Ok(kid) => kid,
            Err(refused) => return Ok(Err(refused)),
        };
        let key = self.key(jwks, &kid).await?;
        Ok(key.ok_or(Refused::UnknownKey).and_then(|key| decode_with(&key, token.expose())))
    }

    /// The key with this id. The lock is held while fetching, so that a crowd fetches once.
    async fn key(&self, jwks: &Url, kid: &str) -> Result<Option<DecodingKey>, Failure> {
        let mut cache = self.cache.lock().await;
        let now = self.street.around().now();
        let fresh = cache.fresh_until.is_some_and(|until| now < until);
        if let Some(key) = cache.keys.get(kid).filter(|_| fresh) {
            return Ok(Some(key.clone()));
        }
        // A clock that jumped back must not block fetching for longer than the limit.
        let resting = cache.last_fetch.is_some_and(|last| now >= last && now.before(REFETCH_AFTER) < last);
        if !resting {
            match self.fetch(jwks).await {
                Ok((keys, life)) => {
                    *cache = Cache { keys, fresh_until: Some(now.after(life)), last_fetch: Some(now) };
                }
                // Old keys serve while the provider cannot be asked, and it is not asked by everyone who waits.
                Err(failure) if cache.keys.contains_key(kid) => {
                    cache.last_fetch = Some(now);
                    tracing::warn!(code = %failure.code(), "id_token keys could not be fetched again");
                }
                // Nothing can be verified without keys, so the next one asks again.
                Err(failure) => return Err(keys_unavailable(&failure)),
            }
        }
        if cache.fresh_until.is_none_or(|until| until.after(LONGEST_STALE) <= now) {
            return Err(keys_unavailable(&Failure::Transient { code: Code::own("keys_outdated") }));
        }
        Ok(cache.keys.get(kid).cloned())
    }

    async fn fetch(&self, jwks: &Url) -> Result<(HashMap<String, DecodingKey>, Duration), Failure> {
        let answer = self.street.send(Request::get(jwks.clone())).await?;
        if answer.status != 200 {
            return Err(Failure::Transient { code: Code::http(answer.status) });
        }
        let keys = read_keys(&answer.body).ok_or(Failure::Transient { code: Code::own("keys_unreadable") })?;
        let life = answer.max_age.unwrap_or(DEFAULT_CACHE).clamp(SHORTEST_CACHE, LONGEST_CACHE);
        Ok((keys, life))
    }
}

/// The code is spent by now, but nothing is wrong with client or person.
fn keys_unavailable(failure: &Failure) -> Failure {
    tracing::warn!(code = %failure.code(), "id_token keys could not be fetched");
    Failure::Transient { code: Code::own("id_token_keys_unavailable") }
}

/// The usable keys of a JWK set: RSA, for RS256 signatures, with an id. Others are skipped.
fn read_keys(body: &[u8]) -> Option<HashMap<String, DecodingKey>> {
    let set: Value = serde_json::from_slice(body).ok()?;
    let mut keys = HashMap::new();
    for key in set.get("keys")?.as_array()?.iter().take(MOST_KEYS) {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        let for_us = text("kty") == Some("RSA")
            && text("alg").is_none_or(|alg| alg == "RS256")
            && text("use").is_none_or(|usage| usage == "sig");
        let (true, Some(kid), Some(n), Some(e)) = (for_us, text("kid"), text("n"), text("e")) else { continue };
        if let Ok(decoding) = DecodingKey::from_rsa_components(n, e) {
            keys.insert(kid.to_owned(), decoding);
        }
    }
    Some(keys)
}

/// The key id that the token names, after a look at the algorithm.
fn key_id(token: &str) -> Result<String, Refused> {
    if token.len() > LONGEST_TOKEN || token.split('.').count() != 3 {
        return Err(Refused::Malformed);
    }
    // `none` is not an algorithm of the library, so that such a header does not parse.
    let header = jsonwebtoken::decode_header(token).map_err(|_| Refused::Algorithm)?;
    if header.alg != Algorithm::RS256 {
        return Err(Refused::Algorithm);
    }
    // RFC 7515 section 4.1.11: an extension that is critical and not understood makes the token invalid.
    if header.crit.is_some() {
        return Err(Refused::Malformed);
    }
    header.kid.filter(|kid| !kid.is_empty() && kid.len() <= 256).ok_or(Refused::UnknownKey)
}

/// The signature, without any I/O.
fn decode_with<T: DeserializeOwned>(key: &DecodingKey, token: &str) -> Result<T, Refused> {
    let mut validation = Validation::new(Algorithm::RS256);
    // The library would read the system's clock; every claim is checked below with ours.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let data = jsonwebtoken::decode::<T>(token, key, &validation).map_err(|error| match error.kind() {
        jsonwebtoken::errors::ErrorKind::InvalidSignature => Refused::Signature,
        jsonwebtoken::errors::ErrorKind::InvalidAlgorithm => Refused::Algorithm,
        _ => Refused::Malformed,
    })?;
    Ok(data.claims)
}

fn check(claims: &Claims, expected: Expected<'_>) -> Result<(), Refused> {
    if !claims.is_issued_by(expected.issuers) {
        return Err(Refused::Issuer);
    }
    // An audience beside ours is a party we do not trust (OpenID Connect Core section 3.1.3.7, point 3).
    let ours = |aud: &Value| aud.as_str() == Some(expected.client_id);
    let audience = match &claims.aud {
        Value::Array(list) => !list.is_empty() && list.iter().all(ours),
        one => ours(one),
    };
    if !audience {
        return Err(Refused::Audience);
    }
    if !claims.azp.is_null() && !ours(&claims.azp) {
        return Err(Refused::AuthorizedParty);
    }
    let now = expected.now;
    let (late, early) = (now.after(SKEW).unix_seconds(), now.before(SKEW).unix_seconds());
    if seconds(&claims.exp).ok_or(Refused::Expired)? <= early {
        return Err(Refused::Expired);
    }
    if seconds(&claims.iat).ok_or(Refused::IssuedAt)? > late {
        return Err(Refused::IssuedAt);
    }
    if !claims.nbf.is_null() && seconds(&claims.nbf).ok_or(Refused::IssuedAt)? > late {
        return Err(Refused::IssuedAt);
    }
    if let Some(nonce) = expected.nonce
        && claims.nonce.as_str() != Some(nonce)
    {
        return Err(Refused::Nonce);
    }
    claims.subject().map(|_| ()).ok_or(Refused::Subject)
}

/// A NumericDate: a JSON number of seconds (RFC 7519 section 2).
pub(super) fn seconds(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_f64().filter(|s| s.is_finite() && s.abs() < 1e15).map(|s| s.floor() as i64))
}

/// The claims of an id_token that came with a refresh answer, read without checking the signature.
///
/// It arrived over TLS from the pinned token endpoint with client authentication, for which OpenID Connect Core
/// section 3.1.3.7 point 6 allows that; and it can only make a connection stop, never start (OA-10). Fetching keys
/// here could lose the new tokens. `None` when it cannot be read.
pub(super) fn unverified_claims(token: &Secret) -> Option<Claims> {
    if token.expose().len() > LONGEST_TOKEN {
        return None;
    }
    jsonwebtoken::dangerous::insecure_decode_claims(token.expose()).ok()
}

/// A directory's id: hexadecimal digits and dashes, so that it cannot bend the address it stands in.
fn is_directory(claim: &str) -> bool {
    (1..=64).contains(&claim.len()) && claim.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

#[cfg(test)]
mod tests {
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
        EncodingKey::from_rsa_pem(include_bytes!("testdata/signing.pem")).expect("a key")
    }

    fn other() -> EncodingKey {
        EncodingKey::from_rsa_pem(include_bytes!("testdata/other.pem")).expect("a key")
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

    fn check_token(token: &str) -> Result<Claims, Failure> {
        let keys = read_keys(json!({"keys": [public(&signing(), KID)]}).to_string().as_bytes()).expect("keys");
        let issuers = ["https://accounts.google.com".to_owned(), "accounts.google.com".to_owned()];
        let expected =
            Expected { issuers: &issuers, client_id: "client-1", nonce: Some("n-1"), now: Millis(NOW * 1000) };
        let kid = key_id(token)?;
        let key = keys.get(&kid).ok_or(Refused::UnknownKey)?;
        let claims = decode_with(key, token)?;
        check(&claims, expected)?;
        Ok(claims)
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
    fn keys_that_are_not_for_rs256_signatures_are_skipped() {
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
        assert!(read_keys(b"<html>").is_none() && read_keys(b"{\"keys\":{}}").is_none());
    }

    #[tokio::test]
    async fn keys_are_cached_and_an_unknown_one_fetches_at_most_once_a_minute() {
        // fact sheet G.21
        let provider = Loopback::start().await;
        let clock = TestClock::at(Millis(NOW * 1000));
        let ring = KeyRing::new(street(&provider, &clock));
        let jwks = provider.url("/certs");
        let issuers = ["https://accounts.google.com".to_owned()];
        let old = json!({"keys": [public(&signing(), KID)]}).to_string();
        let new = json!({"keys": [public(&signing(), KID), public(&other(), "key-2")]}).to_string();
        provider.then_with(200, &[("cache-control", "public, max-age=20000")], old).then(200, new);
        let token = |header: &Header, key: &EncodingKey| Secret::new(sign(header, &claims(), key));
        let first = token(&header(), &signing());
        let second = token(&Header { kid: Some("key-2".to_owned()), ..Header::new(Algorithm::RS256) }, &other());
        let verify = async |token: &Secret| {
            let expected =
                Expected { issuers: &issuers, client_id: "client-1", nonce: Some("n-1"), now: Millis(NOW * 1000) };
            ring.verify(&jwks, token, expected).await.map(|_| ())
        };
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
        let ring = KeyRing::new(street(&provider, &clock));
        let issuers = ["https://accounts.google.com".to_owned()];
        let expected = Expected { issuers: &issuers, client_id: "client-1", nonce: None, now: Millis(NOW * 1000) };
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
}
