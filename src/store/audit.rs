//! The book's rows and the outbox.

use data_encoding::HEXLOWER;
use serde::Serialize;

use super::{Connection, StoreError, Tx, sql, to_json};
use crate::caller::TenantScope;

/// An entry of the book. Ids only; names and e-mails never.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow, Serialize)]
pub struct AuditRow {
    /// `ten_…`.
    pub tenant_id: String,
    /// `aud_…`.
    pub id: String,
    /// Milliseconds UTC.
    pub at: i64,
    /// `member`, `user`, `key`, `ticket`, `system` or `operator`.
    pub actor_kind: String,
    /// The actor's id.
    pub actor_id: String,
    /// What was done, from the closed list in `audit::record`.
    pub action: String,
    /// The kind of thing it was done to.
    pub object_kind: String,
    /// The thing's id.
    pub object_id: String,
    /// The end user concerned.
    pub user_id: Option<String>,
    /// The conversation it happened in.
    pub conversation_id: Option<String>,
    /// `allowed`, `denied` or `failed`.
    pub result: String,
    /// Why, from a closed list.
    pub reason: Option<String>,
    /// The request's id.
    pub request_id: String,
    /// The peer's address.
    pub peer: Option<String>,
    /// MAC over all of the above.
    #[serde(skip)]
    pub mac: Vec<u8>,
}

/// Adds an entry.
///
/// # Errors
/// As every statement.
pub async fn audit_insert(tx: &mut Tx, row: &AuditRow) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO audit_entries (tenant_id, id, at, actor_kind, actor_id, action, object_kind, object_id, user_id, conversation_id, result, reason, request_id, peer, mac)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        &row.tenant_id,
        &row.id,
        row.at,
        &row.actor_kind,
        &row.actor_id,
        &row.action,
        &row.object_kind,
        &row.object_id,
        &row.user_id,
        &row.conversation_id,
        &row.result,
        &row.reason,
        &row.request_id,
        &row.peer,
        &row.mac
    )?;
    Ok(())
}

/// An entry as an element of a list: JSON has no bytes.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    row: &'a AuditRow,
    mac: String,
}

/// Adds entries, all or none, with one statement.
///
/// # Errors
/// As every statement.
pub async fn audit_insert_all(tx: &mut Tx, rows: &[&AuditRow]) -> Result<(), StoreError> {
    let listed = rows.iter().map(|row| Listed { row, mac: HEXLOWER.encode(&row.mac) });
    let entries = to_json(&listed.collect::<Vec<_>>())?;
    if matches!(tx.connection(), Connection::Postgres(_)) {
        sql!(
            tx,
            execute,
            "INSERT INTO audit_entries (tenant_id, id, at, actor_kind, actor_id, action, object_kind, object_id, user_id, conversation_id, result, reason, request_id, peer, mac)
             SELECT e.tenant_id, e.id, e.at, e.actor_kind, e.actor_id, e.action, e.object_kind, e.object_id, e.user_id, e.conversation_id, e.result, e.reason,
             e.request_id, e.peer, decode(e.mac, 'hex') FROM jsonb_to_recordset($1::jsonb) AS e (tenant_id text, id text, at bigint, actor_kind text,
             actor_id text, action text, object_kind text, object_id text, user_id text, conversation_id text, result text, reason text, request_id text,
             peer text, mac text)",
            &entries
        )?;
    } else {
        sql!(
            tx,
            execute,
            "INSERT INTO audit_entries (tenant_id, id, at, actor_kind, actor_id, action, object_kind, object_id, user_id, conversation_id, result, reason, request_id, peer, mac)
             SELECT e.value ->> 'tenant_id', e.value ->> 'id', e.value ->> 'at', e.value ->> 'actor_kind', e.value ->> 'actor_id', e.value ->> 'action',
             e.value ->> 'object_kind', e.value ->> 'object_id', e.value ->> 'user_id', e.value ->> 'conversation_id', e.value ->> 'result',
             e.value ->> 'reason', e.value ->> 'request_id', e.value ->> 'peer', unhex(e.value ->> 'mac') FROM json_each($1) e",
            &entries
        )?;
    }
    Ok(())
}

/// Entries, newest first, before `before` (exclusive; empty means from the end). A scope that is bound to a user
/// sees that user's entries only.
///
/// # Errors
/// As every statement.
pub async fn audit_list(
    tx: &mut Tx,
    scope: &TenantScope,
    before: &str,
    limit: i64,
) -> Result<Vec<AuditRow>, StoreError> {
    sql!(
        tx,
        all AuditRow,
        "SELECT tenant_id, id, at, actor_kind, actor_id, action, object_kind, object_id, user_id, conversation_id, result, reason, request_id, peer, mac
         FROM audit_entries WHERE tenant_id = $1 AND ($2 = '' OR id < $2) AND ($3 IS NULL OR user_id = $3) ORDER BY id DESC LIMIT $4",
        scope.tenant(),
        before,
        scope.user(),
        limit
    )
}

/// Adds something the outside is told about.
///
/// # Errors
/// As every statement.
pub async fn outbox_insert(
    tx: &mut Tx,
    tenant_id: &str,
    id: &str,
    at: i64,
    kind: &str,
    object_id: &str,
    user_id: Option<&str>,
) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO outbox (tenant_id, id, at, kind, object_id, user_id) VALUES ($1, $2, $3, $4, $5, $6)",
        tenant_id,
        id,
        at,
        kind,
        object_id,
        user_id
    )?;
    Ok(())
}
