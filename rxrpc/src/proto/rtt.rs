//! Round-trip time and the retransmission timeout.
//!
//! The machine: every valid sample moves a smoothed mean and deviation (RFC 6298, section 2). The timeout is their sum,
//! never below a floor, plus an allowance for the delay with which peers acknowledge.

use std::time::Duration;

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
    samples: u32,
}

#[derive(Clone, Copy, Debug)]
struct Estimate {
    smoothed: Duration,
    deviation: Duration,
}

impl RttEstimator {
    /// Takes one sample: the time from the sending of exactly the packet that an ACK answers to that ACK.
    pub(crate) fn sample(&mut self, rtt: Duration) {
        if rtt > SAMPLE_MAX {
            return;
        }
        self.samples = self.samples.saturating_add(1);
        self.estimate = Some(match self.estimate {
            None => Estimate {
                smoothed: rtt,
                deviation: rtt / 2,
            },
            Some(Estimate { smoothed, deviation }) => Estimate {
                smoothed: (smoothed * 7 + rtt) / 8,
                deviation: (deviation * 3 + smoothed.abs_diff(rtt)) / 4,
            },
        });
    }

    /// What was measured.
    #[must_use]
    pub(crate) fn round_trip(&self) -> Option<RoundTrip> {
        self.estimate.map(|Estimate { smoothed, deviation }| RoundTrip {
            smoothed,
            deviation,
            timeout: self.timeout(0, Duration::ZERO),
        })
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
        let base = match self.estimate {
            None => FIRST_TIMEOUT,
            Some(Estimate { smoothed, deviation }) => {
                (smoothed + deviation * 4).max(TIMEOUT_MIN) + ACK_ALLOWANCE
            }
        };
        (base + extra)
            .saturating_mul(1 << backoff.min(BACKOFF_MAX))
            .min(TIMEOUT_MAX)
    }
}

/// Before any sample (RFC 6298, rule 2.1).
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);
const TIMEOUT_MIN: Duration = Duration::from_millis(200);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// OpenAFS holds soft acks back by this much (`rx_softAckDelay`).
const ACK_ALLOWANCE: Duration = Duration::from_millis(100);
/// Longer ones are no round trips (OpenAFS ignores them likewise).
const SAMPLE_MAX: Duration = Duration::from_secs(60);
const SAMPLES_WANTED: u32 = 3;
const BACKOFF_MAX: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn timeout_starts_at_a_second_and_follows_samples() {
        let mut rtt = RttEstimator::default();
        assert_eq!(rtt.timeout(0, Duration::ZERO), 1000 * MS);
        rtt.sample(10 * MS);
        assert_eq!(rtt.timeout(0, Duration::ZERO), 300 * MS, "floor and allowance");
        rtt.sample(Duration::from_secs(61));
        assert_eq!(rtt.round_trip().unwrap().smoothed, 10 * MS, "no round trip");
        for _ in 0..100 {
            rtt.sample(500 * MS);
        }
        let timeout = rtt.timeout(0, Duration::ZERO);
        assert!(timeout > 590 * MS && timeout < 700 * MS, "{timeout:?}");
    }

    #[test]
    fn backoff_doubles_up_to_a_minute() {
        let rtt = RttEstimator::default();
        assert_eq!(rtt.timeout(1, Duration::ZERO), 2000 * MS);
        assert_eq!(rtt.timeout(2, 400 * MS), 5600 * MS);
        assert_eq!(rtt.timeout(u32::MAX, Duration::ZERO), Duration::from_secs(60));
    }
}
