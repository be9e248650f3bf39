//! The protocol without its input and output.

mod call;
mod seq;
mod wire;

pub use call::{CallError, CallLimits};
pub use seq::{
    AbortCode, CallNumber, ChannelIndex, ConnectionId, Epoch, SecurityIndex, Seq, Serial, ServiceId, Side,
    Slot,
};
pub use wire::PacketType;
