//! What a new service connection has to show before it is worth its keep.
//!
//! The machine: anybody can send DATA in another's name, at no cost. So a service connection begins on probation:
//!
//! | standing | calls | ends |
//! |---|---|---|
//! | doubted: its address has never answered us | queued, not executed | proven by an answer, else given up after 20 s |
//! | proven | executed | kept once a call was answered, else given up after a minute |
//! | kept | executed | by the connection cache |
//!
//! While it is doubted, each packet of a call is answered by one PING and nothing is sent on a timer: what a forger makes
//! us send to his victim is no more packets than he sends, of 65 bytes each. A true peer repeats what is not answered and
//! asks on its own while it waits, so a lost PING, or a lost answer to it, is made up for by the peer. Of each call no
//! more is queued than the first packets of an ordinary size.
//!
//! Proof is an ACK that names the serial of a packet we sent on the connection. The answer to a PING does, and so does an
//! answer to anything else. The serials begin at a secret number, so that nobody can name one who does not receive what
//! we send to that address. That says nothing about who is there; only a security class does (rxrpc.md 18; OpenAFS
//! `checkReach`, whose serials begin at 1).

use std::time::{Duration, Instant};

use super::{AckPacket, ChannelIndex, Header, PacketType, Serial};

/// How a service connection stands, and which calls wait for that to change.
#[derive(Debug)]
pub(super) struct Probation {
    standing: Standing,
    /// Channels whose call has not been given to the application.
    pub(super) held: [bool; ChannelIndex::COUNT],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Doubted {
        /// The serial before the first that was sent.
        secret: Serial,
        until: Instant,
    },
    Proven {
        until: Instant,
    },
    Kept,
}

impl Probation {
    /// Of a connection that needs none.
    pub(super) const NONE: Self = Self {
        standing: Standing::Kept,
        held: [false; ChannelIndex::COUNT],
    };

    /// Begins one; `secret` is the serial before the first, if the address is doubted.
    pub(super) fn begin(now: Instant, secret: Option<Serial>) -> Self {
        Self {
            standing: match secret {
                Some(secret) => Standing::Doubted {
                    secret,
                    until: now + DOUBT_MAX,
                },
                None => Standing::Proven {
                    until: now + PROBATION,
                },
            },
            ..Self::NONE
        }
    }

    pub(super) fn is_doubted(&self) -> bool {
        matches!(self.standing, Standing::Doubted { .. })
    }

    /// True if the packet shows that its sender has received a packet of ours, the last of which had the serial `last`.
    pub(super) fn is_proof(&self, header: &Header, body: &[u8], last: Serial) -> bool {
        let Standing::Doubted { secret, .. } = self.standing else {
            return false;
        };
        header.packet_type == PacketType::Ack
            && AckPacket::parse(body).is_ok_and(|ack| ack.serial.after(secret) && !ack.serial.after(last))
    }

    /// The address has answered.
    pub(super) fn on_proof(&mut self, now: Instant) {
        if self.is_doubted() {
            self.standing = Standing::Proven {
                until: now + PROBATION,
            };
        }
    }

    /// A call was answered by the application.
    pub(super) fn on_served(&mut self) {
        self.standing = Standing::Kept;
    }

    /// True for DATA that is not queued while its call waits to be executed.
    pub(super) fn is_too_much(header: &Header, body: &[u8]) -> bool {
        header.packet_type == PacketType::Data && (header.seq.0 > HELD_PACKETS || body.len() > HELD_BYTES)
    }

    /// When it ends.
    pub(super) fn until(&self) -> Option<Instant> {
        match self.standing {
            Standing::Doubted { until, .. } | Standing::Proven { until } => Some(until),
            Standing::Kept => None,
        }
    }

    /// Goes on for another while.
    pub(super) fn extend(&mut self, now: Instant) {
        match &mut self.standing {
            Standing::Doubted { until, .. } => *until = now + DOUBT_MAX,
            Standing::Proven { until } => *until = now + PROBATION,
            Standing::Kept => {}
        }
    }
}

/// Long enough for a peer to repeat itself a few times (OpenAFS pings every 2 s, Linux every 3).
const DOUBT_MAX: Duration = Duration::from_secs(20);
const PROBATION: Duration = Duration::from_mins(1);
/// What is sent before the first ACK (RFC 6928; OpenAFS sends less, Linux 4).
const HELD_PACKETS: u32 = 10;
/// What an Ethernet carries in one piece.
const HELD_BYTES: usize = 1472 - Header::LEN;
