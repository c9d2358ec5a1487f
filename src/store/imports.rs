//! What an import asks and writes, many rows with one statement: one at a time they would keep the only writer of SQLite, and the rows
//! of a client's integrations, for the better part of a minute (docs/decisions/0012).

use data_encoding::HEXLOWER;
use serde::Serialize;

use super::connections::ConnectionRow;
use super::credentials::CredentialRow;
use super::keys::DataKeyRow;
use super::users::UserRow;
use super::{Connection, StoreError, Tx, sql, to_json};
use crate::caller::{SystemScope, TenantScope};

/// Rows in one statement, of which each may have some ten thousand characters.
const AT_ONCE: usize = 500;

/// As [`user_ensure`](super::users::user_ensure), for many: pairs of an id for whoever is new, and the tenant's own id, each once. Gives
/// the rows that are there then, in no order.
///
/// # Errors
/// As every statement.
pub async fn users_ensure(
    tx: &mut Tx,
    scope: &TenantScope,
    users: &[(String, &str)],
    now: i64,
) -> Result<Vec<UserRow>, StoreError> {
    let mut all = Vec::with_capacity(users.len());
    for some in users.chunks(AT_ONCE) {
        let listed = to_json(&some)?;
        if matches!(tx.connection(), Connection::Postgres(_)) {
            sql!(
                tx,
                execute,
                "INSERT INTO users (tenant_id, id, external_id, created_at) SELECT $1, e ->> 0, e ->> 1, $3 FROM jsonb_array_elements($2::jsonb) AS list (e)
                 ON CONFLICT (tenant_id, external_id) WHERE erased_at IS NULL DO NOTHING",
                scope.tenant(),
                &listed,
                now
            )?;
            all.extend(sql!(
                tx,
                all UserRow,
                "SELECT * FROM users WHERE tenant_id = $1 AND erased_at IS NULL AND external_id IN (SELECT e ->> 1 FROM jsonb_array_elements($2::jsonb) AS list (e))",
                scope.tenant(),
                &listed
            )?);
        } else {
            sql!(
                tx,
                execute,
                "INSERT INTO users (tenant_id, id, external_id, created_at) SELECT $1, e.value ->> 0, e.value ->> 1, $3 FROM json_each($2) e WHERE true
                 ON CONFLICT (tenant_id, external_id) WHERE erased_at IS NULL DO NOTHING",
                scope.tenant(),
                &listed,
                now
            )?;
            all.extend(sql!(
                tx,
                all UserRow,
                "SELECT * FROM users WHERE tenant_id = $1 AND erased_at IS NULL AND external_id IN (SELECT e.value ->> 1 FROM json_each($2) e)",
                scope.tenant(),
                &listed
            )?);
        }
    }
    Ok(all)
}

/// A user's data key.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct UserKeyRow {
    /// `usr_…`.
    pub owner_id: String,
    /// The key.
    #[sqlx(flatten)]
    pub key: DataKeyRow,
}

/// As [`data_key_active`](super::keys::data_key_active), for many users; nothing of whoever has none.
///
/// # Errors
/// As every statement.
pub async fn user_keys_active(
    tx: &mut Tx,
    _: SystemScope,
    tenant: &str,
    users: &[&str],
) -> Result<Vec<UserKeyRow>, StoreError> {
    let mut all = Vec::with_capacity(users.len());
    for some in users.chunks(AT_ONCE) {
        let listed = to_json(&some)?;
        all.extend(if matches!(tx.connection(), Connection::Postgres(_)) {
            sql!(
                tx,
                all UserKeyRow,
                "SELECT owner_id, id, tenant_key_id, wrapped FROM data_keys WHERE tenant_id = $1 AND owner_kind = 'user' AND state = 'active'
                 AND owner_id IN (SELECT e FROM jsonb_array_elements_text($2::jsonb) AS list (e))",
                tenant,
                &listed
            )
        } else {
            sql!(
                tx,
                all UserKeyRow,
                "SELECT owner_id, id, tenant_key_id, wrapped FROM data_keys WHERE tenant_id = $1 AND owner_kind = 'user' AND state = 'active'
                 AND owner_id IN (SELECT e.value FROM json_each($2) e)",
                tenant,
                &listed
            )
        }?);
    }
    Ok(all)
}

/// As [`data_key_insert`](super::keys::data_key_insert), for many users; whoever has a key keeps it, and whoever's keys were destroyed
/// gets none.
///
/// # Errors
/// As every statement.
pub async fn user_keys_insert(
    tx: &mut Tx,
    _: SystemScope,
    tenant: &str,
    keys: &[UserKeyRow],
    now: i64,
) -> Result<(), StoreError> {
    for some in keys.chunks(AT_ONCE) {
        let listed: Vec<_> = some
            .iter()
            .map(|UserKeyRow { owner_id, key }| {
                (owner_id, &key.id, &key.tenant_key_id, key.wrapped.as_ref().map(|bytes| HEXLOWER.encode(bytes)))
            })
            .collect();
        let listed = to_json(&listed)?;
        if matches!(tx.connection(), Connection::Postgres(_)) {
            sql!(
                tx,
                execute,
                "INSERT INTO data_keys (tenant_id, id, owner_kind, owner_id, tenant_key_id, wrapped, state, created_at)
                 SELECT $1, e ->> 1, 'user', e ->> 0, e ->> 2, decode(e ->> 3, 'hex'), 'active', $3 FROM jsonb_array_elements($2::jsonb) AS list (e)
                 WHERE NOT EXISTS (SELECT 1 FROM data_keys k WHERE k.tenant_id = $1 AND k.owner_kind = 'user' AND k.owner_id = e ->> 0 AND k.state = 'destroyed')
                 ON CONFLICT (tenant_id, owner_kind, owner_id) WHERE state = 'active' DO NOTHING",
                tenant,
                &listed,
                now
            )?;
        } else {
            sql!(
                tx,
                execute,
                "INSERT INTO data_keys (tenant_id, id, owner_kind, owner_id, tenant_key_id, wrapped, state, created_at)
                 SELECT $1, e.value ->> 1, 'user', e.value ->> 0, e.value ->> 2, unhex(e.value ->> 3), 'active', $3 FROM json_each($2) e
                 WHERE NOT EXISTS (SELECT 1 FROM data_keys k WHERE k.tenant_id = $1 AND k.owner_kind = 'user' AND k.owner_id = e.value ->> 0 AND k.state = 'destroyed')
                 ON CONFLICT (tenant_id, owner_kind, owner_id) WHERE state = 'active' DO NOTHING",
                tenant,
                &listed,
                now
            )?;
        }
    }
    Ok(())
}

/// User, provider and account of every connection that these users have.
///
/// # Errors
/// As every statement.
pub async fn connections_held(
    tx: &mut Tx,
    scope: &TenantScope,
    users: &[&str],
) -> Result<Vec<(String, String, String)>, StoreError> {
    let mut all = Vec::new();
    for some in users.chunks(AT_ONCE) {
        let listed = to_json(&some)?;
        all.extend(if matches!(tx.connection(), Connection::Postgres(_)) {
            sql!(
                tx,
                all(String, String, String),
                "SELECT user_id, provider, account_id FROM connections WHERE tenant_id = $1 AND deleted_at IS NULL
                 AND user_id IN (SELECT e FROM jsonb_array_elements_text($2::jsonb) AS list (e))",
                scope.tenant(),
                &listed
            )
        } else {
            sql!(
                tx,
                all(String, String, String),
                "SELECT user_id, provider, account_id FROM connections WHERE tenant_id = $1 AND deleted_at IS NULL
                 AND user_id IN (SELECT e.value FROM json_each($2) e)",
                scope.tenant(),
                &listed
            )
        }?);
    }
    Ok(all)
}

/// A connection as an element of a list: JSON has no bytes.
#[derive(Serialize)]
struct ListedConnection<'a> {
    id: &'a str,
    user_id: Option<&'a str>,
    provider: &'a str,
    integration_id: Option<&'a str>,
    account_id: &'a str,
    account: Option<String>,
    target: Option<String>,
    label: &'a str,
    is_default: i64,
    status: &'a str,
    reason: Option<&'a str>,
    asked_scopes: &'a str,
    created_at: i64,
}

/// As [`connection_insert`](super::connections::connection_insert), for many.
///
/// # Errors
/// As every statement.
pub async fn connections_insert(tx: &mut Tx, scope: &TenantScope, rows: &[&ConnectionRow]) -> Result<(), StoreError> {
    for some in rows.chunks(AT_ONCE) {
        let listed = to_json(&some.iter().map(|row| listed_connection(row)).collect::<Vec<_>>())?;
        if matches!(tx.connection(), Connection::Postgres(_)) {
            sql!(
                tx,
                execute,
                "INSERT INTO connections (tenant_id, id, user_id, provider, integration_id, account_id, account, target, label, is_default, status, reason, asked_scopes,
                 created_at, updated_at, is_degraded, told)
                 SELECT $1, e.id, e.user_id, e.provider, e.integration_id, e.account_id, decode(e.account, 'hex'), decode(e.target, 'hex'), e.label, e.is_default, e.status,
                 e.reason, e.asked_scopes, e.created_at, e.created_at, 0, '' FROM jsonb_to_recordset($2::jsonb) AS e (id text, user_id text, provider text,
                 integration_id text, account_id text, account text, target text, label text, is_default bigint, status text, reason text, asked_scopes text,
                 created_at bigint)",
                scope.tenant(),
                &listed
            )?;
        } else {
            sql!(
                tx,
                execute,
                "INSERT INTO connections (tenant_id, id, user_id, provider, integration_id, account_id, account, target, label, is_default, status, reason, asked_scopes,
                 created_at, updated_at, is_degraded, told)
                 SELECT $1, e.value ->> 'id', e.value ->> 'user_id', e.value ->> 'provider', e.value ->> 'integration_id', e.value ->> 'account_id',
                 unhex(e.value ->> 'account'), unhex(e.value ->> 'target'), e.value ->> 'label', e.value ->> 'is_default', e.value ->> 'status', e.value ->> 'reason',
                 e.value ->> 'asked_scopes', e.value ->> 'created_at', e.value ->> 'created_at', 0, '' FROM json_each($2) e",
                scope.tenant(),
                &listed
            )?;
        }
    }
    Ok(())
}

fn listed_connection(row: &ConnectionRow) -> ListedConnection<'_> {
    ListedConnection {
        id: &row.id,
        user_id: row.user_id.as_deref(),
        provider: &row.provider,
        integration_id: row.integration_id.as_deref(),
        account_id: &row.account_id,
        account: row.account.as_ref().map(|bytes| HEXLOWER.encode(bytes)),
        target: row.target.as_ref().map(|bytes| HEXLOWER.encode(bytes)),
        label: &row.label,
        is_default: row.is_default,
        status: &row.status,
        reason: row.reason.as_deref(),
        asked_scopes: &row.asked_scopes,
        created_at: row.created_at,
    }
}

/// A credential as an element of a list.
#[derive(Serialize)]
struct ListedCredential<'a> {
    id: &'a str,
    connection_id: &'a str,
    integration_id: Option<&'a str>,
    provider: &'a str,
    kind: &'a str,
    owner_kind: &'a str,
    owner_id: &'a str,
    shared_as: Option<&'a str>,
    access_token: Option<String>,
    refresh_token: Option<String>,
    token_type: &'a str,
    scopes: &'a str,
    obtained_at: i64,
    expires_at: Option<i64>,
    refresh_expires_at: Option<i64>,
    generation: i64,
    due_at: Option<i64>,
}

/// As [`credential_insert`](super::credentials::credential_insert), for many, each with the id of the new connection that uses it.
///
/// # Errors
/// As every statement.
pub async fn credentials_insert(
    tx: &mut Tx,
    scope: &TenantScope,
    rows: &[(&str, &CredentialRow)],
) -> Result<(), StoreError> {
    for some in rows.chunks(AT_ONCE) {
        let listed = to_json(&some.iter().map(|(user, row)| listed_credential(user, row)).collect::<Vec<_>>())?;
        if matches!(tx.connection(), Connection::Postgres(_)) {
            sql!(
                tx,
                execute,
                "INSERT INTO credentials (tenant_id, id, integration_id, provider, kind, owner_kind, owner_id, shared_as, access_token, refresh_token, token_type, scopes,
                 obtained_at, expires_at, refresh_expires_at, generation, fence, consents, phase, doubt_replays, doubt_likely_unspent, due_at, status, attempts,
                 unrecognised_count, unrecognised_since, last_used_at, created_at)
                 SELECT $1, e.id, e.integration_id, e.provider, e.kind, e.owner_kind, e.owner_id, e.shared_as, decode(e.access_token, 'hex'), decode(e.refresh_token, 'hex'),
                 e.token_type, e.scopes, e.obtained_at, e.expires_at, e.refresh_expires_at, e.generation, 0, 1, 'idle', 0, 0, e.due_at, 'active', 0, 0, 0,
                 e.obtained_at, e.obtained_at FROM jsonb_to_recordset($2::jsonb) AS e (id text, integration_id text, provider text, kind text, owner_kind text,
                 owner_id text, shared_as text, access_token text, refresh_token text, token_type text, scopes text, obtained_at bigint, expires_at bigint,
                 refresh_expires_at bigint, generation bigint, due_at bigint)",
                scope.tenant(),
                &listed
            )?;
            sql!(
                tx,
                execute,
                "INSERT INTO connection_credentials (tenant_id, connection_id, credential_id, kind)
                 SELECT $1, e.connection_id, e.id, e.kind FROM jsonb_to_recordset($2::jsonb) AS e (connection_id text, id text, kind text)",
                scope.tenant(),
                &listed
            )?;
        } else {
            sql!(
                tx,
                execute,
                "INSERT INTO credentials (tenant_id, id, integration_id, provider, kind, owner_kind, owner_id, shared_as, access_token, refresh_token, token_type, scopes,
                 obtained_at, expires_at, refresh_expires_at, generation, fence, consents, phase, doubt_replays, doubt_likely_unspent, due_at, status, attempts,
                 unrecognised_count, unrecognised_since, last_used_at, created_at)
                 SELECT $1, e.value ->> 'id', e.value ->> 'integration_id', e.value ->> 'provider', e.value ->> 'kind', e.value ->> 'owner_kind', e.value ->> 'owner_id',
                 e.value ->> 'shared_as', unhex(e.value ->> 'access_token'), unhex(e.value ->> 'refresh_token'), e.value ->> 'token_type', e.value ->> 'scopes',
                 e.value ->> 'obtained_at', e.value ->> 'expires_at', e.value ->> 'refresh_expires_at', e.value ->> 'generation', 0, 1, 'idle', 0, 0,
                 e.value ->> 'due_at', 'active', 0, 0, 0, e.value ->> 'obtained_at', e.value ->> 'obtained_at' FROM json_each($2) e",
                scope.tenant(),
                &listed
            )?;
            sql!(
                tx,
                execute,
                "INSERT INTO connection_credentials (tenant_id, connection_id, credential_id, kind)
                 SELECT $1, e.value ->> 'connection_id', e.value ->> 'id', e.value ->> 'kind' FROM json_each($2) e",
                scope.tenant(),
                &listed
            )?;
        }
    }
    Ok(())
}

fn listed_credential<'a>(connection_id: &'a str, row: &'a CredentialRow) -> ListedCredential<'a> {
    ListedCredential {
        id: &row.id,
        connection_id,
        integration_id: row.integration_id.as_deref(),
        provider: &row.provider,
        kind: &row.kind,
        owner_kind: &row.owner_kind,
        owner_id: &row.owner_id,
        shared_as: row.shared_as.as_deref(),
        access_token: row.access_token.as_ref().map(|bytes| HEXLOWER.encode(bytes)),
        refresh_token: row.refresh_token.as_ref().map(|bytes| HEXLOWER.encode(bytes)),
        token_type: &row.token_type,
        scopes: &row.scopes,
        obtained_at: row.obtained_at,
        expires_at: row.expires_at,
        refresh_expires_at: row.refresh_expires_at,
        generation: row.generation,
        due_at: row.due_at,
    }
}
