//! Questions that need no connection: who are you, and what are you doing.
//!
//! The machine: a VERSION or DEBUG question is answered on the spot, as often as a [`Limiter`] allows: the answers are
//! larger than the questions, and anybody can ask in another's name. The rates let rxdebug walk hundreds of connections,
//! one question for each; one that gets no answer it repeats after a second, and then later.

use std::collections::BTreeMap;
use std::hash::RandomState;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Instant;

use super::connection::Connection;
use super::connections::Connections;
use super::endpoint::Endpoint;
use crate::proto::debug::{self, PeerSnapshot, Question, Totals};
use crate::proto::endpoint::version_reply;
use crate::proto::{ConnectionSnapshot, Header, Limiter, Packet, PacketType, Rate, Side, Unplaced};

/// True for a packet that [`question`] answers or ignores.
pub(super) fn is_question(header: &Header) -> bool {
    matches!(header.packet_type, PacketType::Version | PacketType::Debug)
}

/// What decides how often [`question`] answers.
pub(super) fn limiter(now: Instant) -> Limiter {
    Limiter::new(now, EACH_HOST, ALL_HOSTS, RandomState::new())
}

/// Answers a VERSION or DEBUG packet. VERSION from a service is ignored: it keeps the way open (rxrpc.md 11.3).
pub(super) fn question(endpoint: &Endpoint, peer: SocketAddrV4, packet: &Packet) -> Result<(), Unplaced> {
    let Endpoint { shared, connections } = endpoint;
    let header = &packet.header;
    let about = match header.packet_type {
        PacketType::Version if !header.flags.client_initiated() => return Ok(()),
        PacketType::Version => None,
        _ if !shared.config.answer_debug => return Err(Unplaced::DebugDisabled),
        _ => Some(Question::parse(packet).ok_or(Unplaced::NoQuestion)?),
    };
    if !shared.questions.lock().allows(shared.clock.now(), *peer.ip()) {
        return Err(Unplaced::TooManyQuestions);
    }
    let reply = match about {
        None => version_reply(header, &shared.config.version),
        Some(Question::Endpoint) => debug::endpoint(header, &totals(endpoint)),
        Some(Question::Totals) => {
            let calls = connections.snapshot();
            let calls = calls.iter().map(|conn| debug::calls(&conn.snapshot()));
            debug::totals(header, &totals(endpoint), calls.sum())
        }
        Some(Question::Connection(index)) => told(header, connections.nth(index).as_ref()),
        Some(Question::Busy(index)) => told(header, nth_busy(connections, index).as_ref()),
        Some(Question::Peer(index)) => debug::peer(header, nth_peer(endpoint, index).as_ref()),
        Some(Question::Unknown) => debug::unknown(header),
    };
    shared.answer(peer, &reply);
    Ok(())
}

fn totals(Endpoint { shared, connections }: &Endpoint) -> Totals {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let idle = shared.answering.available_permits();
    let answering = shared.config.max_service_calls.saturating_sub(idle);
    Totals {
        client_connections: count(connections.len(Side::Client)),
        service_connections: count(connections.len(Side::Service)),
        peers: count(shared.peers.all().len()),
        calls_waiting: count(shared.calls.taken().saturating_sub(answering)),
        idle_threads: count(idle),
        ..shared.totals.read()
    }
}

/// An index may skip or repeat a connection when others come and go between two questions: rxdebug lives with that.
fn told(question: &Header, conn: Option<&Arc<Connection>>) -> Vec<u8> {
    let shown: Option<(SocketAddrV4, ConnectionSnapshot)> =
        conn.map(|conn| (conn.peer.address(), conn.snapshot()));
    debug::connection(question, shown.as_ref().map(|(peer, conn)| (*peer, conn)))
}

fn nth_busy(connections: &Connections, index: usize) -> Option<Arc<Connection>> {
    let all = connections.snapshot();
    all.into_iter()
        .filter(|conn| debug::is_busy(&conn.snapshot()))
        .nth(index)
}

fn nth_peer(endpoint: &Endpoint, index: usize) -> Option<PeerSnapshot> {
    let peer = endpoint.shared.peers.all().into_iter().nth(index)?;
    let all = endpoint.connections.snapshot();
    let of_peer = all.iter().filter(|conn| Arc::ptr_eq(&conn.peer, &peer));
    Some(of_peer.fold(peer.snapshot(), with_connection))
}

/// The peers by address.
pub(super) fn peers(endpoint: &Endpoint) -> Vec<PeerSnapshot> {
    let held = endpoint.shared.peers.held();
    let mut peers: BTreeMap<_, _> = held
        .iter()
        .map(|peer| (peer.address(), peer.snapshot()))
        .collect();
    for conn in endpoint.connections.snapshot() {
        let peer = peers
            .entry(conn.peer.address())
            .or_insert_with(|| conn.peer.snapshot());
        *peer = with_connection(*peer, &conn);
    }
    peers.into_values().collect()
}

fn with_connection(peer: PeerSnapshot, conn: &Arc<Connection>) -> PeerSnapshot {
    PeerSnapshot {
        connections: peer.connections.saturating_add(1),
        rtt: peer.rtt.or_else(|| conn.rtt()),
        ..peer
    }
}

/// A victim in whose name somebody asks gets no more than 312 bytes of UDP payload for each.
const EACH_HOST: Rate = Rate {
    per_second: 20,
    burst: 200,
};
const ALL_HOSTS: Rate = Rate {
    per_second: 200,
    burst: 400,
};
