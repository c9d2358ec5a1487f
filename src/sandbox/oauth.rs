//! What the pretend Google and Slack share of OAuth 2.0: reading parameters strictly, client
//! authentication, PKCE, and sending the browser back.

use std::collections::BTreeMap;

use axum::response::{IntoResponse, Response};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use http::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};
use url::{Url, form_urlencoded};

use super::state::{Client, Provider, World};

/// How long a code may be exchanged: ten minutes (B.2; the same is used for Google).
pub(super) const CODE_LIFE: std::time::Duration = std::time::Duration::from_secs(600);

/// Parameters of a query or a form. An empty value counts as absent (RFC 6749 section 3.1).
#[derive(Debug, Default)]
pub(super) struct Params(BTreeMap<String, String>);

/// A parameter came more than once, which RFC 6749 section 3.1 forbids.
#[derive(Debug)]
pub(super) struct Repeated;

impl Params {
    /// Reads `application/x-www-form-urlencoded` text.
    pub(super) fn parse(encoded: &[u8]) -> Result<Self, Repeated> {
        let mut known = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(encoded) {
            if known.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(Repeated);
            }
        }
        Ok(Self(known))
    }

    /// Query and body together, the body as a form or as a JSON object: Slack and Telegram take both.
    pub(super) fn lenient(query: Option<&str>, headers: &HeaderMap, body: &[u8]) -> Self {
        let mut known: BTreeMap<String, String> =
            form_urlencoded::parse(query.unwrap_or("").as_bytes()).into_owned().collect();
        if is_type(headers, "application/json") {
            if let Ok(serde_json::Value::Object(fields)) = serde_json::from_slice(body) {
                known.extend(fields.into_iter().filter_map(|(name, value)| match value {
                    serde_json::Value::Null => None,
                    serde_json::Value::String(text) => Some((name, text)),
                    other => Some((name, other.to_string())),
                }));
            }
        } else {
            known.extend(form_urlencoded::parse(body).into_owned());
        }
        Self(known)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Whether the body is declared to be of this type, whatever its parameters.
pub(super) fn is_type(headers: &HeaderMap, wanted: &str) -> bool {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    declared.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(wanted))
}

/// How a client introduced itself.
#[derive(Debug)]
pub(super) struct Introduction {
    pub id: String,
    pub secret: Option<String>,
    /// By HTTP Basic, not in the body.
    pub basic: bool,
}

/// Why a client is not known.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// No client id, both ways at once, or a header that cannot be read.
    Malformed,
    /// No such client.
    Client,
    /// The secret is missing or wrong.
    Secret,
}

/// Reads client id and secret from HTTP Basic or from the body, never from both (RFC 6749 section 2.3).
pub(super) fn introduction(headers: &HeaderMap, params: &Params) -> Result<Introduction, Unknown> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        let id = params.get("client_id").ok_or(Unknown::Malformed)?.to_owned();
        return Ok(Introduction { id, secret: params.get("client_secret").map(str::to_owned), basic: false });
    };
    let pair = value
        .to_str()
        .ok()
        .and_then(|text| text.strip_prefix("Basic "))
        .and_then(|text| BASE64.decode(text.trim().as_bytes()).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or(Unknown::Malformed)?;
    let (id, secret) = pair.split_once(':').ok_or(Unknown::Malformed)?;
    let id = form_decoded(id);
    if params.get("client_secret").is_some() || params.get("client_id").is_some_and(|other| other != id) {
        return Err(Unknown::Malformed);
    }
    Ok(Introduction { id, secret: Some(form_decoded(secret)), basic: true })
}

/// Basic credentials are form-encoded before they are joined (RFC 6749 section 2.3.1).
fn form_decoded(text: &str) -> String {
    form_urlencoded::parse(format!("v={text}").as_bytes()).next().map(|(_, v)| v.into_owned()).unwrap_or_default()
}

/// The registered client behind an introduction, its secret checked.
pub(super) fn authenticate<'w>(
    world: &'w World,
    provider: Provider,
    introduction: &Introduction,
) -> Result<&'w Client, Unknown> {
    let client = world.client(provider, &introduction.id).ok_or(Unknown::Client)?;
    if introduction.secret.as_deref() == Some(client.secret.as_str()) { Ok(client) } else { Err(Unknown::Secret) }
}

/// The S256 challenge of a verifier (RFC 7636 section 4.2).
pub(super) fn challenge_of(verifier: &str) -> String {
    BASE64URL_NOPAD.encode(&Sha256::digest(verifier.as_bytes()))
}

/// What a PKCE request asks for: a challenge, or none; the error says what is wrong with it.
pub(super) fn read_challenge(params: &Params) -> Result<Option<String>, &'static str> {
    let Some(challenge) = params.get("code_challenge") else {
        return if params.get("code_challenge_method").is_some() { Err("A challenge is missing.") } else { Ok(None) };
    };
    // Without a method the default is `plain` (A.1); the sandbox refuses that as a careful server would.
    if params.get("code_challenge_method") != Some("S256") {
        return Err("Only the S256 challenge method is accepted.");
    }
    let well_formed = BASE64URL_NOPAD.decode(challenge.as_bytes()).is_ok_and(|bytes| bytes.len() == 32);
    if well_formed { Ok(Some(challenge.to_owned())) } else { Err("The challenge is not a SHA-256 value.") }
}

/// Whether the verifier has the form RFC 7636 section 4.1 wants: 43 to 128 unreserved characters.
pub(super) fn is_verifier(text: &str) -> bool {
    (43..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'))
}

/// Sends the browser to `target` with `pairs` added to its query.
pub(super) fn send_back(target: &str, pairs: &[(&str, &str)]) -> Response {
    let Ok(mut url) = Url::parse(target) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    url.query_pairs_mut().extend_pairs(pairs);
    let headers = [(header::LOCATION, url.as_str()), (header::CACHE_CONTROL, "no-store")];
    (StatusCode::FOUND, headers).into_response()
}

/// The bearer token of a request, from the `Authorization` header only.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_rfc_7636_appendix_b() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(challenge_of(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert!(is_verifier(verifier) && !is_verifier("short"));
    }

    #[test]
    fn a_repeated_parameter_is_refused_and_an_empty_one_is_absent() {
        assert!(Params::parse(b"state=a&state=b").is_err());
        assert_eq!(Params::parse(b"state=").expect("valid").get("state"), None);
    }

    #[test]
    fn basic_credentials_are_form_decoded_and_exclude_the_body() {
        let mut headers = HeaderMap::new();
        let encoded = format!("Basic {}", BASE64.encode(b"my%3Aid:s%2Bcret"));
        headers.insert(header::AUTHORIZATION, encoded.parse().expect("header"));
        let read = introduction(&headers, &Params::default()).expect("read");
        assert_eq!((read.id.as_str(), read.secret.as_deref()), ("my:id", Some("s+cret")));
        let twice = Params::parse(b"client_secret=x").expect("valid");
        assert_eq!(introduction(&headers, &twice).expect_err("both ways"), Unknown::Malformed);
    }
}
