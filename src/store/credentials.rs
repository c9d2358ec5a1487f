//! Credentials: one secret token set each. What a refresh writes of them stands in [`refresh_rows`](super::refresh_rows).

use super::integrations::ClientOf;
use super::{Connection, StoreError, Tx, sql};
use crate::caller::{SystemScope, TenantScope};

/// One secret token set.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct CredentialRow {
    /// `ten_…`.
    pub tenant_id: String,
    /// `crd_…`.
    pub id: String,
    /// `int_…`; none for a secret that a person handed over directly.
    pub integration_id: Option<String>,
    /// Catalogue id.
    pub provider: String,
    /// `user`, `bot`, ….
    pub kind: String,
    /// `user` or `tenant`: whose data key seals the tokens.
    pub owner_kind: String,
    /// The owner's id.
    pub owner_id: String,
    /// What all connections that use it have in common, where it is the tenant's: a Slack workspace, a Telegram bot.
    pub shared_as: Option<String>,
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
    /// Counts claims to refresh, and their ends without tokens.
    pub fence: i64,
    /// Counts consents: tells a reconnect from a refresh.
    pub consents: i64,
    /// The claim whose answer is stored.
    pub stored_fence: Option<i64>,
    /// The process that holds the lease.
    pub lease_owner: Option<String>,
    /// Until when.
    pub lease_until: Option<i64>,
    /// `idle` or `sent`.
    pub phase: String,
    /// When the last claim was made.
    pub sent_at: Option<i64>,
    /// What is known of a token of unknown fate.
    #[sqlx(flatten)]
    pub doubt: DoubtColumns,
    /// When the sweep looks next.
    pub due_at: Option<i64>,
    /// When the sweep means to send it, or took it to be sent; none while neither is so.
    pub slot_at: Option<i64>,
    /// The end of the refresh token that was last warned of.
    pub warned_for: Option<i64>,
    /// `active`, `needs_reauth`, `misconfigured` or `revoked`.
    pub status: String,
    /// Why not `active`.
    pub reason: Option<String>,
    /// Failed attempts since the last success.
    pub attempts: i64,
    /// Not before this.
    pub next_attempt_at: Option<i64>,
    /// Answers that nobody understood, since the last success.
    pub unrecognised_count: i64,
    /// When the first of them came.
    pub unrecognised_since: i64,
    /// Code of the last failure.
    pub last_error: Option<String>,
    /// When it happened.
    pub last_error_at: Option<i64>,
    /// When a refresh last succeeded.
    pub last_refreshed_at: Option<i64>,
    /// When somebody last used it, to the minute.
    pub last_used_at: i64,
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

/// Adds a credential: first generation, first consent.
///
/// # Errors
/// [`StoreError::Conflict`] for a second one that is shared as the same.
pub async fn credential_insert(tx: &mut Tx, scope: &TenantScope, row: &CredentialRow) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO credentials (tenant_id, id, integration_id, provider, kind, owner_kind, owner_id, shared_as, access_token, refresh_token, token_type, scopes,
         obtained_at, expires_at, refresh_expires_at, generation, fence, consents, phase, doubt_replays, doubt_likely_unspent, due_at, status, attempts,
         unrecognised_count, unrecognised_since, last_used_at, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $17, $8, $9, $10, $11, $12, $13, $14, $15, 0, 1, 'idle', 0, 0, $16, 'active', 0, 0, 0, $12, $12)",
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
        row.due_at,
        &row.shared_as
    )?;
    Ok(())
}

/// The credentials of a connection, `user` before `bot`.
///
/// # Errors
/// As every statement.
pub async fn credentials_of_connection(
    tx: &mut Tx,
    scope: &TenantScope,
    connection: &str,
) -> Result<Vec<CredentialRow>, StoreError> {
    sql!(
        tx,
        all CredentialRow,
        "SELECT k.* FROM credentials k JOIN connection_credentials u ON u.tenant_id = k.tenant_id AND u.credential_id = k.id
         WHERE u.tenant_id = $1 AND u.connection_id = $2 AND k.deleted_at IS NULL ORDER BY k.kind DESC",
        scope.tenant(),
        connection
    )
}

/// As [`credentials_of_connection`] but by id, for whoever is about to replace or end them: no refresh comes in between.
///
/// # Errors
/// As every statement.
pub async fn credentials_of_connection_lock(
    tx: &mut Tx,
    scope: &TenantScope,
    connection: &str,
) -> Result<Vec<CredentialRow>, StoreError> {
    // SQLite has one writer anyway and no FOR UPDATE.
    if matches!(tx.connection(), Connection::Sqlite(_)) {
        return credentials_of_connection(tx, scope, connection).await;
    }
    sql!(
        tx,
        all CredentialRow,
        "SELECT k.* FROM credentials k JOIN connection_credentials u ON u.tenant_id = k.tenant_id AND u.credential_id = k.id
         WHERE u.tenant_id = $1 AND u.connection_id = $2 AND k.deleted_at IS NULL ORDER BY k.id FOR UPDATE OF k",
        scope.tenant(),
        connection
    )
}

/// The credential that all connections of an integration share as this, until the end of `tx`.
///
/// # Errors
/// As every statement.
pub async fn credential_shared_lock(
    tx: &mut Tx,
    scope: &TenantScope,
    (integration, kind): (&str, &str),
    shared_as: &str,
) -> Result<Option<CredentialRow>, StoreError> {
    // SQLite has one writer anyway and no FOR UPDATE.
    if matches!(tx.connection(), Connection::Sqlite(_)) {
        return sql!(
            tx,
            optional CredentialRow,
            "SELECT * FROM credentials WHERE tenant_id = $1 AND integration_id = $2 AND kind = $3 AND shared_as = $4 AND deleted_at IS NULL",
            scope.tenant(),
            integration,
            kind,
            shared_as
        );
    }
    sql!(
        tx,
        optional CredentialRow,
        "SELECT * FROM credentials WHERE tenant_id = $1 AND integration_id = $2 AND kind = $3 AND shared_as = $4 AND deleted_at IS NULL FOR UPDATE",
        scope.tenant(),
        integration,
        kind,
        shared_as
    )
}

/// How many living credentials there are, besides one, that are shared as `shared_as` at integrations that have a client, in any tenant.
///
/// # Errors
/// As every statement.
pub async fn credential_shared_uses(
    tx: &mut Tx,
    _: SystemScope,
    client: ClientOf<'_>,
    (kind, shared_as): (&str, &str),
    besides: Option<&str>,
) -> Result<i64, StoreError> {
    let (count,) = sql!(
        tx,
        one (i64,),
        "SELECT count(*) FROM integration_clients a JOIN integration_clients b ON b.client = a.client
         JOIN integrations j ON j.tenant_id = b.tenant_id AND j.id = b.integration_id AND j.revision = b.revision AND j.deleted_at IS NULL
         JOIN credentials k ON k.tenant_id = j.tenant_id AND k.integration_id = j.id AND k.kind = $4 AND k.shared_as = $5
         WHERE a.tenant_id = $1 AND a.integration_id = $2
         AND CASE WHEN $3 = 0 THEN a.revision < (SELECT revision FROM integrations WHERE tenant_id = $1 AND id = $2) ELSE a.revision = $3 END
         AND k.deleted_at IS NULL AND (k.status = 'active' OR k.reason = 'rotation_response_lost') AND ($6 IS NULL OR k.id <> $6)",
        client.tenant,
        client.integration,
        client.revision,
        kind,
        shared_as,
        besides
    )?;
    Ok(count)
}

/// One credential: a flight's own look, whose second wall is the sealed context.
///
/// # Errors
/// As every statement.
pub async fn credential_load(
    tx: &mut Tx,
    _: SystemScope,
    name: &CredentialName,
) -> Result<Option<CredentialRow>, StoreError> {
    sql!(
        tx,
        optional CredentialRow,
        "SELECT * FROM credentials WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
        &name.tenant_id,
        &name.id
    )
}

/// A credential, also one that was deleted, which is without its tokens; what came too late for it is ended at its provider.
///
/// # Errors
/// As every statement.
pub async fn credential_load_even_deleted(
    tx: &mut Tx,
    _: SystemScope,
    name: &CredentialName,
) -> Result<Option<CredentialRow>, StoreError> {
    sql!(
        tx,
        optional CredentialRow,
        "SELECT * FROM credentials WHERE tenant_id = $1 AND id = $2",
        &name.tenant_id,
        &name.id
    )
}

/// A token of unknown fate, as columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct DoubtColumns {
    /// When it was first sent.
    #[sqlx(rename = "doubt_first_sent")]
    pub first_sent: Option<i64>,
    /// When the last attempt ended without an outcome.
    #[sqlx(rename = "doubt_since")]
    pub since: Option<i64>,
    /// How often it was sent again.
    #[sqlx(rename = "doubt_replays")]
    pub replays: i64,
    /// 1 when a server has said that it failed, or a provider that answered nobody was probed: the token is probably good.
    #[sqlx(rename = "doubt_likely_unspent")]
    pub likely_unspent: i64,
}

/// A new token set, sealed for `generation + 1`.
#[derive(Clone, Debug)]
pub struct NewTokens {
    /// The generation that it replaces.
    pub generation: i64,
    /// Sealed.
    pub access_token: Vec<u8>,
    /// Sealed; the old one sealed anew where the provider sent none.
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

/// Replaces the whole token set: a person consented again. Whatever flight is in the air comes too late.
///
/// # Errors
/// As every statement.
pub async fn credential_replace(
    tx: &mut Tx,
    scope: &TenantScope,
    id: &str,
    integration: Option<&str>,
    new: &NewTokens,
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE credentials SET integration_id = $3, access_token = $5, refresh_token = $6, token_type = $7, scopes = $8, obtained_at = $9, expires_at = $10,
         refresh_expires_at = $11, due_at = $12, slot_at = NULL, generation = $4 + 1, fence = fence + 1, consents = consents + 1, stored_fence = NULL,
         lease_owner = NULL, lease_until = NULL, phase = 'idle', sent_at = NULL, doubt_first_sent = NULL, doubt_since = NULL, doubt_replays = 0, doubt_likely_unspent = 0,
         status = 'active', reason = NULL, attempts = 0, next_attempt_at = NULL, unrecognised_count = 0, unrecognised_since = 0,
         last_error = NULL, last_error_at = NULL
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

/// Writes what a consent has brought beside a refresh token that stays as it is, in the same generation: whatever is known of that
/// token's fate, and whoever waits for an answer about it, goes on. What was wrong before is not wrong any more.
///
/// # Errors
/// As every statement.
pub async fn credential_refill(
    tx: &mut Tx,
    scope: &TenantScope,
    id: &str,
    new: &NewTokens,
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE credentials SET access_token = $4, token_type = $5, scopes = $6, obtained_at = $7, expires_at = $8, due_at = $9,
         slot_at = CASE WHEN due_at = $9 THEN slot_at END, last_error = reason, last_error_at = CASE WHEN reason IS NULL THEN NULL ELSE last_error_at END
         WHERE tenant_id = $1 AND id = $2 AND generation = $3 AND (status = 'active' OR reason = 'rotation_response_lost') AND deleted_at IS NULL",
        scope.tenant(),
        id,
        new.generation,
        &new.access_token,
        &new.token_type,
        &new.scopes,
        new.obtained_at,
        new.expires_at,
        new.due_at
    )? == 1)
}

/// Pauses every credential of an integration: its client id changed (API.md section 6, point 3).
///
/// # Errors
/// As every statement.
pub async fn credentials_of_integration_pause(
    tx: &mut Tx,
    scope: &TenantScope,
    integration: &str,
    reason: &str,
) -> Result<u64, StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE credentials SET status = 'misconfigured', reason = $3, due_at = NULL, slot_at = NULL, fence = fence + 1 WHERE tenant_id = $1 AND integration_id = $2 AND deleted_at IS NULL",
        scope.tenant(),
        integration,
        reason
    )
}

/// Deletes a credential and its tokens; a late answer finds nothing to store to.
///
/// # Errors
/// As every statement.
pub async fn credential_delete(tx: &mut Tx, scope: &TenantScope, id: &str, now: i64) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE credentials SET deleted_at = $3, access_token = NULL, refresh_token = NULL, due_at = NULL, slot_at = NULL, fence = fence + 1, status = 'revoked'
         WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
        scope.tenant(),
        id,
        now
    )? == 1)
}
