//! Round-trip time and the timeouts that follow from it.
//!
//! The machine: every valid sample moves a smoothed mean and deviation (RFC 6298, section 2) and a minimum over the last
//! minute. A sample is valid if it is the time from one certain transmission, named by its serial, to an ACK that was sent
//! because it arrived; the caller sees to that. The retransmission timeout is the sum of mean and deviation, never below
//! a floor, plus an allowance for the delay with which peers acknowledge; it doubles for each one that runs out.

use std::time::{Duration, Instant};

/// How long packets take to the peer and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrip {
    /// The smoothed mean.
    pub smoothed: Duration,
    /// The smoothed deviation from it.
    pub deviation: Duration,
    /// How long an acknowledgement is waited for.
    pub timeout: Duration,
}

/// The round-trip time of the path to a peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct RttEstimator {
    estimate: Option<Estimate>,
    /// What others have measured on the same way, in microseconds; 0 if nobody has.
    expected_us: u32,
    samples: u32,
    tally: RttTally,
}

/// Samples added up, for counters. In whole microseconds: every connection has one, and it is to be small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RttTally {
    /// How many.
    pub samples: u32,
    total_us: u64,
    /// Of no meaning without samples, like the next.
    least_us: u32,
    greatest_us: u32,
}

impl RttTally {
    /// One sample.
    #[must_use]
    pub fn of(rtt: Duration) -> Self {
        let us = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
        Self {
            samples: 1,
            total_us: us.into(),
            least_us: us,
            greatest_us: us,
        }
    }

    /// The mean, if there are any.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        self.total_us
            .checked_div(self.samples.into())
            .map(Duration::from_micros)
    }

    /// The sum.
    #[must_use]
    pub const fn total(&self) -> Duration {
        Duration::from_micros(self.total_us)
    }

    /// The least and the greatest, zero if there are none.
    #[must_use]
    pub fn range(&self) -> (Duration, Duration) {
        let time = |us: u32| Duration::from_micros(us.into());
        (time(self.least_us), time(self.greatest_us))
    }

    /// Adds the samples of another.
    pub fn add(&mut self, other: &Self) {
        self.least_us = match (self.samples, other.samples) {
            (_, 0) => self.least_us,
            (0, _) => other.least_us,
            _ => self.least_us.min(other.least_us),
        };
        self.greatest_us = self.greatest_us.max(other.greatest_us);
        self.samples = self.samples.wrapping_add(other.samples);
        self.total_us = self.total_us.wrapping_add(other.total_us);
    }
}

#[derive(Clone, Copy, Debug)]
struct Estimate {
    smoothed: Duration,
    deviation: Duration,
    least: Least,
}

/// The minimum over this period and the one before it.
#[derive(Clone, Copy, Debug)]
struct Least {
    began: Instant,
    now: Duration,
    before: Duration,
}

impl RttEstimator {
    /// Takes one sample at `now`: the time from the sending of exactly the packet that an ACK answers to that ACK.
    pub(crate) fn sample(&mut self, now: Instant, rtt: Duration) {
        if rtt > SAMPLE_MAX {
            return;
        }
        self.samples = self.samples.saturating_add(1);
        self.tally.add(&RttTally::of(rtt));
        self.estimate = Some(match self.estimate {
            None => Estimate {
                smoothed: rtt,
                deviation: rtt / 2,
                least: Least {
                    began: now,
                    now: rtt,
                    before: rtt,
                },
            },
            Some(Estimate {
                smoothed,
                deviation,
                least,
            }) => Estimate {
                smoothed: (smoothed * 7 + rtt) / 8,
                deviation: (deviation * 3 + smoothed.abs_diff(rtt)) / 4,
                least: least.after(now, rtt),
            },
        });
    }

    /// The round trip that others have measured: what is waited for as long as there is no sample (RFC 9040, section 2).
    pub(crate) fn expect(&mut self, rtt: Duration) {
        self.expected_us = u32::try_from(rtt.as_micros()).unwrap_or(0);
    }

    /// Mean and deviation as measured, or what they would be after one sample like those of others.
    fn known(&self) -> Option<(Duration, Duration)> {
        let expected = || {
            let rtt = Duration::from_micros(self.expected_us.into());
            (!rtt.is_zero()).then_some((rtt, rtt / 2))
        };
        let measured = self
            .estimate
            .map(|estimate| (estimate.smoothed, estimate.deviation));
        measured.or_else(expected)
    }

    /// The samples since the last look.
    pub(crate) fn take_tally(&mut self) -> RttTally {
        std::mem::take(&mut self.tally)
    }

    /// What was measured.
    #[must_use]
    pub(crate) fn round_trip(&self) -> Option<RoundTrip> {
        self.estimate.map(|estimate| RoundTrip {
            smoothed: estimate.smoothed,
            deviation: estimate.deviation,
            timeout: self.timeout(0, Duration::ZERO),
        })
    }

    /// The smoothed mean.
    #[must_use]
    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.estimate.map(|estimate| estimate.smoothed)
    }

    /// The least of the last minute or so.
    #[must_use]
    pub(crate) fn least(&self) -> Option<Duration> {
        self.estimate
            .map(|Estimate { least, .. }| least.now.min(least.before))
    }

    /// True while more samples are wanted soon.
    #[must_use]
    pub(crate) fn is_young(&self) -> bool {
        self.samples < SAMPLES_WANTED
    }

    /// How long to wait for an acknowledgement, after `backoff` timeouts in a row.
    ///
    /// `extra` is the time that the peer may hold back this particular acknowledgement.
    #[must_use]
    pub(crate) fn timeout(&self, backoff: u32, extra: Duration) -> Duration {
        let base = match self.known() {
            None => FIRST_TIMEOUT,
            Some((smoothed, deviation)) => (smoothed + deviation * 4).max(TIMEOUT_MIN) + ACK_ALLOWANCE,
        };
        (base + extra)
            .saturating_mul(1 << backoff.min(BACKOFF_MAX))
            .min(TIMEOUT_MAX)
    }

    /// How long a stream that does not come to a halt at its sender may be silent: what was sent for the last ACK takes a round
    /// trip.
    #[must_use]
    pub(crate) fn patience(&self) -> Duration {
        self.known().map_or(PATIENCE_FIRST, |(smoothed, deviation)| {
            (smoothed * 3 / 2 + deviation).max(PATIENCE_MIN)
        })
    }

    /// How long the last packets sent may go without an acknowledgement before one is asked for (RFC 8985, section 7.2).
    #[must_use]
    pub(crate) fn probe_timeout(&self, extra: Duration) -> Duration {
        match self.known() {
            None => FIRST_TIMEOUT + extra,
            Some((smoothed, _)) => smoothed * 2 + ACK_ALLOWANCE + extra,
        }
    }
}

impl Least {
    fn after(self, now: Instant, rtt: Duration) -> Self {
        if now.saturating_duration_since(self.began) < LEAST_PERIOD {
            Self {
                now: self.now.min(rtt),
                ..self
            }
        } else {
            Self {
                began: now,
                now: rtt,
                before: self.now,
            }
        }
    }
}

/// Before any sample (RFC 6298, rule 2.1).
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);
const TIMEOUT_MIN: Duration = Duration::from_millis(200);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// Before any sample.
const PATIENCE_FIRST: Duration = Duration::from_millis(200);
/// Services pause, for a disk or a processor.
const PATIENCE_MIN: Duration = Duration::from_millis(20);
/// OpenAFS holds soft acks back by this much (`rx_softAckDelay`).
const ACK_ALLOWANCE: Duration = Duration::from_millis(100);
/// Longer ones are no round trips (OpenAFS ignores them likewise).
const SAMPLE_MAX: Duration = Duration::from_secs(60);
const SAMPLES_WANTED: u32 = 3;
const BACKOFF_MAX: u32 = 7;
/// The minimum is of one to two of these.
const LEAST_PERIOD: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn timeout_starts_at_a_second_and_follows_samples() {
        let (mut rtt, now) = (RttEstimator::default(), now());
        assert_eq!(rtt.timeout(0, Duration::ZERO), 1000 * MS);
        assert_eq!(rtt.probe_timeout(Duration::ZERO), 1000 * MS);
        rtt.sample(now, 10 * MS);
        assert_eq!(rtt.timeout(0, Duration::ZERO), 300 * MS, "floor and allowance");
        assert_eq!(
            rtt.probe_timeout(400 * MS),
            520 * MS,
            "two round trips and allowances"
        );
        rtt.sample(now, Duration::from_secs(61));
        assert_eq!(rtt.round_trip().unwrap().smoothed, 10 * MS, "no round trip");
        for _ in 0..100 {
            rtt.sample(now, 500 * MS);
        }
        let timeout = rtt.timeout(0, Duration::ZERO);
        assert!(timeout > 590 * MS && timeout < 700 * MS, "{timeout:?}");
    }

    #[test]
    fn what_others_have_measured_stands_for_the_first_sample() {
        let (mut rtt, now) = (RttEstimator::default(), now());
        rtt.expect(20 * MS);
        assert_eq!(rtt.timeout(0, Duration::ZERO), 300 * MS);
        assert_eq!(rtt.probe_timeout(50 * MS), 190 * MS);
        assert_eq!(rtt.patience(), 40 * MS);
        assert!(
            rtt.is_young() && rtt.round_trip().is_none(),
            "but nothing is measured"
        );
        rtt.sample(now, 500 * MS);
        assert_eq!(rtt.probe_timeout(50 * MS), 1150 * MS, "what counts are its own");
    }

    #[test]
    fn backoff_doubles_up_to_a_minute() {
        let rtt = RttEstimator::default();
        assert_eq!(rtt.timeout(1, Duration::ZERO), 2000 * MS);
        assert_eq!(rtt.timeout(2, 400 * MS), 5600 * MS);
        assert_eq!(rtt.timeout(u32::MAX, Duration::ZERO), Duration::from_secs(60));
    }

    #[test]
    fn the_least_is_forgotten_in_the_end() {
        let (mut rtt, start) = (RttEstimator::default(), now());
        assert_eq!(rtt.least(), None);
        rtt.sample(start, 10 * MS);
        let mut known_until = 0;
        for second in 1..100 {
            rtt.sample(start + Duration::from_secs(second), 50 * MS);
            if rtt.least() == Some(10 * MS) {
                known_until = second;
            }
        }
        assert_eq!(known_until, 59);
        assert_eq!(rtt.least(), Some(50 * MS));
    }
}
