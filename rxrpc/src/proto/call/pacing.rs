//! Pacing: the packets of a window spread over the round trip.
//!
//! The machine: each packet costs its share of the round trip, a little less than even so that the congestion window stays
//! what limits the call. Packets leave in bursts worth about two milliseconds, since timers are no finer than one; after a
//! burst the call holds still until that is paid. A sender that was quiet, or whose timer was late, has a small
//! credit. Where the round trip is short nothing is ever held back.

use std::time::{Duration, Instant};

use crate::proto::congestion::Congestion;
use crate::proto::rtt::RttEstimator;

/// When a call may send again.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    /// What was sent so far is paid then.
    paid_at: Option<Instant>,
    /// Until then nothing may leave.
    held_until: Option<Instant>,
}

/// How fast packets may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// For one packet.
    interval: Duration,
    /// For one burst.
    burst: Duration,
}

impl Pace {
    /// `None` if there is no need to hold packets back.
    pub(super) fn of(congestion: &Congestion, rtt: &RttEstimator) -> Option<Self> {
        if rtt.least()? < PACED_FROM {
            return None;
        }
        let percent = if congestion.is_slow_start() {
            SLOW_START_PERCENT
        } else {
            AVOIDANCE_PERCENT
        };
        let interval = rtt.smoothed()? * 100 / (percent * congestion.window().max(1));
        let burst = BURST.clamp(interval * BURST_LEAST, interval * BURST_MOST);
        Some(Self { interval, burst })
    }
}

impl Pacing {
    /// True if a packet may leave at `now`.
    pub(super) fn allows(&self, now: Instant) -> bool {
        self.held_until.is_none_or(|at| at <= now)
    }

    /// A packet has left at `now`.
    pub(super) fn on_sent(&mut self, pace: Option<Pace>, now: Instant) {
        let Some(Pace { interval, burst }) = pace else {
            *self = Self::default();
            return;
        };
        let credit = burst.max(interval * CREDIT);
        let earliest = now.checked_sub(credit).unwrap_or(now);
        let paid_at = self.paid_at.map_or(earliest, |at| at.max(earliest)) + interval;
        self.paid_at = Some(paid_at);
        self.held_until = (paid_at >= now + burst).then_some(paid_at);
    }

    /// When the next packet may leave, if it may not at `now`.
    pub(super) fn held_until(&self, now: Instant) -> Option<Instant> {
        self.held_until.filter(|at| *at > now)
    }
}

/// Below this a window is a burst that every queue on the way can take.
const PACED_FROM: Duration = Duration::from_millis(4);
/// As Linux paces TCP: in slow start the next window is twice as large.
const SLOW_START_PERCENT: u32 = 200;
const AVOIDANCE_PERCENT: u32 = 125;
const BURST: Duration = Duration::from_millis(2);
const BURST_LEAST: u32 = 2;
const BURST_MOST: u32 = 64;
/// Packets that a quiet sender may send at once beyond a burst: a first window.
const CREDIT: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn start() -> Instant {
        Instant::now()
    }

    fn measured(start: Instant, round_trip: Duration) -> RttEstimator {
        let mut rtt = RttEstimator::default();
        rtt.sample(start, round_trip);
        rtt
    }

    /// A window of 100 packets in avoidance.
    fn window() -> Congestion {
        let mut congestion = Congestion::new(None);
        congestion.on_acked(190, 190, true);
        congestion.on_loss(1, 191, 191);
        congestion
    }

    /// Sends all it may for a time, each timer late by `late`; gives how many packets, and the largest burst.
    fn sent_in(time: Duration, late: Duration, pace: Option<Pace>) -> (u32, u32) {
        let (mut pacing, start) = (Pacing::default(), start());
        let (mut now, mut sent, mut largest) = (start, 0, 0);
        while now < start + time {
            let mut burst = 0;
            while pacing.allows(now) && burst < 1000 {
                pacing.on_sent(pace, now);
                burst += 1;
            }
            sent += burst;
            largest = largest.max(burst);
            now = pacing.held_until(now).unwrap_or(now + MS) + late;
        }
        (sent, largest)
    }

    #[test]
    fn a_window_takes_a_round_trip_in_small_bursts() {
        let pace = Pace::of(&window(), &measured(start(), 100 * MS));
        for late in [0, 1] {
            let (sent, largest) = sent_in(1000 * MS, late * MS, pace);
            assert!((1240..=1275).contains(&sent), "{sent}: 125 % of the window");
            assert!(largest <= 13, "{largest}");
        }
    }

    #[test]
    fn a_short_round_trip_holds_nothing_back() {
        assert_eq!(Pace::of(&window(), &RttEstimator::default()), None);
        assert_eq!(Pace::of(&window(), &measured(start(), 3 * MS)), None);
        let (mut pacing, now) = (Pacing::default(), start());
        for _ in 0..10_000 {
            assert!(pacing.allows(now));
            pacing.on_sent(None, now);
        }
        let mut rtt = measured(now, MS);
        rtt.sample(now, 500 * MS);
        assert_eq!(
            Pace::of(&window(), &rtt),
            None,
            "a busy machine does not make the path long"
        );
    }

    #[test]
    fn slow_start_may_double() {
        let congestion = Congestion::new(None);
        let pace = Pace::of(&congestion, &measured(start(), 100 * MS));
        let (sent, largest) = sent_in(1000 * MS, Duration::ZERO, pace);
        assert!((200..=212).contains(&sent), "{sent}: twice the window of ten");
        assert!(largest <= 12, "{largest}");
    }
}
