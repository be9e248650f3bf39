//! Why a datagram is dropped before anything looks for its connection.

/// A rule of the wire that a datagram breaks, whatever the state of its connection. The datagram is dropped whole and
/// never answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// Shorter than a header.
    #[error("shorter than a header")]
    Short,
    /// Its type is none that is ever sent.
    #[error("unknown packet type {0}")]
    UnknownType(u8),
    /// The service id is 0, and it is neither VERSION, DEBUG nor an ABORT (OpenAFS sends those so when it has no
    /// connection).
    #[error("service id 0")]
    NoService,
    /// DATA that belongs to no call.
    #[error("DATA with call number 0")]
    DataWithoutCall,
    /// DATA with sequence number 0, or a jumbogram in which one of the parts would have it.
    #[error("DATA with sequence number 0")]
    DataWithoutSeq,
    /// ACK, ACKALL or BUSY that belongs to no call.
    #[error("ACK, ACKALL or BUSY with call number 0")]
    AckWithoutCall,
    /// CHALLENGE from the client side of a connection.
    #[error("CHALLENGE from a client")]
    ChallengeFromClient,
    /// RESPONSE from the service side of a connection.
    #[error("RESPONSE from a service")]
    ResponseFromService,
    /// BUSY from the client side of a connection.
    #[error("BUSY from a client")]
    BusyFromClient,
    /// ABORT without its code.
    #[error("ABORT without a code")]
    AbortWithoutCode,
    /// A jumbogram that ends where another part is announced.
    #[error("jumbogram cut short")]
    JumboShort,
    /// A jumbogram of more parts than fit a datagram.
    #[error("jumbogram of too many parts")]
    JumboTooMany,
    /// A part of a jumbogram that is the last of the call and is followed by another.
    #[error("jumbogram goes on after the last packet")]
    JumboAfterLast,
    /// The parts of a jumbogram disagree about which side sent them.
    #[error("jumbogram of both directions")]
    JumboDirection,
}

impl Malformed {
    /// All names, for the registration of counters.
    pub const NAMES: [&str; 14] = [
        "short",
        "unknown_type",
        "no_service",
        "data_without_call",
        "data_without_seq",
        "ack_without_call",
        "challenge_from_client",
        "response_from_service",
        "busy_from_client",
        "abort_without_code",
        "jumbo_short",
        "jumbo_too_many",
        "jumbo_after_last",
        "jumbo_direction",
    ];

    /// The label under which it is counted.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::UnknownType(_) => "unknown_type",
            Self::NoService => "no_service",
            Self::DataWithoutCall => "data_without_call",
            Self::DataWithoutSeq => "data_without_seq",
            Self::AckWithoutCall => "ack_without_call",
            Self::ChallengeFromClient => "challenge_from_client",
            Self::ResponseFromService => "response_from_service",
            Self::BusyFromClient => "busy_from_client",
            Self::AbortWithoutCode => "abort_without_code",
            Self::JumboShort => "jumbo_short",
            Self::JumboTooMany => "jumbo_too_many",
            Self::JumboAfterLast => "jumbo_after_last",
            Self::JumboDirection => "jumbo_direction",
        }
    }
}
