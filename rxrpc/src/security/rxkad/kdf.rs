//! The session key of a Kerberos ticket, turned into the eight bytes that rxkad uses.
//!
//! A DES key is taken as it is. Any other is put through rxkad-kdf: HMAC-MD5 in counter mode, until the result is a DES key that
//! is not weak (rx-security.md 5.4, OpenAFS `tkt_DeriveDesKey`).

use std::fmt;

use hex_literal::hex;
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The key that client and service share. Parity is kept as it came: the bytes are an initialisation vector too.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SessionKey([u8; 8]);

/// A key of an encryption type, or of a length, of which rxkad can make nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rxkad cannot use a session key of encryption type {etype} and {bytes} bytes")]
pub struct NoKey {
    /// The encryption type (RFC 3961).
    pub etype: i32,
    /// Length of the key.
    pub bytes: usize,
}

impl SessionKey {
    /// A key that is eight bytes already.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The key for a ticket whose session key has this encryption type.
    ///
    /// # Errors
    ///
    /// The type is unknown to rxkad, or the key is too short for it.
    pub fn derive(etype: i32, key: &[u8]) -> Result<Self, NoKey> {
        let refused = NoKey {
            etype,
            bytes: key.len(),
        };
        match etype {
            1..=3 => Ok(Self(key.try_into().map_err(|_| refused)?)),
            ..=0 | 4 | 6 | 8..=15 => Err(refused),
            5 | 7 | 16 => {
                let mut material = without_parity(key).ok_or(refused)?;
                let derived = from_material(&material);
                material.zeroize();
                derived.ok_or(refused)
            }
            _ if key.len() < MATERIAL_MIN => Err(refused),
            _ => from_material(key).ok_or(refused),
        }
    }

    /// The bytes, for whoever has to seal or keep them.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 8] {
        &self.0
    }

    pub(super) const fn as_iv(&self) -> u64 {
        u64::from_be_bytes(self.0)
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey")
    }
}

/// The 168 bits of a triple DES key.
fn without_parity(key: &[u8]) -> Option<[u8; 21]> {
    let (groups, []) = key.as_chunks::<8>() else {
        return None;
    };
    if groups.len() != 3 {
        return None;
    }
    let mut material = [0; 21];
    for (seven, [front @ .., eighth]) in material.as_chunks_mut::<7>().0.iter_mut().zip(groups) {
        for ((out, byte), bit) in seven.iter_mut().zip(front).zip(1..) {
            *out = byte & 0xfe | eighth >> bit & 1;
        }
    }
    Some(material)
}

fn from_material(material: &[u8]) -> Option<SessionKey> {
    (1..=u8::MAX).find_map(|counter| {
        let mut hmac = Hmac::<Md5>::new_from_slice(material).ok()?;
        hmac.update(&[counter]);
        hmac.update(b"rxkad\0");
        hmac.update(&BITS_WANTED.to_be_bytes());
        let digest = hmac.finalize().into_bytes();
        let mut key = *digest.first_chunk::<8>()?;
        for byte in &mut key {
            *byte = with_odd_parity(*byte);
        }
        (!WEAK.contains(&key)).then_some(SessionKey(key))
    })
}

fn with_odd_parity(byte: u8) -> u8 {
    byte & 0xfe | u8::from((byte & 0xfe).count_ones().is_multiple_of(2))
}

const BITS_WANTED: u32 = 64;
/// The least from which 56 bits come.
const MATERIAL_MIN: usize = 7;
/// The weak and half-weak keys of DES (FIPS 74, section 3.6).
const WEAK: [[u8; 8]; 16] = [
    hex!("0101010101010101"),
    hex!("fefefefefefefefe"),
    hex!("1f1f1f1f0e0e0e0e"),
    hex!("e0e0e0e0f1f1f1f1"),
    hex!("01fe01fe01fe01fe"),
    hex!("fe01fe01fe01fe01"),
    hex!("1fe01fe00ef10ef1"),
    hex!("e01fe01ff10ef10e"),
    hex!("01e001e001f101f1"),
    hex!("e001e001f101f101"),
    hex!("1ffe1ffe0efe0efe"),
    hex!("fe1ffe1ffe0efe0e"),
    hex!("011f011f010e010e"),
    hex!("1f011f010e010e01"),
    hex!("e0fee0fef1fef1fe"),
    hex!("fee0fee0fef1fef1"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(len: u8) -> Vec<u8> {
        (0..len).collect()
    }

    #[test]
    fn known_answers() {
        let known = [
            (18, counting(32), hex!("b60db5e30b266b16")),
            (20, counting(32), hex!("b60db5e30b266b16")),
            (17, counting(16), hex!("07838c58c11c64ab")),
            (23, counting(16), hex!("07838c58c11c64ab")),
            (
                16,
                hex!("10171e252c333a41484f565d646b727980878e959ca3aab1").to_vec(),
                hex!("1ccdb36e8026ecbc"),
            ),
            (3, counting(8), hex!("0001020304050607")),
        ];
        for (etype, key, derived) in known {
            assert_eq!(
                SessionKey::derive(etype, &key).unwrap().bytes(),
                &derived,
                "{etype}"
            );
        }
    }

    #[test]
    fn what_rxkad_cannot_use() {
        for (etype, bytes) in [(3, 16), (9, 8), (0, 8), (-1, 32), (16, 16), (18, 6)] {
            let refused = SessionKey::derive(etype, &counting(bytes));
            assert_eq!(
                refused,
                Err(NoKey {
                    etype,
                    bytes: bytes.into()
                })
            );
        }
    }

    #[test]
    fn parity_is_odd() {
        for byte in 0..=255 {
            let with = with_odd_parity(byte);
            assert_eq!((with >> 1, with.count_ones() % 2), (byte >> 1, 1));
        }
    }

    #[test]
    fn keys_are_not_shown() {
        assert_eq!(format!("{:?}", SessionKey::from_bytes([7; 8])), "SessionKey");
    }
}
