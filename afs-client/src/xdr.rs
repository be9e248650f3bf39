//! XDR as rxgen uses it (RFC 4506; afs-rpc.md 2): big-endian words, counted strings padded to four bytes.
//!
//! Nothing is allocated for a count before it is clear that the input can hold as many elements.

use bytes::{BufMut, Bytes};

/// A rule that an encoding breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XdrError {
    /// The input ends within a value.
    #[error("ends within a value")]
    Short,
    /// A count or length is larger than the definition or the input allows.
    #[error("length {0} is too large")]
    TooLong(u32),
    /// A value is none of its type.
    #[error("value {0} is not allowed")]
    BadValue(u32),
    /// Something follows the last value.
    #[error("{0} bytes follow the last value")]
    Trailing(usize),
}

/// A value that can be written.
pub trait Encode {
    /// Appends it to `out`.
    fn encode(&self, out: &mut Vec<u8>);
}

/// A value that can be read.
pub trait Decode: Sized {
    /// The fewest bytes that a value takes.
    const MIN_LEN: usize = 4;

    /// Takes it from the front of the input.
    ///
    /// # Errors
    ///
    /// The rule that the input breaks.
    fn decode(input: &mut Decoder<'_>) -> Result<Self, XdrError>;
}

/// Input that is being read.
#[derive(Debug)]
pub struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    /// Reads from the beginning of `input`.
    #[must_use]
    pub const fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// Takes `len` bytes.
    ///
    /// # Errors
    ///
    /// There are fewer.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], XdrError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(XdrError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Takes a word.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn word(&mut self) -> Result<u32, XdrError> {
        let (word, rest) = self.0.split_first_chunk().ok_or(XdrError::Short)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*word))
    }

    /// Takes counted bytes, at most `max`, and their padding.
    ///
    /// # Errors
    ///
    /// There are fewer, or more may not be.
    pub fn counted(&mut self, max: u32) -> Result<&'a [u8], XdrError> {
        let len = self.word()?;
        if len > max {
            return Err(XdrError::TooLong(len));
        }
        let len = usize::try_from(len).map_err(|_| XdrError::TooLong(len))?;
        let bytes = self.take(len)?;
        self.take(padding(len))?;
        Ok(bytes)
    }

    /// What is left.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Nothing may be left.
    ///
    /// # Errors
    ///
    /// Something is.
    pub const fn end(self) -> Result<(), XdrError> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(XdrError::Trailing(left)),
        }
    }
}

/// Appends bytes behind their count, padded.
pub fn put_counted(out: &mut Vec<u8>, bytes: &[u8]) {
    count(bytes.len()).encode(out);
    out.extend_from_slice(bytes);
    out.put_bytes(0, padding(bytes.len()));
}

/// Reads a value that is all of `input`.
///
/// # Errors
///
/// The rule that the input breaks.
pub fn from_bytes<T: Decode>(input: &[u8]) -> Result<T, XdrError> {
    let mut input = Decoder::new(input);
    let value = T::decode(&mut input)?;
    input.end()?;
    Ok(value)
}

/// A counted string of at most `MAX` bytes. AFS gives it no character set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text<const MAX: u32>(pub Bytes);

/// At most `MAX` elements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List<T, const MAX: u32>(pub Vec<T>);

impl<const MAX: u32> Text<MAX> {
    /// The text, with what is not UTF-8 replaced.
    #[must_use]
    pub fn lossy(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

impl<const MAX: u32> From<&[u8]> for Text<MAX> {
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl Encode for u32 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(*self);
    }
}

impl Decode for u32 {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, XdrError> {
        input.word()
    }
}

impl Encode for i32 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_i32(*self);
    }
}

impl Decode for i32 {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, XdrError> {
        Ok(input.word()?.cast_signed())
    }
}

/// Two words, the high one first.
impl Encode for u64 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(*self);
    }
}

impl Decode for u64 {
    const MIN_LEN: usize = 8;

    fn decode(input: &mut Decoder<'_>) -> Result<Self, XdrError> {
        Ok((Self::from(input.word()?) << 32) | Self::from(input.word()?))
    }
}

impl<T: Encode, const N: usize> Encode for [T; N] {
    fn encode(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|element| element.encode(out));
    }
}

impl<T: Decode + Copy + Default, const N: usize> Decode for [T; N] {
    const MIN_LEN: usize = N * T::MIN_LEN;

    fn decode(input: &mut Decoder<'_>) -> Result<Self, XdrError> {
        let mut array = [T::default(); N];
        for element in &mut array {
            *element = T::decode(input)?;
        }
        Ok(array)
    }
}

impl<const MAX: u32> Encode for Text<MAX> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_counted(out, &self.0);
    }
}

impl<const MAX: u32> Decode for Text<MAX> {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, XdrError> {
        input.counted(MAX).map(|text| Self(Bytes::copy_from_slice(text)))
    }
}

impl<T: Encode, const MAX: u32> Encode for List<T, MAX> {
    fn encode(&self, out: &mut Vec<u8>) {
        count(self.0.len()).encode(out);
        self.0.iter().for_each(|element| element.encode(out));
    }
}

impl<T: Decode, const MAX: u32> Decode for List<T, MAX> {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, XdrError> {
        let len = input.word()?;
        let held = usize::try_from(len)
            .ok()
            .filter(|len| *len <= input.rest().len() / T::MIN_LEN.max(1));
        match held {
            Some(len) if count(len) <= MAX => (0..len)
                .map(|_| T::decode(input))
                .collect::<Result<_, _>>()
                .map(Self),
            _ => Err(XdrError::TooLong(len)),
        }
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

const fn padding(len: usize) -> usize {
    len.wrapping_neg() % 4
}

/// Defines a structure whose encoding is that of its fields in order.
macro_rules! xdr_struct {
    ($($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, Default, PartialEq, Eq)]
            pub struct $name {
                $($(#[$field_doc])* pub $field: $type,)*
            }

            impl $crate::xdr::Encode for $name {
                #[allow(unused_variables, reason = "some have no fields")]
                fn encode(&self, out: &mut Vec<u8>) {
                    $($crate::xdr::Encode::encode(&self.$field, out);)*
                }
            }

            impl $crate::xdr::Decode for $name {
                const MIN_LEN: usize = 0 $(+ <$type as $crate::xdr::Decode>::MIN_LEN)*;

                #[allow(unused_variables, reason = "some have no fields")]
                fn decode(input: &mut $crate::xdr::Decoder<'_>) -> Result<Self, $crate::xdr::XdrError> {
                    Ok(Self { $($field: $crate::xdr::Decode::decode(input)?,)* })
                }
            }
        )*
    };
}
pub(crate) use xdr_struct;

#[cfg(test)]
mod tests {
    use hex_literal::hex;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn strings_are_counted_and_padded() {
        let mut out = Vec::new();
        Text::<8>::from(&b"abcde"[..]).encode(&mut out);
        assert_eq!(out, hex!("00000005 6162636465 000000"));
        assert_eq!(from_bytes::<Text<8>>(&out), Ok(Text::from(&b"abcde"[..])));
        assert_eq!(from_bytes::<Text<4>>(&out), Err(XdrError::TooLong(5)));
        assert_eq!(from_bytes::<Text<8>>(&out[..9]), Err(XdrError::Short));
    }

    #[test]
    fn lists_that_cannot_be_are_refused_before_anything_is_allocated() {
        assert_eq!(
            from_bytes::<List<u64, 9>>(&hex!("00000002 00000000 00000001")),
            Err(XdrError::TooLong(2))
        );
        assert_eq!(
            from_bytes::<List<u32, { u32::MAX }>>(&hex!("ffffffff")),
            Err(XdrError::TooLong(u32::MAX))
        );
        assert_eq!(
            from_bytes::<List<u32, 1>>(&hex!("00000001 00000007")),
            Ok(List(vec![7]))
        );
        assert_eq!(
            from_bytes::<u32>(&hex!("00000001 00")),
            Err(XdrError::Trailing(1))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless(bytes: Vec<u8>) {
            let _ = from_bytes::<List<Text<9>, 7>>(&bytes);
        }
    }
}
