//! A set of bytes of a file, kept as disjoint ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint, non-empty, non-touching ranges in rising order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet {
    /// Start to end.
    ranges: BTreeMap<u64, u64>,
    bytes: u64,
}

impl RangeSet {
    /// How many bytes are in the set.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many ranges it takes to say it.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Is there no byte in the set?
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Adds `range`; gives the number of bytes that were not in the set before.
    pub(crate) fn insert(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let mut start = range.start;
        let mut end = range.end;
        let mut covered = 0;
        // Every range that overlaps or touches is swallowed; the last of them may begin at `end`.
        while let Some((&s, &e)) = self.ranges.range(..=end).next_back() {
            if e < start {
                break;
            }
            self.ranges.remove(&s);
            covered += e - s;
            start = start.min(s);
            end = end.max(e);
        }
        self.ranges.insert(start, end);
        let added = (end - start) - covered;
        self.bytes += added;
        added
    }

    /// Takes `range` out; gives the number of bytes that were in the set before.
    pub(crate) fn remove(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let mut removed = 0;
        while let Some((&s, &e)) = self.ranges.range(..range.end).next_back() {
            if e <= range.start {
                break;
            }
            self.ranges.remove(&s);
            if e > range.end {
                self.ranges.insert(range.end, e);
            }
            if s < range.start {
                self.ranges.insert(s, range.start);
            }
            removed += e.min(range.end) - s.max(range.start);
        }
        self.bytes -= removed;
        removed
    }

    /// Is every byte of `range` in the set?
    pub(crate) fn contains(&self, range: &Range<u64>) -> bool {
        range.is_empty()
            || self
                .ranges
                .range(..=range.start)
                .next_back()
                .is_some_and(|(_, &end)| end >= range.end)
    }

    /// The range that ends at `end`, or goes on beyond it.
    pub(crate) fn up_to(&self, end: u64) -> Option<Range<u64>> {
        let (&start, &last) = self.ranges.range(..end).next_back()?;
        (last >= end).then_some(start..last)
    }

    /// The parts of the set inside `range`, in rising order.
    pub(crate) fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first = self
            .ranges
            .range(..=range.start)
            .next_back()
            .map_or(range.start, |(&start, _)| start);
        let bounds = if first <= range.end {
            first..range.end
        } else {
            range.end..range.end
        };
        self.ranges.range(bounds).filter_map(move |(&start, &end)| {
            let part = start.max(range.start)..end.min(range.end);
            (!part.is_empty()).then_some(part)
        })
    }

    /// The set, widened to whole units.
    pub(crate) fn covering(&self, unit: u64) -> Self {
        let widen = |range: Range<u64>| {
            let end = range.end.div_ceil(unit).saturating_mul(unit);
            range.start - range.start % unit..end
        };
        self.iter().map(widen).collect()
    }

    /// All ranges, in rising order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }

    /// The end of the last range, 0 if there is none.
    #[cfg(test)]
    pub(crate) fn end(&self) -> u64 {
        self.ranges.last_key_value().map_or(0, |(_, &end)| end)
    }
}

impl Extend<Range<u64>> for RangeSet {
    fn extend<T: IntoIterator<Item = Range<u64>>>(&mut self, ranges: T) {
        for range in ranges {
            self.insert(range);
        }
    }
}

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<T: IntoIterator<Item = Range<u64>>>(ranges: T) -> Self {
        let mut set = Self::default();
        set.extend(ranges);
        set
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "small numbers")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn touching_ranges_join() {
        let mut set = RangeSet::default();
        assert_eq!(set.insert(0..10), 10);
        assert_eq!(set.insert(20..30), 10);
        assert_eq!(set.insert(10..20), 10);
        assert_eq!(set.len(), 1);
        assert_eq!(set.remove(5..25), 20);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0..5, 25..30]);
        assert_eq!(set.end(), 30);
    }

    proptest! {
        #[test]
        fn behaves_like_a_bitmap(ops in prop::collection::vec((any::<bool>(), 0u64..200, 0u64..60), 1..60)) {
            let mut set = RangeSet::default();
            let mut model = vec![false; 300];
            for (insert, start, len) in ops {
                let range = start..start + len;
                let slice = &mut model[start as usize..(start + len) as usize];
                let present = slice.iter().filter(|bit| **bit).count() as u64;
                slice.fill(insert);
                if insert {
                    prop_assert_eq!(set.insert(range), len - present);
                } else {
                    prop_assert_eq!(set.remove(range), present);
                }
                prop_assert_eq!(set.bytes(), model.iter().filter(|bit| **bit).count() as u64);
                for probe in (0..260u64).step_by(7) {
                    for width in [0u64, 1, 3, 40] {
                        let slice = &model[probe as usize..(probe + width) as usize];
                        prop_assert_eq!(set.contains(&(probe..probe + width)), slice.iter().all(|bit| *bit));
                        let bytes: u64 = set.overlapping(probe..probe + width).map(|r| r.end - r.start).sum();
                        prop_assert_eq!(bytes, slice.iter().filter(|bit| **bit).count() as u64);
                    }
                }
                let ranges: Vec<_> = set.iter().collect();
                for pair in ranges.windows(2) {
                    prop_assert!(pair[0].end < pair[1].start);
                }
            }
        }
    }
}
