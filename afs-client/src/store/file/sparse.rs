//! Ranges and bytes of sparse files.

use super::*;

/// All bytes of a set, in pieces of a size that can be copied at once.
pub(super) fn steps(set: &RangeSet) -> impl Iterator<Item = (u64, usize)> + '_ {
    set.iter().flat_map(|part| {
        let starts = (part.start..part.end).step_by(SUM_STEP);
        starts.map(move |at| {
            (
                at,
                usize::try_from(part.end - at).map_or(SUM_STEP, |rest| rest.min(SUM_STEP)),
            )
        })
    })
}

/// The chunks that `range`, not empty, touches.
pub(super) fn chunks(range: &Range<u64>) -> RangeInclusive<u64> {
    range.start / CHUNK..=range.end.saturating_sub(1) / CHUNK
}

pub(super) fn overlap(set: &RangeSet, range: &Range<u64>) -> u64 {
    set.overlapping(range.clone())
        .map(|part| part.end - part.start)
        .sum()
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

pub(super) fn write_all_vectored(file: &File, data: &[Bytes], mut offset: u64) -> io::Result<()> {
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

pub(in crate::store) fn punch_hole(file: &File, range: &Range<u64>) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(file, flags, range.start, range.end - range.start)?;
    Ok(())
}

/// So much that is the server's is set aside with what is ours.
pub(super) const ASIDE_MAX: u64 = 256 << 20;
/// How much is read at once to take a checksum.
pub(super) const SUM_STEP: usize = 128 << 10;
/// Slices in one `pwritev`; well under IOV_MAX.
pub(super) const MAX_SLICES: usize = 256;
