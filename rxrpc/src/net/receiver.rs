//! The receive path: from a datagram to the connection it is for.
//!
//! The machine: a batch of datagrams is parsed into packets; neighbours for the same connection are handed over in one
//! turn. A packet from a client is looked up in the service tree, and when nothing living is there a fresh connection is
//! published in the same turn: no call is ever turned away because a connection is dying. A packet from a server is
//! looked up by connection id. Whatever fits nothing is dropped and counted; a few questions that need no connection
//! (version, debug, calls to unknown services) are answered on the spot.
//!
//! Everything that a packet makes us keep has a [place](super::places): a connection, one more while it is
//! [doubted](super::proven), a call. When there is none for its host, the packet is answered by BUSY and nothing is kept.

use std::cell::Cell;
use std::hash::BuildHasher;
use std::iter;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::answer;
use super::connection::{Connection, Key, ServiceKey};
use super::endpoint::{Endpoint, Shared};
use super::places::Place;
use super::service::{Service, ServiceCall};
use super::socket::Inbox;
use super::traffic::{Traffic, Way};
use crate::cache::{Life, Ref};
use crate::events::{Acquire, Event};
use crate::proto::endpoint::{NO_SUCH_SERVICE, busy, raw_abort};
use crate::proto::{
    self, Acceptor, ConnectionParams, Header, Malformed, Packet, PacketType, Rejected, SecurityIndex, Seq,
    Serial, ServiceId, Side, Slot, Unplaced, Upgrade, abort_codes,
};
use crate::security::rxkad;

/// The task that receives.
pub(crate) struct Receiver {
    endpoint: Endpoint,
    batch: Vec<(SocketAddrV4, Packet)>,
}

impl Receiver {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            batch: Vec::new(),
        }
    }

    /// Receives until the task is dropped.
    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.endpoint.shared);
        let mut inbox = Inbox::new();
        loop {
            let mut traffic = Traffic::default();
            let received = shared
                .socket
                .receive(&mut inbox, |peer, datagram| {
                    traffic.count(&datagram);
                    self.datagram(peer, datagram);
                })
                .await;
            shared.report(&traffic, Way::In);
            if self.dispatch() >= MANY {
                // What this batch has set going runs first, and says what it has to say in a few system calls.
                tokio::task::yield_now().await;
                shared.socket.send_waiting();
            }
            if let Err(error) = received {
                // An earlier send met an error that the kernel reports here; the socket itself is good.
                tracing::debug!(%error, "receive failed");
                tokio::task::yield_now().await;
            }
        }
    }

    fn datagram(&mut self, peer: SocketAddrV4, datagram: Bytes) {
        let shared = &self.endpoint.shared;
        match proto::parse(datagram) {
            // No more than the peer was told that we take.
            Ok(packets) if packets.len() > shared.config.parts_max() => {
                shared.dropped(peer, Malformed::JumboTooMany);
            }
            Ok(packets) => self.batch.extend(packets.map(|packet| (peer, packet))),
            Err(malformed) => shared.dropped(peer, malformed),
        }
    }

    /// Hands the batch over, neighbours for one connection together; gives how many turns that took.
    fn dispatch(&mut self) -> usize {
        let shared = &self.endpoint.shared;
        let now = shared.clock.now();
        let mut turns = 0;
        let mut packets = self.batch.drain(..).peekable();
        while let Some((peer, packet)) = packets.next() {
            let destination = Destination::of(peer, &packet.header);
            let Some(found) = find(&self.endpoint, peer, &packet) else {
                continue;
            };
            turns += 1;
            if turns == MANY {
                shared.socket.gather();
            }
            let same = |(peer, packet): &(SocketAddrV4, Packet)| {
                Destination::of(*peer, &packet.header) == destination
            };
            let more = iter::from_fn(|| packets.next_if(same).map(|(_, packet)| packet));
            deliver(shared, found, peer, iter::once(packet).chain(more), now);
        }
        turns
    }
}

/// What packets must share to be for the same connection.
#[derive(PartialEq, Eq)]
struct Destination {
    key: ServiceKey,
    from_client: bool,
    stateless: bool,
}

impl Destination {
    fn of(peer: SocketAddrV4, header: &Header) -> Self {
        Self {
            key: ServiceKey {
                peer,
                epoch: header.epoch,
                cid: header.cid,
            },
            from_client: header.flags.client_initiated(),
            stateless: answer::is_question(header),
        }
    }
}

/// The connection that a packet is for. What needs no connection is answered here.
fn find(endpoint: &Endpoint, peer: SocketAddrV4, packet: &Packet) -> Option<(Ref<Connection>, Acquire)> {
    let shared = &endpoint.shared;
    let header = &packet.header;
    if answer::is_question(header) {
        let answered = answer::question(endpoint, peer, packet);
        answered.unwrap_or_else(|reason| shared.dropped(peer, reason));
        return None;
    }
    let found = if header.flags.client_initiated() {
        find_service(endpoint, peer, packet)
    } else {
        find_client(endpoint, peer, header)
    };
    found.inspect_err(|reason| shared.dropped(peer, *reason)).ok()
}

/// For a client connection the peer's address may be any, as a server may have several; its port may not (rxrpc.md 2.4).
fn find_client(
    Endpoint { shared, connections }: &Endpoint,
    peer: SocketAddrV4,
    header: &Header,
) -> Result<(Ref<Connection>, Acquire), Unplaced> {
    if header.epoch != shared.epoch {
        return Err(Unplaced::ForeignEpoch);
    }
    let conn = connections
        .client_by_id(header.cid)
        .ok_or(Unplaced::NoConnection)?;
    if conn.peer.address().port() != peer.port() {
        return Err(Unplaced::ForeignPort);
    }
    Ok((conn, Acquire::Reused))
}

fn find_service(
    Endpoint { shared, connections }: &Endpoint,
    peer: SocketAddrV4,
    packet: &Packet,
) -> Result<(Ref<Connection>, Acquire), Unplaced> {
    let header = &packet.header;
    let key = ServiceKey {
        peer,
        epoch: header.epoch,
        cid: header.cid,
    };
    if let Some(found) = connections.service(&key) {
        return Ok(found);
    }
    // Only DATA may start something; only its first packet is worth a refusal (rxrpc.md 17.3, 18).
    if header.packet_type != PacketType::Data {
        return Err(Unplaced::NoConnection);
    }
    let speaks = shared.service_asked(header);
    admit(shared, peer, header, speaks.0)
        .map(|places| {
            let places = Cell::new(Some(places));
            connections.publish_service(key, &|life| {
                service_connection(shared, life, key, header, speaks, places.take())
            })
        })
        .inspect_err(|reason| {
            if header.seq == Seq(1) {
                shared.refuse(peer, packet, &refusal(header, *reason));
            }
        })
}

/// The places that a new service connection takes.
struct Admission {
    open: Place,
    /// If the address has not answered us yet.
    half_open: Option<Place>,
}

fn admit(
    shared: &Shared,
    peer: SocketAddrV4,
    header: &Header,
    service: ServiceId,
) -> Result<Admission, Unplaced> {
    if !shared.services.read().contains_key(&service) {
        return Err(Unplaced::UnknownService);
    }
    if header.security != SecurityIndex(0)
        && !(header.security == rxkad::INDEX && shared.rxkad.read().is_some())
    {
        return Err(Unplaced::UnknownSecurity);
    }
    if shared.is_closing() {
        return Err(Unplaced::Closing);
    }
    let host = *peer.ip();
    let doubted = shared.config.check_reach && !shared.proven.holds(shared.clock.now(), peer);
    let half_open = doubted
        .then(|| shared.half_open.take(host).ok_or(Unplaced::TooManyHalfOpen))
        .transpose()?;
    let open = shared.open.take(host).ok_or(Unplaced::TooManyConnections)?;
    Ok(Admission { open, half_open })
}

fn refusal(header: &Header, reason: Unplaced) -> Vec<u8> {
    match reason {
        Unplaced::UnknownService | Unplaced::UnknownSecurity => raw_abort(header, NO_SUCH_SERVICE),
        Unplaced::Closing => raw_abort(header, abort_codes::RX_CALL_DEAD),
        _ => busy(header),
    }
}

fn service_connection(
    shared: &Arc<Shared>,
    life: Life,
    key: ServiceKey,
    header: &Header,
    (service, upgrade): (ServiceId, Upgrade),
    places: Option<Admission>,
) -> Connection {
    let now = shared.clock.now();
    let params = ConnectionParams {
        side: Side::Service,
        epoch: key.epoch,
        cid: key.cid,
        service,
        upgrade,
        security: header.security,
        window: shared.config.request_window,
        datagram: shared.config.max_datagram,
        jumbograms: shared.config.jumbograms,
    };
    let (open, half_open) = places.map_or((None, None), |places| (Some(places.open), places.half_open));
    let mut proto = match acceptor(shared, header, &key, now) {
        Some(acceptor) => proto::Connection::asking(params, acceptor),
        None => proto::Connection::new(params),
    };
    proto.put_on_probation(now, half_open.as_ref().map(|_| secret_serial(shared, &key, now)));
    Connection::new(
        Arc::clone(shared),
        life,
        Key::Service(key),
        shared.peers.get(key.peer),
        proto,
    )
    .counted(open, half_open)
}

/// What finds out who is there, on a connection of a class that does.
fn acceptor(shared: &Shared, header: &Header, key: &ServiceKey, now: Instant) -> Option<Box<dyn Acceptor>> {
    let (keys, least) = shared
        .rxkad
        .read()
        .clone()
        .filter(|_| header.security == rxkad::INDEX)?;
    let [.., a, b, c, d] = shared.secret.hash_one((rxkad::INDEX, key, now)).to_le_bytes();
    Some(Box::new(rxkad::Acceptor {
        keys,
        least,
        nonce: u32::from_le_bytes([a, b, c, d]),
        epoch: key.epoch,
        cid: key.cid,
        clock: shared.clock.wall(),
    }))
}

/// A number that nobody can guess. It leaves room for serials: Linux takes those of the upper half for old ones.
fn secret_serial(shared: &Shared, key: &ServiceKey, now: Instant) -> Serial {
    let [.., a, b, c, d] = shared.secret.hash_one((key, now)).to_le_bytes();
    Serial(u32::from_le_bytes([a, b, c, d]) >> 2)
}

/// Gives a run of packets to their connection in one turn, and new calls to their service.
fn deliver(
    shared: &Arc<Shared>,
    (conn, acquired): (Ref<Connection>, Acquire),
    from: SocketAddrV4,
    run: impl Iterator<Item = Packet>,
    now: Instant,
) {
    let peer = conn.peer.address();
    let (mut packets, mut bytes) = (0, 0);
    let mut came = Came::default();
    conn.turn(now, |turn| {
        if turn.state.proto.is_doubted() && shared.proven.holds(now, peer) {
            let ready = turn.state.proto.believe(now).into_iter().flatten();
            came.ready.extend(ready.map(|slot| (slot, None)));
        }
        for packet in run {
            packets += 1;
            bytes += (Header::LEN + packet.body.len()) as u64;
            let mut place = None;
            if turn.state.proto.begins_call(&packet.header) {
                place = shared.calls.take(*peer.ip());
                if place.is_none() {
                    came.turned_away.push(packet);
                    continue;
                }
            }
            let speaks = matches!(packet.header.packet_type, PacketType::Data | PacketType::Ack);
            let outcome = turn.state.proto.handle_packet(now, packet);
            turn.touched(outcome.touched);
            if outcome.begun {
                came.begun += 1;
                conn.peer.way_back.on_call(now, !outcome.late);
            }
            came.upgrade_settled |= outcome.upgrade_settled;
            came.answer |= speaks && outcome.rejected.is_none();
            came.rejected.extend(outcome.rejected);
            let ready = outcome.ready.into_iter().flatten();
            came.ready.extend(ready.map(|slot| (slot, place.take())));
        }
        // A server may answer from another address than it was asked at, which proves neither.
        came.answer &= from == peer && !turn.state.proto.is_doubted();
    });
    conn.peer.on_received(packets, bytes);
    if shared.config.check_reach && came.answer && conn.peer.is_news(shared.clock.millis(now)) {
        shared.proven.note(now, peer);
    }
    if came.upgrade_settled {
        shared.upgrade_settled(&conn);
    }
    came.report(shared, &conn, acquired);
    for packet in came.turned_away {
        shared.refuse(peer, &packet, &busy(&packet.header));
    }
    for (slot, place) in came.ready {
        // What has waited for proof of its address was counted with the half-open connections.
        let place = place.unwrap_or_else(|| shared.calls.take_anyway(*peer.ip()));
        begin(shared, &conn, slot, place);
    }
}

/// What came of a run of packets.
#[derive(Default)]
struct Came {
    /// Calls begun, executed or not.
    begun: usize,
    /// Calls to be executed.
    ready: Vec<(Slot, Option<Place>)>,
    /// They would have begun a call more than there may be.
    turned_away: Vec<Packet>,
    rejected: Vec<Rejected>,
    /// The peer receives what we send it.
    answer: bool,
    /// The server has said which of its services it is.
    upgrade_settled: bool,
}

impl Came {
    fn report(&self, shared: &Shared, conn: &Connection, acquired: Acquire) {
        let peer = conn.peer.address();
        for reason in &self.rejected {
            shared.dropped(peer, *reason);
        }
        for _ in &self.turned_away {
            shared.dropped(peer, Unplaced::TooManyCalls);
        }
        // One acquisition for each call; a new connection is one even if its packet begins none.
        let acquisitions = self.begun.max(usize::from(acquired != Acquire::Reused));
        for outcome in iter::once(acquired)
            .chain(iter::repeat(Acquire::Reused))
            .take(acquisitions)
        {
            shared.sink.event(&Event::Acquired {
                side: Side::Service,
                scope: conn.scope(),
                service: conn.service,
                security: conn.security,
                outcome,
            });
        }
    }
}

/// Gives a call to its service.
fn begin(shared: &Arc<Shared>, conn: &Ref<Connection>, slot: Slot, place: Place) {
    conn.count_call();
    shared.totals.add_answered();
    let handler = shared.services.read().get(&conn.service).cloned();
    let call = ServiceCall::new(conn.clone(), slot);
    match handler {
        // Its connection may be newer than the last look of the shutdown: nothing would ever end the call.
        _ if shared.is_closing() => call.abort(abort_codes::RX_CALL_DEAD),
        Some(handler) => {
            drop(tokio::spawn(serve(Arc::clone(shared), handler, call, place)));
        }
        None => call.abort(abort_codes::RX_INVALID_OPERATION),
    }
}

/// Waits for its turn, so that a flood of calls is answered one after the other. A handler that panics ends its task: the
/// call is aborted when it is dropped, and its place and its turn are given back.
async fn serve(shared: Arc<Shared>, handler: Arc<dyn Service>, call: ServiceCall, place: Place) {
    if shared.answering.available_permits() == 0 {
        shared.totals.add_waited();
    }
    let permit = shared.answering.acquire().await;
    handler.handle(call).await;
    drop((permit, place));
}

/// So many turns in a batch are worth waiting for what comes of them.
const MANY: usize = 4;
