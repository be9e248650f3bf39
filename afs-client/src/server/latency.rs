//! How long a server takes to answer, and from when on it is worth asking another one.

use std::collections::VecDeque;
use std::time::Duration;

/// The times that the last calls to a server have taken: small ones to their end, or those for file data to its first byte.
#[derive(Debug, Default)]
pub(crate) struct Latencies(VecDeque<Duration>);

/// How many calls may be made to a second replica because the first is slow: one for each twenty that are made, of which some
/// can be saved up. So a network that is slow as a whole does not get more to carry.
#[derive(Debug)]
pub(crate) struct Hedges {
    /// In parts of the price of one.
    saved: u32,
}

impl Latencies {
    /// Another one.
    pub(crate) fn add(&mut self, took: Duration) {
        if self.0.len() >= KEPT {
            self.0.pop_front();
        }
        self.0.push_back(took);
    }

    /// What 19 of 20 calls were done in; `None` as long as that is not known.
    pub(crate) fn patience(&self) -> Option<Duration> {
        if self.0.len() < ENOUGH {
            return None;
        }
        let mut sorted: Vec<_> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        sorted
            .get(sorted.len() * 19 / 20)
            .map(|took| (*took).max(PATIENCE_MIN))
    }
}

impl Default for Hedges {
    fn default() -> Self {
        Self { saved: PRICE }
    }
}

impl Hedges {
    /// A call is made that could be made to another replica too.
    pub(crate) fn earn(&mut self) {
        self.saved = (self.saved + 1).min(SAVED_MAX);
    }

    /// May it be made to another one as well?
    pub(crate) fn spend(&mut self) -> bool {
        let left = self.saved.checked_sub(PRICE);
        self.saved = left.unwrap_or(self.saved);
        left.is_some()
    }
}

const KEPT: usize = 64;
const ENOUGH: usize = 16;
/// Less than a busy machine can be late by.
const PATIENCE_MIN: Duration = Duration::from_millis(5);
const PRICE: u32 = 20;
const SAVED_MAX: u32 = 10 * PRICE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_what_most_calls_take() {
        let mut latencies = Latencies::default();
        for number in 1..=ENOUGH as u64 {
            assert_eq!(latencies.patience(), None);
            latencies.add(Duration::from_millis(10 * number));
        }
        assert_eq!(latencies.patience(), Some(Duration::from_millis(160)));
        for _ in 0..KEPT {
            latencies.add(Duration::from_millis(1));
        }
        assert_eq!(
            latencies.patience(),
            Some(PATIENCE_MIN),
            "what is long ago is forgotten"
        );
        latencies.add(Duration::from_secs(9));
        assert_eq!(latencies.patience(), Some(PATIENCE_MIN), "one is an accident");
    }

    #[test]
    fn hedges_are_one_in_twenty() {
        let mut hedges = Hedges::default();
        let mut spent = 0;
        for _ in 0..10_000 {
            hedges.earn();
            spent += u32::from(hedges.spend());
        }
        assert_eq!(spent, 501);
        (0..10_000).for_each(|_| hedges.earn());
        assert_eq!((0..100).filter(|_| hedges.spend()).count(), 10);
    }
}
