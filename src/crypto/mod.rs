//! The tools of the safe: sealing, deriving, signing, hashing and making secrets up.
//!
//! This module opens bytes and knows no table; only `keys` brings key rows and sealed values
//! together. Everything here stands on reviewed primitives (AES-256-GCM, HKDF, HMAC and SHA-256,
//! Argon2id) and adds formats, never algorithms (CR-01):
//!
//! - [`envelope`]: the sealed format. One key and one commitment per value, bound to its context.
//! - [`mod@derive`]: one key per use from one key (CR-10).
//! - [`tokens`]: capability tokens, their hashes, random handles for OAuth.
//! - [`signature`]: message authentication, for our own data and for formats of others.
//! - [`passwords`]: Argon2id within bounded memory.
//!
//! There is no cipher that does nothing, and nothing here makes a key when one is missing (CR-07, CR-08).

mod cipher;
pub mod derive;
pub mod envelope;
pub mod passwords;
pub mod signature;
pub mod tokens;

#[cfg(test)]
mod known_answers;
#[cfg(test)]
mod sealed_properties;
#[cfg(test)]
mod sealed_vectors;

use std::fmt;

use secrecy::{ExposeSecret, ExposeSecretMut, SecretBox};

use crate::clock::Entropy;

/// Bytes in a key.
pub const KEY_LENGTH: usize = 32;

/// Why bytes from outside are not a root key. Both keep the house from becoming ready (CR-07).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A root key has exactly 32 bytes. The number of bytes found says whether the file was cut off
    /// or still holds an encoded text.
    #[error("a key has 32 bytes, these are {found}")]
    WrongLength {
        /// How many bytes there were.
        found: usize,
    },
    /// Thirty-two zero bytes: a placeholder or an unwritten file, never a key.
    #[error("a key of zero bytes only is refused")]
    AllZero,
}

/// Thirty-two secret bytes: a root key, a tenant key, a data key or one derived from them.
///
/// It lives in one place on the heap, so moving it leaves no copies behind, and is wiped when
/// dropped. It has no `Clone`, no `PartialEq` and no way to read the bytes outside this module:
/// a key can be used and wrapped, not seen. It is made by [`Key32::generate`], by
/// [`Key32::from_root`], by [`envelope::unwrap_key`] and by [`derive::derive`], nowhere else.
pub struct Key32(SecretBox<[u8; KEY_LENGTH]>);

impl Key32 {
    /// A new random key.
    #[must_use]
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self::filled(|bytes| entropy.fill(bytes))
    }

    /// Takes a root key that a `KeyProvider` found outside the database. The caller wipes `bytes`.
    ///
    /// # Errors
    /// [`KeyError::WrongLength`] unless there are exactly 32 bytes, [`KeyError::AllZero`] when they
    /// are all zero (CR-07).
    pub fn from_root(bytes: &[u8]) -> Result<Self, KeyError> {
        let exact: &[u8; KEY_LENGTH] = bytes.try_into().map_err(|_| KeyError::WrongLength { found: bytes.len() })?;
        if signature::same(exact, &[0; KEY_LENGTH]) {
            return Err(KeyError::AllZero);
        }
        Ok(Self::filled(|own| own.copy_from_slice(exact)))
    }

    /// Writes the key straight into its place on the heap.
    fn filled(write: impl FnOnce(&mut [u8; KEY_LENGTH])) -> Self {
        let mut inside = SecretBox::new(Box::new([0; KEY_LENGTH]));
        write(inside.expose_secret_mut());
        Self(inside)
    }

    /// The bytes, for this module only.
    fn bytes(&self) -> &[u8; KEY_LENGTH] {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Key32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key32(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;

    #[test]
    fn root_keys_of_the_wrong_length_or_of_zeros_are_refused_cr_07() {
        for length in (0..32).chain(33..=130) {
            let refused = Key32::from_root(&vec![7; length]).expect_err("wrong length");
            assert_eq!(refused, KeyError::WrongLength { found: length });
        }
        assert_eq!(Key32::from_root(&[0; 32]).expect_err("zeros"), KeyError::AllZero);

        let mut nearly_zero = [0; 32];
        nearly_zero[31] = 1;
        assert_eq!(Key32::from_root(&nearly_zero).expect("a key").bytes(), &nearly_zero);
    }

    #[test]
    fn generated_keys_differ_and_debug_output_shows_none_of_them() {
        let entropy = SeededEntropy::new(1);
        let (one, other) = (Key32::generate(&entropy), Key32::generate(&entropy));
        assert_ne!(one.bytes(), other.bytes());
        assert_eq!(format!("{one:?}"), "Key32(…)");
    }
}
