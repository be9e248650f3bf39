//! How large datagrams may be on the way to a peer. All sizes are bytes of UDP payload, Rx header included.
//!
//! The machine: a packet is as large as OpenAFS makes it on Ethernet, unless the path or the peer takes less, or it may
//! become a part of a jumbogram, whose parts have a size of their own. It is larger only if the peer takes more and the
//! [search](super::path_search) has proved that the path does. The path says what it cannot take through its interface and
//! through ICMP, the peer in the trailer of its ACKs; neither may ask for packets so small that they would be all header.
//! Where packets of some size vanish without a word (a black hole), the size goes back to what it was at first.

use std::time::Instant;

use super::ack::AckTrailer;
use super::jumbo::{JUMBO_PARTS, PART_LEN, datagram_len};
use super::path_search::PathSearch;
use super::wire::Header;
use super::{Serial, Slot};

/// The sizes that hold for one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mtu {
    path: u16,
    peer: u16,
    /// The search has proved so much, or it is the usual size.
    proven: u16,
    search: PathSearch,
    /// What we take.
    own: u16,
    /// Most packets in a datagram to the peer; `None` if we were not set up to send jumbograms.
    parts: Option<usize>,
}

impl Mtu {
    /// Before anything is known.
    pub(crate) const fn new(own: u16, jumbograms: bool) -> Self {
        Self {
            path: DATAGRAM_USUAL,
            peer: DATAGRAM_USUAL,
            proven: DATAGRAM_USUAL,
            search: PathSearch::new(),
            own,
            parts: if jumbograms { Some(1) } else { None },
        }
    }

    /// The route and ICMP know of nothing narrower than `most`; `proven` is known to arrive.
    pub(crate) fn set_path(&mut self, most: u16, proven: u16) {
        self.path = most.max(DATAGRAM_LEAST);
        self.proven = proven.max(DATAGRAM_USUAL);
    }

    /// What the search has proved.
    pub(crate) const fn proven(&self) -> u16 {
        self.proven
    }

    /// The size of the PING that the search wants to be sent with DATA of one of the calls, of which `lives` tells whether
    /// they go on.
    pub(crate) fn probe(&mut self, now: Instant, lives: impl Fn(Slot) -> bool) -> Option<u16> {
        // Parts of jumbograms have a size of their own.
        if self.parts.is_some() {
            return None;
        }
        self.search.look(now, self.proven, self.path.min(self.peer));
        if self.search.asked().is_some_and(|slot| !lives(slot)) {
            self.search.forget();
        }
        self.search.next()
    }

    /// The PING of the search has left.
    pub(crate) fn on_probe_sent(&mut self, slot: Slot, serial: Serial) {
        self.search.on_sent(slot, serial);
    }

    /// An ACK of a call answers the packet `serial`: a PING, or another.
    pub(crate) fn on_answer(&mut self, now: Instant, slot: Slot, serial: Serial, to_ping: bool) {
        if let Some(proven) = self.search.on_answer(now, slot, serial, to_ping) {
            self.proven = self.proven.max(proven);
        }
    }

    /// What is as large as we send it does not arrive, while smaller packets do.
    pub(crate) fn on_black_hole(&mut self, now: Instant) {
        self.proven = DATAGRAM_USUAL;
        self.search.rest(now);
    }

    /// The peer says what it takes.
    pub(crate) fn on_trailer(&mut self, trailer: &AckTrailer) {
        if let Some(max) = trailer.max_mtu {
            self.peer = max.max(DATAGRAM_LEAST);
            if let Some(parts) = &mut self.parts {
                let most = trailer.jumbo_max.unwrap_or(1).clamp(1, JUMBO_PARTS);
                let fits = |parts: &u8| datagram_len(usize::from(*parts)) <= usize::from(max);
                *parts = (1..=most).rev().find(fits).map_or(1, usize::from);
            }
        }
    }

    /// Room for the body of a packet.
    pub(crate) fn body(&self) -> usize {
        let datagram = self.path.min(self.peer).min(self.proven);
        let room = usize::from(datagram).saturating_sub(Header::LEN);
        if self.parts.is_some() {
            room.min(PART_LEN)
        } else {
            room
        }
    }

    /// Most packets in a datagram to the peer.
    pub(crate) fn parts(&self) -> usize {
        self.parts.unwrap_or(1)
    }

    /// What the peer is told that we take, with a receive window of `window` packets. More than one packet in a datagram
    /// invites jumbograms; 0 says that the peer may search the path (rxrpc.md 22).
    pub(crate) fn advertised(&self, window: u8) -> AckTrailer {
        let path = self.path.min(DATAGRAM_USUAL);
        if self.parts.is_some() {
            AckTrailer::new(JUMBOGRAM, path, window, JUMBO_PARTS)
        } else if self.own > DATAGRAM_USUAL {
            AckTrailer::new(self.own, self.path.min(self.own), window, 0)
        } else {
            AckTrailer::new(path, path, window, 1)
        }
    }
}

/// 1500 less the largest headers that OpenAFS allows for (rxrpc.md 12.1).
pub const DATAGRAM_USUAL: u16 = 1444;
/// What OpenAFS says that it takes when it takes jumbograms of four parts.
const JUMBOGRAM: u16 = 5692;
/// Every IPv4 host takes 576 bytes; 28 of them are headers of IP and UDP.
pub const DATAGRAM_LEAST: u16 = 548;

#[cfg(test)]
mod tests {
    use super::*;

    fn said(mtu: &Mtu) -> u16 {
        mtu.advertised(32).max_mtu.unwrap()
    }

    #[test]
    fn the_smaller_of_path_and_peer_counts() {
        let mut mtu = Mtu::new(DATAGRAM_USUAL, false);
        assert_eq!((mtu.body(), said(&mtu)), (1416, 1444));
        mtu.set_path(1392, DATAGRAM_USUAL);
        assert_eq!((mtu.body(), said(&mtu)), (1364, 1392));
        mtu.on_trailer(&AckTrailer::new(1300, 1300, 32, 1));
        assert_eq!((mtu.body(), said(&mtu)), (1272, 1392));
        mtu.on_trailer(&AckTrailer::default());
        assert_eq!(mtu.body(), 1272, "an old peer says nothing");
        mtu.on_trailer(&AckTrailer::new(5692, 1444, 32, 4));
        mtu.set_path(9000, DATAGRAM_USUAL);
        assert_eq!(mtu.body(), 1416, "no more than usual");
        mtu.set_path(68, DATAGRAM_USUAL);
        mtu.on_trailer(&AckTrailer::new(1, 1, 32, 1));
        assert_eq!(mtu.body(), 520, "forged");
    }

    #[test]
    fn jumbograms_need_both_sides() {
        let mut mtu = Mtu::new(DATAGRAM_USUAL, true);
        assert_eq!(
            (mtu.body(), mtu.parts()),
            (1412, 1),
            "the peer has not said anything"
        );
        assert_eq!(mtu.advertised(32), AckTrailer::new(5692, 1444, 32, 4));
        mtu.on_trailer(&AckTrailer::new(5692, 1444, 32, 4));
        assert_eq!((mtu.body(), mtu.parts()), (1412, 4));
        mtu.on_trailer(&AckTrailer::new(65_000, 1444, 32, 200));
        assert_eq!(mtu.parts(), 4);
        mtu.on_trailer(&AckTrailer::new(5687, 1444, 32, 4));
        assert_eq!(mtu.parts(), 3, "four do not fit");
        for (max, parts) in [(1444, 4), (5692, 1), (5692, 0)] {
            mtu.on_trailer(&AckTrailer::new(max, 1444, 32, parts));
            assert_eq!(mtu.parts(), 1);
        }
        let mut mtu = Mtu::new(DATAGRAM_USUAL, false);
        mtu.on_trailer(&AckTrailer::new(5692, 1444, 32, 4));
        assert_eq!((mtu.body(), mtu.parts()), (1416, 1));
        assert_eq!(mtu.advertised(32), AckTrailer::new(1444, 1444, 32, 1));
    }

    #[test]
    fn larger_needs_the_peer_and_a_proof() {
        let mut mtu = Mtu::new(9000, false);
        assert_eq!(mtu.advertised(32), AckTrailer::new(9000, 1444, 32, 0));
        mtu.set_path(8972, DATAGRAM_USUAL);
        assert_eq!(mtu.body(), 1416, "nothing is proved");
        mtu.set_path(8972, 8000);
        assert_eq!(mtu.body(), 1416, "the peer has not said anything");
        mtu.on_trailer(&AckTrailer::new(9000, 1444, 32, 0));
        assert_eq!(mtu.body(), 7972);
        mtu.on_trailer(&AckTrailer::new(5692, 1444, 32, 1));
        assert_eq!(mtu.body(), 5664);
        mtu.set_path(1400, 8000);
        assert_eq!(mtu.body(), 1372, "ICMP knows better");
    }
}
