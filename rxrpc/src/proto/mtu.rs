//! How large datagrams may be on the way to a peer. All sizes are bytes of UDP payload, Rx header included.
//!
//! The machine: a packet is as large as OpenAFS makes it on Ethernet, unless the path or the peer takes less. The path
//! says so through its interface and through ICMP; the peer in the trailer of its ACKs. Neither may ask for packets
//! so small that they would be all header.

use super::ack::AckTrailer;
use super::wire::Header;

/// The sizes that hold for one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mtu {
    path: u16,
    peer: u16,
}

impl Mtu {
    /// Before anything is known.
    pub(crate) const fn new() -> Self {
        Self {
            path: DATAGRAM_USUAL,
            peer: DATAGRAM_USUAL,
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
        }
    }

    /// Room for the body of a packet.
    pub(crate) fn body(&self) -> usize {
        usize::from(self.path.min(self.peer)).saturating_sub(Header::LEN)
    }

    /// What the peer is told that we take.
    pub(crate) const fn advertised(&self) -> u16 {
        self.path
    }
}

/// 1500 less the largest headers that OpenAFS allows for (rxrpc.md 12.1).
pub const DATAGRAM_USUAL: u16 = 1444;
/// Every IPv4 host takes 576 bytes; 28 of them are headers of IP and UDP.
pub const DATAGRAM_LEAST: u16 = 548;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_of_path_and_peer_counts() {
        let mut mtu = Mtu::new();
        assert_eq!((mtu.body(), mtu.advertised()), (1416, 1444));
        mtu.set_path(1392);
        assert_eq!((mtu.body(), mtu.advertised()), (1364, 1392));
        mtu.on_trailer(&AckTrailer::new(1300, 1300, 32, 1));
        assert_eq!((mtu.body(), mtu.advertised()), (1272, 1392));
        mtu.on_trailer(&AckTrailer::default());
        assert_eq!(mtu.body(), 1272, "an old peer says nothing");
        mtu.on_trailer(&AckTrailer::new(5692, 1444, 32, 4));
        mtu.set_path(9000);
        assert_eq!(mtu.body(), 1416, "no more than usual");
        mtu.set_path(68);
        mtu.on_trailer(&AckTrailer::new(1, 1, 32, 1));
        assert_eq!(mtu.body(), 520, "forged");
    }
}
