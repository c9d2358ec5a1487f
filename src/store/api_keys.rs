//! Platform API keys. Only hashes are kept; a key is found by its hash before its tenant is known.

use super::{StoreError, Tx, sql};
use crate::caller::{SystemScope, TenantScope};

/// A platform's API key.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct ApiKeyRow {
    /// `ten_…`.
    pub tenant_id: String,
    /// `key_…`.
    pub id: String,
    /// Chosen by people.
    pub name: String,
    /// The last four characters, so that people can tell keys apart.
    pub hint: String,
    /// SHA-256 of the whole key.
    pub secret_hash: String,
    /// JSON list of scopes.
    pub scopes: String,
    /// JSON list of networks; empty means any.
    pub allowed_ips: String,
    /// Milliseconds UTC.
    pub created_at: i64,
    /// Milliseconds UTC.
    pub expires_at: Option<i64>,
    /// Milliseconds UTC, at most a minute old.
    pub last_used_at: Option<i64>,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
}

/// Adds a key.
///
/// # Errors
/// As every statement.
pub async fn api_key_insert(tx: &mut Tx, scope: &TenantScope, row: &ApiKeyRow) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO api_keys (tenant_id, id, name, hint, secret_hash, scopes, allowed_ips, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        scope.tenant(),
        &row.id,
        &row.name,
        &row.hint,
        &row.secret_hash,
        &row.scopes,
        &row.allowed_ips,
        row.created_at,
        row.expires_at
    )?;
    Ok(())
}

/// Finds a usable key by the hash of its text.
///
/// # Errors
/// As every statement.
pub async fn api_key_by_hash(
    tx: &mut Tx,
    _: SystemScope,
    secret_hash: &str,
    now: i64,
) -> Result<Option<ApiKeyRow>, StoreError> {
    sql!(
        tx,
        optional ApiKeyRow,
        "SELECT * FROM api_keys WHERE secret_hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)",
        secret_hash,
        now
    )
}

/// Finds a key by its id, revoked or not.
///
/// # Errors
/// As every statement.
pub async fn api_key_by_id(tx: &mut Tx, scope: &TenantScope, id: &str) -> Result<Option<ApiKeyRow>, StoreError> {
    sql!(tx, optional ApiKeyRow, "SELECT * FROM api_keys WHERE tenant_id = $1 AND id = $2", scope.tenant(), id)
}

/// Notes that a key was used, at most once a minute.
///
/// # Errors
/// As every statement.
pub async fn api_key_touch(tx: &mut Tx, scope: &TenantScope, id: &str, now: i64) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE api_keys SET last_used_at = $3 WHERE tenant_id = $1 AND id = $2 AND (last_used_at IS NULL OR last_used_at < $3 - 60000)",
        scope.tenant(),
        id,
        now
    )?;
    Ok(())
}

/// A tenant's keys, newest last.
///
/// # Errors
/// As every statement.
pub async fn api_key_list(
    tx: &mut Tx,
    scope: &TenantScope,
    after: &str,
    limit: i64,
) -> Result<Vec<ApiKeyRow>, StoreError> {
    sql!(
        tx,
        all ApiKeyRow,
        "SELECT * FROM api_keys WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3",
        scope.tenant(),
        after,
        limit
    )
}

/// Revokes a key; false when there is none to revoke.
///
/// # Errors
/// As every statement.
pub async fn api_key_revoke(tx: &mut Tx, scope: &TenantScope, id: &str, now: i64) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE api_keys SET revoked_at = $3 WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL",
        scope.tenant(),
        id,
        now
    )? == 1)
}
