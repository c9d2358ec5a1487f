//! Tenants: platforms, each in one environment. A tenant row is found by name or id before any scope exists, so
//! look-ups take a [`SystemScope`].

use super::{StoreError, Tx, sql};
use crate::caller::{SystemScope, TenantScope};

/// A platform in one environment.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct TenantRow {
    /// `ten_…`.
    pub id: String,
    /// Unique name, as the CLI uses it.
    pub name: String,
    /// `production`, `test`, `uat` or `installation`.
    pub environment: String,
    /// `platform` or `none`: who confirms a connection made through a hosted link.
    pub confirm: String,
    /// JSON list of exact return URLs.
    pub return_urls: String,
    /// JSON list of exact browser origins.
    pub origins: String,
    /// Milliseconds UTC.
    pub created_at: i64,
}

/// Adds a tenant.
///
/// # Errors
/// [`StoreError::Conflict`] when the name or id is taken.
pub async fn tenant_insert(tx: &mut Tx, _: SystemScope, row: &TenantRow) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO tenants (id, name, environment, confirm, return_urls, origins, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &row.id,
        &row.name,
        &row.environment,
        &row.confirm,
        &row.return_urls,
        &row.origins,
        row.created_at
    )?;
    Ok(())
}

/// Finds a tenant by its name or id.
///
/// # Errors
/// As every statement.
pub async fn tenant_find(tx: &mut Tx, _: SystemScope, name_or_id: &str) -> Result<Option<TenantRow>, StoreError> {
    sql!(tx, optional TenantRow, "SELECT * FROM tenants WHERE name = $1 OR id = $1", name_or_id)
}

/// Holds a tenant's row until `tx` ends: of several transactions that ask for it, each sees what those before it
/// committed. On SQLite a transaction that may write holds everything anyway.
///
/// # Errors
/// As every statement.
pub async fn tenant_hold(tx: &mut Tx, _: SystemScope, id: &str) -> Result<(), StoreError> {
    sql!(tx, execute, "UPDATE tenants SET name = name WHERE id = $1", id)?;
    Ok(())
}

/// Every tenant but the installation, by name.
///
/// # Errors
/// As every statement.
pub async fn tenant_list(tx: &mut Tx, _: SystemScope) -> Result<Vec<TenantRow>, StoreError> {
    sql!(tx, all TenantRow, "SELECT * FROM tenants WHERE environment <> 'installation' ORDER BY name")
}

/// The tenant that a scope belongs to.
///
/// # Errors
/// As every statement.
pub async fn tenant_own(tx: &mut Tx, scope: &TenantScope) -> Result<Option<TenantRow>, StoreError> {
    sql!(tx, optional TenantRow, "SELECT *, id AS tenant_id FROM tenants WHERE id = $1", scope.tenant())
}

/// Replaces return URLs, origins and who confirms hosted connections.
///
/// # Errors
/// As every statement.
pub async fn tenant_update_settings(
    tx: &mut Tx,
    scope: &TenantScope,
    return_urls: &str,
    origins: &str,
    confirm: &str,
) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE tenants SET return_urls = $2, origins = $3, confirm = $4 WHERE id = $1 /* the row is the tenant_id */",
        scope.tenant(),
        return_urls,
        origins,
        confirm
    )?;
    Ok(())
}

/// Sets who confirms hosted connections. Only the operator may say `none`.
///
/// # Errors
/// As every statement.
pub async fn tenant_update_confirm(tx: &mut Tx, _: SystemScope, tenant: &str, confirm: &str) -> Result<(), StoreError> {
    sql!(tx, execute, "UPDATE tenants SET confirm = $2 WHERE id = $1", tenant, confirm)?;
    Ok(())
}
