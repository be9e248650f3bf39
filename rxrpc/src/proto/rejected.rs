//! Why a packet changed nothing on the connection it was for.

use super::BadAck;

/// A rule of the connection's state that a packet breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejected {
    /// It carries another security class than the connection.
    SecurityMismatch,
    /// It carries another service than the connection.
    ServiceMismatch,
    /// The connection was aborted.
    ConnectionDead,
    /// Of a call that is over and that another has followed.
    StaleCall,
    /// Of a call that was not made, or that cannot begin like this.
    UnknownCall,
    /// Of a call that is over; it is answered from the channel's memory.
    CallOver,
    /// A type that has no place on the connection.
    Unexpected,
    /// DATA that is here already.
    Duplicate,
    /// DATA that may not be sent yet.
    BeyondWindow,
    /// DATA that contradicts other DATA about where the stream ends.
    EndMoved,
    /// DATA of a reply before the end of the request was sent.
    EarlyReply,
    /// DATA that was tampered with.
    BadSeal,
    /// An ACK that cannot be read.
    BadAck(BadAck),
    /// An ACK of what was never sent.
    AckBeyondSent,
}

impl Rejected {
    /// The label under which it is counted.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::SecurityMismatch => "security_mismatch",
            Self::ServiceMismatch => "service_mismatch",
            Self::ConnectionDead => "connection_dead",
            Self::StaleCall => "stale_call",
            Self::UnknownCall => "unknown_call",
            Self::CallOver => "call_over",
            Self::Unexpected => "unexpected_type",
            Self::Duplicate => "duplicate",
            Self::BeyondWindow => "beyond_window",
            Self::EndMoved => "end_moved",
            Self::EarlyReply => "early_reply",
            Self::BadSeal => "bad_seal",
            Self::BadAck(bad) => bad.name(),
            Self::AckBeyondSent => "ack_beyond_sent",
        }
    }
}
