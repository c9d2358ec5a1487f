//! For providers that tell things on their own (API.md section 4): Slack's signed events, Google's security event tokens, a Telegram
//! bot's updates. Each proves itself in its own way; who does not is told nothing.

use axum::Json;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::body::read_bytes;
use super::{Code, House, Problem};
use crate::connections::{ConnectionsError, Disbelief, SlackAnswer, SlackCall};
use crate::secret::Secret;

/// Routes for providers.
pub(super) fn router() -> Router<House> {
    Router::new()
        .route("/hooks/slack/{integration_id}", post(slack))
        .route("/hooks/google/{integration_id}", post(google))
        .route("/hooks/telegram/{integration_id}", post(telegram))
}

/// The calls of providers, for the document.
#[derive(OpenApi)]
#[openapi(paths(slack, google, telegram))]
pub(super) struct Calls;

/// Hears an event of Slack's Events API.
///
/// The address is the `events_url` of the integration, whose `signing_secret` must be set. `tokens_revoked` and `app_uninstalled`
/// end what they name at once; other events are taken and do nothing.
#[utoipa::path(post, path = "/hooks/slack/{integration_id}", tag = "hooks", operation_id = "hear_slack",
    params(
        ("integration_id" = String, Path, description = "An integration's id"),
        ("X-Slack-Request-Timestamp" = String, Header, description = "Seconds; at most five minutes from now"),
        ("X-Slack-Signature" = String, Header, description = "`v0=` and the HMAC-SHA256 of `v0:{timestamp}:{body}`"),
    ),
    request_body(content_type = "application/json", description = "As Slack sends it"),
    responses((status = 200, description = "It was heard, now or before", body = SlackAnswer)),
    security(("slack_signature" = [])),
)]
async fn slack(
    State(house): State<House>,
    Path(integration): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<SlackAnswer>, Problem> {
    let body = read_bytes(request).await?;
    let call = SlackCall {
        timestamp: only(&headers, "x-slack-request-timestamp"),
        signature: only(&headers, "x-slack-signature"),
        body: &body,
    };
    Ok(Json(house.connections.slack_notice(&integration, call).await?))
}

/// A header's value; empty when it is missing, there more than once, or no text.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().unwrap_or_default(),
        _ => "",
    }
}

/// Why a security event token was not taken (RFC 8935 section 2.4).
#[derive(Debug, Serialize, ToSchema)]
struct EventRefusal {
    /// A code of the RFC.
    err: &'static str,
    /// What is wrong.
    description: &'static str,
}

/// Hears a security event of Google's Cross-Account Protection.
///
/// The address is the `events_url` of the integration. The token must be Google's, name the integration's client and be at most seven
/// days old.
#[utoipa::path(post, path = "/hooks/google/{integration_id}", tag = "hooks", operation_id = "hear_google",
    params(("integration_id" = String, Path, description = "An integration's id")),
    request_body(content = String, content_type = "application/secevent+jwt", description = "A security event token (RFC 8417)"),
    responses(
        (status = 202, description = "It was heard, now or before"),
        (status = 400, description = "It is not believed", body = EventRefusal),
    ),
    security(()),
)]
async fn google(
    State(house): State<House>,
    Path(integration): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let body = read_bytes(request).await?;
    let Ok(token) = std::str::from_utf8(&body) else { return Ok(refusal(Disbelief::Malformed)) };
    match house.connections.google_notice(&integration, &Secret::new(token.trim())).await {
        Ok(()) => Ok(StatusCode::ACCEPTED.into_response()),
        Err(ConnectionsError::Disbelieved(why)) if why != Disbelief::Unavailable => Ok(refusal(why)),
        Err(other) => Err(other.into()),
    }
}

/// Hears an update of the integration's bot.
///
/// The vault sets this address and the secret itself, with `setWebhook`, where Telegram can reach it. Pressed Starts, blocked and
/// unblocked bots are acted upon; other updates are taken and do nothing.
#[utoipa::path(post, path = "/hooks/telegram/{integration_id}", tag = "hooks", operation_id = "hear_telegram",
    params(
        ("integration_id" = String, Path, description = "An integration's id"),
        ("X-Telegram-Bot-Api-Secret-Token" = String, Header, description = "What the vault gave with `setWebhook`"),
    ),
    request_body(content_type = "application/json", description = "An Update of the Bot API"),
    responses((status = 200, description = "It was heard, now or before")),
    security(("telegram_secret" = [])),
)]
async fn telegram(
    State(house): State<House>,
    Path(integration): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Result<StatusCode, Problem> {
    let secret = Secret::new(only(&headers, "x-telegram-bot-api-secret-token"));
    let body = read_bytes(request).await?;
    house.connections.telegram_update(&integration, &secret, &body).await?;
    Ok(StatusCode::OK)
}

fn refusal(why: Disbelief) -> Response {
    let (err, description) = match why {
        Disbelief::Issuer => ("invalid_issuer", "the issuer is not the provider of this address"),
        Disbelief::Audience => ("invalid_audience", "it is not for the client of this address"),
        Disbelief::Key => ("invalid_key", "it is signed with a key that the provider does not publish"),
        Disbelief::Signature => ("authentication_failed", "the signature does not fit"),
        Disbelief::Time => ("invalid_request", "it is older than seven days, or from the future"),
        Disbelief::Malformed | Disbelief::Unavailable => ("invalid_request", "it is no security event token"),
    };
    (StatusCode::BAD_REQUEST, Json(EventRefusal { err, description })).into_response()
}

impl From<Disbelief> for Problem {
    fn from(why: Disbelief) -> Self {
        match why {
            Disbelief::Malformed => Self::new(Code::Malformed, "it cannot be read"),
            Disbelief::Unavailable => {
                Self::new(Code::NotReady, "whether it is genuine cannot be found out at the moment")
            }
            _ => Self::new(Code::Unauthenticated, "it is not proven to come from the provider"),
        }
    }
}
