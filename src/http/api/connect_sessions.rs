//! Connect sessions: one-time links for a tenant's users.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use crate::caller::Permission;
use crate::connections::{Confirmation, ConnectSession, NewConnectSession};
use crate::http::{Answer, House, PathId, PlatformCaller, Problem, ProblemBody, Sent, idempotent};
use crate::ids::ConnectSessionId;

#[derive(Debug, Serialize)]
struct Link {
    id: ConnectSessionId,
    url: String,
    expires_at: String,
}

/// Makes a one-time link.
#[utoipa::path(post, path = "/v1/connect-sessions", tag = "connect",
    request_body(content = Object, description = "{user, providers?[], scopes?{}, return_url?, mode?}"), responses(
    (status = 201, description = "{id, url, expires_at}", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn connect_session_create(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    body: Sent<NewConnectSession>,
) -> Result<Response, Problem> {
    let (value, written) = body.open(&caller, Permission::ConnectionsWrite)?;
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        let link = rooms.connections.connect_session_create(&who, value).await?;
        Answer::created(&Link { id: link.id, url: link.url.expose().to_owned(), expires_at: link.expires_at.rfc3339() })
    })
    .await
}

/// How a session stands.
#[utoipa::path(get, path = "/v1/connect-sessions/{id}", tag = "connect", params(("id" = String, Path, description = "cns_…")), responses(
    (status = 200, description = "{id, state, connection?}", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn connect_session(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(id): PathId<ConnectSessionId>,
) -> Result<Json<ConnectSession>, Problem> {
    Ok(Json(house.connections.connect_session(&caller, &id).await?))
}

/// Says that it was the right person; only now is the provider's code exchanged.
#[utoipa::path(post, path = "/v1/connect-sessions/{id}/confirm", tag = "connect", params(("id" = String, Path, description = "cns_…")),
    request_body(content = Object, description = "{user, completion_code}"), responses(
    (status = 200, description = "The connection", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn connect_session_confirm(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(id): PathId<ConnectSessionId>,
    body: Sent<Confirmation>,
) -> Result<Response, Problem> {
    let (value, written) = body.open(&caller, Permission::ConnectionsWrite)?;
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        Answer::ok(&rooms.connections.connect_confirm(&who, &id, value).await?)
    })
    .await
}
