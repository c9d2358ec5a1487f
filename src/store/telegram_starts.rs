//! Telegram: who waits for a person to press Start on a link, and who has pressed it.

use super::{StoreError, Tx, sql};
use crate::caller::{SystemScope, TenantScope};

/// A Telegram bot that waits for its user to press Start.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct TelegramStartRow {
    /// `ten_…`.
    pub tenant_id: String,
    /// `con_…`.
    pub connection_id: String,
    /// Hash of the start link's payload.
    pub payload_hash: String,
    /// The next update to ask for.
    pub update_offset: i64,
    /// When to look next.
    pub poll_at: i64,
    /// When the link ends.
    pub expires_at: i64,
    /// 1 when the browser is asked whether it was its person who pressed Start.
    pub to_confirm: i64,
    /// Who it was, sealed, while that is not answered.
    pub pressed: Option<Vec<u8>>,
}

/// Begins to wait, in place of an earlier wait and of whoever has pressed Start for that.
///
/// # Errors
/// As every statement.
pub async fn telegram_start_put(tx: &mut Tx, scope: &TenantScope, row: &TelegramStartRow) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO telegram_starts (tenant_id, connection_id, payload_hash, update_offset, poll_at, expires_at, to_confirm)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (tenant_id, connection_id) DO UPDATE SET payload_hash = excluded.payload_hash, poll_at = excluded.poll_at,
         expires_at = excluded.expires_at, to_confirm = excluded.to_confirm, pressed = NULL",
        scope.tenant(),
        &row.connection_id,
        &row.payload_hash,
        row.update_offset,
        row.poll_at,
        row.expires_at,
        row.to_confirm
    )?;
    Ok(())
}

/// Takes up to `limit` waits whose time has come by moving it to `next`.
///
/// # Errors
/// As every statement.
pub async fn telegram_starts_claim(
    tx: &mut Tx,
    _: SystemScope,
    now: i64,
    next: i64,
    limit: i64,
) -> Result<Vec<TelegramStartRow>, StoreError> {
    sql!(
        tx,
        all TelegramStartRow,
        "UPDATE telegram_starts SET poll_at = $2 WHERE (tenant_id, connection_id) IN
         (SELECT tenant_id, connection_id FROM telegram_starts WHERE poll_at <= $1 ORDER BY poll_at LIMIT $3) AND poll_at <= $1 RETURNING *",
        now,
        next,
        limit
    )
}

/// The wait that a start link's payload belongs to.
///
/// # Errors
/// As every statement.
pub async fn telegram_start_by_payload(
    tx: &mut Tx,
    _: SystemScope,
    payload_hash: &str,
    now: i64,
) -> Result<Option<TelegramStartRow>, StoreError> {
    sql!(tx, optional TelegramStartRow, "SELECT * FROM telegram_starts WHERE payload_hash = $1 AND expires_at > $2", payload_hash, now)
}

/// The wait of a connection, if its link still works.
///
/// # Errors
/// As every statement.
pub async fn telegram_start_of(
    tx: &mut Tx,
    scope: &TenantScope,
    connection: &str,
    now: i64,
) -> Result<Option<TelegramStartRow>, StoreError> {
    sql!(
        tx,
        optional TelegramStartRow,
        "SELECT * FROM telegram_starts WHERE tenant_id = $1 AND connection_id = $2 AND expires_at > $3",
        scope.tenant(),
        connection,
        now
    )
}

/// Keeps who has pressed Start on a link, in place of what was `seen` to be kept; false when that is not there any more.
///
/// # Errors
/// As every statement.
pub async fn telegram_start_pressed(
    tx: &mut Tx,
    scope: &TenantScope,
    wait: &TelegramStartRow,
    pressed: &[u8],
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE telegram_starts SET pressed = $5 WHERE tenant_id = $1 AND connection_id = $2 AND payload_hash = $3 AND pressed IS NOT DISTINCT FROM $4",
        scope.tenant(),
        &wait.connection_id,
        &wait.payload_hash,
        &wait.pressed,
        pressed
    )? == 1)
}

/// Ends waits whose links have expired.
///
/// # Errors
/// As every statement.
pub async fn telegram_starts_delete_expired(tx: &mut Tx, _: SystemScope, now: i64) -> Result<u64, StoreError> {
    sql!(tx, execute, "DELETE FROM telegram_starts WHERE expires_at <= $1", now)
}

/// Remembers which update comes next.
///
/// # Errors
/// As every statement.
pub async fn telegram_start_move_offset(
    tx: &mut Tx,
    _: SystemScope,
    tenant: &str,
    connection: &str,
    offset: i64,
) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE telegram_starts SET update_offset = $3 WHERE tenant_id = $1 AND connection_id = $2",
        tenant,
        connection,
        offset
    )?;
    Ok(())
}

/// Ends a wait for Start on this link; false when somebody else ended it, or there is another link by now.
///
/// # Errors
/// As every statement.
pub async fn telegram_start_delete(
    tx: &mut Tx,
    scope: &TenantScope,
    wait: &TelegramStartRow,
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "DELETE FROM telegram_starts WHERE tenant_id = $1 AND connection_id = $2 AND payload_hash = $3",
        scope.tenant(),
        &wait.connection_id,
        &wait.payload_hash
    )? == 1)
}
