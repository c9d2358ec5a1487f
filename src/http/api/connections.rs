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
use crate::connections::{BotSource, Connection, ConnectionChange, Import, ListFilter, TelegramDraft};
use crate::credentials::{ReadWish, Which};
use crate::http::{
    Answer, Asked, House, JsonBody, List, NoBody, OptionalJson, Paging, PathId, PlatformCaller, Problem, ProblemBody,
    idempotent,
};
use crate::ids::ConnectionId;
use crate::invalid::Invalid;
use crate::secret::Secret;

const LIST: &str = "connections";
/// Life that a token should have when nothing is said.
const USUAL_LIFE: u64 = 60;

/// What the list is narrowed to.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Filter {
    user: Option<String>,
    provider: Option<String>,
    status: Option<String>,
}

/// Connections in the order of their making.
#[utoipa::path(get, path = "/v1/connections", tag = "connections", params(
    ("user" = Option<String>, Query, description = "The tenant's own id of a user"),
    ("provider" = Option<String>, Query, description = "A provider's id"),
    ("status" = Option<String>, Query, description = "awaiting_start, active, needs_reauth, misconfigured, quarantined or revoked"),
    ("limit" = Option<u8>, Query, description = "1 to 100, 50 by default"),
    ("cursor" = Option<String>, Query, description = "A next_cursor of this list"),
), responses(
    (status = 200, description = "A page of connections", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
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
#[utoipa::path(get, path = "/v1/connections/{id}", tag = "connections", params(("id" = String, Path, description = "con_…")), responses(
    (status = 200, description = "The connection", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn connection(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(id): PathId<ConnectionId>,
) -> Result<Json<Connection>, Problem> {
    Ok(Json(house.connections.connection(&caller, &id).await?))
}

/// A secret that is handed over directly.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DirectConnection {
    /// The tenant's own id of the user; absent means it belongs to the tenant.
    user: Option<String>,
    /// A provider's id.
    provider: String,
    /// Telegram: the token of the user's own bot. Absent: the platform's bot.
    #[schema(value_type = Option<String>)]
    bot_token: Option<Secret>,
}

/// Makes a connection from a secret. Telegram answers with a `start_link` for the user.
#[utoipa::path(post, path = "/v1/connections", tag = "connections", request_body = DirectConnection, responses(
    (status = 201, description = "The connection", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn connection_create(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    JsonBody { value, written }: JsonBody<DirectConnection>,
) -> Result<Response, Problem> {
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        // Before anything is said about the body.
        who.require(Permission::ConnectionsWrite)?;
        if value.provider != "telegram" {
            return Err(Invalid::one(
                "provider",
                "only telegram takes a secret directly; others are connected by their users or imported",
            )
            .into());
        }
        let bot = value.bot_token.map_or(BotSource::Platform, BotSource::Own);
        Answer::created(&rooms.connections.telegram_begin(&who, TelegramDraft { user: value.user, bot }).await?)
    })
    .await
}

/// Changes label and default mark.
#[utoipa::path(patch, path = "/v1/connections/{id}", tag = "connections", params(("id" = String, Path, description = "con_…")),
    request_body(content = Object, description = "{label?, default?}"), responses(
    (status = 200, description = "The connection", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn connection_change(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(id): PathId<ConnectionId>,
    OptionalJson { value, written }: OptionalJson<ConnectionChange>,
) -> Result<Response, Problem> {
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
    /// Whether the provider confirmed that the access has ended there too.
    revoked: bool,
}

/// Ends a connection here at once, then at the provider.
#[utoipa::path(delete, path = "/v1/connections/{id}", tag = "connections", params(("id" = String, Path, description = "con_…")), responses(
    (status = 200, body = Disconnection),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
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
    /// Seconds of life it should have left; at most half of its original life is insisted on.
    min_ttl: Option<u64>,
    /// `user`, `bot`, …; user, else bot, when nothing is said.
    credential: Option<String>,
}

/// A token.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TokenView {
    #[schema(value_type = String)]
    access_token: Exposed,
    token_type: String,
    expires_at: Option<String>,
    expires_in: Option<u64>,
    scopes: Vec<String>,
    generation: i64,
    degraded: bool,
}

/// Hands out an access token, refreshing it first when too little life is left.
#[utoipa::path(post, path = "/v1/connections/{id}/token", tag = "connections", params(("id" = String, Path, description = "con_…")),
    request_body(content = TokenRequest, description = "May be absent"), responses(
    (status = 200, body = TokenView),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn token(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(id): PathId<ConnectionId>,
    OptionalJson { value, .. }: OptionalJson<TokenRequest>,
) -> Result<Json<TokenView>, Problem> {
    let life = value.min_ttl.unwrap_or(USUAL_LIFE);
    if life > 86_400 {
        return Err(Invalid::one("min_ttl", "must be at most 86400 seconds").into());
    }
    let want = ReadWish {
        which: Which::of_kind(value.credential.as_deref()),
        ..ReadWish::token(id.as_str(), Duration::from_secs(life))
    };
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
#[utoipa::path(post, path = "/v1/connections/{id}/refresh", tag = "connections", params(("id" = String, Path, description = "con_…")), responses(
    (status = 200, description = "The connection", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn refresh(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(id): PathId<ConnectionId>,
    NoBody(written): NoBody,
) -> Result<Response, Problem> {
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(
        &house,
        &caller,
        written,
        async move { Answer::ok(&rooms.connections.connection_refresh(&who, &id).await?) },
    )
    .await
}

/// What was moved in.
#[derive(Debug, Serialize)]
struct Imported {
    data: Vec<Connection>,
}

/// Moves connections in, all or none.
#[utoipa::path(post, path = "/v1/connections/import", tag = "connections",
    request_body(content = Object, description = "{connections:[{user,provider,account{id},credentials[{kind,access_token,refresh_token?,expires_at?,scopes[]}]}],check?}"), responses(
    (status = 201, description = "{data:[connection…]} in the order of the request", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn import(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    JsonBody { value, written }: JsonBody<Import>,
) -> Result<Response, Problem> {
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        Answer::created(&Imported { data: rooms.connections.import(&who, value).await? })
    })
    .await
}
