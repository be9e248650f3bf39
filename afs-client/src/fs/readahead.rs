//! What is fetched ahead of a reader.
//!
//! The machine: who goes on where they were, and leaves out no more than they read, reads in sequence. What is kept ahead
//! of them begins small and doubles as they go on, until it is what the server's pace needs ([`Aim`]). Who jumps gets what
//! they ask for and nothing more, until they go on from there. Nothing here has a clock, and nothing is fetched here.

use std::ops::Range;

use crate::server::Aim;

/// How somebody reads a file that they have opened.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Where the sequence began.
    from: u64,
    /// Where it goes on.
    end: u64,
    /// Bytes asked for since it began.
    asked: u64,
    /// To where was fetched, or is being.
    ahead: u64,
    /// How much is kept ahead; nothing of one who has jumped.
    window: u64,
    /// In pieces of so many bytes.
    unit: u64,
}

impl Reader {
    /// Notes a read, and gives what to fetch ahead of it now. It may overlap what is here or under way. `aim` is asked when
    /// there may be something to fetch.
    pub(crate) fn note(&mut self, read: &Range<u64>, aim: impl FnOnce() -> Aim) -> Option<Range<u64>> {
        let len = read.end - read.start;
        let near = len.saturating_mul(OVERTAKEN).clamp(NEAR, NEAR_MAX);
        let is_near =
            read.start <= self.end.saturating_add(near) && read.end.saturating_add(near) >= self.end;
        let asked = self.asked.saturating_add(len);
        let (from, end) = (self.from.min(read.start), self.end.max(read.end));
        // Whoever leaves out more than they read is no reader of all of it.
        if !is_near || asked < (end - from) / 2 {
            *self = Self {
                from: read.start,
                end: read.end,
                asked: len,
                ahead: read.end,
                window: 0,
                unit: 0,
            };
            return None;
        }
        (self.from, self.asked, self.end) = (from, asked, end);
        self.ahead = self.ahead.max(end);
        if self.window > 0 && self.end.saturating_add(self.window) < self.ahead.saturating_add(self.unit) {
            // There is enough.
            return None;
        }
        let aim = aim();
        self.window = if self.window == 0 {
            FIRST
        } else {
            (self.window * 2).min(aim.window.max(FIRST))
        };
        self.unit = aim.unit;
        let want = self.ahead..self.end.saturating_add(self.window).max(self.ahead);
        self.ahead = want.end;
        (!want.is_empty()).then_some(want)
    }

    /// Does somebody read in sequence?
    pub(crate) const fn is_sequential(&self) -> bool {
        self.window > 0
    }

    /// The pieces in which to fetch ahead.
    pub(crate) const fn unit(&self) -> u64 {
        self.unit
    }

    /// Is there still use for what is to be fetched ahead?
    pub(crate) const fn wants(&self, range: &Range<u64>) -> bool {
        range.start < self.ahead && self.end < range.end
    }

    /// The file is not read any more. Bytes that were fetched ahead, as its length is, and were not read.
    pub(crate) fn leave(&mut self, len: u64) -> u64 {
        let unused = self.ahead.min(len).saturating_sub(self.end);
        self.ahead = self.end;
        self.window = 0;
        unused
    }
}

/// The unit in which a read is fetched that is no part of a sequence: no more than twice of what it asks for.
pub(crate) fn unit_of(read: &Range<u64>) -> u64 {
    let len = read.end - read.start;
    len.clamp(PAGE, SCATTERED_MAX).next_power_of_two()
}

/// What is kept ahead of somebody who has begun to read.
const FIRST: u64 = 1 << 20;
/// The kernel asks for more than one part at a time, and they overtake one another: so far, or by so many parts.
const NEAR: u64 = 512 << 10;
const OVERTAKEN: u64 = 2;
/// No part is larger than 1 MiB.
const NEAR_MAX: u64 = OVERTAKEN << 20;
const PAGE: u64 = 4096;
const SCATTERED_MAX: u64 = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const AIM: Aim = Aim {
        window: 12 << 20,
        unit: 1 << 20,
    };
    const PART: u64 = 128 << 10;

    /// Reads so many parts one after the other; bytes fetched ahead.
    fn parts(reader: &mut Reader, from: u64, count: u64) -> u64 {
        let parts = (0..count).map(|part| from + part * PART..from + (part + 1) * PART);
        let ahead = parts.filter_map(|part| reader.note(&part, || AIM));
        ahead.map(|range| range.end - range.start).sum()
    }

    #[test]
    fn the_window_grows_with_the_reader() {
        let mut reader = Reader::default();
        assert_eq!(parts(&mut reader, 0, 1), FIRST, "who begins gets little");
        parts(&mut reader, PART, 7);
        assert!(reader.window < AIM.window);
        parts(&mut reader, 8 * PART, 200);
        assert_eq!(reader.window, AIM.window);
        let left = reader.ahead - reader.end;
        assert!((AIM.window - AIM.unit..=AIM.window).contains(&left), "{left}");
    }

    #[test]
    fn each_byte_is_fetched_ahead_once() {
        let (mut reader, mut at) = (Reader::default(), 0..PART);
        let mut ahead = 0..PART;
        for _ in 0..500 {
            if let Some(more) = reader.note(&at, || AIM) {
                assert!(more.start == ahead.end, "{more:?} after {ahead:?}");
                ahead.end = more.end;
            }
            assert!(ahead.end >= at.end + PART, "there is always something ahead");
            at = at.end..at.end + PART;
        }
    }

    #[test]
    fn who_jumps_gets_nothing_ahead() {
        let mut reader = Reader::default();
        let mut place = 1_u64 << 30;
        for _ in 0..1000 {
            place = place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24;
            // Once in a while two of them lie side by side by chance.
            let at = (place << 22) + (3 << 20);
            assert_eq!(reader.note(&(at..at + PAGE), || AIM), None);
        }
        assert!(!reader.is_sequential());
        let at = reader.end;
        assert!(
            reader.note(&(at..at + PAGE), || AIM).is_some(),
            "and goes on from there"
        );
    }

    #[test]
    fn who_leaves_out_most_gets_little() {
        let mut reader = Reader::default();
        let strides = (0..10_000).map(|number| number * 256 * PAGE / 4..);
        let ahead: u64 = strides
            .filter_map(|from| reader.note(&(from.start..from.start + PAGE), || AIM))
            .map(|range| range.end - range.start)
            .sum();
        assert!(ahead <= 2 * FIRST, "{ahead}");
    }

    #[test]
    fn parts_may_overtake_one_another() {
        for size in [PART, 1 << 20] {
            let mut reader = Reader::default();
            for part in 0..100 {
                let part = part ^ 1;
                reader.note(&(part * size..(part + 1) * size), || AIM);
            }
            assert_eq!(reader.window, AIM.window, "{size}");
            assert!(reader.wants(&(reader.end + PART..reader.end + 2 * PART)));
            assert_eq!(reader.leave(reader.end + PART), PART);
            assert!(!reader.wants(&(reader.end + PART..reader.end + 2 * PART)));
            assert_eq!(reader.leave(reader.end + PART), 0);
        }
    }

    #[test]
    fn scattered_reads_fetch_what_they_ask_for() {
        assert_eq!(unit_of(&(0..1)), PAGE);
        assert_eq!(unit_of(&(PAGE..3 * PAGE)), 2 * PAGE);
        assert_eq!(unit_of(&(0..5 * PAGE)), 8 * PAGE);
        assert_eq!(unit_of(&(0..1 << 40)), SCATTERED_MAX);
    }
}
