//! Bodies: JSON by its header, small, unambiguous, in time; and in words what does not fit, without repeating it.

use std::marker::PhantomData;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, MatchedPath, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use super::idempotent::{IDEMPOTENCY_KEY, Written};
use super::{Code, House, Problem, objects, strict};
use crate::caller::{Caller, Permission};
use crate::clock::deadline;

/// How long a client may take to send its body (API.md 6, point 18).
const BODY_LIMIT: Duration = Duration::from_secs(30);

/// A JSON body that is read at once. Unknown fields are refused when `T` denies them, which every body of ours does.
#[derive(Debug)]
pub struct JsonBody<T> {
    /// What was sent.
    pub value: T,
}

/// A body that has arrived but is not looked at until its sender may do what it asks for, so that a key which lacks a
/// scope learns nothing about the body. `T` is what it should be.
#[derive(Debug)]
pub struct Sent<T> {
    declared: Result<(), Problem>,
    written: Written,
    kind: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Sent<T> {
    /// Reads the body for a caller who has `permission`.
    ///
    /// # Errors
    /// 403 first of all, then what is wrong with the body.
    pub fn open(self, caller: &Caller, permission: Permission) -> Result<(T, Written), Problem> {
        caller.require(permission)?;
        self.declared?;
        Ok((parse(&self.written.body)?, self.written))
    }

    /// What was sent, where the body does not matter.
    pub fn unread(self) -> Written {
        self.written
    }

    /// The same for a body whose fields are all optional, so it may be absent.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_or_default(self, caller: &Caller, permission: Permission) -> Result<(T, Written), Problem>
    where
        T: Default,
    {
        if self.written.body.is_empty() {
            caller.require(permission)?;
            return Ok((T::default(), self.written));
        }
        self.open(caller, permission)
    }
}

/// A write without a body, such as DELETE. Whatever was sent as one is not looked at.
#[derive(Debug)]
pub struct NoBody(pub Written);

impl<T: DeserializeOwned> FromRequest<House> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &House) -> Result<Self, Problem> {
        is_json(request.headers())?;
        Ok(Self { value: parse(&read_bytes(request).await?)? })
    }
}

impl<T> FromRequest<House> for Sent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &House) -> Result<Self, Problem> {
        let declared = is_json(request.headers());
        let written = read(request).await?;
        Ok(Self { declared, written, kind: PhantomData })
    }
}

impl FromRequest<House> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &House) -> Result<Self, Problem> {
        read(request).await.map(Self)
    }
}

/// Reads the whole body, within size and time.
pub(super) async fn read_bytes(request: Request) -> Result<Bytes, Problem> {
    let read = deadline(BODY_LIMIT, Bytes::from_request(request, &())).await;
    let late = |_| {
        Problem::new(Code::Malformed, "the body took longer than 30 seconds").with_status(StatusCode::REQUEST_TIMEOUT)
    };
    read.map_err(late)?.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(error) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(Code::TooLarge, "the body is larger than this address takes")
        }
        _ => Problem::new(Code::Malformed, "the body did not arrive whole"),
    })
}

async fn read(request: Request) -> Result<Written, Problem> {
    let mut keys = request.headers().get_all(IDEMPOTENCY_KEY).iter();
    let key = keys.next().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    if keys.next().is_some() {
        return Err(Problem::new(Code::Malformed, "there is more than one Idempotency-Key"));
    }
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let route = format!("{} {route}", request.method());
    let target = request.uri().path_and_query().map(|target| target.as_str().to_owned()).unwrap_or_default();
    Ok(Written { key, route, target, body: read_bytes(request).await? })
}

fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(Code::UnsupportedMediaType, "the body must be sent as application/json"));
    }
    if !["", "identity"].contains(&text(header::CONTENT_ENCODING)) {
        return Err(Problem::new(Code::UnsupportedMediaType, "the body must not be compressed"));
    }
    Ok(())
}

/// What is not JSON is malformed; what is JSON but does not fit is invalid, with the field's path.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    strict::check(bytes).map_err(|_| {
        Problem::new(
            Code::Malformed,
            "the body is not JSON, is deeper than 32 levels, has a key twice or a text with NUL",
        )
    })?;
    let value = serde_json::from_slice(bytes).map_err(|_| Problem::new(Code::Malformed, "the body is not JSON"))?;
    Ok(objects::read(value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[expect(dead_code, reason = "only whether it can be read is looked at")]
        count: u8,
    }

    #[test]
    fn what_fits_not_is_invalid() {
        for text in [r#"{"count":"many"}"#, r#"{"count":1,"x":1}"#, "[1]", "1", "null", "{}"] {
            let problem = parse::<Body>(text.as_bytes()).expect_err("refused");
            assert_eq!((problem.code(), problem.errors().len()), (Code::Invalid, 1), "{text}");
        }
        assert!(parse::<Body>(br#"{"count":1}"#).is_ok());
    }

    #[test]
    fn what_is_not_json_is_malformed() {
        for text in ["", "{", "[1,]", r#"{"count":1,"count":1}"#, r#"{"count":1} trailing"#] {
            assert_eq!(parse::<Body>(text.as_bytes()).expect_err("refused").code(), Code::Malformed, "{text}");
        }
    }

    #[test]
    fn only_plain_json_is_taken() {
        let with = |pairs: &[(header::HeaderName, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(name, header::HeaderValue::from_static(value));
            }
            is_json(&headers).is_ok()
        };
        assert!(with(&[(header::CONTENT_TYPE, "application/json")]));
        assert!(with(&[(header::CONTENT_TYPE, "Application/JSON; charset=utf-8")]));
        assert!(!with(&[]));
        assert!(!with(&[(header::CONTENT_TYPE, "text/plain")]));
        assert!(!with(&[(header::CONTENT_TYPE, "application/jsonp")]));
        assert!(!with(&[(header::CONTENT_TYPE, "application/json"), (header::CONTENT_ENCODING, "gzip")]));
    }
}
