//! What the index holds of an object: which version of its contents is here, which bytes, and their checksums.
//!
//! The machine: a record says what lay in the object's file when it was made. Nothing holds the file to it: bytes are
//! believed when the checksum of their chunk agrees, and used when the server still has this version with this length and
//! this time of its last change. So a record that is old, or of another object under the same numbers, costs a fetch.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use twox_hash::XxHash3_64;

use super::CHUNK;
use super::ranges::RangeSet;
use crate::types::DataVersion;

/// Names an object in a cache directory, over restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectKey {
    /// The cell, by its number in the index.
    pub(crate) cell: u32,
    pub(crate) volume: u32,
    pub(crate) vnode: u32,
    pub(crate) unique: u32,
}

impl ObjectKey {
    /// As a key of the index.
    pub(super) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let numbers = [self.cell, self.volume, self.vnode, self.unique];
        for (place, number) in bytes.chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut input = Input(bytes);
        let key = Self {
            cell: input.u32()?,
            volume: input.u32()?,
            vnode: input.u32()?,
            unique: input.u32()?,
        };
        input.0.is_empty().then_some(key)
    }

    /// The directory of the file, of 256. Files and directories have every second number.
    pub(super) fn shard(self) -> u8 {
        let [.., low] = ((self.vnode / 2) ^ self.unique ^ self.volume).to_be_bytes();
        low
    }
}

impl fmt::Display for ObjectKey {
    /// cell.volume.vnode.unique
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.cell, self.volume, self.vnode, self.unique)
    }
}

impl FromStr for ObjectKey {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let numbers: Vec<_> = name.split('.').map(str::parse).collect();
        let [Ok(cell), Ok(volume), Ok(vnode), Ok(unique)] = *numbers.as_slice() else {
            return Err(());
        };
        Ok(Self {
            cell,
            volume,
            vnode,
            unique,
        })
    }
}

/// What a server says of the contents of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) version: DataVersion,
    /// Length in bytes.
    pub(crate) len: u64,
    /// When the server saw the last change, in unix seconds: tells apart what has the same version by accident.
    pub(crate) changed: u32,
}

/// What the index holds of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) served: Served,
    /// When it was used last, in unix seconds.
    pub(super) used: u32,
    pub(super) clean: RangeSet,
    /// Checksums of the clean bytes of each chunk that has some.
    pub(super) sums: BTreeMap<u64, u64>,
}

/// A record that this program did not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of the index is damaged")]
pub(super) struct BadRecord;

impl Record {
    pub(super) fn encode(&self) -> Box<[u8]> {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(&self.served.version.0.to_be_bytes());
        out.extend_from_slice(&self.served.len.to_be_bytes());
        out.extend_from_slice(&self.served.changed.to_be_bytes());
        out.extend_from_slice(&self.used.to_be_bytes());
        for (chunk, sum) in &self.sums {
            let parts: Vec<_> = self.clean.overlapping(chunk_range(*chunk)).collect();
            out.extend_from_slice(&chunk.to_be_bytes());
            out.extend_from_slice(&sum.to_be_bytes());
            out.extend_from_slice(&(parts.len() as u64).to_be_bytes());
            for part in parts {
                out.extend_from_slice(&part.start.to_be_bytes());
                out.extend_from_slice(&part.end.to_be_bytes());
            }
        }
        let own = checksum_of(&out);
        out.extend_from_slice(&own.to_be_bytes());
        out.into_boxed_slice()
    }

    /// Reads a record.
    ///
    /// # Errors
    ///
    /// Any bit of it is not as it was written.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let (body, own) = bytes.split_last_chunk().ok_or(BadRecord)?;
        if checksum_of(body) != u64::from_be_bytes(*own) {
            return Err(BadRecord);
        }
        Self::parse(&mut Input(body)).ok_or(BadRecord)
    }

    fn parse(input: &mut Input<'_>) -> Option<Self> {
        let mut record = Self {
            served: Served {
                version: DataVersion(input.u64()?),
                len: input.u64()?,
                changed: input.u32()?,
            },
            used: input.u32()?,
            ..Self::default()
        };
        while !input.0.is_empty() {
            let (chunk, sum, parts) = (input.u64()?, input.u64()?, input.u64()?);
            let bounds = chunk_range(chunk);
            if parts == 0 || record.sums.insert(chunk, sum).is_some() {
                return None;
            }
            for _ in 0..parts {
                let part = input.u64()?..input.u64()?;
                let fits = part.start < part.end && bounds.start <= part.start && part.end <= bounds.end;
                if !fits || part.end > record.served.len {
                    return None;
                }
                record.clean.insert(part);
            }
        }
        Some(record)
    }
}

/// Plays any bytes as a record, past its checksum.
pub(super) fn fuzz_record(bytes: &[u8]) {
    if let Some(record) = Record::parse(&mut Input(bytes)) {
        assert_eq!(Record::decode(&record.encode()), Ok(record));
    }
}

/// The bytes of a chunk.
pub(super) fn chunk_range(chunk: u64) -> Range<u64> {
    let start = chunk.saturating_mul(CHUNK);
    start..start.saturating_add(CHUNK)
}

/// The checksum of bytes that come in pieces.
pub(super) struct Checksum(XxHash3_64);

impl Checksum {
    pub(super) fn new() -> Self {
        Self(XxHash3_64::with_seed(SEED))
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        std::hash::Hasher::write(&mut self.0, bytes);
    }

    pub(super) fn end(&self) -> u64 {
        std::hash::Hasher::finish(&self.0)
    }
}

/// The checksum of bytes.
pub(crate) fn checksum_of(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(SEED, bytes)
}

/// Not zero, so that a field of zeros does not vouch for itself.
const SEED: u64 = 0x6166_732d_6675_7365;

/// What is left to read.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn u32(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*bytes))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(ranges: &[(u64, u64)]) -> Record {
        let mut record = Record {
            served: Served {
                version: DataVersion(7),
                len: u64::MAX / 2,
                changed: 99,
            },
            used: 3,
            ..Record::default()
        };
        for (start, len) in ranges {
            let range = *start..start + len;
            record.clean.insert(range.clone());
            for chunk in range.start / CHUNK..=(range.end - 1) / CHUNK {
                record.sums.insert(chunk, chunk ^ 5);
            }
        }
        record
    }

    proptest! {
        #[test]
        fn records_come_back_and_no_changed_bit_does(
            ranges in prop::collection::vec((0..8 * CHUNK, 1..2 * CHUNK), 0..8),
            flip in any::<prop::sample::Index>(),
            bit in 0..8u8,
        ) {
            let record = record(&ranges);
            let mut bytes = record.encode();
            prop_assert_eq!(Record::decode(&bytes), Ok(record));
            let at = flip.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Record::decode(&bytes), Err(BadRecord));
            prop_assert_eq!(Record::decode(&bytes[..at]), Err(BadRecord));
        }

        #[test]
        fn names_come_back(cell: u32, volume: u32, vnode: u32, unique: u32) {
            let key = ObjectKey { cell, volume, vnode, unique };
            prop_assert_eq!(key.to_string().parse(), Ok(key));
            prop_assert_eq!(ObjectKey::from_bytes(&key.to_bytes()), Some(key));
        }
    }
}
