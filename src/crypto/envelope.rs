//! The sealed format, version 1: how every secret lies on the shelves, keys included.
//!
//! ```text
//! version 1 · algorithm 1 · key id (1 length byte + 1..=255 bytes) · commitment 32 · nonce 12 · ciphertext + tag 16
//! ```
//!
//! No key seals two values. HKDF-Expand turns the data key and the value's [`Context`] into 64
//! bytes: 32 for AES-256-GCM and 32 of commitment. A nonce therefore only has to be unique among
//! the rewrites of one value, and no durable counter is needed (CR-02). The commitment is compared
//! before anything is decrypted, since AES-GCM alone accepts crafted ciphertexts under two keys
//! (CR-05). The same context is the associated data, so a value that was moved to another record,
//! owner, tenant, field or generation does not open (CR-03).
//!
//! A header names its key; there is never a trial with other keys.

use std::fmt;

use zeroize::Zeroizing;

use super::cipher::{self, NONCE_LENGTH, TAG_LENGTH};
use super::signature::same;
use super::{KEY_LENGTH, Key32};
use crate::clock::Entropy;

/// The longest plaintext: 1 MiB, far more than any token or key.
pub const MAX_PLAINTEXT: usize = 1024 * 1024;

/// Names format and version. It leads the encoded context, so a later version or algorithm, which
/// takes another label, never shares a key with this one.
const LABEL: &str = "valetkey/seal/v1";
const VERSION: u8 = 1;
const AES_256_GCM: u8 = 1;
const COMMITMENT_LENGTH: usize = 32;
/// No part of a context is longer, which also keeps every length prefix far from its limit.
const MAX_CONTEXT_PART: usize = 4096;

/// What a value is and whose: everything that must be the same when it is opened (CR-03).
///
/// The connection is not part of it, since several connections can share a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context<'a> {
    /// The tenant's id.
    pub tenant: &'a str,
    /// What kind of owner's data key seals the value: a user, the tenant or the installation.
    pub owner_kind: &'a str,
    /// The owner's id.
    pub owner_id: &'a str,
    /// The kind of record, such as the table's name.
    pub record_kind: &'a str,
    /// The record's id.
    pub record_id: &'a str,
    /// Which value of the record.
    pub field: &'a str,
    /// The id of the key that seals; 1 to 255 bytes. It also stands in the header.
    pub key_id: &'a str,
    /// The generation of the value, so that an older one put back is noticed (CR-04). Values that
    /// have no generations use 0.
    pub generation: i64,
}

impl Context<'_> {
    /// The encoding that is both HKDF info and associated data: every part after its length as
    /// four bytes, big end first. None when a part is longer than [`MAX_CONTEXT_PART`].
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let generation = self.generation.to_be_bytes();
        let parts: [&[u8]; 9] = [
            LABEL.as_bytes(),
            self.tenant.as_bytes(),
            self.owner_kind.as_bytes(),
            self.owner_id.as_bytes(),
            self.record_kind.as_bytes(),
            self.record_id.as_bytes(),
            self.field.as_bytes(),
            self.key_id.as_bytes(),
            &generation,
        ];
        let mut encoded = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
        for part in parts {
            let length = u32::try_from(part.len()).ok().filter(|_| part.len() <= MAX_CONTEXT_PART)?;
            encoded.extend_from_slice(&length.to_be_bytes());
            encoded.extend_from_slice(part);
        }
        Some(encoded)
    }
}

/// Why a value could not be sealed. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Longer than [`MAX_PLAINTEXT`]: the door should have refused it.
    #[error("the value is too long to be sealed")]
    TooLong,
    /// The key id is empty or longer than 255 bytes, or a part of the context is longer than 4096:
    /// a mistake of the program.
    #[error("the context of the value cannot be written")]
    Context,
}

/// Why a sealed value did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not a sealed value of a version and algorithm that this program knows: damage at rest, or a
    /// row that a newer program wrote.
    #[error("the stored bytes are not a sealed value")]
    Malformed,
    /// Sealed with another key than the context names: fetch that key, or report that it is gone.
    #[error("the value is sealed with another key")]
    UnknownKey,
    /// The key, the context or a byte of the value is not what it was: treat it as tampering.
    #[error("the sealed value does not belong here")]
    Refused,
}

/// A sealed value. It is safe to store and to copy, and useless without its key and context.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

impl Sealed {
    /// Bytes that the database returned. They are checked when they are opened.
    #[must_use]
    pub fn from_stored(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes to store, given away.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The id of the key that sealed this. It is not authenticated until the value is opened.
    ///
    /// # Errors
    /// [`OpenError::Malformed`].
    pub fn key_id(&self) -> Result<&str, OpenError> {
        Parts::parse(&self.0).map(|parts| parts.key_id)
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// The parts of a sealed value, every length checked (CR-11). Parsing does no cryptography and says
/// nothing about authenticity.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Parts<'a> {
    /// Which key sealed it; 1 to 255 bytes of UTF-8.
    pub key_id: &'a str,
    /// The key commitment.
    pub commitment: &'a [u8; COMMITMENT_LENGTH],
    /// The nonce.
    pub nonce: &'a [u8; NONCE_LENGTH],
    /// The encrypted value, as long as the plaintext; at most [`MAX_PLAINTEXT`] bytes.
    pub ciphertext: &'a [u8],
    /// The tag.
    pub tag: &'a [u8; TAG_LENGTH],
}

impl<'a> Parts<'a> {
    /// Takes a sealed value apart. It never panics, whatever the bytes are.
    ///
    /// # Errors
    /// [`OpenError::Malformed`] when version or algorithm are unknown, a length does not add up, or
    /// the key id is not UTF-8.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, OpenError> {
        Self::split(bytes).ok_or(OpenError::Malformed)
    }

    fn split(bytes: &'a [u8]) -> Option<Self> {
        let (&[version, algorithm, id_length], rest) = bytes.split_first_chunk()?;
        if version != VERSION || algorithm != AES_256_GCM || id_length == 0 {
            return None;
        }
        let (key_id, rest) = rest.split_at_checked(usize::from(id_length))?;
        let (commitment, rest) = rest.split_first_chunk()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let (ciphertext, tag) = rest.split_last_chunk()?;
        if ciphertext.len() > MAX_PLAINTEXT {
            return None;
        }
        Some(Self { key_id: std::str::from_utf8(key_id).ok()?, commitment, nonce, ciphertext, tag })
    }
}

impl fmt::Debug for Parts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parts({} bytes under {:?})", self.ciphertext.len(), self.key_id)
    }
}

/// The key and the commitment of one value.
struct ValueKey(Zeroizing<[u8; KEY_LENGTH + COMMITMENT_LENGTH]>);

impl ValueKey {
    fn derive(key: &Key32, encoded_context: &[u8]) -> Self {
        let mut bytes = Zeroizing::new([0; KEY_LENGTH + COMMITMENT_LENGTH]);
        cipher::expand(key.bytes(), encoded_context, bytes.as_mut());
        Self(bytes)
    }

    #[expect(clippy::expect_used, reason = "both halves of 64 bytes have 32")]
    fn halves(&self) -> (&[u8; KEY_LENGTH], &[u8; COMMITMENT_LENGTH]) {
        let (key, commitment) = self.0.split_first_chunk().expect("64 bytes");
        (key, commitment.try_into().expect("the other 32"))
    }
}

/// Seals `plaintext` for `context` under the data key `key`, which must be the one that
/// `context.key_id` names. Sealing the same value again gives other bytes. The result is longer
/// than the plaintext by 63 bytes and the key id.
///
/// # Errors
/// [`SealError::TooLong`] beyond [`MAX_PLAINTEXT`]; [`SealError::Context`].
pub fn seal(key: &Key32, context: &Context<'_>, plaintext: &[u8], entropy: &dyn Entropy) -> Result<Sealed, SealError> {
    if plaintext.len() > MAX_PLAINTEXT {
        return Err(SealError::TooLong);
    }
    let id_length = u8::try_from(context.key_id.len()).ok().filter(|length| *length > 0);
    let (Some(id_length), Some(encoded)) = (id_length, context.encode()) else {
        return Err(SealError::Context);
    };
    let value_key = ValueKey::derive(key, &encoded);
    let (cipher_key, commitment) = value_key.halves();
    let mut nonce = [0; NONCE_LENGTH];
    entropy.fill(&mut nonce);

    // Sized once, so that the plaintext, which is encrypted in place, is never left behind.
    let header = 3 + context.key_id.len() + COMMITMENT_LENGTH + NONCE_LENGTH;
    let mut bytes = Vec::with_capacity(header + plaintext.len() + TAG_LENGTH);
    bytes.extend_from_slice(&[VERSION, AES_256_GCM, id_length]);
    bytes.extend_from_slice(context.key_id.as_bytes());
    bytes.extend_from_slice(commitment);
    bytes.extend_from_slice(&nonce);
    bytes.extend_from_slice(plaintext);
    let tag = cipher::encrypt(cipher_key, &nonce, &encoded, &mut bytes[header..]).ok_or(SealError::TooLong)?;
    bytes.extend_from_slice(&tag);
    Ok(Sealed(bytes))
}

/// Opens what [`seal`] sealed with the same key and context. The plaintext is wiped when dropped.
///
/// # Errors
/// [`OpenError::Malformed`], [`OpenError::UnknownKey`] when the header names another key than
/// `context.key_id`, [`OpenError::Refused`] when commitment or tag are wrong.
pub fn open(key: &Key32, context: &Context<'_>, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let parts = Parts::parse(sealed.as_bytes())?;
    if parts.key_id != context.key_id {
        return Err(OpenError::UnknownKey);
    }
    // A context that cannot be written was never sealed.
    let encoded = context.encode().ok_or(OpenError::Refused)?;
    let value_key = ValueKey::derive(key, &encoded);
    let (cipher_key, commitment) = value_key.halves();
    if !same(commitment, parts.commitment) {
        return Err(OpenError::Refused);
    }
    let mut plaintext = Zeroizing::new(parts.ciphertext.to_vec());
    cipher::decrypt(cipher_key, parts.nonce, &encoded, &mut plaintext, parts.tag).map_err(|_| OpenError::Refused)?;
    Ok(plaintext)
}

/// Seals a key under another one, in the same format as any value.
///
/// # Errors
/// [`SealError::Context`].
pub fn wrap(key: &Key32, context: &Context<'_>, inner: &Key32, entropy: &dyn Entropy) -> Result<Sealed, SealError> {
    seal(key, context, inner.bytes(), entropy)
}

/// Opens a key that [`wrap`] sealed.
///
/// # Errors
/// As [`open`]; [`OpenError::Malformed`] also when what was sealed is not a key: not 32 bytes, or
/// zeros only (CR-07).
pub fn unwrap_key(key: &Key32, context: &Context<'_>, sealed: &Sealed) -> Result<Key32, OpenError> {
    let bytes = open(key, context, sealed)?;
    Key32::from_root(&bytes).map_err(|_| OpenError::Malformed)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::clock::{SeededEntropy, SystemEntropy};

    const MAX_KEY_ID: usize = 255;
    const CONTEXT: Context<'static> = Context {
        tenant: "ten_a",
        owner_kind: "user",
        owner_id: "usr_a",
        record_kind: "credential",
        record_id: "crd_a",
        field: "refresh_token",
        key_id: "dky_a",
        generation: 7,
    };

    fn key(byte: u8) -> Key32 {
        Key32::from_root(&[byte; 32]).expect("a key")
    }

    fn sealed(plaintext: &[u8]) -> Sealed {
        seal(&key(1), &CONTEXT, plaintext, &SeededEntropy::new(1)).expect("sealed")
    }

    #[test]
    fn what_was_sealed_opens_and_looks_different_every_time() {
        for length in [0, 1, 15, 16, 17, 4096, MAX_PLAINTEXT] {
            let plaintext = vec![b'x'; length];
            let value = sealed(&plaintext);
            assert_eq!(value.as_bytes().len(), length + 63 + CONTEXT.key_id.len());
            assert_eq!(value.key_id(), Ok("dky_a"));
            assert_eq!(*open(&key(1), &CONTEXT, &value).expect("opened"), plaintext);
        }
        let entropy = SeededEntropy::new(2);
        let twice = [(); 2].map(|()| seal(&key(1), &CONTEXT, b"same", &entropy).expect("sealed"));
        assert_ne!(twice[0], twice[1]);
        assert_eq!(format!("{:?}", twice[0]), "Sealed(72 bytes)");
        assert_eq!(format!("{:?}", Parts::parse(twice[0].as_bytes())), "Ok(Parts(4 bytes under \"dky_a\"))");
    }

    #[test]
    fn values_and_contexts_that_are_too_long_are_not_sealed() {
        let seal = |context: &Context<'_>, plaintext: &[u8]| {
            seal(&key(1), context, plaintext, &SeededEntropy::new(1)).map(Sealed::into_bytes)
        };
        assert_eq!(seal(&CONTEXT, &vec![0; MAX_PLAINTEXT + 1]), Err(SealError::TooLong));
        assert_eq!(seal(&Context { key_id: "", ..CONTEXT }, b""), Err(SealError::Context));
        let long = "k".repeat(MAX_CONTEXT_PART + 1);
        assert_eq!(seal(&Context { key_id: &long[..=MAX_KEY_ID], ..CONTEXT }, b""), Err(SealError::Context));
        assert!(seal(&Context { key_id: &long[..MAX_KEY_ID], ..CONTEXT }, b"").is_ok());
        assert_eq!(seal(&Context { record_id: &long, ..CONTEXT }, b""), Err(SealError::Context));
        let value = sealed(b"x");
        let refused = open(&key(1), &Context { record_id: &long, ..CONTEXT }, &value);
        assert_eq!(refused.err(), Some(OpenError::Refused));
    }

    #[test]
    fn a_value_longer_than_any_we_seal_is_malformed() {
        let mut bytes = sealed(&vec![0; MAX_PLAINTEXT]).into_bytes();
        assert!(Parts::parse(&bytes).is_ok());
        bytes.push(0);
        assert!(Parts::parse(&bytes).is_err());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = sealed(b"ya29.token").into_bytes();
        for at in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            assert!(open(&key(1), &CONTEXT, &Sealed::from_stored(bytes)).is_err(), "bit {at}");
        }
    }

    #[test]
    fn keys_are_wrapped_and_nothing_else_unwraps_as_a_key() {
        let (outer, inner, entropy) = (key(1), key(2), SeededEntropy::new(3));
        let wrapped = wrap(&outer, &CONTEXT, &inner, &entropy).expect("wrapped");
        assert_eq!(unwrap_key(&outer, &CONTEXT, &wrapped).expect("unwrapped").bytes(), inner.bytes());
        assert_eq!(unwrap_key(&inner, &CONTEXT, &wrapped).err(), Some(OpenError::Refused));
        for not_a_key in [&[0; 32][..], &[1; 31], &[1; 33], b""] {
            assert_eq!(unwrap_key(&outer, &CONTEXT, &sealed(not_a_key)).err(), Some(OpenError::Malformed));
        }
    }

    #[test]
    fn garbage_of_every_short_length_is_refused_without_a_panic_cr_11() {
        let good = sealed(b"some value").into_bytes();
        let entropy = SeededEntropy::new(4);
        for length in 0..=128 {
            let mut tries = vec![vec![0; length], vec![0xff; length], vec![1; length]];
            for _ in 0..50 {
                let mut noise = vec![0; length];
                entropy.fill(&mut noise);
                tries.push(noise.clone());
                // Noise behind a header that looks right gets further.
                for (byte, right) in noise.iter_mut().zip(&good[..3 + CONTEXT.key_id.len()]) {
                    *byte = *right;
                }
                tries.push(noise);
            }
            for bytes in tries {
                assert!(open(&key(1), &CONTEXT, &Sealed::from_stored(bytes)).is_err());
            }
        }
    }

    #[test]
    fn a_hundred_thousand_nonces_are_unique_cr_02() {
        let key = key(1);
        let nonces: HashSet<[u8; NONCE_LENGTH]> = (0..100_000)
            .map(|_| {
                let value = seal(&key, &CONTEXT, b"", &SystemEntropy).expect("sealed");
                *Parts::parse(value.as_bytes()).expect("well-formed").nonce
            })
            .collect();
        assert_eq!(nonces.len(), 100_000);
    }
}
