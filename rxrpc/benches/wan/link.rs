//! An emulated link: latency, random loss, and a bottleneck with a queue that drops what it has no room for.
//!
//! The machine: each direction serves its queue at the rate of the link; a datagram is dropped by chance or because the
//! queue is full, else it arrives one latency after it was served, or, by chance, up to a quarter of the round trip later,
//! so that others overtake it. Nothing is copied.

use std::time::Duration;

/// What a link is like. Both directions are the same.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    pub(crate) round_trip: Duration,
    /// Parts in a million of the datagrams that are lost by chance.
    pub(crate) loss_ppm: u64,
    /// Parts in a million that come late.
    pub(crate) late_ppm: u64,
    pub(crate) bits_per_second: u64,
    /// Bytes that may wait to be served.
    pub(crate) queue_bytes: u64,
}

/// One direction of a link.
pub(crate) struct Direction {
    link: Link,
    random: Random,
    /// When all that was taken has been served.
    served_at: Duration,
}

/// SplitMix64: the same seed, the same run.
pub(crate) struct Random(pub(crate) u64);

impl Direction {
    pub(crate) fn new(link: Link, seed: u64) -> Self {
        Self {
            link,
            random: Random(seed),
            served_at: Duration::ZERO,
        }
    }

    /// When a datagram of `len` bytes sent at `now` arrives, if it does.
    pub(crate) fn send(&mut self, now: Duration, len: usize) -> Option<Duration> {
        let served_at = self.served_at.max(now);
        let waiting = self.link.time_of(1).as_nanos().max(1);
        if (served_at - now).as_nanos() / waiting > u128::from(self.link.queue_bytes) {
            return None;
        }
        self.served_at = served_at + self.link.time_of(len as u64 + IP_AND_UDP);
        if self.random.next() % 1_000_000 < self.link.loss_ppm {
            return None;
        }
        let mut latency = self.link.round_trip / 2;
        if self.random.next() % 1_000_000 < self.link.late_ppm {
            latency += self.link.round_trip * u32::try_from(self.random.next() % 1000).ok()? / 4000;
        }
        Some(self.served_at + latency)
    }
}

impl Link {
    fn time_of(&self, bytes: u64) -> Duration {
        Duration::from_nanos(bytes * 8 * 1_000_000_000 / self.bits_per_second)
    }

    /// Payload of full packets that the bottleneck carries in a second.
    pub(crate) fn payload_per_second(&self, payload: u64, datagram: u64) -> f64 {
        self.bits_per_second as f64 / 8.0 * payload as f64 / (datagram + IP_AND_UDP) as f64
    }
}

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

const IP_AND_UDP: u64 = 28;
