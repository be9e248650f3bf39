//! The bytes of a file: chunks in memory, those of large files in a spill file.
//!
//! The machine: a chunk that was never written is a hole and reads as zeros. Data is shared until it is written: a copy
//! shares all chunks, so that a snapshot of a volume and a store under way cost a table each. Chunks behind the first
//! [`KEPT_CHUNKS`] move to the spill file, if there is one, when they are complete or the store ends. The file has no
//! name: it is gone with the process, however that ends.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

/// Where chunks of large files go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spill(Option<Arc<SpillFile>>);

#[derive(Debug)]
struct SpillFile {
    file: File,
    slots: Mutex<Slots>,
}

/// Which places of the file are taken.
#[derive(Debug, Default)]
struct Slots {
    next: u64,
    free: Vec<u64>,
}

impl Spill {
    /// Spills into a file of this folder.
    pub(crate) fn into_folder(folder: &Path) -> io::Result<Self> {
        let file = tempfile::tempfile_in(folder)?;
        Ok(Self(Some(Arc::new(SpillFile {
            file,
            slots: Mutex::default(),
        }))))
    }

    /// Places of the spill file in use.
    #[cfg(test)]
    pub(crate) fn used(&self) -> u64 {
        self.0.as_ref().map_or(0, |spill| {
            let slots = spill.slots.lock();
            slots.next - slots.free.len() as u64
        })
    }

    /// The chunk on disk, or as it was if there is no spill file.
    fn put(&self, bytes: Bytes) -> io::Result<Chunk> {
        let Some(spill) = &self.0 else {
            return Ok(Chunk::Memory(bytes));
        };
        let slot = {
            let mut slots = spill.slots.lock();
            slots.free.pop().unwrap_or_else(|| {
                slots.next += 1;
                slots.next - 1
            })
        };
        let slot = Slot {
            spill: Arc::clone(spill),
            at: slot * CHUNK_BYTES,
            len: bytes.len() as u64,
        };
        spill.file.write_all_at(&bytes, slot.at)?;
        Ok(Chunk::Spilled(Arc::new(slot)))
    }
}

/// A place in the spill file, given back when nobody uses it.
#[derive(Debug)]
struct Slot {
    spill: Arc<SpillFile>,
    at: u64,
    len: u64,
}

impl Slot {
    fn read(&self, from: u64, len: u64) -> io::Result<Bytes> {
        let mut bytes = BytesMut::zeroed(small(len));
        self.spill.file.read_exact_at(&mut bytes, self.at + from)?;
        Ok(bytes.freeze())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.spill.slots.lock().free.push(self.at / CHUNK_BYTES);
    }
}

/// At most [`CHUNK_BYTES`]; behind the end of a chunk there are zeros.
#[derive(Clone, Debug)]
enum Chunk {
    Memory(Bytes),
    Spilled(Arc<Slot>),
}

impl Chunk {
    fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Spilled(slot) => slot.len,
        }
    }

    fn read(&self, from: u64, len: u64) -> io::Result<Bytes> {
        match self {
            Self::Memory(bytes) => Ok(bytes.slice(small(from)..small(from + len))),
            Self::Spilled(slot) => slot.read(from, len),
        }
    }
}

/// The bytes of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Data {
    len: u64,
    chunks: BTreeMap<u64, Chunk>,
}

impl Data {
    /// Its length.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// Some bytes from `at` on, at most `most`: as many as lie together. Empty at the end only.
    pub(crate) fn part(&self, at: u64, most: u64) -> io::Result<Bytes> {
        let most = most.min(self.len.saturating_sub(at));
        let (index, from) = (at / CHUNK_BYTES, at % CHUNK_BYTES);
        let in_chunk = most.min(CHUNK_BYTES - from);
        match self.chunks.get(&index) {
            Some(chunk) if from < chunk.len() => chunk.read(from, in_chunk.min(chunk.len() - from)),
            _ => Ok(ZEROS.slice(..small(in_chunk))),
        }
    }

    /// Cuts, or extends with zeros.
    pub(crate) fn set_len(&mut self, len: u64) -> io::Result<()> {
        if len < self.len {
            let (last, rest) = (len / CHUNK_BYTES, len % CHUNK_BYTES);
            drop(self.chunks.split_off(&(last + u64::from(rest > 0))));
            if let Some(chunk) = self.chunks.get_mut(&last)
                && chunk.len() > rest
            {
                *chunk = Chunk::Memory(chunk.read(0, rest)?);
            }
        }
        self.len = len;
        Ok(())
    }

    /// Writes, and extends if need be.
    pub(crate) fn write(&mut self, mut at: u64, mut bytes: &[u8], spill: &Spill) -> io::Result<()> {
        while !bytes.is_empty() {
            let (index, from) = (at / CHUNK_BYTES, at % CHUNK_BYTES);
            let (now, later) = bytes.split_at(bytes.len().min(small(CHUNK_BYTES - from)));
            let mut chunk = match self.chunks.remove(&index) {
                None => BytesMut::with_capacity(small(CHUNK_BYTES)),
                Some(Chunk::Memory(bytes)) => bytes.try_into_mut().unwrap_or_else(|shared| copied(&shared)),
                Some(Chunk::Spilled(slot)) => copied(&slot.read(0, slot.len)?),
            };
            let end = small(from) + now.len();
            if chunk.len() < end {
                chunk.resize(end, 0);
            }
            if let Some(place) = chunk.get_mut(small(from)..end) {
                place.copy_from_slice(now);
            }
            let complete = end == small(CHUNK_BYTES) && index >= KEPT_CHUNKS;
            let chunk = if complete {
                spill.put(chunk.freeze())?
            } else {
                Chunk::Memory(chunk.freeze())
            };
            self.chunks.insert(index, chunk);
            at += now.len() as u64;
            self.len = self.len.max(at);
            bytes = later;
        }
        Ok(())
    }

    /// Spills what is behind the chunks that are kept: to be called when a store has ended.
    pub(crate) fn settle(&mut self, spill: &Spill) -> io::Result<()> {
        for (_, chunk) in self.chunks.range_mut(KEPT_CHUNKS..) {
            if let Chunk::Memory(bytes) = chunk {
                *chunk = spill.put(bytes.clone())?;
            }
        }
        Ok(())
    }
}

fn copied(bytes: &[u8]) -> BytesMut {
    let mut copy = BytesMut::with_capacity(small(CHUNK_BYTES));
    copy.extend_from_slice(bytes);
    copy
}

/// A length or place within a chunk.
fn small(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

const CHUNK_BYTES: u64 = 256 << 10;
/// So much of a file stays in memory.
const KEPT_CHUNKS: u64 = 16;
static ZEROS: Bytes = Bytes::from_static(&[0; 256 << 10]);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(data: &Data) -> Vec<u8> {
        let mut all = Vec::new();
        while (all.len() as u64) < data.len() {
            all.extend_from_slice(&data.part(all.len() as u64, u64::MAX).unwrap());
        }
        all
    }

    #[derive(Clone, Debug)]
    enum Change {
        Write(u64, usize),
        Cut(u64),
    }

    fn change() -> impl Strategy<Value = Change> {
        // Around the ends of chunks, and around the first that spills.
        let place = (0..20_u64, 0..7_u64)
            .prop_map(|(chunk, off)| (chunk * CHUNK_BYTES + off * 1000).saturating_sub(3000));
        prop_oneof![
            3 => (place.clone(), 0..600_000_usize).prop_map(|(at, len)| Change::Write(at, len)),
            1 => place.prop_map(Change::Cut),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn data_follows_a_vector(changes in proptest::collection::vec(change(), 1..12)) {
            let folder = tempfile::tempdir().unwrap();
            let spill = Spill::into_folder(folder.path()).unwrap();
            let (mut data, mut model) = (Data::default(), Vec::new());
            for (number, change) in changes.into_iter().enumerate() {
                let before = (data.clone(), model.clone());
                match change {
                    Change::Write(at, len) => {
                        let fill = u8::try_from(number + 1).unwrap();
                        data.write(at, &vec![fill; len], &spill).unwrap();
                        let place = small(at)..small(at) + len;
                        if len > 0 {
                            model.resize(model.len().max(place.end), 0);
                            model[place].fill(fill);
                        }
                    }
                    Change::Cut(len) => {
                        data.set_len(len).unwrap();
                        model.resize(small(len), 0);
                    }
                }
                data.settle(&spill).unwrap();
                prop_assert!(whole(&data) == model, "after change {number}");
                prop_assert!(whole(&before.0) == before.1, "the copy, after change {number}");
            }
            drop(data);
            prop_assert_eq!(spill.used(), 0);
        }
    }

    #[test]
    fn a_large_file_is_on_disk_and_a_hole_is_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let spill = Spill::into_folder(folder.path()).unwrap();
        let mut data = Data::default();
        data.write(1 << 40, b"end", &spill).unwrap();
        data.settle(&spill).unwrap();
        assert_eq!((data.len(), spill.used()), ((1 << 40) + 3, 1));
        assert_eq!(&data.part(1 << 40, 9).unwrap()[..], b"end");
        assert!(data.part(5, 9).unwrap().iter().all(|byte| *byte == 0));
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            0,
            "it has no name"
        );
    }
}
