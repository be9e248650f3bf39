//! rxkad-kdf: eight bytes of key from a Kerberos session key of any enctype (rx-security.md 5.4).
//!
//! The machine: keys of DES are used as they are. All others are hashed, with a counter, until what comes out is no weak
//! key of DES. Keys of triple DES are first packed, seven bits to the byte.

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use zeroize::Zeroizing;

use super::SessionKey;

/// No key of rxkad can be had from this session key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no rxkad key can be derived from a key of enctype {enctype} with {len} bytes")]
pub struct BadSessionKey {
    /// The kind of the session key.
    pub enctype: i32,
    /// Its length in bytes.
    pub len: usize,
}

pub(super) fn derive(enctype: i32, key: &[u8]) -> Result<SessionKey, BadSessionKey> {
    let len = key.len();
    let bad = BadSessionKey { enctype, len };
    match enctype {
        1..=3 => key.try_into().map(SessionKey).map_err(|_| bad),
        5 | 7 | 16 => match key.as_chunks::<8>() {
            (parts @ [_, _, _], []) => {
                let packed: Zeroizing<Vec<u8>> = Zeroizing::new(parts.iter().flat_map(packed).collect());
                hashed(&packed).ok_or(bad)
            }
            _ => Err(bad),
        },
        ..=0 | 4 | 6 | 8..=15 => Err(bad),
        _ if len < 7 => Err(bad),
        _ => hashed(key).ok_or(bad),
    }
}

/// Eight bytes without their parity bits: seven keep their upper bits, the bits of the eighth fill the places.
fn packed(part: &[u8; 8]) -> [u8; 7] {
    let [first @ .., spread] = *part;
    let mut at = 0;
    first.map(|byte| {
        at += 1;
        (byte & 0xfe) | ((spread >> at) & 1)
    })
}

fn hashed(key: &[u8]) -> Option<SessionKey> {
    (1..=u8::MAX).find_map(|counter| {
        let mut mac = <Hmac<Md5> as KeyInit>::new_from_slice(key).ok()?;
        mac.update(&[counter]);
        mac.update(b"rxkad\0\0\0\0\x40");
        let hash = Zeroizing::new(mac.finalize().into_bytes().to_vec());
        let bytes = hash.first_chunk::<8>()?.map(with_odd_parity);
        (!is_weak(bytes)).then_some(SessionKey(bytes))
    })
}

const fn with_odd_parity(byte: u8) -> u8 {
    let bits = byte & 0xfe;
    if bits.count_ones().is_multiple_of(2) {
        bits | 1
    } else {
        bits
    }
}

/// Weak or half weak in DES (FIPS 74): for such a key encryption is undone by encryption.
fn is_weak(key: [u8; 8]) -> bool {
    WEAK.contains(&u64::from_be_bytes(key))
}

const WEAK: [u64; 16] = [
    0x0101_0101_0101_0101,
    0xfefe_fefe_fefe_fefe,
    0x1f1f_1f1f_0e0e_0e0e,
    0xe0e0_e0e0_f1f1_f1f1,
    0x01fe_01fe_01fe_01fe,
    0xfe01_fe01_fe01_fe01,
    0x1fe0_1fe0_0ef1_0ef1,
    0xe01f_e01f_f10e_f10e,
    0x01e0_01e0_01f1_01f1,
    0xe001_e001_f101_f101,
    0x1ffe_1ffe_0efe_0efe,
    0xfe1f_fe1f_fe0e_fe0e,
    0x011f_011f_010e_010e,
    0x1f01_1f01_0e01_0e01,
    0xe0fe_e0fe_f1fe_f1fe,
    0xfee0_fee0_fef1_fef1,
];

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    #[test]
    fn known_answers() {
        let bytes: Vec<u8> = (0..32).collect();
        let triple = hex!("10171e252c333a41 484f565d646b7279 80878e959ca3aab1");
        for (enctype, key, derived) in [
            (18, &bytes[..], hex!("b60db5e30b266b16")),
            (20, &bytes[..], hex!("b60db5e30b266b16")),
            (17, &bytes[..16], hex!("07838c58c11c64ab")),
            (23, &bytes[..16], hex!("07838c58c11c64ab")),
            (16, &triple[..], hex!("1ccdb36e8026ecbc")),
            (3, &bytes[..8], hex!("0001020304050607")),
        ] {
            assert_eq!(
                derive(enctype, key).unwrap().bytes(),
                derived,
                "enctype {enctype}"
            );
        }
    }

    #[test]
    fn keys_that_are_none() {
        for (enctype, len) in [
            (3, 16),
            (9, 16),
            (0, 8),
            (-1, 8),
            (16, 16),
            (4, 8),
            (18, 6),
            (17, 0),
        ] {
            let refused = derive(enctype, &vec![1; len]).unwrap_err();
            assert_eq!(refused, BadSessionKey { enctype, len });
        }
    }

    #[test]
    fn weak_keys_are_known_and_have_odd_parity() {
        for key in WEAK {
            assert!(is_weak(key.to_be_bytes()));
            assert_eq!(key.to_be_bytes().map(with_odd_parity), key.to_be_bytes());
        }
        assert!(!is_weak(*b"abcdefgh"));
    }
}
