//! How many packets of a call may be under way.
//!
//! The machine: a window in packets that opens by one for each packet acknowledged (slow start) until it reaches the
//! threshold, and by one for each window from there on (avoidance). The first loss of an episode halves it; further losses
//! of packets that were sent before then belong to the same episode, which ends when a packet sent later arrives. A timeout
//! closes the window to one packet. A reduction whose every cause has proved to be no loss is taken back. These are
//! the rules of RFC 9002, section 7, counted in packets, with the undoing of RFC 3522.
//!
//! On a path that loses a share `p` of the packets such a window is `sqrt(3/2) / sqrt(p)` packets on average (Mathis et
//! al., 1997), and never more than the 255 that an ACK can advertise: a call carries no more than `min(255, 1.22/sqrt(p))`
//! packets in each round trip, and `benches/wan.rs` shows how much of that it does carry. CUBIC (RFC 9438) would open
//! the window further only where the round trip is longer than `1.22 p^(1/3)` seconds, as 56 ms with `p` = 0.01 %: between
//! there and the limit of 255 there is hardly room, so the simpler rule stands. Whoever needs more than one call carries
//! makes several.

/// The congestion window of one call.
#[derive(Clone, Debug)]
pub(crate) struct Congestion {
    window: u32,
    threshold: u32,
    /// Packets acknowledged towards the next opening in avoidance.
    credit: u32,
    /// Transmissions up to this one left before the window was last reduced.
    episode: u64,
    /// Nothing sent after the reduction has arrived.
    recovering: bool,
    undo: Option<Undo>,
}

/// What a reduction took away, while it may still prove to have had no cause.
#[derive(Clone, Copy, Debug)]
struct Undo {
    window: u32,
    threshold: u32,
    /// Packets taken for lost in this episode that were not found to have arrived.
    missing: u32,
}

/// What a call hands on to the next one on its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    window: u32,
    threshold: u32,
}

impl Congestion {
    /// The window of a new call; `seen` is what the last call on the same path found.
    #[must_use]
    pub(crate) fn new(seen: Option<Seen>) -> Self {
        let seen = seen.unwrap_or(Seen {
            window: WINDOW_FIRST,
            threshold: WINDOW_MAX,
        });
        Self {
            window: seen.window.clamp(WINDOW_FIRST, WINDOW_INHERITED_MAX),
            threshold: seen.threshold.max(WINDOW_INHERITED_MAX),
            credit: 0,
            episode: 0,
            recovering: false,
            undo: None,
        }
    }

    /// What it has found.
    #[must_use]
    pub(crate) fn seen(&self) -> Seen {
        Seen {
            window: self.window,
            // Where the window has been since the last loss it may be again.
            threshold: self.threshold.max(self.window),
        }
    }

    /// Packets that may be under way.
    #[must_use]
    pub(crate) const fn window(&self) -> u32 {
        self.window
    }

    /// True while the window doubles with each round trip.
    #[must_use]
    pub(crate) const fn is_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    /// True until a packet that was sent after the last reduction arrives.
    #[must_use]
    pub(crate) const fn is_recovering(&self) -> bool {
        self.recovering
    }

    /// The transmission at which the present episode began.
    #[must_use]
    pub(crate) const fn episode(&self) -> u64 {
        self.episode
    }

    /// `packets` were acknowledged, the newest of which was the `newest`-th transmission of the call. True if that ends an
    /// episode.
    ///
    /// `limited` says that the window was what held the sender back: only then may it open.
    pub(crate) fn on_acked(&mut self, packets: u32, newest: u64, limited: bool) -> bool {
        if newest <= self.episode {
            return false;
        }
        let ended = std::mem::take(&mut self.recovering);
        if !limited {
            return ended;
        }
        if self.is_slow_start() {
            self.window = self.window.saturating_add(packets).min(WINDOW_MAX);
        } else {
            self.credit = self.credit.saturating_add(packets);
            if self.credit >= self.window {
                self.credit -= self.window;
                self.window = (self.window + 1).min(WINDOW_MAX);
            }
        }
        ended
    }

    /// `packets` are taken for lost, the newest of which was the `newest`-th transmission, when `sent` had been made. True
    /// if that begins an episode.
    pub(crate) fn on_loss(&mut self, packets: u32, newest: u64, sent: u64) -> bool {
        if newest <= self.episode {
            if let Some(undo) = &mut self.undo {
                undo.missing += packets;
            }
            return false;
        }
        self.reduce(packets, sent, self.window);
        self.window = self.threshold;
        true
    }

    /// The retransmission timer ran out and `packets` are taken for lost, when `sent` transmissions had been made and
    /// `in_flight` were under way. `again`: nothing has come since it ran out before.
    pub(crate) fn on_timeout(&mut self, packets: u32, in_flight: u32, sent: u64, again: bool) {
        if again {
            // What is lost now was sent into a window of one: it says nothing about the larger one.
            self.episode = sent;
            self.undo = None;
        } else {
            self.reduce(packets, sent, in_flight);
        }
        self.window = WINDOW_LOSS;
        self.credit = 0;
        self.recovering = true;
    }

    /// `packets` that were taken for lost in this episode have arrived all the same.
    pub(crate) fn on_unfounded(&mut self, packets: u32) {
        let Some(undo) = &mut self.undo else { return };
        undo.missing = undo.missing.saturating_sub(packets);
        if undo.missing == 0 {
            self.window = self.window.max(undo.window);
            self.threshold = undo.threshold;
            self.recovering = false;
            self.undo = None;
        }
    }

    /// Nothing was sent for `timeouts` retransmission timeouts: what was known of the path fades (RFC 2861, section 3).
    pub(crate) fn on_idle(&mut self, timeouts: u32) {
        if timeouts > 0 && self.window > WINDOW_FIRST {
            self.threshold = self.threshold.max(self.window / 4 * 3);
            self.window = (self.window >> timeouts.min(8)).max(WINDOW_FIRST);
            self.credit = 0;
        }
    }

    fn reduce(&mut self, packets: u32, sent: u64, from: u32) {
        self.undo = Some(Undo {
            window: self.window,
            threshold: self.threshold,
            missing: packets,
        });
        self.threshold = (from / 2).max(WINDOW_MIN);
        self.credit = 0;
        self.episode = sent;
        self.recovering = true;
    }
}

/// RFC 6928, section 2.
const WINDOW_FIRST: u32 = 10;
/// A burst of this size at the start of a call overruns no socket buffer.
const WINDOW_INHERITED_MAX: u32 = 32;
const WINDOW_MIN: u32 = 2;
/// After a timeout.
const WINDOW_LOSS: u32 = 1;
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
        assert!(congestion.on_loss(1, 25, 30));
        assert_eq!(congestion.window(), 10);
        assert!(!congestion.on_loss(1, 28, 33));
        assert_eq!(congestion.window(), 10, "once for each episode");
        assert!(!congestion.on_acked(5, 30, true));
        assert!(congestion.is_recovering());
        assert_eq!(congestion.window(), 10, "sent before the loss was known");
        assert!(congestion.on_acked(9, 40, true), "the episode is over");
        assert_eq!(congestion.window(), 10);
        assert!(!congestion.on_acked(1, 41, true));
        assert_eq!(congestion.window(), 11);
        assert!(congestion.on_loss(1, 42, 50), "and this is another one");
        assert_eq!(congestion.window(), 5);
    }

    #[test]
    fn timeout_closes_to_one() {
        let mut congestion = Congestion::new(None);
        congestion.on_timeout(10, 10, 10, false);
        assert_eq!((congestion.window(), congestion.threshold), (1, 5));
        congestion.on_timeout(1, 1, 11, true);
        assert_eq!(
            (congestion.window(), congestion.threshold),
            (1, 5),
            "one reduction"
        );
        congestion.on_acked(1, 12, true);
        assert_eq!(congestion.window(), 2);
        for sent in 0..20_000 {
            congestion.on_acked(3, 22 + sent, true);
        }
        assert_eq!(congestion.window(), 255);
    }

    #[test]
    fn a_reduction_without_cause_is_taken_back() {
        let mut congestion = Congestion::new(None);
        congestion.on_acked(30, 30, true);
        congestion.on_loss(2, 32, 40);
        congestion.on_loss(1, 33, 42);
        assert_eq!(congestion.window(), 20);
        congestion.on_unfounded(2);
        assert_eq!(congestion.window(), 20, "one is missing");
        congestion.on_unfounded(1);
        assert_eq!(congestion.window(), 40);
        assert!(!congestion.is_recovering() && congestion.is_slow_start());
        congestion.on_unfounded(1);
        assert_eq!(congestion.window(), 40);
        congestion.on_timeout(40, 40, 82, false);
        congestion.on_unfounded(40);
        assert_eq!(congestion.window(), 40, "nor had the timeout one");
    }

    #[test]
    fn silence_fades_the_window_but_not_what_it_was() {
        let mut congestion = Congestion::new(None);
        congestion.on_acked(90, 90, true);
        congestion.on_loss(1, 91, 91);
        congestion.on_idle(0);
        assert_eq!(congestion.window(), 50);
        congestion.on_idle(1);
        assert_eq!((congestion.window(), congestion.threshold), (25, 50));
        congestion.on_idle(u32::MAX);
        assert_eq!((congestion.window(), congestion.threshold), (10, 50));
    }

    #[test]
    fn the_next_call_begins_where_the_last_has_been() {
        let mut congestion = Congestion::new(None);
        assert!(
            Congestion::new(Some(congestion.seen())).is_slow_start(),
            "a short call has met no limit"
        );
        assert_eq!(Congestion::new(Some(congestion.seen())).threshold, 255);
        congestion.on_acked(190, 190, true);
        congestion.on_loss(1, 191, 191);
        let next = Congestion::new(Some(congestion.seen()));
        assert_eq!((next.window(), next.threshold), (32, 100));
    }
}
