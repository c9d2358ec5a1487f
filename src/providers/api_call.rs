//! An API call that a tool asks for, before a credential is attached (AG-12).
//!
//! The path decides where a credential goes, so it is refused unless it can be read in one way only. The vault sets
//! the credential itself and forwards no header that is not on a short list.

use http::{HeaderMap, HeaderName, Method, header};
use url::Url;
use url::form_urlencoded;

use super::address::Variables;
use super::descriptor::{Broker, Descriptor};
use crate::outbound::Request;

/// Longest path and query that are forwarded, in bytes.
const LONGEST: usize = 4096;

/// An API call without its credential.
#[derive(Clone, Debug)]
pub struct ApiCall<'a> {
    /// The HTTP method.
    pub method: Method,
    /// The path after `/v1/broker/{provider}/`, still percent-encoded as it came, without a leading slash.
    pub path: &'a str,
    /// The query as it came, without `?`; credentials in it are dropped.
    pub query: Option<&'a str>,
    /// The tool's headers; only a few are forwarded.
    pub headers: &'a HeaderMap,
    /// The body.
    pub body: bytes::Bytes,
    /// The chat that the room fixes for methods that carry one (Telegram); others ignore it.
    pub chat: Option<i64>,
    /// What stands in braces in the provider's API addresses.
    pub variables: &'a Variables,
}

/// The call may not leave. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The path can be read in more than one way, or is no path.
    #[error("the path is not acceptable")]
    Path,
    /// The provider has no API under this path.
    #[error("the provider has no API under this path")]
    UnknownApi,
    /// The broker does not make this call at the provider, whoever asks.
    #[error("the broker does not make this call; GET /v1/providers says which it makes")]
    MethodNotAllowed,
    /// The body carries a credential of the tool's own.
    #[error("the body must not carry a credential")]
    CredentialInBody,
    /// The method is addressed to a chat and none was fixed.
    #[error("no chat is bound")]
    NoChat,
    /// The body is not what a chat can be fixed in.
    #[error("the body must be a JSON object")]
    Body,
    /// The stored token cannot be put into a request.
    #[error("the stored token cannot be sent")]
    Token,
}

/// Headers of the tool's request that go on. Everything else is dropped, most of all `Authorization`, `Cookie`,
/// `Host`, forwarding headers and hop-by-hop headers.
const FORWARDED: [HeaderName; 8] = [
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::CONTENT_TYPE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
];

/// Query parameters that providers read as credentials.
const CREDENTIALS_IN_QUERY: [&str; 6] =
    ["access_token", "oauth_token", "token", "bearer_token", "client_secret", "key"];

/// Query parameters that some providers read in place of the method, or of a header.
const OVERRIDES_IN_QUERY: [&str; 7] =
    ["$httpmethod", "$ct", "$key", "_method", "_httpmethod", "x-http-method-override", "x-http-method"];

impl<'a> ApiCall<'a> {
    /// A call without query and body.
    #[must_use]
    pub fn new(method: Method, path: &'a str, headers: &'a HeaderMap) -> Self {
        Self { method, path, query: None, headers, body: bytes::Bytes::new(), chat: None, variables: Variables::NONE }
    }

    /// The request to `url`, still without a credential.
    pub(super) fn into_request(self, url: Url) -> Request {
        let forwarded = self.forwarded_headers();
        let kind = forwarded.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind = kind.unwrap_or("application/octet-stream").to_owned();
        let mut request = Request::new(self.method, url);
        request.headers.extend(forwarded);
        if self.body.is_empty() { request } else { request.raw(kind, self.body) }
    }

    /// The address at the provider: checked path below the right base, query without credentials.
    pub(super) fn url(&self, descriptor: &Descriptor) -> Result<Url, AttachError> {
        check_path(self.path)?;
        let first = self.path.split('/').next().unwrap_or_default();
        let base = descriptor.endpoints.api_base(first, self.variables).ok_or(AttachError::UnknownApi)?;
        let mut url = below(&base, self.path)?;
        url.set_query(self.clean_query()?.as_deref());
        Ok(url)
    }

    /// The provider's method name, for providers whose path is one; checked against the descriptor's list.
    pub(super) fn method_name(&self, descriptor: &Descriptor) -> Result<&'a str, AttachError> {
        let name = self.path;
        let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if name.len() > 100 || !name.split('.').all(word) {
            return Err(AttachError::Path);
        }
        let allowed = match &descriptor.broker {
            Broker::Calls(_) => true,
            Broker::Only(list) => list.contains_key(name),
            Broker::AllBut(list) => !list.iter().any(|pattern| covers(pattern, name)),
        };
        if allowed { Ok(name) } else { Err(AttachError::MethodNotAllowed) }
    }

    /// The headers that go on.
    pub(super) fn forwarded_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in FORWARDED {
            // One value only: two content types are a way to be read in two ways.
            if let Some(value) = self.headers.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        headers
    }

    /// The query without parameters that are credentials, or would make another call of this one.
    pub(super) fn clean_query(&self) -> Result<Option<String>, AttachError> {
        let Some(query) = self.query.filter(|query| !query.is_empty()) else { return Ok(None) };
        if query.len() > LONGEST || query.bytes().any(|b| b.is_ascii_control()) {
            return Err(AttachError::Path);
        }
        let mut clean = form_urlencoded::Serializer::new(String::new());
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let is_one_of = |list: &[&str]| list.iter().any(|one| name.eq_ignore_ascii_case(one));
            if !is_one_of(&CREDENTIALS_IN_QUERY) && !is_one_of(&OVERRIDES_IN_QUERY) {
                clean.append_pair(&name, &value);
            }
        }
        let clean = clean.finish();
        Ok((!clean.is_empty()).then_some(clean))
    }
}

/// Method names are matched without case, since a provider may do so too.
fn covers(pattern: &str, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

/// `base` + `/` + `path`, with proof that nothing was rewritten on the way.
pub(super) fn below(base: &Url, path: &str) -> Result<Url, AttachError> {
    let wanted = format!("{}/{path}", base.path().trim_end_matches('/'));
    let mut url = base.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.set_path(&wanted);
    let same_place = url.origin() == base.origin() && url.username() == base.username();
    if same_place && url.path() == wanted { Ok(url) } else { Err(AttachError::Path) }
}

/// Refuses every path that another server could read differently: dot segments, encoded slashes and dots, empty
/// segments, backslashes, `@`, control characters, absolute URLs, double encoding (AG-12).
pub(super) fn check_path(path: &str) -> Result<(), AttachError> {
    if path.is_empty() || path.len() > LONGEST || !path.split('/').all(segment_is_plain) {
        return Err(AttachError::Path);
    }
    Ok(())
}

fn segment_is_plain(segment: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:%".contains(&b);
    !segment.is_empty()
        && !segment.starts_with('.')
        && !segment.ends_with('.')
        && !segment.contains("..")
        && segment.bytes().all(allowed)
        && escapes_are_harmless(segment)
}

/// Every `%` begins a byte that is neither a separator, a dot, a control character nor another `%`. What is left is
/// what real ids need (`user%40example.com`, `%23holiday`, UTF-8 text).
fn escapes_are_harmless(segment: &str) -> bool {
    let mut rest = segment;
    while let Some(at) = rest.find('%') {
        let Some(digits) = rest.get(at + 1..at + 3).filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit())) else {
            return false;
        };
        let Ok(byte) = u8::from_str_radix(digits, 16) else { return false };
        if byte.is_ascii_control() || b"/\\.%;?".contains(&byte) {
            return false;
        }
        rest = rest.get(at + 3..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::catalogue;

    fn google() -> Descriptor {
        catalogue::known("google")
    }

    fn url(path: &str, query: Option<&str>) -> Result<String, AttachError> {
        let headers = HeaderMap::new();
        let call = ApiCall { query, ..ApiCall::new(Method::GET, path, &headers) };
        call.url(&google()).map(String::from)
    }

    #[test]
    fn the_first_segment_chooses_the_base() {
        let rows = [
            ("gmail/v1/users/me/messages", "https://gmail.googleapis.com/gmail/v1/users/me/messages"),
            ("calendar/v3/users/me/calendarList", "https://www.googleapis.com/calendar/v3/users/me/calendarList"),
            ("drive/v3/files", "https://www.googleapis.com/drive/v3/files"),
            (
                "calendar/v3/calendars/ada%40example.com/events",
                "https://www.googleapis.com/calendar/v3/calendars/ada%40example.com/events",
            ),
            (
                "calendar/v3/calendars/en.usa%23holiday%40group.v.calendar.google.com/events",
                "https://www.googleapis.com/calendar/v3/calendars/en.usa%23holiday%40group.v.calendar.google.com/events",
            ),
        ];
        for (path, wanted) in rows {
            assert_eq!(url(path, None).as_deref(), Ok(wanted));
        }
        assert_eq!(url("oauth2/v3/tokeninfo", None), Err(AttachError::UnknownApi));
        assert_eq!(url("gmailx/v1", None), Err(AttachError::UnknownApi));
        assert_eq!(url("Gmail/v1", None), Err(AttachError::UnknownApi));
    }

    #[test]
    fn paths_that_can_be_read_in_two_ways_are_refused() {
        // AG-12
        let rows = [
            "",
            "/",
            "/gmail/v1",
            "gmail/",
            "gmail//v1",
            "gmail/../drive/v3/files",
            "gmail/./v1",
            "gmail/v1/..",
            "gmail/..;/drive",
            "gmail/%2e%2e/drive",
            "gmail/%2E%2E/drive",
            "gmail/.%2e/drive",
            "gmail/%252e%252e/drive",
            "gmail/%2fdrive",
            "gmail/%2Fdrive",
            "gmail/%5cdrive",
            "gmail\\v1",
            "gmail/v1\\..\\drive",
            "gmail/v1/a%00b",
            "gmail/v1/a%0d%0aX-Evil:1",
            "gmail/v1/a\r\nb",
            "gmail/v1/a\tb",
            "gmail/v1/a b",
            "gmail/v1?x=1",
            "gmail/v1#x",
            "gmail/v1/%3fx",
            "gmail/v1/%",
            "gmail/v1/%2",
            "gmail/v1/%zz",
            "gmail@evil.example/v1",
            "@evil.example/",
            "user:pw@evil.example/v1",
            "https://evil.example/gmail",
            "//evil.example/gmail",
            "gmail/v1/é",
            "gmail/v1/\u{2025}/x",
        ];
        for path in rows {
            assert_eq!(url(path, None), Err(AttachError::Path), "{path:?}");
        }
        let long = format!("gmail/{}", "a".repeat(LONGEST));
        assert_eq!(url(&long, None), Err(AttachError::Path));
    }

    #[test]
    fn credentials_in_the_query_are_dropped() {
        let seen = url("drive/v3/files", Some("q=name+%3D+'a'&access_token=evil&OAUTH_TOKEN=x&key=k&fields=files(id)"));
        assert_eq!(
            seen.as_deref(),
            Ok("https://www.googleapis.com/drive/v3/files?q=name+%3D+%27a%27&fields=files%28id%29")
        );
        let overridden =
            "$httpMethod=POST&%24HttpMethod=DELETE&$ct=text/html&$key=k&_method=PUT&X-HTTP-Method-Override=PATCH&q=a";
        let only_q = Ok("https://www.googleapis.com/drive/v3/files?q=a");
        assert_eq!(url("drive/v3/files", Some(overridden)).as_deref(), only_q, "what was allowed is what is called");
        assert_eq!(url("drive/v3/files", Some("token=x")).as_deref(), Ok("https://www.googleapis.com/drive/v3/files"));
        assert_eq!(url("drive/v3/files", Some("a=\r\n")), Err(AttachError::Path));
    }

    #[test]
    fn an_override_replaces_every_base() {
        let mut descriptor = google();
        descriptor.endpoints.api_override = Some("http://127.0.0.1:4000/api/".parse().expect("url"));
        let headers = HeaderMap::new();
        let call = |path| ApiCall::new(Method::GET, path, &headers);
        let seen = call("gmail/v1/x").url(&descriptor).map(String::from);
        assert_eq!(seen.as_deref(), Ok("http://127.0.0.1:4000/api/gmail/v1/x"));
        assert_eq!(call("unknown/v1").url(&descriptor), Err(AttachError::UnknownApi), "still only known APIs");
    }

    #[test]
    fn only_harmless_headers_go_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer evil"),
            ("cookie", "a=b"),
            ("host", "evil.example"),
            ("x-forwarded-for", "1.2.3.4"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("proxy-authorization", "Basic x"),
            ("x-http-method-override", "DELETE"),
            ("x-valetkey-workspace", "vkw_x"),
            ("content-type", "application/json"),
            ("accept", "application/json"),
        ] {
            headers.append(HeaderName::from_static(name), value.parse().expect("value"));
        }
        headers.append(header::CONTENT_TYPE, "text/html".parse().expect("value"));
        let call = ApiCall::new(Method::GET, "x", &headers);
        let seen = call.forwarded_headers();
        let names: Vec<_> = seen.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["accept", "content-type"]);
        assert_eq!(seen.get_all(header::CONTENT_TYPE).iter().count(), 1);
    }
}
