//! Peers: what all connections to and from one address share.
//!
//! The machine: a peer is made with the first of its connections and goes with the last, unless its way back is kept open. It
//! counts packets. It knows the round trip as its connections have measured it, with which a new one begins, and how large
//! a datagram travels to it in one piece: the route says so when it is made, ICMP when some router on the way takes
//! less, and the searches of its connections what has arrived. One that a black hole swallows says nothing.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::RwLock;

use super::socket;
use super::traffic::Traffic;
use super::way_back::WayBack;
use crate::proto::debug::PeerSnapshot;
use crate::proto::{DATAGRAM_LEAST, DATAGRAM_USUAL};

/// One peer.
#[derive(Debug)]
pub(crate) struct Peer {
    address: SocketAddrV4,
    /// The route and ICMP know of nothing narrower than so many bytes of UDP payload.
    most: AtomicU16,
    /// So many have arrived, or are usual.
    proven: AtomicU16,
    /// The round trip as it was last measured, in microseconds; 0 if it never was.
    round_trip_us: AtomicU32,
    path_probes: AtomicU64,
    packets_sent: AtomicU64,
    packets_resent: AtomicU64,
    packets_received: AtomicU64,
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
    errors: AtomicU32,
    pub(super) way_back: WayBack,
    /// When it was last noted as proven, in milliseconds; 0 if it never was.
    noted_ms: AtomicU64,
}

/// How many peers there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCount {
    /// There are connections to or from them.
    pub used: usize,
    /// Their way back to us is kept open, whether there are connections or not.
    pub kept: usize,
}

/// The peers of an endpoint.
#[derive(Default)]
pub(crate) struct Peers(RwLock<HashMap<SocketAddrV4, Weak<Peer>>>);

impl Peers {
    /// The peer at an address, made if there is none.
    pub(crate) fn get(&self, address: SocketAddrV4) -> Arc<Peer> {
        if let Some(peer) = self.known(address) {
            return peer;
        }
        let fresh = Arc::new(Peer::new(address));
        let mut peers = self.0.write();
        let place = peers.entry(address).or_default();
        place.upgrade().unwrap_or_else(|| {
            *place = Arc::downgrade(&fresh);
            fresh
        })
    }

    /// The peer at an address, if a connection to or from it is there.
    pub(crate) fn known(&self, address: SocketAddrV4) -> Option<Arc<Peer>> {
        self.0.read().get(&address).and_then(Weak::upgrade)
    }

    /// Those whose way back to us is kept open.
    pub(super) fn held(&self) -> Vec<Arc<Peer>> {
        let all = self.0.read();
        let alive = all.values().filter_map(Weak::upgrade);
        alive.filter(|peer| peer.way_back.interval().is_some()).collect()
    }

    /// Those that a connection to or from is there, by address.
    pub(crate) fn all(&self) -> Vec<Arc<Peer>> {
        let mut all: Vec<_> = self.0.read().values().filter_map(Weak::upgrade).collect();
        all.sort_unstable_by_key(|peer| peer.address);
        all
    }

    /// How many there are.
    pub(super) fn counts(&self) -> PeerCount {
        let all = self.0.read();
        let alive = all.values().filter_map(Weak::upgrade);
        let (kept, used): (Vec<_>, Vec<_>) = alive.partition(|peer| peer.way_back.interval().is_some());
        PeerCount {
            used: used.len(),
            kept: kept.len(),
        }
    }

    /// Forgets those that nobody holds.
    pub(crate) fn forget_unused(&self) {
        self.0.write().retain(|_, peer| peer.strong_count() > 0);
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Peers").field(&self.0.read().len()).finish()
    }
}

// Relaxed everywhere: no number here stands for anything else.
impl Peer {
    fn new(address: SocketAddrV4) -> Self {
        let peer = Self {
            address,
            most: AtomicU16::new(DATAGRAM_MOST),
            proven: AtomicU16::new(DATAGRAM_USUAL),
            round_trip_us: AtomicU32::new(0),
            path_probes: AtomicU64::new(0),
            packets_sent: AtomicU64::new(0),
            packets_resent: AtomicU64::new(0),
            packets_received: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            errors: AtomicU32::new(0),
            way_back: WayBack::default(),
            noted_ms: AtomicU64::new(0),
        };
        peer.ask_route();
        peer
    }

    pub(crate) fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Bytes of UDP payload that travel to it in one piece.
    pub(crate) fn datagram(&self) -> u16 {
        let (most, proven) = self.path();
        most.min(proven)
    }

    /// How many bytes of UDP payload may be tried, and how many are known to arrive if those may.
    pub(super) fn path(&self) -> (u16, u16) {
        (
            self.most.load(Ordering::Relaxed),
            self.proven.load(Ordering::Relaxed),
        )
    }

    /// So many bytes are known to arrive.
    pub(super) fn set_proven(&self, datagram: u16) {
        self.proven.store(datagram, Ordering::Relaxed);
    }

    /// A connection to or from it has measured the round trip.
    pub(super) fn set_round_trip(&self, rtt: Duration) {
        let us = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
        self.round_trip_us.store(us, Ordering::Relaxed);
    }

    /// The round trip as it was last measured, zero if it never was.
    pub(super) fn round_trip(&self) -> Duration {
        Duration::from_micros(self.round_trip_us.load(Ordering::Relaxed).into())
    }

    /// The route to it may take less than it did. One that cannot be asked is as it was.
    pub(crate) fn ask_route(&self) {
        if let Ok(mtu) = socket::route_mtu(self.address) {
            self.on_mtu(mtu);
        }
    }

    /// Some router on the way takes no IP packets larger than `mtu`.
    pub(crate) fn on_mtu(&self, mtu: u32) {
        self.most.fetch_min(datagram_of(mtu), Ordering::Relaxed);
    }

    pub(crate) fn on_sent(&self, traffic: &Traffic) {
        let (packets, bytes) = traffic.total();
        self.packets_sent.fetch_add(packets, Ordering::Relaxed);
        self.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
        if traffic.probes() > 0 {
            self.path_probes.fetch_add(traffic.probes(), Ordering::Relaxed);
        }
        if traffic.resent() > 0 {
            self.packets_resent.fetch_add(traffic.resent(), Ordering::Relaxed);
        }
    }

    pub(crate) fn on_received(&self, packets: u64, bytes: u64) {
        self.packets_received.fetch_add(packets, Ordering::Relaxed);
        self.bytes_received.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn on_error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// True, now and then, for one that has answered: it should be noted as proven, again if it was.
    pub(crate) fn is_news(&self, now_ms: u64) -> bool {
        let last = self.noted_ms.load(Ordering::Relaxed);
        let due = last == 0 || now_ms.saturating_sub(last) >= NOTE_EVERY_MS;
        if due {
            self.noted_ms.store(now_ms.max(1), Ordering::Relaxed);
        }
        due
    }

    /// What it says of itself, before its connections are looked at.
    pub(crate) fn snapshot(&self) -> PeerSnapshot {
        PeerSnapshot {
            address: self.address,
            connections: 0,
            rtt: None,
            datagram: self.datagram(),
            path_probes: self.path_probes.load(Ordering::Relaxed),
            packets_sent: self.packets_sent.load(Ordering::Relaxed),
            packets_resent: self.packets_resent.load(Ordering::Relaxed),
            packets_received: self.packets_received.load(Ordering::Relaxed),
            bytes_sent: self.bytes_sent.load(Ordering::Relaxed),
            bytes_received: self.bytes_received.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            keep_alive: self.way_back.interval(),
            keep_alives_sent: self.way_back.sent(),
        }
    }
}

/// What an IP packet of `mtu` bytes has room for.
fn datagram_of(mtu: u32) -> u16 {
    let room = mtu.saturating_sub(IP_AND_UDP);
    u16::try_from(room)
        .unwrap_or(u16::MAX)
        .clamp(DATAGRAM_LEAST, DATAGRAM_MOST)
}

const NOTE_EVERY_MS: u64 = 60_000;
/// The largest UDP payload of an IPv4 packet.
const DATAGRAM_MOST: u16 = 65_507;
/// Bytes of both headers (IPv4 without options).
const IP_AND_UDP: u32 = 28;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_goes_with_the_last_that_holds_it() {
        let peers = Peers::default();
        let address = SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 7000);
        let peer = peers.get(address);
        assert!(Arc::ptr_eq(&peer, &peers.get(address)));
        assert_eq!(peer.datagram(), DATAGRAM_USUAL);
        peer.set_proven(9000);
        assert_eq!(peer.datagram(), 9000);
        peer.on_mtu(1400);
        peer.on_mtu(1450);
        assert_eq!(peer.datagram(), 1372, "the narrowest place counts");
        peer.on_mtu(0);
        assert_eq!(peer.datagram(), DATAGRAM_LEAST);
        drop(peer);
        assert!(peers.known(address).is_none());
        peers.forget_unused();
        assert!(peers.0.read().is_empty());
    }
}
