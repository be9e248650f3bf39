//! The pages of a backing file in use, as its file system counts them.
//!
//! The machine: contents are in pages, at their own offsets. If they are sealed ([`super::sealed`]), each group of pages has one
//! page more, with their seals, for as long as one of them is in use.

use std::ops::Range;

use super::content::PAGE;
use super::ranges::RangeSet;

/// Bytes of contents whose seals share a page.
pub(super) const GROUP: u64 = 64 * PAGE;

/// Pages in use.
#[derive(Debug, Default)]
pub(super) struct Pages {
    data: RangeSet,
    /// Groups with a page in use, if there are seals.
    groups: RangeSet,
    is_sealed: bool,
}

impl Pages {
    /// These pages.
    pub(super) fn of(pages: RangeSet, is_sealed: bool) -> Self {
        let groups = if is_sealed {
            pages.covering(GROUP)
        } else {
            RangeSet::default()
        };
        Self {
            data: pages,
            groups,
            is_sealed,
        }
    }

    /// The pages of contents.
    pub(super) fn data(&self) -> &RangeSet {
        &self.data
    }

    pub(super) fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Bytes that they take.
    pub(super) fn bytes(&self) -> u64 {
        self.data.bytes() + seal_bytes(self.groups.bytes())
    }

    /// Bytes that `insert` would add.
    pub(super) fn cost(&self, cover: &Range<u64>) -> u64 {
        let new = |set: &RangeSet, range: &Range<u64>| {
            let here: u64 = set
                .overlapping(range.clone())
                .map(|part| part.end - part.start)
                .sum();
            range.end - range.start - here
        };
        let seals = if self.is_sealed {
            seal_bytes(new(&self.groups, &groups(cover)))
        } else {
            0
        };
        new(&self.data, cover) + seals
    }

    /// What of `cover` is not in use.
    pub(super) fn without(&self, cover: &Range<u64>) -> RangeSet {
        let mut new: RangeSet = std::iter::once(cover.clone()).collect();
        for part in self.data.overlapping(cover.clone()) {
            new.remove(part);
        }
        new
    }

    /// Takes pages into use; gives the bytes that are new.
    pub(super) fn insert(&mut self, cover: Range<u64>) -> u64 {
        let seals = if self.is_sealed {
            seal_bytes(self.groups.insert(groups(&cover)))
        } else {
            0
        };
        self.data.insert(cover) + seals
    }

    /// Pages are not in use any more; gives the bytes of those that were.
    pub(super) fn remove(&mut self, cover: Range<u64>) -> u64 {
        let lonely = self.lonely(&cover);
        self.data.remove(cover) + seal_bytes(self.groups.remove(lonely))
    }

    /// The groups that have no page in use but those of `cover`.
    pub(super) fn lonely(&self, cover: &Range<u64>) -> Range<u64> {
        if !self.is_sealed {
            return cover.start..cover.start;
        }
        let all = groups(cover);
        let is_used = |range: Range<u64>| self.data.overlapping(range).next().is_some();
        let start = if is_used(all.start..cover.start) {
            all.start + GROUP
        } else {
            all.start
        };
        let end = if is_used(cover.end..all.end) {
            all.end - GROUP
        } else {
            all.end
        };
        start..end.max(start)
    }

    /// None is in use any more; gives the bytes of those that were.
    pub(super) fn clear(&mut self) -> u64 {
        let bytes = self.bytes();
        *self = Self::of(RangeSet::default(), self.is_sealed);
        bytes
    }
}

/// What a page of seals takes, for each group.
fn seal_bytes(groups: u64) -> u64 {
    groups / (GROUP / PAGE)
}

/// `range`, widened to whole groups. An end without a limit stays so.
fn groups(range: &Range<u64>) -> Range<u64> {
    range.start - range.start % GROUP..range.end.div_ceil(GROUP).saturating_mul(GROUP)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_group_costs_a_page_while_one_of_its_pages_is_in_use(
            ops in prop::collection::vec((any::<bool>(), 0u64..300, 0u64..100), 1..60),
        ) {
            let mut pages = Pages::of(RangeSet::default(), true);
            let mut model = vec![false; 500];
            let cost = |model: &[bool]| {
                let groups = model.chunks(64).filter(|group| group.contains(&true)).count();
                (groups + model.iter().filter(|used| **used).count()) as u64 * PAGE
            };
            for (insert, start, len) in ops {
                let before = cost(&model);
                let at = usize::try_from(start).unwrap();
                model[at..at + usize::try_from(len).unwrap()].fill(insert);
                let cover = start * PAGE..(start + len) * PAGE;
                if len == 0 {
                    continue;
                }
                if insert {
                    prop_assert_eq!(pages.cost(&cover), cost(&model) - before);
                    prop_assert_eq!(pages.insert(cover), cost(&model) - before);
                } else {
                    prop_assert_eq!(pages.remove(cover), before - cost(&model));
                }
                prop_assert_eq!(pages.bytes(), cost(&model));
            }
            prop_assert_eq!(pages.remove(0..u64::MAX), cost(&model));
            prop_assert!(pages.is_empty());
        }
    }
}
