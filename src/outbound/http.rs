//! What is sent.
//!
//! Secrets in headers and form bodies live in memory that is wiped when it is dropped. Copies that
//! the HTTP and TLS libraries make while writing are out of reach.

use std::fmt;
use std::time::Duration;

use ::http::Method;
use ::http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use data_encoding::BASE64;
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use super::door::Knock;
use crate::secret::Secret;

/// One outgoing call. `Debug` shows the method only: a URL may hold a token (Telegram) and headers do.
pub struct Request {
    /// The HTTP method.
    pub method: Method,
    /// Where to; http or https.
    pub url: Url,
    /// Secret values must be marked sensitive; the builders do it.
    pub headers: HeaderMap,
    /// What is sent; it sets `Content-Type`.
    pub body: Body,
    /// How long and how much.
    pub limits: Limits,
    /// Do not reuse a connection and leave none behind, and speak HTTP/1.1. A reused connection may
    /// be closed by the other side just when the request is written, which leaves its effect
    /// unknown; a token endpoint is not worth that risk. [`Request::form`] and [`Request::field`] set it.
    pub own_connection: bool,
    /// The body leaves when this door is opened.
    pub(super) waits_at: Option<Knock>,
    /// A header could not be written; the call will not be sent.
    pub(super) invalid: bool,
}

/// What a request carries.
pub enum Body {
    /// Nothing.
    Empty,
    /// `application/x-www-form-urlencoded`, in this order. The encoded copy is wiped after use.
    Form(Vec<(String, FormValue)>),
    /// `application/json`. The encoded copy is wiped after use.
    Json(serde_json::Value),
    /// Anything else.
    Raw {
        /// The value of `Content-Type`.
        content_type: String,
        /// Sent as they are.
        bytes: Bytes,
    },
}

/// A value in a form.
pub enum FormValue {
    /// May be seen.
    Text(String),
    /// Must not be seen.
    Secret(Secret),
}

/// How long a call may take and how much may come back. Time in which this process was stopped does not count
/// ([`clock::awake_deadline`](crate::clock::awake_deadline)): no answer that is there is taken for one that came too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the start of the call to the end of the answer's head. Connecting is part of it and may
    /// itself take at most 5 s.
    pub head: Duration,
    /// From the end of the head to the end of the body.
    pub body: Duration,
    /// The most bytes of body.
    pub max_bytes: usize,
}

impl Limits {
    /// A token endpoint that does not rotate, a key set, a revocation: 10 s, then 10 s, 64 KiB (SS-05).
    #[must_use]
    pub const fn token() -> Self {
        Self { head: Duration::from_secs(10), body: Duration::from_secs(10), max_bytes: 64 * 1024 }
    }

    /// A token endpoint that rotates: giving up early would lose a token, so 120 s for the head once the request has left
    /// (DESIGN section 7, point 4), which it does after 10 s at most of connecting and waiting at a [`Door`](super::Door);
    /// then 30 s, 64 KiB.
    #[must_use]
    pub const fn slow_token() -> Self {
        Self { head: Duration::from_secs(130), body: Duration::from_secs(30), max_bytes: 64 * 1024 }
    }

    /// Every other API: 10 s, then 10 s, 1 MiB (SS-05).
    #[must_use]
    pub const fn api() -> Self {
        Self { head: Duration::from_secs(10), body: Duration::from_secs(10), max_bytes: 1024 * 1024 }
    }

    /// What is passed on piece by piece, such as a file that a tool reads: 10 s, then 60 s, 16 MiB
    /// (docs/decisions/0017-answers-that-are-passed-on.md).
    #[must_use]
    pub const fn passed_on() -> Self {
        Self { head: Duration::from_secs(10), body: Duration::from_secs(60), max_bytes: 16 * 1024 * 1024 }
    }
}

impl Request {
    /// An empty call with [`Limits::api`].
    #[must_use]
    pub fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: Body::Empty,
            limits: Limits::api(),
            own_connection: false,
            waits_at: None,
            invalid: false,
        }
    }

    /// A GET.
    #[must_use]
    pub fn get(url: Url) -> Self {
        Self::new(Method::GET, url)
    }

    /// A POST.
    #[must_use]
    pub fn post(url: Url) -> Self {
        Self::new(Method::POST, url)
    }

    /// `Authorization: Bearer …` (RFC 6750 section 2.1).
    #[must_use]
    pub fn bearer(self, token: &Secret) -> Self {
        let mut text = Wiped::with_capacity(7 + token.expose().len());
        text.push(b"Bearer ");
        text.push(token.expose().as_bytes());
        self.put(AUTHORIZATION, secret_value(text))
    }

    /// `Authorization: Basic …` (RFC 7617), with both parts as they are given. OAuth wants them
    /// form-encoded first (RFC 6749 section 2.3.1): whoever speaks OAuth does that, as providers differ.
    #[must_use]
    pub fn basic(self, user: &str, password: &Secret) -> Self {
        let mut pair = Wiped::with_capacity(user.len() + 1 + password.expose().len());
        pair.push(user.as_bytes());
        pair.push(b":");
        pair.push(password.expose().as_bytes());
        let mut text = Zeroizing::new(String::with_capacity(6 + BASE64.encode_len(pair.0.len())));
        text.push_str("Basic ");
        BASE64.encode_append(&pair.0, &mut text);
        let value = Wiped(Zeroizing::new(std::mem::take(&mut *text).into_bytes()));
        self.put(AUTHORIZATION, secret_value(value))
    }

    /// Sets a header that may be seen.
    #[must_use]
    pub fn header(self, name: HeaderName, value: &str) -> Self {
        self.put(name, HeaderValue::from_str(value).ok())
    }

    /// Sets a header that must not be seen, such as `xi-api-key`.
    #[must_use]
    pub fn secret_header(self, name: HeaderName, value: &Secret) -> Self {
        let mut text = Wiped::with_capacity(value.expose().len());
        text.push(value.expose().as_bytes());
        self.put(name, secret_value(text))
    }

    /// `Accept: application/json`; some token endpoints answer with a form otherwise.
    #[must_use]
    pub fn accept_json(self) -> Self {
        self.put(ACCEPT, Some(HeaderValue::from_static("application/json")))
    }

    /// A form as the body, on a connection of its own.
    #[must_use]
    pub fn form<K: Into<String>, V: Into<FormValue>>(mut self, fields: impl IntoIterator<Item = (K, V)>) -> Self {
        self.body = Body::Form(fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect());
        self.own_connection = true;
        self
    }

    /// Adds a field to the form; what was no form becomes one.
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, value: impl Into<FormValue>) -> Self {
        match &mut self.body {
            Body::Form(fields) => fields.push((name.into(), value.into())),
            _ => self.body = Body::Form(vec![(name.into(), value.into())]),
        }
        self.own_connection = true;
        self
    }

    /// JSON as the body.
    #[must_use]
    pub fn json(mut self, value: serde_json::Value) -> Self {
        self.body = Body::Json(value);
        self
    }

    /// Bytes as the body.
    #[must_use]
    pub fn raw(mut self, content_type: impl Into<String>, bytes: Bytes) -> Self {
        self.body = Body::Raw { content_type: content_type.into(), bytes };
        self
    }

    /// Sets the limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Asks for a connection of its own; see [`Request::own_connection`](Self#structfield.own_connection).
    #[must_use]
    pub fn on_own_connection(mut self) -> Self {
        self.own_connection = true;
        self
    }

    /// Connects and sends the head, and keeps the body back until the door is opened. [`Limits::head`] goes on.
    #[must_use]
    pub fn waits_at(mut self, door: Option<Knock>) -> Self {
        self.waits_at = door;
        self
    }

    fn put(mut self, name: HeaderName, value: Option<HeaderValue>) -> Self {
        match value {
            Some(value) => drop(self.headers.insert(name, value)),
            None => self.invalid = true,
        }
        self
    }
}

/// A header value in memory that is wiped; none when it holds a line break or the like.
fn secret_value(text: Wiped) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_maybe_shared(text.into_bytes()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl Body {
    /// The bytes and their type; none when the type is not a header value.
    pub(super) fn encode(self) -> Option<(Bytes, Option<HeaderValue>)> {
        match self {
            Self::Empty => Some((Bytes::new(), None)),
            Self::Form(fields) => {
                let content_type = HeaderValue::from_static("application/x-www-form-urlencoded");
                Some((encode_form(&fields).into_bytes(), Some(content_type)))
            }
            Self::Json(value) => {
                let mut encoded = Wiped::with_capacity(1024);
                serde_json::to_writer(&mut encoded, &value).ok()?;
                Some((encoded.into_bytes(), Some(HeaderValue::from_static("application/json"))))
            }
            Self::Raw { content_type, bytes } => Some((bytes, Some(HeaderValue::from_str(&content_type).ok()?))),
        }
    }
}

fn encode_form(fields: &[(String, FormValue)]) -> Wiped {
    let mut encoded = Wiped::with_capacity(1024);
    for (index, (name, value)) in fields.iter().enumerate() {
        let value = match value {
            FormValue::Text(text) => text,
            FormValue::Secret(secret) => secret.expose(),
        };
        if index > 0 {
            encoded.push(b"&");
        }
        form_urlencoded::byte_serialize(name.as_bytes()).for_each(|part| encoded.push(part.as_bytes()));
        encoded.push(b"=");
        form_urlencoded::byte_serialize(value.as_bytes()).for_each(|part| encoded.push(part.as_bytes()));
    }
    encoded
}

/// A growing buffer that leaves no copies behind: it moves by hand and wipes what it leaves.
pub(super) struct Wiped(Zeroizing<Vec<u8>>);

impl Wiped {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(bytes)))
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(self.0.capacity() * 2)));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn into_inner(self) -> Zeroizing<Vec<u8>> {
        self.0
    }

    /// Shared bytes that are wiped when the last holder lets go.
    fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self.0)
    }
}

impl std::io::Write for Wiped {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl From<&str> for FormValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for FormValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Secret> for FormValue {
    fn from(secret: Secret) -> Self {
        Self::Secret(secret)
    }
}

impl From<&Secret> for FormValue {
    fn from(secret: &Secret) -> Self {
        Self::Secret(secret.duplicate())
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("method", &self.method).finish_non_exhaustive()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Form(_) => "Form(…)",
            Self::Json(_) => "Json(…)",
            Self::Raw { .. } => "Raw(…)",
        })
    }
}

impl fmt::Debug for FormValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FormValue(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url() -> Url {
        "https://api.example.com/bot123:canary/x?q=canary".parse().expect("a URL")
    }

    #[test]
    fn a_form_is_encoded_in_order() {
        let request = Request::post(url())
            .field("grant_type", "refresh_token")
            .field("refresh_token", Secret::new("a+b/c=&d e\u{e9}"));
        assert!(request.own_connection, "token calls do not share connections");
        let (bytes, content_type) = request.body.encode().expect("a body");
        assert_eq!(&bytes[..], b"grant_type=refresh_token&refresh_token=a%2Bb%2Fc%3D%26d+e%C3%A9");
        assert_eq!(content_type.expect("a type"), "application/x-www-form-urlencoded");
    }

    #[test]
    fn secret_headers_are_written_and_marked() {
        let secret = Secret::new("open sesame");
        let request = Request::get(url()).basic("Aladdin", &secret);
        assert_eq!(request.headers[AUTHORIZATION], "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        let request = request.bearer(&Secret::new("ya29.canary"));
        assert_eq!(request.headers[AUTHORIZATION], "Bearer ya29.canary");
        assert!(request.headers[AUTHORIZATION].is_sensitive());
        assert!(!request.invalid);
        assert!(request.bearer(&Secret::new("a\r\nX-Injected: b")).invalid, "a line break is not sent");
    }

    #[test]
    fn debug_output_shows_no_url_header_or_body() {
        let request = Request::post(url()).bearer(&Secret::new("canary")).field("code", "canary");
        let shown = format!("{request:?} {:?} {:?}", request.body, FormValue::from("canary"));
        assert!(!shown.contains("canary") && !shown.contains("example"), "{shown}");
    }

    #[test]
    fn a_buffer_grows_without_losing_anything() {
        let mut buffer = Wiped::with_capacity(1);
        let all: Vec<u8> = (0..=255).cycle().take(5000).collect();
        all.chunks(7).for_each(|chunk| buffer.push(chunk));
        assert_eq!(buffer.len(), 5000);
        assert_eq!(*buffer.into_inner(), all);
    }
}
