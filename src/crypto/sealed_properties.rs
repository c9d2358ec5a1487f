//! Properties of the sealed format: a value opens in the context it was sealed for and in no other
//! (CR-03), and parsing takes any bytes (CR-11).

use proptest::prelude::*;

use super::Key32;
use super::envelope::{Context, OpenError, Parts, open, seal};
use crate::clock::SeededEntropy;

fn key() -> Key32 {
    Key32::from_root(&[1; 32]).expect("a key")
}

fn context(parts: &[String; 7], generation: i64) -> Context<'_> {
    let [tenant, owner_kind, owner_id, record_kind, record_id, field, key_id] = parts.each_ref().map(String::as_str);
    Context { tenant, owner_kind, owner_id, record_kind, record_id, field, key_id, generation }
}

/// Seven short texts of few letters, so that moved boundaries and equal parts are common.
fn texts() -> impl Strategy<Value = [String; 7]> {
    let part = || "[ab]{1,3}";
    (part(), part(), part(), part(), part(), part(), part()).prop_map(|(a, b, c, d, e, f, g)| [a, b, c, d, e, f, g])
}

proptest! {
    #[test]
    fn a_value_opens_in_its_own_context_only_cr_03(
        one in texts(), other in texts(), at in -2_i64..2, then in -2_i64..2, plaintext: Vec<u8>,
    ) {
        let (here, there) = (context(&one, at), context(&other, then));
        let value = seal(&key(), &here, &plaintext, &SeededEntropy::new(1)).expect("sealed");
        let opened = open(&key(), &there, &value);
        match opened {
            Ok(found) => { prop_assert_eq!(here, there); prop_assert_eq!(&*found, &plaintext); }
            Err(error) => {
                prop_assert_ne!(here, there);
                let expected = if one[6] == other[6] { OpenError::Refused } else { OpenError::UnknownKey };
                prop_assert_eq!(error, expected);
            }
        }
    }

    #[test]
    fn moving_a_letter_across_a_boundary_never_opens_cr_03(parts in texts(), boundary in 0_usize..6) {
        // "ab" + "c" becomes "a" + "bc": the joined text stays the same.
        let mut moved = parts.clone();
        let letter = moved[boundary].pop().expect("not empty");
        moved[boundary + 1].insert(0, letter);
        prop_assert_eq!(parts.concat(), moved.concat());
        let (here, there) = (context(&parts, 0), context(&moved, 0));
        prop_assert_ne!(here.encode(), there.encode());
        let value = seal(&key(), &here, b"secret", &SeededEntropy::new(1)).expect("sealed");
        prop_assert!(open(&key(), &there, &value).is_err());
    }

    #[test]
    fn swapping_two_parts_never_opens_cr_03(parts in texts(), a in 0_usize..7, b in 0_usize..7) {
        let mut swapped = parts.clone();
        swapped.swap(a, b);
        let value = seal(&key(), &context(&parts, 0), b"secret", &SeededEntropy::new(1)).expect("sealed");
        let opened = open(&key(), &context(&swapped, 0), &value);
        prop_assert_eq!(opened.is_ok(), parts == swapped);
    }

    #[test]
    fn parsing_never_panics_and_keeps_every_byte_cr_11(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(parts) = Parts::parse(&bytes) {
            let total = 3 + parts.key_id.len() + 32 + 12 + parts.ciphertext.len() + 16;
            prop_assert_eq!(total, bytes.len());
        }
    }
}
