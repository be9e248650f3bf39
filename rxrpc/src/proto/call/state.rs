//! The phases of a call and the steps between them.
//!
//! The machine: a client call sends its request, awaits the reply, receives it. A service call receives the request,
//! executes, sends the reply, awaits its acknowledgement. Either is over at the end of that line, or at once when it
//! fails. A step that a phase does not know changes nothing: [`Phase::after`] is the whole table.

use crate::proto::Side;

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Client: the request is being queued.
    SendRequest,
    /// Client: the request is queued to its end; nothing of the reply has come.
    AwaitReply,
    /// Client: part of the reply has come.
    ReceiveReply,
    /// Service: the request is arriving.
    ReceiveRequest,
    /// Service: the request is here; the reply has not begun.
    Execute,
    /// Service: the reply is being queued.
    SendReply,
    /// Service: the reply is queued to its end but not wholly acknowledged.
    AwaitAck,
    /// Nothing is left to do on the wire.
    Over,
}

/// What moves a call on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// The application has ended its direction.
    Finished,
    /// The first DATA of the reply came.
    ReplyBegun,
    /// The peer's direction is here to its end.
    ReceivedAll,
    /// The application has begun its reply.
    ReplyQueued,
    /// All that we sent has been acknowledged.
    SentAll,
    /// The call failed.
    Failed,
}

impl Phase {
    /// Where a new call begins.
    #[must_use]
    pub(crate) const fn first(side: Side) -> Self {
        match side {
            Side::Client => Self::SendRequest,
            Side::Service => Self::ReceiveRequest,
        }
    }

    /// The phase after `step`, or `None` where the step changes nothing.
    #[must_use]
    pub(crate) const fn after(self, step: Step) -> Option<Self> {
        match (self, step) {
            (Self::SendRequest, Step::Finished) => Some(Self::AwaitReply),
            (Self::AwaitReply, Step::ReplyBegun) => Some(Self::ReceiveReply),
            (Self::ReceiveReply, Step::ReceivedAll) => Some(Self::Over),
            (Self::ReceiveRequest, Step::ReceivedAll) => Some(Self::Execute),
            (Self::Execute, Step::ReplyQueued) => Some(Self::SendReply),
            (Self::SendReply, Step::Finished) => Some(Self::AwaitAck),
            (Self::AwaitAck, Step::SentAll) => Some(Self::Over),
            (Self::Over, _) => None,
            (_, Step::Failed) => Some(Self::Over),
            _ => None,
        }
    }

    /// True while packets of the peer's direction are expected.
    #[must_use]
    pub(crate) const fn receives(self) -> bool {
        matches!(self, Self::AwaitReply | Self::ReceiveReply | Self::ReceiveRequest)
    }

    /// True while DATA of ours may leave.
    #[must_use]
    pub(crate) const fn sends(self) -> bool {
        matches!(
            self,
            Self::SendRequest | Self::AwaitReply | Self::SendReply | Self::AwaitAck
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 8] = [
        Phase::SendRequest,
        Phase::AwaitReply,
        Phase::ReceiveReply,
        Phase::ReceiveRequest,
        Phase::Execute,
        Phase::SendReply,
        Phase::AwaitAck,
        Phase::Over,
    ];
    const STEPS: [Step; 6] = [
        Step::Finished,
        Step::ReplyBegun,
        Step::ReceivedAll,
        Step::ReplyQueued,
        Step::SentAll,
        Step::Failed,
    ];

    /// The whole table: a changed edge must show here.
    #[test]
    fn table() {
        let mut edges = Vec::new();
        for phase in PHASES {
            for step in STEPS {
                if let Some(next) = phase.after(step) {
                    edges.push(format!("{phase:?} --{step:?}--> {next:?}"));
                }
            }
        }
        assert_eq!(
            edges,
            [
                "SendRequest --Finished--> AwaitReply",
                "SendRequest --Failed--> Over",
                "AwaitReply --ReplyBegun--> ReceiveReply",
                "AwaitReply --Failed--> Over",
                "ReceiveReply --ReceivedAll--> Over",
                "ReceiveReply --Failed--> Over",
                "ReceiveRequest --ReceivedAll--> Execute",
                "ReceiveRequest --Failed--> Over",
                "Execute --ReplyQueued--> SendReply",
                "Execute --Failed--> Over",
                "SendReply --Finished--> AwaitAck",
                "SendReply --Failed--> Over",
                "AwaitAck --SentAll--> Over",
                "AwaitAck --Failed--> Over",
            ]
        );
    }
}
