//! Secrets that are handed over directly, without a person's consent at the provider (brief M8): tokens are minted from some of them,
//! the others travel as they are.
//!
//! What tokens are minted from is kept where a refresh token would be: one sealed text that this file writes and reads.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::address::Variables;
use super::answer::RawAnswer;
use super::descriptor::{Descriptor, Expiry};
use super::errors::{Code, Failure};
use super::oauth2::{self, Street};
use super::{Client, CredentialKind, TokenSet};
use crate::clock::Millis;
use crate::outbound::Request;
use crate::secret::Secret;

/// Life of a minted token when the answer does not say it (RFC 6749 section 5.1 wants it said).
const USUAL_LIFE: Duration = Duration::from_secs(3600);
/// Life of an assertion: the most that Google accepts (fact sheet A.9).
const ASSERTION_LIFE: i64 = 3600;

/// What tokens are minted from.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Grant {
    /// RFC 6749 section 4.4.
    ClientCredentials {
        /// The client's id.
        client_id: String,
        /// Its secret.
        client_secret: Secret,
        /// What is asked for; empty for what the provider gives by itself.
        scopes: Vec<String>,
        /// What stands in braces in the provider's addresses.
        variables: BTreeMap<String, String>,
    },
    /// RFC 7523 section 2.1: an assertion that our key signs.
    JwtBearer {
        /// Who signs: a service account's address.
        issuer: String,
        /// For whom, where a directory has delegated that.
        subject: Option<String>,
        /// The key's name at the provider.
        key_id: Option<String>,
        /// RSA, PEM.
        private_key: Secret,
        /// What is asked for.
        scopes: Vec<String>,
        /// What stands in braces in the provider's addresses.
        variables: BTreeMap<String, String>,
    },
}

impl Grant {
    /// Whether such a text is a key with which assertions can be signed.
    #[must_use]
    pub fn signs(private_key: &Secret) -> bool {
        EncodingKey::from_rsa_pem(private_key.expose().as_bytes()).is_ok()
    }

    /// As one secret text, to be sealed.
    #[must_use]
    pub fn to_secret(&self) -> Secret {
        let fields = match self {
            Self::ClientCredentials { client_id, client_secret, scopes, variables } => json!({
                "kind": "client_credentials", "client_id": client_id, "client_secret": client_secret.expose(),
                "scopes": scopes, "variables": variables
            }),
            Self::JwtBearer { issuer, subject, key_id, private_key, scopes, variables } => json!({
                "kind": "jwt_bearer", "issuer": issuer, "subject": subject, "key_id": key_id,
                "private_key": private_key.expose(), "scopes": scopes, "variables": variables
            }),
        };
        Secret::new(fields.to_string())
    }

    /// Reads what [`Self::to_secret`] wrote.
    #[must_use]
    pub fn from_secret(secret: &Secret) -> Option<Self> {
        serde_json::from_str(secret.expose()).ok()
    }
}

/// Mints a token set. Nothing is spent by it, so that it can be tried again at any time.
pub(super) async fn mint(
    street: &Street,
    descriptor: &Descriptor,
    kind: CredentialKind,
    grant: &Secret,
) -> Result<TokenSet, Failure> {
    let unreadable = Failure::Unrecognised { code: Code::own("grant_unreadable") };
    let raw = match Grant::from_secret(grant).ok_or(unreadable)? {
        Grant::ClientCredentials { client_id, client_secret, scopes, variables } => {
            let variables = kept(descriptor, &variables);
            let client = Client { id: &client_id, secret: &client_secret, variables: &variables };
            oauth2::client_credentials(street, descriptor, client, &scopes).await?
        }
        Grant::JwtBearer { issuer, subject, key_id, private_key, scopes, variables } => {
            let variables = kept(descriptor, &variables);
            let audience = descriptor.endpoints.token.as_ref().and_then(|token| token.at(&variables));
            let audience = audience.ok_or_else(oauth2::no_endpoint)?;
            let now = street.around().now();
            let mut claims = json!({
                "iss": issuer, "aud": audience.as_str(), "scope": scopes.join(&descriptor.scopes.separator)
            });
            claims["sub"] = subject.map_or(Value::Null, Value::String);
            let assertion = sign(claims, key_id, &private_key, now)?;
            oauth2::jwt_bearer(street, descriptor, audience, assertion).await?
        }
    };
    token_set(raw, kind)
}

fn token_set(raw: RawAnswer, kind: CredentialKind) -> Result<TokenSet, Failure> {
    // Whatever comes beside the access token: the next one is minted in the same way.
    let tokens = raw.into_token_set(kind, Expiry::Always(USUAL_LIFE), false)?;
    Ok(TokenSet { refresh_token: None, refresh_expires_in: None, ..tokens })
}

fn kept(descriptor: &Descriptor, variables: &BTreeMap<String, String>) -> Variables {
    descriptor.stored_variables([serde_json::json!(variables).to_string().as_str()])
}

/// Fact sheet A.9, RFC 7523 section 3.
fn sign(mut claims: Value, key_id: Option<String>, private_key: &Secret, now: Millis) -> Result<Secret, Failure> {
    let seconds = now.unix_seconds();
    if let Some(claims) = claims.as_object_mut() {
        claims.retain(|_, value| !value.is_null());
        claims.insert("iat".to_owned(), seconds.into());
        claims.insert("exp".to_owned(), (seconds + ASSERTION_LIFE).into());
    }
    let bad_key = || Failure::Configuration { code: Code::own("private_key_unusable") };
    let key = EncodingKey::from_rsa_pem(private_key.expose().as_bytes()).map_err(|_| bad_key())?;
    let header = Header { kid: key_id, ..Header::new(Algorithm::RS256) };
    jsonwebtoken::encode(&header, &claims, &key).map(Secret::new).map_err(|_| bad_key())
}

/// A user name and a password as one secret text.
#[must_use]
pub fn basic_secret(username: &str, password: &Secret) -> Secret {
    Secret::new(json!([username, password.expose()]).to_string())
}

/// Headers and their values as one secret text.
#[must_use]
pub fn headers_secret(headers: &BTreeMap<String, Secret>) -> Secret {
    let headers: BTreeMap<&str, &str> = headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    Secret::new(json!(headers).to_string())
}

/// Puts such a secret into a request. `None` when it is not of its kind.
pub(super) fn with_secret(request: Request, kind: CredentialKind, secret: &Secret) -> Option<Request> {
    match kind {
        CredentialKind::Basic => {
            let (user, password): (String, Secret) = serde_json::from_str(secret.expose()).ok()?;
            Some(request.basic(&user, &password))
        }
        CredentialKind::Header => {
            let headers: BTreeMap<String, Secret> = serde_json::from_str(secret.expose()).ok()?;
            headers.into_iter().try_fold(request, |request, (name, value)| {
                Some(request.secret_header(HeaderName::try_from(name).ok()?, &value))
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    #[test]
    fn a_grant_is_read_back_as_it_was_written() {
        let grants = [
            Grant::ClientCredentials {
                client_id: "c".into(),
                client_secret: Secret::new("s\"\\"),
                scopes: vec!["a".into()],
                variables: BTreeMap::from([("subdomain".into(), "acme".into())]),
            },
            Grant::JwtBearer {
                issuer: "robot@example.com".into(),
                subject: None,
                key_id: Some("k".into()),
                private_key: Secret::new("-----BEGIN"),
                scopes: vec![],
                variables: BTreeMap::new(),
            },
        ];
        for grant in grants {
            let secret = grant.to_secret();
            let again = Grant::from_secret(&secret).expect("readable").to_secret();
            assert_eq!(again.expose(), secret.expose());
        }
        assert!(Grant::from_secret(&Secret::new("1//refresh")).is_none());
    }

    #[test]
    fn an_assertion_says_who_asks_for_whom_and_for_how_long() {
        // Fact sheet A.9
        let key = Secret::new(include_str!("testdata/signing.pem"));
        assert!(Grant::signs(&key) && !Grant::signs(&Secret::new("-----BEGIN PRIVATE KEY-----")));
        let claims =
            json!({"iss": "robot@example.com", "aud": "https://example.com/token", "scope": "a b", "sub": null});
        let signed = sign(claims, Some("k-1".into()), &key, Millis(1_790_000_000_999)).expect("signed");
        let header = jsonwebtoken::decode_header(signed.expose()).expect("a header");
        assert_eq!((header.alg, header.kid.as_deref()), (Algorithm::RS256, Some("k-1")));
        let said: Value = jsonwebtoken::dangerous::insecure_decode_claims(signed.expose()).expect("claims");
        let wanted = json!({"iss": "robot@example.com", "aud": "https://example.com/token", "scope": "a b",
            "iat": 1_790_000_000, "exp": 1_790_003_600});
        assert_eq!(said, wanted, "no subject where nobody is acted for");
    }

    #[test]
    fn a_secret_travels_in_the_header_of_its_kind() {
        let request = || Request::new(Method::GET, "https://api.example.com/".parse().expect("an address"));
        let basic = basic_secret("ada", &Secret::new("pa:ss"));
        let sent = with_secret(request(), CredentialKind::Basic, &basic).expect("a request");
        assert_eq!(sent.headers["authorization"], "Basic YWRhOnBhOnNz");
        let keys = headers_secret(&BTreeMap::from([("X-Api-Key".to_owned(), Secret::new("k-1"))]));
        let sent = with_secret(request(), CredentialKind::Header, &keys).expect("a request");
        assert_eq!(sent.headers["x-api-key"], "k-1");
        assert!(with_secret(request(), CredentialKind::Basic, &keys).is_none());
        assert!(with_secret(request(), CredentialKind::Header, &Secret::new("k-1")).is_none());
    }
}
