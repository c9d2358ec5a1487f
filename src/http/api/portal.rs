//! Portal sessions: a link that opens a user's own pages.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::accounts::PortalLink;
use crate::caller::Permission;
use crate::http::{Answer, House, PlatformCaller, Problem, Sent, idempotent};

/// For whom, and where to go back to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPortalSession {
    /// The tenant's own id; the user is made when it is new.
    #[schema(min_length = 1, max_length = 200)]
    user: String,
    /// One of the tenant's registered return URLs.
    return_url: Option<String>,
}

/// A one-time link.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PortalSession {
    /// Give it to that user's browser only. It works once.
    #[schema(format = "uri")]
    url: String,
    /// RFC 3339
    #[schema(format = DateTime)]
    expires_at: String,
}

/// Makes a link to a user's own pages. Link and session last half an hour each.
#[utoipa::path(
    post, path = "/v1/portal-sessions", tag = "users", operation_id = "create_portal_session",
    request_body = NewPortalSession,
    responses((status = 201, description = "The link", body = PortalSession)),
)]
pub(super) async fn portal_session_create(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    body: Sent<NewPortalSession>,
) -> Result<Response, Problem> {
    let (value, written) = body.open(&caller, Permission::ConnectionsWrite)?;
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        let portal = PortalLink { user: &value.user, return_url: value.return_url.as_deref() };
        let link = rooms.accounts.portal_link(&who, portal).await?;
        let url = rooms.link(&format!("portal/{}", link.token.expose()));
        Answer::created(&PortalSession { url, expires_at: link.expires_at.rfc3339() })
    })
    .await
}
