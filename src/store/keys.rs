//! Key rows: check values of root keys, wrapped tenant keys and wrapped data keys. Keys are looked up below every
//! gate, so these functions take a [`SystemScope`] and the tenant beside it.

use super::{StoreError, Tx, sql};
use crate::caller::SystemScope;

/// A root key's check value.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct RootKeyRow {
    /// The key's fingerprint.
    pub id: String,
    /// A known text, sealed with the key.
    pub check_value: Vec<u8>,
    /// `active`, `retiring` or `retired`.
    pub state: String,
}

/// Every root key this database has known.
///
/// # Errors
/// As every statement.
pub async fn root_keys(tx: &mut Tx, _: SystemScope) -> Result<Vec<RootKeyRow>, StoreError> {
    sql!(tx, all RootKeyRow, "SELECT id, check_value, state FROM root_keys ORDER BY created_at")
}

/// Adds the first root key; none is added where one is active already, since a parallel start may have been faster.
///
/// # Errors
/// As every statement.
pub async fn root_key_insert(
    tx: &mut Tx,
    _: SystemScope,
    id: &str,
    check_value: &[u8],
    now: i64,
) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO root_keys (id, check_value, state, created_at) VALUES ($1, $2, 'active', $3) ON CONFLICT DO NOTHING",
        id,
        check_value,
        now
    )?;
    Ok(())
}

/// A wrapped tenant key.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct TenantKeyRow {
    /// `tky_…`.
    pub id: String,
    /// The root key that wraps it.
    pub root_key_id: String,
    /// Sealed.
    pub wrapped: Vec<u8>,
}

/// A tenant's active key.
///
/// # Errors
/// As every statement.
pub async fn tenant_key_active(tx: &mut Tx, _: SystemScope, tenant: &str) -> Result<Option<TenantKeyRow>, StoreError> {
    sql!(tx, optional TenantKeyRow, "SELECT id, root_key_id, wrapped FROM tenant_keys WHERE tenant_id = $1 AND state = 'active'", tenant)
}

/// One key of a tenant, in whatever state.
///
/// # Errors
/// As every statement.
pub async fn tenant_key_by_id(
    tx: &mut Tx,
    _: SystemScope,
    tenant: &str,
    id: &str,
) -> Result<Option<TenantKeyRow>, StoreError> {
    sql!(tx, optional TenantKeyRow, "SELECT id, root_key_id, wrapped FROM tenant_keys WHERE tenant_id = $1 AND id = $2", tenant, id)
}

/// Adds a tenant's first active key; false when there is one already.
///
/// # Errors
/// As every statement.
pub async fn tenant_key_insert(
    tx: &mut Tx,
    _: SystemScope,
    tenant: &str,
    key: &TenantKeyRow,
    now: i64,
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "INSERT INTO tenant_keys (tenant_id, id, root_key_id, wrapped, state, created_at) VALUES ($1, $2, $3, $4, 'active', $5)
         ON CONFLICT (tenant_id) WHERE state = 'active' DO NOTHING",
        tenant,
        &key.id,
        &key.root_key_id,
        &key.wrapped,
        now
    )? == 1)
}

/// True when any tenant key is there: a database that has been used.
///
/// # Errors
/// As every statement.
pub async fn tenant_keys_exist(tx: &mut Tx, _: SystemScope) -> Result<bool, StoreError> {
    Ok(sql!(tx, one(i64,), "SELECT count(*) FROM tenant_keys")?.0 > 0)
}

/// A wrapped data key.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct DataKeyRow {
    /// `dky_…`.
    pub id: String,
    /// The tenant key that wraps it.
    pub tenant_key_id: String,
    /// Sealed; none once the key is destroyed.
    pub wrapped: Option<Vec<u8>>,
}

/// An owner's active data key.
///
/// # Errors
/// As every statement.
pub async fn data_key_active(
    tx: &mut Tx,
    _: SystemScope,
    tenant: &str,
    owner_kind: &str,
    owner_id: &str,
) -> Result<Option<DataKeyRow>, StoreError> {
    sql!(
        tx,
        optional DataKeyRow,
        "SELECT id, tenant_key_id, wrapped FROM data_keys WHERE tenant_id = $1 AND owner_kind = $2 AND owner_id = $3 AND state = 'active'",
        tenant,
        owner_kind,
        owner_id
    )
}

/// One data key of a tenant, if it belongs to this owner.
///
/// # Errors
/// As every statement.
pub async fn data_key_by_id(
    tx: &mut Tx,
    _: SystemScope,
    tenant: &str,
    owner_kind: &str,
    owner_id: &str,
    id: &str,
) -> Result<Option<DataKeyRow>, StoreError> {
    sql!(
        tx,
        optional DataKeyRow,
        "SELECT id, tenant_key_id, wrapped FROM data_keys WHERE tenant_id = $1 AND owner_kind = $2 AND owner_id = $3 AND id = $4",
        tenant,
        owner_kind,
        owner_id,
        id
    )
}

/// A data key that one of two questions was about.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct AskedKeyRow {
    /// Whether it is the first owner's active key; the other one otherwise.
    pub is_active: bool,
    /// The key.
    #[sqlx(flatten)]
    pub key: DataKeyRow,
}

/// [`data_key_active`] of one owner and [`data_key_by_id`] of another, in one round trip: every refresh needs both.
///
/// # Errors
/// As every statement.
pub async fn data_keys_for_refresh(
    tx: &mut Tx,
    _: SystemScope,
    tenant: &str,
    (owner_kind, owner_id): (&str, &str),
    (other_kind, other_id, id): (&str, &str, &str),
) -> Result<Vec<AskedKeyRow>, StoreError> {
    sql!(
        tx,
        all AskedKeyRow,
        "SELECT 1 = 1 AS is_active, id, tenant_key_id, wrapped FROM data_keys WHERE tenant_id = $1 AND owner_kind = $2 AND owner_id = $3 AND state = 'active'
         UNION ALL
         SELECT 1 = 0 AS is_active, id, tenant_key_id, wrapped FROM data_keys WHERE tenant_id = $1 AND owner_kind = $4 AND owner_id = $5 AND id = $6",
        tenant,
        owner_kind,
        owner_id,
        other_kind,
        other_id,
        id
    )
}

/// Adds an owner's first active data key; false when there is one already.
///
/// # Errors
/// As every statement.
pub async fn data_key_insert(
    tx: &mut Tx,
    _: SystemScope,
    tenant: &str,
    owner_kind: &str,
    owner_id: &str,
    key: &DataKeyRow,
    now: i64,
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "INSERT INTO data_keys (tenant_id, id, owner_kind, owner_id, tenant_key_id, wrapped, state, created_at) VALUES ($1, $2, $3, $4, $5, $6, 'active', $7)
         ON CONFLICT (tenant_id, owner_kind, owner_id) WHERE state = 'active' DO NOTHING",
        tenant,
        &key.id,
        owner_kind,
        owner_id,
        &key.tenant_key_id,
        &key.wrapped,
        now
    )? == 1)
}

/// Destroys every data key of an owner: what they sealed is unreadable from the commit on.
///
/// # Errors
/// As every statement.
pub async fn data_keys_destroy(
    tx: &mut Tx,
    _: SystemScope,
    tenant: &str,
    owner_kind: &str,
    owner_id: &str,
    now: i64,
) -> Result<u64, StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE data_keys SET wrapped = NULL, state = 'destroyed', destroyed_at = $4
         WHERE tenant_id = $1 AND owner_kind = $2 AND owner_id = $3 AND state <> 'destroyed'",
        tenant,
        owner_kind,
        owner_id,
        now
    )
}

/// True when keys of this owner were destroyed: it was erased, and nothing is sealed for it any more.
///
/// # Errors
/// As every statement.
pub async fn data_keys_were_destroyed(
    tx: &mut Tx,
    _: SystemScope,
    tenant: &str,
    owner_kind: &str,
    owner_id: &str,
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        one (i64,),
        "SELECT count(*) FROM data_keys WHERE tenant_id = $1 AND owner_kind = $2 AND owner_id = $3 AND state = 'destroyed'",
        tenant,
        owner_kind,
        owner_id
    )?
    .0 > 0)
}
