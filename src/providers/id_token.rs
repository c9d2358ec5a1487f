//! Verifies id_tokens (OA-08, OpenID Connect Core section 3.1.3.7, provider fact sheet A.7).
//!
//! Only algorithms that the provider signs with, each with a key made for it; only keys published at the pinned address and
//! found by `kid`; `jku`, `jwk`, `x5u` and `x5c` in the token's header are never looked at. Keys are cached; an unknown `kid` fetches them again, but not more often than
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
/// The algorithms that a provider can sign with: those with a public key that the library knows and nobody advises against.
pub(super) const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

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
    /// A token without any nonce will do: the code was bound to us by PKCE and state already.
    pub nonce_is_optional: bool,
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
    algorithms: Vec<Algorithm>,
    cache: Mutex<Cache>,
}

/// A key, which is for one algorithm alone.
#[derive(Clone)]
struct Key {
    algorithm: Algorithm,
    decoding: DecodingKey,
}

#[derive(Default)]
struct Cache {
    keys: HashMap<String, Key>,
    fresh_until: Option<Millis>,
    last_fetch: Option<Millis>,
}

impl KeyRing {
    /// For an issuer that signs with these of the [`ALGORITHMS`].
    pub fn new(street: Street, algorithms: Vec<Algorithm>) -> Self {
        Self { street, algorithms, cache: Mutex::new(Cache::default()) }
    }

    /// Verifies everything and returns the claims.
    pub async fn verify(&self, jwks: &Url, token: &Secret, expected: Expected<'_>) -> Result<Claims, Failure> {
        let claims = self.signed(jwks, token).await??;
        check(&claims, expected)?;
        Ok(claims)
    }

    /// What a token says that is signed with one of these keys; nothing of it is checked. Fails when the keys cannot be had.
    pub async fn signed<T: DeserializeOwned>(&self, jwks: &Url, token: &Secret) -> Result<Result<T, Refused>, Failure> {
        let kid = match key_id(token.expose(), &self.algorithms) {
            Ok(kid) => kid,
            Err(refused) => return Ok(Err(refused)),
        };
        let key = self.key(jwks, &kid).await?;
        Ok(key.ok_or(Refused::UnknownKey).and_then(|key| decode_with(&key, token.expose())))
    }

    /// The key with this id. The lock is held while fetching, so that a crowd fetches once.
    async fn key(&self, jwks: &Url, kid: &str) -> Result<Option<Key>, Failure> {
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

    async fn fetch(&self, jwks: &Url) -> Result<(HashMap<String, Key>, Duration), Failure> {
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

/// The usable keys of a JWK set: for signatures with one of the [`ALGORITHMS`], with an id. Others are skipped.
fn read_keys(body: &[u8]) -> Option<HashMap<String, Key>> {
    let set: Value = serde_json::from_slice(body).ok()?;
    let keys = set.get("keys")?.as_array()?.iter().take(MOST_KEYS);
    Some(keys.filter_map(|key| Some((key.get("kid")?.as_str()?.to_owned(), read_key(key)?))).collect())
}

/// The algorithm follows from the key (RFC 7518 section 6, RFC 8037), so that no token chooses it.
fn read_key(key: &Value) -> Option<Key> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let (algorithm, decoding) = match (text("kty")?, text("crv")) {
        ("RSA", None) => (Algorithm::RS256, DecodingKey::from_rsa_components(text("n")?, text("e")?)),
        ("EC", Some("P-256")) => (Algorithm::ES256, DecodingKey::from_ec_components(text("x")?, text("y")?)),
        ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, DecodingKey::from_ed_components(text("x")?)),
        _ => return None,
    };
    let says = |name: &str, wanted: &[&str]| text(name).is_none_or(|said| wanted.contains(&said));
    // RFC 9864 names what EdDSA means with this key more exactly.
    let names: &[&str] = match algorithm {
        Algorithm::RS256 => &["RS256"],
        Algorithm::ES256 => &["ES256"],
        _ => &["EdDSA", "Ed25519"],
    };
    let decoding = decoding.ok().filter(|_| says("alg", names) && says("use", &["sig"]))?;
    Some(Key { algorithm, decoding })
}

/// The key id that the token names, after a look at the algorithm.
fn key_id(token: &str, algorithms: &[Algorithm]) -> Result<String, Refused> {
    if token.len() > LONGEST_TOKEN || token.split('.').count() != 3 {
        return Err(Refused::Malformed);
    }
    // `none` is not an algorithm of the library, so that such a header does not parse.
    let header = jsonwebtoken::decode_header(token).map_err(|_| Refused::Algorithm)?;
    if !algorithms.contains(&header.alg) {
        return Err(Refused::Algorithm);
    }
    // RFC 7515 section 4.1.11: an extension that is critical and not understood makes the token invalid.
    if header.crit.is_some() {
        return Err(Refused::Malformed);
    }
    header.kid.filter(|kid| !kid.is_empty() && kid.len() <= 256).ok_or(Refused::UnknownKey)
}

/// The signature, without any I/O. A token of another algorithm than the key's is refused.
fn decode_with<T: DeserializeOwned>(key: &Key, token: &str) -> Result<T, Refused> {
    let mut validation = Validation::new(key.algorithm);
    // The library would read the system's clock; every claim is checked below with ours.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let data = jsonwebtoken::decode::<T>(token, &key.decoding, &validation).map_err(|error| match error.kind() {
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
    let has_none = claims.nonce.is_null() && expected.nonce_is_optional;
    if expected.nonce.is_some_and(|nonce| !has_none && claims.nonce.as_str() != Some(nonce)) {
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
mod tests;
