//! What a session key does to the packets of one connection.
//!
//! The machine: every DATA packet carries a checksum of its place, which is encrypted, so that packets cannot be moved. At
//! level auth the first block of the body is encrypted, at level crypt all of it; it begins with a word that repeats
//! the place and says how long the payload is, because what is encrypted is padded to whole blocks.
//!
//! rx-security.md 3.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Refusal, SessionKey};
use crate::crypto::fcrypt::Fcrypt;
use crate::proto::{ConnectionId, Epoch, Place, Sealed, SecurityIndex};

/// How much of a packet is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Its place.
    Clear,
    /// Its place and length.
    Auth,
    /// Everything.
    #[default]
    Crypt,
}

impl Level {
    /// The level with this number on the wire.
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

    /// Bytes of the word in front of the payload.
    const fn overhead(self) -> usize {
        match self {
            Self::Clear => 0,
            Self::Auth => 4,
            Self::Crypt => 8,
        }
    }
}

/// The session key of one connection, ready for its packets.
#[derive(Debug)]
pub struct Session {
    cipher: Fcrypt,
    key: SessionKey,
    level: Level,
    checksum_iv: u64,
}

impl Session {
    /// The session of a connection.
    #[must_use]
    pub fn new(key: SessionKey, level: Level, epoch: Epoch, cid: ConnectionId) -> Self {
        let cipher = Fcrypt::new(*key.bytes());
        // Two blocks, chained; the second one is kept.
        let place = u64::from(epoch.0) << 32 | u64::from(cid.0);
        let first = cipher.encrypt(place ^ key.as_iv());
        let checksum_iv = cipher.encrypt(u64::from(INDEX.0) ^ place ^ first);
        Self {
            cipher,
            key,
            level,
            checksum_iv,
        }
    }

    /// How much of a packet is protected.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Application bytes that fit into a body of `room` bytes.
    #[must_use]
    pub const fn payload_max(&self, room: usize) -> usize {
        let room = match self.level {
            Level::Clear | Level::Auth => room,
            Level::Crypt => room - room % Fcrypt::BLOCK,
        };
        room.saturating_sub(self.level.overhead())
    }

    /// The checksum of a header.
    #[must_use]
    pub fn checksum(&self, place: Place) -> u16 {
        let channel = u32::from(place.channel.number()) << 30;
        let block = u64::from(place.call.0) << 32 | u64::from(channel | place.seq.0 & SEQ_MASK);
        let [.., high, low, _, _] = self.cipher.encrypt(block ^ self.checksum_iv).to_be_bytes();
        u16::from_be_bytes([high, low]).max(1)
    }

    /// Seals the payload of a packet.
    #[must_use]
    pub fn seal(&self, place: Place, payload: Bytes) -> Sealed {
        let checksum = self.checksum(place);
        let body = match self.level {
            Level::Clear => payload,
            Level::Auth => {
                let mut body = self.framed(place, &payload, payload.len() + Level::Auth.overhead());
                if let Some(block) = body.first_chunk_mut::<{ Fcrypt::BLOCK }>() {
                    *block = self.cipher.encrypt(u64::from_be_bytes(*block)).to_be_bytes();
                }
                body.freeze()
            }
            Level::Crypt => {
                let len = (payload.len() + Level::Crypt.overhead()).next_multiple_of(Fcrypt::BLOCK);
                let mut body = self.framed(place, &payload, len);
                self.cipher.pcbc_encrypt(self.key.as_iv(), &mut body);
                body.freeze()
            }
        };
        Sealed { body, checksum }
    }

    /// Takes the payload out of a received body.
    ///
    /// # Errors
    ///
    /// It was not sealed for this place with our key, or was tampered with.
    pub fn open(&self, place: Place, checksum: u16, body: Bytes) -> Result<Bytes, Refusal> {
        if checksum != self.checksum(place) {
            return Err(Refusal::SealedInconsistent);
        }
        let opened = match self.level {
            Level::Clear => return Ok(body),
            Level::Auth => {
                let mut body = BytesMut::from(body);
                let block = body.first_chunk_mut().ok_or(Refusal::SealedInconsistent)?;
                *block = self.cipher.decrypt(u64::from_be_bytes(*block)).to_be_bytes();
                body
            }
            Level::Crypt => {
                let mut body = BytesMut::from(body);
                // Linux sends up to seven bytes of filling after the last block (rx-security.md 3.6).
                body.truncate(body.len() - body.len() % Fcrypt::BLOCK);
                self.cipher.pcbc_decrypt(self.key.as_iv(), &mut body);
                body
            }
        };
        let opened = opened.freeze();
        let (word, _) = opened.split_first_chunk().ok_or(Refusal::SealedInconsistent)?;
        let word = u32::from_be_bytes(*word);
        if word & PLACE_MASK != frame(place, 0) {
            return Err(Refusal::SealedInconsistent);
        }
        let (from, len) = (self.level.overhead(), (word & LEN_MASK) as usize);
        if opened.len() < from + len {
            return Err(Refusal::DataLength);
        }
        Ok(opened.slice(from..from + len))
    }

    /// A payload after its word, and zeros up to `len` bytes, or a block.
    fn framed(&self, place: Place, payload: &[u8], len: usize) -> BytesMut {
        let len = len.max(Fcrypt::BLOCK);
        let mut body = BytesMut::with_capacity(len);
        body.put_u32(frame(place, payload.len()));
        body.put_bytes(0, self.level.overhead().saturating_sub(body.len()));
        body.put_slice(payload);
        body.put_bytes(0, len.saturating_sub(body.len()));
        body
    }

    pub(super) fn cipher(&self) -> &Fcrypt {
        &self.cipher
    }

    pub(super) fn key(&self) -> &SessionKey {
        &self.key
    }
}

/// The word before a payload of `len` bytes.
#[expect(
    clippy::cast_possible_truncation,
    reason = "no payload of a datagram is longer"
)]
const fn frame(place: Place, len: usize) -> u32 {
    (place.seq.0 ^ place.call.0) << 16 | len as u32 & LEN_MASK
}

/// The number of the class on the wire.
pub(super) const INDEX: SecurityIndex = SecurityIndex(2);
const SEQ_MASK: u32 = 0x3fff_ffff;
const PLACE_MASK: u32 = 0xffff_0000;
const LEN_MASK: u32 = 0xffff;

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;
    use crate::proto::{CallNumber, ChannelIndex, Seq};

    const KEY: SessionKey = SessionKey::from_bytes(hex!("1020314051617080"));

    fn session(level: Level) -> Session {
        let (epoch, cid) = match level {
            Level::Clear => (0x9ddc_d6a8, 0x013f_c7a4),
            Level::Auth => (0x9ddf_d1a5, 0x2ecd_2918),
            Level::Crypt => (0xbfa0_002b, 0x6873_087c),
        };
        Session::new(KEY, level, Epoch(epoch), ConnectionId(cid))
    }

    const fn place(call: u32) -> Place {
        Place {
            channel: ChannelIndex::ALL[0],
            call: CallNumber(call),
            seq: Seq(1),
        }
    }

    fn counting(len: u8) -> Bytes {
        (0..len).collect()
    }

    /// From conversations of OpenAFS 1.8.9 (rx-security.md 7).
    #[test]
    fn known_packets() {
        let request: Bytes = counting(20);
        let reply: Bytes = request.iter().map(|byte| !byte).collect();
        let known: [(Level, u32, &Bytes, u16, &[u8]); 8] = [
            (
                Level::Clear,
                1,
                &request,
                0x0d68,
                &hex!("000102030405060708090a0b0c0d0e0f10111213"),
            ),
            (
                Level::Clear,
                2,
                &reply,
                0x29b8,
                &hex!("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0efeeedec"),
            ),
            (
                Level::Auth,
                1,
                &request,
                0x81b8,
                &hex!("6ec4fdb03285f19f0405060708090a0b0c0d0e0f10111213"),
            ),
            (
                Level::Auth,
                2,
                &reply,
                0x5890,
                &hex!("d128dd56e65d8b70fbfaf9f8f7f6f5f4f3f2f1f0efeeedec"),
            ),
            (
                Level::Crypt,
                1,
                &request,
                0x2e07,
                &hex!("b5dde127f19e10530a38f8c6a481003c1f99bb0925cffa41214c340fe095ba69"),
            ),
            (
                Level::Crypt,
                1,
                &reply,
                0x2e07,
                &hex!("b5dde127f19e10536ac58db330049051334084ad4bfd10de493b1d94423f6953"),
            ),
            (
                Level::Crypt,
                2,
                &request,
                0x87b0,
                &hex!("4ae0cace6aaf840ecb0d6557d38b84554453c41b9b179d070738357e34a82f0c"),
            ),
            (
                Level::Crypt,
                2,
                &reply,
                0x87b0,
                &hex!("4ae0cace6aaf840ed34ffd28f89e0c4993f2acd4ba05908f767e6bd8c32647bb"),
            ),
        ];
        for (level, call, payload, checksum, body) in known {
            let session = session(level);
            let sealed = session.seal(place(call), payload.clone());
            assert_eq!(
                (sealed.checksum, &sealed.body[..]),
                (checksum, body),
                "{level:?} {call}"
            );
            let opened = session.open(place(call), checksum, sealed.body);
            assert_eq!(opened.as_ref(), Ok(payload), "{level:?} {call}");
        }
    }

    #[test]
    fn every_length_fits_and_comes_back() {
        for level in [Level::Clear, Level::Auth, Level::Crypt] {
            let session = session(level);
            assert_eq!(
                session.payload_max(1416),
                [1416, 1412, 1408][level.number() as usize]
            );
            for len in (0..40).chain([session.payload_max(1416)]) {
                let payload: Bytes = (0..len).map(|at| at.to_le_bytes()[0]).collect();
                let Sealed { body, checksum } = session.seal(place(7), payload.clone());
                assert!(body.len() <= 1416);
                assert_eq!(
                    session.open(place(7), checksum, body),
                    Ok(payload),
                    "{level:?} {len}"
                );
            }
        }
    }

    #[test]
    fn whatever_is_changed_is_noticed() {
        let elsewhere = [
            Place {
                seq: Seq(2),
                ..place(1)
            },
            Place {
                call: CallNumber(2),
                ..place(1)
            },
            Place {
                channel: ChannelIndex::ALL[3],
                ..place(1)
            },
        ];
        for level in [Level::Clear, Level::Auth, Level::Crypt] {
            let session = session(level);
            let Sealed { body, checksum } = session.seal(place(1), counting(20));
            for place in elsewhere {
                let moved = session.open(place, checksum, body.clone());
                assert_eq!(moved, Err(Refusal::SealedInconsistent));
            }
            if level == Level::Clear {
                continue;
            }
            let mut changed = body.to_vec();
            changed[1] ^= 0x40;
            assert!(
                session.open(place(1), checksum, changed.into()).is_err(),
                "{level:?}"
            );
            let short = body.slice(..7);
            assert_eq!(
                session.open(place(1), checksum, short),
                Err(Refusal::SealedInconsistent)
            );
            let cut = body.slice(..16);
            assert_eq!(session.open(place(1), checksum, cut), Err(Refusal::DataLength));
        }
    }
}
