//! Platform keys. A key's secret is in the answer that makes it, and nowhere else.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::accounts::{ApiKey, NewApiKey};
use crate::audit::Exposed;
use crate::caller::Permission;
use crate::clock::Millis;
use crate::http::{
    Answer, Asked, House, List, NoBody, Paging, PathId, PlatformCaller, Problem, ProblemBody, Sent, idempotent,
};
use crate::ids::ApiKeyId;
use crate::invalid::Invalid;

const LIST: &str = "api-keys";

/// A platform key without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ApiKeyView {
    /// `key_…`
    id: String,
    name: String,
    /// The last four characters of the secret.
    hint: String,
    scopes: Vec<String>,
    /// Networks the key may be used from; empty means any.
    allowed_ips: Vec<String>,
    /// RFC 3339
    created_at: String,
    /// RFC 3339
    expires_at: Option<String>,
    /// RFC 3339, to the minute
    last_used_at: Option<String>,
    /// RFC 3339
    revoked_at: Option<String>,
}

impl From<ApiKey> for ApiKeyView {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id.to_string(),
            name: key.name,
            hint: key.hint,
            scopes: key.scopes,
            allowed_ips: key.allowed_ips,
            created_at: key.created_at.rfc3339(),
            expires_at: key.expires_at.map(Millis::rfc3339),
            last_used_at: key.last_used_at.map(Millis::rfc3339),
            revoked_at: key.revoked_at.map(Millis::rfc3339),
        }
    }
}

/// A key with its secret, once.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CreatedApiKey {
    #[serde(flatten)]
    key: ApiKeyView,
    /// `vk_live_…` or `vk_test_…`. Keep it now: it is not shown again.
    #[schema(value_type = String)]
    secret: Exposed,
}

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewApiKeyBody {
    /// 1 to 100 characters
    name: String,
    /// Scope names, or just `all`
    scopes: Vec<String>,
    /// IPv4 and IPv6 addresses and networks, at most 100; within the maker's, which stand in for none
    #[serde(default)]
    allowed_ips: Vec<String>,
    /// RFC 3339, in the future and not after the maker's end, which stands in for none
    expires_at: Option<String>,
}

/// Makes a key. It can do at most what its maker can.
#[utoipa::path(post, path = "/v1/api-keys", tag = "keys", request_body = NewApiKeyBody, responses(
    (status = 201, body = CreatedApiKey),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn api_key_create(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    body: Sent<NewApiKeyBody>,
) -> Result<Response, Problem> {
    let (value, written) = body.open(&caller, Permission::KeysWrite)?;
    let expires_at = value.expires_at.as_deref().map(time).transpose()?;
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        let new = NewApiKey { name: value.name, scopes: value.scopes, allowed_ips: value.allowed_ips, expires_at };
        let (key, secret) = rooms.accounts.api_key_create(&who, new).await?;
        Answer::created(&CreatedApiKey { key: key.into(), secret })
    })
    .await
}

/// All keys, revoked ones too.
#[utoipa::path(get, path = "/v1/api-keys", tag = "keys", params(
    ("limit" = Option<u8>, Query, description = "1 to 100, 50 by default"),
    ("cursor" = Option<String>, Query, description = "A next_cursor of this list"),
), responses(
    (status = 200, body = List<ApiKeyView>),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn api_keys(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    paging: Paging,
) -> Result<Json<List<ApiKeyView>>, Problem> {
    let after = paging.after(&house, &caller, LIST)?;
    let keys = house.accounts.api_key_list(&caller, &after, paging.ask()).await?;
    Ok(Json(paging.page((&house, &caller, LIST), keys, |key| key.id.to_string(), ApiKeyView::from)))
}

/// What becomes of the conversations that a revoked key has started.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Leaving {
    conversations: Option<String>,
}

/// Revokes a key at once. Conversations that it started go on, unless they are to end with it.
#[utoipa::path(delete, path = "/v1/api-keys/{id}", tag = "keys", params(
    ("id" = String, Path, description = "`key_…`"),
    ("conversations" = Option<String>, Query, description = "end or keep (default): what becomes of the conversations that it started"),
), responses(
    (status = 204),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn api_key_revoke(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(id): PathId<ApiKeyId>,
    asked: Result<Asked<Leaving>, Problem>,
    NoBody(written): NoBody,
) -> Result<Response, Problem> {
    caller.require(Permission::KeysWrite)?;
    let Asked(leaving) = asked?;
    let end_conversations = match leaving.conversations.as_deref() {
        None | Some("keep") => false,
        Some("end") => true,
        Some(_) => return Err(Invalid::one("conversations", "must be end or keep").into()),
    };
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        rooms.accounts.api_key_revoke(&who, &id, end_conversations).await?;
        Ok(Answer::nothing())
    })
    .await
}

fn time(text: &str) -> Result<Millis, Invalid> {
    Millis::parse_rfc3339(text).map_err(|_| Invalid::one("expires_at", "must be an RFC 3339 time"))
}
