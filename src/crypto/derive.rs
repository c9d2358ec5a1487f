//! One key per use (CR-10, SP 800-57 part 1, 5.2): a key that hashes look-ups never signs cookies.

use super::{Key32, cipher};

/// The label all derivations begin with. The sealed format begins with another one, so a derived
/// key can never equal the key of a sealed value.
const FORMAT: &[u8] = b"valetkey/derive/v1";

/// What a derived key is for. The list is closed: a new use gets a new entry, never an old key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Hashes that find a row by a value that is sealed, such as an e-mail or an external identity.
    Lookup,
    /// The chain of the audit book.
    Audit,
    /// Paging cursors of the API.
    Cursor,
    /// Browser cookies.
    Cookie,
    /// Anti-forgery values of pages and forms.
    Form,
    /// The state of a connection being made.
    State,
    /// Tickets of conversations.
    Ticket,
    /// Outgoing event deliveries and incoming hooks.
    Webhook,
    /// Fingerprints of secrets that somebody could guess (AU-03).
    Fingerprint,
    /// The check value that tells a right key from a wrong one at start (CR-08).
    Check,
}

impl Purpose {
    /// Every purpose, for the inventory of keys.
    pub const ALL: [Self; 10] = [
        Self::Lookup,
        Self::Audit,
        Self::Cursor,
        Self::Cookie,
        Self::Form,
        Self::State,
        Self::Ticket,
        Self::Webhook,
        Self::Fingerprint,
        Self::Check,
    ];

    /// The label that goes into the derivation. Changing one changes the key.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Audit => "audit",
            Self::Cursor => "cursor",
            Self::Cookie => "cookie",
            Self::Form => "form",
            Self::State => "state",
            Self::Ticket => "ticket",
            Self::Webhook => "webhook",
            Self::Fingerprint => "fingerprint",
            Self::Check => "check",
        }
    }
}

/// The key for one purpose: HKDF-Expand with SHA-256 over a versioned label. The same key and
/// purpose always give the same key.
#[must_use]
pub fn derive(key: &Key32, purpose: Purpose) -> Key32 {
    // The format has a fixed length and the label is the rest, so no two purposes can collide.
    let info = [FORMAT, b"/", purpose.label().as_bytes()].concat();
    Key32::filled(|bytes| cipher::expand(key.bytes(), &info, bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_purpose_has_a_key_of_its_own_cr_10() {
        let root = Key32::from_root(&[9; 32]).expect("a key");
        let keys: HashSet<_> = Purpose::ALL.iter().map(|purpose| *derive(&root, *purpose).bytes()).collect();
        assert_eq!(keys.len(), Purpose::ALL.len());
        assert!(!keys.contains(root.bytes()), "no derived key is the root itself");
    }

    #[test]
    fn a_derived_key_stays_the_same_for_ever() {
        // Computed with an independent HKDF: key 0x00..0x1f, info "valetkey/derive/v1/audit".
        let bytes: Vec<u8> = (0..32).collect();
        let root = Key32::from_root(&bytes).expect("a key");
        let expected = "f9db05288accbb72c85b4356ce9ef5a2672940620f829791199d13c570670f57";
        assert_eq!(crate::crypto::signature::hex(derive(&root, Purpose::Audit).bytes()), expected);
    }
}
