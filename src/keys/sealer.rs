//! An owner's key at hand for a while, so that a value can be sealed while the database is away.

use super::{KeyError, Keys, Owner, Place, context};
use crate::clock::Surroundings;
use crate::crypto::Key32;
use crate::crypto::envelope::seal;
use crate::secret::Secret;
use crate::store::Tx;

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

    pub(super) fn seal_bytes(&self, place: Place<'_>, plaintext: &[u8]) -> Result<Vec<u8>, KeyError> {
        let (tenant, owner_id) = (self.owner.tenant(), self.owner.id());
        let context = context(&tenant, self.owner.kind(), &owner_id, place, &self.key_id);
        let sealed = seal(&self.key, &context, plaintext, self.around.entropy.as_ref());
        Ok(sealed.map_err(|_| KeyError::Refused)?.into_bytes())
    }
}

impl Keys {
    /// Takes the owner's key out. Makes it when the owner has none yet, so `tx` must be able to write then.
    ///
    /// # Errors
    /// [`KeyError::Destroyed`] when the owner was erased.
    pub async fn sealer(&self, tx: &mut Tx, owner: &Owner) -> Result<Sealer, KeyError> {
        let (key_id, key) = self.data_key(tx, owner).await?;
        Ok(Sealer { owner: owner.clone(), key_id, key, around: self.around.clone() })
    }
}
