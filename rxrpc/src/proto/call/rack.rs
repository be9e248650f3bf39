//! Which transmissions are lost: RACK (RFC 8985), by serial and time.
//!
//! The machine: of all that has arrived the transmission sent last is remembered, with the time it took. What was sent
//! before it and has not arrived within that time and a reordering window is lost. The window is nothing until the path is
//! seen to reorder, as soon as three packets have overtaken a missing one; else it is a quarter of the least round
//! trip, and more for each round trip in which an ACK says that something was sent twice for nothing (reason DUPLICATE,
//! the DSACK of Rx). Every sending has an order of its own, so a packet sent again is judged like any other.

use std::time::{Duration, Instant};

use super::flights::Flight;
use crate::proto::Seq;
use crate::proto::rtt::RttEstimator;

/// What the arrivals so far tell of losses.
#[derive(Debug)]
pub(super) struct Rack {
    newest: Option<Newest>,
    /// The highest packet that has arrived.
    highest: Seq,
    /// A packet has arrived after a higher one, and not because it was sent again.
    reordered: bool,
    /// Quarters of the least round trip in the reordering window.
    quarters: u32,
    /// Episodes of loss until they are one again.
    persist: u32,
    /// What was sent up to here is of a round trip in which the window has been widened.
    widened_at: u64,
}

/// The transmission sent last of those that have arrived.
#[derive(Clone, Copy, Debug)]
struct Newest {
    order: u64,
    at: Instant,
    /// How long it took to be heard of.
    took: Duration,
}

impl Rack {
    pub(super) fn new() -> Self {
        Self {
            newest: None,
            highest: Seq(0),
            reordered: false,
            quarters: 1,
            persist: 0,
            widened_at: 0,
        }
    }

    /// The order of the newest arrival, 0 before the first.
    pub(super) fn newest(&self) -> u64 {
        self.newest.map_or(0, |newest| newest.order)
    }

    /// A transmission has arrived, as an ACK says at `now`; `once`: the packet was not sent twice.
    pub(super) fn on_arrival(&mut self, flight: Flight, once: bool, now: Instant) {
        if flight.seq.after(self.highest) {
            self.highest = flight.seq;
        } else if once && flight.seq.before(self.highest) {
            self.reordered = true;
        }
        if flight.order > self.newest() {
            self.newest = Some(Newest {
                order: flight.order,
                at: flight.at,
                took: now.saturating_duration_since(flight.at),
            });
        }
    }

    /// An ACK says that something was sent twice for nothing, when `sent` transmissions had been made.
    pub(super) fn on_duplicate(&mut self, sent: u64) {
        if self.newest() >= self.widened_at {
            self.quarters = (self.quarters + 1).min(QUARTERS_MAX);
            self.persist = PERSIST;
            self.widened_at = sent + 1;
        }
    }

    /// An episode of loss is over.
    pub(super) fn on_recovered(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.quarters = 1;
        }
    }

    /// How much later than its successors a packet may come. `hasty`: losses are being repaired, or so many have overtaken
    /// that one is likely.
    pub(super) fn reordering_window(&self, hasty: bool, rtt: &RttEstimator) -> Duration {
        if hasty && !self.reordered {
            return Duration::ZERO;
        }
        let took = self.newest.map_or(Duration::ZERO, |newest| newest.took);
        let least = rtt.least().unwrap_or(took);
        (least * self.quarters / 4).min(rtt.smoothed().unwrap_or(took))
    }

    /// True if something sent later has arrived.
    pub(super) fn is_overtaken(&self, flight: &Flight) -> bool {
        flight.order < self.newest()
    }

    /// True if a transmission has had its time.
    pub(super) fn is_overdue(&self, flight: &Flight, window: Duration, now: Instant) -> bool {
        let took = self.newest.map_or(Duration::ZERO, |newest| newest.took);
        flight.at + took + window <= now
    }

    /// When all that was overtaken is overdue.
    pub(super) fn reordering_ends(&self, window: Duration) -> Option<Instant> {
        self.newest.map(|newest| newest.at + newest.took + window)
    }
}

/// So many packets beyond a missing one make it likely that it is lost (RFC 5681).
pub(super) const OVERTAKING: usize = 3;
/// Episodes for which the window stays wide (RFC 8985, section 6.2).
const PERSIST: u32 = 16;
/// Beyond this the smoothed round trip limits the window in any case.
const QUARTERS_MAX: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Serial;

    const MS: Duration = Duration::from_millis(1);

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn start() -> Instant {
        Instant::now()
    }

    fn flight(order: u32, at: Instant) -> Flight {
        Flight {
            seq: Seq(order),
            serial: Serial(order),
            order: order.into(),
            at,
        }
    }

    fn rtt(least: Duration) -> RttEstimator {
        let mut rtt = RttEstimator::default();
        rtt.sample(start(), least);
        rtt
    }

    #[test]
    fn the_window_waits_for_signs_of_reordering() {
        let (mut rack, rtt, start) = (Rack::new(), rtt(40 * MS), start());
        rack.on_arrival(flight(5, start), true, start + 40 * MS);
        assert_eq!(rack.reordering_window(false, &rtt), 10 * MS);
        assert_eq!(rack.reordering_window(true, &rtt), Duration::ZERO);
        rack.on_arrival(flight(4, start), false, start + 41 * MS);
        assert_eq!(rack.reordering_window(true, &rtt), Duration::ZERO, "sent again");
        rack.on_arrival(flight(3, start), true, start + 42 * MS);
        assert_eq!(rack.reordering_window(true, &rtt), 10 * MS, "it came late");
    }

    #[test]
    fn the_window_widens_once_a_round_trip_and_narrows_in_the_end() {
        let (mut rack, rtt, start) = (Rack::new(), rtt(40 * MS), start());
        let window = |rack: &Rack| rack.reordering_window(false, &rtt);
        rack.on_duplicate(10);
        rack.on_duplicate(12);
        assert_eq!(window(&rack), 20 * MS);
        rack.on_arrival(flight(11, start), true, start + 40 * MS);
        rack.on_duplicate(20);
        assert_eq!(window(&rack), 30 * MS);
        for round in 2..99 {
            rack.on_arrival(flight(round * 20, start), true, start + 40 * MS);
            rack.on_duplicate(u64::from(round) * 20);
        }
        assert_eq!(window(&rack), 40 * MS, "never beyond the round trip");
        for _ in 0..15 {
            rack.on_recovered();
        }
        assert_eq!(window(&rack), 40 * MS);
        rack.on_recovered();
        assert_eq!(window(&rack), 10 * MS);
    }

    #[test]
    fn overtaken_and_overdue() {
        let (mut rack, start) = (Rack::new(), start());
        assert!(!rack.is_overtaken(&flight(1, start)));
        rack.on_arrival(flight(3, start + 2 * MS), true, start + 42 * MS);
        let (first, later) = (flight(2, start + MS), flight(4, start + 3 * MS));
        assert!(rack.is_overtaken(&first) && !rack.is_overtaken(&later));
        assert!(!rack.is_overdue(&first, 10 * MS, start + 50 * MS));
        assert!(rack.is_overdue(&first, 10 * MS, start + 51 * MS));
        assert_eq!(rack.reordering_ends(10 * MS), Some(start + 52 * MS));
    }
}
