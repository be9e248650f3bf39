//! A file with the contents of an object: plain, or sealed page by page.

use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::FallocateFlags;

use super::record::ObjectKey;
use super::seal::Seal;
use super::sealed::Sealed;

/// Must a page be there? If it is not, that is damage; else it reads as zeros. Only what is sealed tells.
pub(super) type Counts<'a> = &'a dyn Fn(&Range<u64>) -> bool;

/// A file with contents. Offsets are those of the contents, wherever the bytes lie.
#[derive(Debug)]
pub(super) enum Backing {
    /// Bytes lie where they belong.
    Plain(File),
    /// Pages lie among their seals.
    Sealed(Sealed),
}

impl Backing {
    /// The file of an object; sealed, if there is something to do it with.
    pub(super) fn new(file: File, seal: Option<&(ObjectKey, Arc<Seal>)>) -> Self {
        match seal {
            Some((key, seal)) => Self::Sealed(Sealed::new(file, *key, Arc::clone(seal))),
            None => Self::Plain(file),
        }
    }

    /// Fills `buffer`; what is not in the file is zeros.
    ///
    /// # Errors
    ///
    /// It cannot be read. `InvalidData`: a page that counts is damaged.
    pub(super) fn read(&self, buffer: &mut [u8], at: u64, counts: Counts<'_>) -> io::Result<()> {
        match self {
            Self::Plain(file) => read_sparse(file, buffer, at),
            Self::Sealed(sealed) => sealed.read(buffer, at, counts),
        }
    }

    /// Writes bytes.
    ///
    /// # Errors
    ///
    /// They may be there in part.
    pub(super) fn write(&self, data: &[u8], at: u64, counts: Counts<'_>) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.write_all_at(data, at),
            Self::Sealed(sealed) => sealed.write(data.to_vec(), at, counts),
        }
    }

    /// Writes bytes that come in pieces.
    ///
    /// # Errors
    ///
    /// They may be there in part.
    pub(super) fn write_pieces(&self, data: &[Bytes], at: u64, counts: Counts<'_>) -> io::Result<()> {
        match self {
            Self::Plain(file) => write_all_vectored(file, data, at),
            Self::Sealed(sealed) => sealed.write(data.concat(), at, counts),
        }
    }

    /// Cuts it off: what lies behind `len` reads as zeros.
    pub(super) fn cut(&self, len: u64, counts: Counts<'_>) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.set_len(len),
            Self::Sealed(sealed) => sealed.cut(len, counts),
        }
    }

    /// Gives whole pages back, and the seals of the groups that have no other.
    pub(super) fn punch(&self, pages: &Range<u64>, groups: &Range<u64>) -> io::Result<()> {
        match self {
            Self::Plain(file) => punch_hole(file, pages),
            Self::Sealed(sealed) => sealed.punch(pages, groups),
        }
    }

    /// All of it lies before that.
    pub(super) fn end(&self) -> io::Result<u64> {
        match self {
            Self::Plain(file) => Ok(file.metadata()?.len()),
            Self::Sealed(sealed) => sealed.end(),
        }
    }
}

/// Fills `buffer`; what lies behind the end of the file is zeros.
pub(super) fn read_sparse(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => {
                rest.fill(0);
                break;
            }
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_all_vectored(file: &File, data: &[Bytes], mut offset: u64) -> io::Result<()> {
    for batch in data.chunks(MAX_SLICES) {
        let mut slices: Vec<_> = batch.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            let count = match rustix::io::pwritev(file, rest, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => count,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            offset += count as u64;
            IoSlice::advance_slices(&mut rest, count);
        }
    }
    Ok(())
}

pub(super) fn punch_hole(file: &File, range: &Range<u64>) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(file, flags, range.start, range.end - range.start)?;
    Ok(())
}

/// Slices in one `pwritev`; well under IOV_MAX.
const MAX_SLICES: usize = 256;
