//! Questions that need no connection: who are you, and what are you doing.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::sync::Arc;

use super::connection::Connection;
use super::endpoint::Shared;
use crate::proto::debug::{self, PeerSnapshot, Question, Totals};
use crate::proto::endpoint::version_reply;
use crate::proto::{ConnectionSnapshot, Header, Packet, PacketType, Side};

/// True for a packet that [`question`] answers or ignores.
pub(super) fn is_question(header: &Header) -> bool {
    matches!(header.packet_type, PacketType::Version | PacketType::Debug)
}

/// Answers a VERSION or DEBUG packet. What is no question (a keep-alive, an answer) is ignored.
pub(super) fn question(shared: &Shared, peer: SocketAddrV4, packet: &Packet) {
    let header = &packet.header;
    let reply = match Question::parse(packet) {
        None => version_reply(header, &shared.config.version),
        Some(Question::Endpoint) => Some(debug::endpoint(header, &totals(shared))),
        Some(Question::Totals) => Some(debug::totals(header, &totals(shared))),
        Some(Question::Connection(index)) => Some(nth_connection(shared, header, index, |_| true)),
        Some(Question::Busy(index)) => Some(nth_connection(shared, header, index, debug::is_busy)),
        Some(Question::Peer(index)) => Some(debug::peer(header, peers(shared).get(index))),
        Some(Question::Unknown) => Some(debug::unknown(header)),
    };
    if let Some(reply) = reply {
        shared.answer(peer, &reply);
    }
}

fn totals(shared: &Shared) -> Totals {
    let count = |side| u32::try_from(shared.connections.len(side)).unwrap_or(u32::MAX);
    Totals {
        client_connections: count(Side::Client),
        service_connections: count(Side::Service),
        peers: u32::try_from(peers(shared).len()).unwrap_or(u32::MAX),
        ..shared.totals.read()
    }
}

/// An index may skip or repeat a connection when others come and go between two questions: rxdebug lives with that.
fn nth_connection(
    shared: &Shared,
    question: &Header,
    index: usize,
    which: impl Fn(&ConnectionSnapshot) -> bool,
) -> Vec<u8> {
    let all = shared.connections.snapshot();
    let shown = |conn: &Arc<Connection>| (conn.peer.address(), conn.snapshot());
    let found = all.iter().map(shown).filter(|(_, conn)| which(conn)).nth(index);
    debug::connection(question, found.as_ref().map(|(peer, conn)| (*peer, conn)))
}

/// The peers by address.
pub(super) fn peers(shared: &Shared) -> Vec<PeerSnapshot> {
    let held = shared.peers.held();
    let mut peers: BTreeMap<_, _> = held
        .iter()
        .map(|peer| (peer.address(), peer.snapshot()))
        .collect();
    for conn in shared.connections.snapshot() {
        let peer = peers
            .entry(conn.peer.address())
            .or_insert_with(|| conn.peer.snapshot());
        peer.connections = peer.connections.saturating_add(1);
        peer.rtt = peer.rtt.or_else(|| conn.rtt());
    }
    peers.into_values().collect()
}
