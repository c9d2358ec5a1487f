//! Connections: looking, naming, tokens, import, end.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;

use crate::audit::Exposed;
use crate::caller::Permission;
use crate::clock::Millis;
use crate::connections::{
    BotSource, Connection, ConnectionChange, ConnectionStatus, CredentialKindName, DirectDraft, Import, ListFilter,
    TelegramDraft,
};
use crate::credentials::{ReadWish, Which};
use crate::http::{
    Answer, Asked, House, List, NoBody, PageQuery, Paging, PathId, PlatformCaller, Problem, Sent, idempotent,
};
use crate::ids::ConnectionId;
use crate::invalid::Invalid;

const LIST: &str = "connections";
/// Its bots are connected in a way of their own.
const TELEGRAM: &str = "telegram";
/// Life that a token should have when nothing is said.
const USUAL_LIFE: u64 = 60;

/// What the list is narrowed to.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// The tenant's own id of a user.
    user: Option<String>,
    /// A provider's id.
    provider: Option<String>,
    /// One status.
    #[param(value_type = Option<ConnectionStatus>)]
    status: Option<String>,
}

/// Connections in the order of their making.
#[utoipa::path(
    get, path = "/v1/connections", tag = "connections", operation_id = "list_connections",
    params(Filter, PageQuery),
    responses((status = 200, description = "A page of connections", body = List<Connection>)),
)]
pub(super) async fn connections(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    paging: Paging,
    Asked(filter): Asked<Filter>,
) -> Result<Json<List<Connection>>, Problem> {
    let after = paging.after(&house, &caller, LIST)?;
    let filter =
        ListFilter { user: filter.user, provider: filter.provider, status: filter.status, after, limit: paging.ask() };
    let list = house.connections.connection_list(&caller, &filter).await?;
    Ok(Json(paging.page((&house, &caller, LIST), list, |one| one.id.to_string(), |one| one)))
}

/// One connection.
#[utoipa::path(
    get, path = "/v1/connections/{id}", tag = "connections", operation_id = "get_connection",
    params(("id" = ConnectionId, Path)),
    responses((status = 200, description = "The connection", body = Connection)),
)]
pub(super) async fn connection(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(id): PathId<ConnectionId>,
) -> Result<Json<Connection>, Problem> {
    Ok(Json(house.connections.connection(&caller, &id).await?))
}

/// Makes a connection from a secret. Telegram answers with a `start_link` for the user.
#[utoipa::path(
    post, path = "/v1/connections", tag = "connections", operation_id = "create_connection",
    request_body = DirectDraft,
    responses((status = 201, description = "The connection", body = Connection)),
)]
pub(super) async fn connection_create(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    body: Sent<DirectDraft>,
) -> Result<Response, Problem> {
    let (value, written) = body.open(&caller, Permission::ConnectionsWrite)?;
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        if value.provider != TELEGRAM {
            return Answer::created(&rooms.connections.direct_create(&who, value).await?);
        }
        let bot = value.bot_token.map_or(BotSource::Platform, BotSource::Own);
        Answer::created(&rooms.connections.telegram_begin(&who, TelegramDraft { user: value.user, bot }).await?)
    })
    .await
}

/// Changes label and default mark.
#[utoipa::path(
    patch, path = "/v1/connections/{id}", tag = "connections", operation_id = "change_connection",
    params(("id" = ConnectionId, Path)),
    request_body = Option<ConnectionChange>,
    responses((status = 200, description = "The connection as it is now", body = Connection)),
)]
pub(super) async fn connection_change(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(id): PathId<ConnectionId>,
    body: Sent<ConnectionChange>,
) -> Result<Response, Problem> {
    let (value, written) = body.open_or_default(&caller, Permission::ConnectionsWrite)?;
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        Answer::ok(&rooms.connections.connection_change(&who, &id, value).await?)
    })
    .await
}

/// How a disconnection went.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Disconnection {
    /// Ours is gone.
    deleted: bool,
    /// Whether the provider confirmed that the access has ended there too. Where it can and has not, it is asked again for a day.
    revoked: bool,
}

/// Ends a connection here at once, then at the provider.
#[utoipa::path(
    delete, path = "/v1/connections/{id}", tag = "connections", operation_id = "delete_connection",
    params(("id" = ConnectionId, Path)),
    responses((status = 200, description = "How it went", body = Disconnection)),
)]
pub(super) async fn connection_delete(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(id): PathId<ConnectionId>,
    NoBody(written): NoBody,
) -> Result<Response, Problem> {
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        let done = rooms.connections.disconnect(&who, &id).await?;
        Answer::ok(&Disconnection { deleted: true, revoked: done.revoked })
    })
    .await
}

/// What is wanted of a token.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TokenRequest {
    /// Seconds of life it should have left; at most half of its original life is insisted on. A token that lives, but has less,
    /// is given as `degraded` when its refresh takes longer than a second.
    #[schema(maximum = 86_400)]
    min_ttl: Option<u64>,
    /// `user`, `bot`, …; user, else bot, when nothing is said.
    #[schema(value_type = Option<CredentialKindName>)]
    credential: Option<String>,
}

/// A token.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TokenView {
    /// Do not keep it: ask again when it is needed again.
    #[schema(value_type = String, read_only)]
    access_token: Exposed,
    /// `Bearer`, unless the provider says otherwise.
    token_type: String,
    /// RFC 3339; null when it never ends.
    #[schema(required, format = DateTime)]
    expires_at: Option<String>,
    /// Seconds; null when it never ends.
    #[schema(required)]
    expires_in: Option<u64>,
    /// What it may do at the provider.
    scopes: Vec<String>,
    /// Grows with every refresh.
    generation: i64,
    /// The token could not be refreshed as wished; it works until it ends.
    degraded: bool,
}

/// Hands out an access token, refreshing it first when too little life is left.
#[utoipa::path(
    post, path = "/v1/connections/{id}/token", tag = "connections", operation_id = "read_token",
    params(("id" = ConnectionId, Path)),
    request_body = Option<TokenRequest>,
    responses((status = 200, description = "The token", body = TokenView)),
)]
pub(super) async fn token(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(id): PathId<ConnectionId>,
    body: Sent<TokenRequest>,
) -> Result<Json<TokenView>, Problem> {
    let (value, _) = body.open_or_default(&caller, Permission::TokensRead)?;
    let life = value.min_ttl.unwrap_or(USUAL_LIFE);
    if life > 86_400 {
        return Err(Invalid::one("min_ttl", "must be at most 86400 seconds").into());
    }
    let which = Which::named("credential", value.credential.as_deref())?;
    let want = ReadWish { which, ..ReadWish::token(id.as_str(), Duration::from_secs(life)) };
    let token = house.credentials.read(&caller, want).await?;
    Ok(Json(TokenView {
        token_type: token.token_type.clone(),
        expires_at: token.expires_at.map(Millis::rfc3339),
        expires_in: token.expires_in.map(|left| left.as_secs()),
        scopes: token.scopes.clone(),
        generation: token.generation,
        degraded: token.degraded,
        access_token: token.hand_out(),
    }))
}

/// Refreshes a connection's credentials now.
#[utoipa::path(
    post, path = "/v1/connections/{id}/refresh", tag = "connections", operation_id = "refresh_connection",
    params(("id" = ConnectionId, Path)),
    responses((status = 200, description = "The connection, without a token", body = Connection)),
)]
pub(super) async fn refresh(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(id): PathId<ConnectionId>,
    NoBody(written): NoBody,
) -> Result<Response, Problem> {
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        let refreshed = rooms.connections.connection_refresh(&who, &id).await;
        // A repeated request is safe: the protocol decides whether the token may be sent again, not the key.
        Answer::ok(&refreshed.map_err(|error| Problem::from(error).without_effect())?)
    })
    .await
}

/// What was moved in.
#[derive(Debug, Serialize, ToSchema)]
struct Imported {
    /// In the order of the request.
    data: Vec<Connection>,
}

/// Moves connections in, all or none.
#[utoipa::path(
    post, path = "/v1/connections/import", tag = "connections", operation_id = "import_connections",
    request_body = Import,
    responses((status = 201, description = "The connections in the order of the request", body = Imported)),
)]
pub(super) async fn import(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    body: Sent<Import>,
) -> Result<Response, Problem> {
    let (value, written) = body.open(&caller, Permission::ConnectionsWrite)?;
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        Answer::created(&Imported { data: rooms.connections.import(&who, value).await? })
    })
    .await
}
