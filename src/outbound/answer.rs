//! What comes back: the whole answer, as it came.

use std::fmt;
use std::time::Duration;

use ::http::StatusCode;
use ::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, RETRY_AFTER};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::clock::Millis;

/// An answer, whatever its status; redirects are not followed. `Debug` shows status and length only.
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The headers as they came.
    pub headers: HeaderMap,
    /// The body as it came, never decompressed; wiped when dropped.
    pub body: Zeroizing<Vec<u8>>,
}

/// The body is not JSON, or not of the expected shape. It says no more, since the parser's own words
/// quote the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not JSON of the expected shape")]
pub struct NotJson;

impl Response {
    /// True for 2xx.
    #[must_use]
    pub fn is_success(&self) -> bool {
        StatusCode::from_u16(self.status).is_ok_and(|status| status.is_success())
    }

    /// A header as text; none when absent or not visible ASCII.
    #[must_use]
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The media type in lower case without parameters: `application/json`.
    #[must_use]
    pub fn media_type(&self) -> Option<String> {
        let value = self.header(&CONTENT_TYPE)?;
        Some(value.split(';').next().unwrap_or(value).trim().to_ascii_lowercase())
    }

    /// The body as JSON, whatever `Content-Type` says.
    ///
    /// # Errors
    /// [`NotJson`].
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, NotJson> {
        serde_json::from_slice(&self.body).map_err(|_| NotJson)
    }

    /// The body as text, when it is UTF-8.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.body).ok()
    }

    /// How long to wait by `Retry-After`, which holds seconds or an HTTP date (RFC 9110 section
    /// 10.2.3); zero for a date that has passed. Callers cap it.
    #[must_use]
    pub fn retry_after(&self, now: Millis) -> Option<Duration> {
        let value = self.header(&RETRY_AFTER)?.trim();
        if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
        }
        http_date(value).map(|at| at.left(now))
    }
}

/// The preferred form of a date and the two old ones that a recipient must accept (RFC 9110 section 5.6.7).
fn http_date(text: &str) -> Option<Millis> {
    const FORMS: [&str; 3] = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    let at = FORMS.iter().find_map(|form| DateTime::strptime(form, text).ok())?;
    Some(Millis(at.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond()))
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;

    use super::*;

    fn answer(name: HeaderName, value: &str) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).expect("a value"));
        Response { status: 200, headers, body: Zeroizing::new(b"{\"access_token\":\"canary\"}".to_vec()) }
    }

    #[test]
    fn a_body_of_another_shape_is_refused_without_quoting_it() {
        // RL-10
        let response = answer(CONTENT_TYPE, "Application/JSON; charset=utf-8");
        assert_eq!(response.media_type().as_deref(), Some("application/json"));
        let error = response.json::<Vec<u8>>().expect_err("an object is no list");
        assert!(!format!("{error} {error:?} {response:?}").contains("canary"));
        assert_eq!(response.json::<serde_json::Value>().expect("JSON")["access_token"], "canary");
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        // RL-09
        let now = Millis::parse_rfc3339("1994-11-06T08:49:07Z").expect("a time");
        let wait = |value| answer(RETRY_AFTER, value).retry_after(now);
        let half = Some(Duration::from_secs(30));
        assert_eq!(wait("30"), half);
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), half);
        assert_eq!(wait("Sunday, 06-Nov-94 08:49:37 GMT"), half);
        assert_eq!(wait("Sun Nov  6 08:49:37 1994"), half);
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("99999999999999999999"), Some(Duration::from_secs(u64::MAX)));
        assert_eq!(wait("soon"), None);
        assert_eq!(wait("-1"), None);
    }
}
