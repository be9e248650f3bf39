//! How large datagrams may be on the way to a peer. All sizes are bytes of UDP payload, Rx header included.
//!
//! The machine: a packet is as large as OpenAFS makes it on Ethernet, unless the path or the peer takes less, or it may
//! become a part of a jumbogram, whose parts have a size of their own. The path
//! says so through its interface and through ICMP; the peer in the trailer of its ACKs. Neither may ask for packets
//! so small that they would be all header.

use super::ack::AckTrailer;
use super::jumbo::{JUMBO_PARTS, PART_LEN, datagram_len};
use super::wire::Header;

/// The sizes that hold for one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mtu {
    path: u16,
    peer: u16,
    /// Most packets in a datagram to the peer; `None` if we were not set up to send jumbograms.
    parts: Option<usize>,
}

impl Mtu {
    /// Before anything is known.
    pub(crate) const fn new(jumbograms: bool) -> Self {
        Self {
            path: DATAGRAM_USUAL,
            peer: DATAGRAM_USUAL,
            parts: if jumbograms { Some(1) } else { None },
        }
    }

    /// The path carries `datagram` bytes in one piece.
    pub(crate) fn set_path(&mut self, datagram: u16) {
        self.path = datagram.clamp(DATAGRAM_LEAST, DATAGRAM_USUAL);
    }

    /// The peer says what it takes.
    pub(crate) fn on_trailer(&mut self, trailer: &AckTrailer) {
        if let Some(max) = trailer.max_mtu {
            self.peer = max.clamp(DATAGRAM_LEAST, DATAGRAM_USUAL);
            if let Some(parts) = &mut self.parts {
                let most = trailer.jumbo_max.unwrap_or(1).clamp(1, JUMBO_PARTS);
                let fits = |parts: &u8| datagram_len(usize::from(*parts)) <= usize::from(max);
                *parts = (1..=most).rev().find(fits).map_or(1, usize::from);
            }
        }
    }

    /// Room for the body of a packet.
    pub(crate) fn body(&self) -> usize {
        let room = usize::from(self.path.min(self.peer)).saturating_sub(Header::LEN);
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
    /// would invite jumbograms; 0 would promise path MTU discovery (rxrpc.md 22).
    pub(crate) fn advertised(&self, window: u8) -> AckTrailer {
        if self.parts.is_some() {
            AckTrailer::new(JUMBOGRAM, self.path, window, JUMBO_PARTS)
        } else {
            AckTrailer::new(self.path, self.path, window, 1)
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
        let mut mtu = Mtu::new(false);
        assert_eq!((mtu.body(), said(&mtu)), (1416, 1444));
        mtu.set_path(1392);
        assert_eq!((mtu.body(), said(&mtu)), (1364, 1392));
        mtu.on_trailer(&AckTrailer::new(1300, 1300, 32, 1));
        assert_eq!((mtu.body(), said(&mtu)), (1272, 1392));
        mtu.on_trailer(&AckTrailer::default());
        assert_eq!(mtu.body(), 1272, "an old peer says nothing");
        mtu.on_trailer(&AckTrailer::new(5692, 1444, 32, 4));
        mtu.set_path(9000);
        assert_eq!(mtu.body(), 1416, "no more than usual");
        mtu.set_path(68);
        mtu.on_trailer(&AckTrailer::new(1, 1, 32, 1));
        assert_eq!(mtu.body(), 520, "forged");
    }

    #[test]
    fn jumbograms_need_both_sides() {
        let mut mtu = Mtu::new(true);
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
        let mut mtu = Mtu::new(false);
        mtu.on_trailer(&AckTrailer::new(5692, 1444, 32, 4));
        assert_eq!((mtu.body(), mtu.parts()), (1416, 1));
        assert_eq!(mtu.advertised(32), AckTrailer::new(1444, 1444, 32, 1));
    }
}
