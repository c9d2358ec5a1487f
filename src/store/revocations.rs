//! Revocations: tokens of deleted connections that are still to be ended at their provider (OA-17).

use super::{StoreError, Tx, sql};
use crate::caller::{SystemScope, TenantScope};

/// What is still to be ended.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct RevocationRow {
    /// `ten_…`.
    pub tenant_id: String,
    /// `crd_…`, of a deleted credential.
    pub credential_id: String,
    /// Sealed by the credential's owner.
    pub access_token: Option<Vec<u8>>,
    /// Sealed by the credential's owner.
    pub refresh_token: Option<Vec<u8>>,
    /// How often it was taken up again.
    pub attempts: i64,
    /// When it is taken up next.
    pub next_attempt_at: i64,
    /// When it is given up.
    pub expires_at: i64,
}

/// Adds one.
///
/// # Errors
/// As every statement.
pub async fn revocation_insert(tx: &mut Tx, scope: &TenantScope, row: &RevocationRow) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO revocations (tenant_id, credential_id, access_token, refresh_token, attempts, next_attempt_at, expires_at) VALUES ($1, $2, $3, $4, 0, $5, $6)",
        scope.tenant(),
        &row.credential_id,
        &row.access_token,
        &row.refresh_token,
        row.next_attempt_at,
        row.expires_at
    )?;
    Ok(())
}

/// Takes up to `limit` revocations whose time has come. Each comes again after a minute, then after two, and so on, an hour at most.
///
/// # Errors
/// As every statement.
pub async fn revocations_claim(
    tx: &mut Tx,
    _: SystemScope,
    now: i64,
    limit: i64,
) -> Result<Vec<RevocationRow>, StoreError> {
    sql!(
        tx,
        all RevocationRow,
        "UPDATE revocations SET attempts = attempts + 1,
         next_attempt_at = $1 + CASE WHEN attempts < 6 THEN 60000 << CAST(attempts AS INTEGER) ELSE 3600000 END
         WHERE (tenant_id, credential_id) IN (SELECT tenant_id, credential_id FROM revocations WHERE next_attempt_at <= $1 ORDER BY next_attempt_at LIMIT $2)
         AND next_attempt_at <= $1 RETURNING *",
        now,
        limit
    )
}

/// It is done, or given up.
///
/// # Errors
/// As every statement.
pub async fn revocation_delete(tx: &mut Tx, _: SystemScope, tenant: &str, credential: &str) -> Result<(), StoreError> {
    sql!(tx, execute, "DELETE FROM revocations WHERE tenant_id = $1 AND credential_id = $2", tenant, credential)?;
    Ok(())
}
