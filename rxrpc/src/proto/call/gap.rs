//! How often a gap in what has come is shown to its sender.
//!
//! The machine: a sender of OpenAFS takes a packet for lost when three ACKs in a row have shown packets beyond a gap, or one
//! has shown three. From then on each second ACK that shows the same gap halves its window anew, down to two packets
//! (rxrpc.md 8.3). So a gap is shown with every packet until that sender must have understood, and then is silent until it
//! is filled. Who has had more packets under way in a call than OpenAFS ever has is no OpenAFS and is told of each: ACKs are
//! what its next packets wait for. When the sender falls silent before the gap is filled, what was shown or what was sent again is lost:
//! the gap is shown again. A service shows every packet, because older clients of Linux count the ACKs and not what they show.

/// The gap before the first packet that is missing, if one is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gap {
    /// What a sender of OpenAFS has counted of it.
    nacks: u8,
    /// It is being shown again.
    again: bool,
    /// The sender is no OpenAFS.
    is_other: bool,
}

impl Gap {
    /// A packet has come beyond the gap, where there are `beyond` now: should the sender know at once?
    pub(super) fn is_to_be_shown(&mut self, beyond: usize) -> bool {
        self.is_other |= beyond >= SENT_MAX;
        self.nacks < NACKS || self.is_other
    }

    /// What was missing has come.
    pub(super) fn close(&mut self) {
        *self = Self {
            is_other: self.is_other,
            ..Self::default()
        };
    }

    /// An ACK has left that shows `beyond` packets beyond the gap. True if another is to follow.
    pub(super) fn on_shown(&mut self, beyond: usize) -> bool {
        if beyond == 0 {
            return false;
        }
        self.nacks = self.nacks.saturating_add(1);
        if self.again {
            self.again = self.nacks < NACKS;
            return self.again;
        }
        self.nacks = self.nacks.max(u8::try_from(beyond).unwrap_or(u8::MAX));
        false
    }

    /// Nothing has come for a while. What a sender that has understood needs are two: with the first it takes note of what
    /// has come since, with the second it sends again.
    pub(super) fn show_again(&mut self) {
        self.again = self.nacks > 0;
        self.nacks = self.nacks.min(NACKS - 2);
    }
}

/// OpenAFS `rx_nackThreshold`.
const NACKS: u8 = 3;
/// OpenAFS `rx_maxSendWindow`.
const SENT_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `packets` that come beyond a gap one by one are told at once.
    fn told(gap: &mut Gap, packets: usize) -> usize {
        let shown = (1..=packets).filter(|beyond| {
            let shown = gap.is_to_be_shown(*beyond);
            assert!(!(shown && gap.on_shown(*beyond)));
            shown
        });
        shown.count()
    }

    #[test]
    fn a_gap_is_shown_until_openafs_has_understood() {
        let told = |packets| told(&mut Gap::default(), packets);
        assert_eq!(told(1), 1);
        assert_eq!(told(2), 2);
        assert_eq!(told(3), 3);
        assert_eq!(told(31), 3, "all that OpenAFS sends beyond it");
        let mut gap = Gap::default();
        gap.on_shown(9);
        assert!(!gap.is_to_be_shown(10), "one ACK may show enough");
    }

    #[test]
    fn who_sends_more_than_openafs_is_told_of_each_from_then_on() {
        let mut gap = Gap::default();
        assert_eq!(told(&mut gap, 100), 3 + 69);
        gap.close();
        assert_eq!(told(&mut gap, 20), 20);
    }

    #[test]
    fn it_is_shown_again_as_often_as_it_takes() {
        let again = |before: &[usize]| {
            let mut gap = Gap::default();
            before.iter().for_each(|beyond| assert!(!gap.on_shown(*beyond)));
            gap.show_again();
            let last = *before.last().unwrap();
            let acks = 1 + (0..9).take_while(|_| gap.on_shown(last)).count();
            assert!(!gap.is_to_be_shown(last + 1));
            acks
        };
        assert_eq!(again(&[1]), 2, "three in all");
        assert_eq!(again(&[1, 2]), 2);
        assert_eq!(again(&[4]), 2);
        let mut gap = Gap::default();
        gap.show_again();
        assert!(!gap.on_shown(0), "there is none");
    }
}
