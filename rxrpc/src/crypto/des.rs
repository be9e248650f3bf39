//! DES in PCBC mode: what the tickets of Kerberos 4 are sealed with (rx-security.md 5.2).
//!
//! The machine: each block is mixed with the plain and the sealed form of the one before, and encrypted. The key is where
//! that begins as well. DES can be searched through in a day; servers that still have such keys should get others.

use std::fmt;

use des::Des;
use des::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A key, parity and all. Wiped when dropped, and never shown.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Key([u8; 8]);

impl Key {
    /// The key of these bytes. The lowest bit of each does not count for the cipher, but it does for where PCBC begins.
    #[must_use]
    pub const fn new(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// Encrypts in place, beginning with the key itself. What is left after the last whole block stays as it is.
    pub fn encrypt(&self, text: &mut [u8]) {
        self.encrypt_from(self.0, text);
    }

    /// Decrypts in place what [`encrypt`](Self::encrypt) has made.
    pub fn decrypt(&self, text: &mut [u8]) {
        self.decrypt_from(self.0, text);
    }

    fn encrypt_from(&self, iv: [u8; 8], text: &mut [u8]) {
        let (cipher, mut chain) = (Des::new(&self.0.into()), iv);
        for block in text.as_chunks_mut::<8>().0 {
            let plain = *block;
            *block = xor(plain, chain);
            cipher.encrypt_block(block.into());
            chain = xor(plain, *block);
        }
    }

    fn decrypt_from(&self, iv: [u8; 8], text: &mut [u8]) {
        let (cipher, mut chain) = (Des::new(&self.0.into()), iv);
        for block in text.as_chunks_mut::<8>().0 {
            let sealed = *block;
            cipher.decrypt_block(block.into());
            *block = xor(*block, chain);
            chain = xor(sealed, *block);
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(DES)")
    }
}

fn xor(one: [u8; 8], other: [u8; 8]) -> [u8; 8] {
    (u64::from_be_bytes(one) ^ u64::from_be_bytes(other)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    /// The value of the reference file, with parity bits that are none.
    #[test]
    fn the_known_answer_and_back() {
        let key = Key::new(hex!("0001020304050607"));
        let iv = hex!("fffefdfcfbfaf9f8");
        let cipher: [u8; 24] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let mut text = cipher;
        key.decrypt_from(iv, &mut text);
        assert_eq!(text, hex!("c8e23cdf80618aada552b42074321fe42c157d2157da3f31"));
        key.encrypt_from(iv, &mut text);
        assert_eq!(text, cipher);
        assert_eq!(format!("{key:?}"), "Key(DES)");
    }
}
