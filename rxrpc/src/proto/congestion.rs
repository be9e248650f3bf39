//! How many packets of a call may be under way.
//!
//! The machine: a window in packets that opens by one for each packet acknowledged (slow start) until it reaches the
//! threshold, and by one for each window from there on (avoidance). A loss halves it once for each round of packets; a
//! timeout closes it to one packet. The rules are those of RFC 9002, section 7, counted in packets.

/// The congestion window of one call.
#[derive(Clone, Debug)]
pub(crate) struct Congestion {
    window: u32,
    threshold: u32,
    /// Packets acknowledged towards the next opening in avoidance.
    credit: u32,
    /// Losses of transmissions up to this one belong to a round that has been answered already.
    recovery_until: u64,
}

impl Congestion {
    /// The window of a new call; `seen` is where the last call on the same path ended.
    #[must_use]
    pub(crate) fn new(seen: Option<u32>) -> Self {
        Self {
            window: seen.map_or(WINDOW_FIRST, |seen| {
                seen.clamp(WINDOW_FIRST, WINDOW_INHERITED_MAX)
            }),
            threshold: seen.map_or(WINDOW_MAX, |seen| seen.clamp(WINDOW_INHERITED_MAX, WINDOW_MAX)),
            credit: 0,
            recovery_until: 0,
        }
    }

    /// Packets that may be under way.
    #[must_use]
    pub(crate) const fn window(&self) -> u32 {
        self.window
    }

    /// `packets` were acknowledged, the newest of which was the `newest`-th transmission of the call.
    ///
    /// `limited` says that the window was what held the sender back: only then may it open.
    pub(crate) fn on_acked(&mut self, packets: u32, newest: u64, limited: bool) {
        if !limited || newest <= self.recovery_until {
            return;
        }
        if self.window < self.threshold {
            self.window = self.window.saturating_add(packets).min(WINDOW_MAX);
        } else {
            self.credit = self.credit.saturating_add(packets);
            if self.credit >= self.window {
                self.credit = 0;
                self.window = (self.window + 1).min(WINDOW_MAX);
            }
        }
    }

    /// The `lost`-th transmission is taken for lost, when `sent` had been made.
    pub(crate) fn on_loss(&mut self, lost: u64, sent: u64) {
        if lost <= self.recovery_until {
            return;
        }
        self.threshold = (self.window / 2).max(WINDOW_MIN);
        self.window = self.threshold;
        self.credit = 0;
        self.recovery_until = sent;
    }

    /// The retransmission timer ran out, when `sent` transmissions had been made and `in_flight` were under way.
    pub(crate) fn on_timeout(&mut self, in_flight: u32, sent: u64) {
        self.threshold = (in_flight / 2).max(WINDOW_MIN);
        self.window = 1;
        self.credit = 0;
        self.recovery_until = sent;
    }
}

/// RFC 6928, section 2.
const WINDOW_FIRST: u32 = 10;
/// A burst of this size at the start of a call overruns no socket buffer.
const WINDOW_INHERITED_MAX: u32 = 32;
const WINDOW_MIN: u32 = 2;
/// The largest receive window that an ACK can advertise in effect.
const WINDOW_MAX: u32 = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_slowly_then_by_one_per_window() {
        let mut congestion = Congestion::new(None);
        congestion.on_acked(10, 10, true);
        assert_eq!(congestion.window(), 20);
        congestion.on_acked(10, 20, false);
        assert_eq!(congestion.window(), 20, "the sender had nothing more to send");
        congestion.on_loss(25, 30);
        assert_eq!(congestion.window(), 10);
        congestion.on_loss(28, 33);
        assert_eq!(congestion.window(), 10, "once for each round");
        congestion.on_acked(5, 30, true);
        assert_eq!(congestion.window(), 10, "sent before the loss was known");
        congestion.on_acked(9, 40, true);
        assert_eq!(congestion.window(), 10);
        congestion.on_acked(1, 41, true);
        assert_eq!(congestion.window(), 11);
    }

    #[test]
    fn timeout_closes_to_one() {
        let mut congestion = Congestion::new(Some(200));
        assert_eq!(congestion.window(), 32);
        congestion.on_timeout(20, 20);
        assert_eq!(congestion.window(), 1);
        congestion.on_acked(1, 21, true);
        assert_eq!(congestion.window(), 2);
        for sent in 0..2000 {
            congestion.on_acked(3, 22 + sent, true);
        }
        assert!(congestion.window() <= 255);
    }
}
