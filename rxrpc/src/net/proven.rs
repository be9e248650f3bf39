//! Addresses that have answered us.
//!
//! The machine: an address is proven when a packet from it shows that its sender receives what we send there: a packet on
//! a client connection of ours from the address that the connection goes to (only its server was told our epoch and the
//! connection's id), or an answer to the PING on a doubted service connection (`proto::probation`). It stays so for as
//! long as a file server holds a promise to us and may want to break it, counted from the last such packet. Only proof
//! lets an address in here, so a forger cannot fill the table; when honest ones do, the one proven longest ago goes.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The addresses, and when each was proven last.
#[derive(Debug, Default)]
pub(crate) struct Proven(Mutex<HashMap<SocketAddrV4, Instant>>);

impl Proven {
    /// A packet from `address` has shown that it receives what we send there.
    pub(crate) fn note(&self, now: Instant, address: SocketAddrV4) {
        let mut known = self.0.lock();
        if let Some(at) = known.get_mut(&address) {
            *at = now;
            return;
        }
        if known.len() >= KNOWN_MAX {
            known.retain(|_, at| now < *at + PROOF_LASTS);
        }
        if known.len() >= KNOWN_MAX
            && let Some(oldest) = known
                .iter()
                .min_by_key(|(_, at)| **at)
                .map(|(address, _)| *address)
        {
            known.remove(&oldest);
        }
        known.insert(address, now);
    }

    /// True if `address` was proven not too long ago.
    pub(crate) fn holds(&self, now: Instant, address: SocketAddrV4) -> bool {
        self.0
            .lock()
            .get(&address)
            .is_some_and(|at| now < *at + PROOF_LASTS)
    }
}

/// A file server promises callbacks for up to 4 hours (OpenAFS `viced/callback.c`).
const PROOF_LASTS: Duration = Duration::from_hours(4);
const KNOWN_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: u32) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::from_bits(number), 7000)
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a first instant, from which the test counts on"
    )]
    fn proof_lasts_a_while_and_the_table_does_not_grow() {
        let (proven, start) = (Proven::default(), Instant::now());
        let second = Duration::from_secs(1);
        proven.note(start, address(0));
        assert!(proven.holds(start + PROOF_LASTS - second, address(0)));
        assert!(!proven.holds(start + PROOF_LASTS, address(0)));
        let other_port = SocketAddrV4::new(*address(0).ip(), 7001);
        assert!(!proven.holds(start, other_port));
        for number in 0..2 * KNOWN_MAX {
            let number = u32::try_from(number).unwrap();
            proven.note(start + second * number, address(number));
            assert!(proven.0.lock().len() <= KNOWN_MAX);
        }
        let now = start + second * u32::try_from(2 * KNOWN_MAX).unwrap();
        assert!(!proven.holds(now, address(1)), "the oldest had to go");
        assert!(proven.holds(now, address(u32::try_from(KNOWN_MAX + 1).unwrap())));
    }
}
