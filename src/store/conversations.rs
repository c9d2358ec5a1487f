//! Conversations, the tickets bound to them, and what each may use.

use super::{StoreError, Tx, sql};
use crate::caller::{SystemScope, TenantScope};

/// One run of an agent for one user.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct ConversationRow {
    /// `ten_…`.
    pub tenant_id: String,
    /// `cnv_…`.
    pub id: String,
    /// `usr_…`.
    pub user_id: String,
    /// ElevenLabs' agent id.
    pub agent_id: String,
    /// Owner of the workspace.
    pub workspace_tenant_id: String,
    /// `wks_…`.
    pub workspace_id: String,
    /// The platform key that started it.
    pub api_key_id: Option<String>,
    /// `relay`, `websocket`, ….
    pub channel: String,
    /// `starting`, `started`, `ended` or `failed`.
    pub status: String,
    /// ElevenLabs' conversation id.
    pub upstream_id: Option<String>,
    /// SHA-256 of the ticket.
    pub ticket_hash: String,
    /// Milliseconds UTC.
    pub ticket_expires_at: i64,
    /// SHA-256 of the relay's `t`.
    pub relay_hash: Option<String>,
    /// Milliseconds UTC.
    pub relay_expires_at: Option<i64>,
    /// When the relay was entered.
    pub relay_used_at: Option<i64>,
    /// Sealed JSON that the relay needs: variables without tokens.
    pub start_data: Option<Vec<u8>>,
    /// `sanitized` or `status_only`, as found at the start.
    pub refresh_tool: String,
    /// JSON: the agent's broker rules at the start.
    pub broker: String,
    /// JSON list: names a browser may set.
    pub client_variables: String,
    /// Milliseconds UTC.
    pub created_at: i64,
    /// Milliseconds UTC.
    pub started_at: Option<i64>,
    /// Milliseconds UTC.
    pub ended_at: Option<i64>,
    /// Why it ended.
    pub end_reason: Option<String>,
}

/// A connection that a conversation may use.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct ConversationConnectionRow {
    /// Catalogue id.
    pub provider: String,
    /// `con_…`.
    pub connection_id: String,
    /// `crd_…`.
    pub credential_id: String,
    /// `inject` or `broker`.
    pub hand_over: String,
    /// 1 for the one a tool means when it names only the provider.
    pub is_primary: i64,
    /// The generation of the token that ElevenLabs got last; 0 when it got none.
    pub handed_generation: i64,
}

/// Adds a conversation that is about to start.
///
/// # Errors
/// As every statement.
pub async fn conversation_insert(tx: &mut Tx, scope: &TenantScope, row: &ConversationRow) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO conversations (tenant_id, id, user_id, agent_id, workspace_tenant_id, workspace_id, api_key_id, channel, status, ticket_hash, ticket_expires_at,
         relay_hash, relay_expires_at, start_data, refresh_tool, broker, client_variables, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'starting', $9, $10, $11, $12, $13, $14, $15, $16, $17)",
        scope.tenant(),
        &row.id,
        &row.user_id,
        &row.agent_id,
        &row.workspace_tenant_id,
        &row.workspace_id,
        &row.api_key_id,
        &row.channel,
        &row.ticket_hash,
        row.ticket_expires_at,
        &row.relay_hash,
        row.relay_expires_at,
        &row.start_data,
        &row.refresh_tool,
        &row.broker,
        &row.client_variables,
        row.created_at
    )?;
    Ok(())
}

/// Lets a conversation use a connection.
///
/// # Errors
/// As every statement.
pub async fn conversation_connection_insert(
    tx: &mut Tx,
    scope: &TenantScope,
    conversation: &str,
    row: &ConversationConnectionRow,
) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO conversation_connections (tenant_id, conversation_id, provider, connection_id, credential_id, hand_over, is_primary, handed_generation)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        scope.tenant(),
        conversation,
        &row.provider,
        &row.connection_id,
        &row.credential_id,
        &row.hand_over,
        row.is_primary,
        row.handed_generation
    )?;
    Ok(())
}

/// The second commit of a start: upstream has agreed. False when the conversation has ended meanwhile.
///
/// # Errors
/// As every statement.
pub async fn conversation_mark_started(
    tx: &mut Tx,
    scope: &TenantScope,
    id: &str,
    upstream_id: Option<&str>,
    now: i64,
) -> Result<bool, StoreError> {
    let marked = sql!(
        tx,
        execute,
        "UPDATE conversations SET status = 'started', upstream_id = COALESCE($3, upstream_id), started_at = $4
         WHERE tenant_id = $1 AND id = $2 AND status IN ('starting', 'started')",
        scope.tenant(),
        id,
        upstream_id,
        now
    )?;
    Ok(marked == 1)
}

/// Ends a conversation, its ticket and its relay; false when it had ended.
///
/// # Errors
/// As every statement.
pub async fn conversation_end(
    tx: &mut Tx,
    scope: &TenantScope,
    id: &str,
    status: &str,
    reason: &str,
    now: i64,
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE conversations SET status = $3, end_reason = $4, ended_at = $5, start_data = NULL WHERE tenant_id = $1 AND id = $2 AND ended_at IS NULL",
        scope.tenant(),
        id,
        status,
        reason,
        now
    )? == 1)
}

/// Ends every open conversation that may use a connection; gives their ids.
///
/// # Errors
/// As every statement.
pub async fn conversations_end_by_connection(
    tx: &mut Tx,
    scope: &TenantScope,
    connection: &str,
    reason: &str,
    now: i64,
) -> Result<Vec<String>, StoreError> {
    let rows = sql!(
        tx,
        all (String,),
        "UPDATE conversations SET status = 'ended', end_reason = $3, ended_at = $4, start_data = NULL WHERE tenant_id = $1 AND ended_at IS NULL
         AND id IN (SELECT conversation_id FROM conversation_connections WHERE tenant_id = $1 AND connection_id = $2) RETURNING id",
        scope.tenant(),
        connection,
        reason,
        now
    )?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Ends every open conversation of a user; gives the number.
///
/// # Errors
/// As every statement.
pub async fn conversations_end_by_user(
    tx: &mut Tx,
    scope: &TenantScope,
    user: &str,
    reason: &str,
    now: i64,
) -> Result<u64, StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE conversations SET status = 'ended', end_reason = $3, ended_at = $4, start_data = NULL
         WHERE tenant_id = $1 AND user_id = $2 AND ended_at IS NULL",
        scope.tenant(),
        user,
        reason,
        now
    )
}

/// Ends every open conversation that a platform key has started; gives the number.
///
/// # Errors
/// As every statement.
pub async fn conversations_end_by_key(
    tx: &mut Tx,
    scope: &TenantScope,
    key: &str,
    reason: &str,
    now: i64,
) -> Result<u64, StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE conversations SET status = 'ended', end_reason = $3, ended_at = $4, start_data = NULL
         WHERE tenant_id = $1 AND api_key_id = $2 AND ended_at IS NULL",
        scope.tenant(),
        key,
        reason,
        now
    )
}

/// Ends what has outlived its ticket; gives the number.
///
/// # Errors
/// As every statement.
pub async fn conversations_end_expired(tx: &mut Tx, _: SystemScope, now: i64) -> Result<u64, StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE conversations SET status = 'ended', end_reason = 'expired', ended_at = $1, start_data = NULL WHERE ended_at IS NULL AND ticket_expires_at <= $1",
        now
    )
}

/// One conversation.
///
/// # Errors
/// As every statement.
pub async fn conversation_by_id(
    tx: &mut Tx,
    scope: &TenantScope,
    id: &str,
) -> Result<Option<ConversationRow>, StoreError> {
    sql!(
        tx,
        optional ConversationRow,
        "SELECT * FROM conversations WHERE tenant_id = $1 AND id = $2 AND ($3 IS NULL OR user_id = $3)",
        scope.tenant(),
        id,
        scope.user()
    )
}

/// Conversations, newest first, before `before` (exclusive; empty means from the end).
///
/// # Errors
/// As every statement.
pub async fn conversation_list(
    tx: &mut Tx,
    scope: &TenantScope,
    before: &str,
    limit: i64,
) -> Result<Vec<ConversationRow>, StoreError> {
    sql!(
        tx,
        all ConversationRow,
        "SELECT * FROM conversations WHERE tenant_id = $1 AND ($2 = '' OR id < $2) AND ($3 IS NULL OR user_id = $3) ORDER BY id DESC LIMIT $4",
        scope.tenant(),
        before,
        scope.user(),
        limit
    )
}

/// The conversation of a ticket, ended or not.
///
/// # Errors
/// As every statement.
pub async fn conversation_by_ticket(
    tx: &mut Tx,
    _: SystemScope,
    ticket_hash: &str,
) -> Result<Option<ConversationRow>, StoreError> {
    sql!(tx, optional ConversationRow, "SELECT * FROM conversations WHERE ticket_hash = $1", ticket_hash)
}

/// The conversation of a relay link, whatever its state.
///
/// # Errors
/// As every statement.
pub async fn conversation_by_relay(
    tx: &mut Tx,
    _: SystemScope,
    relay_hash: &str,
) -> Result<Option<ConversationRow>, StoreError> {
    sql!(tx, optional ConversationRow, "SELECT * FROM conversations WHERE relay_hash = $1", relay_hash)
}

/// Enters a relay: once, in time, while the conversation is open.
///
/// # Errors
/// As every statement.
pub async fn conversation_enter_relay(
    tx: &mut Tx,
    _: SystemScope,
    relay_hash: &str,
    now: i64,
) -> Result<Option<ConversationRow>, StoreError> {
    sql!(
        tx,
        optional ConversationRow,
        "UPDATE conversations SET relay_used_at = $2 WHERE relay_hash = $1 AND relay_used_at IS NULL AND relay_expires_at > $2 AND ended_at IS NULL RETURNING *",
        relay_hash,
        now
    )
}

/// What a conversation may use.
///
/// # Errors
/// As every statement.
pub async fn conversation_connections(
    tx: &mut Tx,
    scope: &TenantScope,
    conversation: &str,
) -> Result<Vec<ConversationConnectionRow>, StoreError> {
    sql!(
        tx,
        all ConversationConnectionRow,
        "SELECT provider, connection_id, credential_id, hand_over, is_primary, handed_generation FROM conversation_connections
         WHERE tenant_id = $1 AND conversation_id = $2 ORDER BY provider, is_primary DESC, connection_id",
        scope.tenant(),
        conversation
    )
}

/// Remembers which generation of a token ElevenLabs got.
///
/// # Errors
/// As every statement.
pub async fn conversation_connection_handed(
    tx: &mut Tx,
    scope: &TenantScope,
    conversation: &str,
    connection: &str,
    generation: i64,
) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE conversation_connections SET handed_generation = $4 WHERE tenant_id = $1 AND conversation_id = $2 AND connection_id = $3 AND handed_generation < $4",
        scope.tenant(),
        conversation,
        connection,
        generation
    )?;
    Ok(())
}

/// Counts one use of a ticket in windows of `window` milliseconds; gives the number in the current one and when it began.
///
/// # Errors
/// As every statement.
pub async fn ticket_use_count(
    tx: &mut Tx,
    scope: &TenantScope,
    conversation: &str,
    kind: &str,
    now: i64,
    window: i64,
) -> Result<(i64, i64), StoreError> {
    sql!(
        tx,
        one (i64, i64),
        "INSERT INTO ticket_uses (tenant_id, conversation_id, kind, window_started_at, uses) VALUES ($1, $2, $3, $4, 1)
         ON CONFLICT (tenant_id, conversation_id, kind) DO UPDATE SET
         uses = CASE WHEN ticket_uses.window_started_at + $5 <= $4 THEN 1 ELSE ticket_uses.uses + 1 END,
         window_started_at = CASE WHEN ticket_uses.window_started_at + $5 <= $4 THEN $4 ELSE ticket_uses.window_started_at END
         RETURNING uses, window_started_at",
        scope.tenant(),
        conversation,
        kind,
        now,
        window
    )
}
