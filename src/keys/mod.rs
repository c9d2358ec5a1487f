//! The key cabinet: carries key rows and sealed values between the safe (`crypto`) and the shelves (`store`).
//!
//! A root key outside the database wraps tenant keys; a tenant key wraps data keys, one per owner; a data key seals
//! that owner's values. Only this module sees keys and rows together. Tenant keys are cached for ten minutes; data
//! keys are read with the rows they open, so that destroying one is felt at once on every node.

mod cursors;
mod root;
mod sealer;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use cursors::Cursors;
pub use root::{EnvironmentKey, FileKey, KeyProvider, KnownRootKey, RootKeyStatus, generate_key_file, root_key_status};
use root::{RootKey, RootKeys};
pub use sealer::{Opened, Sealer, Stored};
pub use tokens::{fingerprint_of, hash_of, looks_right, mint, mint_handle};

use crate::caller::SystemScope;
use crate::clock::Surroundings;
use crate::crypto::Key32;
use crate::crypto::derive::{Purpose, derive};
use crate::crypto::envelope::{Context, OpenError, Sealed, open, unwrap_key, wrap};
use crate::crypto::signature::mac;
use crate::ids::{DataKeyId, TenantId, TenantKeyId, UserId};
use crate::secret::Secret;
use crate::store::keys::{
    DataKeyRow, TenantKeyRow, data_key_active, data_key_by_id, data_key_insert, data_keys_destroy,
    data_keys_were_destroyed, tenant_key_active, tenant_key_by_id, tenant_key_insert,
};
use crate::store::{OpenError as OpenStoreError, Store, StoreError, Tx};

const BELOW_THE_GATES: SystemScope =
    SystemScope::because("keys are looked up below every gate; the sealed context is the wall");
const TENANT_KEY_CACHE: Duration = Duration::from_secs(600);

/// Keys cannot be had or do not fit.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No root key is configured.
    #[error(
        "no root key is set; make one with `valetkey key generate --out FILE` and set VALETKEY_ROOT_KEY_FILE to its path"
    )]
    Missing,
    /// The root key is not base64 of 32 random bytes.
    #[error(
        "the root key is not usable ({0}); it must be base64 of 32 random bytes, as `valetkey key generate` makes it"
    )]
    Unusable(&'static str),
    /// The root key is not the one that this database was made with.
    #[error(
        "this root key does not belong to this database, which was made with key {expected}; set VALETKEY_ROOT_KEY_FILE to that key. Nothing was changed"
    )]
    Wrong {
        /// Fingerprint of the key that fits.
        expected: String,
    },
    /// Wrapped keys are there, but the row that proves the root key is not.
    #[error(
        "this database holds keys but no check value; restore the root_keys table from a backup. Nothing was changed"
    )]
    Inconsistent,
    /// The owner's data key was destroyed, or never made.
    #[error("the owner's key is gone")]
    Destroyed,
    /// A stored value does not open: moved, altered, or of another key.
    #[error("a stored value does not belong where it stands")]
    Refused,
    /// The schema could not be brought up to date.
    #[error(transparent)]
    Schema(OpenStoreError),
    /// The database did not answer.
    #[error("key rows cannot be read")]
    Store(#[from] StoreError),
}

impl KeyError {
    /// True when the database is away for now: trying again makes sense.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_outage())
    }
}

impl From<OpenError> for KeyError {
    fn from(_: OpenError) -> Self {
        Self::Refused
    }
}

/// Whose data key seals a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An end user: erased with the user.
    User(TenantId, UserId),
    /// The tenant itself.
    Tenant(TenantId),
    /// The installation.
    Installation,
}

impl Owner {
    fn kind(&self) -> &'static str {
        match self {
            Self::User(..) => "user",
            Self::Tenant(_) => "tenant",
            Self::Installation => "installation",
        }
    }

    fn tenant(&self) -> TenantId {
        match self {
            Self::User(tenant, _) | Self::Tenant(tenant) => tenant.clone(),
            Self::Installation => TenantId::installation(),
        }
    }

    fn id(&self) -> String {
        match self {
            Self::User(_, user) => user.to_string(),
            Self::Tenant(tenant) => tenant.to_string(),
            Self::Installation => TenantId::installation().to_string(),
        }
    }

    /// The owner that a row names by `owner_kind` and `owner_id`.
    #[must_use]
    pub fn of_row(tenant: &str, kind: &str, id: &str) -> Self {
        let tenant = TenantId::stored(tenant.to_owned());
        if kind == "user" { Self::User(tenant, UserId::stored(id.to_owned())) } else { Self::Tenant(tenant) }
    }

    /// `owner_kind` and `owner_id` for a row.
    #[must_use]
    pub fn to_row(&self) -> (&'static str, String) {
        (self.kind(), self.id())
    }
}

/// Where a sealed value stands: it opens nowhere else (CR-03).
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The kind of record, such as `credential`.
    pub record_kind: &'static str,
    /// The record's id.
    pub record_id: &'a str,
    /// The column.
    pub field: &'static str,
    /// The generation of the value; 0 where it has none.
    pub generation: i64,
}

/// The key cabinet of a running house.
#[derive(Clone)]
pub struct Keys {
    roots: Arc<RootKeys>,
    around: Surroundings,
    tenant_keys: Cache<(String, String), Arc<Key32>>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// Takes the root key from `provider` and proves that it belongs to `store` before anything is written. Only an
    /// empty database takes a new key (CR-07).
    ///
    /// # Errors
    /// See [`KeyError`]; the database is unchanged then.
    pub async fn open(provider: &dyn KeyProvider, store: &Store, around: Surroundings) -> Result<Self, KeyError> {
        let root: RootKey = provider.root_key()?;
        let roots = RootKeys::prove(root, store, &around).await?;
        let tenant_keys = Cache::builder().max_capacity(10_000).time_to_live(TENANT_KEY_CACHE).build();
        Ok(Self { roots: Arc::new(roots), around, tenant_keys })
    }

    /// Forgets cached tenant keys.
    pub fn forget_cached(&self) {
        self.tenant_keys.invalidate_all();
    }

    /// Seals `secret` for its place. Makes the owner's key when it is the owner's first value, so `tx` must be able to
    /// write.
    ///
    /// # Errors
    /// [`KeyError::Destroyed`] when the owner was erased.
    pub async fn seal(
        &self,
        tx: &mut Tx,
        owner: &Owner,
        place: Place<'_>,
        secret: &Secret,
    ) -> Result<Vec<u8>, KeyError> {
        self.sealer(tx, owner).await?.seal(place, secret)
    }

    /// Opens a value that was sealed for this owner and place.
    ///
    /// # Errors
    /// [`KeyError::Refused`] when it was sealed for another, [`KeyError::Destroyed`] when the owner was erased.
    pub async fn open_secret(
        &self,
        tx: &mut Tx,
        owner: &Owner,
        place: Place<'_>,
        sealed: &[u8],
    ) -> Result<Secret, KeyError> {
        let bytes = self.open_bytes(tx, owner, place, sealed).await?;
        Secret::from_utf8(bytes.to_vec()).ok_or(KeyError::Refused)
    }

    /// [`Self::seal`] for a small record.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub async fn seal_json(
        &self,
        tx: &mut Tx,
        owner: &Owner,
        place: Place<'_>,
        value: &impl Serialize,
    ) -> Result<Vec<u8>, KeyError> {
        self.sealer(tx, owner).await?.seal_json(place, value)
    }

    /// [`Self::open_secret`] for a small record.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub async fn open_json<T: DeserializeOwned>(
        &self,
        tx: &mut Tx,
        owner: &Owner,
        place: Place<'_>,
        sealed: &[u8],
    ) -> Result<T, KeyError> {
        let bytes = self.open_bytes(tx, owner, place, sealed).await?;
        serde_json::from_slice(&bytes).map_err(|_| KeyError::Refused)
    }

    /// Destroys the owner's data keys: everything they sealed is unreadable once `tx` commits.
    ///
    /// # Errors
    /// As every statement.
    pub async fn destroy(&self, tx: &mut Tx, owner: &Owner) -> Result<(), KeyError> {
        let tenant = owner.tenant();
        data_keys_destroy(tx, BELOW_THE_GATES, tenant.as_str(), owner.kind(), &owner.id(), self.around.now().0).await?;
        Ok(())
    }

    /// A keyed hash by which a personal text (an e-mail) can be found again but not guessed from the database alone.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub async fn lookup_hash(&self, tx: &mut Tx, text: &str) -> Result<String, KeyError> {
        let key = self.installation_key(tx, Purpose::Lookup).await?;
        Ok(data_encoding::HEXLOWER.encode(&mac(&key, "valetkey/lookup/v1", &[text.as_bytes()])))
    }

    /// A keyed fingerprint that tells whether two tenants have typed in the same OAuth client, without opening either's.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub async fn client_fingerprint(&self, tx: &mut Tx, unit: [&str; 3], secret: &Secret) -> Result<String, KeyError> {
        let key = self.installation_key(tx, Purpose::Fingerprint).await?;
        let [provider, client_id, variables] = unit.map(str::as_bytes);
        let parts = [provider, client_id, variables, secret.expose().as_bytes()];
        Ok(data_encoding::HEXLOWER.encode(&mac(&key, "valetkey/client/v1", &parts)))
    }

    /// A key of the installation for one purpose. It stays the same when root and tenant keys rotate.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub async fn installation_key(&self, tx: &mut Tx, purpose: Purpose) -> Result<Key32, KeyError> {
        let (_, key) = self.data_key(tx, &Owner::Installation).await?;
        Ok(derive(&key, purpose))
    }

    /// Whether an owner was erased: what was sealed for it can be opened by nobody any more.
    ///
    /// # Errors
    /// As every statement.
    pub async fn is_erased(&self, tx: &mut Tx, owner: &Owner) -> Result<bool, StoreError> {
        let (tenant, owner_id) = (owner.tenant(), owner.id());
        let active = data_key_active(tx, BELOW_THE_GATES, tenant.as_str(), owner.kind(), &owner_id).await?;
        Ok(active.is_none()
            && data_keys_were_destroyed(tx, BELOW_THE_GATES, tenant.as_str(), owner.kind(), &owner_id).await?)
    }

    async fn open_bytes(
        &self,
        tx: &mut Tx,
        owner: &Owner,
        place: Place<'_>,
        sealed: &[u8],
    ) -> Result<zeroize::Zeroizing<Vec<u8>>, KeyError> {
        let sealed = Sealed::from_stored(sealed.to_vec());
        let key_id = sealed.key_id()?.to_owned();
        let (tenant, owner_id) = (owner.tenant(), owner.id());
        let row = data_key_by_id(tx, BELOW_THE_GATES, tenant.as_str(), owner.kind(), &owner_id, &key_id)
            .await?
            .ok_or(KeyError::Destroyed)?;
        let key = self.unwrap_data_key(tx, owner, &row).await?;
        Ok(open(&key, &context(&tenant, owner.kind(), &owner_id, place, &key_id), &sealed)?)
    }

    /// The owner's active data key, made on first use.
    async fn data_key(&self, tx: &mut Tx, owner: &Owner) -> Result<(String, Key32), KeyError> {
        let (tenant, owner_id) = (owner.tenant(), owner.id());
        if let Some(row) = data_key_active(tx, BELOW_THE_GATES, tenant.as_str(), owner.kind(), &owner_id).await? {
            let key = self.unwrap_data_key(tx, owner, &row).await?;
            return Ok((row.id, key));
        }
        if data_keys_were_destroyed(tx, BELOW_THE_GATES, tenant.as_str(), owner.kind(), &owner_id).await? {
            // A task that began before the erasure must not seal anew for somebody who is gone.
            return Err(KeyError::Destroyed);
        }
        let parent = self.tenant_key(tx, &tenant).await?;
        let (key, row) = self.new_data_key(owner, &parent)?;
        if data_key_insert(tx, BELOW_THE_GATES, tenant.as_str(), owner.kind(), &owner_id, &row, self.around.now().0)
            .await?
        {
            return Ok((row.id, key));
        }
        // Somebody made the owner's key at the same time; theirs counts.
        let row = data_key_active(tx, BELOW_THE_GATES, tenant.as_str(), owner.kind(), &owner_id)
            .await?
            .ok_or(KeyError::Destroyed)?;
        let key = self.unwrap_data_key(tx, owner, &row).await?;
        Ok((row.id, key))
    }

    fn new_data_key(
        &self,
        owner: &Owner,
        (tenant_key_id, tenant_key): &(String, Arc<Key32>),
    ) -> Result<(Key32, DataKeyRow), KeyError> {
        let id = DataKeyId::new(&self.around).to_string();
        let key = Key32::generate(self.around.entropy.as_ref());
        let (tenant, owner_id) = (owner.tenant(), owner.id());
        let context = context(&tenant, owner.kind(), &owner_id, data_key_place(&id), tenant_key_id);
        let wrapped = wrap(tenant_key, &context, &key, self.around.entropy.as_ref()).map_err(|_| KeyError::Refused)?;
        let row = DataKeyRow { id, tenant_key_id: tenant_key_id.clone(), wrapped: Some(wrapped.into_bytes()) };
        Ok((key, row))
    }

    async fn unwrap_data_key(&self, tx: &mut Tx, owner: &Owner, row: &DataKeyRow) -> Result<Key32, KeyError> {
        let wrapped = row.wrapped.as_ref().ok_or(KeyError::Destroyed)?;
        let tenant = owner.tenant();
        let tenant_key = self.tenant_key_by_id(tx, &tenant, &row.tenant_key_id).await?;
        let context_id = owner.id();
        let context = context(&tenant, owner.kind(), &context_id, data_key_place(&row.id), &row.tenant_key_id);
        Ok(unwrap_key(&tenant_key, &context, &Sealed::from_stored(wrapped.clone()))?)
    }

    async fn tenant_key_by_id(&self, tx: &mut Tx, tenant: &TenantId, id: &str) -> Result<Arc<Key32>, KeyError> {
        let name = (tenant.to_string(), id.to_owned());
        if let Some(key) = self.tenant_keys.get(&name).await {
            return Ok(key);
        }
        let row = tenant_key_by_id(tx, BELOW_THE_GATES, tenant.as_str(), id).await?.ok_or(KeyError::Destroyed)?;
        let key = Arc::new(self.unwrap_tenant_key(tenant, &row)?);
        self.tenant_keys.insert(name, Arc::clone(&key)).await;
        Ok(key)
    }

    /// The tenant's active key, made on first use.
    async fn tenant_key(&self, tx: &mut Tx, tenant: &TenantId) -> Result<(String, Arc<Key32>), KeyError> {
        if let Some(row) = tenant_key_active(tx, BELOW_THE_GATES, tenant.as_str()).await? {
            let key = self.tenant_key_by_id(tx, tenant, &row.id).await?;
            return Ok((row.id, key));
        }
        let root = self.roots.active();
        let id = TenantKeyId::new(&self.around).to_string();
        let key = Key32::generate(self.around.entropy.as_ref());
        let context = context(tenant, "tenant", tenant.as_str(), tenant_key_place(&id), root.id());
        let wrapped = wrap(root.key(), &context, &key, self.around.entropy.as_ref()).map_err(|_| KeyError::Refused)?;
        let row = TenantKeyRow { id: id.clone(), root_key_id: root.id().to_owned(), wrapped: wrapped.into_bytes() };
        if tenant_key_insert(tx, BELOW_THE_GATES, tenant.as_str(), &row, self.around.now().0).await? {
            // Not cached: the transaction that makes it may still be given up.
            return Ok((id, Arc::new(key)));
        }
        let row = tenant_key_active(tx, BELOW_THE_GATES, tenant.as_str()).await?.ok_or(KeyError::Destroyed)?;
        let key = self.tenant_key_by_id(tx, tenant, &row.id).await?;
        Ok((row.id, key))
    }

    fn unwrap_tenant_key(&self, tenant: &TenantId, row: &TenantKeyRow) -> Result<Key32, KeyError> {
        let root =
            self.roots.by_id(&row.root_key_id).ok_or_else(|| KeyError::Wrong { expected: row.root_key_id.clone() })?;
        let context = context(tenant, "tenant", tenant.as_str(), tenant_key_place(&row.id), root.id());
        Ok(unwrap_key(root.key(), &context, &Sealed::from_stored(row.wrapped.clone()))?)
    }
}

fn open_secret_with(
    (key_id, key): (&str, &Key32),
    owner: &Owner,
    place: Place<'_>,
    sealed: &Sealed,
) -> Result<Secret, KeyError> {
    let (tenant, owner_id) = (owner.tenant(), owner.id());
    let bytes = open(key, &context(&tenant, owner.kind(), &owner_id, place, key_id), sealed)?;
    Secret::from_utf8(bytes.to_vec()).ok_or(KeyError::Refused)
}

fn data_key_place(id: &str) -> Place<'_> {
    Place { record_kind: "data_key", record_id: id, field: "wrapped", generation: 0 }
}

fn tenant_key_place(id: &str) -> Place<'_> {
    Place { record_kind: "tenant_key", record_id: id, field: "wrapped", generation: 0 }
}

fn context<'a>(
    tenant: &'a TenantId,
    owner_kind: &'a str,
    owner_id: &'a str,
    place: Place<'a>,
    key_id: &'a str,
) -> Context<'a> {
    Context {
        tenant: tenant.as_str(),
        owner_kind,
        owner_id,
        record_kind: place.record_kind,
        record_id: place.record_id,
        field: place.field,
        key_id,
        generation: place.generation,
    }
}

#[cfg(test)]
mod tests;
