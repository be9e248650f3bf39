//! The seam between connections and security classes.
//!
//! The machine: a class gives each connection a [`PacketSecurity`], which seals what is sent, checks what comes and opens
//! what is read. A client has it from the start. A service has to ask first who is there: until the client has answered,
//! its connection has an [`Acceptor`], and what comes is kept as it is. A packet is checked on receipt, by as little work
//! as shows that it is the peer's, so that one that is not can be dropped as if it had been lost. It is opened by whoever
//! reads it, on his own task, after it was acknowledged (rxrpc.md 6.3).

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::proto::{AbortCode, CallNumber, ChannelIndex, SecurityIndex, Seq};

/// The security class of one connection, as the call machine sees it.
pub trait PacketSecurity: Send + Sync {
    /// Its number on the wire.
    fn index(&self) -> SecurityIndex;

    /// Application bytes that fit into a packet with `room` bytes of body.
    fn payload_max(&self, room: usize) -> usize;

    /// Makes bodies out of the payloads of successive packets, the first of which stands at `first`. Each packet is sealed
    /// once, when it is queued: what is sent again is the same bytes.
    fn seal(&self, first: Place, bodies: &mut [Sealed]);

    /// Whether a received body was sealed by the peer for this place, as far as can be told without opening all of it.
    ///
    /// # Errors
    ///
    /// It was not; the code says in which way.
    fn check(&self, place: Place, checksum: u16, body: &[u8]) -> Result<(), AbortCode>;

    /// Takes the application bytes out of a received body.
    ///
    /// # Errors
    ///
    /// The code with which to abort the call when the body was tampered with.
    fn open(&self, place: Place, checksum: u16, body: Bytes) -> Result<Bytes, AbortCode>;

    /// A client's answer to a challenge; `calls` are the last of its channels.
    ///
    /// # Errors
    ///
    /// The code with which to abort the connection: the challenge cannot be answered, or asks for more than we give.
    fn respond(&self, challenge: &[u8], calls: [CallNumber; ChannelIndex::COUNT])
    -> Result<Bytes, AbortCode>;
}

/// How a service finds out who is at the other end of one connection.
pub trait Acceptor: fmt::Debug + Send + Sync {
    /// What the client is asked: the same each time.
    fn challenge(&self) -> Bytes;

    /// Judges what the client answers at `now`.
    ///
    /// # Errors
    ///
    /// The code with which to abort the connection.
    fn accept(&self, now: Instant, response: &[u8]) -> Result<Accepted, AbortCode>;
}

/// A client that has proven who it is.
pub struct Accepted {
    /// What its packets are sealed with.
    pub security: Arc<dyn PacketSecurity>,
    /// Who it is.
    pub caller: Arc<Caller>,
    /// The last call of each of its channels.
    pub calls: [CallNumber; ChannelIndex::COUNT],
    /// How long that holds, and the code with which the connection is aborted after that.
    pub until: Option<(Instant, AbortCode)>,
}

/// Who calls, as a security class has found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub name: String,
    /// The user's instance, empty if there is none.
    pub instance: String,
    /// The cell or realm that knows the user.
    pub cell: String,
    /// How the connection is protected.
    pub level: Level,
}

/// How much of what is sent is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Who speaks.
    Clear,
    /// And that nothing was changed.
    Auth,
    /// And that nobody else reads it.
    #[default]
    Crypt,
}

impl Level {
    /// All of them, the lowest first.
    pub const ALL: [Self; 3] = [Self::Clear, Self::Auth, Self::Crypt];

    /// The level with this number.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Clear),
            1 => Some(Self::Auth),
            2 => Some(Self::Crypt),
            _ => None,
        }
    }

    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Clear => 0,
            Self::Auth => 1,
            Self::Crypt => 2,
        }
    }
}

/// Where a DATA packet stands: what a class binds its seal to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The channel of the call.
    pub channel: ChannelIndex,
    /// The call.
    pub call: CallNumber,
    /// The packet.
    pub seq: Seq,
}

/// A body ready to be sent; before that, its payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    /// What follows the header.
    pub body: Bytes,
    /// The checksum field of the header.
    pub checksum: u16,
}

impl Sealed {
    /// No bytes.
    pub const EMPTY: Self = Self {
        body: Bytes::new(),
        checksum: 0,
    };
}

/// A body as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unopened {
    /// Where it stands.
    pub place: Place,
    /// What follows the header, and the checksum field of that.
    pub sealed: Sealed,
}

impl Unopened {
    /// Its application bytes.
    ///
    /// # Errors
    ///
    /// As those of [`PacketSecurity::open`].
    pub fn open(self, security: &dyn PacketSecurity) -> Result<Bytes, AbortCode> {
        security.open(self.place, self.sealed.checksum, self.sealed.body)
    }
}

/// What the calendar said at some instant, so that it can be known at others.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    /// The instant.
    pub read_at: Instant,
    /// Time since 1970 at that.
    pub unix: Duration,
}

impl WallClock {
    /// Seconds from 1970 to `now`.
    #[must_use]
    pub fn at(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.read_at);
        self.unix.saturating_add(since).as_secs()
    }
}
