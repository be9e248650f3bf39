//! The known answers of OpenAFS, Linux and an independent implementation.

use hex_literal::hex;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

#[test]
fn tables_are_those_that_were_published() {
    let sums = [
        hex!("ffd5d4f5f65b62e1755d402b42bf45a6d2778fb23179c02d76323cc31183ebe9"),
        hex!("a8f88496c3b3b9db530db1a1fcac30d358227e8eb7809084be7fe32f0e047c6c"),
        hex!("8f67fbeac3181363ee5f501b26ffa87951f50817a6847f2692fd0e13d81061ca"),
        hex!("207791ac8401cbe5cd5e81841cd1cb28df26e21e9550cbe3da9c0620ceffcab8"),
    ];
    for (sbox, sum) in SBOXES.iter().zip(sums) {
        assert_eq!(Sha256::digest(sbox)[..], sum);
    }
}

#[test]
fn schedules() {
    let known: [(u64, [u32; 16]); 3] = [
        (
            0x1144_77aa_dd00_3366,
            [
                0x5dc0_0cb3,
                0x3bab_b801,
                0x4227_7577,
                0x5988_44ee,
                0x00cb_3108,
                0xbb80_1966,
                0x7757_7003,
                0x844e_eaee,
                0xb310_89dd,
                0x0196_6211,
                0x7700_32cc,
                0xeeae_e006,
                0x089d_d5dc,
                0x6621_13ba,
                0x032c_c422,
                0xee00_6598,
            ],
        ),
        (
            0xf0e1_d2c3_b4a5_9687,
            [
                0x1b54_a5c3,
                0x69c3_6a94,
                0xc70d_386d,
                0xe1f8_e1a7,
                0x4a5c_3f1c,
                0x36a9_4b87,
                0xd386_d529,
                0x8e1a_70da,
                0xc3f1_c34e,
                0x94b8_7e38,
                0x6d52_970f,
                0xa70d_aa52,
                0x1c34_e1b5,
                0x87e3_869c,
                0x2970_fc70,
                0xdaa5_2e1f,
            ],
        ),
        (
            0x6162_6364_6566_6768,
            [
                0x264c_d9b4,
                0xb164_c99b,
                0x8316_2c99,
                0xda30_62c5,
                0xcd9b_460c,
                0x4c99_b368,
                0x62c9_9336,
                0x062c_5932,
                0xb460_c58b,
                0x9b36_8c18,
                0x9933_66d1,
                0xc593_266c,
                0x0c58_b264,
                0x68c1_8b16,
                0x366d_1831,
                0x3266_cda3,
            ],
        ),
    ];
    for (key, schedule) in known {
        assert_eq!(Key::new(key.to_be_bytes()).schedule.as_flattened(), schedule);
    }
}

const FOX: &[u8; 48] = b"The quick brown fox jumps over the lazy dogs.\0\0\0";

/// Key, IV, text and cipher.
type Known = (u64, u64, &'static [u8], &'static [u8]);

const KNOWN: [Known; 5] = [
    (0, 0, &[0; 8], &hex!("0e0900c73ef7ed41")),
    (
        0x1144_77aa_dd00_3366,
        0,
        &hex!("123456789abcdef0"),
        &hex!("d8ed787477ec0680"),
    ),
    (
        0xf0e1_d2c3_b4a5_9687,
        0xfedc_ba98_7654_3210,
        FOX,
        &hex!(
            "00f00e1175e62382eeac98624451e484c359d8aa6460aef7d2d9137972a34503"
            "23b562d70cf527d1f8913cac442292ef"
        ),
    ),
    (
        0xfedc_ba98_7654_3210,
        0xf0e1_d2c3_b4a5_9687,
        FOX,
        &hex!(
            "ca90f59dcbd4d23c01887f3e316e629dd8e057a3063a42582a28fe72522fdde0"
            "1989091c2a8e8c94fcc768e488aade0f"
        ),
    ),
    (
        0x6162_6364_6566_6768,
        0x6162_6364_6566_6768,
        &hex!(
            "000000000000000100000002000000030000000400000005"
            "00000006000000070000000800000009"
        ),
        &hex!(
            "2b77ed9ced78335f35c9ad9ce8d17a16bf10122fb5568465"
            "75f107b1f57d1f77fb1bdc62e0744ad9"
        ),
    ),
];

#[test]
fn known_answers() {
    for (key, iv, plain, cipher) in KNOWN {
        let key = Key::new(key.to_be_bytes());
        let mut text = plain.to_vec();
        key.encrypt_pcbc(iv, &mut text);
        assert_eq!(text, cipher);
        key.decrypt_pcbc(iv, &mut text);
        assert_eq!(text, plain);
    }
    let key = Key::new(0x1144_77aa_dd00_3366_u64.to_be_bytes());
    assert_eq!(key.encrypt_block(0x1234_5678_9abc_def0), 0xd8ed_7874_77ec_0680);
    assert_eq!(key.decrypt_block(0xd8ed_7874_77ec_0680), 0x1234_5678_9abc_def0);
}

#[test]
fn parity_bits_do_not_count() {
    let (even, odd) = (Key::new([0x10; 8]), Key::new([0x11; 8]));
    assert_eq!(even.encrypt_block(7), odd.encrypt_block(7));
}

#[test]
fn a_key_is_not_shown() {
    assert_eq!(format!("{:?}", Key::new([0x61; 8])), "Key(fcrypt)");
}

/// What [`Key::decrypt_pcbc`] chooses between.
fn forms() -> Vec<Option<Wide>> {
    let wide = Wide::find();
    if wide.is_none() {
        eprintln!("this processor has no wide lanes: only the others are checked");
    }
    std::iter::once(None).chain(wide.map(Some)).collect()
}

#[test]
fn known_answers_in_all_lanes() {
    for (key, iv, plain, cipher) in KNOWN {
        let key = Key::new(key.to_be_bytes());
        // A chain over copies of a text is none of their own, but it starts with the answer that is known.
        let mut long = plain.repeat(40);
        key.encrypt_pcbc(iv, &mut long);
        assert!(long.starts_with(cipher));
        for form in forms() {
            let mut text = long.clone();
            key.decrypt_by(form, iv, &mut text);
            assert_eq!(text, plain.repeat(40));
        }
    }
}

/// Every length there is between no block and some that need several groups of lanes and leave a rest.
#[test]
fn lengths_in_all_lanes() {
    let key = Key::new(*b"abcdefgh");
    let noise: Vec<u8> = (0_u64..=200)
        .flat_map(|at| key.encrypt_block(at).to_be_bytes())
        .collect();
    for form in forms() {
        for blocks in 0..=200 {
            for odd in [0, 3] {
                let mut plain = noise[..blocks * 8 + odd].to_vec();
                let mut text = plain.clone();
                key.decrypt_by(form, 7, &mut text);
                decrypt_alone(&key, 7, &mut plain);
                assert_eq!(text, plain, "{blocks} blocks and {odd} bytes");
            }
        }
    }
}

fn decrypt_alone(key: &Key, iv: u64, text: &mut [u8]) {
    let mut chain = iv;
    for block in text.as_chunks_mut::<8>().0 {
        let cipher = u64::from_be_bytes(*block);
        let plain = key.decrypt_block(cipher) ^ chain;
        chain = plain ^ cipher;
        *block = plain.to_be_bytes();
    }
}

proptest! {
    #[test]
    fn all_lanes_decrypt_alike(key: [u8; 8], iv: u64, cipher in prop::collection::vec(any::<u8>(), 0..1700)) {
        let key = Key::new(key);
        let mut alone = cipher.clone();
        decrypt_alone(&key, iv, &mut alone);
        for form in forms() {
            let mut text = cipher.clone();
            key.decrypt_by(form, iv, &mut text);
            prop_assert_eq!(&text, &alone);
        }
    }

    /// Lanes change nothing: texts of all lengths, in groups of all sizes, are what each would be alone, block by block.
    #[test]
    fn lanes_are_independent(key: [u8; 8], iv: u64, texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..11)) {
        let key = Key::new(key);
        let mut together = texts.clone();
        let mut borrowed: Vec<&mut [u8]> = together.iter_mut().map(Vec::as_mut_slice).collect();
        key.encrypt_pcbc_all(iv, &mut borrowed);
        for (text, cipher) in texts.iter().zip(&mut together) {
            let mut chain = iv;
            let mut alone = text.clone();
            for block in alone.as_chunks_mut::<8>().0 {
                let plain = u64::from_be_bytes(*block);
                let encrypted = key.encrypt_block(plain ^ chain);
                chain = plain ^ encrypted;
                *block = encrypted.to_be_bytes();
            }
            prop_assert_eq!(&alone, &*cipher);
            key.decrypt_pcbc(iv, cipher);
            prop_assert_eq!(text, &*cipher);
        }
    }
}
