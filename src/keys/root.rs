//! The root key: where it comes from and the proof that it belongs to this database.

use std::io::Write;
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, HEXLOWER};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{BELOW_THE_GATES, KeyError};
use crate::clock::Surroundings;
use crate::crypto::Key32;
use crate::crypto::derive::{Purpose, derive};
use crate::crypto::envelope::{Context, Sealed, open, seal};
use crate::crypto::signature::mac;
use crate::secret::Secret;
use crate::store::Store;
use crate::store::keys::{root_key_insert, root_keys, tenant_keys_exist};

/// The state of a key that wraps nothing any more, and never will again.
const RETIRED: &str = "retired";
const CHECK_TEXT: &[u8] = b"valetkey root key check";

/// Where a root key comes from.
pub trait KeyProvider: Send + Sync {
    /// Brings the root key.
    ///
    /// # Errors
    /// [`KeyError::Missing`] and [`KeyError::Unusable`], with the next step in words.
    fn root_key(&self) -> Result<RootKey, KeyError>;
}

/// A key file: base64 of 32 bytes.
#[derive(Debug)]
pub struct FileKey(pub PathBuf);

impl KeyProvider for FileKey {
    fn root_key(&self) -> Result<RootKey, KeyError> {
        let text = std::fs::read_to_string(&self.0).map_err(|_| KeyError::Unusable("the key file cannot be read"))?;
        RootKey::parse(&Secret::new(text))
    }
}

/// A key from the settings, or none.
#[derive(Debug)]
pub struct EnvironmentKey(pub Option<Secret>);

impl KeyProvider for EnvironmentKey {
    fn root_key(&self) -> Result<RootKey, KeyError> {
        RootKey::parse(self.0.as_ref().ok_or(KeyError::Missing)?)
    }
}

/// A root key with its fingerprint, which says nothing about the key.
#[derive(Debug)]
pub struct RootKey {
    id: String,
    key: Key32,
}

impl RootKey {
    fn parse(text: &Secret) -> Result<Self, KeyError> {
        let trimmed = text.expose().trim();
        if trimmed.is_empty() {
            return Err(KeyError::Unusable("it is empty"));
        }
        let bytes =
            Zeroizing::new(BASE64.decode(trimmed.as_bytes()).map_err(|_| KeyError::Unusable("it is not base64"))?);
        if bytes.len() != 32 {
            return Err(KeyError::Unusable("it does not have 32 bytes"));
        }
        let key = Key32::from_root(&bytes).map_err(|_| KeyError::Unusable("it is all zero"))?;
        let tag = mac(&derive(&key, Purpose::Fingerprint), "valetkey/root-key-id/v1", &[]);
        Ok(Self { id: format!("root_{}", HEXLOWER.encode(&tag[..8])), key })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn key(&self) -> &Key32 {
        &self.key
    }

    fn check_context(&self) -> Context<'_> {
        Context {
            tenant: "",
            owner_kind: "installation",
            owner_id: "",
            record_kind: "root_key",
            record_id: &self.id,
            field: "check_value",
            key_id: &self.id,
            generation: 0,
        }
    }
}

/// The root keys that are at hand.
pub(super) struct RootKeys {
    active: RootKey,
}

impl RootKeys {
    /// Proves that `root` belongs to `store`, or makes it the first key of an empty database.
    pub(super) async fn prove(root: RootKey, store: &Store, around: &Surroundings) -> Result<Self, KeyError> {
        let status = look(&root, store).await?;
        store.migrate().await.map_err(KeyError::Schema)?;
        if !status.proven {
            let check = seal(&root.key, &root.check_context(), CHECK_TEXT, around.entropy.as_ref())
                .map_err(|_| KeyError::Refused)?;
            let mut tx = store.begin().await?;
            root_key_insert(&mut tx, BELOW_THE_GATES, &root.id, check.as_bytes(), around.now().0).await?;
            // Of two nodes that start with different keys on an empty database one was first; the other's key is wrong.
            let known = root_keys(&mut tx, BELOW_THE_GATES).await?;
            if let Some(other) = known.iter().find(|row| row.state == "active" && row.id != root.id) {
                return Err(KeyError::Wrong { expected: other.id.clone() });
            }
            tx.commit().await?;
        }
        Ok(Self { active: root })
    }

    pub(super) fn active(&self) -> &RootKey {
        &self.active
    }

    pub(super) fn by_id(&self, id: &str) -> Option<&RootKey> {
        Some(&self.active).filter(|root| root.id == id)
    }
}

/// What a database says about the root key at hand.
#[derive(Clone, Debug, Serialize)]
pub struct RootKeyStatus {
    /// Fingerprint of the key at hand.
    pub id: String,
    /// True when the database's check value opens with it; false for a database that has no key yet.
    pub proven: bool,
    /// Every root key this database has known.
    pub known: Vec<KnownRootKey>,
}

/// A root key that a database has known.
#[derive(Clone, Debug, Serialize)]
pub struct KnownRootKey {
    /// Its fingerprint.
    pub id: String,
    /// `active`, `retiring` or `retired`.
    pub state: String,
}

/// Compares the key from `provider` with `store` and changes nothing. `None` stands for a database that is not there.
///
/// # Errors
/// [`KeyError`], as `serve` would meet it.
pub async fn root_key_status(provider: &dyn KeyProvider, store: Option<&Store>) -> Result<RootKeyStatus, KeyError> {
    let root = provider.root_key()?;
    match store {
        Some(store) => look(&root, store).await,
        None => Ok(RootKeyStatus { id: root.id, proven: false, known: Vec::new() }),
    }
}

async fn look(root: &RootKey, store: &Store) -> Result<RootKeyStatus, KeyError> {
    let mut status = RootKeyStatus { id: root.id.clone(), proven: false, known: Vec::new() };
    if !store.has_schema().await? {
        return Ok(status);
    }
    let mut tx = store.read().await?;
    let known = root_keys(&mut tx, BELOW_THE_GATES).await?;
    if let Some(row) = known.iter().find(|row| row.id == root.id && row.state != RETIRED) {
        let text = open(&root.key, &root.check_context(), &Sealed::from_stored(row.check_value.clone()))?;
        if text.as_slice() != CHECK_TEXT {
            return Err(KeyError::Refused);
        }
        status.proven = true;
    } else if let Some(other) = known.iter().find(|row| row.state != RETIRED) {
        return Err(KeyError::Wrong { expected: other.id.clone() });
    } else if tenant_keys_exist(&mut tx, BELOW_THE_GATES).await? {
        return Err(KeyError::Inconsistent);
    }
    status.known = known.into_iter().map(|row| KnownRootKey { id: row.id, state: row.state }).collect();
    Ok(status)
}

/// Writes a new root key to a file that only its owner can read. Never overwrites.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn generate_key_file(path: &Path, around: &Surroundings) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let bytes = Zeroizing::new(around.random::<32>());
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let text = Zeroizing::new(format!("{}\n", BASE64.encode(bytes.as_slice())));
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RootKey, KeyError> {
        RootKey::parse(&Secret::new(text))
    }

    #[test]
    fn unusable_root_keys_are_told_apart_in_words() {
        for (text, why) in [
            ("", "empty"),
            ("not base64!", "not base64"),
            ("c2hvcnQ=", "32 bytes"),
            ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "zero"),
        ] {
            let error = parse(text).expect_err("refused").to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").is_ok());
    }

    #[test]
    fn a_key_file_is_private_and_never_overwritten() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("root.key");
        generate_key_file(&path, &Surroundings::system()).expect("written");
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(FileKey(path.clone()).root_key().is_ok());
        assert!(generate_key_file(&path, &Surroundings::system()).is_err(), "an existing key stays");
    }
}
