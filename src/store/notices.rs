//! What providers tell us on their own: which of it was heard before, and whose connections it is about.

use super::connections::ConnectionRow;
use super::integrations::IntegrationRow;
use super::{StoreError, Tx, sql};
use crate::caller::{SystemScope, TenantScope};

/// The integration that a provider's address for notices names; whose it is stands in its row.
///
/// # Errors
/// As every statement.
pub async fn integration_of_notices(
    tx: &mut Tx,
    _: SystemScope,
    id: &str,
    provider: &str,
) -> Result<Option<IntegrationRow>, StoreError> {
    sql!(
        tx,
        optional IntegrationRow,
        "SELECT * FROM integrations WHERE id = $1 AND provider = $2 AND deleted_at IS NULL",
        id,
        provider
    )
}

/// Notes that a notice was heard; false when it was heard before.
///
/// # Errors
/// As every statement.
pub async fn notice_put(
    tx: &mut Tx,
    scope: &TenantScope,
    integration: &str,
    id: &str,
    now: i64,
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "INSERT INTO notices (tenant_id, integration_id, id, heard_at) VALUES ($1, $2, $3, $4) ON CONFLICT (tenant_id, integration_id, id) DO NOTHING",
        scope.tenant(),
        integration,
        id,
        now
    )? == 1)
}

/// Forgets notices that were heard before then, and are not repeated any more.
///
/// # Errors
/// As every statement.
pub async fn notices_delete_old(tx: &mut Tx, _: SystemScope, before: i64) -> Result<u64, StoreError> {
    sql!(tx, execute, "DELETE FROM notices WHERE heard_at < $1", before)
}

/// The connections of an integration to accounts whose ids begin with `prefix`: a workspace's. Walks over all that the tenant has at
/// the provider, which is rarely asked for.
///
/// # Errors
/// As every statement.
pub async fn connections_below(
    tx: &mut Tx,
    scope: &TenantScope,
    integration: &IntegrationRow,
    prefix: &str,
) -> Result<Vec<ConnectionRow>, StoreError> {
    sql!(
        tx,
        all ConnectionRow,
        "SELECT * FROM connections WHERE tenant_id = $1 AND provider = $2 AND integration_id = $3 AND substr(account_id, 1, length($4)) = $4 AND deleted_at IS NULL ORDER BY id",
        scope.tenant(),
        &integration.provider,
        &integration.id,
        prefix
    )
}

/// Moves a connection from one status and reason to another, where it has the first.
///
/// # Errors
/// As every statement.
pub async fn connection_change_status(
    tx: &mut Tx,
    scope: &TenantScope,
    id: &str,
    (from, from_reason): (&str, Option<&str>),
    (to, to_reason): (&str, Option<&str>),
    now: i64,
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE connections SET status = $5, reason = $6, updated_at = $7 WHERE tenant_id = $1 AND id = $2 AND status = $3 AND reason IS NOT DISTINCT FROM $4 AND deleted_at IS NULL",
        scope.tenant(),
        id,
        from,
        from_reason,
        to,
        to_reason,
        now
    )? == 1)
}

/// Gives an integration what its provider proves itself with; false when it has something already.
///
/// # Errors
/// As every statement.
pub async fn integration_give_secret(
    tx: &mut Tx,
    scope: &TenantScope,
    id: &str,
    sealed: &[u8],
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE integrations SET signing_secret = $3 WHERE tenant_id = $1 AND id = $2 AND signing_secret IS NULL AND deleted_at IS NULL",
        scope.tenant(),
        id,
        sealed
    )? == 1)
}

/// Takes it away again, so that another is made the next time.
///
/// # Errors
/// As every statement.
pub async fn integration_take_secret(tx: &mut Tx, scope: &TenantScope, id: &str) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE integrations SET signing_secret = NULL WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
        scope.tenant(),
        id
    )?;
    Ok(())
}

/// Gives a credential that needs its user another reason, where it has the one that is expected.
///
/// # Errors
/// As every statement.
pub async fn credential_change_reason(
    tx: &mut Tx,
    scope: &TenantScope,
    id: &str,
    (from, to): (&str, &str),
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE credentials SET reason = $4, last_error = $4 WHERE tenant_id = $1 AND id = $2 AND status = 'needs_reauth' AND reason = $3 AND deleted_at IS NULL",
        scope.tenant(),
        id,
        from,
        to
    )? == 1)
}

/// What a provider says may be about other tokens than these: the access token is not lent any more, and the refresh token finds out.
/// False when they are newer than `happened`, or there is nothing to find out with.
///
/// # Errors
/// As every statement.
pub async fn credential_look_into(
    tx: &mut Tx,
    scope: &TenantScope,
    id: &str,
    happened: i64,
    now: i64,
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE credentials SET expires_at = CASE WHEN expires_at < $4 THEN expires_at ELSE $4 END,
         due_at = CASE WHEN phase = 'idle' AND doubt_since IS NULL THEN $4 ELSE due_at END, slot_at = NULL
         WHERE tenant_id = $1 AND id = $2 AND obtained_at <= $3 AND refresh_token IS NOT NULL AND status = 'active' AND deleted_at IS NULL",
        scope.tenant(),
        id,
        happened,
        now
    )? == 1)
}

/// The provider says that what a credential stands for has ended: its tokens are destroyed, and only its user can help. False when
/// they are newer than `happened`, or gone already. Whatever flight is in the air comes too late, as after a consent.
///
/// # Errors
/// As every statement.
pub async fn credential_lose(
    tx: &mut Tx,
    scope: &TenantScope,
    id: &str,
    (reason, happened): (&str, i64),
    now: i64,
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE credentials SET status = 'needs_reauth', reason = $3, last_error = $3, last_error_at = $5, access_token = NULL, refresh_token = NULL,
         expires_at = CASE WHEN expires_at < $5 THEN expires_at ELSE $5 END, due_at = NULL, slot_at = NULL, next_attempt_at = NULL,
         generation = generation + 1, fence = fence + 1, consents = consents + 1, stored_fence = NULL, lease_owner = NULL, lease_until = NULL, phase = 'idle',
         sent_at = NULL, doubt_first_sent = NULL, doubt_since = NULL, doubt_replays = 0, doubt_likely_unspent = 0
         WHERE tenant_id = $1 AND id = $2 AND obtained_at <= $4 AND access_token IS NOT NULL AND deleted_at IS NULL",
        scope.tenant(),
        id,
        reason,
        happened,
        now
    )? == 1)
}
