//! ElevenLabs workspaces and which of the operator's agents are shared with whom.

use super::{StoreError, Tx, sql};
use crate::caller::{SystemScope, TenantScope};

/// An ElevenLabs workspace with its API keys.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct WorkspaceRow {
    /// `ten_…`; the installation's id for the operator's own.
    pub tenant_id: String,
    /// `wks_…`.
    pub id: String,
    /// Unique in its tenant.
    pub name: String,
    /// A row of the regional hosts table.
    pub region: String,
    /// `usr_…` when it belongs to one user.
    pub user_id: Option<String>,
    /// Sealed API key.
    pub primary_key: Option<Vec<u8>>,
    /// Sealed API key.
    pub secondary_key: Option<Vec<u8>>,
    /// `primary` or `secondary`.
    pub active_slot: String,
    /// Sealed value of the tool header.
    pub tool_header: Vec<u8>,
    /// SHA-256 of the tool header's value.
    pub tool_header_hash: String,
    /// SHA-256 of the value before the last rotation.
    pub previous_tool_header_hash: Option<String>,
    /// Milliseconds UTC.
    pub created_at: i64,
    /// Milliseconds UTC.
    pub updated_at: i64,
}

/// Adds a workspace.
///
/// # Errors
/// [`StoreError::Conflict`] when the name is taken.
pub async fn workspace_insert(tx: &mut Tx, scope: &TenantScope, row: &WorkspaceRow) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO workspaces (tenant_id, id, name, region, user_id, primary_key, secondary_key, active_slot, tool_header, tool_header_hash, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)",
        scope.tenant(),
        &row.id,
        &row.name,
        &row.region,
        &row.user_id,
        &row.primary_key,
        &row.secondary_key,
        &row.active_slot,
        &row.tool_header,
        &row.tool_header_hash,
        row.created_at
    )?;
    Ok(())
}

/// Changes region, keys and the active slot.
///
/// # Errors
/// As every statement.
pub async fn workspace_update(tx: &mut Tx, scope: &TenantScope, row: &WorkspaceRow) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE workspaces SET region = $3, primary_key = $4, secondary_key = $5, active_slot = $6, updated_at = $7 WHERE tenant_id = $1 AND id = $2",
        scope.tenant(),
        &row.id,
        &row.region,
        &row.primary_key,
        &row.secondary_key,
        &row.active_slot,
        row.updated_at
    )?;
    Ok(())
}

/// A tenant's workspace by name.
///
/// # Errors
/// As every statement.
pub async fn workspace_by_name(
    tx: &mut Tx,
    scope: &TenantScope,
    name: &str,
) -> Result<Option<WorkspaceRow>, StoreError> {
    sql!(tx, optional WorkspaceRow, "SELECT * FROM workspaces WHERE tenant_id = $1 AND name = $2", scope.tenant(), name)
}

/// A tenant's workspaces by name.
///
/// # Errors
/// As every statement.
pub async fn workspace_list(tx: &mut Tx, scope: &TenantScope) -> Result<Vec<WorkspaceRow>, StoreError> {
    sql!(tx, all WorkspaceRow, "SELECT * FROM workspaces WHERE tenant_id = $1 ORDER BY name", scope.tenant())
}

/// One workspace of whichever tenant owns it: a conversation names both.
///
/// # Errors
/// As every statement.
pub async fn workspace_by_id(
    tx: &mut Tx,
    _: SystemScope,
    owner_tenant: &str,
    id: &str,
) -> Result<Option<WorkspaceRow>, StoreError> {
    sql!(tx, optional WorkspaceRow, "SELECT * FROM workspaces WHERE tenant_id = $1 AND id = $2", owner_tenant, id)
}

/// Lets a tenant use one agent of an operator's workspace.
///
/// # Errors
/// As every statement.
pub async fn workspace_share(
    tx: &mut Tx,
    _: SystemScope,
    owner_tenant: &str,
    workspace: &str,
    tenant: &str,
    agent: &str,
    now: i64,
) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO workspace_shares (owner_tenant_id, workspace_id, tenant_id, agent_id, created_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (tenant_id, workspace_id, agent_id) DO NOTHING",
        owner_tenant,
        workspace,
        tenant,
        agent,
        now
    )?;
    Ok(())
}

/// The operator's workspace of this name, if it shares this agent with the scope's tenant.
///
/// # Errors
/// As every statement.
pub async fn workspace_shared(
    tx: &mut Tx,
    scope: &TenantScope,
    name: &str,
    agent: &str,
) -> Result<Option<WorkspaceRow>, StoreError> {
    sql!(
        tx,
        optional WorkspaceRow,
        "SELECT w.* FROM workspaces w JOIN workspace_shares s ON s.owner_tenant_id = w.tenant_id AND s.workspace_id = w.id
         WHERE s.tenant_id = $1 AND s.agent_id = $3 AND w.name = $2",
        scope.tenant(),
        name,
        agent
    )
}
