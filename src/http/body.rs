//! Bodies: JSON by its header, small, unambiguous, in time; and in words what does not fit, without repeating it.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, MatchedPath, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::idempotent::{IDEMPOTENCY_KEY, Written};
use super::{Code, House, Problem, strict};
use crate::clock::deadline;
use crate::invalid::Invalid;

/// How long a client may take to send its body (API.md 6, point 18).
const BODY_LIMIT: Duration = Duration::from_secs(30);

/// A JSON body. Unknown fields are refused when `T` denies them, which every body of ours does.
#[derive(Debug)]
pub struct JsonBody<T> {
    /// What was sent.
    pub value: T,
    /// The request as it can be told apart from another one.
    pub written: Written,
}

/// A JSON body whose fields are all optional, so it may be absent.
#[derive(Debug)]
pub struct OptionalJson<T> {
    /// What was sent, or the default.
    pub value: T,
    /// The request as it can be told apart from another one.
    pub written: Written,
}

/// A write without a body, such as DELETE. Whatever was sent as one is not looked at.
#[derive(Debug)]
pub struct NoBody(pub Written);

impl<T: DeserializeOwned> FromRequest<House> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &House) -> Result<Self, Problem> {
        is_json(request.headers())?;
        let (written, bytes) = read(request).await?;
        Ok(Self { value: parse(&bytes)?, written })
    }
}

impl<T: DeserializeOwned + Default> FromRequest<House> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &House) -> Result<Self, Problem> {
        let declared = is_json(request.headers());
        let (written, bytes) = read(request).await?;
        if bytes.is_empty() {
            return Ok(Self { value: T::default(), written });
        }
        declared?;
        Ok(Self { value: parse(&bytes)?, written })
    }
}

impl FromRequest<House> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &House) -> Result<Self, Problem> {
        read(request).await.map(|(written, _)| Self(written))
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

async fn read(request: Request) -> Result<(Written, Bytes), Problem> {
    let mut keys = request.headers().get_all(IDEMPOTENCY_KEY).iter();
    let key = keys.next().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    if keys.next().is_some() {
        return Err(Problem::new(Code::Malformed, "there is more than one Idempotency-Key"));
    }
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let route = format!("{} {route}", request.method());
    let target = request.uri().path_and_query().map(|target| target.as_str().to_owned()).unwrap_or_default();
    let bytes = read_bytes(request).await?;
    Ok((Written { key, route, target, body: bytes.clone() }, bytes))
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
    let deserializer = &mut serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        match error.inner().classify() {
            Category::Data => in_words(&path, &error.inner().to_string()).into(),
            _ => Problem::new(Code::Malformed, "the body is not JSON"),
        }
    })
}

/// serde's messages quote what was sent, which may be a secret: only the parts that are ours are taken over.
fn in_words(path: &str, message: &str) -> Invalid {
    let path = if path == "." { "" } else { path };
    let under = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let quoted = |start: &str| message.strip_prefix(start).and_then(|rest| rest.split('`').next());
    // serde_path_to_error already names the unknown field as the last part of the path.
    if message.starts_with("unknown field `") {
        return Invalid::one(shortened(path), "is not a field of this request");
    }
    if let Some(name) = quoted("missing field `") {
        return Invalid::one(under(name), "is required");
    }
    let expected = message.rsplit_once(", expected ").map(|(_, rest)| rest.split(" at line ").next().unwrap_or(rest));
    match expected {
        Some(expected) => Invalid::one(shortened(path), format!("must be {expected}")),
        None => Invalid::one(shortened(path), "does not have the right form"),
    }
}

/// Names that a client made up are shown, but not at any length.
fn shortened(path: &str) -> String {
    path.chars().filter(|character| !character.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::ids::UserId;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        inner: Vec<Inner>,
        #[serde(default)]
        kind: Option<Kind>,
        #[serde(default)]
        id: Option<UserId>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        count: u8,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Redirect,
        Popup,
    }

    fn errors(text: &str) -> (Code, String, String) {
        let problem = parse::<Outer>(text.as_bytes()).expect_err("refused");
        let first = problem.errors().first();
        let of = |part: fn(&crate::invalid::FieldError) -> &String| first.map(part).cloned().unwrap_or_default();
        (problem.code(), of(|error| &error.field), of(|error| &error.message))
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_path() {
        let invalid = |field: &str, message: &str| (Code::Invalid, field.to_owned(), message.to_owned());
        assert_eq!(errors(r#"{"inner":[{"count":1},{}]}"#), invalid("inner[1].count", "is required"));
        assert_eq!(errors("{}"), invalid("inner", "is required"));
        assert_eq!(errors(r#"{"inner":[],"extra":1}"#), invalid("extra", "is not a field of this request"));
        assert_eq!(errors(r#"{"inner":[{"count":1,"x":2}]}"#), invalid("inner[0].x", "is not a field of this request"));
        assert_eq!(errors(r#"{"inner":[{"count":"many"}]}"#), invalid("inner[0].count", "must be u8"));
        assert_eq!(errors(r#"{"inner":[],"kind":"sideways"}"#), invalid("kind", "must be `redirect` or `popup`"));
        assert_eq!(errors(r#"{"inner":[],"id":"x"}"#), invalid("id", "does not have the right form"));
        let good = parse::<Outer>(br#"{"inner":[{"count":3}],"kind":"popup"}"#).expect("fits");
        assert!(good.inner[0].count == 3 && matches!(good.kind, Some(Kind::Popup)) && good.id.is_none());
        assert!(!matches!(good.kind, Some(Kind::Redirect)));
    }

    #[test]
    fn nothing_that_was_sent_comes_back() {
        for text in [
            r#"{"inner":[{"count":"canary-secret"}]}"#,
            r#"{"inner":"canary-secret, expected canary-secret at line"}"#,
            r#"{"inner":[],"kind":"canary-secret"}"#,
            r#"{"inner":[],"id":"canary-secret"}"#,
        ] {
            let problem = parse::<Outer>(text.as_bytes()).expect_err("refused");
            let body = serde_json::to_string(&problem.body("x")).expect("serializes");
            assert!(!body.contains("canary"), "{body}");
        }
    }

    #[test]
    fn what_is_not_json_is_malformed() {
        for text in ["", "{", "[1,]", r#"{"inner":[],"inner":[]}"#, r#"{"inner":[]} trailing"#] {
            assert_eq!(errors(text).0, Code::Malformed, "{text}");
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
