//! Why a datagram is dropped before anything looks for its connection.

use super::reason::reasons;

reasons! {
    /// A rule of the wire that a datagram breaks, whatever the state of its connection. The datagram is dropped whole and
    /// never answered.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
    pub enum Malformed {
        /// Shorter than a header.
        #[error("shorter than a header")]
        Short = "short",
        /// Its type is none that is ever sent.
        #[error("unknown packet type {0}")]
        UnknownType(u8) = "unknown_type",
        /// The service id is 0, and it is neither VERSION, DEBUG nor an ABORT (OpenAFS sends those so when it has no
        /// connection).
        #[error("service id 0")]
        NoService = "no_service",
        /// DATA that belongs to no call.
        #[error("DATA with call number 0")]
        DataWithoutCall = "data_without_call",
        /// DATA with sequence number 0, or a jumbogram in which one of the parts would have it.
        #[error("DATA with sequence number 0")]
        DataWithoutSeq = "data_without_seq",
        /// ACK, ACKALL or BUSY that belongs to no call.
        #[error("ACK, ACKALL or BUSY with call number 0")]
        AckWithoutCall = "ack_without_call",
        /// CHALLENGE from the client side of a connection.
        #[error("CHALLENGE from a client")]
        ChallengeFromClient = "challenge_from_client",
        /// RESPONSE from the service side of a connection.
        #[error("RESPONSE from a service")]
        ResponseFromService = "response_from_service",
        /// BUSY from the client side of a connection.
        #[error("BUSY from a client")]
        BusyFromClient = "busy_from_client",
        /// ABORT without its code.
        #[error("ABORT without a code")]
        AbortWithoutCode = "abort_without_code",
        /// A jumbogram that ends where another part is announced.
        #[error("jumbogram cut short")]
        JumboShort = "jumbo_short",
        /// A jumbogram of more parts than fit a datagram.
        #[error("jumbogram of too many parts")]
        JumboTooMany = "jumbo_too_many",
        /// A part of a jumbogram that is the last of the call and is followed by another.
        #[error("jumbogram goes on after the last packet")]
        JumboAfterLast = "jumbo_after_last",
        /// The parts of a jumbogram disagree about which side sent them.
        #[error("jumbogram of both directions")]
        JumboDirection = "jumbo_direction",
    }
}
