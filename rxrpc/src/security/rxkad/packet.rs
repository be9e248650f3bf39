//! What rxkad does to the packets of one connection (rx-security.md 3).
//!
//! The machine: a connection has a key, and an IV made of its name with which the place of each packet is sealed in the
//! header. Levels auth and crypt put a word before the payload that says again where the packet belongs and how long it
//! is, and encrypt the first block or everything. The first block alone therefore shows whether a body is what the
//! peer has sealed: it is [checked](PacketSecurity::check) on receipt, and a packet that was tampered with is dropped as if
//! it had been lost. The rest is decrypted where it is read.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::handshake::{Challenge, Response};
use super::{Fault, INDEX, SessionKey, Token};
use crate::crypto::fcrypt::Key;
use crate::proto::{
    AbortCode, CallNumber, ChannelIndex, ConnectionId, Epoch, Level, PacketSecurity, Place, Sealed,
    SecurityIndex,
};

/// The class on one connection.
pub struct Rxkad {
    key: Key,
    /// The session key once more: where the encryption of each body begins.
    iv: u64,
    /// What the places of packets are sealed with.
    checksum_iv: u64,
    level: Level,
    client: Option<Client>,
}

/// What only a client knows.
struct Client {
    epoch: Epoch,
    cid: ConnectionId,
    token: Token,
}

impl Rxkad {
    /// A client's side of a connection.
    #[must_use]
    pub fn client(epoch: Epoch, cid: ConnectionId, token: &Token, level: Level) -> Self {
        let client = Client {
            epoch,
            cid,
            token: token.clone(),
        };
        Self {
            client: Some(client),
            ..Self::service(epoch, cid, &token.key, level)
        }
    }

    /// A service's side of a connection, once it knows the key.
    #[must_use]
    pub fn service(epoch: Epoch, cid: ConnectionId, session: &SessionKey, level: Level) -> Self {
        let key = Key::new(session.bytes());
        let iv = u64::from_be_bytes(session.bytes());
        let names = [(u64::from(epoch.0) << 32) | u64::from(cid.0), u64::from(INDEX.0)];
        let mut text = names.map(u64::to_be_bytes);
        key.encrypt_pcbc(iv, text.as_flattened_mut());
        let [_, last] = text;
        Self {
            key,
            iv,
            checksum_iv: u64::from_be_bytes(last),
            level,
            client: None,
        }
    }

    /// The checksum in the header of a DATA packet. It does not depend on the body, nor on the direction.
    fn checksum(&self, place: Place) -> u16 {
        let channel = place.channel.index() as u64;
        let block = (u64::from(place.call.0) << 32) | (channel << 30) | u64::from(place.seq.0 & SEQ_BITS);
        let [_, _, _, _, high, low, ..] = self.key.encrypt_block(block ^ self.checksum_iv).to_be_bytes();
        u16::from_be_bytes([high, low]).max(1)
    }

    /// The length of the payload, if the first block of a body says what it must.
    fn length(&self, place: Place, body: &[u8]) -> Result<usize, Fault> {
        let first = body.first_chunk().ok_or(Fault::SealedInconsistent)?;
        let (chain, room) = match self.level {
            Level::Clear => return Ok(body.len()),
            Level::Auth => (0, body.len() - AUTH_OVERHEAD),
            Level::Crypt => (self.iv, whole_blocks(body.len()) - CRYPT_OVERHEAD),
        };
        let block = self.key.decrypt_block(u64::from_be_bytes(*first)) ^ chain;
        let [seal_high, seal_low, high, low, ..] = block.to_be_bytes();
        let len = usize::from(u16::from_be_bytes([high, low]));
        if u16::from_be_bytes([seal_high, seal_low]) != seal(place) {
            Err(Fault::SealedInconsistent)
        } else if len > room {
            Err(Fault::DataLength)
        } else {
            Ok(len)
        }
    }

    /// A body before its encryption.
    fn laid_out(&self, place: Place, payload: &[u8]) -> BytesMut {
        let overhead = if self.level == Level::Crypt {
            CRYPT_OVERHEAD
        } else {
            AUTH_OVERHEAD
        };
        let mut body = BytesMut::with_capacity(whole_blocks(overhead + payload.len() + BLOCK - 1));
        body.put_u16(seal(place));
        // What `payload_max` allows fits.
        body.put_u16(u16::try_from(payload.len()).unwrap_or(u16::MAX));
        body.put_bytes(0, overhead - AUTH_OVERHEAD);
        body.extend_from_slice(payload);
        let whole = if self.level == Level::Crypt {
            body.len().next_multiple_of(BLOCK)
        } else {
            body.len().max(BLOCK)
        };
        body.put_bytes(0, whole - body.len());
        body
    }
}

impl PacketSecurity for Rxkad {
    fn index(&self) -> SecurityIndex {
        INDEX
    }

    fn payload_max(&self, room: usize) -> usize {
        match self.level {
            Level::Clear => room,
            Level::Auth => room.saturating_sub(AUTH_OVERHEAD),
            Level::Crypt => whole_blocks(room).saturating_sub(CRYPT_OVERHEAD),
        }
    }

    fn seal(&self, first: Place, bodies: &mut [Sealed]) {
        let places = (0..).map(|offset| Place {
            seq: first.seq.plus(offset),
            ..first
        });
        let mut texts: Vec<BytesMut> = Vec::new();
        for (sealed, place) in bodies.iter_mut().zip(places) {
            sealed.checksum = self.checksum(place);
            if self.level != Level::Clear {
                texts.push(self.laid_out(place, &sealed.body));
            }
        }
        match self.level {
            Level::Clear => return,
            Level::Auth => {
                for block in texts.iter_mut().filter_map(|text| text.first_chunk_mut()) {
                    *block = self.key.encrypt_block(u64::from_be_bytes(*block)).to_be_bytes();
                }
            }
            Level::Crypt => {
                let mut texts: Vec<&mut [u8]> = texts.iter_mut().map(|text| &mut text[..]).collect();
                self.key.encrypt_pcbc_all(self.iv, &mut texts);
            }
        }
        for (sealed, text) in bodies.iter_mut().zip(texts) {
            sealed.body = text.freeze();
        }
    }

    fn check(&self, place: Place, checksum: u16, body: &[u8]) -> Result<(), AbortCode> {
        if checksum != self.checksum(place) {
            return Err(Fault::SealedInconsistent.into());
        }
        if self.level != Level::Clear {
            self.length(place, body)?;
        }
        Ok(())
    }

    fn open(&self, place: Place, checksum: u16, body: Bytes) -> Result<Bytes, AbortCode> {
        if checksum != self.checksum(place) {
            return Err(Fault::SealedInconsistent.into());
        }
        let overhead = match self.level {
            Level::Clear => return Ok(body),
            Level::Auth => AUTH_OVERHEAD,
            Level::Crypt => CRYPT_OVERHEAD,
        };
        let len = self.length(place, &body)?;
        let mut text = BytesMut::from(body);
        if self.level == Level::Crypt {
            self.key.decrypt_pcbc(self.iv, &mut text);
        } else if let Some(block) = text.first_chunk_mut() {
            *block = self.key.decrypt_block(u64::from_be_bytes(*block)).to_be_bytes();
        }
        Ok(text.freeze().slice(overhead..overhead + len))
    }

    fn respond(
        &self,
        challenge: &[u8],
        calls: [CallNumber; ChannelIndex::COUNT],
    ) -> Result<Bytes, AbortCode> {
        // A service is never asked.
        let client = self.client.as_ref().ok_or(Fault::Inconsistency)?;
        let challenge = Challenge::parse(challenge)?;
        if self.level < challenge.least {
            return Err(Fault::LevelFail.into());
        }
        let response = Response {
            epoch: client.epoch,
            cid: client.cid,
            calls,
            answer: challenge.nonce.wrapping_add(1),
            level: self.level,
        };
        let Token { kvno, ticket, .. } = &client.token;
        Ok(response.seal(&self.key, self.iv, *kvno, ticket))
    }
}

impl fmt::Debug for Rxkad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rxkad")
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

/// Where the packet belongs, in short.
fn seal(place: Place) -> u16 {
    let [.., high, low] = (place.seq.0 ^ place.call.0).to_be_bytes();
    u16::from_be_bytes([high, low])
}

const fn whole_blocks(len: usize) -> usize {
    len - len % BLOCK
}

const BLOCK: usize = 8;
const AUTH_OVERHEAD: usize = 4;
const CRYPT_OVERHEAD: usize = 8;
/// A sequence number as far as it is sealed; the channel is above it.
const SEQ_BITS: u32 = 0x3fff_ffff;
