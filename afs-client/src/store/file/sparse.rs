//! Ranges of sparse files.

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

/// So much that is the server's is set aside with what is ours.
pub(super) const ASIDE_MAX: u64 = 256 << 20;
/// How much is read at once to take a checksum.
pub(super) const SUM_STEP: usize = 128 << 10;
