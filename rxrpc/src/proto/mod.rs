//! The protocol without its input and output.
//!
//! The machine: [`parse`] takes datagrams apart, a [`Connection`] takes their packets and lays out those to be sent, and
//! [`endpoint`] answers what needs no connection. Time is an argument everywhere; nothing here waits, sends or locks.

pub mod abort_codes;
mod ack;
mod call;
mod channel;
mod congestion;
mod connection;
pub mod debug;
pub mod endpoint;
mod handshake;
mod jumbo;
mod keep_alive;
mod limiter;
mod malformed;
mod mtu;
mod path_search;
mod probation;
mod reason;
mod rejected;
mod rtt;
mod secure;
mod send_run;
mod seq;
mod unplaced;
mod upgrade;
mod wire;

pub use ack::{AckPacket, AckReason, AckTrailer, BadAck, SackTable};
pub use call::{CallError, CallLimits, Held, Read};
pub use connection::{CallSnapshot, Connection, ConnectionParams, ConnectionSnapshot, Outcome};
pub use handshake::Proof;
pub use jumbo::{JUMBO_PARTS, JUMBO_PARTS_MAX};
pub use keep_alive::{KeepAlive, keep_alive};
pub use limiter::{Limiter, Rate};
pub use malformed::Malformed;
pub use mtu::{DATAGRAM_LEAST, DATAGRAM_USUAL};
pub use reason::DropReason;
pub use rejected::Rejected;
pub use rtt::{RoundTrip, RttTally};
pub use secure::{Accepted, Acceptor, Caller, Level, PacketSecurity, Place, Sealed, Unopened, WallClock};
pub use send_run::{Resend, Resent, Transmit};
pub use seq::{
    AbortCode, CallNumber, ChannelIndex, ConnectionId, Epoch, SecurityIndex, Seq, Serial, ServiceId, Side,
    Slot,
};
pub use unplaced::Unplaced;
pub use upgrade::{Upgrade, asks_for_upgrade};
pub use wire::{Flags, Header, Packet, PacketType, Packets, parse};
