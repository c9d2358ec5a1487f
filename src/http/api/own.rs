//! The caller's own tenant: who am I, and the tenant's settings.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::api_keys::ScopeName;
use crate::accounts::{Settings, SettingsPatch, Tenant};
use crate::caller::Permission;
use crate::http::{Answer, House, PlatformCaller, Problem, Sent, idempotent};
use crate::ids::{ApiKeyId, TenantId};
use crate::schema::words;

words! {
    /// Which world a tenant is in; keys of production begin with `vk_live_`, others with `vk_test_`.
    Environment: "production" | "test" | "uat";
    /// Who confirms hosted connections; only the operator sets `none`.
    Confirm: "platform" | "none";
}

/// Whose key this is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Me {
    tenant: TenantView,
    key: KeyName,
    /// What the key may do.
    #[schema(value_type = Vec<ScopeName>)]
    scopes: Vec<&'static str>,
}

/// A platform in one environment.
#[derive(Debug, Serialize, ToSchema)]
struct TenantView {
    /// `ten_…`
    #[schema(value_type = TenantId)]
    id: String,
    name: String,
    /// `production`, `test` or `uat`
    #[schema(value_type = Environment)]
    environment: String,
}

/// The key that was used.
#[derive(Debug, Serialize, ToSchema)]
struct KeyName {
    /// `key_…`
    #[schema(value_type = ApiKeyId)]
    id: String,
}

impl From<Tenant> for TenantView {
    fn from(tenant: Tenant) -> Self {
        Self { id: tenant.id.to_string(), name: tenant.name, environment: tenant.environment }
    }
}

/// The tenant, the key and its scopes.
#[utoipa::path(
    get, path = "/v1/me", tag = "tenant", operation_id = "whoami",
    responses((status = 200, description = "Whose key this is", body = Me)),
)]
pub(super) async fn me(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
) -> Result<Json<Me>, Problem> {
    let tenant = house.accounts.tenant_of(&caller).await?;
    let scopes = caller.permissions().iter().map(Permission::as_str).collect();
    Ok(Json(Me { tenant: tenant.into(), key: KeyName { id: caller.who().id().to_owned() }, scopes }))
}

/// A tenant's settings.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SettingsView {
    /// Exact URLs that connect links and portals may return to.
    return_urls: Vec<String>,
    /// Exact browser origins that may open relays and popups.
    origins: Vec<String>,
    /// Who confirms hosted connections: `platform` or `none`. Only the operator sets `none`.
    #[schema(value_type = Confirm)]
    confirm: String,
}

impl From<Settings> for SettingsView {
    fn from(settings: Settings) -> Self {
        Self { return_urls: settings.return_urls, origins: settings.origins, confirm: settings.confirm }
    }
}

/// What a tenant may change; absent fields stay.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SettingsChange {
    /// Replaces all return URLs.
    return_urls: Option<Vec<String>>,
    /// Replaces all origins.
    origins: Option<Vec<String>>,
    /// `platform`; `none` only where the operator has set it.
    #[schema(value_type = Option<Confirm>)]
    confirm: Option<String>,
}

/// The tenant's settings.
#[utoipa::path(
    get, path = "/v1/settings", tag = "tenant", operation_id = "get_settings",
    responses((status = 200, description = "The settings", body = SettingsView)),
)]
pub(super) async fn settings(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
) -> Result<Json<SettingsView>, Problem> {
    Ok(Json(house.accounts.settings(&caller).await?.into()))
}

/// Changes the tenant's settings.
#[utoipa::path(
    patch, path = "/v1/settings", tag = "tenant", operation_id = "change_settings",
    request_body = Option<SettingsChange>,
    responses((status = 200, description = "The settings as they are now", body = SettingsView)),
)]
pub(super) async fn settings_change(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    body: Sent<SettingsChange>,
) -> Result<Response, Problem> {
    let (value, written) = body.open_or_default(&caller, Permission::SettingsWrite)?;
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        let patch = SettingsPatch { return_urls: value.return_urls, origins: value.origins, confirm: value.confirm };
        Answer::ok(&SettingsView::from(rooms.accounts.settings_change(&who, patch).await?))
    })
    .await
}
