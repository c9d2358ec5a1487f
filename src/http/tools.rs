//! For agent tools (API.md section 4): the refresh tool and the broker. A tool proves itself with a ticket and the
//! workspace's header; both travel in headers only, where a model cannot write. Without them a body is not read.

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, OriginalUri, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use utoipa::OpenApi;

use super::body::read_bytes;
use super::extract::bearer;
use super::{AsItIs, House, JsonBody, Problem, RequestContext};
use crate::conversations::{BrokerRequest, Proof, RefreshAnswer, RefreshRequest};
use crate::secret::Secret;

const WORKSPACE: HeaderName = HeaderName::from_static("x-valetkey-workspace");
const ACCOUNT: HeaderName = HeaderName::from_static("x-valetkey-account");
/// A tool's body may be a mail with an attachment.
const MOST_BROKER_BODY: usize = 1024 * 1024;
/// What a tool may send to the refresh tool (AP-08).
const MOST_REFRESH_BODY: usize = 16 * 1024;

/// Routes for tools.
pub(super) fn router() -> Router<House> {
    Router::new()
        .route("/tokens/refresh", post(refresh).layer(DefaultBodyLimit::max(MOST_REFRESH_BODY)))
        .route("/v1/broker/{provider}/{*path}", any(broker).layer(DefaultBodyLimit::max(MOST_BROKER_BODY)))
}

impl FromRequestParts<House> for Proof {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, house: &House) -> Result<Self, Problem> {
        let context = RequestContext::from_request_parts(parts, house).await?;
        let mut headers = parts.headers.get_all(WORKSPACE).iter();
        let workspace = headers.next().and_then(|value| value.to_str().ok()).map(Secret::new);
        let workspace = workspace.filter(|_| headers.next().is_none());
        Ok(Self { ticket: bearer(parts), workspace, claimed_users: claimed(parts), origin: context.origin().clone() })
    }
}

/// User ids that the query names; the body's are looked at by the room.
fn claimed(parts: &Parts) -> Vec<String> {
    let query = parts.uri.query().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| name == "user_id")
        .map(|(_, value)| value.into_owned())
        .collect()
}

/// The calls of tools, for the document.
#[derive(OpenApi)]
#[openapi(paths(refresh, broker))]
pub(super) struct Calls;

/// Tells how the conversation's credential for a provider stands, refreshing it first.
///
/// Tokens are in the answer only where it is proven that the agent's model does not see them.
#[utoipa::path(post, path = "/tokens/refresh", tag = "tools", operation_id = "refresh_tool",
    request_body = RefreshRequest,
    responses((status = 200, description = "How it stands", body = RefreshAnswer)),
    security(("ticket" = [], "workspace" = [])),
)]
async fn refresh(State(house): State<House>, proof: Proof, request: Request) -> Result<Json<RefreshAnswer>, Problem> {
    let admitted = house.conversations.admit_ticket(proof).await?;
    let JsonBody { value, .. } = JsonBody::<RefreshRequest>::from_request(request, &house).await?;
    Ok(Json(house.conversations.refresh_tool(admitted, value).await?))
}

/// Makes a call to a provider's API with the conversation's credential, as far as the agent's rules allow.
///
/// The path is taken as it came, still percent-encoded, so that it can be read in one way only.
#[utoipa::path(method(get, post, put, patch, delete), path = "/v1/broker/{provider}/{path}",
    tag = "tools", operation_id = "broker",
    params(
        ("provider" = String, Path, description = "A provider's id"),
        ("path" = String, Path, description = "Google: the API and its path (`gmail/v1/users/me/messages`), with as many `/` as it has. Slack and Telegram: the method's name"),
        ("X-Valetkey-Account" = Option<String>, Header, description = "Id, e-mail or label of one of several accounts"),
    ),
    request_body(content_type = "*/*", description = "For the provider, at most 1 MiB. May be absent"),
    responses((status = "default", description = "The provider's answer with its own status, filtered, as it comes: at most 16 MiB in 60 seconds. One that is cut short ends the connection", content_type = "*/*")),
    security(("ticket" = [], "workspace" = [])),
)]
async fn broker(
    State(house): State<House>,
    proof: Proof,
    OriginalUri(uri): OriginalUri,
    Path(place): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let (provider, _) = place;
    let prefix = format!("/v1/broker/{provider}/");
    let path = uri.path().strip_prefix(&prefix).ok_or_else(Problem::not_found)?.to_owned();
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let admitted = house.conversations.admit_ticket(proof).await?;
    let account = headers.get(ACCOUNT).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body: Bytes = read_bytes(request).await?;
    let wanted =
        BrokerRequest { provider, path, query: uri.query().map(str::to_owned), method, headers, body, account };
    let answer = house.conversations.broker(admitted, wanted).await?;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = (status, answer.headers, Body::from_stream(answer.body)).into_response();
    // The provider's own error body is for the tool to read.
    response.extensions_mut().insert(AsItIs);
    Ok(response)
}
