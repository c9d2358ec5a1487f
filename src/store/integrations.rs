//! Integrations: a tenant's OAuth client at a provider. Endpoints come from the catalogue; client id, secret and
//! revision are one unit (OA-04).

use super::{StoreError, Tx, sql};
use crate::caller::{SystemScope, TenantScope};

/// A tenant's OAuth client at a provider.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct IntegrationRow {
    /// `ten_…`.
    pub tenant_id: String,
    /// `int_…`; survives a changed client.
    pub id: String,
    /// Catalogue id.
    pub provider: String,
    /// The provider's client id.
    pub client_id: String,
    /// Sealed client secret.
    pub client_secret: Option<Vec<u8>>,
    /// Sealed bot token (Telegram).
    pub bot_token: Option<Vec<u8>>,
    /// JSON list: scopes asked for (Slack: of the bot).
    pub scopes: String,
    /// JSON list: scopes asked of the person (Slack).
    pub user_scopes: String,
    /// `active` or `misconfigured`.
    pub status: String,
    /// The provider's error code when misconfigured.
    pub reason: Option<String>,
    /// When a misconfigured client may be tried again.
    pub probe_at: Option<i64>,
    /// Until when the provider wants fewer calls of this client.
    pub rate_limited_until: Option<i64>,
    /// Grows with every changed client id; a handshake of an older revision is void.
    pub revision: i64,
    /// Milliseconds UTC.
    pub created_at: i64,
    /// Milliseconds UTC.
    pub updated_at: i64,
}

const NOW_WELL: &str = "active";

/// Adds an integration.
///
/// # Errors
/// [`StoreError::Conflict`] when the tenant has one for this provider.
pub async fn integration_insert(tx: &mut Tx, scope: &TenantScope, row: &IntegrationRow) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO integrations (tenant_id, id, provider, client_id, client_secret, bot_token, scopes, user_scopes, status, revision, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)",
        scope.tenant(),
        &row.id,
        &row.provider,
        &row.client_id,
        &row.client_secret,
        &row.bot_token,
        &row.scopes,
        &row.user_scopes,
        NOW_WELL,
        row.revision,
        row.created_at
    )?;
    Ok(())
}

/// Changes an integration and marks it well: a new secret is used at once (API.md section 6, point 3).
///
/// # Errors
/// As every statement.
pub async fn integration_update(tx: &mut Tx, scope: &TenantScope, row: &IntegrationRow) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE integrations SET client_id = $3, client_secret = $4, bot_token = $5, scopes = $6, user_scopes = $7, revision = $8, updated_at = $9,
         status = $10, reason = NULL, probe_at = NULL, rate_limited_until = NULL WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
        scope.tenant(),
        &row.id,
        &row.client_id,
        &row.client_secret,
        &row.bot_token,
        &row.scopes,
        &row.user_scopes,
        row.revision,
        row.updated_at,
        NOW_WELL
    )?;
    Ok(())
}

/// A tenant's integration for a provider.
///
/// # Errors
/// As every statement.
pub async fn integration_by_provider(
    tx: &mut Tx,
    scope: &TenantScope,
    provider: &str,
) -> Result<Option<IntegrationRow>, StoreError> {
    sql!(
        tx,
        optional IntegrationRow,
        "SELECT * FROM integrations WHERE tenant_id = $1 AND provider = $2 AND deleted_at IS NULL",
        scope.tenant(),
        provider
    )
}

/// One integration by id.
///
/// # Errors
/// As every statement.
pub async fn integration_by_id(
    tx: &mut Tx,
    scope: &TenantScope,
    id: &str,
) -> Result<Option<IntegrationRow>, StoreError> {
    sql!(
        tx,
        optional IntegrationRow,
        "SELECT * FROM integrations WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
        scope.tenant(),
        id
    )
}

/// A tenant's integrations, by provider.
///
/// # Errors
/// As every statement.
pub async fn integration_list(tx: &mut Tx, scope: &TenantScope) -> Result<Vec<IntegrationRow>, StoreError> {
    sql!(
        tx,
        all IntegrationRow,
        "SELECT * FROM integrations WHERE tenant_id = $1 AND deleted_at IS NULL ORDER BY provider",
        scope.tenant()
    )
}

/// The client is wrong: pauses the integration until `probe_at`. Connections stay as they are.
///
/// # Errors
/// As every statement.
pub async fn integration_pause(
    tx: &mut Tx,
    _: SystemScope,
    tenant: &str,
    id: &str,
    reason: &str,
    probe_at: i64,
) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE integrations SET status = 'misconfigured', reason = $3, probe_at = $4 WHERE tenant_id = $1 AND id = $2",
        tenant,
        id,
        reason,
        probe_at
    )?;
    Ok(())
}

/// The client works (again); false when nothing was known against it.
///
/// # Errors
/// As every statement.
pub async fn integration_resume(tx: &mut Tx, _: SystemScope, tenant: &str, id: &str) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE integrations SET status = 'active', reason = NULL, probe_at = NULL WHERE tenant_id = $1 AND id = $2 AND status <> 'active'",
        tenant,
        id
    )? == 1)
}

/// The provider asked this client for a pause; a longer one is never shortened (RL-09).
///
/// # Errors
/// As every statement.
pub async fn integration_limit_rate(
    tx: &mut Tx,
    _: SystemScope,
    tenant: &str,
    id: &str,
    until: i64,
) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE integrations SET rate_limited_until = $3 WHERE tenant_id = $1 AND id = $2 AND (rate_limited_until IS NULL OR rate_limited_until < $3)",
        tenant,
        id,
        until
    )?;
    Ok(())
}

/// Takes the one probe a minute that a misconfigured client may have; false when somebody took it. A client that has
/// come to work again meanwhile holds nobody up.
///
/// # Errors
/// As every statement.
pub async fn integration_take_probe(
    tx: &mut Tx,
    _: SystemScope,
    tenant: &str,
    id: &str,
    now: i64,
    next: i64,
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE integrations SET probe_at = $4 WHERE tenant_id = $1 AND id = $2 AND (status = 'active' OR probe_at IS NULL OR probe_at <= $3)",
        tenant,
        id,
        now,
        next
    )? == 1)
}

/// Deletes an integration. Its connections are deleted by the room first.
///
/// # Errors
/// As every statement.
pub async fn integration_delete(tx: &mut Tx, scope: &TenantScope, id: &str, now: i64) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE integrations SET deleted_at = $3, client_secret = NULL, bot_token = NULL WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
        scope.tenant(),
        id,
        now
    )? == 1)
}
