//! Handshakes: connections being made. A callback knows only the state's hash.

use super::{StoreError, Tx, sql};
use crate::caller::{SystemScope, TenantScope};

/// A connection being made (OA-01).
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct HandshakeRow {
    /// `ten_…`.
    pub tenant_id: String,
    /// `hsk_…`.
    pub id: String,
    /// SHA-256 of `state`.
    pub state_hash: String,
    /// SHA-256 of the browser's cookie.
    pub browser_hash: String,
    /// `usr_…`.
    pub user_id: String,
    /// `int_…`.
    pub integration_id: String,
    /// The integration's revision when it began.
    pub integration_revision: i64,
    /// Catalogue id.
    pub provider: String,
    /// Byte-identical in both requests (OA-12).
    pub redirect_uri: String,
    /// JSON object: what is asked for, of whom.
    pub scopes: String,
    /// Sealed PKCE verifier.
    pub verifier: Option<Vec<u8>>,
    /// Sealed nonce.
    pub nonce: Option<Vec<u8>>,
    /// Sealed code, parked until the platform confirms (OA-02).
    pub code: Option<Vec<u8>>,
    /// `cns_…` when it came through a hosted link.
    pub connect_session_id: Option<String>,
    /// `con_…` when it reconnects.
    pub connection_id: Option<String>,
    /// Milliseconds UTC.
    pub created_at: i64,
    /// Milliseconds UTC.
    pub expires_at: i64,
    /// When its state was used.
    pub consumed_at: Option<i64>,
}

/// Adds a handshake.
///
/// # Errors
/// As every statement.
pub async fn handshake_insert(tx: &mut Tx, scope: &TenantScope, row: &HandshakeRow) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO handshakes (tenant_id, id, state_hash, browser_hash, user_id, integration_id, integration_revision, provider, redirect_uri, scopes,
         verifier, nonce, connect_session_id, connection_id, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
        scope.tenant(),
        &row.id,
        &row.state_hash,
        &row.browser_hash,
        &row.user_id,
        &row.integration_id,
        row.integration_revision,
        &row.provider,
        &row.redirect_uri,
        &row.scopes,
        &row.verifier,
        &row.nonce,
        &row.connect_session_id,
        &row.connection_id,
        row.created_at,
        row.expires_at
    )?;
    Ok(())
}

/// How many live handshakes there are: of the user, and of the whole tenant (OA-13).
///
/// # Errors
/// As every statement.
pub async fn handshakes_live(tx: &mut Tx, scope: &TenantScope, user: &str, now: i64) -> Result<(i64, i64), StoreError> {
    sql!(
        tx,
        one(i64, i64),
        "SELECT count(CASE WHEN user_id = $2 THEN 1 END), count(*) FROM handshakes WHERE tenant_id = $1 AND consumed_at IS NULL AND expires_at > $3",
        scope.tenant(),
        user,
        now
    )
}

/// Uses a state: of any number of parallel callbacks, one gets the handshake.
///
/// # Errors
/// As every statement.
pub async fn handshake_consume(
    tx: &mut Tx,
    _: SystemScope,
    state_hash: &str,
    now: i64,
) -> Result<Option<HandshakeRow>, StoreError> {
    sql!(
        tx,
        optional HandshakeRow,
        "UPDATE handshakes SET consumed_at = $2 WHERE state_hash = $1 AND consumed_at IS NULL AND expires_at > $2 RETURNING *",
        state_hash,
        now
    )
}

/// The handshake that a state belongs to, used or not, as long as it is remembered.
///
/// # Errors
/// As every statement.
pub async fn handshake_of_state(
    tx: &mut Tx,
    _: SystemScope,
    state_hash: &str,
) -> Result<Option<HandshakeRow>, StoreError> {
    sql!(tx, optional HandshakeRow, "SELECT * FROM handshakes WHERE state_hash = $1", state_hash)
}

/// Parks the sealed code.
///
/// # Errors
/// As every statement.
pub async fn handshake_park(tx: &mut Tx, scope: &TenantScope, id: &str, code: &[u8]) -> Result<(), StoreError> {
    sql!(tx, execute, "UPDATE handshakes SET code = $3 WHERE tenant_id = $1 AND id = $2", scope.tenant(), id, code)?;
    Ok(())
}

/// Takes the parked handshake of a connect session: once.
///
/// # Errors
/// As every statement.
pub async fn handshake_unpark(
    tx: &mut Tx,
    scope: &TenantScope,
    connect_session: &str,
) -> Result<Option<HandshakeRow>, StoreError> {
    let parked = sql!(
        tx,
        optional HandshakeRow,
        "SELECT * FROM handshakes WHERE tenant_id = $1 AND connect_session_id = $2 AND code IS NOT NULL ORDER BY id DESC LIMIT 1",
        scope.tenant(),
        connect_session
    )?;
    let Some(parked) = parked else { return Ok(None) };
    let taken = sql!(
        tx,
        execute,
        "UPDATE handshakes SET code = NULL WHERE tenant_id = $1 AND id = $2 AND code IS NOT NULL",
        scope.tenant(),
        &parked.id
    )?;
    Ok((taken == 1).then_some(parked))
}

/// Deletes handshakes that ended before `before`.
///
/// # Errors
/// As every statement.
pub async fn handshakes_delete_expired(tx: &mut Tx, _: SystemScope, before: i64) -> Result<u64, StoreError> {
    sql!(tx, execute, "DELETE FROM handshakes WHERE expires_at <= $1", before)
}
