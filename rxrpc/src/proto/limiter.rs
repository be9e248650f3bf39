//! How often questions are answered that cost the asker nothing.
//!
//! The machine: every host has a bucket of tokens that fills at a steady rate, and there is one for all hosts together;
//! an answer takes a token from both. The buckets stand in a table of fixed size at a place that a secret hash of the
//! host gives. Who finds another's bucket in its place takes the place over if that bucket is full again, which is as
//! good as unused, and otherwise shares it: however many hosts ask, or pretend to, the table does not grow, and none gets
//! more answers by it.

use std::hash::{BuildHasher, RandomState};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Answers in a second, from 1, in the long run.
    pub per_second: u32,
    /// Answers that may follow each other at once, from 1.
    pub burst: u32,
}

/// The buckets.
#[derive(Debug)]
pub struct Limiter {
    each: Rate,
    all: Rate,
    together: Bucket,
    places: Box<[(Ipv4Addr, Bucket)]>,
    secret: RandomState,
}

/// A bucket is known by the instant at which it will be full.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    full_at: Instant,
}

impl Limiter {
    /// Full buckets: `each` for a host, `all` for all together. `secret` keeps hosts from choosing whose place they share.
    #[must_use]
    pub fn new(now: Instant, each: Rate, all: Rate, secret: RandomState) -> Self {
        let full = Bucket { full_at: now };
        Self {
            each,
            all,
            together: full,
            places: vec![(Ipv4Addr::UNSPECIFIED, full); PLACES].into_boxed_slice(),
            secret,
        }
    }

    /// Takes a token for an answer to `host`; false if there is none now.
    pub fn allows(&mut self, now: Instant, host: Ipv4Addr) -> bool {
        let [.., high, low] = self.secret.hash_one(host).to_le_bytes();
        let place = usize::from(u16::from_le_bytes([high, low])) % PLACES;
        let Some((owner, bucket)) = self.places.get_mut(place) else {
            return false;
        };
        if *owner != host && bucket.full_at <= now {
            *owner = host;
        }
        let (Some(after), Some(together)) = (bucket.less(now, self.each), self.together.less(now, self.all))
        else {
            return false;
        };
        *bucket = after;
        self.together = together;
        true
    }
}

impl Bucket {
    /// What it is after a token was taken, if there is one.
    fn less(self, now: Instant, rate: Rate) -> Option<Self> {
        let token = Duration::from_secs(1) / rate.per_second.max(1);
        let full_at = self.full_at.max(now) + token;
        (full_at <= now + token * rate.burst).then_some(Self { full_at })
    }
}

/// Buckets in the table; 24 bytes each.
const PLACES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const EACH: Rate = Rate {
        per_second: 10,
        burst: 20,
    };
    const ALL: Rate = Rate {
        per_second: 100,
        burst: 50,
    };

    fn host(number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(number)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a first instant, from which the test counts on"
    )]
    fn limiter() -> (Limiter, Instant) {
        let now = Instant::now();
        (Limiter::new(now, EACH, ALL, RandomState::new()), now)
    }

    #[test]
    fn a_host_gets_its_burst_and_then_its_rate() {
        let (mut limiter, now) = limiter();
        let allowed = |limiter: &mut Limiter, at| (0..100).filter(|_| limiter.allows(at, host(1))).count();
        assert_eq!(allowed(&mut limiter, now), 20);
        assert_eq!(allowed(&mut limiter, now + Duration::from_millis(99)), 0);
        assert_eq!(allowed(&mut limiter, now + Duration::from_millis(1100)), 11);
        assert_eq!(
            allowed(&mut limiter, now + Duration::from_secs(3600)),
            20,
            "a bucket does not overflow"
        );
    }

    #[test]
    fn all_hosts_together_have_a_limit() {
        let (mut limiter, now) = limiter();
        let allowed = |limiter: &mut Limiter, at| (0..5000).filter(|&n| limiter.allows(at, host(n))).count();
        assert_eq!(allowed(&mut limiter, now), 50);
        assert_eq!(allowed(&mut limiter, now + Duration::from_millis(100)), 10);
    }

    /// More hosts than places: a shared bucket gives no more than one of its own would.
    #[test]
    fn sharing_a_place_gains_nothing() {
        let generous = Rate {
            per_second: 1_000_000,
            burst: 1_000_000,
        };
        let (_, now) = limiter();
        let mut limiter = Limiter::new(now, EACH, generous, RandomState::new());
        let rounds = 40;
        let hosts = 100_000;
        let allowed = (0..rounds)
            .flat_map(|_| 0..hosts)
            .filter(|&number| limiter.allows(now, host(number)))
            .count();
        assert!(allowed <= PLACES * EACH.burst as usize, "{allowed}");
    }
}
