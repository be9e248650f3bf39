//! The receive path: from a datagram to the connection it is for.
//!
//! The machine: a batch of datagrams is parsed into packets; neighbours for the same connection are handed over in one
//! turn. A packet from a client is looked up in the service tree, and when nothing living is there a fresh connection is
//! published in the same turn: no call is ever turned away because a connection is dying. A packet from a server is
//! looked up by connection id. Whatever fits nothing is dropped and counted; a few questions that need no connection
//! (version, debug, calls to unknown services) are answered on the spot.

use std::iter;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::answer;
use super::connection::{Connection, Key, ServiceKey};
use super::endpoint::Shared;
use super::service::{Service, ServiceCall};
use super::socket::Inbox;
use super::traffic::{Traffic, Way};
use crate::cache::{Life, Ref};
use crate::events::{Acquire, Event};
use crate::proto::endpoint::{NO_SUCH_SERVICE, busy, raw_abort};
use crate::proto::{
    self, ConnectionParams, Header, Malformed, Packet, PacketType, SecurityIndex, Seq, ServiceId, Side,
    Unplaced, Upgrade, abort_codes,
};

/// The task that receives.
pub(crate) struct Receiver {
    shared: Arc<Shared>,
    batch: Vec<(SocketAddrV4, Packet)>,
}

impl Receiver {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            batch: Vec::new(),
        }
    }

    /// Receives until the task is dropped.
    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
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
            self.dispatch();
            if let Err(error) = received {
                // An earlier send met an error that the kernel reports here; the socket itself is good.
                tracing::debug!(%error, "receive failed");
                tokio::task::yield_now().await;
            }
        }
    }

    fn datagram(&mut self, peer: SocketAddrV4, datagram: Bytes) {
        match proto::parse(datagram) {
            // No more than the peer was told that we take.
            Ok(packets) if packets.len() > self.shared.config.parts_max() => {
                self.shared.dropped(peer, Malformed::JumboTooMany);
            }
            Ok(packets) => self.batch.extend(packets.map(|packet| (peer, packet))),
            Err(malformed) => self.shared.dropped(peer, malformed),
        }
    }

    /// Hands the batch over, neighbours for one connection together.
    fn dispatch(&mut self) {
        let now = self.shared.clock.now();
        let mut packets = self.batch.drain(..).peekable();
        while let Some((peer, packet)) = packets.next() {
            let destination = Destination::of(peer, &packet.header);
            let Some((conn, acquired)) = find(&self.shared, peer, &packet) else {
                continue;
            };
            let mut run = vec![packet];
            while let Some((_, packet)) =
                packets.next_if(|(peer, packet)| Destination::of(*peer, &packet.header) == destination)
            {
                run.push(packet);
            }
            deliver(&self.shared, &conn, acquired, run, now);
        }
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
fn find(shared: &Arc<Shared>, peer: SocketAddrV4, packet: &Packet) -> Option<(Ref<Connection>, Acquire)> {
    let header = &packet.header;
    if answer::is_question(header) {
        answer::question(shared, peer, packet);
        return None;
    }
    let found = if header.flags.client_initiated() {
        find_service(shared, peer, header)
    } else {
        find_client(shared, peer, header)
    };
    found.inspect_err(|reason| shared.dropped(peer, *reason)).ok()
}

/// For a client connection the peer's address may be any, as a server may have several; its port may not (rxrpc.md 2.4).
fn find_client(
    shared: &Shared,
    peer: SocketAddrV4,
    header: &Header,
) -> Result<(Ref<Connection>, Acquire), Unplaced> {
    if header.epoch != shared.epoch {
        return Err(Unplaced::ForeignEpoch);
    }
    let conn = shared
        .connections
        .client_by_id(header.cid)
        .ok_or(Unplaced::NoConnection)?;
    if conn.peer.address().port() != peer.port() {
        return Err(Unplaced::ForeignPort);
    }
    Ok((conn, Acquire::Reused))
}

fn find_service(
    shared: &Arc<Shared>,
    peer: SocketAddrV4,
    header: &Header,
) -> Result<(Ref<Connection>, Acquire), Unplaced> {
    let key = ServiceKey {
        peer,
        epoch: header.epoch,
        cid: header.cid,
    };
    if let Some(found) = shared.connections.service(&key) {
        return Ok(found);
    }
    // Only DATA may start something; only its first packet is worth a refusal (rxrpc.md 17.3, 18).
    if header.packet_type != PacketType::Data {
        return Err(Unplaced::NoConnection);
    }
    let (service, upgrade) = shared.service_asked(header);
    let refusal = if !shared.services.read().contains_key(&service) {
        Some((Unplaced::UnknownService, raw_abort(header, NO_SUCH_SERVICE)))
    } else if header.security != SecurityIndex(0) {
        Some((Unplaced::UnknownSecurity, raw_abort(header, NO_SUCH_SERVICE)))
    } else if shared.is_closing() {
        Some((Unplaced::Closing, raw_abort(header, abort_codes::RX_CALL_DEAD)))
    } else if shared.connections.len(Side::Service) >= shared.config.max_service_connections {
        Some((Unplaced::TooManyConnections, busy(header)))
    } else {
        None
    };
    if let Some((reason, reply)) = refusal {
        if header.seq == Seq(1) {
            shared.answer(peer, &reply);
        }
        return Err(reason);
    }
    Ok(shared.connections.publish_service(key, &|life| {
        service_connection(shared, life, key, service, upgrade)
    }))
}

fn service_connection(
    shared: &Arc<Shared>,
    life: Life,
    key: ServiceKey,
    service: ServiceId,
    upgrade: Upgrade,
) -> Connection {
    let now = shared.clock.now();
    let params = ConnectionParams {
        side: Side::Service,
        epoch: key.epoch,
        cid: key.cid,
        service,
        upgrade,
        security: SecurityIndex(0),
        window: shared.config.request_window,
        datagram: shared.config.max_datagram,
        jumbograms: shared.config.jumbograms,
    };
    let proto = proto::Connection::new(params);
    Connection::new(
        Arc::clone(shared),
        life,
        Key::Service(key),
        shared.peers.get(key.peer),
        Arc::from(""),
        proto,
        now,
    )
}

/// Gives a run of packets to their connection in one turn, and new calls to their service.
fn deliver(shared: &Arc<Shared>, conn: &Ref<Connection>, acquired: Acquire, run: Vec<Packet>, now: Instant) {
    let mut calls = Vec::new();
    let mut rejected = Vec::new();
    let mut upgrade_settled = false;
    let bytes = run.iter().map(|packet| Header::LEN + packet.body.len());
    conn.peer
        .on_received(run.len() as u64, bytes.sum::<usize>() as u64);
    conn.turn(now, |turn| {
        for packet in run {
            let outcome = turn.state.proto.handle_packet(now, packet);
            turn.touched(outcome.touched);
            if let Some(slot) = outcome.new_call {
                conn.peer.way_back.on_call(now, !outcome.late);
                calls.push(slot);
            }
            rejected.extend(outcome.rejected);
            upgrade_settled |= outcome.upgrade_settled;
        }
    });
    if upgrade_settled {
        shared.upgrade_settled(conn);
    }
    for reason in rejected {
        shared.dropped(conn.peer.address(), reason);
    }
    // One acquisition for each call; a new connection is one even if its packet begins none.
    let acquisitions = calls.len().max(usize::from(acquired != Acquire::Reused));
    for outcome in iter::once(acquired)
        .chain(iter::repeat(Acquire::Reused))
        .take(acquisitions)
    {
        shared.sink.event(&Event::Acquired {
            side: Side::Service,
            scope: &conn.scope,
            service: conn.service,
            outcome,
        });
    }
    for slot in calls {
        conn.count_call();
        shared.totals.add_answered();
        let handler = shared.services.read().get(&conn.service).cloned();
        let call = ServiceCall::new(conn.clone(), slot);
        match handler {
            Some(handler) => drop(tokio::spawn(serve(Arc::clone(&shared.answering), handler, call))),
            None => call.abort(abort_codes::RX_INVALID_OPERATION),
        }
    }
}

/// Waits for its turn, so that a flood of calls is answered one after the other; the calls that wait are bounded by the
/// number of service connections.
async fn serve(answering: Arc<Semaphore>, handler: Arc<dyn Service>, call: ServiceCall) {
    let permit = answering.acquire_owned().await;
    handler.handle(call).await;
    drop(permit);
}
