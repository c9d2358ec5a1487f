//! Platform keys. A key's secret is in the answer that makes it, and nowhere else.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

use crate::accounts::{ApiKey, NewApiKey};
use crate::audit::Exposed;
use crate::caller::Permission;
use crate::clock::Millis;
use crate::http::{
    Answer, Asked, House, List, NoBody, PageQuery, Paging, PathId, PlatformCaller, Problem, Sent, idempotent,
};
use crate::ids::ApiKeyId;
use crate::invalid::Invalid;
use crate::schema::{one_of, words};

words! {
    /// What becomes of a key's conversations.
    Leave: "end" | "keep";
}

const LIST: &str = "api-keys";

/// What a key may do.
#[derive(Debug)]
pub(super) enum ScopeName {}

impl utoipa::PartialSchema for ScopeName {
    fn schema() -> RefOr<Schema> {
        one_of("What a key may do.", Permission::ALL.iter().map(|one| one.as_str()))
    }
}

impl ToSchema for ScopeName {}

/// What a new key may do.
#[derive(Debug)]
pub(super) enum ScopeWish {}

impl utoipa::PartialSchema for ScopeWish {
    fn schema() -> RefOr<Schema> {
        let names = Permission::ALL.iter().map(|one| one.as_str());
        one_of("A scope, or `all`, which stands alone.", std::iter::once("all").chain(names))
    }
}

impl ToSchema for ScopeWish {}

/// A platform key without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ApiKeyView {
    /// `key_…`
    #[schema(value_type = ApiKeyId)]
    id: String,
    name: String,
    /// The last four characters of the secret.
    hint: String,
    #[schema(value_type = Vec<ScopeName>)]
    scopes: Vec<String>,
    /// Networks the key may be used from; empty means any.
    allowed_ips: Vec<String>,
    /// RFC 3339
    #[schema(format = DateTime)]
    created_at: String,
    /// RFC 3339
    #[schema(required, format = DateTime)]
    expires_at: Option<String>,
    /// RFC 3339, to the minute
    #[schema(required, format = DateTime)]
    last_used_at: Option<String>,
    /// RFC 3339
    #[schema(required, format = DateTime)]
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
    #[schema(value_type = String, read_only)]
    secret: Exposed,
}

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewApiKeyBody {
    /// 1 to 100 characters
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// Scope names, or just `all`
    #[schema(value_type = Vec<ScopeWish>)]
    scopes: Vec<String>,
    /// IPv4 and IPv6 addresses and networks, 1 to 100; within the maker's, which stand in when this is absent
    #[schema(min_items = 1, max_items = 100)]
    allowed_ips: Option<Vec<String>>,
    /// RFC 3339, in the future and not after the maker's end, which stands in for none
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

/// Makes a key. It can do at most what its maker can.
#[utoipa::path(
    post, path = "/v1/api-keys", tag = "keys", operation_id = "create_api_key",
    request_body = NewApiKeyBody,
    responses((status = 201, description = "The key with its secret", body = CreatedApiKey)),
)]
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
#[utoipa::path(
    get, path = "/v1/api-keys", tag = "keys", operation_id = "list_api_keys",
    params(PageQuery),
    responses((status = 200, description = "A page of keys", body = List<ApiKeyView>)),
)]
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
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Leaving {
    /// What becomes of the conversations that it started; `keep` unless said otherwise.
    #[param(value_type = Option<Leave>)]
    conversations: Option<String>,
}

/// Revokes a key at once. Conversations that it started go on, unless they are to end with it.
#[utoipa::path(
    delete, path = "/v1/api-keys/{id}", tag = "keys", operation_id = "revoke_api_key",
    params(("id" = ApiKeyId, Path), Leaving),
    responses((status = 204, description = "It is revoked")),
)]
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
