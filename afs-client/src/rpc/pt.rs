//! The protection service (OpenAFS `ptint.xg`): which user or group has which number.

use bytes::{BufMut, Bytes};

use super::service;
use crate::xdr::{Decode, Decoder, Encode, List, XdrError};

service! {
    /// A protection server.
    service 73, trait ProtectionServer;

    /// The numbers of names, in their order; [`ANONYMOUS`] for a name that is not known.
    504 NameToId name_to_id (names: List<ProtectionName, 5000>) -> NameToIdReply (ids: List<i32, 5000>);
    /// The names of numbers, in their order; a number that is not known, in digits.
    505 IdToName id_to_name (ids: List<i32, 5000>) -> IdToNameReply (names: List<ProtectionName, 5000>);
}

/// The name of a user or group: at most 63 bytes. On the wire each has a word of its own, and 0 is what is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProtectionName(Bytes);

impl ProtectionName {
    /// This name, in lower case as the server has it; `None` if it is too long, or holds a 0.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let fits = name.len() < NAME_WORDS && !name.contains('\0');
        fits.then(|| Self(name.to_ascii_lowercase().into()))
    }

    /// The name, with what is not UTF-8 replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

impl Encode for ProtectionName {
    fn encode(&self, out: &mut Vec<u8>) {
        for byte in self.0.iter().take(NAME_WORDS) {
            out.put_u32(u32::from(*byte));
        }
        out.put_bytes(0, WORD * NAME_WORDS.saturating_sub(self.0.len()));
    }
}

impl Decode for ProtectionName {
    const MIN_LEN: usize = WORD * NAME_WORDS;

    fn decode(input: &mut Decoder<'_>) -> Result<Self, XdrError> {
        let mut name = Vec::new();
        let mut is_over = false;
        for _ in 0..NAME_WORDS {
            // Servers with signed characters fill the word with the sign.
            let [.., byte] = input.word()?.to_be_bytes();
            is_over |= byte == 0;
            if !is_over {
                name.push(byte);
            }
        }
        Ok(Self(name.into()))
    }
}

/// The number of nobody in particular.
pub const ANONYMOUS: i32 = 32_766;
/// The port of the protection servers.
pub const PORT: u16 = 7002;
/// OpenAFS `PR_MAXNAMELEN`.
const NAME_WORDS: usize = 64;
const WORD: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xdr::from_bytes;

    #[test]
    fn names_have_a_word_for_each_byte() {
        let name = ProtectionName::new("System:AnyUser").unwrap();
        let mut out = Vec::new();
        name.encode(&mut out);
        assert_eq!(out.len(), 256);
        assert_eq!(out[..12], *b"\0\0\0s\0\0\0y\0\0\0s");
        assert_eq!(
            from_bytes::<ProtectionName>(&out).unwrap().text(),
            "system:anyuser"
        );
        out[3] = 0xe9;
        out[..3].fill(0xff);
        assert_eq!(
            from_bytes::<ProtectionName>(&out).unwrap().text(),
            "\u{fffd}ystem:anyuser"
        );
        // What is behind the end does not count, and all 64 may be there.
        out[4..8].fill(0);
        assert_eq!(from_bytes::<ProtectionName>(&out).unwrap().text(), "\u{fffd}");
        assert_eq!(from_bytes::<ProtectionName>(&[1; 256]).unwrap().0.len(), 64);
        assert_eq!(from_bytes::<ProtectionName>(&out[..252]), Err(XdrError::Short));
        assert!(ProtectionName::new(&"n".repeat(63)).is_some());
        for bad in ["n".repeat(64), "a\0b".to_owned()] {
            assert_eq!(ProtectionName::new(&bad), None);
        }
    }
}
