//! What the network does, all decided by the seed.

use crate::proto::{DATAGRAM_LEAST, DATAGRAM_USUAL, Side};
use crate::random::Random;

/// Percentages of datagrams, microseconds, and what happens after so many deliveries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    pub(super) lose: u64,
    pub(super) duplicate: u64,
    pub(super) latency: u64,
    pub(super) jitter: u64,
    /// From then on datagrams longer than this vanish, until their sender is told.
    pub(super) narrows: Option<(u64, u16)>,
    /// Then this side forgets everything.
    pub(super) restart: Option<(u64, Side)>,
}

impl Weather {
    pub(super) fn of(random: &mut Random) -> Self {
        let fair = random.percent(30);
        let spread = |random: &mut Random, end| if fair { 0 } else { random.below(end) };
        let soon = |random: &mut Random| 5 + random.below(200);
        Self {
            lose: spread(random, 25),
            duplicate: spread(random, 20),
            latency: 10 << random.below(14),
            jitter: spread(random, 20_000),
            narrows: random.percent(20).then(|| (soon(random), narrow(random))),
            restart: random.percent(20).then(|| (soon(random), side(random))),
        }
    }

    /// Bytes of the longest datagram that arrives in one piece.
    pub(super) fn mtu(&self, delivered: u64) -> u16 {
        match self.narrows {
            Some((from, mtu)) if delivered >= from => mtu,
            _ => DATAGRAM_USUAL,
        }
    }

    /// Calls may fail: a side has forgotten them, or hardly anything arrives.
    pub(super) fn excuses_failure(&self) -> bool {
        self.restart.is_some() || self.lose > 15
    }
}

fn narrow(random: &mut Random) -> u16 {
    let span = u64::from(DATAGRAM_USUAL - DATAGRAM_LEAST);
    DATAGRAM_LEAST + u16::try_from(random.below(span)).unwrap()
}

fn side(random: &mut Random) -> Side {
    if random.percent(50) { Side::Client } else { Side::Service }
}
