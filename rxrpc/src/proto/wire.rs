//! Packets as they stand on the wire.

/// What a packet is. Numbers as in OpenAFS `rx_packet.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketType {
    /// Part of a request or reply.
    Data,
    /// What was received.
    Ack,
    /// The peer has no room for another call.
    Busy,
    /// A call or a connection is over.
    Abort,
    /// Everything was received.
    AckAll,
    /// The service asks who the client is.
    Challenge,
    /// The client's answer.
    Response,
    /// A question about the state of an endpoint.
    Debug,
    /// Path MTU parameters (type 9) and others never sent to us.
    Params,
    /// A question for the version of the program.
    Version,
}
