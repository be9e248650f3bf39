use hex_literal::hex;
use proptest::prelude::*;

use super::*;

fn key(enctype: Enctype, bytes: &[u8]) -> Key {
    Key::new(enctype, bytes).unwrap()
}

/// RFC 3962 B: CBC with ciphertext stealing, the key "chicken teriyaki", the IV zero.
#[test]
fn ciphertext_stealing() {
    let key = key(Enctype::Aes128Sha1, b"chicken teriyaki");
    let text = b"I would like the General Gau's Chicken, please, and wonton soup.";
    for (len, cipher) in [
        (17, &hex!("c6353568f2bf8cb4d8a580362da7ff7f97")[..]),
        (
            31,
            &hex!("fc00783e0efdb2c1d445d4c8eff7ed2297687268d6ecccc0c07b25e25ecfe5"),
        ),
        (
            32,
            &hex!("39312523a78662d5be7fcbcc98ebf5a897687268d6ecccc0c07b25e25ecfe584"),
        ),
        (
            47,
            &hex!(
                "97687268d6ecccc0c07b25e25ecfe584b3fffd940c16a18c1b5549d2f838029e39312523a78662d5be7fcbcc98ebf5"
            ),
        ),
        (
            64,
            &hex!(
                "97687268d6ecccc0c07b25e25ecfe58439312523a78662d5be7fcbcc98ebf5a8
                 4807efe836ee89a526730dbc2f7bc8409dad8bbb96c4cdc03bc103e1a194bbd8"
            ),
        ),
    ] {
        let mut buffer = text[..len].to_vec();
        key.cts_encrypt(&key.bytes, &mut buffer);
        assert_eq!(buffer, cipher, "{len} bytes");
        key.cts_decrypt(&key.bytes, &mut buffer);
        assert_eq!(buffer, text[..len], "{len} bytes back");
    }
}

/// RFC 8009 A: keys derived for usage 2.
#[test]
fn derived_by_hmac() {
    let key_128 = key(Enctype::Aes128Sha256, &hex!("3705d96080c17728a0e800eab6e0d23c"));
    let key_256 = key(
        Enctype::Aes256Sha384,
        &hex!("6d404d37faf79f9df0d33568d320669800eb4836472ea8a026d16b7182460c52"),
    );
    for (key, purpose, derived) in [
        (&key_128, CHECKSUM, &hex!("b31a018a48f54776f403e9a396325dc3")[..]),
        (&key_128, ENCRYPTION, &hex!("9b197dd1e8c5609d6e67c3e37c62c72e")),
        (&key_128, INTEGRITY, &hex!("9fda0e56ab2d85e1569a688696c26a6c")),
        (
            &key_256,
            CHECKSUM,
            &hex!("ef5718be86cc84963d8bbb5031e9f5c4ba41f28faf69e73d"),
        ),
        (
            &key_256,
            ENCRYPTION,
            &hex!("56ab22bee63d82d7bc5227f6773f8ea7a5eb1c825160c38312980c442e5c7e49"),
        ),
        (
            &key_256,
            INTEGRITY,
            &hex!("69b16514e3cd8e56b82010d5c73012b622c4d00ffc23ed1f"),
        ),
    ] {
        assert_eq!(*key.derive(Usage(2), purpose), derived, "{purpose:x}");
    }
}

/// RFC 8009 A: an empty text and one of six bytes, usage 2.
#[test]
fn encrypted_then_signed() {
    let key = key(Enctype::Aes128Sha256, &hex!("3705d96080c17728a0e800eab6e0d23c"));
    let empty = hex!("ef85fb890bb8472f4dab20394dca781dad877eda39d50c870c0d5a0a8e48c718");
    assert_eq!(*key.decrypt(Usage(2), &empty).unwrap(), b"");
    let six = key.encrypt(
        Usage(2),
        hex!("7bca285e2fd4130fb55b1a5c83bc5b24"),
        &hex!("000102030405"),
    );
    assert_eq!(
        six,
        hex!("84d7f30754ed987bab0bf3506beb09cfb55402cef7e6877ce99e247e52d16ed4421dfdf8976c")
    );
}

/// Tickets that OpenAFS made, with the same contents under each key (rx-security.md 6.3).
#[test]
fn tickets_of_openafs_open() {
    let bytes: Vec<u8> = (0..32).collect();
    let ticket_17 = hex!(
        "c377227e8503bb51350d1df61ec4abd6bea6908e66efca11c689749cd160d7ca7e3a0c51e3b39156c8ea38479b40d53ee74c9946a08ca991b4b1756a46c6bd576747f1e1f6c43b4c1e03a756e587c4ef6a7d3b1cda72758398e7e92afd0714616cd3881423464b69fe094d612fcf8cb2ba8084310b197436e1acaaf74733eb5991a965f3f16045"
    );
    let ticket_18 = hex!(
        "6f6899bb716a28681ea0a1c6dee5fbbd787a2044c6eb9b1a597ecbf84861b7551ad644b5c31f4a2f0d55dd3714fdf465db42dcb21b5a08d7988cf47a580a62cee7dd1709287c790d3ecc556c4022fa8fc1564bc024fadab6fd1612846332cda948e3bbfb8d805f007efcfdd9e5b2b914b0dc7f9290ba62f3c845ff57507b4396606dc8628025b9"
    );
    let inside = hex!(
        "63693067a00703050000080000a1133011a003020101a10a04081020314051617080a2021b00a310300ea003020101a10730051b03616673a40b3009a003020100a1020400a511180f31393730303130313030303030305aa711180f32303338303131393033313430375a"
    );
    for (key, ticket) in [
        (key(Enctype::Aes128Sha1, &bytes[..16]), &ticket_17),
        (key(Enctype::Aes256Sha1, &bytes), &ticket_18),
    ] {
        assert_eq!(*key.decrypt(Usage(2), ticket).unwrap(), inside);
        assert_eq!(key.decrypt(Usage(3), ticket), Err(Undecryptable));
    }
}

/// Authenticators of rxgk, checked with MIT's library (rx-security.md 10).
#[test]
fn authenticators_of_rxgk() {
    let plain = hex!(
        "404142434445464748494a4b4c4d4e4f505152530000000000000002923456790badcaf00000000400000001000000000000000000000000"
    );
    let confounder = hex!("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
    for (enctype, transport_key, sealed) in [
        (
            Enctype::Aes128Sha1,
            &hex!("89af00c0178530fe19aa64ae7ac9136d")[..],
            &hex!(
                "de6bdd3b64be2709e34a3e3631c15e128a73b5a375ffe4398cd69529737a3b0fe6b3213dc3bd97bda3c50635debe5b603a7e90a6bfff11492c2c9af2501bd49be500156fa4da49fde00877ea351a2b96985a406d"
            )[..],
        ),
        (
            Enctype::Aes256Sha1,
            &hex!("677e41abbae193e3495e17a1bda036b896ec99551419edd252d807e9e8be616e"),
            &hex!(
                "de3ca0d4d1d16de310c97ffcc8c3879a6f7bc57229ed5a0983863432cd7d534843a70f84c114a087422e7ff52b9e310b0eac3afc25c1478071e00bf9cd37c2fa6239875a6c50463d56875b151c8c59c9f9596208"
            ),
        ),
        (
            Enctype::Aes128Sha256,
            &hex!("949543eac0cfb76a0d8860fa386951f4"),
            &hex!(
                "459247faa47270a3bed3580e0afdf4eceebcbe790996a2b886b853cb5a0a0070093a40a0a84839c29886965358d05c81dc5692f016b46f07be12ad87999667e920d2e97f703a6333421c1096f0784934962e993cbba8deb6"
            ),
        ),
        (
            Enctype::Aes256Sha384,
            &hex!("3500278e2c0000dc7e76c6bdb7b58ae1c2777a67b6340b644249e3ad6dd8967e"),
            &hex!(
                "635d2e7e0a49bb93086a3aaace0a411d6e3457f767a6bf827bf2997ab718322f713cab81d4b9cbabc2e30296a910953f36c4b56587c6e467d35d4c7249a4a1049f4ef0b1eaa958fac9048f4afced5ad09e6a0502cecdd567b046fb5b231f0ce7"
            ),
        ),
    ] {
        let key = key(enctype, transport_key);
        assert_eq!(
            key.encrypt(Usage(1030), confounder, &plain),
            sealed,
            "{enctype:?}"
        );
        assert_eq!(*key.decrypt(Usage(1030), sealed).unwrap(), plain, "{enctype:?}");
    }
}

#[test]
fn keys_have_a_length_and_are_not_shown() {
    let wrong = Key::new(Enctype::Aes256Sha1, &[7; 16]).unwrap_err();
    assert_eq!(wrong.to_string(), "a key of 16 bytes is none of enctype 18");
    assert_eq!(
        format!("{:?}", key(Enctype::Aes128Sha1, &[7; 16])),
        "Key(enctype 17)"
    );
}

proptest! {
    #[test]
    fn what_is_encrypted_opens_and_what_is_changed_does_not(
        which in 0..4_usize,
        plain in prop::collection::vec(any::<u8>(), 0..100),
        confounder: [u8; BLOCK],
        place: prop::sample::Index,
        bit in 0..8,
    ) {
        let enctype = Enctype::ALL[which];
        let key = key(enctype, &vec![9; enctype.key_len()]);
        let mut cipher = key.encrypt(Usage(7), confounder, &plain);
        prop_assert_eq!(&*key.decrypt(Usage(7), &cipher).unwrap(), &plain);
        let place = place.index(cipher.len());
        cipher[place] ^= 1_u8 << bit;
        prop_assert_eq!(key.decrypt(Usage(7), &cipher), Err(Undecryptable));
        cipher.truncate(place);
        prop_assert_eq!(key.decrypt(Usage(7), &cipher), Err(Undecryptable));
    }
}
