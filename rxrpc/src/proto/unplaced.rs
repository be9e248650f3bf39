//! Why a packet found no connection and began none.

use super::reason::reasons;

reasons! {
    /// A rule about which packets find or begin a connection, and which questions are answered without one.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Unplaced {
        /// From a service, in an epoch that is not ours.
        ForeignEpoch = "foreign_epoch",
        /// From a service, about a connection of ours but from another port than it goes to.
        ForeignPort = "foreign_port",
        /// There is no such connection, and the packet is none that may begin one.
        NoConnection = "no_connection",
        /// It would begin a connection to a service that is not here.
        UnknownService = "unknown_service",
        /// It would begin a connection of a security class that its service does not have.
        UnknownSecurity = "unknown_security",
        /// It would begin a connection, and the endpoint is shutting down.
        Closing = "closing",
        /// It would begin a connection, and there are as many as there may be: in all or from its host.
        TooManyConnections = "too_many_connections",
        /// It would begin a connection from an address that has not answered us yet, and there are as many of those as
        /// there may be: in all or from its host.
        TooManyHalfOpen = "too_many_half_open",
        /// It would begin a call, and as many are waiting or answered as there may be: in all or from its host.
        TooManyCalls = "too_many_calls",
        /// A VERSION or DEBUG question too soon after others.
        TooManyQuestions = "too_many_questions",
        /// A DEBUG question, which this endpoint does not answer.
        DebugDisabled = "debug_disabled",
        /// A DEBUG packet that asks nothing: an answer, or one too short to say what is asked.
        NoQuestion = "no_question",
    }
}
