//! How fast a server gives file data, and with how many calls at a time it is asked for more.
//!
//! The machine: each fetch of a piece is a sample, of what one call has carried in its time and of what all calls have
//! carried in the same time. The best of each is remembered for a while. A server of OpenAFS sends at most 32 packets in a
//! round trip for one call, whatever the network would take, so the whole is faster the more calls there are, until the
//! network is full: then the whole stays while each call becomes slower. So as many calls are worth having as the best
//! whole has room for the best single one, and some more to find out whether the whole grows. How large a piece is follows from
//! what a call usually carries: where packets are lost, that is a fraction of the best. Nothing here has a clock.

use std::time::{Duration, Instant};

/// What is known of a server's speed.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Bytes that have come from the start.
    delivered: u64,
    /// Bytes that were asked for and have not come.
    under_way: u64,
    /// Bytes a second of one call, and of all together.
    single: Best,
    whole: Best,
    /// What one call has carried of late, smoothed.
    usual: f64,
    samples: u32,
    /// When the last of them ended.
    sampled: Option<Instant>,
}

/// How much is fetched ahead, and in which pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Aim {
    /// Bytes ahead of a sequential reader.
    pub(crate) window: u64,
    /// Bytes of one call.
    pub(crate) unit: u64,
}

/// A fetch that has begun.
#[derive(Debug)]
pub(crate) struct Begun {
    at: Instant,
    bytes: u64,
    delivered: u64,
}

/// The best of the last [`MEMORY`], and of the time before that.
#[derive(Debug, Default)]
struct Best {
    now: f64,
    before: f64,
    since: Option<Instant>,
}

impl Pace {
    /// A call for so many bytes is about to be made.
    pub(crate) fn begin(&mut self, now: Instant, bytes: u64) -> Begun {
        self.under_way = self.under_way.saturating_add(bytes);
        Begun {
            at: now,
            bytes,
            delivered: self.delivered,
        }
    }

    /// It has ended and brought so many, or was given up.
    pub(crate) fn end(&mut self, begun: &Begun, ended: Option<(Instant, u64)>) {
        self.under_way = self.under_way.saturating_sub(begun.bytes);
        let Some((now, got)) = ended else { return };
        self.delivered = self.delivered.saturating_add(got);
        let took = now.saturating_duration_since(begun.at).as_secs_f64();
        if got >= SAMPLE_MIN && took > 0.0 {
            self.samples = self.samples.saturating_add(1);
            self.sampled = Some(now);
            let rate = got as f64 / took;
            self.single.add(now, rate);
            self.usual += (rate - self.usual) / f64::from(self.samples.min(USUAL_OF));
            self.whole
                .add(now, self.delivered.saturating_sub(begun.delivered) as f64 / took);
        }
    }

    /// With how many calls at a time it is asked for data.
    fn calls(&self) -> u64 {
        let (whole, single) = (self.whole.get(), self.single.get());
        if single <= 0.0 {
            return CALLS_FIRST;
        }
        bytes(GAIN * whole / single).clamp(CALLS_MIN, AHEAD_MAX as u64)
    }

    /// How much is fetched ahead of a sequential reader. Twice what the calls carry: while the reader waits for a slow one
    /// the others go on.
    pub(crate) fn aim(&self) -> Aim {
        let per_call = bytes(self.usual * PIECE_SECONDS);
        // The power of two below.
        let unit = (per_call / 2 + 1).next_power_of_two().clamp(UNIT_MIN, UNIT_MAX);
        Aim {
            window: 2 * self.calls() * unit,
            unit,
        }
    }

    /// What one call carries at its best, in bytes a second; 0 as long as that has not been proved.
    pub(crate) fn single(&self) -> u64 {
        if self.is_proven() {
            bytes(self.single.get())
        } else {
            0
        }
    }

    const fn is_proven(&self) -> bool {
        self.samples >= PROOF
    }

    /// Was nothing heard of it for a while?
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let is_old = |at| now.saturating_duration_since(at) >= SAMPLE_EVERY;
        self.under_way == 0 && self.sampled.is_none_or(is_old)
    }

    /// How much it has to do if it gets so many bytes more to send, in thousandths of what it can make use of. One that has
    /// not proved how fast it is gets something to prove it with, and no more.
    pub(crate) fn load(&self, more: u64) -> u64 {
        if !self.is_proven() && self.under_way > 0 {
            return u64::MAX;
        }
        self.under_way.saturating_add(more).saturating_mul(1000) / (self.calls() * self.aim().unit)
    }
}

impl Default for Aim {
    /// For a server of which nothing is known.
    fn default() -> Self {
        Pace::default().aim()
    }
}

impl Best {
    fn add(&mut self, now: Instant, value: f64) {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= MEMORY {
            (self.before, self.now, self.since) = (self.now, 0.0, Some(now));
        }
        self.now = self.now.max(value);
    }

    fn get(&self) -> f64 {
        self.now.max(self.before)
    }
}

/// The whole bytes of a number that is none too large.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates"
)]
fn bytes(value: f64) -> u64 {
    value as u64
}

/// Calls at a time to one server for data that nobody waits for yet. A connection has four, a bundle four connections, and
/// some must stay free for what somebody waits for. Each holds a thread of the server, of which it may have as few as
/// twelve (cache-manager.md 16).
pub(crate) const AHEAD_MAX: usize = 12;
const CALLS_MIN: u64 = 4;
/// As long as nothing is known.
const CALLS_FIRST: u64 = 8;
/// How much more is tried than what has proved to be of use. With losses calls differ by more than two.
const GAIN: f64 = 3.0;
/// Pieces that take shorter tell of the round trip more than of the rate.
const SAMPLE_MIN: u64 = 64 << 10;
/// The usual rate is that of about so many calls.
const USUAL_OF: u32 = 8;
/// A piece is what one call carries in about so many seconds: several round trips, so that its start does not count for much,
/// but not so long that the last of them are waited for.
const PIECE_SECONDS: f64 = 0.5;
const UNIT_MIN: u64 = 128 << 10;
const UNIT_MAX: u64 = 1 << 20;
const MEMORY: Duration = Duration::from_secs(10);
/// One sample says little.
const PROOF: u32 = 2;
/// So often a slow server is tried again.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// A network that carries `whole` bytes a second and a server that carries `single` in one call, `calls` at a time,
    /// for so many rounds.
    fn fetch(pace: &mut Pace, now: &mut Instant, (single, whole): (f64, f64), rounds: usize) {
        for _ in 0..rounds {
            let (calls, unit) = (pace.calls(), pace.aim().unit);
            let rate = single.min(whole / calls as f64);
            let begun: Vec<_> = (0..calls).map(|_| pace.begin(*now, unit)).collect();
            *now += Duration::from_secs_f64(unit as f64 / rate);
            for begun in begun {
                pace.end(&begun, Some((*now, unit)));
            }
        }
    }

    #[test]
    fn calls_grow_until_the_network_is_full() {
        let (mut pace, mut now) = (Pace::default(), crate::clock::now());
        assert_eq!((pace.calls(), pace.aim().unit), (CALLS_FIRST, UNIT_MIN));
        // 32 packets in 20 ms for one call, and a network without end.
        fetch(&mut pace, &mut now, (2.2e6, 1e9), 3);
        assert_eq!((pace.calls(), pace.aim().unit), (AHEAD_MAX as u64, UNIT_MAX));
        // One call fills the network.
        let mut pace = Pace::default();
        let begun = pace.begin(now, UNIT_MAX);
        now += Duration::from_millis(10);
        pace.end(&begun, Some((now, UNIT_MAX)));
        fetch(&mut pace, &mut now, (1e8, 1e8), 20);
        assert_eq!(pace.calls(), CALLS_MIN);
    }

    #[test]
    fn what_is_slow_is_asked_for_little() {
        let (mut pace, mut now) = (Pace::default(), crate::clock::now());
        fetch(&mut pace, &mut now, (1e5, 1e5), 5);
        assert_eq!(pace.aim().unit, UNIT_MIN);
        assert!(pace.aim().window <= 2 * AHEAD_MAX as u64 * UNIT_MIN);
    }

    #[test]
    fn a_piece_is_what_a_usual_call_carries_not_a_lucky_one() {
        let (mut pace, mut now) = (Pace::default(), crate::clock::now());
        for number in 0..40 {
            let rate = if number % 4 == 0 { 2e6 } else { 5e5 };
            let begun = pace.begin(now, UNIT_MIN);
            now += Duration::from_secs_f64(UNIT_MIN as f64 / rate);
            pace.end(&begun, Some((now, UNIT_MIN)));
        }
        assert_eq!(pace.aim().unit, 256 << 10);
    }

    #[test]
    fn what_was_is_forgotten() {
        let (mut pace, mut now) = (Pace::default(), crate::clock::now());
        fetch(&mut pace, &mut now, (1e8, 1e8), 2);
        now += MEMORY;
        fetch(&mut pace, &mut now, (1e5, 1e5), 1);
        now += MEMORY;
        fetch(&mut pace, &mut now, (1e5, 1e5), 1);
        assert_eq!(pace.aim().unit, UNIT_MIN);
    }

    #[test]
    fn load_is_what_is_under_way() {
        let (mut pace, mut now) = (Pace::default(), crate::clock::now());
        assert!(pace.load(UNIT_MIN) < u64::MAX);
        let begun = pace.begin(now, UNIT_MIN);
        assert_eq!(pace.load(UNIT_MIN), u64::MAX, "one is enough to begin with");
        now += Duration::from_millis(100);
        pace.end(&begun, Some((now, UNIT_MIN)));
        fetch(&mut pace, &mut now, (1e7, 1e7), 3);
        let idle = pace.load(UNIT_MAX);
        let begun = pace.begin(now, UNIT_MAX);
        assert!(pace.load(UNIT_MAX) >= 2 * idle);
        pace.end(&begun, None);
        assert!(pace.load(UNIT_MAX) == idle && pace.single() > 0);
        assert!(!pace.is_due(now) && pace.is_due(now + SAMPLE_EVERY));
    }
}
