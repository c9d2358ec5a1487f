//! Message authentication: over structured data of our own, and plain HMAC for formats of others.

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Key32;

/// The label every structured message begins with.
const FORMAT: &[u8] = b"valetkey/mac/v1";

/// HMAC-SHA256 over a label and parts. Every part is preceded by its length, so parts can neither
/// flow into each other ("a" + "bc" against "ab" + "c") nor be dropped or added unnoticed.
///
/// `key` should come from [`super::derive`]; `label` names the kind of message within that purpose.
#[must_use]
pub fn mac(key: &Key32, label: &str, parts: &[&[u8]]) -> [u8; 32] {
    structured(key, label, parts).finalize().into_bytes().into()
}

/// Whether `tag` belongs to these parts, compared in constant time.
#[must_use]
pub fn verify(key: &Key32, label: &str, parts: &[&[u8]], tag: &[u8]) -> bool {
    structured(key, label, parts).verify_slice(tag).is_ok()
}

/// HMAC-SHA256 of `message` as it stands (RFC 2104), for formats that others define, such as the
/// webhook signatures of ElevenLabs and Slack. Compare the result with [`same`].
#[must_use]
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut hmac = keyed(key);
    hmac.update(message);
    hmac.finalize().into_bytes().into()
}

/// SHA-256 of `message` (FIPS 180-4).
#[must_use]
pub fn sha256(message: &[u8]) -> [u8; 32] {
    Sha256::digest(message).into()
}

/// Whether both are equal, in a time that depends on the lengths only (AP-04).
#[must_use]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// Reads hexadecimal in either case; none when it is anything else.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of every length (RFC 2104, 2)")]
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("every length is allowed")
}

fn structured(key: &Key32, label: &str, parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut hmac = keyed(key.bytes());
    for part in [FORMAT, label.as_bytes()].iter().chain(parts) {
        hmac.update(&(part.len() as u64).to_be_bytes());
        hmac.update(part);
    }
    hmac
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> Key32 {
        Key32::from_root(&[3; 32]).expect("a key")
    }

    #[test]
    fn plain_hmac_agrees_with_rfc_4231() {
        // Test cases 1, 2 and 6 (a key longer than a block).
        let cases: [(&[u8], &[u8], &str); 3] = [
            (&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ];
        for (key, message, expected) in cases {
            assert_eq!(hex(&hmac_sha256(key, message)), expected);
        }
    }

    #[test]
    fn a_tag_is_bound_to_key_label_and_every_part() {
        let tag = mac(&key(), "cursor", &[b"a", b"bc"]);
        assert!(verify(&key(), "cursor", &[b"a", b"bc"], &tag));

        let other_key = Key32::from_root(&[4; 32]).expect("a key");
        assert!(!verify(&other_key, "cursor", &[b"a", b"bc"], &tag));
        assert!(!verify(&key(), "cookie", &[b"a", b"bc"], &tag));
        assert!(!verify(&key(), "cursor", &[b"ab", b"c"], &tag), "moved boundary");
        assert!(!verify(&key(), "cursor", &[b"abc"], &tag), "joined parts");
        assert!(!verify(&key(), "cursor", &[b"a", b"bc", b""], &tag), "an empty part more");
        assert!(!verify(&key(), "cursor", &[b"a", b"bc"], &tag[..31]), "shortened tag");
        assert!(!verify(&key(), "cursor", &[b"a", b"bc"], b""), "no tag");
    }

    #[test]
    fn hexadecimal_is_written_in_lower_case_and_read_in_either() {
        assert_eq!(hex(&[0xde, 0xad, 0x01]), "dead01");
        assert_eq!(unhex("DEad01"), Some(vec![0xde, 0xad, 0x01]));
        for text in ["0", "0x00", "zz", "00 "] {
            assert_eq!(unhex(text), None, "{text}");
        }
    }

    #[test]
    fn equality_holds_for_equal_bytes_only() {
        assert!(same(b"", b"") && same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd") && !same(b"abc", b"ab") && !same(b"", b"a"));
    }

    proptest! {
        #[test]
        fn different_parts_never_share_a_tag(
            one in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 0..4),
            other in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 0..4),
        ) {
            let tag = |parts: &[Vec<u8>]| mac(&key(), "x", &parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
            prop_assert_eq!(tag(&one) == tag(&other), one == other);
        }
    }
}
