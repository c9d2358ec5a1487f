//! Logins: ways to sign in. Before sign-in no tenant is known, so the look-up by e-mail hash crosses tenants.

use super::{StoreError, Tx, sql};
use crate::caller::{SystemScope, TenantScope};

/// A way to sign in.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct LoginRow {
    /// `ten_…`.
    pub tenant_id: String,
    /// `mem_…`.
    pub id: String,
    /// Keyed hash of the lower-case e-mail.
    pub email_hash: String,
    /// Sealed e-mail.
    pub email: Vec<u8>,
    /// Argon2id in PHC form.
    pub password_hash: String,
    /// `owner`, `admin`, `viewer`, or none for an end user.
    pub role: Option<String>,
    /// The end user this login is.
    pub user_id: Option<String>,
    /// Milliseconds UTC.
    pub created_at: i64,
    /// When it was switched off.
    pub disabled_at: Option<i64>,
}

/// Adds a login.
///
/// # Errors
/// [`StoreError::Conflict`] when the e-mail has a login in this tenant.
pub async fn login_insert(tx: &mut Tx, scope: &TenantScope, row: &LoginRow) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO logins (tenant_id, id, email_hash, email, password_hash, role, user_id, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        scope.tenant(),
        &row.id,
        &row.email_hash,
        &row.email,
        &row.password_hash,
        &row.role,
        &row.user_id,
        row.created_at
    )?;
    Ok(())
}

/// Every enabled login with this e-mail, whatever the tenant; at most 20.
///
/// # Errors
/// As every statement.
pub async fn logins_by_email(tx: &mut Tx, _: SystemScope, email_hash: &str) -> Result<Vec<LoginRow>, StoreError> {
    sql!(
        tx,
        all LoginRow,
        "SELECT * FROM logins WHERE email_hash = $1 AND disabled_at IS NULL ORDER BY tenant_id LIMIT 20",
        email_hash
    )
}

/// One enabled login: a session asks on every request whether it still exists.
///
/// # Errors
/// As every statement.
pub async fn login_by_id(tx: &mut Tx, _: SystemScope, tenant: &str, id: &str) -> Result<Option<LoginRow>, StoreError> {
    sql!(tx, optional LoginRow, "SELECT * FROM logins WHERE tenant_id = $1 AND id = $2 AND disabled_at IS NULL", tenant, id)
}

/// How many logins with a role there are in the whole installation: set-up closes for ever after the first.
///
/// # Errors
/// As every statement.
pub async fn logins_with_role(tx: &mut Tx, _: SystemScope) -> Result<i64, StoreError> {
    Ok(sql!(tx, one(i64,), "SELECT count(*) FROM logins WHERE role IS NOT NULL")?.0)
}
