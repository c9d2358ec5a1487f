//! Connections: one external account of one user at one provider, and which credentials it uses.

use super::integrations::{ClientOf, IntegrationRow};
use super::{StoreError, Tx, sql};
use crate::caller::{SystemScope, TenantScope};

/// One external account of one user, or of the tenant itself.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct ConnectionRow {
    /// `ten_…`.
    pub tenant_id: String,
    /// `con_…`.
    pub id: String,
    /// `usr_…`; none when it belongs to the tenant.
    pub user_id: Option<String>,
    /// Catalogue id.
    pub provider: String,
    /// `int_…`; none for a secret that a person handed over directly.
    pub integration_id: Option<String>,
    /// The provider's own id of the account (OA-09).
    pub account_id: String,
    /// Sealed JSON `{email?, name?}`.
    pub account: Option<Vec<u8>>,
    /// Sealed JSON of what the vault fixes in calls, such as Telegram's chat id.
    pub target: Option<Vec<u8>>,
    /// Chosen by people; empty by default.
    pub label: String,
    /// 1 when it is the user's default for the provider.
    pub is_default: i64,
    /// See API.md section 2.
    pub status: String,
    /// Why the status is not `active`.
    pub reason: Option<String>,
    /// JSON object: which scopes were asked for, of whom.
    pub asked_scopes: String,
    /// Milliseconds UTC.
    pub created_at: i64,
    /// Milliseconds UTC.
    pub updated_at: i64,
    /// Milliseconds UTC.
    pub last_used_at: Option<i64>,
}

/// What a list is narrowed to.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionFilter<'a> {
    /// `usr_…`.
    pub user: Option<&'a str>,
    /// Catalogue id.
    pub provider: Option<&'a str>,
    /// Status.
    pub status: Option<&'a str>,
    /// After this id, exclusive; empty means from the start.
    pub after: &'a str,
    /// At most this many.
    pub limit: i64,
}

/// Adds a connection.
///
/// # Errors
/// [`StoreError::Conflict`] when this user has this account already.
pub async fn connection_insert(tx: &mut Tx, scope: &TenantScope, row: &ConnectionRow) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO connections (tenant_id, id, user_id, provider, integration_id, account_id, account, target, label, is_default, status, reason, asked_scopes, created_at, updated_at, is_degraded, told)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14, 0, '')",
        scope.tenant(),
        &row.id,
        &row.user_id,
        &row.provider,
        &row.integration_id,
        &row.account_id,
        &row.account,
        &row.target,
        &row.label,
        row.is_default,
        &row.status,
        &row.reason,
        &row.asked_scopes,
        row.created_at
    )?;
    Ok(())
}

/// One connection.
///
/// # Errors
/// As every statement.
pub async fn connection_by_id(tx: &mut Tx, scope: &TenantScope, id: &str) -> Result<Option<ConnectionRow>, StoreError> {
    sql!(
        tx,
        optional ConnectionRow,
        "SELECT * FROM connections WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL AND ($3 IS NULL OR user_id = $3)",
        scope.tenant(),
        id,
        scope.user()
    )
}

/// The connection of a user to an external account, if there is one.
///
/// # Errors
/// As every statement.
pub async fn connection_by_account(
    tx: &mut Tx,
    scope: &TenantScope,
    user: Option<&str>,
    provider: &str,
    account_id: &str,
) -> Result<Option<ConnectionRow>, StoreError> {
    sql!(
        tx,
        optional ConnectionRow,
        "SELECT * FROM connections WHERE tenant_id = $1 AND provider = $2 AND account_id = $3 AND COALESCE(user_id, '') = $4 AND deleted_at IS NULL",
        scope.tenant(),
        provider,
        account_id,
        user.unwrap_or_default()
    )
}

/// The connections of an integration to one account: several users may share it.
///
/// # Errors
/// As every statement.
pub async fn connections_of_account(
    tx: &mut Tx,
    scope: &TenantScope,
    integration: &IntegrationRow,
    account: &str,
) -> Result<Vec<ConnectionRow>, StoreError> {
    sql!(
        tx,
        all ConnectionRow,
        "SELECT * FROM connections WHERE tenant_id = $1 AND provider = $2 AND integration_id = $3 AND account_id = $4 AND deleted_at IS NULL ORDER BY id",
        scope.tenant(),
        &integration.provider,
        &integration.id,
        account
    )
}

/// Connections in the order of their making.
///
/// # Errors
/// As every statement.
pub async fn connection_list(
    tx: &mut Tx,
    scope: &TenantScope,
    filter: ConnectionFilter<'_>,
) -> Result<Vec<ConnectionRow>, StoreError> {
    sql!(
        tx,
        all ConnectionRow,
        "SELECT * FROM connections WHERE tenant_id = $1 AND deleted_at IS NULL AND id > $2
         AND ($3 IS NULL OR user_id = $3) AND ($4 IS NULL OR user_id = $4) AND ($5 IS NULL OR provider = $5) AND ($6 IS NULL OR status = $6)
         ORDER BY id LIMIT $7",
        scope.tenant(),
        filter.after,
        scope.user(),
        filter.user,
        filter.provider,
        filter.status,
        filter.limit
    )
}

/// Writes what reconnecting and starting change: integration, account, target, status, scopes. Label and mark are people's, see
/// [`connection_rename`].
///
/// # Errors
/// As every statement.
pub async fn connection_update(tx: &mut Tx, scope: &TenantScope, row: &ConnectionRow) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE connections SET integration_id = $3, account_id = $4, account = $5, target = $6, status = $7, reason = $8,
         asked_scopes = $9, updated_at = $10 WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
        scope.tenant(),
        &row.id,
        &row.integration_id,
        &row.account_id,
        &row.account,
        &row.target,
        &row.status,
        &row.reason,
        &row.asked_scopes,
        row.updated_at
    )?;
    Ok(())
}

/// Writes what people choose, and leaves alone what a refresh may be writing at the same time: status and reason.
///
/// # Errors
/// As every statement.
pub async fn connection_rename(
    tx: &mut Tx,
    scope: &TenantScope,
    id: &str,
    (label, is_default): (&str, i64),
    now: i64,
) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE connections SET label = $3, is_default = $4, updated_at = $5 WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
        scope.tenant(),
        id,
        label,
        is_default,
        now
    )?;
    Ok(())
}

/// Takes the default mark from a user's other connections to this provider.
///
/// # Errors
/// As every statement.
pub async fn connection_clear_default(
    tx: &mut Tx,
    scope: &TenantScope,
    user: Option<&str>,
    provider: &str,
) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE connections SET is_default = 0 WHERE tenant_id = $1 AND provider = $2 AND COALESCE(user_id, '') = $3",
        scope.tenant(),
        provider,
        user.unwrap_or_default()
    )?;
    Ok(())
}

/// Notes that a connection was used, at most every ten seconds.
///
/// # Errors
/// As every statement.
pub async fn connection_touch(tx: &mut Tx, scope: &TenantScope, id: &str, now: i64) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE connections SET last_used_at = $3 WHERE tenant_id = $1 AND id = $2 AND (last_used_at IS NULL OR last_used_at < $3 - 10000)",
        scope.tenant(),
        id,
        now
    )?;
    Ok(())
}

/// Deletes a connection and forgets whose account it was; false when it is gone already.
///
/// # Errors
/// As every statement.
pub async fn connection_delete(tx: &mut Tx, scope: &TenantScope, id: &str, now: i64) -> Result<bool, StoreError> {
    let is_deleted = sql!(
        tx,
        execute,
        "UPDATE connections SET deleted_at = $3, status = 'revoked', account = NULL, target = NULL
         WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL AND ($4 IS NULL OR user_id = $4)",
        scope.tenant(),
        id,
        now,
        scope.user()
    )? == 1;
    if is_deleted {
        sql!(
            tx,
            execute,
            "DELETE FROM telegram_starts WHERE tenant_id = $1 AND connection_id = $2",
            scope.tenant(),
            id
        )?;
    }
    Ok(is_deleted)
}

/// Sets status and reason of every connection that uses a credential.
///
/// # Errors
/// As every statement.
pub async fn connections_of_credential_mark(
    tx: &mut Tx,
    _: SystemScope,
    tenant: &str,
    credential: &str,
    status: &str,
    reason: Option<&str>,
    now: i64,
) -> Result<u64, StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE connections SET status = $3, reason = $4, updated_at = $5 WHERE tenant_id = $1 AND deleted_at IS NULL
         AND status NOT IN ('quarantined', 'awaiting_start', 'revoked')
         AND id IN (SELECT connection_id FROM connection_credentials WHERE tenant_id = $1 AND credential_id = $2)",
        tenant,
        credential,
        status,
        reason,
        now
    )
}

/// Heals every connection that a credential had kept from working for this reason, now that it works again. One that another of
/// its credentials still keeps from working gets that one's reason.
///
/// # Errors
/// As every statement.
pub async fn connections_of_credential_heal(
    tx: &mut Tx,
    _: SystemScope,
    (tenant, credential): (&str, &str),
    reason: &str,
    now: i64,
) -> Result<u64, StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE connections SET updated_at = $3, status = CASE
         WHEN EXISTS (SELECT 1 FROM connection_credentials u JOIN credentials k ON k.tenant_id = u.tenant_id AND k.id = u.credential_id
         WHERE u.tenant_id = $1 AND u.connection_id = connections.id AND k.id <> $2 AND k.status = 'needs_reauth' AND k.deleted_at IS NULL)
         THEN 'needs_reauth' ELSE 'active' END,
         reason = (SELECT min(k.reason) FROM connection_credentials u JOIN credentials k ON k.tenant_id = u.tenant_id AND k.id = u.credential_id
         WHERE u.tenant_id = $1 AND u.connection_id = connections.id AND k.id <> $2 AND k.status = 'needs_reauth' AND k.deleted_at IS NULL)
         WHERE tenant_id = $1 AND deleted_at IS NULL AND status = 'needs_reauth' AND reason = $4
         AND id IN (SELECT connection_id FROM connection_credentials WHERE tenant_id = $1 AND credential_id = $2)",
        tenant,
        credential,
        now,
        reason
    )
}

/// Sets status and reason of every connection of an integration: its client id changed.
///
/// # Errors
/// As every statement.
pub async fn connections_of_integration_mark(
    tx: &mut Tx,
    scope: &TenantScope,
    integration: &str,
    status: &str,
    reason: &str,
    now: i64,
) -> Result<u64, StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE connections SET status = $3, reason = $4, updated_at = $5 WHERE tenant_id = $1 AND integration_id = $2 AND deleted_at IS NULL",
        scope.tenant(),
        integration,
        status,
        reason,
        now
    )
}

/// Lets a connection use a credential, in place of another of the same kind.
///
/// # Errors
/// As every statement.
pub async fn connection_use_credential(
    tx: &mut Tx,
    scope: &TenantScope,
    connection: &str,
    credential: &str,
    kind: &str,
) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO connection_credentials (tenant_id, connection_id, credential_id, kind) VALUES ($1, $2, $3, $4)
         ON CONFLICT (tenant_id, connection_id, kind) DO UPDATE SET credential_id = excluded.credential_id",
        scope.tenant(),
        connection,
        credential,
        kind
    )?;
    Ok(())
}

/// Has a connection use a credential no more that others go on with.
///
/// # Errors
/// As every statement.
pub async fn connection_leave_credential(
    tx: &mut Tx,
    scope: &TenantScope,
    connection: &str,
    credential: &str,
) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "DELETE FROM connection_credentials WHERE tenant_id = $1 AND connection_id = $2 AND credential_id = $3",
        scope.tenant(),
        connection,
        credential
    )?;
    Ok(())
}

/// How many other connections work with the account that a credential belongs to, or belonged to, in every tenant that has the same
/// client: they live on the same consent, where a consent is all that an account has granted to a client (fact sheet A.6).
///
/// # Errors
/// As every statement.
pub async fn credential_consent_uses(
    tx: &mut Tx,
    _: SystemScope,
    client: ClientOf<'_>,
    credential: &str,
) -> Result<i64, StoreError> {
    let (count,) = sql!(
        tx,
        one (i64,),
        "SELECT count(*) FROM connection_credentials u JOIN connections c ON c.tenant_id = u.tenant_id AND c.id = u.connection_id
         JOIN integration_clients a ON a.tenant_id = $1 AND a.integration_id = $2
         AND CASE WHEN $3 = 0 THEN a.revision < (SELECT revision FROM integrations WHERE tenant_id = $1 AND id = $2) ELSE a.revision = $3 END
         JOIN integration_clients b ON b.client = a.client
         JOIN integrations j ON j.tenant_id = b.tenant_id AND j.id = b.integration_id AND j.revision = b.revision AND j.deleted_at IS NULL
         JOIN connections o ON o.tenant_id = j.tenant_id AND o.provider = c.provider AND o.account_id = c.account_id
         AND o.integration_id = j.id AND NOT (o.tenant_id = c.tenant_id AND o.id = c.id)
         WHERE u.tenant_id = $1 AND u.credential_id = $4 AND o.deleted_at IS NULL
         AND (o.status NOT IN ('needs_reauth', 'misconfigured', 'revoked') OR o.reason = 'rotation_response_lost')",
        client.tenant,
        client.integration,
        client.revision,
        credential
    )?;
    Ok(count)
}

/// How many live connections of an account there are whose integrations have a client, in any tenant; those whose tokens are dead are
/// not counted.
///
/// # Errors
/// As every statement.
pub async fn account_uses(
    tx: &mut Tx,
    _: SystemScope,
    client: ClientOf<'_>,
    (provider, account): (&str, &str),
) -> Result<i64, StoreError> {
    let (count,) = sql!(
        tx,
        one (i64,),
        "SELECT count(*) FROM integration_clients a JOIN integration_clients b ON b.client = a.client
         JOIN integrations j ON j.tenant_id = b.tenant_id AND j.id = b.integration_id AND j.revision = b.revision AND j.deleted_at IS NULL
         JOIN connections o ON o.tenant_id = j.tenant_id AND o.provider = $4 AND o.account_id = $5 AND o.integration_id = j.id
         WHERE a.tenant_id = $1 AND a.integration_id = $2
         AND CASE WHEN $3 = 0 THEN a.revision < (SELECT revision FROM integrations WHERE tenant_id = $1 AND id = $2) ELSE a.revision = $3 END
         AND o.deleted_at IS NULL AND (o.status NOT IN ('needs_reauth', 'misconfigured', 'revoked') OR o.reason = 'rotation_response_lost')",
        client.tenant,
        client.integration,
        client.revision,
        provider,
        account
    )?;
    Ok(count)
}

/// The account that a credential belongs to.
///
/// # Errors
/// As every statement.
pub async fn credential_account(
    tx: &mut Tx,
    _: SystemScope,
    tenant: &str,
    credential: &str,
) -> Result<Option<String>, StoreError> {
    let row = sql!(
        tx,
        optional (String,),
        "SELECT c.account_id FROM connections c JOIN connection_credentials u ON u.tenant_id = c.tenant_id AND u.connection_id = c.id
         WHERE u.tenant_id = $1 AND u.credential_id = $2 AND c.deleted_at IS NULL ORDER BY c.id LIMIT 1",
        tenant,
        credential
    )?;
    Ok(row.map(|(account,)| account))
}

/// How many other live connections use a credential.
///
/// # Errors
/// As every statement.
pub async fn credential_other_uses(
    tx: &mut Tx,
    scope: &TenantScope,
    credential: &str,
    connection: &str,
) -> Result<i64, StoreError> {
    let (count,) = sql!(
        tx,
        one (i64,),
        "SELECT count(*) FROM connection_credentials u JOIN connections c ON c.tenant_id = u.tenant_id AND c.id = u.connection_id
         WHERE u.tenant_id = $1 AND u.credential_id = $2 AND u.connection_id <> $3 AND c.deleted_at IS NULL",
        scope.tenant(),
        credential,
        connection
    )?;
    Ok(count)
}
