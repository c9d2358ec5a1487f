//! Connect sessions: one-time links for a tenant's users.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::caller::Permission;
use crate::connections::{Confirmation, ConnectSession, Connection, NewConnectSession};
use crate::http::{Answer, House, PathId, PlatformCaller, Problem, Sent, idempotent};
use crate::ids::ConnectSessionId;

/// A one-time link.
#[derive(Debug, Serialize, ToSchema)]
struct ConnectLink {
    id: ConnectSessionId,
    /// Give it to that user's browser only. It works once.
    #[schema(format = "uri")]
    url: String,
    /// RFC 3339
    #[schema(format = DateTime)]
    expires_at: String,
}

/// Makes a one-time link.
#[utoipa::path(
    post, path = "/v1/connect-sessions", tag = "connect", operation_id = "create_connect_session",
    request_body = NewConnectSession,
    responses((status = 201, description = "The link", body = ConnectLink)),
)]
pub(super) async fn connect_session_create(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    body: Sent<NewConnectSession>,
) -> Result<Response, Problem> {
    let (value, written) = body.open(&caller, Permission::ConnectionsWrite)?;
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        let link = rooms.connections.connect_session_create(&who, value).await?;
        Answer::created(&ConnectLink {
            id: link.id,
            url: link.url.expose().to_owned(),
            expires_at: link.expires_at.rfc3339(),
        })
    })
    .await
}

/// How a session stands.
#[utoipa::path(
    get, path = "/v1/connect-sessions/{id}", tag = "connect", operation_id = "get_connect_session",
    params(("id" = ConnectSessionId, Path)),
    responses((status = 200, description = "How it stands", body = ConnectSession)),
)]
pub(super) async fn connect_session(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(id): PathId<ConnectSessionId>,
) -> Result<Json<ConnectSession>, Problem> {
    Ok(Json(house.connections.connect_session(&caller, &id).await?))
}

/// Says that it was the right person; only now is the provider's code exchanged.
#[utoipa::path(
    post, path = "/v1/connect-sessions/{id}/confirm", tag = "connect", operation_id = "confirm_connect_session",
    params(("id" = ConnectSessionId, Path)),
    request_body = Confirmation,
    responses((status = 200, description = "The connection", body = Connection)),
)]
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
