//! The caller's own tenant: who am I, and the tenant's settings.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::accounts::{Settings, SettingsPatch, Tenant};
use crate::caller::Permission;
use crate::http::{Answer, House, PlatformCaller, Problem, ProblemBody, Sent, idempotent};

/// Whose key this is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Me {
    tenant: TenantView,
    key: KeyName,
    /// What the key may do.
    scopes: Vec<&'static str>,
}

#[derive(Debug, Serialize, ToSchema)]
struct TenantView {
    /// `ten_…`
    id: String,
    name: String,
    /// `production`, `test` or `uat`
    environment: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct KeyName {
    /// `key_…`
    id: String,
}

impl From<Tenant> for TenantView {
    fn from(tenant: Tenant) -> Self {
        Self { id: tenant.id.to_string(), name: tenant.name, environment: tenant.environment }
    }
}

/// The tenant, the key and its scopes.
#[utoipa::path(get, path = "/v1/me", tag = "tenant", responses(
    (status = 200, body = Me),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
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
    confirm: Option<String>,
}

/// The tenant's settings.
#[utoipa::path(get, path = "/v1/settings", tag = "tenant", responses(
    (status = 200, body = SettingsView),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn settings(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
) -> Result<Json<SettingsView>, Problem> {
    Ok(Json(house.accounts.settings(&caller).await?.into()))
}

/// Changes the tenant's settings.
#[utoipa::path(patch, path = "/v1/settings", tag = "tenant", request_body = SettingsChange, responses(
    (status = 200, body = SettingsView),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
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
