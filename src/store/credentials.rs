//! Credentials: one secret token set each, with the row fields that the refresh protocol needs (DESIGN section 7).
//!
//! Three conditional updates carry the protocol. [`credential_claim`] takes the lease and says "about to send" where
//! the generation is unchanged; [`credential_store`] swaps the tokens where the generation is unchanged, whoever holds
//! the lease; [`credential_record`] writes anything else that a flight has to say, while its fence is the newest.

use super::{Connection, StoreError, Tx, sql};
use crate::caller::{SystemScope, TenantScope};

/// One secret token set.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct CredentialRow {
    /// `ten_…`.
    pub tenant_id: String,
    /// `crd_…`.
    pub id: String,
    /// `int_…`.
    pub integration_id: String,
    /// Catalogue id.
    pub provider: String,
    /// `user`, `bot`, ….
    pub kind: String,
    /// `user` or `tenant`: whose data key seals the tokens.
    pub owner_kind: String,
    /// The owner's id.
    pub owner_id: String,
    /// Sealed.
    pub access_token: Option<Vec<u8>>,
    /// Sealed.
    pub refresh_token: Option<Vec<u8>>,
    /// `Bearer`, ….
    pub token_type: String,
    /// JSON list of granted scopes.
    pub scopes: String,
    /// When this token set was received.
    pub obtained_at: i64,
    /// When the access token ends; none when it never does.
    pub expires_at: Option<i64>,
    /// When the refresh token ends, where the provider says so.
    pub refresh_expires_at: Option<i64>,
    /// Counts token sets.
    pub generation: i64,
    /// Counts claims to refresh.
    pub fence: i64,
    /// The node that holds the lease.
    pub lease_owner: Option<String>,
    /// Until when.
    pub lease_until: Option<i64>,
    /// `idle` or `sent`.
    pub phase: String,
    /// When the last claim was made.
    pub sent_at: Option<i64>,
    /// Since when it is unknown whether the provider rotated.
    pub in_doubt_since: Option<i64>,
    /// When the sweep looks next.
    pub due_at: Option<i64>,
    /// `active`, `needs_reauth`, `misconfigured` or `revoked`.
    pub status: String,
    /// Why not `active`.
    pub reason: Option<String>,
    /// Failed attempts in a row.
    pub attempts: i64,
    /// When they began.
    pub first_failed_at: Option<i64>,
    /// Not before this.
    pub next_attempt_at: Option<i64>,
    /// Code of the last failure.
    pub last_error: Option<String>,
    /// When it happened.
    pub last_error_at: Option<i64>,
    /// When a refresh last succeeded.
    pub last_refreshed_at: Option<i64>,
    /// Milliseconds UTC.
    pub created_at: i64,
}

/// The names by which a credential is found below every gate.
#[derive(Clone, Debug, PartialEq, Eq, Hash, sqlx::FromRow)]
pub struct CredentialName {
    /// `ten_…`.
    pub tenant_id: String,
    /// `crd_…`.
    pub id: String,
}

/// Adds a credential of generation 1.
///
/// # Errors
/// As every statement.
pub async fn credential_insert(tx: &mut Tx, scope: &TenantScope, row: &CredentialRow) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO credentials (tenant_id, id, integration_id, provider, kind, owner_kind, owner_id, access_token, refresh_token, token_type, scopes,
         obtained_at, expires_at, refresh_expires_at, generation, fence, phase, due_at, status, attempts, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 0, 'idle', $16, 'active', 0, $12)",
        scope.tenant(),
        &row.id,
        &row.integration_id,
        &row.provider,
        &row.kind,
        &row.owner_kind,
        &row.owner_id,
        &row.access_token,
        &row.refresh_token,
        &row.token_type,
        &row.scopes,
        row.obtained_at,
        row.expires_at,
        row.refresh_expires_at,
        row.generation,
        row.due_at
    )?;
    Ok(())
}

/// The credentials of a connection, `user` first.
///
/// # Errors
/// As every statement.
pub async fn credentials_of_connection(tx: &mut Tx, scope: &TenantScope, connection: &str) -> Result<Vec<CredentialRow>, StoreError> {
    sql!(
        tx,
        all CredentialRow,
        "SELECT k.* FROM credentials k JOIN connection_credentials u ON u.tenant_id = k.tenant_id AND u.credential_id = k.id
         WHERE u.tenant_id = $1 AND u.connection_id = $2 AND k.deleted_at IS NULL ORDER BY k.kind DESC",
        scope.tenant(),
        connection
    )
}

/// One credential: the flight's own look, whose second wall is the sealed context.
///
/// # Errors
/// As every statement.
pub async fn credential_load(tx: &mut Tx, _: SystemScope, name: &CredentialName) -> Result<Option<CredentialRow>, StoreError> {
    sql!(
        tx,
        optional CredentialRow,
        "SELECT * FROM credentials WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
        &name.tenant_id,
        &name.id
    )
}

/// A claim to send one refresh request.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The generation whose refresh token will be spent.
    pub generation: i64,
    /// This node.
    pub owner: &'a str,
    /// Now.
    pub now: i64,
    /// Until when others keep away.
    pub lease_until: i64,
}

/// Takes the lease and writes "about to send"; gives the new fence, or none when somebody was faster.
///
/// # Errors
/// As every statement.
pub async fn credential_claim(tx: &mut Tx, _: SystemScope, name: &CredentialName, claim: Claim<'_>) -> Result<Option<i64>, StoreError> {
    let row = sql!(
        tx,
        optional (i64,),
        "UPDATE credentials SET fence = fence + 1, lease_owner = $4, lease_until = $6, phase = 'sent', sent_at = $5
         WHERE tenant_id = $1 AND id = $2 AND generation = $3 AND deleted_at IS NULL AND (lease_until IS NULL OR lease_until <= $5) RETURNING fence",
        &name.tenant_id,
        &name.id,
        claim.generation,
        claim.owner,
        claim.now,
        claim.lease_until
    )?;
    Ok(row.map(|(fence,)| fence))
}

/// Renews the lease; false when it is another's now.
///
/// # Errors
/// As every statement.
pub async fn credential_renew_lease(tx: &mut Tx, _: SystemScope, name: &CredentialName, fence: i64, lease_until: i64) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE credentials SET lease_until = $4 WHERE tenant_id = $1 AND id = $2 AND fence = $3 AND phase = 'sent' AND deleted_at IS NULL",
        &name.tenant_id,
        &name.id,
        fence,
        lease_until
    )? == 1)
}

/// A new token set, sealed for `generation + 1`.
#[derive(Clone, Debug)]
pub struct NewTokens {
    /// The generation that it replaces.
    pub generation: i64,
    /// Sealed.
    pub access_token: Vec<u8>,
    /// Sealed; the old one re-sealed where the provider sent none.
    pub refresh_token: Option<Vec<u8>>,
    /// `Bearer`, ….
    pub token_type: String,
    /// JSON list.
    pub scopes: String,
    /// When it was received.
    pub obtained_at: i64,
    /// When the access token ends.
    pub expires_at: Option<i64>,
    /// When the refresh token ends.
    pub refresh_expires_at: Option<i64>,
    /// When the sweep looks next.
    pub due_at: Option<i64>,
}

/// Swaps the tokens where the generation is unchanged and ends lease, doubt and failure; false when the generation
/// moved on or the credential is deleted.
///
/// # Errors
/// As every statement.
pub async fn credential_store(tx: &mut Tx, _: SystemScope, name: &CredentialName, new: &NewTokens) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE credentials SET access_token = $4, refresh_token = $5, token_type = $6, scopes = $7, obtained_at = $8, expires_at = $9, refresh_expires_at = $10,
         due_at = $11, generation = generation + 1, lease_owner = NULL, lease_until = NULL, phase = 'idle', sent_at = NULL, in_doubt_since = NULL,
         status = 'active', reason = NULL, attempts = 0, first_failed_at = NULL, next_attempt_at = NULL, last_error = NULL, last_error_at = NULL,
         last_refreshed_at = $8
         WHERE tenant_id = $1 AND id = $2 AND generation = $3 AND deleted_at IS NULL",
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
        new.due_at
    )? == 1)
}

/// What a flight has to say when it brings no tokens.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// The flight's fence: an older flight is not heard.
    pub fence: i64,
    /// `idle` or `sent` (the outcome is not known).
    pub phase: &'a str,
    /// Since when in doubt.
    pub in_doubt_since: Option<i64>,
    /// `active`, `needs_reauth` or `misconfigured`.
    pub status: &'a str,
    /// Why not `active`.
    pub reason: Option<&'a str>,
    /// Failed attempts in a row.
    pub attempts: i64,
    /// When they began.
    pub first_failed_at: Option<i64>,
    /// Not before this.
    pub next_attempt_at: Option<i64>,
    /// Code of the failure.
    pub last_error: Option<&'a str>,
    /// When the sweep looks next.
    pub due_at: Option<i64>,
    /// Now.
    pub now: i64,
}

/// Records a failure and gives the lease back; false when a newer flight or newer tokens are there.
///
/// # Errors
/// As every statement.
pub async fn credential_record(tx: &mut Tx, _: SystemScope, name: &CredentialName, generation: i64, record: &Record<'_>) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE credentials SET phase = $5, in_doubt_since = $6, status = $7, reason = $8, attempts = $9, first_failed_at = $10, next_attempt_at = $11,
         last_error = $12, last_error_at = $14, due_at = $13, lease_owner = NULL, lease_until = NULL
         WHERE tenant_id = $1 AND id = $2 AND generation = $3 AND fence = $4 AND deleted_at IS NULL",
        &name.tenant_id,
        &name.id,
        generation,
        record.fence,
        record.phase,
        record.in_doubt_since,
        record.status,
        record.reason,
        record.attempts,
        record.first_failed_at,
        record.next_attempt_at,
        record.last_error,
        record.due_at,
        record.now
    )? == 1)
}

/// Replaces the whole token set: a person reconnected. Whatever flight is in the air comes too late.
///
/// # Errors
/// As every statement.
pub async fn credential_replace(tx: &mut Tx, scope: &TenantScope, id: &str, integration: &str, new: &NewTokens) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE credentials SET integration_id = $3, access_token = $5, refresh_token = $6, token_type = $7, scopes = $8, obtained_at = $9, expires_at = $10,
         refresh_expires_at = $11, due_at = $12, generation = $4 + 1, fence = fence + 1, lease_owner = NULL, lease_until = NULL, phase = 'idle', sent_at = NULL,
         in_doubt_since = NULL, status = 'active', reason = NULL, attempts = 0, first_failed_at = NULL, next_attempt_at = NULL, last_error = NULL, last_error_at = NULL
         WHERE tenant_id = $1 AND id = $2 AND generation = $4 AND deleted_at IS NULL",
        scope.tenant(),
        id,
        integration,
        new.generation,
        &new.access_token,
        &new.refresh_token,
        &new.token_type,
        &new.scopes,
        new.obtained_at,
        new.expires_at,
        new.refresh_expires_at,
        new.due_at
    )? == 1)
}

/// Deletes a credential and its tokens; a late answer finds nothing to store to.
///
/// # Errors
/// As every statement.
pub async fn credential_delete(tx: &mut Tx, scope: &TenantScope, id: &str, now: i64) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE credentials SET deleted_at = $3, access_token = NULL, refresh_token = NULL, due_at = NULL, fence = fence + 1, status = 'revoked'
         WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
        scope.tenant(),
        id,
        now
    )? == 1)
}

/// Takes up to `limit` due credentials by moving their due time to `next`, so that nobody else takes them meanwhile.
///
/// # Errors
/// As every statement.
pub async fn credential_claim_due(tx: &mut Tx, _: SystemScope, now: i64, next: i64, limit: i64) -> Result<Vec<CredentialName>, StoreError> {
    // PostgreSQL lets several nodes claim side by side; SQLite has one writer anyway and no FOR UPDATE.
    if matches!(tx.connection(), Connection::Postgres(_)) {
        sql!(
            tx,
            all CredentialName,
            "UPDATE credentials SET due_at = $2 WHERE (tenant_id, id) IN
             (SELECT tenant_id, id FROM credentials WHERE due_at <= $1 ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED) RETURNING tenant_id, id",
            now,
            next,
            limit
        )
    } else {
        sql!(
            tx,
            all CredentialName,
            "UPDATE credentials SET due_at = $2 WHERE (tenant_id, id) IN
             (SELECT tenant_id, id FROM credentials WHERE due_at <= $1 ORDER BY due_at LIMIT $3) RETURNING tenant_id, id",
            now,
            next,
            limit
        )
    }
}

/// When the next credential is due.
///
/// # Errors
/// As every statement.
pub async fn credential_next_due(tx: &mut Tx, _: SystemScope) -> Result<Option<i64>, StoreError> {
    Ok(sql!(tx, one (Option<i64>,), "SELECT min(due_at) FROM credentials WHERE due_at IS NOT NULL")?.0)
}
