//! What the outside is told about connections: the state of each is compared with the one that was told last, whoever has changed it.

use serde::Serialize;

use super::{Connection, StoreError, Tx, sql, to_json};
use crate::caller::SystemScope;

/// A connection whose state the outside has not been told of.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct UntoldRow {
    /// `ten_…`.
    pub tenant_id: String,
    /// `con_…`.
    pub id: String,
    /// `usr_…`; none when it belongs to the tenant.
    pub user_id: Option<String>,
    /// The state that was told last; empty for a new one.
    pub told: String,
    /// `deleted`, `degraded`, or the status.
    pub state: String,
    /// Why the status is not `active`.
    pub reason: Option<String>,
}

/// Takes up to `limit` connections whose state has not been told, for the length of `tx`.
///
/// # Errors
/// As every statement.
pub async fn connections_untold(tx: &mut Tx, _: SystemScope, limit: i64) -> Result<Vec<UntoldRow>, StoreError> {
    // SQLite has one writer anyway and no FOR UPDATE. The condition is that of the index.
    if matches!(tx.connection(), Connection::Postgres(_)) {
        sql!(
            tx,
            all UntoldRow,
            "SELECT tenant_id, id, user_id, told, CASE WHEN deleted_at IS NOT NULL THEN 'deleted' WHEN status = 'active' AND is_degraded = 1 THEN 'degraded' ELSE status END AS state,
             reason FROM connections WHERE told <> CASE WHEN deleted_at IS NOT NULL THEN 'deleted' WHEN status = 'active' AND is_degraded = 1 THEN 'degraded' ELSE status END
             ORDER BY tenant_id, id LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED",
            limit
        )
    } else {
        sql!(
            tx,
            all UntoldRow,
            "SELECT tenant_id, id, user_id, told, CASE WHEN deleted_at IS NOT NULL THEN 'deleted' WHEN status = 'active' AND is_degraded = 1 THEN 'degraded' ELSE status END AS state,
             reason FROM connections WHERE told <> CASE WHEN deleted_at IS NOT NULL THEN 'deleted' WHEN status = 'active' AND is_degraded = 1 THEN 'degraded' ELSE status END
             ORDER BY tenant_id, id LIMIT $1",
            limit
        )
    }
}

/// An event about a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StateEvent<'a> {
    /// `ten_…`.
    pub tenant_id: &'a str,
    /// `evt_…`.
    pub id: String,
    /// Milliseconds UTC.
    pub at: i64,
    /// `connection.…`.
    pub kind: &'static str,
    /// `con_…`.
    pub object_id: &'a str,
    /// `usr_…`.
    pub user_id: Option<&'a str>,
    /// None for a new connection.
    pub old_state: Option<&'a str>,
    /// What it is now.
    pub new_state: &'a str,
    /// Why, where it is not `active`.
    pub reason: Option<&'a str>,
}

/// Puts these events into the outbox and notes that their states are told. The connections must be taken by `tx`.
///
/// # Errors
/// As every statement.
pub async fn connections_tell(tx: &mut Tx, _: SystemScope, events: &[StateEvent<'_>]) -> Result<(), StoreError> {
    let listed = to_json(&events)?;
    if matches!(tx.connection(), Connection::Postgres(_)) {
        sql!(
            tx,
            execute,
            "INSERT INTO outbox (tenant_id, id, at, kind, object_id, user_id, old_state, new_state, reason)
             SELECT e.tenant_id, e.id, e.at, e.kind, e.object_id, e.user_id, e.old_state, e.new_state, e.reason FROM jsonb_to_recordset($1::jsonb) AS e
             (tenant_id text, id text, at bigint, kind text, object_id text, user_id text, old_state text, new_state text, reason text)",
            &listed
        )?;
        sql!(
            tx,
            execute,
            "UPDATE connections SET told = e.new_state FROM jsonb_to_recordset($1::jsonb) AS e (tenant_id text, object_id text, new_state text)
             WHERE connections.tenant_id = e.tenant_id AND connections.id = e.object_id",
            &listed
        )?;
    } else {
        sql!(
            tx,
            execute,
            "INSERT INTO outbox (tenant_id, id, at, kind, object_id, user_id, old_state, new_state, reason)
             SELECT e.value ->> 'tenant_id', e.value ->> 'id', e.value ->> 'at', e.value ->> 'kind', e.value ->> 'object_id', e.value ->> 'user_id',
             e.value ->> 'old_state', e.value ->> 'new_state', e.value ->> 'reason' FROM json_each($1) e",
            &listed
        )?;
        sql!(
            tx,
            execute,
            "UPDATE connections SET told = e.new_state FROM
             (SELECT e.value ->> 'tenant_id' AS tenant_id, e.value ->> 'object_id' AS object_id, e.value ->> 'new_state' AS new_state FROM json_each($1) e) AS e
             WHERE connections.tenant_id = e.tenant_id AND connections.id = e.object_id",
            &listed
        )?;
    }
    Ok(())
}

/// A credential could not be refreshed: what uses it lives on what there is.
///
/// # Errors
/// As every statement.
pub async fn connections_of_credential_degrade(
    tx: &mut Tx,
    _: SystemScope,
    tenant: &str,
    credential: &str,
) -> Result<u64, StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE connections SET is_degraded = 1 WHERE tenant_id = $1 AND is_degraded = 0
         AND id IN (SELECT connection_id FROM connection_credentials WHERE tenant_id = $1 AND credential_id = $2)",
        tenant,
        credential
    )
}

/// It could be refreshed again; another credential of the same connection may still fail.
///
/// # Errors
/// As every statement.
pub async fn connections_of_credential_recover(
    tx: &mut Tx,
    _: SystemScope,
    tenant: &str,
    credential: &str,
) -> Result<u64, StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE connections SET is_degraded = 0 WHERE tenant_id = $1 AND is_degraded = 1
         AND id IN (SELECT connection_id FROM connection_credentials WHERE tenant_id = $1 AND credential_id = $2)
         AND NOT EXISTS (SELECT 1 FROM connection_credentials u JOIN credentials k ON k.tenant_id = u.tenant_id AND k.id = u.credential_id
         WHERE u.tenant_id = $1 AND u.connection_id = connections.id AND k.id <> $2 AND k.last_error IS NOT NULL AND k.deleted_at IS NULL)",
        tenant,
        credential
    )
}
