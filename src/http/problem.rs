//! The one table from what went wrong to what is answered (API.md, head; AP-13).
//!
//! A handler gives back a [`Problem`]. The entrance turns it into `application/problem+json` for programs and an error
//! page for people, adds the request's id, and logs the chain of causes once. Nothing of a cause is ever shown: details
//! are our own words, from here or from a room's error.

mod rooms;

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::caller::{Denied, Permission};
use crate::invalid::{FieldError, Invalid};
use crate::schema::one_of;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:ident;)*) => {
        /// What went wrong, for programs: a closed list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As answers carry it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The status it is answered with.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }
        }
    };
}

codes! {
    /// The request cannot be read.
    Malformed = "malformed", BAD_REQUEST;
    /// Body, header or address is larger than is read.
    TooLarge = "too_large", PAYLOAD_TOO_LARGE;
    /// The body is not JSON by its header.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE;
    /// The path is there, but not for this method.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED;
    /// No proof of who asks, or a wrong one.
    Unauthenticated = "unauthenticated", UNAUTHORIZED;
    /// The caller lacks a permission.
    InsufficientScope = "insufficient_scope", FORBIDDEN;
    /// The key may not be used from this address.
    IpNotAllowed = "ip_not_allowed", FORBIDDEN;
    /// A ticket and what its tool says contradict each other.
    IdentityMismatch = "identity_mismatch", FORBIDDEN;
    /// The user has no grant, or the agent no leave for this call.
    NotGranted = "not_granted", FORBIDDEN;
    /// No such thing, or another's.
    NotFound = "not_found", NOT_FOUND;
    /// It was there and is over.
    Gone = "gone", GONE;
    /// Only the user can help, by connecting again.
    NeedsReauth = "needs_reauth", CONFLICT;
    /// Only the tenant can help.
    Misconfigured = "misconfigured", CONFLICT;
    /// It exists already, or is in a state that does not allow this.
    Conflict = "conflict", CONFLICT;
    /// The first request with this key has not ended.
    IdempotencyConflict = "idempotency_conflict", CONFLICT;
    /// Fields do not fit; `errors` says which.
    Invalid = "invalid", UNPROCESSABLE_ENTITY;
    /// The tenant has to confirm, so there must be a way back to it.
    ReturnUrlRequired = "return_url_required", UNPROCESSABLE_ENTITY;
    /// A secret that never ends does not leave the vault.
    NotInjectable = "not_injectable", UNPROCESSABLE_ENTITY;
    /// Several accounts fit and none is the default.
    AmbiguousAccount = "ambiguous_account", UNPROCESSABLE_ENTITY;
    /// The key was used with another payload.
    IdempotencyMismatch = "idempotency_mismatch", UNPROCESSABLE_ENTITY;
    /// The user has to connect an account first.
    ConnectionRequired = "connection_required", FAILED_DEPENDENCY;
    /// Too many.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS;
    /// A defect of ours.
    Internal = "internal", INTERNAL_SERVER_ERROR;
    /// The provider or ElevenLabs did not answer usefully.
    UpstreamFailed = "upstream_failed", BAD_GATEWAY;
    /// Somebody is refreshing this credential.
    RefreshInProgress = "refresh_in_progress", SERVICE_UNAVAILABLE;
    /// What cannot be written down does not happen.
    AuditUnavailable = "audit_unavailable", SERVICE_UNAVAILABLE;
    /// Too much at once.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE;
    /// The database or the keys are away for now.
    NotReady = "not_ready", SERVICE_UNAVAILABLE;
}

/// How long a caller waits when the house itself is in trouble.
const SHORT_WAIT: Duration = Duration::from_secs(2);

/// Something that is answered with an error. It is plain until the entrance renders it.
#[derive(Clone, Debug)]
pub struct Problem(Box<Inside>);

#[derive(Clone, Debug)]
struct Inside {
    code: Code,
    status: StatusCode,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    retry_after: Option<Duration>,
    more: serde_json::Map<String, serde_json::Value>,
    denied: Option<Permission>,
    without_effect: bool,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

impl Problem {
    /// A problem; `detail` is a sentence of ours, never a provider's and never a secret.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inside {
            code,
            status: code.status(),
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
            more: serde_json::Map::new(),
            denied: None,
            without_effect: false,
            cause: None,
        }))
    }

    /// A defect of ours; `cause` is logged and never shown.
    pub fn internal(cause: impl Error + Send + Sync + 'static) -> Self {
        Self::new(Code::Internal, "something broke on our side; tell support the request's id").because(cause)
    }

    /// The house is in trouble for now; `cause` is logged.
    pub fn not_ready(cause: impl Error + Send + Sync + 'static) -> Self {
        Self::new(Code::NotReady, "the service cannot do this right now; try again shortly")
            .because(cause)
            .retry_after(SHORT_WAIT)
    }

    /// [`Self::not_ready`] for what passes by itself, [`Self::internal`] for the rest.
    pub fn outage_or_defect(outage: bool, cause: impl Error + Send + Sync + 'static) -> Self {
        if outage { Self::not_ready(cause) } else { Self::internal(cause) }
    }

    /// No such thing, or another's: the same words for both (AP-01).
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(Code::NotFound, "there is no such thing here")
    }

    /// Another status than the code's own, such as 414 for `too_large`.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// When trying again makes sense; whole seconds, at least one.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Nothing was left behind, so the same request may be made again.
    #[must_use]
    pub fn without_effect(mut self) -> Self {
        self.0.without_effect = true;
        self
    }

    /// The cause, for the log.
    #[must_use]
    pub fn because(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        self.0.cause = Some(Arc::new(cause));
        self
    }

    /// One more member of the JSON object, such as the connect link of `connection_required`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.0.more.insert(name.to_owned(), value.into());
        self
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The fields that do not fit.
    #[must_use]
    pub fn errors(&self) -> &[FieldError] {
        &self.0.errors
    }

    /// What was missing, for the book.
    pub(super) fn denied(&self) -> Option<Permission> {
        self.0.denied
    }

    /// Seconds for `Retry-After`, rounded up.
    pub(super) fn retry_seconds(&self) -> Option<u64> {
        self.0.retry_after.map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).map(|seconds| seconds.max(1))
    }

    /// True when it is not known whether the work had its effect.
    pub(super) fn leaves_doubt(&self) -> bool {
        matches!(self.0.code, Code::Internal | Code::UpstreamFailed) && !self.0.without_effect
    }

    /// Logs the chain of causes. The entrance calls it once per request.
    pub(super) fn log(&self) {
        let Some(cause) = &self.0.cause else { return };
        let mut chain = cause.to_string();
        let mut next = cause.source();
        while let Some(error) = next {
            chain.push_str(": ");
            chain.push_str(&error.to_string());
            next = error.source();
        }
        if self.0.status.is_server_error() {
            tracing::error!(code = self.0.code.as_str(), chain, "the request failed");
        } else {
            tracing::debug!(code = self.0.code.as_str(), chain, "the request was refused");
        }
    }

    /// The JSON object for this request.
    pub(super) fn body(&self, request_id: &str) -> ProblemBody {
        ProblemBody {
            kind: "about:blank",
            title: self.0.status.canonical_reason().unwrap_or("Error"),
            status: self.0.status.as_u16(),
            detail: self.0.detail.to_string(),
            instance: format!("urn:uuid:{request_id}"),
            code: self.0.code.as_str(),
            errors: self.0.errors.clone(),
            more: self.0.more.clone(),
        }
    }
}

/// An error as JSON (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemBody {
    /// Always `about:blank`: `code` says which problem it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is the matter, for people.
    detail: String,
    /// The request's id as `urn:uuid:…`; `X-Request-Id` has it, too.
    instance: String,
    /// What is the matter, for programs.
    #[schema(value_type = Code)]
    code: &'static str,
    /// Fields that do not fit; empty when it is not about fields.
    errors: Vec<FieldError>,
    #[serde(flatten)]
    #[schema(value_type = ProblemMore)]
    more: serde_json::Map<String, serde_json::Value>,
}

impl PartialSchema for Code {
    fn schema() -> RefOr<Schema> {
        one_of("What is the matter, for programs.", Self::ALL.iter().map(|code| code.as_str()))
    }
}

impl ToSchema for Code {}

/// What some problems say besides: the members that [`Problem::with`] adds.
#[derive(Debug)]
pub enum ProblemMore {}

impl PartialSchema for ProblemMore {
    fn schema() -> RefOr<Schema> {
        let text = |description: &str| ObjectBuilder::new().schema_type(Type::String).description(Some(description));
        ObjectBuilder::new()
            .property("provider", text("Whose account is missing, ambiguous or not to be injected"))
            .property(
                "connect_url",
                text("`connection_required`: a one-time link for the user, where one could be made"),
            )
            .property(
                "missing_scopes",
                ArrayBuilder::new()
                    .items(ObjectBuilder::new().schema_type(Type::String))
                    .description(Some("`connection_required`: what the account was not granted; the link asks for it")),
            )
            .into()
    }
}

impl ToSchema for ProblemMore {}

/// Leaves rendering to the entrance, which knows the request's id and whether a person or a program asked.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let mut problem = Self::new(Code::InsufficientScope, denied.to_string());
        problem.0.denied = Some(denied.missing);
        problem
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        let mut problem = Self::new(Code::Invalid, "some fields do not fit; `errors` says which and why");
        problem.0.errors = invalid.0;
        problem
    }
}

impl From<tower_sessions::session::Error> for Problem {
    fn from(error: tower_sessions::session::Error) -> Self {
        Self::not_ready(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_statuses_are_those_of_the_contract() {
        let table: &[(u16, &[&str])] = &[
            (400, &["malformed"]),
            (413, &["too_large"]),
            (415, &["unsupported_media_type"]),
            (401, &["unauthenticated"]),
            (403, &["insufficient_scope", "ip_not_allowed", "identity_mismatch", "not_granted"]),
            (404, &["not_found"]),
            (410, &["gone"]),
            (409, &["needs_reauth", "misconfigured", "conflict", "idempotency_conflict"]),
            (422, &["invalid", "return_url_required", "not_injectable", "ambiguous_account", "idempotency_mismatch"]),
            (424, &["connection_required"]),
            (429, &["rate_limited"]),
            (502, &["upstream_failed"]),
            (503, &["refresh_in_progress", "audit_unavailable", "overloaded", "not_ready"]),
            // Beyond API.md's table: statuses that HTTP itself asks for.
            (405, &["method_not_allowed"]),
            (500, &["internal"]),
        ];
        let mut expected: Vec<_> =
            table.iter().flat_map(|(status, codes)| codes.iter().map(|code| (*code, *status))).collect();
        let mut ours: Vec<_> = Code::ALL.iter().map(|code| (code.as_str(), code.status().as_u16())).collect();
        expected.sort_unstable();
        ours.sort_unstable();
        assert_eq!(ours, expected);
    }

    #[test]
    fn a_problem_has_every_member_and_nothing_of_its_cause_ap_13() {
        let cause = std::io::Error::other("SELECT secret FROM canary");
        let body = serde_json::to_value(Problem::internal(cause).body("0d5f")).expect("serializes");
        assert_eq!(
            body,
            serde_json::json!({
                "type": "about:blank", "title": "Internal Server Error", "status": 500, "code": "internal", "errors": [],
                "detail": "something broke on our side; tell support the request's id", "instance": "urn:uuid:0d5f",
            })
        );
    }

    #[test]
    fn fields_more_members_and_waiting_times_are_carried() {
        let problem: Problem = Invalid::one("scopes[1]", "is not a scope").into();
        assert_eq!(problem.body("x").errors[0].field, "scopes[1]");

        let problem = Problem::new(Code::ConnectionRequired, "connect first")
            .with("connect_url", "https://v.example/c")
            .retry_after(Duration::from_millis(1200));
        let body = serde_json::to_value(problem.body("x")).expect("serializes");
        assert_eq!((body["connect_url"].as_str(), problem.retry_seconds()), (Some("https://v.example/c"), Some(2)));
        assert_eq!(Problem::not_found().retry_after(Duration::ZERO).retry_seconds(), Some(1));
    }
}
