//! Secrets that stand for a permission: whoever holds the text may act. They are random, shown
//! once, and stored as a hash (AP-04).
//!
//! A token reads `prefix_body`: the prefix says what it is (so that scanners find leaked ones), the
//! body is 43 random characters and 6 characters of checksum. The checksum lets a door turn away
//! typing errors and random probes without asking the database; it proves nothing else.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

pub use super::signature::same;
use super::signature::{hex, sha256};
use crate::clock::Entropy;
use crate::secret::Secret;

/// What API keys of a production tenant begin with.
pub const LIVE_KEY: &str = "vk_live";
/// What API keys of a test tenant begin with.
pub const TEST_KEY: &str = "vk_test";
/// What the header value begins with that ElevenLabs sends along with tool calls.
pub const TOOL_HEADER: &str = "vkw";
/// What tickets of conversations begin with.
pub const TICKET: &str = "vkt";

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 62^43 is a little more than 2^256.
const RANDOM_LENGTH: usize = 43;
/// 62^6 is more than 2^32, so a CRC-32 always fits.
const CHECKSUM_LENGTH: usize = 6;
/// Random bytes behind a handle: 256 bits, 43 characters of base64url.
const HANDLE_BYTES: usize = 32;
/// Keeps fingerprints apart from the hashes under which tokens are stored.
const FINGERPRINT_LABEL: &[u8] = b"valetkey/fingerprint/v1\0";

/// A capability token of at least 256 bits, fresh from the generator.
pub struct SecretToken(Secret);

impl SecretToken {
    /// Makes a token `prefix_…`: the prefix as given (without its last underscore), an underscore,
    /// and 49 characters of `[0-9A-Za-z]`. The prefix should be one of this module's constants or
    /// consist of `[a-z_]`.
    #[must_use]
    pub fn generate(prefix: &str, entropy: &dyn Entropy) -> Self {
        // Sized once: a growing string would leave copies of the secret behind.
        let mut text = String::with_capacity(prefix.len() + 1 + RANDOM_LENGTH + CHECKSUM_LENGTH);
        text.push_str(prefix);
        text.push('_');
        push_random(&mut text, entropy);
        let sum = checksum(&text);
        text.extend(sum.iter().copied().map(char::from));
        Self(Secret::new(text))
    }

    /// The token as a secret, to be shown once.
    #[must_use]
    pub fn secret(&self) -> &Secret {
        &self.0
    }

    /// Gives the secret away.
    #[must_use]
    pub fn into_secret(self) -> Secret {
        self.0
    }

    /// What is stored: see [`hash_token`].
    #[must_use]
    pub fn hash(&self) -> String {
        hash_token(self.0.expose())
    }

    /// What logs may say: see [`fingerprint`].
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(self.0.expose())
    }
}

impl fmt::Debug for SecretToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretToken(…)")
    }
}

/// Whether `text` has the shape of a token of ours and its checksum is right. It says nothing about
/// whether the token exists.
#[must_use]
pub fn has_valid_checksum(text: &str) -> bool {
    let Some((prefix, body)) = text.rsplit_once('_') else { return false };
    if prefix.is_empty() || body.len() != RANDOM_LENGTH + CHECKSUM_LENGTH {
        return false;
    }
    if !body.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return false;
    }
    // The body is ASCII, so this boundary is one of characters.
    let (signed, sum) = text.split_at(text.len() - CHECKSUM_LENGTH);
    checksum(signed) == sum.as_bytes()
}

/// The hash under which a token is stored and looked up: SHA-256 of the whole text, 64 hexadecimal
/// characters. No salt is needed, since a token has 256 bits that nobody can guess (ASVS 11.4.2).
#[must_use]
pub fn hash_token(token: &str) -> String {
    hex(&sha256(token.as_bytes()))
}

/// Twelve hexadecimal characters by which logs and timelines name a secret without showing it.
///
/// Only for secrets too random to guess, such as provider tokens and our own. For anything a person
/// chose use [`super::signature::mac`] with the key of `Purpose::Fingerprint` (AU-03).
#[must_use]
pub fn fingerprint(secret: &str) -> String {
    let labelled = Zeroizing::new([FINGERPRINT_LABEL, secret.as_bytes()].concat());
    hex(&sha256(&labelled)[..6])
}

/// A random handle of 256 bits: 43 characters of `[A-Za-z0-9_-]`. Good as an OAuth state and, by
/// its length and alphabet, as a PKCE verifier (RFC 7636, 4.1: 43 to 128 characters).
#[must_use]
pub fn random_handle(entropy: &dyn Entropy) -> Secret {
    let mut bytes = Zeroizing::new([0; HANDLE_BYTES]);
    entropy.fill(bytes.as_mut());
    Secret::new(BASE64URL_NOPAD.encode(bytes.as_ref()))
}

/// The PKCE challenge of a verifier by the method `S256` (RFC 7636, 4.2): 43 characters.
#[must_use]
pub fn pkce_challenge(verifier: &Secret) -> String {
    BASE64URL_NOPAD.encode(&sha256(verifier.expose().as_bytes()))
}

/// Appends random characters, each of the 62 equally likely: six random bits pick one, and the two
/// values that have none are drawn again.
fn push_random(text: &mut String, entropy: &dyn Entropy) {
    let wanted = text.len() + RANDOM_LENGTH;
    let mut bytes = Zeroizing::new([0; 64]);
    while text.len() < wanted {
        entropy.fill(bytes.as_mut());
        for byte in bytes.iter() {
            if let Some(character) = ALPHABET.get(usize::from(byte & 0x3f))
                && text.len() < wanted
            {
                text.push(char::from(*character));
            }
        }
    }
}

/// CRC-32 of everything before it, in base 62, padded to six characters.
fn checksum(signed: &str) -> [u8; CHECKSUM_LENGTH] {
    let mut rest = crc32fast::hash(signed.as_bytes());
    let mut digits = [ALPHABET[0]; CHECKSUM_LENGTH];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicU8, Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::clock::{SeededEntropy, SystemEntropy};

    #[test]
    fn tokens_say_what_they_are_and_carry_a_right_checksum_ap_04() {
        for prefix in [LIVE_KEY, TEST_KEY, TOOL_HEADER, TICKET] {
            let token = SecretToken::generate(prefix, &SystemEntropy);
            let text = token.secret().expose();
            assert!(text.starts_with(prefix) && text.len() == prefix.len() + 50, "{}", text.len());
            assert!(has_valid_checksum(text));
            assert_eq!(format!("{token:?}"), "SecretToken(…)");
        }
    }

    #[test]
    fn any_changed_character_breaks_the_checksum() {
        let token = SecretToken::generate(LIVE_KEY, &SeededEntropy::new(5)).into_secret();
        let text = token.expose();
        for at in 0..text.len() {
            for replacement in ['0', 'z', '_', '-', ' ', 'é'] {
                let changed = format!("{}{replacement}{}", &text[..at], &text[at + 1..]);
                assert_eq!(has_valid_checksum(&changed), changed == text, "position {at}");
            }
            assert!(!has_valid_checksum(&text[..at]), "cut off at {at}");
        }
        assert!(!has_valid_checksum(&format!("{text}0")), "longer");
        assert!(!has_valid_checksum(&text.replace("live", "test")), "another prefix");
        assert!(!has_valid_checksum(text.trim_start_matches("vk_live")), "no prefix");
    }

    #[test]
    fn tokens_never_repeat_and_use_the_whole_alphabet() {
        let texts: HashSet<String> = (0..5_000)
            .map(|_| SecretToken::generate(TICKET, &SystemEntropy).into_secret().expose().to_owned())
            .collect();
        assert_eq!(texts.len(), 5_000);
        let seen: HashSet<u8> = texts.iter().flat_map(|text| text["vkt_".len()..].bytes()).collect();
        assert_eq!(seen.len(), 62);
    }

    /// Hands out 62, 63, 0, 1 …: values without a character must be drawn again, not mapped.
    struct Counting(AtomicU8);
    impl Entropy for Counting {
        fn fill(&self, buffer: &mut [u8]) {
            for byte in buffer {
                *byte = self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    #[test]
    fn values_without_a_character_are_drawn_again() {
        let token = SecretToken::generate(TICKET, &Counting(AtomicU8::new(62))).into_secret();
        assert!(token.expose().starts_with("vkt_0123456789ABCDEF"));
    }

    #[test]
    fn stored_hashes_and_fingerprints_are_different_things() {
        // The example of FIPS 180-4 for "abc".
        assert_eq!(hash_token("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(fingerprint("abc").len(), 12);
        assert_eq!(fingerprint("abc"), fingerprint("abc"));
        assert_ne!(fingerprint("abc"), fingerprint("abd"));
        assert!(!hash_token("abc").starts_with(&fingerprint("abc")), "a log line must not help to find the row");
    }

    #[test]
    fn handles_fit_oauth_state_and_pkce_verifiers() {
        let handles: HashSet<String> = (0..1_000).map(|_| random_handle(&SystemEntropy).expose().to_owned()).collect();
        assert_eq!(handles.len(), 1_000);
        for handle in handles {
            assert_eq!(handle.len(), 43);
            assert!(handle.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'));
        }
    }

    #[test]
    fn the_pkce_challenge_agrees_with_the_example_of_rfc_7636() {
        let verifier = Secret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(pkce_challenge(&verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_checksum_test_panic(text in ".{0,80}") {
            prop_assert!(!has_valid_checksum(&text));
        }
    }
}
