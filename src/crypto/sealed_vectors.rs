//! The committed vectors of the sealed format. A second implementation, `tests/vectors/make_sealed_v1.py`,
//! wrote them, so agreement here means that the format is what its description says. A vector that
//! stops passing means that stored values have become unreadable: never change one, add a version.

use serde::Deserialize;

use super::Key32;
use super::cipher;
use super::envelope::{Context, OpenError, Parts, Sealed, open, seal, unwrap_key, wrap};
use super::signature::unhex;
use crate::clock::Entropy;

#[derive(Deserialize)]
struct Vectors {
    good: Vec<Good>,
    bad: Vec<Bad>,
    truncated: Vec<Truncated>,
    two_keys: TwoKeys,
}

#[derive(Deserialize)]
struct Good {
    name: String,
    key: String,
    context: OwnedContext,
    nonce: String,
    plaintext: String,
    sealed: String,
}

#[derive(Deserialize)]
struct Bad {
    name: String,
    expect: Expected,
    key: String,
    context: OwnedContext,
    sealed: String,
}

#[derive(Deserialize)]
struct Truncated {
    of: String,
    length: usize,
    expect: Expected,
}

#[derive(Deserialize)]
struct TwoKeys {
    context: OwnedContext,
    sealed: String,
    opens_under: String,
    plaintext: String,
    refused_under: String,
    plaintext_without_commitment: String,
}

#[derive(Deserialize)]
struct OwnedContext {
    tenant: String,
    owner_kind: String,
    owner_id: String,
    record_kind: String,
    record_id: String,
    field: String,
    key_id: String,
    generation: i64,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Expected {
    Malformed,
    UnknownKey,
    Refused,
}

impl From<Expected> for OpenError {
    fn from(expected: Expected) -> Self {
        match expected {
            Expected::Malformed => Self::Malformed,
            Expected::UnknownKey => Self::UnknownKey,
            Expected::Refused => Self::Refused,
        }
    }
}

impl OwnedContext {
    fn borrow(&self) -> Context<'_> {
        Context {
            tenant: &self.tenant,
            owner_kind: &self.owner_kind,
            owner_id: &self.owner_id,
            record_kind: &self.record_kind,
            record_id: &self.record_id,
            field: &self.field,
            key_id: &self.key_id,
            generation: self.generation,
        }
    }
}

/// Entropy that repeats the bytes a vector was made with.
struct Recorded(Vec<u8>);

impl Entropy for Recorded {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.0);
    }
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../tests/vectors/sealed-v1.json")).expect("the vectors are JSON")
}

fn bytes(hex: &str) -> Vec<u8> {
    unhex(hex).expect("hexadecimal")
}

fn key(hex: &str) -> Key32 {
    Key32::from_root(&bytes(hex)).expect("a key")
}

fn stored(hex: &str) -> Sealed {
    Sealed::from_stored(bytes(hex))
}

#[test]
fn good_vectors_are_reproduced_bit_by_bit_and_open() {
    let vectors = vectors();
    assert!(vectors.good.len() >= 11);
    for vector in vectors.good {
        let (key, context, plaintext) = (key(&vector.key), vector.context.borrow(), bytes(&vector.plaintext));
        let entropy = Recorded(bytes(&vector.nonce));
        let made = seal(&key, &context, &plaintext, &entropy).expect("sealed");
        assert_eq!(made.as_bytes(), bytes(&vector.sealed), "{}", vector.name);
        assert_eq!(made.key_id(), Ok(context.key_id), "{}", vector.name);
        let opened = open(&key, &context, &stored(&vector.sealed)).expect("opened");
        assert_eq!(*opened, plaintext, "{}", vector.name);
    }
}

#[test]
fn the_wrapped_key_of_the_vectors_is_a_key_and_is_wrapped_the_same_again() {
    let vectors = vectors();
    let vector = vectors.good.iter().find(|vector| vector.context.field == "wrapped").expect("a wrapped key");
    let (outer, context) = (key(&vector.key), vector.context.borrow());
    let inner = unwrap_key(&outer, &context, &stored(&vector.sealed)).expect("unwrapped");
    let again = wrap(&outer, &context, &inner, &Recorded(bytes(&vector.nonce))).expect("wrapped");
    assert_eq!(again.as_bytes(), bytes(&vector.sealed));
}

#[test]
fn bad_vectors_fail_in_the_way_they_name_cr_03_cr_05() {
    let vectors = vectors();
    assert!(vectors.bad.len() >= 30);
    for vector in vectors.bad {
        let opened = open(&key(&vector.key), &vector.context.borrow(), &stored(&vector.sealed));
        assert_eq!(opened.err(), Some(vector.expect.into()), "{}", vector.name);
    }
}

#[test]
fn a_value_cut_off_anywhere_is_refused_cr_11() {
    let vectors = vectors();
    let longest = vectors.truncated.iter().map(|vector| vector.length + 1).max();
    for vector in &vectors.truncated {
        let whole = vectors.good.iter().find(|good| good.name == vector.of).expect("the vector it is made of");
        let all = bytes(&whole.sealed);
        assert_eq!(longest, Some(all.len()), "every length is there");
        let cut = Sealed::from_stored(all[..vector.length].to_vec());
        let opened = open(&key(&whole.key), &whole.context.borrow(), &cut);
        assert_eq!(opened.err(), Some(vector.expect.into()), "{} bytes", vector.length);
    }
    assert_eq!(longest, Some(vectors.truncated.len()), "and only once");
}

#[test]
fn a_ciphertext_that_aes_gcm_accepts_under_two_keys_opens_under_one_cr_05() {
    let vector = vectors().two_keys;
    let (context, sealed) = (vector.context.borrow(), stored(&vector.sealed));
    let parts = Parts::parse(sealed.as_bytes()).expect("well-formed");

    // Without the commitment both keys would open it, to different plaintexts.
    let encoded = context.encode().expect("short parts");
    for (hex, plaintext) in
        [(&vector.opens_under, &vector.plaintext), (&vector.refused_under, &vector.plaintext_without_commitment)]
    {
        let mut derived = [0; 32];
        cipher::expand(key(hex).bytes(), &encoded, &mut derived);
        let mut buffer = parts.ciphertext.to_vec();
        cipher::decrypt(&derived, parts.nonce, &encoded, &mut buffer, parts.tag).expect("AES-GCM accepts it");
        assert_eq!(buffer, bytes(plaintext));
    }

    let opened = open(&key(&vector.opens_under), &context, &sealed).expect("the committed key");
    assert_eq!(*opened, bytes(&vector.plaintext));
    assert_eq!(open(&key(&vector.refused_under), &context, &sealed).err(), Some(OpenError::Refused));
}
