//! How many calls to a server fail, of those made of late.
//!
//! The machine: each call moves the share of failures by an eighth of the way, up or down, and in time it halves by itself:
//! who is not asked because of it is asked again some day.

use std::time::{Duration, Instant};

/// The share of calls that have failed.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    share: f64,
    /// As of when.
    at: Option<Instant>,
}

impl Failures {
    /// Another call has ended.
    pub(crate) fn add(&mut self, now: Instant, failed: bool) {
        let one = if failed { 1.0 } else { 0.0 };
        self.share = self.share(now) + (one - self.share(now)) * WEIGHT;
        self.at = Some(now);
    }

    /// Of 1.
    pub(crate) fn share(&self, now: Instant) -> f64 {
        let age = self
            .at
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.share * (-age.as_secs_f64() / HALVED_IN.as_secs_f64()).exp2()
    }
}

/// What one call counts.
const WEIGHT: f64 = 1.0 / 8.0;
const HALVED_IN: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_count_and_are_forgotten() {
        let (mut failures, now) = (Failures::default(), crate::clock::now());
        assert!(failures.share(now) == 0.0);
        failures.add(now, false);
        assert!(failures.share(now) == 0.0);
        failures.add(now, true);
        assert!(failures.share(now) == WEIGHT);
        let halved = failures.share(now + HALVED_IN);
        assert!((halved - WEIGHT / 2.0).abs() < 1e-9, "{halved}");
        for _ in 0..40 {
            failures.add(now, true);
        }
        assert!(failures.share(now) > 0.99);
        // Half of them.
        for number in 0..40 {
            failures.add(now, number % 2 == 0);
        }
        let half = failures.share(now);
        assert!((0.4..0.6).contains(&half), "{half}");
        assert!(failures.share(now + 10 * HALVED_IN) < 0.001);
    }
}
