//! An owner's key at hand for a while, so that a value can be sealed while the database is away.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::{BELOW_THE_GATES, KeyError, Keys, Owner, Place, context, open_secret_with};
use crate::clock::Surroundings;
use crate::crypto::Key32;
use crate::crypto::envelope::{Sealed, seal};
use crate::ids::{TenantId, UserId};
use crate::secret::Secret;
use crate::store::imports::{UserKeyRow, user_keys_active, user_keys_insert};
use crate::store::keys::{DataKeyRow, data_keys_for_refresh};
use crate::store::{StoreError, Tx};

/// Seals values of one owner without asking the database. What it seals after the owner was erased opens nowhere.
pub struct Sealer {
    owner: Owner,
    key_id: String,
    key: Key32,
    around: Surroundings,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// Whose values it seals.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Seals `secret` for its place.
    ///
    /// # Errors
    /// [`KeyError::Refused`] when it is too large to be sealed.
    pub fn seal(&self, place: Place<'_>, secret: &Secret) -> Result<Vec<u8>, KeyError> {
        self.seal_bytes(place, secret.expose().as_bytes())
    }

    /// [`Self::seal`] for a small record.
    ///
    /// # Errors
    /// [`KeyError::Refused`] when it is too large to be sealed.
    pub fn seal_json(&self, place: Place<'_>, value: &impl Serialize) -> Result<Vec<u8>, KeyError> {
        let bytes = zeroize::Zeroizing::new(serde_json::to_vec(value).map_err(|_| KeyError::Refused)?);
        self.seal_bytes(place, &bytes)
    }

    pub(super) fn seal_bytes(&self, place: Place<'_>, plaintext: &[u8]) -> Result<Vec<u8>, KeyError> {
        let (tenant, owner_id) = (self.owner.tenant(), self.owner.id());
        let context = context(&tenant, self.owner.kind(), &owner_id, place, &self.key_id);
        let sealed = seal(&self.key, &context, plaintext, self.around.entropy.as_ref());
        Ok(sealed.map_err(|_| KeyError::Refused)?.into_bytes())
    }
}

/// A sealed value, and where it belongs.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Whose it is.
    pub owner: &'a Owner,
    /// Where it is kept.
    pub place: Place<'a>,
    /// As it is kept.
    pub sealed: &'a [u8],
}

/// What [`Keys::open_for_successor`] has opened. One may be readable where the other is not.
#[derive(Debug)]
pub struct Opened {
    /// The value that is to be replaced, and what seals its successor.
    pub own: Result<(Secret, Sealer), KeyError>,
    /// The value that is needed beside it.
    pub beside: Option<Result<Secret, KeyError>>,
}

impl Keys {
    /// Opens a value and takes out what its successor is sealed with, and opens another value of the same tenant beside it, if there is
    /// one; all their keys come in one round trip.
    ///
    /// # Errors
    /// As every statement. What became of each value is told in [`Opened`].
    pub async fn open_for_successor(
        &self,
        tx: &mut Tx,
        own: Stored<'_>,
        beside: Option<Stored<'_>>,
    ) -> Result<Opened, StoreError> {
        let (tenant, owner_id) = (own.owner.tenant(), own.owner.id());
        let other = beside.map(|it| (it.owner.id(), Sealed::from_stored(it.sealed.to_vec())));
        // A damaged value names no key, and no key is called nothing.
        let asked = beside.zip(other.as_ref()).map_or(("", "", ""), |(it, (id, sealed))| {
            (it.owner.kind(), id.as_str(), sealed.key_id().unwrap_or_default())
        });
        let owner = (own.owner.kind(), owner_id.as_str());
        let rows = data_keys_for_refresh(tx, BELOW_THE_GATES, tenant.as_str(), owner, asked).await?;
        let key = |is_active| rows.iter().find(|row| row.is_active == is_active).map(|row| &row.key);
        let beside = match beside {
            Some(it) => Some(self.open_by(tx, it, key(false)).await),
            None => None,
        };
        Ok(Opened { own: self.open_own(tx, own, key(true)).await, beside })
    }

    /// Opens a value whose key was looked up before; none was found where the value is damaged or its key was destroyed.
    async fn open_by(&self, tx: &mut Tx, it: Stored<'_>, row: Option<&DataKeyRow>) -> Result<Secret, KeyError> {
        let sealed = Sealed::from_stored(it.sealed.to_vec());
        sealed.key_id()?;
        let row = row.ok_or(KeyError::Destroyed)?;
        let key = self.unwrap_data_key(tx, it.owner, row).await?;
        open_secret_with((&row.id, &key), it.owner, it.place, &sealed)
    }

    async fn open_own(
        &self,
        tx: &mut Tx,
        own: Stored<'_>,
        active: Option<&DataKeyRow>,
    ) -> Result<(Secret, Sealer), KeyError> {
        let (key_id, key) = match active {
            Some(row) => (row.id.clone(), self.unwrap_data_key(tx, own.owner, row).await?),
            None => self.data_key(tx, own.owner).await?,
        };
        let sealed = Sealed::from_stored(own.sealed.to_vec());
        let secret = if sealed.key_id()? == key_id {
            open_secret_with((&key_id, &key), own.owner, own.place, &sealed)?
        } else {
            self.open_secret(tx, own.owner, own.place, own.sealed).await?
        };
        Ok((secret, Sealer { owner: own.owner.clone(), key_id, key, around: self.around.clone() }))
    }

    /// Takes the owner's key out. Makes it when the owner has none yet, so `tx` must be able to write then.
    ///
    /// # Errors
    /// [`KeyError::Destroyed`] when the owner was erased.
    pub async fn sealer(&self, tx: &mut Tx, owner: &Owner) -> Result<Sealer, KeyError> {
        let (key_id, key) = self.data_key(tx, owner).await?;
        Ok(Sealer { owner: owner.clone(), key_id, key, around: self.around.clone() })
    }

    /// [`Self::sealer`] for many users of a tenant, by `usr_…`.
    ///
    /// # Errors
    /// [`KeyError::Destroyed`] when one of them was erased.
    pub async fn sealers(
        &self,
        tx: &mut Tx,
        tenant: &TenantId,
        users: &[&str],
    ) -> Result<HashMap<String, Sealer>, KeyError> {
        let owner_of = |user: &str| Owner::User(tenant.clone(), UserId::stored(user.to_owned()));
        let mut rows = user_keys_active(tx, BELOW_THE_GATES, tenant.as_str(), users).await?;
        let known: HashSet<&str> = rows.iter().map(|row| row.owner_id.as_str()).collect();
        let new: Vec<&str> = users.iter().copied().filter(|user| !known.contains(user)).collect();
        if !new.is_empty() {
            let parent = self.tenant_key(tx, tenant).await?;
            let keys: Result<Vec<_>, KeyError> = new
                .iter()
                .map(|user| {
                    let (_, key) = self.new_data_key(&owner_of(user), &parent)?;
                    Ok(UserKeyRow { owner_id: (*user).to_owned(), key })
                })
                .collect();
            user_keys_insert(tx, BELOW_THE_GATES, tenant.as_str(), &keys?, self.around.now().0).await?;
            // Somebody may have made one at the same time; theirs counts.
            rows.extend(user_keys_active(tx, BELOW_THE_GATES, tenant.as_str(), &new).await?);
        }
        let mut sealers = HashMap::with_capacity(rows.len());
        for UserKeyRow { owner_id, key: row } in rows {
            let owner = owner_of(&owner_id);
            let key = self.unwrap_data_key(tx, &owner, &row).await?;
            sealers.insert(owner_id, Sealer { owner, key_id: row.id, key, around: self.around.clone() });
        }
        if users.iter().any(|user| !sealers.contains_key(*user)) {
            return Err(KeyError::Destroyed);
        }
        Ok(sealers)
    }
}
