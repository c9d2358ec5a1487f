//! Agents with their needs, and grants of agents and voices to users.

use super::{StoreError, Tx, sql};
use crate::caller::TenantScope;

/// An ElevenLabs agent with its needs.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct AgentRow {
    /// `ten_…`.
    pub tenant_id: String,
    /// `agt_…`.
    pub id: String,
    /// ElevenLabs' id.
    pub agent_id: String,
    /// Owner of the workspace.
    pub workspace_tenant_id: String,
    /// `wks_…`.
    pub workspace_id: String,
    /// `all_users` or `granted`.
    pub access: String,
    /// JSON list of needs.
    pub needs: String,
    /// JSON list of names a browser may set.
    pub client_variables: String,
    /// JSON object: allowed methods and paths by provider.
    pub broker: String,
    /// Seconds.
    pub max_duration: i64,
    /// Milliseconds UTC.
    pub created_at: i64,
    /// Milliseconds UTC.
    pub updated_at: i64,
}

/// Adds or replaces an agent.
///
/// # Errors
/// [`StoreError::Conflict`] when another tenant owns this agent of this workspace.
pub async fn agent_put(tx: &mut Tx, scope: &TenantScope, row: &AgentRow) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO agents (tenant_id, id, agent_id, workspace_tenant_id, workspace_id, access, needs, client_variables, broker, max_duration, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)
         ON CONFLICT (tenant_id, agent_id) DO UPDATE SET workspace_tenant_id = excluded.workspace_tenant_id, workspace_id = excluded.workspace_id,
         access = excluded.access, needs = excluded.needs, client_variables = excluded.client_variables, broker = excluded.broker,
         max_duration = excluded.max_duration, updated_at = excluded.updated_at",
        scope.tenant(),
        &row.id,
        &row.agent_id,
        &row.workspace_tenant_id,
        &row.workspace_id,
        &row.access,
        &row.needs,
        &row.client_variables,
        &row.broker,
        row.max_duration,
        row.updated_at
    )?;
    Ok(())
}

/// One agent by ElevenLabs' id.
///
/// # Errors
/// As every statement.
pub async fn agent_by_agent_id(
    tx: &mut Tx,
    scope: &TenantScope,
    agent_id: &str,
) -> Result<Option<AgentRow>, StoreError> {
    sql!(tx, optional AgentRow, "SELECT * FROM agents WHERE tenant_id = $1 AND agent_id = $2", scope.tenant(), agent_id)
}

/// A tenant's agents.
///
/// # Errors
/// As every statement.
pub async fn agent_list(tx: &mut Tx, scope: &TenantScope) -> Result<Vec<AgentRow>, StoreError> {
    sql!(tx, all AgentRow, "SELECT * FROM agents WHERE tenant_id = $1 ORDER BY agent_id", scope.tenant())
}

/// Permission of a user for an agent or a voice.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct GrantRow {
    /// `usr_…`.
    pub user_id: String,
    /// `agent` or `voice`.
    pub resource_type: String,
    /// ElevenLabs' id.
    pub resource_id: String,
    /// `viewer`, `editor` or `admin`.
    pub permission_level: String,
    /// Milliseconds UTC.
    pub created_at: i64,
}

/// Adds or replaces a grant.
///
/// # Errors
/// As every statement.
pub async fn grant_put(tx: &mut Tx, scope: &TenantScope, row: &GrantRow) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO grants (tenant_id, user_id, resource_type, resource_id, permission_level, created_at) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (tenant_id, user_id, resource_type, resource_id) DO UPDATE SET permission_level = excluded.permission_level",
        scope.tenant(),
        &row.user_id,
        &row.resource_type,
        &row.resource_id,
        &row.permission_level,
        row.created_at
    )?;
    Ok(())
}

/// A user's grants, or everybody's.
///
/// # Errors
/// As every statement.
pub async fn grant_list(tx: &mut Tx, scope: &TenantScope, user: Option<&str>) -> Result<Vec<GrantRow>, StoreError> {
    sql!(
        tx,
        all GrantRow,
        "SELECT user_id, resource_type, resource_id, permission_level, created_at FROM grants WHERE tenant_id = $1 AND ($2 IS NULL OR user_id = $2)
         ORDER BY user_id, resource_type, resource_id LIMIT 1000",
        scope.tenant(),
        user
    )
}

/// A user's grant for one thing.
///
/// # Errors
/// As every statement.
pub async fn grant_find(
    tx: &mut Tx,
    scope: &TenantScope,
    user: &str,
    resource_type: &str,
    resource_id: &str,
) -> Result<Option<GrantRow>, StoreError> {
    sql!(
        tx,
        optional GrantRow,
        "SELECT user_id, resource_type, resource_id, permission_level, created_at FROM grants
         WHERE tenant_id = $1 AND user_id = $2 AND resource_type = $3 AND resource_id = $4",
        scope.tenant(),
        user,
        resource_type,
        resource_id
    )
}

/// Deletes a grant; false when there was none.
///
/// # Errors
/// As every statement.
pub async fn grant_delete(
    tx: &mut Tx,
    scope: &TenantScope,
    user: &str,
    resource_type: &str,
    resource_id: &str,
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "DELETE FROM grants WHERE tenant_id = $1 AND user_id = $2 AND resource_type = $3 AND resource_id = $4",
        scope.tenant(),
        user,
        resource_type,
        resource_id
    )? == 1)
}
