//! What a connection tells about itself to rxdebug.

use super::{Connection, Fate};
use crate::proto::call::{Call, Phase};
use crate::proto::{
    AbortCode, CallNumber, ChannelIndex, ConnectionId, Epoch, Held, SecurityIndex, Serial, Side, abort_codes,
};

/// The state of a connection at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionSnapshot {
    /// Which side of it we are.
    pub side: Side,
    /// The client's epoch.
    pub epoch: Epoch,
    /// Its id.
    pub cid: ConnectionId,
    /// Its security class.
    pub security: SecurityIndex,
    /// The serial sent last.
    pub serial: Serial,
    /// The code it was aborted with, 0 if it was not.
    pub error: AbortCode,
    /// Its channels.
    pub calls: [CallSnapshot; ChannelIndex::COUNT],
}

/// The state of a channel at one moment, in the terms of OpenAFS `rx.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallSnapshot {
    /// The last call begun.
    pub number: CallNumber,
    /// 0 none, 1 waiting for a thread, 2 active, 3 finished and remembered, 4 reply on its way.
    pub state: u8,
    /// 1 sending, 2 receiving, 3 failed, 4 at the end.
    pub mode: u8,
    /// 1 the reader waits, 16 the call waits for a thread.
    pub flags: u8,
    /// 1 packets to be read are queued, 2 packets to be sent.
    pub other: u8,
}

impl Connection {
    /// What it keeps for its calls.
    #[must_use]
    pub fn held(&self) -> Held {
        let calls = self.channels.iter().filter_map(|channel| channel.call.as_deref());
        calls.map(Call::held).fold(Held::default(), |all, one| Held {
            incoming: all.incoming + one.incoming,
            outgoing: all.outgoing + one.outgoing,
            bytes: all.bytes + one.bytes,
        })
    }

    /// Its state now.
    #[must_use]
    pub fn snapshot(&self) -> ConnectionSnapshot {
        let mut calls = [CallSnapshot::default(); ChannelIndex::COUNT];
        for ((snapshot, channel), held) in calls.iter_mut().zip(&self.channels).zip(self.probation.held) {
            *snapshot = match &channel.call {
                Some(call) if held => CallSnapshot {
                    state: PRECALL,
                    flags: WAIT_PROC,
                    ..of_call(call)
                },
                Some(call) => of_call(call),
                None => CallSnapshot {
                    state: if channel.memory.is_some() { DALLY } else { 0 },
                    ..*snapshot
                },
            };
            snapshot.number = channel.number;
        }
        ConnectionSnapshot {
            side: self.params.side,
            epoch: self.params.epoch,
            cid: self.params.cid,
            security: self.params.security,
            serial: self.serial,
            error: match self.fate {
                Fate::Open => AbortCode(0),
                Fate::Aborted(code) | Fate::Refused { code, .. } => code,
                Fate::Closed => abort_codes::RX_CALL_DEAD,
            },
            calls,
        }
    }
}

fn of_call(call: &Call) -> CallSnapshot {
    let (incoming, outgoing) = call.queued();
    CallSnapshot {
        number: call.slot().call,
        state: match call.phase() {
            Phase::Over => DALLY,
            Phase::AwaitAck => HOLD,
            _ => ACTIVE,
        },
        mode: match call.phase() {
            _ if call.error().is_some() => ERROR,
            Phase::SendRequest | Phase::SendReply => SENDING,
            Phase::Over | Phase::AwaitAck => EOF,
            _ => RECEIVING,
        },
        flags: u8::from(call.waits_for_peer()),
        other: u8::from(incoming) | (u8::from(outgoing) << 1),
    }
}

const PRECALL: u8 = 1;
const ACTIVE: u8 = 2;
const DALLY: u8 = 3;
const HOLD: u8 = 4;
const SENDING: u8 = 1;
const RECEIVING: u8 = 2;
const ERROR: u8 = 3;
const EOF: u8 = 4;
const WAIT_PROC: u8 = 16;
