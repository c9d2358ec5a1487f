//! What a flight writes of a credential: conditional updates, each of which loses against whoever was faster.
//!
//! Five of them carry the protocol (`credentials::refresh` explains it). [`credential_claim`] takes the lease;
//! [`credential_announce`] says "about to send", where the claim has not; [`credential_store`] swaps the tokens where the
//! generation is unchanged, whoever holds the lease;
//! [`credential_fail`] and [`credential_needs_reauth`] write anything else that a flight has to say, while its fence is the
//! newest.

use super::credentials::{CredentialName, DoubtColumns, NewTokens};
use super::{StoreError, Tx, sql};
use crate::caller::SystemScope;

/// A claim to send one refresh request.
#[derive(Clone, Copy, Debug)]
pub struct ClaimColumns<'a> {
    /// The generation whose refresh token will be spent,
    pub generation: i64,
    /// the fence,
    pub fence: i64,
    /// the phase, since [`credential_announce`] leaves the fence as it is,
    pub seen_phase: &'a str,
    /// and the doubt, since [`credential_fail`] may do so.
    pub seen_doubt: Option<i64>,
    /// This process.
    pub owner: &'a str,
    /// Now.
    pub now: i64,
    /// Until when others keep away.
    pub lease_until: i64,
    /// A lease beyond this was written by a clock that has jumped.
    pub believable: i64,
    /// The doubt to write.
    pub doubt: DoubtColumns,
    /// `claimed`, where [`credential_announce`] will follow, or `sent`.
    pub phase: &'a str,
}

/// Takes the lease, and may write "about to send" with it; gives the new fence, or none when the row has changed. The sweep looks
/// when the lease ends: whoever holds it may be dead by then, and a provider's grace does not wait for the next reader.
///
/// # Errors
/// As every statement.
pub async fn credential_claim(
    tx: &mut Tx,
    _: SystemScope,
    name: &CredentialName,
    claim: ClaimColumns<'_>,
) -> Result<Option<i64>, StoreError> {
    let row = sql!(
        tx,
        optional (i64,),
        "UPDATE credentials SET fence = fence + 1, lease_owner = $5, lease_until = $7, phase = $13, sent_at = $6,
         doubt_first_sent = $9, doubt_since = $10, doubt_replays = $11, doubt_likely_unspent = $12, due_at = $7
         WHERE tenant_id = $1 AND id = $2 AND generation = $3 AND fence = $4 AND phase = $14 AND doubt_since IS NOT DISTINCT FROM $15 AND deleted_at IS NULL AND status = 'active'
         AND (lease_until IS NULL OR lease_until <= $6 OR lease_until > $8) RETURNING fence",
        &name.tenant_id,
        &name.id,
        claim.generation,
        claim.fence,
        claim.owner,
        claim.now,
        claim.lease_until,
        claim.believable,
        claim.doubt.first_sent,
        claim.doubt.since,
        claim.doubt.replays,
        claim.doubt.likely_unspent,
        claim.phase,
        claim.seen_phase,
        claim.seen_doubt
    )?;
    Ok(row.map(|(fence,)| fence))
}

/// Writes "about to send" for a claim that has not, and renews its lease; false when the claim is another's now, and nothing must leave.
///
/// # Errors
/// As every statement.
pub async fn credential_announce(
    tx: &mut Tx,
    _: SystemScope,
    name: &CredentialName,
    generation: i64,
    fence: i64,
    (now, lease_until): (i64, i64),
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE credentials SET phase = 'sent', sent_at = $5, lease_until = $6, due_at = $6 WHERE tenant_id = $1 AND id = $2 AND generation = $3 AND fence = $4 AND phase = 'claimed' AND deleted_at IS NULL",
        &name.tenant_id,
        &name.id,
        generation,
        fence,
        now,
        lease_until
    )? == 1)
}

/// Renews the lease; false when it is another's now.
///
/// # Errors
/// As every statement.
pub async fn credential_renew_lease(
    tx: &mut Tx,
    _: SystemScope,
    name: &CredentialName,
    generation: i64,
    fence: i64,
    lease_until: i64,
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE credentials SET lease_until = $5, due_at = $5 WHERE tenant_id = $1 AND id = $2 AND generation = $3 AND fence = $4 AND phase <> 'idle' AND deleted_at IS NULL",
        &name.tenant_id,
        &name.id,
        generation,
        fence,
        lease_until
    )? == 1)
}

/// Which claim a token set answers, and where it may be stored.
#[derive(Clone, Copy, Debug)]
pub struct AnswerTo {
    /// The claim's fence.
    pub fence: i64,
    /// The consent that the spent refresh token belonged to.
    pub consents: i64,
    /// Only where nobody has claimed since.
    pub only_fence: bool,
}

/// Swaps the tokens where generation and consent are unchanged and ends lease, doubt and failure. `needs_reauth` for a
/// lost answer is healed, any other status stays. False when the row moved on or is deleted.
///
/// # Errors
/// As every statement.
pub async fn credential_store(
    tx: &mut Tx,
    _: SystemScope,
    name: &CredentialName,
    answer: AnswerTo,
    new: &NewTokens,
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE credentials SET access_token = $4, refresh_token = $5, token_type = $6, scopes = $7, obtained_at = $8, expires_at = $9, refresh_expires_at = $10,
         due_at = $11, slot_at = NULL, generation = generation + 1, stored_fence = $12, lease_owner = NULL, lease_until = NULL, phase = 'idle', sent_at = NULL,
         doubt_first_sent = NULL, doubt_since = NULL, doubt_replays = 0, doubt_likely_unspent = 0,
         reason = CASE WHEN status = 'needs_reauth' AND reason = 'rotation_response_lost' THEN NULL ELSE reason END,
         status = CASE WHEN status = 'needs_reauth' AND reason = 'rotation_response_lost' THEN 'active' ELSE status END,
         attempts = 0, next_attempt_at = NULL, unrecognised_count = 0, unrecognised_since = 0, last_error = NULL, last_error_at = NULL, last_refreshed_at = $8
         WHERE tenant_id = $1 AND id = $2 AND generation = $3 AND consents = $13 AND ($14 = 0 OR fence = $12) AND deleted_at IS NULL",
        &name.tenant_id,
        &name.id,
        new.generation,
        &new.access_token,
        &new.refresh_token,
        &new.token_type,
        &new.scopes,
        new.obtained_at,
        new.expires_at,
        new.refresh_expires_at,
        new.due_at,
        answer.fence,
        answer.consents,
        i64::from(answer.only_fence)
    )? == 1)
}

/// What a failed attempt leaves behind.
#[derive(Clone, Copy, Debug)]
pub struct FailureColumns<'a> {
    /// Only if the row still has this generation,
    pub generation: i64,
    /// and this fence,
    pub fence: i64,
    /// and, where this is set, phase `sent`.
    pub abandoned: bool,
    /// Failed attempts since the last success.
    pub attempts: i64,
    /// Not before this.
    pub next_attempt_at: i64,
    /// Code of the failure.
    pub last_error: &'a str,
    /// What remains unknown.
    pub doubt: DoubtColumns,
    /// Answers that nobody understood, and since when.
    pub unrecognised: (i64, i64),
    /// When the sweep looks next.
    pub due_at: Option<i64>,
    /// Now.
    pub now: i64,
}

impl FailureColumns<'_> {
    /// Whether nobody needs to be asked to connect again because of this attempt: it has ended without spending the token, for
    /// certain or very likely, and whoever writes this has seen that.
    #[must_use]
    pub fn heals(&self) -> bool {
        !self.abandoned && (self.doubt.first_sent.is_none() || self.doubt.likely_unspent == 1)
    }
}

/// Records a failure and gives the claim back; false when a newer flight or newer tokens are there. Where no doubt
/// remains the fence moves, so that nobody acts on a row read before: what looked like a dead claim has come to an end.
/// Whoever was taken for dead and comes back with the news that the token is (likely) good heals `needs_reauth` for a lost answer.
///
/// # Errors
/// As every statement.
pub async fn credential_fail(
    tx: &mut Tx,
    _: SystemScope,
    name: &CredentialName,
    failure: FailureColumns<'_>,
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE credentials SET phase = 'idle', sent_at = NULL, lease_owner = NULL, lease_until = NULL, attempts = $5, next_attempt_at = $6, last_error = $7,
         last_error_at = $8, doubt_first_sent = $9, doubt_since = $10, doubt_replays = $11, doubt_likely_unspent = $15,
         unrecognised_count = $12, unrecognised_since = $13, due_at = $14, slot_at = NULL,
         reason = CASE WHEN $17 = 1 AND status = 'needs_reauth' AND reason = 'rotation_response_lost' THEN NULL ELSE reason END,
         status = CASE WHEN $17 = 1 AND status = 'needs_reauth' AND reason = 'rotation_response_lost' THEN 'active' ELSE status END,
         fence = fence + CASE WHEN $9 IS NULL THEN 1 ELSE 0 END
         WHERE tenant_id = $1 AND id = $2 AND generation = $3 AND fence = $4 AND ($16 = 0 OR phase = 'sent') AND deleted_at IS NULL",
        &name.tenant_id,
        &name.id,
        failure.generation,
        failure.fence,
        failure.attempts,
        failure.next_attempt_at,
        failure.last_error,
        failure.now,
        failure.doubt.first_sent,
        failure.doubt.since,
        failure.doubt.replays,
        failure.unrecognised.0,
        failure.unrecognised.1,
        failure.due_at,
        failure.doubt.likely_unspent,
        i64::from(failure.abandoned),
        i64::from(failure.heals())
    )? == 1)
}

/// Only the user can help now; false when a newer flight or newer tokens are there, or when this was said before. The
/// token stays for its remaining life.
///
/// # Errors
/// As every statement.
pub async fn credential_needs_reauth(
    tx: &mut Tx,
    _: SystemScope,
    name: &CredentialName,
    generation: i64,
    fence: i64,
    reason: &str,
    now: i64,
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE credentials SET status = 'needs_reauth', reason = $5, phase = 'idle', sent_at = NULL, lease_owner = NULL, lease_until = NULL,
         doubt_first_sent = NULL, doubt_since = NULL, doubt_replays = 0, doubt_likely_unspent = 0, next_attempt_at = NULL, last_error = $5, last_error_at = $6, due_at = NULL, slot_at = NULL
         WHERE tenant_id = $1 AND id = $2 AND generation = $3 AND fence = $4 AND deleted_at IS NULL AND status = 'active'",
        &name.tenant_id,
        &name.id,
        generation,
        fence,
        reason,
        now
    )? == 1)
}

/// The refusals of an integration's credentials since `since` are not believed any more: they are active again and due
/// at `due_at`, as are their connections. What was no part of a wave stays: lost answers, sessions that an employer ended, what
/// has nothing to be refreshed with, and what its provider itself has declared dead. Gives how many credentials there were.
///
/// # Errors
/// As every statement.
pub async fn credentials_refused_believe_again(
    tx: &mut Tx,
    _: SystemScope,
    (tenant, integration): (&str, &str),
    since: i64,
    (now, due_at): (i64, i64),
) -> Result<u64, StoreError> {
    // Credentials before connections, as everybody who writes both.
    let taken_back = sql!(
        tx,
        execute,
        "UPDATE credentials SET status = 'active', reason = NULL, due_at = $4 WHERE tenant_id = $1 AND integration_id = $2 AND status = 'needs_reauth'
         AND reason NOT IN ('rotation_response_lost', 'session_policy', 'not_refreshable') AND access_token IS NOT NULL AND last_error_at >= $3 AND deleted_at IS NULL",
        tenant,
        integration,
        since,
        due_at
    )?;
    sql!(
        tx,
        execute,
        "UPDATE connections SET status = 'active', reason = NULL, updated_at = $4
         WHERE tenant_id = $1 AND integration_id = $2 AND status = 'needs_reauth' AND reason <> 'rotation_response_lost' AND deleted_at IS NULL
         AND id IN (SELECT u.connection_id FROM connection_credentials u JOIN credentials k ON k.tenant_id = u.tenant_id AND k.id = u.credential_id
         WHERE k.tenant_id = $1 AND k.integration_id = $2 AND k.status = 'active' AND k.last_error_at >= $3 AND k.deleted_at IS NULL)
         AND NOT EXISTS (SELECT 1 FROM connection_credentials u JOIN credentials k ON k.tenant_id = u.tenant_id AND k.id = u.credential_id
         WHERE u.tenant_id = $1 AND u.connection_id = connections.id AND k.status = 'needs_reauth' AND k.deleted_at IS NULL)",
        tenant,
        integration,
        since,
        now
    )?;
    Ok(taken_back)
}
