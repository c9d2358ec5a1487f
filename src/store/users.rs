//! End users, known by their tenant's own id.

use super::{StoreError, Tx, sql};
use crate::caller::TenantScope;

/// An end user of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct UserRow {
    /// `ten_…`.
    pub tenant_id: String,
    /// `usr_…`.
    pub id: String,
    /// The tenant's own id.
    pub external_id: String,
    /// Sealed JSON `{display_name?, email?}`.
    pub profile: Option<Vec<u8>>,
    /// Milliseconds UTC.
    pub created_at: i64,
    /// When the user was erased.
    pub erased_at: Option<i64>,
}

/// Adds a user unless the external id is there already; gives the row that is there then.
///
/// # Errors
/// As every statement.
pub async fn user_ensure(
    tx: &mut Tx,
    scope: &TenantScope,
    new_id: &str,
    external_id: &str,
    now: i64,
) -> Result<UserRow, StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO users (tenant_id, id, external_id, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (tenant_id, external_id) WHERE erased_at IS NULL DO NOTHING",
        scope.tenant(),
        new_id,
        external_id,
        now
    )?;
    sql!(
        tx,
        one UserRow,
        "SELECT * FROM users WHERE tenant_id = $1 AND external_id = $2 AND erased_at IS NULL",
        scope.tenant(),
        external_id
    )
}

/// Finds a user by the tenant's own id.
///
/// # Errors
/// As every statement.
pub async fn user_by_external_id(
    tx: &mut Tx,
    scope: &TenantScope,
    external_id: &str,
) -> Result<Option<UserRow>, StoreError> {
    sql!(
        tx,
        optional UserRow,
        "SELECT * FROM users WHERE tenant_id = $1 AND external_id = $2 AND erased_at IS NULL AND ($3 IS NULL OR id = $3)",
        scope.tenant(),
        external_id,
        scope.user()
    )
}

/// Finds a user by our id.
///
/// # Errors
/// As every statement.
pub async fn user_by_id(tx: &mut Tx, scope: &TenantScope, id: &str) -> Result<Option<UserRow>, StoreError> {
    sql!(
        tx,
        optional UserRow,
        "SELECT * FROM users WHERE tenant_id = $1 AND id = $2 AND erased_at IS NULL AND ($3 IS NULL OR id = $3)",
        scope.tenant(),
        id,
        scope.user()
    )
}

/// Users in the order of their making, after `after` (exclusive).
///
/// # Errors
/// As every statement.
pub async fn user_list(tx: &mut Tx, scope: &TenantScope, after: &str, limit: i64) -> Result<Vec<UserRow>, StoreError> {
    sql!(
        tx,
        all UserRow,
        "SELECT * FROM users WHERE tenant_id = $1 AND id > $2 AND erased_at IS NULL AND ($4 IS NULL OR id = $4) ORDER BY id LIMIT $3",
        scope.tenant(),
        after,
        limit,
        scope.user()
    )
}

/// Replaces the sealed profile.
///
/// # Errors
/// As every statement.
pub async fn user_update_profile(tx: &mut Tx, scope: &TenantScope, id: &str, profile: &[u8]) -> Result<(), StoreError> {
    sql!(tx, execute, "UPDATE users SET profile = $3 WHERE tenant_id = $1 AND id = $2", scope.tenant(), id, profile)?;
    Ok(())
}

/// Marks a user as erased and forgets the profile. The tenant's own id becomes free again.
///
/// # Errors
/// As every statement.
pub async fn user_erase(tx: &mut Tx, scope: &TenantScope, id: &str, now: i64) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE users SET erased_at = $3, profile = NULL, external_id = id WHERE tenant_id = $1 AND id = $2 AND erased_at IS NULL",
        scope.tenant(),
        id,
        now
    )? == 1)
}
