//! What was answered to a write with an `Idempotency-Key` (AP-11): sealed, kept for 24 hours or more.

use super::{StoreError, Tx, sql};
use crate::caller::{SystemScope, TenantScope};

/// A remembered request.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct IdempotencyRow {
    /// Hash of method, path and body.
    pub request_hash: String,
    /// HTTP status of the answer; none while the first request is still running.
    pub status: Option<i64>,
    /// Sealed answer body.
    pub answer: Option<Vec<u8>>,
    /// When the first request began, milliseconds UTC.
    pub created_at: i64,
}

/// Which request is meant: the caller, the route and the hash of the key.
#[derive(Clone, Copy, Debug)]
pub struct RequestName<'a> {
    /// Who asks, as `kind:id`.
    pub actor: &'a str,
    /// Method and route.
    pub route: &'a str,
    /// SHA-256 of the `Idempotency-Key`.
    pub key_hash: &'a str,
}

/// Takes the key for this request; `false` when somebody has it already.
///
/// # Errors
/// As every statement.
pub async fn idempotency_begin(
    tx: &mut Tx,
    scope: &TenantScope,
    name: RequestName<'_>,
    request_hash: &str,
    now: i64,
    expires_at: i64,
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "INSERT INTO idempotency_keys (tenant_id, actor, route, key_hash, request_hash, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (tenant_id, actor, route, key_hash) DO NOTHING",
        scope.tenant(),
        name.actor,
        name.route,
        name.key_hash,
        request_hash,
        now,
        expires_at
    )? == 1)
}

/// Reads what is remembered.
///
/// # Errors
/// As every statement.
pub async fn idempotency_get(
    tx: &mut Tx,
    scope: &TenantScope,
    name: RequestName<'_>,
) -> Result<Option<IdempotencyRow>, StoreError> {
    sql!(
        tx,
        optional IdempotencyRow,
        "SELECT request_hash, status, answer, created_at FROM idempotency_keys WHERE tenant_id = $1 AND actor = $2 AND route = $3 AND key_hash = $4",
        scope.tenant(),
        name.actor,
        name.route,
        name.key_hash
    )
}

/// Remembers the answer.
///
/// # Errors
/// As every statement.
pub async fn idempotency_finish(
    tx: &mut Tx,
    scope: &TenantScope,
    name: RequestName<'_>,
    status: i64,
    answer: &[u8],
) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE idempotency_keys SET status = $5, answer = $6 WHERE tenant_id = $1 AND actor = $2 AND route = $3 AND key_hash = $4",
        scope.tenant(),
        name.actor,
        name.route,
        name.key_hash,
        status,
        answer
    )?;
    Ok(())
}

/// Gives the key back after a failure that left no effect.
///
/// # Errors
/// As every statement.
pub async fn idempotency_forget(tx: &mut Tx, scope: &TenantScope, name: RequestName<'_>) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "DELETE FROM idempotency_keys WHERE tenant_id = $1 AND actor = $2 AND route = $3 AND key_hash = $4",
        scope.tenant(),
        name.actor,
        name.route,
        name.key_hash
    )?;
    Ok(())
}

/// Deletes what has expired.
///
/// # Errors
/// As every statement.
pub async fn idempotency_delete_expired(tx: &mut Tx, _: SystemScope, now: i64) -> Result<u64, StoreError> {
    sql!(tx, execute, "DELETE FROM idempotency_keys WHERE expires_at <= $1", now)
}
