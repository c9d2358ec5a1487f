//! Writes with an `Idempotency-Key` (AP-11): the door's side. The rules are in `accounts::idempotency`.

use std::future::Future;

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::Instrument;

use super::{House, Problem};
use crate::accounts::{Answered, Begun, Repeatable};
use crate::caller::Caller;
use crate::secret::Secret;

/// The header.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A write as it can be told apart from another one. Body extractors make it.
#[derive(Clone, Debug)]
pub struct Written {
    pub(super) key: Option<String>,
    pub(super) route: String,
    pub(super) target: String,
    pub(super) body: Bytes,
}

/// What a write answers: a status and a JSON body, or none.
#[derive(Debug)]
pub struct Answer {
    status: StatusCode,
    body: Secret,
}

impl Answer {
    /// 200 with `body`.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which is a defect.
    pub fn ok(body: &impl Serialize) -> Result<Self, Problem> {
        Self::with(StatusCode::OK, body)
    }

    /// 201 with `body`.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which is a defect.
    pub fn created(body: &impl Serialize) -> Result<Self, Problem> {
        Self::with(StatusCode::CREATED, body)
    }

    /// 204.
    #[must_use]
    pub fn nothing() -> Self {
        Self { status: StatusCode::NO_CONTENT, body: Secret::new("") }
    }

    /// Any status with `body`.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which is a defect.
    pub fn with(status: StatusCode, body: &impl Serialize) -> Result<Self, Problem> {
        let text = serde_json::to_string(body).map_err(Problem::internal)?;
        Ok(Self { status, body: Secret::new(text) })
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        if self.body.is_empty() {
            return self.status.into_response();
        }
        let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        (self.status, [kind], self.body.expose().to_owned()).into_response()
    }
}

/// Does `work` once per key, caller and route. Without a key it is simply done. With one it runs to its end even when
/// the client goes away, so that the second request finds the first one's answer.
///
/// Answers of success are kept; after an error that left no effect the key is free again; after an error that leaves
/// doubt the key stays taken, and the second request gets 409 instead of a second effect.
///
/// # Errors
/// Those of the work; 422 `idempotency_mismatch`, 409 `idempotency_conflict`.
pub async fn idempotent<F>(house: &House, caller: &Caller, written: Written, work: F) -> Result<Response, Problem>
where
    F: Future<Output = Result<Answer, Problem>> + Send + 'static,
{
    let Some(key) = written.key else { return work.await.map(IntoResponse::into_response) };
    let payload = vec![written.target.into_bytes(), written.body.to_vec()];
    let request = Repeatable { key, route: written.route, payload };
    let slot = match house.accounts.idempotency_begin(caller, &request).await? {
        Begun::First(slot) => slot,
        Begun::Before(before) => return Ok(replayed(before)),
    };
    let (house, caller) = (house.clone(), caller.clone());
    let run = async move {
        match work.await {
            Ok(answer) => {
                let done = Answered { status: answer.status.as_u16(), body: answer.body.duplicate() };
                house.accounts.idempotency_finish(&caller, &slot, &done).await?;
                Ok(answer)
            }
            Err(problem) if problem.leaves_doubt() => Err(problem),
            Err(problem) => {
                house.accounts.idempotency_forget(&caller, &slot).await?;
                Err(problem)
            }
        }
    };
    let ended = tokio::spawn(run.in_current_span()).await.map_err(Problem::internal)?;
    ended.map(IntoResponse::into_response)
}

fn replayed(before: Answered) -> Response {
    let status = StatusCode::from_u16(before.status).unwrap_or(StatusCode::OK);
    let mut response = Answer { status, body: before.body }.into_response();
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}
