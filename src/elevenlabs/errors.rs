//! What ElevenLabs' refusals mean (fact sheet 1.4).
//!
//! `detail` may be an object, a text or a list, and the useful word may stand in `code` or in `status`, so both are
//! looked at. Their `message` is never kept.

use std::time::Duration;

use serde_json::Value;

use crate::outbound::OutboundError;

/// A call to ElevenLabs did not bring what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElevenLabsError {
    /// Nothing left this machine.
    #[error("ElevenLabs was not reached")]
    NotSent,
    /// The request was sent and its answer lost or unreadable: a call may have been started, so do not repeat it.
    #[error("ElevenLabs' answer was lost")]
    Unknown,
    /// The key is wrong, ended, or may not do this for a reason other than the two below.
    #[error("ElevenLabs refused the key ({code})")]
    Unauthorized {
        /// A word of `[a-z0-9_.:-]{1,64}`.
        code: String,
    },
    /// The key lacks a permission. ElevenLabs says this with status 401, not 403.
    #[error("the ElevenLabs key lacks a permission")]
    MissingPermissions,
    /// The key is limited to other addresses than ours.
    #[error("the ElevenLabs key is not allowed from this address")]
    IpNotAllowed,
    /// No such thing in this workspace; a thing of another workspace looks the same (fact sheet 1.1).
    #[error("ElevenLabs has no such thing in this workspace")]
    NotFound,
    /// The workspace's credits are used up, or its plan does not have this.
    #[error("the ElevenLabs plan or its credits do not allow this ({code})")]
    Quota {
        /// A word of `[a-z0-9_.:-]{1,64}`.
        code: String,
    },
    /// Too many calls, or too many at once.
    #[error("ElevenLabs asks for fewer calls")]
    RateLimited {
        /// How long it asks us to wait, if it said so.
        after: Option<Duration>,
        /// Calls in progress are the limit: wait for one to end instead of for time to pass.
        concurrency: bool,
    },
    /// ElevenLabs does not accept the request.
    #[error("ElevenLabs does not accept the request ({code})")]
    Invalid {
        /// A word of `[a-z0-9_.:-]{1,64}`.
        code: String,
    },
    /// ElevenLabs has a problem, or answers in a way that no table knows.
    #[error("ElevenLabs answered with status {status}")]
    Upstream {
        /// The HTTP status.
        status: u16,
    },
}

impl From<OutboundError> for ElevenLabsError {
    fn from(error: OutboundError) -> Self {
        match error {
            OutboundError::Refused(_) | OutboundError::NotSent(_) => Self::NotSent,
            OutboundError::TooLarge { status } => Self::Upstream { status },
            OutboundError::Unknown(_) => Self::Unknown,
        }
    }
}

/// What an answer that is not 2xx means.
pub(super) fn classify(status: u16, body: &[u8], after: Option<Duration>) -> ElevenLabsError {
    let words = Words::read(body);
    let code = words.first();
    if words.any(&["missing_permissions"]) {
        return ElevenLabsError::MissingPermissions;
    }
    if words.any(&["quota_exceeded", "insufficient_credits", "paid_plan_required", "payment_required"]) {
        return ElevenLabsError::Quota { code };
    }
    match status {
        402 => ElevenLabsError::Quota { code },
        403 if words.speak_of_addresses() => ElevenLabsError::IpNotAllowed,
        401 | 403 => ElevenLabsError::Unauthorized { code },
        404 => ElevenLabsError::NotFound,
        429 => {
            let concurrency = words.any(&["concurrent_limit_exceeded", "too_many_concurrent_requests"]);
            ElevenLabsError::RateLimited { after, concurrency }
        }
        400 | 422 if words.any(&["document_not_found", "not_found"]) => ElevenLabsError::NotFound,
        400 | 422 => ElevenLabsError::Invalid { code },
        _ => ElevenLabsError::Upstream { status },
    }
}

/// The machine-readable words of an error body: `code`, `status` and `type`, in this order.
struct Words(Vec<String>);

impl Words {
    fn read(body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let detail = match body.get("detail") {
            Some(Value::Array(list)) => list.first().cloned().unwrap_or_default(),
            Some(detail) => detail.clone(),
            None => body,
        };
        let names = ["code", "status", "type"];
        Self(names.iter().filter_map(|name| detail.get(name)?.as_str().and_then(word)).collect())
    }

    fn any(&self, wanted: &[&str]) -> bool {
        self.0.iter().any(|word| wanted.contains(&word.as_str()))
    }

    fn first(&self) -> String {
        self.0.first().cloned().unwrap_or_else(|| "unlisted".to_owned())
    }

    /// The exact word for a refused address is not published (fact sheet 1.4), so any word about addresses counts.
    fn speak_of_addresses(&self) -> bool {
        self.0.iter().any(|word| word.split('_').any(|part| part == "ip" || part == "ips"))
    }
}

/// Bounded in characters and length; anything else is no word.
fn word(text: &str) -> Option<String> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.:-".contains(&b);
    ((1..=64).contains(&text.len()) && text.bytes().all(fits)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_every_shape_are_classified() {
        // fact sheet 1.4
        let unauthorized = |code: &str| ElevenLabsError::Unauthorized { code: code.into() };
        let invalid = |code: &str| ElevenLabsError::Invalid { code: code.into() };
        let quota = |code: &str| ElevenLabsError::Quota { code: code.into() };
        let limited = |concurrency| ElevenLabsError::RateLimited { after: None, concurrency };
        let rows = [
            (
                401,
                r#"{"detail":{"type":"authentication_error","code":"invalid_api_key","status":"invalid_api_key"}}"#,
                unauthorized("invalid_api_key"),
            ),
            (
                401,
                r#"{"detail":{"code":"unauthorized","status":"missing_permissions"}}"#,
                ElevenLabsError::MissingPermissions,
            ),
            (401, r#"{"detail":{"status":"missing_permissions","message":"x"}}"#, ElevenLabsError::MissingPermissions),
            (401, r#"{"detail":"Not authenticated"}"#, unauthorized("unlisted")),
            (401, r#"{"detail":{"status":"quota_exceeded"}}"#, quota("quota_exceeded")),
            (402, r#"{"detail":{"code":"insufficient_credits"}}"#, quota("insufficient_credits")),
            (402, "", quota("unlisted")),
            (403, r#"{"detail":{"code":"ip_not_allowed"}}"#, ElevenLabsError::IpNotAllowed),
            (403, r#"{"detail":{"code":"forbidden","status":"allowed_ips_violation"}}"#, ElevenLabsError::IpNotAllowed),
            (403, r#"{"detail":{"code":"feature_not_available"}}"#, unauthorized("feature_not_available")),
            (403, r#"{"detail":{"code":"only_for_creator+"}}"#, unauthorized("unlisted")),
            (404, r#"{"detail":{"code":"document_not_found"}}"#, ElevenLabsError::NotFound),
            (404, "<html>", ElevenLabsError::NotFound),
            (400, r#"{"detail":{"code":"bad_request","status":"invalid_uid"}}"#, invalid("bad_request")),
            (
                422,
                r#"{"detail":[{"loc":["body","name"],"msg":"field required","type":"missing"}]}"#,
                invalid("missing"),
            ),
            (422, r#"{"detail":[]}"#, invalid("unlisted")),
            (429, r#"{"detail":{"code":"rate_limit_exceeded"}}"#, limited(false)),
            (429, r#"{"detail":{"code":"concurrent_limit_exceeded"}}"#, limited(true)),
            (429, r#"{"detail":{"status":"too_many_concurrent_requests"}}"#, limited(true)),
            (424, "{}", ElevenLabsError::Upstream { status: 424 }),
            (500, r#"{"detail":{"code":"internal_error"}}"#, ElevenLabsError::Upstream { status: 500 }),
            (503, "", ElevenLabsError::Upstream { status: 503 }),
            (302, "", ElevenLabsError::Upstream { status: 302 }),
        ];
        for (status, body, wanted) in rows {
            assert_eq!(classify(status, body.as_bytes(), None), wanted, "{status} {body}");
        }
    }

    #[test]
    fn their_words_are_bounded() {
        let body = format!(r#"{{"detail":{{"code":"{}"}}}}"#, "a".repeat(65));
        assert_eq!(classify(400, body.as_bytes(), None), ElevenLabsError::Invalid { code: "unlisted".into() });
        let body = r#"{"detail":{"code":"<b>sk_secret</b>"}}"#;
        assert_eq!(classify(400, body.as_bytes(), None), ElevenLabsError::Invalid { code: "unlisted".into() });
    }
}
