//! Reading the binary files of Kerberos: big-endian numbers, and byte strings behind their length.

use zeroize::Zeroizing;

use super::principal::Principal;

/// What is wrong with a piece of data, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {what}")]
pub struct Malformed {
    /// Bytes from the beginning.
    pub at: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// Goes through data from its beginning.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    /// Everything was read.
    pub(super) const fn is_empty(&self) -> bool {
        self.at >= self.data.len()
    }

    /// Something is wrong here.
    pub(super) const fn bad(&self, what: &'static str) -> Malformed {
        Malformed { at: self.at, what }
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(len);
        let taken = end.and_then(|end| self.data.get(self.at..end));
        let taken = taken.ok_or_else(|| self.bad("the data ends in the middle"))?;
        self.at += len;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.take(N)?;
        bytes
            .try_into()
            .map_err(|_| self.bad("the data ends in the middle"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    /// A length of four bytes.
    pub(super) fn length(&mut self) -> Result<usize, Malformed> {
        let length = self.u32()?;
        usize::try_from(length).map_err(|_| self.bad("a length that cannot be"))
    }

    /// Bytes behind a length of four bytes.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.length()?;
        self.take(length)
    }

    /// Bytes behind a length of two bytes.
    pub(super) fn short_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u16()?;
        self.take(length.into())
    }

    pub(super) fn text(&self, bytes: &[u8]) -> Result<String, Malformed> {
        let text = std::str::from_utf8(bytes).map_err(|_| self.bad("a name that is not UTF-8"))?;
        Ok(text.to_owned())
    }

    /// A principal as credential caches have it.
    pub(super) fn principal(&mut self) -> Result<Principal, Malformed> {
        let _name_type = self.u32()?;
        let count = self.length()?;
        let realm = self.bytes()?;
        let realm = self.text(realm)?;
        // Each takes four bytes at least: a count that lies ends with the data.
        let components = (0..count).map(|_| {
            let component = self.bytes()?;
            self.text(component)
        });
        Ok(Principal {
            components: components.collect::<Result<_, _>>()?,
            realm,
        })
    }

    /// A key: its kind and its bytes.
    pub(super) fn key(&mut self) -> Result<(i32, Zeroizing<Vec<u8>>), Malformed> {
        let enctype = self.u16()?;
        let bytes = self.bytes()?.to_vec();
        Ok((i32::from(enctype), Zeroizing::new(bytes)))
    }
}
