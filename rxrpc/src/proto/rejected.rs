//! Why a packet changed nothing on the connection it was for.

use super::BadAck;
use super::reason::reasons;

reasons! {
    /// A rule of the connection's state that a packet breaks.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Rejected {
        /// It carries another security class than the connection.
        SecurityMismatch = "security_mismatch",
        /// It carries another service than the connection.
        ServiceMismatch = "service_mismatch",
        /// The connection was aborted.
        ConnectionDead = "connection_dead",
        /// Of a call that is over and that another has followed.
        StaleCall = "stale_call",
        /// Of a call that was not made, or that cannot begin like this.
        UnknownCall = "unknown_call",
        /// Of a call that is over; it is answered from the channel's memory.
        CallOver = "call_over",
        /// A type that has no place on the connection.
        Unexpected = "unexpected_type",
        /// DATA that is here already.
        Duplicate = "duplicate",
        /// DATA that may not be sent yet.
        BeyondWindow = "beyond_window",
        /// DATA that is not queued before its sender has shown that it can be reached.
        Doubted = "doubted",
        /// DATA that contradicts other DATA about where the stream ends.
        EndMoved = "end_moved",
        /// DATA of a reply before the end of the request was sent.
        EarlyReply = "early_reply",
        /// DATA that the peer has not sealed, or not like this.
        BadSeal = "bad_seal",
        /// A challenge while no call is under way, or a response to none.
        NothingAsked = "nothing_asked",
        /// A challenge no newer than one that was answered.
        StaleChallenge = "stale_challenge",
        /// A challenge too soon after others.
        TooManyChallenges = "too_many_challenges",
        /// A challenge that cannot be answered, or asks for more than we give; the connection was aborted.
        BadChallenge = "bad_challenge",
        /// A response that proves nothing; the connection was aborted.
        BadResponse = "bad_response",
        /// For a connection whose client has proven who it is, but not for this long; the connection was aborted.
        Expired = "expired",
        /// An ACK of what was never sent.
        AckBeyondSent = "ack_beyond_sent",
        ;
        /// An ACK that cannot be read.
        BadAck(BadAck),
    }
}
