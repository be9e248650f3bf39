//! How a client proves who it is: CHALLENGE and RESPONSE of version 2 (rx-security.md 4).
//!
//! The machine: the service sends a number that nobody can guess. The client sends it back, one higher, encrypted with the
//! key of its ticket, together with the name of the connection, the numbers of its calls and its level, so that the answer
//! is good for nothing else; and the ticket, in which the service finds the same key. The old version is not spoken.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use subtle::ConstantTimeEq;

use super::ticket::{Ticket, TicketForm};
use super::{Fault, INDEX, Rxkad, ServerKeys};
use crate::crypto::fcrypt::Key;
use crate::proto::{
    self, AbortCode, Accepted, CallNumber, ChannelIndex, ConnectionId, Epoch, Level, PacketSecurity,
    WallClock,
};

/// The body of a CHALLENGE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// What the answer is made of.
    pub nonce: u32,
    /// The lowest level that the service takes.
    pub least: Level,
}

impl Challenge {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// It is too short, of another version, or asks for a level that does not exist.
    pub fn parse(mut body: &[u8]) -> Result<Self, Fault> {
        if body.len() < CHALLENGE_LEN {
            return Err(Fault::PacketShort);
        }
        if body.get_u32() != VERSION {
            return Err(Fault::Inconsistency);
        }
        let nonce = body.get_u32();
        let least = Level::from_number(body.get_u32()).ok_or(Fault::LevelFail)?;
        Ok(Self { nonce, least })
    }

    /// Writes the body.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let words = [VERSION, self.nonce, self.least.number(), 0];
        Bytes::from(words.map(u32::to_be_bytes).as_flattened().to_vec())
    }
}

/// What the encrypted part of a RESPONSE says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// The epoch of the connection.
    pub epoch: Epoch,
    /// Its id.
    pub cid: ConnectionId,
    /// The last call of each channel.
    pub calls: [CallNumber; ChannelIndex::COUNT],
    /// The nonce of the challenge, one higher.
    pub answer: u32,
    /// The level of the connection.
    pub level: Level,
}

/// A RESPONSE in its parts.
struct Parts<'a> {
    fixed: &'a [u8; FIXED_LEN],
    kvno: u32,
    ticket: &'a [u8],
}

impl<'a> Parts<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, Fault> {
        let (fixed, rest) = body.split_first_chunk::<FIXED_LEN>().ok_or(Fault::PacketShort)?;
        let mut words = fixed.as_slice();
        if words.get_u32() != VERSION {
            return Err(Fault::Inconsistency);
        }
        words.advance(4 + SEALED_LEN);
        let kvno = words.get_u32();
        let len = usize::try_from(words.get_u32()).map_err(|_| Fault::TicketLength)?;
        if !TICKET_LEN.contains(&len) {
            return Err(Fault::TicketLength);
        }
        let ticket = rest.get(..len).ok_or(Fault::PacketShort)?;
        Ok(Self { fixed, kvno, ticket })
    }
}

impl Response {
    /// The body of a RESPONSE.
    pub(super) fn seal(&self, key: &Key, iv: u64, kvno: u32, ticket: &[u8]) -> Bytes {
        let mut body = BytesMut::with_capacity(FIXED_LEN + ticket.len());
        body.put_slice(self.words(0).map(u32::to_be_bytes).as_flattened());
        body.put_u32(kvno);
        // A ticket comes in a message of Kerberos, whose lengths have 32 bits.
        body.put_u32(u32::try_from(ticket.len()).unwrap_or(u32::MAX));
        let checksum = checksum(&body);
        if let Some(head) = body.first_chunk_mut::<{ HEAD_LEN + SEALED_LEN }>() {
            head.copy_from_slice(self.words(checksum).map(u32::to_be_bytes).as_flattened());
            if let Some(sealed) = head.last_chunk_mut::<SEALED_LEN>() {
                key.encrypt_pcbc(iv, sealed);
            }
        }
        body.put_slice(ticket);
        body.freeze()
    }

    /// Opens the encrypted part and checks that it is of one piece and for this connection.
    fn open(parts: &Parts<'_>, key: &Key, iv: u64, epoch: Epoch, cid: ConnectionId) -> Result<Self, Fault> {
        let mut body = *parts.fixed;
        if let Some((_, rest)) = body.split_first_chunk_mut::<HEAD_LEN>()
            && let Some(sealed) = rest.first_chunk_mut::<SEALED_LEN>()
        {
            key.decrypt_pcbc(iv, sealed);
        }
        let mut words = body.as_slice();
        words.advance(HEAD_LEN);
        let (their_epoch, their_cid, their_checksum) = (words.get_u32(), words.get_u32(), words.get_u32());
        let index = words.get_u32();
        let calls = std::array::from_fn(|_| CallNumber(words.get_u32()));
        let (answer, level) = (words.get_u32(), words.get_u32());
        if let Some((_, rest)) = body.split_first_chunk_mut::<CHECKSUM_AT>()
            && let Some(field) = rest.first_chunk_mut::<4>()
        {
            *field = [0; 4];
        }
        let same = checksum(&body).ct_eq(&their_checksum)
            & their_epoch.ct_eq(&epoch.0)
            & their_cid.ct_eq(&cid.0)
            & index.ct_eq(&u32::from(INDEX.0));
        let counted = calls.iter().all(|call: &CallNumber| call.0 <= CALLS_MAX);
        if !bool::from(same) || !counted {
            return Err(Fault::SealedInconsistent);
        }
        let level = Level::from_number(level).ok_or(Fault::LevelFail)?;
        Ok(Self {
            epoch,
            cid,
            calls,
            answer,
            level,
        })
    }

    /// All before the version of the key: what is encrypted begins after the second word.
    fn words(&self, checksum: u32) -> [u32; 12] {
        let [a, b, c, d] = self.calls.map(|call| call.0);
        [
            VERSION,
            0,
            self.epoch.0,
            self.cid.0,
            checksum,
            u32::from(INDEX.0),
            a,
            b,
            c,
            d,
            self.answer,
            self.level.number(),
        ]
    }
}

/// Over all that has a fixed place, with 0 for the checksum itself.
fn checksum(fixed: &[u8]) -> u32 {
    fixed.iter().fold(1_000_003, |sum: u32, byte| {
        sum.wrapping_mul(0x1020_4081).wrapping_add(u32::from(*byte))
    })
}

/// What a service asks of the client of one connection, and how it judges the answer.
#[derive(Debug)]
pub struct Acceptor {
    /// What opens tickets.
    pub keys: Arc<ServerKeys>,
    /// The lowest level it takes.
    pub least: Level,
    /// Random, and used once.
    pub nonce: u32,
    /// The epoch of the connection.
    pub epoch: Epoch,
    /// Its id.
    pub cid: ConnectionId,
    /// What tickets are dated by.
    pub clock: WallClock,
}

impl Acceptor {
    /// In the order of OpenAFS, which decides on the code if several things are wrong.
    fn judge(&self, now: Instant, response: &[u8]) -> Result<Accepted, Fault> {
        let parts = Parts::parse(response)?;
        let form = TicketForm::from_kvno(parts.kvno).ok_or(Fault::UnknownKey)?;
        let ticket = Ticket::open(form, parts.ticket, &self.keys)?;
        let time = self.clock.at(now);
        ticket.check_times(time)?;
        let session = ticket.session_key()?;
        let (key, iv) = (Key::new(session.bytes()), u64::from_be_bytes(session.bytes()));
        let response = Response::open(&parts, &key, iv, self.epoch, self.cid)?;
        if !bool::from(response.answer.ct_eq(&self.nonce.wrapping_add(1))) {
            return Err(Fault::OutOfSequence);
        }
        if response.level < self.least {
            return Err(Fault::LevelFail);
        }
        let security: Arc<dyn PacketSecurity> =
            Arc::new(Rxkad::service(self.epoch, self.cid, &session, response.level));
        Ok(Accepted {
            security,
            caller: ticket.caller(response.level)?,
            calls: response.calls,
            until: now
                .checked_add(Duration::from_secs(ticket.ends().saturating_sub(time)))
                .map(|until| (until, Fault::Expired.code())),
        })
    }
}

impl proto::Acceptor for Acceptor {
    fn challenge(&self) -> Bytes {
        let (nonce, least) = (self.nonce, self.least);
        Challenge { nonce, least }.encode()
    }

    fn accept(&self, now: Instant, response: &[u8]) -> Result<Accepted, AbortCode> {
        Ok(self.judge(now, response)?)
    }
}

const VERSION: u32 = 2;
const CHALLENGE_LEN: usize = 16;
/// Version and a spare word.
const HEAD_LEN: usize = 8;
const SEALED_LEN: usize = 40;
/// All before the ticket.
const FIXED_LEN: usize = 56;
const CHECKSUM_AT: usize = 16;
/// OpenAFS `MINKTCTICKETLEN` and `MAXKTCTICKETLEN`.
const TICKET_LEN: std::ops::RangeInclusive<usize> = 32..=12_000;
const CALLS_MAX: u32 = 0x7fff_ffff;
