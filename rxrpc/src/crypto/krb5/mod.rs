//! The encryption of Kerberos: keys, what they encrypt and what they sign (RFC 3961, RFC 3962, RFC 8009).
//!
//! The machine: a [`Key`] is a protocol key of one [`Enctype`]. For each use, told apart by a number ([`Usage`]), three
//! keys are derived from it: one encrypts, one signs what was encrypted, one signs alone. Both families of AES encrypt
//! by CBC with ciphertext stealing behind a random first block; they differ in how keys are derived and in what is
//! signed. Nothing here asks for randomness: the first block is an argument.

mod nfold;

use std::fmt;

use aes::cipher::BlockCipherEncrypt;
use aes::{Aes128, Aes256};
use cts::{CbcCs3, Decrypt, Encrypt, KeyIvInit};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha384};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use nfold::nfold;

/// A kind of key, by its number in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enctype {
    /// 17: aes128-cts-hmac-sha1-96.
    Aes128Sha1,
    /// 18: aes256-cts-hmac-sha1-96.
    Aes256Sha1,
    /// 19: aes128-cts-hmac-sha256-128.
    Aes128Sha256,
    /// 20: aes256-cts-hmac-sha384-192.
    Aes256Sha384,
}

impl Enctype {
    /// Those that are spoken here, the best first.
    pub const ALL: [Self; 4] = [
        Self::Aes256Sha384,
        Self::Aes128Sha256,
        Self::Aes256Sha1,
        Self::Aes128Sha1,
    ];

    /// The kind with this number, if it is spoken here.
    #[must_use]
    pub const fn from_number(number: i32) -> Option<Self> {
        match number {
            17 => Some(Self::Aes128Sha1),
            18 => Some(Self::Aes256Sha1),
            19 => Some(Self::Aes128Sha256),
            20 => Some(Self::Aes256Sha384),
            _ => None,
        }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Aes128Sha1 => 17,
            Self::Aes256Sha1 => 18,
            Self::Aes128Sha256 => 19,
            Self::Aes256Sha384 => 20,
        }
    }

    /// The number of the checksum that belongs to it.
    #[must_use]
    pub const fn checksum_number(self) -> i32 {
        match self {
            Self::Aes128Sha1 => 15,
            Self::Aes256Sha1 => 16,
            Self::Aes128Sha256 => 19,
            Self::Aes256Sha384 => 20,
        }
    }

    /// Length of a key in bytes.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Sha1 | Self::Aes128Sha256 => 16,
            Self::Aes256Sha1 | Self::Aes256Sha384 => 32,
        }
    }

    /// Length of a signature in bytes.
    #[must_use]
    pub const fn checksum_len(self) -> usize {
        match self {
            Self::Aes128Sha1 | Self::Aes256Sha1 => 12,
            Self::Aes128Sha256 => 16,
            Self::Aes256Sha384 => 24,
        }
    }
}

/// What a key is used for, so that nothing made for one use can be taken for another (RFC 4120 7.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage(pub u32);

/// It was not encrypted with this key for this use, or was changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot be decrypted: another key, or it was changed")]
pub struct Undecryptable;

/// Bytes that are no key of their kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key of {len} bytes is none of enctype {}", enctype.number())]
pub struct BadKey {
    /// Its kind.
    pub enctype: Enctype,
    /// Its length in bytes.
    pub len: usize,
}

/// A key. Wiped when dropped, and never shown.
#[derive(Clone)]
pub struct Key {
    enctype: Enctype,
    bytes: Zeroizing<Vec<u8>>,
}

impl Key {
    /// A key of these bytes.
    ///
    /// # Errors
    ///
    /// They are too many or too few.
    pub fn new(enctype: Enctype, bytes: &[u8]) -> Result<Self, BadKey> {
        if bytes.len() != enctype.key_len() {
            let len = bytes.len();
            return Err(BadKey { enctype, len });
        }
        let bytes = Zeroizing::new(bytes.to_vec());
        Ok(Self { enctype, bytes })
    }

    /// Its kind.
    #[must_use]
    pub const fn enctype(&self) -> Enctype {
        self.enctype
    }

    /// Its bytes, to derive other keys from.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Encrypts and signs. `confounder` is random and used once.
    #[must_use]
    pub fn encrypt(&self, usage: Usage, confounder: [u8; BLOCK], plain: &[u8]) -> Vec<u8> {
        let mut text = Zeroizing::new(Vec::with_capacity(BLOCK + plain.len()));
        text.extend_from_slice(&confounder);
        text.extend_from_slice(plain);
        let signed = match self.enctype {
            Enctype::Aes128Sha1 | Enctype::Aes256Sha1 => Some(self.sign(usage, INTEGRITY, &[&text])),
            _ => None,
        };
        let mut cipher = text.to_vec();
        self.cts_encrypt(&self.derive(usage, ENCRYPTION), &mut cipher);
        let signature = signed.unwrap_or_else(|| self.sign(usage, INTEGRITY, &[&[0; BLOCK], &cipher]));
        cipher.extend_from_slice(&signature);
        cipher
    }

    /// Checks and decrypts.
    ///
    /// # Errors
    ///
    /// It is too short or its signature is not ours.
    pub fn decrypt(&self, usage: Usage, cipher: &[u8]) -> Result<Zeroizing<Vec<u8>>, Undecryptable> {
        let len = cipher.len().checked_sub(self.enctype.checksum_len());
        let (body, signature) = len
            .filter(|len| *len >= BLOCK)
            .and_then(|len| cipher.split_at_checked(len))
            .ok_or(Undecryptable)?;
        let mut text = Zeroizing::new(body.to_vec());
        self.cts_decrypt(&self.derive(usage, ENCRYPTION), &mut text);
        let ours = match self.enctype {
            Enctype::Aes128Sha1 | Enctype::Aes256Sha1 => self.sign(usage, INTEGRITY, &[&text]),
            _ => self.sign(usage, INTEGRITY, &[&[0; BLOCK], body]),
        };
        if !bool::from(ours.ct_eq(signature)) {
            return Err(Undecryptable);
        }
        text.drain(..BLOCK);
        Ok(text)
    }

    /// Signs what is not encrypted.
    #[must_use]
    pub fn checksum(&self, usage: Usage, data: &[u8]) -> Vec<u8> {
        self.sign(usage, CHECKSUM, &[data])
    }

    fn sign(&self, usage: Usage, purpose: u8, parts: &[&[u8]]) -> Vec<u8> {
        let key = self.derive(usage, purpose);
        let mut signature = match self.enctype {
            Enctype::Aes128Sha1 | Enctype::Aes256Sha1 => hmac::<Hmac<Sha1>>(&key, parts),
            Enctype::Aes128Sha256 => hmac::<Hmac<Sha256>>(&key, parts),
            Enctype::Aes256Sha384 => hmac::<Hmac<Sha384>>(&key, parts),
        };
        signature.truncate(self.enctype.checksum_len());
        signature
    }

    /// The key for one purpose of one use.
    fn derive(&self, usage: Usage, purpose: u8) -> Zeroizing<Vec<u8>> {
        let [a, b, c, d] = usage.0.to_be_bytes();
        let label = [a, b, c, d, purpose];
        match self.enctype {
            Enctype::Aes128Sha1 | Enctype::Aes256Sha1 => self.derive_by_cipher(&label),
            Enctype::Aes128Sha256 => kdf::<Hmac<Sha256>>(&self.bytes, &label, 16),
            Enctype::Aes256Sha384 => {
                let len = if purpose == ENCRYPTION { 32 } else { 24 };
                kdf::<Hmac<Sha384>>(&self.bytes, &label, len)
            }
        }
    }

    /// DK of RFC 3961 5.1: the label is encrypted over and over until there are bytes enough.
    fn derive_by_cipher(&self, label: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut block: [u8; BLOCK] = nfold(label);
        let mut out = Zeroizing::new(Vec::with_capacity(self.bytes.len()));
        while out.len() < self.bytes.len() {
            if let Ok(cipher) = Aes128::new_from_slice(&self.bytes) {
                cipher.encrypt_block((&mut block).into());
            } else if let Ok(cipher) = Aes256::new_from_slice(&self.bytes) {
                cipher.encrypt_block((&mut block).into());
            }
            out.extend_from_slice(&block);
        }
        out
    }

    /// `text` holds a block at least, and `key` is as long as keys of this kind are: neither can fail.
    fn cts_encrypt(&self, key: &[u8], text: &mut [u8]) {
        let _ = if let Ok(cipher) = CbcCs3::<Aes128>::new_from_slices(key, &[0; BLOCK]) {
            cipher.encrypt(text)
        } else if let Ok(cipher) = CbcCs3::<Aes256>::new_from_slices(key, &[0; BLOCK]) {
            cipher.encrypt(text)
        } else {
            Ok(())
        };
    }

    /// As [`cts_encrypt`](Self::cts_encrypt).
    fn cts_decrypt(&self, key: &[u8], text: &mut [u8]) {
        let _ = if let Ok(cipher) = CbcCs3::<Aes128>::new_from_slices(key, &[0; BLOCK]) {
            cipher.decrypt(text)
        } else if let Ok(cipher) = CbcCs3::<Aes256>::new_from_slices(key, &[0; BLOCK]) {
            cipher.decrypt(text)
        } else {
            Ok(())
        };
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key(enctype {})", self.enctype.number())
    }
}

/// KDF-HMAC-SHA2 of RFC 8009 3.
fn kdf<M: Mac + KeyInit>(key: &[u8], label: &[u8], len: u8) -> Zeroizing<Vec<u8>> {
    let bits = (u32::from(len) * 8).to_be_bytes();
    let mut out = Zeroizing::new(hmac::<M>(key, &[&[0, 0, 0, 1], label, &[0], &bits]));
    out.truncate(len.into());
    out
}

fn hmac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    // HMAC takes keys of every length.
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else {
        return Vec::new();
    };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// Block of AES, in bytes.
pub const BLOCK: usize = 16;
// The last byte of a label says what the derived key does (RFC 3961 5.3).
const CHECKSUM: u8 = 0x99;
const ENCRYPTION: u8 = 0xaa;
const INTEGRITY: u8 = 0x55;

#[cfg(test)]
mod tests;
