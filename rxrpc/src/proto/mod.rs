//! The protocol without its input and output.

pub mod abort_codes;
mod ack;
mod call;
mod jumbo;
mod malformed;
mod seq;
mod wire;

pub use ack::{AckPacket, AckReason, AckTrailer, BadAck, SackTable};
pub use call::{CallError, CallLimits};
pub use malformed::Malformed;
pub use seq::{
    AbortCode, CallNumber, ChannelIndex, ConnectionId, Epoch, SecurityIndex, Seq, Serial, ServiceId, Side,
    Slot,
};
pub use wire::{Flags, Header, Packet, PacketType, Packets, parse};
