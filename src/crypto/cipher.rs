//! The two primitives the sealed format is made of, each called in exactly one place, so that the
//! known-answer tests in `known_answers` exercise the very calls that protect stored values.

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use hkdf::Hkdf;
use sha2::Sha256;

/// Bytes in a nonce: 96 bits, the length AES-GCM takes without hashing it first (SP 800-38D, 8.2).
pub(super) const NONCE_LENGTH: usize = 12;
/// Bytes in a tag: 128 bits, never shortened.
pub(super) const TAG_LENGTH: usize = 16;

/// The tag does not belong to this key, nonce, context and ciphertext.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WrongTag;

/// HKDF-Expand with SHA-256 (RFC 5869, 2.3). `key` is the pseudo-random key: our keys are uniformly
/// random, so the extract step has nothing to do (RFC 5869, 3.3).
#[expect(clippy::expect_used, reason = "32 bytes are a valid key, and no caller asks for more than 8,160 bytes")]
pub(super) fn expand(key: &[u8; 32], info: &[u8], output: &mut [u8]) {
    let hkdf = Hkdf::<Sha256>::from_prk(key).expect("a pseudo-random key of hash length");
    hkdf.expand(info, output).expect("at most 255 times the hash length");
}

/// AES-256-GCM: encrypts `buffer` in place and returns the tag; none when the buffer is longer than
/// the mode allows (64 GiB).
pub(super) fn encrypt(
    key: &[u8; 32],
    nonce: &[u8; NONCE_LENGTH],
    associated: &[u8],
    buffer: &mut [u8],
) -> Option<[u8; TAG_LENGTH]> {
    let cipher = Aes256Gcm::new(key.into());
    cipher.encrypt_inout_detached(nonce.into(), associated, buffer.into()).ok().map(Into::into)
}

/// AES-256-GCM: checks the tag, then decrypts `buffer` in place. After an error the buffer's
/// content means nothing.
pub(super) fn decrypt(
    key: &[u8; 32],
    nonce: &[u8; NONCE_LENGTH],
    associated: &[u8],
    buffer: &mut [u8],
    tag: &[u8; TAG_LENGTH],
) -> Result<(), WrongTag> {
    let cipher = Aes256Gcm::new(key.into());
    cipher.decrypt_inout_detached(nonce.into(), associated, buffer.into(), tag.into()).map_err(|_| WrongTag)
}
