//! What the transport tells about itself.
//!
//! The machine: the code emits plain [`Event`] values into a [`Sink`]; nothing here knows a metrics or tracing library.
//! Events are emitted after the state change they report and never while a lock of the data path is held by the
//! emitter, so a sink may take its own locks, but it must not block.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use crate::proto::{
    AbortCode, AckReason, DropReason, PacketType, Proof, Resend, SecurityIndex, ServiceId, Side,
};

/// The target of the events and spans of `tracing` that tell of single requests: for traces, not for the log.
pub const SPAN_TARGET: &str = "afs::span";

/// Receives events. Called on the receive path and on callers' threads: it must be quick and must not block.
pub trait Sink: Send + Sync + 'static {
    /// Takes one event.
    fn event(&self, event: &Event<'_>);
}

/// A sink that ignores everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullSink;

impl Sink for NullSink {
    fn event(&self, _event: &Event<'_>) {}
}

/// One thing that happened in the transport.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A call got its connection (client side), or a received packet found or made one (service side).
    Acquired {
        /// Which side of the connection we are.
        side: Side,
        /// Scope of the target (the cell, for AFS), empty for service connections.
        scope: &'a Arc<str>,
        /// Service the connection speaks.
        service: ServiceId,
        /// How it is protected.
        security: SecurityIndex,
        /// How the connection was come by.
        outcome: Acquire,
    },
    /// The reaper met a connection that had come back to life: its compare-and-swap failed and it was left alone.
    ReapLost {
        /// Which side of the connection we are.
        side: Side,
    },
    /// A connection ended.
    Closed {
        /// Which side of the connection we are.
        side: Side,
        /// Scope of the target.
        scope: &'a Arc<str>,
        /// Service the connection spoke.
        service: ServiceId,
        /// Why it ended.
        reason: CloseReason,
        /// Time from its creation.
        age: Duration,
        /// Calls it carried.
        calls: u64,
    },
    /// A call waits because all channels it may use are busy. `ChannelWaited` follows.
    ChannelAwaited {
        /// Service of the call.
        service: ServiceId,
    },
    /// A call does not wait any more: it has a channel, or was given up.
    ChannelWaited {
        /// Service of the call.
        service: ServiceId,
        /// Time spent waiting.
        waited: Duration,
    },
    /// A call ended.
    CallEnded {
        /// Which side of the call we were.
        side: Side,
        /// Scope of the target.
        scope: &'a Arc<str>,
        /// Service of the call.
        service: ServiceId,
        /// What the application has named it, empty if it has not.
        name: &'static str,
        /// How it ended.
        result: CallResult,
        /// From start to end.
        duration: Duration,
        /// Packets that might be under way to the peer at its end; `None` if it died with its connection.
        window: Option<u32>,
    },
    /// The ends of a connection have got to know each other, or have not.
    Secured {
        /// Which side of the connection we are.
        side: Side,
        /// The security class.
        security: SecurityIndex,
        /// How it went.
        proof: Proof,
    },
    /// A server that was asked for a newer service has answered.
    UpgradeAnswered {
        /// The service that was asked.
        service: ServiceId,
        /// The service that answers: the same if the server has no newer one.
        answered: ServiceId,
    },
    /// A datagram was taken or sent.
    Packet {
        /// True if we sent it.
        sent: bool,
        /// Its type.
        packet_type: PacketType,
        /// Packets of this type in the batch.
        packets: u64,
        /// Their bytes, headers included.
        bytes: u64,
    },
    /// A packet was thrown away.
    Dropped {
        /// The rule it broke.
        reason: DropReason,
        /// Where it came from.
        peer: SocketAddrV4,
    },
    /// A peer was sent a packet so that its calls find the way to us.
    KeptAlive {
        /// The peer.
        peer: SocketAddrV4,
    },
    /// A search, or a black hole, has changed how large datagrams to a peer may be.
    PathChanged {
        /// The peer.
        peer: SocketAddrV4,
        /// Bytes of UDP payload that travel in one piece now.
        datagram: u16,
        /// Larger ones vanished without a word.
        black_hole: bool,
    },
    /// The network gave a datagram back (ICMP).
    NetworkError {
        /// Whom it was for.
        peer: SocketAddrV4,
        /// Why (an `errno`).
        errno: i32,
    },
    /// The time that packets take to the peer and back was measured.
    RoundTrip {
        /// Which side of the connection we are.
        side: Side,
        /// Service the connection speaks.
        service: ServiceId,
        /// The time: the mean if it was measured more than once in one turn.
        rtt: Duration,
    },
    /// ACKs were taken or sent.
    Acks {
        /// True if we sent them.
        sent: bool,
        /// Why.
        reason: AckReason,
        /// How many.
        packets: u64,
    },
    /// DATA packets were sent again.
    Retransmitted {
        /// Why.
        why: Resend,
        /// How many.
        packets: u64,
    },
}

/// How a call came by its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Acquire {
    /// There was none: a new one was made.
    Created,
    /// One in use had room.
    Reused,
    /// An idle one was taken back from the list.
    Revived,
    /// The one in the tree could not be used any more (aborted, call numbers ran out): a new one took its place.
    Replaced,
    /// The one in the tree was dying: it was superseded by a new one in the same turn.
    RefusedDying,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// Idle for longer than the expiry.
    IdleReaped,
    /// No call numbers left.
    CallNumbersExhausted,
    /// Aborted as a whole.
    Aborted,
    /// The peer went silent or unreachable.
    PeerDead,
    /// More connections than the limit allows.
    OverLimit,
    /// The endpoint shut down.
    Shutdown,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallResult {
    /// Wholly done.
    Ok,
    /// The peer aborted it.
    Aborted(AbortCode),
    /// A limit of ours ran out.
    TimedOut,
    /// The network or the peer failed.
    NetworkError,
    /// We gave it up.
    Cancelled,
}
