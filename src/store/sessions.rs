//! Browser sessions and one-time links. Both are found by the hash of a secret, before any tenant is known.

use super::{StoreError, Tx, sql};
use crate::caller::SystemScope;

/// Changes a live session's record; false when the session has ended, which a late change must not undo (WB-02).
///
/// # Errors
/// As every statement.
pub async fn session_change(
    tx: &mut Tx,
    _: SystemScope,
    id_hash: &str,
    record: &[u8],
    expires_at: i64,
    now: i64,
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE sessions SET record = $2, expires_at = $3 WHERE id_hash = $1 AND expires_at > $4",
        id_hash,
        record,
        expires_at,
        now
    )? == 1)
}

/// Writes a session record, new or changed.
///
/// # Errors
/// As every statement.
pub async fn session_put(
    tx: &mut Tx,
    _: SystemScope,
    id_hash: &str,
    record: &[u8],
    expires_at: i64,
) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO sessions (id_hash, record, expires_at) VALUES ($1, $2, $3)
         ON CONFLICT (id_hash) DO UPDATE SET record = excluded.record, expires_at = excluded.expires_at",
        id_hash,
        record,
        expires_at
    )?;
    Ok(())
}

/// Reads a session record that has not expired, and when it does.
///
/// # Errors
/// As every statement.
pub async fn session_get(
    tx: &mut Tx,
    _: SystemScope,
    id_hash: &str,
    now: i64,
) -> Result<Option<(Vec<u8>, i64)>, StoreError> {
    sql!(
        tx,
        optional(Vec<u8>, i64),
        "SELECT record, expires_at FROM sessions WHERE id_hash = $1 AND expires_at > $2",
        id_hash,
        now
    )
}

/// Deletes a session.
///
/// # Errors
/// As every statement.
pub async fn session_delete(tx: &mut Tx, _: SystemScope, id_hash: &str) -> Result<(), StoreError> {
    sql!(tx, execute, "DELETE FROM sessions WHERE id_hash = $1", id_hash)?;
    Ok(())
}

/// Deletes what has expired; gives the number.
///
/// # Errors
/// As every statement.
pub async fn session_delete_expired(tx: &mut Tx, _: SystemScope, now: i64) -> Result<u64, StoreError> {
    sql!(tx, execute, "DELETE FROM sessions WHERE expires_at <= $1", now)
}

/// A one-time link.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct OneTimeLinkRow {
    /// SHA-256 of the token in the URL.
    pub token_hash: String,
    /// `setup` or `portal`.
    pub purpose: String,
    /// The tenant, for a portal.
    pub tenant_id: Option<String>,
    /// The user, for a portal.
    pub user_id: Option<String>,
    /// Where the user may go back to.
    pub return_url: Option<String>,
    /// Milliseconds UTC.
    pub created_at: i64,
    /// Milliseconds UTC.
    pub expires_at: i64,
    /// When it was used.
    pub used_at: Option<i64>,
}

/// Adds a one-time link.
///
/// # Errors
/// As every statement.
pub async fn link_insert(tx: &mut Tx, _: SystemScope, row: &OneTimeLinkRow) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO one_time_links (token_hash, purpose, tenant_id, user_id, return_url, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &row.token_hash,
        &row.purpose,
        &row.tenant_id,
        &row.user_id,
        &row.return_url,
        row.created_at,
        row.expires_at
    )?;
    Ok(())
}

/// Looks at a link that is neither used nor expired, without using it: mail scanners open links (WB-12).
///
/// # Errors
/// As every statement.
pub async fn link_peek(
    tx: &mut Tx,
    _: SystemScope,
    token_hash: &str,
    purpose: &str,
    now: i64,
) -> Result<Option<OneTimeLinkRow>, StoreError> {
    sql!(
        tx,
        optional OneTimeLinkRow,
        "SELECT * FROM one_time_links WHERE token_hash = $1 AND purpose = $2 AND used_at IS NULL AND expires_at > $3",
        token_hash,
        purpose,
        now
    )
}

/// Uses a link: of any number of parallel callers, one gets it.
///
/// # Errors
/// As every statement.
pub async fn link_use(
    tx: &mut Tx,
    _: SystemScope,
    token_hash: &str,
    purpose: &str,
    now: i64,
) -> Result<Option<OneTimeLinkRow>, StoreError> {
    sql!(
        tx,
        optional OneTimeLinkRow,
        "UPDATE one_time_links SET used_at = $3 WHERE token_hash = $1 AND purpose = $2 AND used_at IS NULL AND expires_at > $3 RETURNING *",
        token_hash,
        purpose,
        now
    )
}

/// Deletes one-time links whose time is over, used or not; gives the number.
///
/// # Errors
/// As every statement.
pub async fn link_delete_expired(tx: &mut Tx, _: SystemScope, now: i64) -> Result<u64, StoreError> {
    sql!(tx, execute, "DELETE FROM one_time_links WHERE expires_at <= $1", now)
}
