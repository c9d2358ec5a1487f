//! Revocations: tokens that nobody uses any more and that are still to be ended at their provider (OA-17, RL-37), and when we last
//! asked for that.

use super::credentials::CredentialName;
use super::{StoreError, Tx, sql};
use crate::caller::{SystemScope, TenantScope};

/// What is still to be ended.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct RevocationRow {
    /// `ten_…`.
    pub tenant_id: String,
    /// `rvk_…`.
    pub id: String,
    /// `crd_…`: a deleted credential, or one that has gone on without these tokens.
    pub credential_id: String,
    /// Of the integration whose client was granted these.
    pub revision: i64,
    /// Sealed by the credential's owner.
    pub access_token: Option<Vec<u8>>,
    /// Sealed by the credential's owner.
    pub refresh_token: Option<Vec<u8>>,
    /// How often it was taken up again.
    pub attempts: i64,
    /// When it is taken up next.
    pub next_attempt_at: i64,
    /// When it is given up.
    pub expires_at: i64,
}

/// Adds one.
///
/// # Errors
/// As every statement.
pub async fn revocation_insert(tx: &mut Tx, scope: &TenantScope, row: &RevocationRow) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO revocations (tenant_id, id, credential_id, access_token, refresh_token, attempts, next_attempt_at, expires_at, revision) VALUES ($1, $2, $3, $4, $5, 0, $6, $7, $8)",
        scope.tenant(),
        &row.id,
        &row.credential_id,
        &row.access_token,
        &row.refresh_token,
        row.next_attempt_at,
        row.expires_at,
        row.revision
    )?;
    Ok(())
}

/// Takes up to `limit` revocations whose time has come. Each comes again after a minute, then after two, and so on, an hour at most.
///
/// # Errors
/// As every statement.
pub async fn revocations_claim(
    tx: &mut Tx,
    _: SystemScope,
    now: i64,
    limit: i64,
) -> Result<Vec<RevocationRow>, StoreError> {
    sql!(
        tx,
        all RevocationRow,
        "UPDATE revocations SET attempts = attempts + 1,
         next_attempt_at = $1 + CASE WHEN attempts < 6 THEN 60000 << CAST(attempts AS INTEGER) ELSE 3600000 END
         WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM revocations WHERE next_attempt_at <= $1 ORDER BY next_attempt_at LIMIT $2)
         AND next_attempt_at <= $1 RETURNING *",
        now,
        limit
    )
}

/// Is not taken up again before `until`, but once more before it is given up.
///
/// # Errors
/// As every statement.
pub async fn revocation_postpone(
    tx: &mut Tx,
    _: SystemScope,
    tenant: &str,
    id: &str,
    until: i64,
) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE revocations SET next_attempt_at = CASE WHEN $3 < expires_at THEN $3 ELSE expires_at END
         WHERE tenant_id = $1 AND id = $2 AND next_attempt_at < $3 AND next_attempt_at < expires_at",
        tenant,
        id,
        until
    )?;
    Ok(())
}

/// It is done, or given up. False when somebody else has said so.
///
/// # Errors
/// As every statement.
pub async fn revocation_delete(tx: &mut Tx, _: SystemScope, tenant: &str, id: &str) -> Result<bool, StoreError> {
    Ok(sql!(tx, execute, "DELETE FROM revocations WHERE tenant_id = $1 AND id = $2", tenant, id)? == 1)
}

/// Notes that its provider is about to be asked to end tokens of a credential, which may be deleted; for the first time, or again
/// within two hours.
///
/// # Errors
/// As every statement.
pub async fn credential_note_revocation(
    tx: &mut Tx,
    _: SystemScope,
    name: &CredentialName,
    now: i64,
) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE credentials SET revoked_from = CASE WHEN revoked_at > $3 - 7200000 THEN revoked_from ELSE $3 END, revoked_at = $3 WHERE tenant_id = $1 AND id = $2",
        &name.tenant_id,
        &name.id,
        now
    )?;
    Ok(())
}

/// Whether the provider was asked to end tokens of this kind that belong to an account, or to any account of a workspace: by whoever
/// has the same client, for the last time not before `from`, and for the first not after `until`.
///
/// # Errors
/// As every statement.
pub async fn account_was_revoked(
    tx: &mut Tx,
    _: SystemScope,
    (tenant, integration): (&str, &str),
    (whose, kind): (&str, &str),
    (from, until): (i64, i64),
) -> Result<bool, StoreError> {
    let (count,) = sql!(
        tx,
        one (i64,),
        "SELECT count(*) FROM credentials k JOIN integrations i ON i.tenant_id = k.tenant_id AND i.id = k.integration_id
         JOIN integrations j ON j.client = i.client AND j.tenant_id = $1 AND j.id = $2
         JOIN connection_credentials u ON u.tenant_id = k.tenant_id AND u.credential_id = k.id
         JOIN connections c ON c.tenant_id = u.tenant_id AND c.id = u.connection_id
         WHERE k.revoked_at >= $5 AND k.revoked_from <= $6 AND k.kind = $4 AND (c.account_id = $3 OR substr(c.account_id, 1, length($3) + 1) = $3 || '/')",
        tenant,
        integration,
        whose,
        kind,
        from,
        until
    )?;
    Ok(count > 0)
}
