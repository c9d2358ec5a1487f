//! Reading the book for people: what used their accounts, what happened to one of them, and what a tenant looks like.

use super::audit::AuditRow;
use super::{StoreError, Tx, sql};
use crate::caller::TenantScope;

/// An entry of the book about an account, with the names it leads to. Ids only.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct ActivityRow {
    /// `aud_…`.
    pub id: String,
    /// Milliseconds UTC.
    pub at: i64,
    /// `member`, `user`, `key`, `ticket`, `system` or `operator`.
    pub actor_kind: String,
    /// What was done, from the closed list of `audit`.
    pub action: String,
    /// `allowed`, `denied` or `failed`.
    pub result: String,
    /// Why, from a closed list.
    pub reason: Option<String>,
    /// The conversation it happened in.
    pub conversation_id: Option<String>,
    /// ElevenLabs' id of that conversation's agent.
    pub agent_id: Option<String>,
    /// The connection, also a deleted one; none when the entry is about a whole conversation.
    pub connection_id: Option<String>,
    /// The connection's provider.
    pub provider: Option<String>,
}

/// Which entries are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Every lending and use that was allowed.
    Lending = 0,
    /// Lending, uses, renewals that worked, and what was refused to a conversation's tools.
    Activity = 1,
    /// Everything.
    Whole = 2,
}

/// What the entries are narrowed to.
#[derive(Clone, Copy, Debug)]
pub struct ActivityFilter<'a> {
    /// One connection.
    pub connection: Option<&'a str>,
    /// Which entries.
    pub depth: Depth,
    /// Before this entry; empty means from the end.
    pub before: &'a str,
    /// At most this many.
    pub limit: i64,
}

/// Entries about accounts, newest first. A scope that is bound to a user sees that user's entries only; so does a
/// filter by a connection, whoever it belongs to.
///
/// # Errors
/// As every statement.
pub async fn activity_list(
    tx: &mut Tx,
    scope: &TenantScope,
    filter: ActivityFilter<'_>,
) -> Result<Vec<ActivityRow>, StoreError> {
    sql!(
        tx,
        all ActivityRow,
        "SELECT e.id, e.at, e.actor_kind, e.action, e.result, e.reason, e.conversation_id, v.agent_id, c.id AS connection_id, c.provider
         FROM audit_entries e
         LEFT JOIN conversations v ON v.tenant_id = e.tenant_id AND v.id = e.conversation_id
         LEFT JOIN connections c ON c.tenant_id = e.tenant_id AND c.id = CASE e.object_kind WHEN 'connection' THEN e.object_id
          WHEN 'credential' THEN (SELECT min(u.connection_id) FROM connection_credentials u WHERE u.tenant_id = e.tenant_id AND u.credential_id = e.object_id) END
         WHERE e.tenant_id = $1 AND ($2 = '' OR e.id < $2) AND ($3 IS NULL OR e.user_id = $3)
         AND ($4 IS NULL OR (e.object_kind = 'connection' AND e.object_id = $4)
          OR (e.object_kind = 'credential' AND EXISTS (SELECT 1 FROM connection_credentials u WHERE u.tenant_id = e.tenant_id AND u.credential_id = e.object_id AND u.connection_id = $4))
          OR (e.action IN ('ticket.refuse', 'ticket.identity_mismatch') AND EXISTS (SELECT 1 FROM conversation_connections w WHERE w.tenant_id = e.tenant_id AND w.conversation_id = e.conversation_id AND w.connection_id = $4)))
         AND ($5 = 2 OR (e.action IN ('token.read', 'credential.use') AND ($5 = 1 OR e.result = 'allowed'))
          OR ($5 = 1 AND (e.action IN ('ticket.refuse', 'ticket.identity_mismatch') OR (e.action = 'credential.refresh' AND e.result = 'allowed'))))
         ORDER BY e.id DESC LIMIT $6",
        scope.tenant(),
        filter.before,
        scope.user(),
        filter.connection,
        filter.depth as i64,
        filter.limit
    )
}

/// Conversations that run at `now` and may use a connection.
///
/// # Errors
/// As every statement.
pub async fn conversations_using(
    tx: &mut Tx,
    scope: &TenantScope,
    connection: &str,
    now: i64,
) -> Result<i64, StoreError> {
    let (count,) = sql!(
        tx,
        one (i64,),
        "SELECT count(*) FROM conversations v JOIN conversation_connections w ON w.tenant_id = v.tenant_id AND w.conversation_id = v.id
         WHERE v.tenant_id = $1 AND w.connection_id = $2 AND v.ended_at IS NULL AND v.ticket_expires_at > $3 AND ($4 IS NULL OR v.user_id = $4)",
        scope.tenant(),
        connection,
        now,
        scope.user()
    )?;
    Ok(count)
}

/// How many end users a tenant has, and how many of their conversations run at `now`.
///
/// # Errors
/// As every statement.
pub async fn tenant_counts(tx: &mut Tx, scope: &TenantScope, now: i64) -> Result<(i64, i64), StoreError> {
    sql!(
        tx,
        one (i64, i64),
        "SELECT (SELECT count(*) FROM users WHERE tenant_id = $1 AND erased_at IS NULL AND ($3 IS NULL OR id = $3)),
         (SELECT count(*) FROM conversations WHERE tenant_id = $1 AND ended_at IS NULL AND ticket_expires_at > $2 AND ($3 IS NULL OR user_id = $3))",
        scope.tenant(),
        now,
        scope.user()
    )
}

/// Connections by status and integration (empty for those without one), with how many there are.
///
/// # Errors
/// As every statement.
pub async fn connection_counts(tx: &mut Tx, scope: &TenantScope) -> Result<Vec<(String, String, i64)>, StoreError> {
    sql!(
        tx,
        all (String, String, i64),
        "SELECT status, COALESCE(integration_id, ''), count(*) FROM connections WHERE tenant_id = $1 AND deleted_at IS NULL AND ($2 IS NULL OR user_id = $2)
         GROUP BY status, COALESCE(integration_id, '') ORDER BY status, COALESCE(integration_id, '')",
        scope.tenant(),
        scope.user()
    )
}

/// The last refusals, newest first.
///
/// # Errors
/// As every statement.
pub async fn denial_list(tx: &mut Tx, scope: &TenantScope, limit: i64) -> Result<Vec<AuditRow>, StoreError> {
    sql!(
        tx,
        all AuditRow,
        "SELECT tenant_id, id, at, actor_kind, actor_id, action, object_kind, object_id, user_id, conversation_id, result, reason, request_id, peer, mac
         FROM audit_entries WHERE tenant_id = $1 AND result = 'denied' AND ($2 IS NULL OR user_id = $2) ORDER BY id DESC LIMIT $3",
        scope.tenant(),
        scope.user(),
        limit
    )
}
