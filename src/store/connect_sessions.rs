//! Connect sessions: one-time links with which a platform lets its user connect.

use super::{StoreError, Tx, sql};
use crate::caller::{SystemScope, TenantScope};

/// A one-time connect link.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct ConnectSessionRow {
    /// `ten_…`.
    pub tenant_id: String,
    /// `cns_…`.
    pub id: String,
    /// SHA-256 of the token in the link.
    pub token_hash: String,
    /// `usr_…`.
    pub user_id: String,
    /// JSON list of catalogue ids; empty means every integration of the tenant.
    pub providers: String,
    /// JSON object: extra scopes by provider.
    pub scopes: String,
    /// Registered return URL.
    pub return_url: Option<String>,
    /// `redirect` or `popup`.
    pub mode: String,
    /// See API.md section 2.
    pub state: String,
    /// SHA-256 of the cookie of the browser that pressed Continue.
    pub browser_hash: Option<String>,
    /// `con_…` once there is one.
    pub connection_id: Option<String>,
    /// SHA-256 of the completion code.
    pub completion_hash: Option<String>,
    /// Milliseconds UTC.
    pub completion_expires_at: Option<i64>,
    /// Wrong codes so far; the tenth ends the session.
    pub completion_attempts: i64,
    /// Milliseconds UTC.
    pub created_at: i64,
    /// Milliseconds UTC.
    pub expires_at: i64,
}

/// Adds a connect session.
///
/// # Errors
/// As every statement.
pub async fn connect_session_insert(
    tx: &mut Tx,
    scope: &TenantScope,
    row: &ConnectSessionRow,
) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO connect_sessions (tenant_id, id, token_hash, user_id, providers, scopes, return_url, mode, state, completion_attempts, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'open', 0, $9, $10)",
        scope.tenant(),
        &row.id,
        &row.token_hash,
        &row.user_id,
        &row.providers,
        &row.scopes,
        &row.return_url,
        &row.mode,
        row.created_at,
        row.expires_at
    )?;
    Ok(())
}

/// Looks at a link by its token, used or not.
///
/// # Errors
/// As every statement.
pub async fn connect_session_by_token(
    tx: &mut Tx,
    _: SystemScope,
    token_hash: &str,
) -> Result<Option<ConnectSessionRow>, StoreError> {
    sql!(tx, optional ConnectSessionRow, "SELECT * FROM connect_sessions WHERE token_hash = $1", token_hash)
}

/// One connect session by id.
///
/// # Errors
/// As every statement.
pub async fn connect_session_by_id(
    tx: &mut Tx,
    scope: &TenantScope,
    id: &str,
) -> Result<Option<ConnectSessionRow>, StoreError> {
    sql!(tx, optional ConnectSessionRow, "SELECT * FROM connect_sessions WHERE tenant_id = $1 AND id = $2", scope.tenant(), id)
}

/// Uses the link: the first browser to press Continue gets it.
///
/// # Errors
/// As every statement.
pub async fn connect_session_start(
    tx: &mut Tx,
    _: SystemScope,
    token_hash: &str,
    browser_hash: &str,
    now: i64,
) -> Result<Option<ConnectSessionRow>, StoreError> {
    sql!(
        tx,
        optional ConnectSessionRow,
        "UPDATE connect_sessions SET state = 'started', browser_hash = $2 WHERE token_hash = $1 AND state = 'open' AND expires_at > $3 RETURNING *",
        token_hash,
        browser_hash,
        now
    )
}

/// Records how the session goes on.
///
/// # Errors
/// As every statement.
pub async fn connect_session_set_state(
    tx: &mut Tx,
    scope: &TenantScope,
    id: &str,
    state: &str,
    connection: Option<&str>,
) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE connect_sessions SET state = $3, connection_id = COALESCE($4, connection_id), completion_hash = NULL WHERE tenant_id = $1 AND id = $2",
        scope.tenant(),
        id,
        state,
        connection
    )?;
    Ok(())
}

/// Waits for the platform's confirmation.
///
/// # Errors
/// As every statement.
pub async fn connect_session_await(
    tx: &mut Tx,
    scope: &TenantScope,
    id: &str,
    completion_hash: &str,
    until: i64,
) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE connect_sessions SET state = 'awaiting_confirmation', completion_hash = $3, completion_expires_at = $4 WHERE tenant_id = $1 AND id = $2",
        scope.tenant(),
        id,
        completion_hash,
        until
    )?;
    Ok(())
}

/// Uses the completion code: once.
///
/// # Errors
/// As every statement.
pub async fn connect_session_confirm(
    tx: &mut Tx,
    scope: &TenantScope,
    id: &str,
    completion_hash: &str,
    now: i64,
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE connect_sessions SET completion_hash = NULL WHERE tenant_id = $1 AND id = $2 AND state = 'awaiting_confirmation'
         AND completion_hash = $3 AND completion_expires_at > $4",
        scope.tenant(),
        id,
        completion_hash,
        now
    )? == 1)
}

/// Counts a wrong completion code; gives how many there were.
///
/// # Errors
/// As every statement.
pub async fn connect_session_count_wrong_code(tx: &mut Tx, scope: &TenantScope, id: &str) -> Result<i64, StoreError> {
    let row = sql!(
        tx,
        optional(i64,),
        "UPDATE connect_sessions SET completion_attempts = completion_attempts + 1 WHERE tenant_id = $1 AND id = $2 RETURNING completion_attempts",
        scope.tenant(),
        id
    )?;
    Ok(row.map_or(0, |(attempts,)| attempts))
}

/// Deletes connect sessions whose time ended before `before`, when their handshakes are gone; gives the number.
///
/// # Errors
/// As every statement.
pub async fn connect_session_delete_expired(tx: &mut Tx, _: SystemScope, before: i64) -> Result<u64, StoreError> {
    sql!(
        tx,
        execute,
        "DELETE FROM connect_sessions WHERE expires_at <= $1 AND NOT EXISTS
         (SELECT 1 FROM handshakes WHERE handshakes.tenant_id = connect_sessions.tenant_id AND handshakes.connect_session_id = connect_sessions.id)",
        before
    )
}
