//! A set of the packets of one window, by their place in the transmit queue.
//!
//! The machine: four words, in which the place of a packet is the place of its bit. Finding, comparing and moving the
//! whole window costs four steps each, whatever is in it.

use crate::proto::SackTable;

/// Places 0 to 255, each in the set or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits([u64; WORDS]);

impl Bits {
    /// The packets that an ACK says are here.
    pub(super) fn received(table: &SackTable) -> Self {
        Self(*table.words())
    }

    /// The first `count` places.
    pub(super) fn below(count: usize) -> Self {
        let mut words = [0; WORDS];
        for (word, from) in words.iter_mut().zip((0..).step_by(64)) {
            *word = match count.saturating_sub(from) {
                0 => 0,
                some @ 1..64 => (1 << some) - 1,
                _ => u64::MAX,
            };
        }
        Self(words)
    }

    pub(super) fn contains(&self, place: usize) -> bool {
        self.0
            .get(place / 64)
            .is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    pub(super) fn insert(&mut self, place: usize) {
        if let Some(word) = self.0.get_mut(place / 64) {
            *word |= 1 << (place % 64);
        }
    }

    pub(super) fn remove(&mut self, place: usize) {
        if let Some(word) = self.0.get_mut(place / 64) {
            *word &= !(1 << (place % 64));
        }
    }

    /// The lowest place in the set.
    pub(super) fn lowest(&self) -> Option<usize> {
        (0..)
            .step_by(64)
            .zip(&self.0)
            .find(|(_, word)| **word != 0)
            .map(|(from, word): (usize, _)| from + word.trailing_zeros() as usize)
    }

    /// The highest place in the set.
    pub(super) fn highest(&self) -> Option<usize> {
        (0..WORDS * 64)
            .step_by(64)
            .zip(&self.0)
            .rev()
            .find(|(_, word)| **word != 0)
            .map(|(from, word)| from + 63 - word.leading_zeros() as usize)
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    pub(super) fn and(mut self, other: Self) -> Self {
        self.0
            .iter_mut()
            .zip(other.0)
            .for_each(|(word, other)| *word &= other);
        self
    }

    pub(super) fn without(mut self, other: Self) -> Self {
        self.0
            .iter_mut()
            .zip(other.0)
            .for_each(|(word, other)| *word &= !other);
        self
    }

    /// The first `count` packets have left the queue: all others move up.
    pub(super) fn advance(&mut self, count: usize) {
        let (whole, part) = (count / 64, count % 64);
        let mut words = [0; WORDS];
        for (index, word) in words.iter_mut().enumerate() {
            let low = self.0.get(index + whole).copied().unwrap_or(0);
            let high = self.0.get(index + whole + 1).copied().unwrap_or(0);
            // By 64 - part, which may be 64.
            *word = low >> part | (high << 1) << (63 - part);
        }
        self.0 = words;
    }
}

impl Iterator for Bits {
    type Item = usize;

    /// Takes the lowest place out of the set.
    fn next(&mut self) -> Option<usize> {
        let place = self.lowest()?;
        self.remove(place);
        Some(place)
    }
}

const WORDS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(places: &[usize]) -> Bits {
        let mut bits = Bits::default();
        places.iter().for_each(|place| bits.insert(*place));
        bits
    }

    #[test]
    fn finds_and_counts() {
        let bits = of(&[3, 64, 130, 255]);
        assert_eq!(
            (bits.lowest(), bits.highest(), bits.len()),
            (Some(3), Some(255), 4)
        );
        assert_eq!(bits.collect::<Vec<_>>(), [3, 64, 130, 255]);
        assert!(bits.contains(64) && !bits.contains(65) && !bits.contains(300));
        assert_eq!(
            (Bits::default().lowest(), Bits::default().highest()),
            (None, None)
        );
        assert!(Bits::default().is_empty());
    }

    #[test]
    fn moves_up_by_any_count() {
        for count in [0, 1, 63, 64, 65, 128, 200, 256, 300] {
            let mut bits = of(&[0, 1, 63, 64, 127, 128, 200, 255]);
            let expected: Vec<_> = bits.filter_map(|place| place.checked_sub(count)).collect();
            bits.advance(count);
            assert_eq!(bits.collect::<Vec<_>>(), expected, "{count}");
        }
    }

    #[test]
    fn below_is_what_lies_below() {
        for count in [0, 1, 63, 64, 65, 200, 255, 256, 1000] {
            assert_eq!(Bits::below(count).len(), count.min(256));
            assert_eq!(Bits::below(count).highest(), count.min(256).checked_sub(1));
        }
        assert_eq!(of(&[1, 70, 200]).and(Bits::below(100)), of(&[1, 70]));
        assert_eq!(of(&[1, 70, 200]).without(Bits::below(70)), of(&[70, 200]));
    }
}
