//! Capabilities for the rooms: random texts that are shown once and kept as a hash.

use crate::clock::Surroundings;
use crate::crypto::tokens::{SecretToken, random_handle};
use crate::secret::Secret;

/// A new capability: `prefix_…` with 256 random bits and a checksum, for links, codes, tickets and headers.
#[must_use]
pub fn mint(prefix: &str, around: &Surroundings) -> Secret {
    SecretToken::generate(prefix, around.entropy.as_ref()).into_secret()
}

/// 43 random URL-safe characters without a prefix, for OAuth's `state` and `nonce` and for PKCE verifiers.
#[must_use]
pub fn mint_handle(around: &Surroundings) -> Secret {
    random_handle(around.entropy.as_ref())
}

/// How a capability is kept and found again: SHA-256 in hex. It has 256 random bits, so no key or salt is needed.
#[must_use]
pub fn hash_of(capability: &str) -> String {
    crate::crypto::tokens::hash_token(capability)
}

/// True when a text has the form and checksum of one of our capabilities: a cheap look before the database is asked.
#[must_use]
pub fn looks_right(capability: &str) -> bool {
    crate::crypto::tokens::has_valid_checksum(capability)
}

/// What of a capability may be shown to people: twelve hex digits that say nothing about it.
#[must_use]
pub fn fingerprint_of(capability: &str) -> String {
    crate::crypto::tokens::fingerprint(capability)
}
