//! Challenge and response: how a client proves that the ticket it shows is its own.
//!
//! rx-security.md 4.

use bytes::{Buf, BufMut, Bytes};
use subtle::ConstantTimeEq;

use super::session::INDEX;
use super::{Level, Refusal, Session};
use crate::proto::{CallNumber, ChannelIndex, ConnectionId, Epoch};

/// What a service asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// What the answer must refer to.
    pub nonce: u32,
    /// The least level that the service puts up with.
    pub level: Level,
}

impl Challenge {
    /// Reads the body of a CHALLENGE. Only version 2 is understood: the older form comes only in answer to packets without
    /// checksums.
    ///
    /// # Errors
    ///
    /// It is too short, of another version, or names no level.
    pub fn parse(mut body: &[u8]) -> Result<Self, Refusal> {
        let mut word = || body.try_get_u32().map_err(|_| Refusal::PacketShort);
        let (version, nonce, level) = (word()?, word()?, word()?);
        if version != VERSION {
            return Err(Refusal::Inconsistency);
        }
        let level = Level::from_number(level).ok_or(Refusal::LevelFail)?;
        Ok(Self { nonce, level })
    }

    /// The body of a CHALLENGE.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let words = [VERSION, self.nonce, self.level.number(), 0];
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }
}

/// What a client answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Version to ticket length, as they came; the middle of it is encrypted.
    fixed: [u8; FIXED_LEN],
    /// The version of the service's key, or the form of the ticket.
    pub kvno: u32,
    /// The ticket, for the service to read.
    pub ticket: Bytes,
}

/// What the encrypted part of a response says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The level that the client has chosen.
    pub level: Level,
    /// The call that each channel is at.
    pub calls: [CallNumber; ChannelIndex::COUNT],
}

impl Response {
    /// The body of a RESPONSE to a challenge.
    ///
    /// # Errors
    ///
    /// The service wants a higher level than the session has.
    pub fn make(
        challenge: Challenge,
        session: &Session,
        (epoch, cid): (Epoch, ConnectionId),
        calls: [CallNumber; ChannelIndex::COUNT],
        kvno: u32,
        ticket: &[u8],
    ) -> Result<Vec<u8>, Refusal> {
        if session.level() < challenge.level {
            return Err(Refusal::LevelFail);
        }
        let len = u32::try_from(ticket.len()).map_err(|_| Refusal::TicketLength)?;
        let mut out = Vec::with_capacity(FIXED_LEN + ticket.len());
        out.put_u32(VERSION);
        out.put_u32(0);
        out.put_u32(epoch.0);
        out.put_u32(cid.0);
        out.put_u32(0);
        out.put_u32(INDEX.0.into());
        calls.iter().for_each(|call| out.put_u32(call.0));
        out.put_u32(challenge.nonce.wrapping_add(1));
        out.put_u32(session.level().number());
        out.put_u32(kvno);
        out.put_u32(len);
        let checksum = checksum(&out);
        if let Some(place) = out.get_mut(CHECKSUM) {
            place.copy_from_slice(&checksum.to_be_bytes());
        }
        if let Some(secret) = out.get_mut(SECRET) {
            session.cipher().pcbc_encrypt(session.key().as_iv(), secret);
        }
        out.put_slice(ticket);
        Ok(out)
    }

    /// Reads the body of a RESPONSE as far as that needs no key. Bytes after the ticket are ignored.
    ///
    /// # Errors
    ///
    /// It is too short, or its ticket is of no sensible length.
    pub fn parse(body: &Bytes) -> Result<Self, Refusal> {
        let (fixed, rest) = body
            .split_first_chunk::<FIXED_LEN>()
            .ok_or(Refusal::PacketShort)?;
        let [.., k0, k1, k2, k3, l0, l1, l2, l3] = *fixed;
        let len = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if !(TICKET_MIN..=TICKET_MAX).contains(&len) {
            return Err(Refusal::TicketLength);
        }
        if rest.len() < len {
            return Err(Refusal::PacketShort);
        }
        Ok(Self {
            fixed: *fixed,
            kvno: u32::from_be_bytes([k0, k1, k2, k3]),
            ticket: body.slice(FIXED_LEN..FIXED_LEN + len),
        })
    }

    /// Checks the proof with the session key of the ticket. The order of the checks is that of OpenAFS.
    ///
    /// # Errors
    ///
    /// It was not made with this key for this connection, or for another challenge, or the level is too low.
    pub fn verify(
        &self,
        challenge: Challenge,
        session: &Session,
        (epoch, cid): (Epoch, ConnectionId),
    ) -> Result<Proven, Refusal> {
        let mut fixed = self.fixed;
        if let Some(secret) = fixed.get_mut(SECRET) {
            session.cipher().pcbc_decrypt(session.key().as_iv(), secret);
        }
        let mut said = [0; 4];
        if let Some(place) = fixed.get_mut(CHECKSUM) {
            said.copy_from_slice(place);
            place.fill(0);
        }
        let honest = checksum(&fixed).to_be_bytes().ct_eq(&said);
        // The gets read 40 bytes in all.
        let mut words = fixed.get(SECRET).unwrap_or_default();
        let place = [words.get_u32(), words.get_u32(), words.get_u32(), words.get_u32()];
        let calls = [(); ChannelIndex::COUNT].map(|()| CallNumber(words.get_u32()));
        let (nonce, level) = (words.get_u32(), words.get_u32());
        let here = place == [epoch.0, cid.0, 0, INDEX.0.into()];
        let possible = calls.iter().all(|call| call.0.cast_signed() >= 0);
        if !bool::from(honest) || !here || !possible {
            return Err(Refusal::SealedInconsistent);
        }
        if nonce != challenge.nonce.wrapping_add(1) {
            return Err(Refusal::OutOfSequence);
        }
        let level = Level::from_number(level).filter(|level| *level >= challenge.level);
        let level = level.ok_or(Refusal::LevelFail)?;
        Ok(Proven { level, calls })
    }
}

/// Over all that stands before the ticket, with its own place zero.
fn checksum(fixed: &[u8]) -> u32 {
    fixed.iter().fold(1_000_003, |sum: u32, byte| {
        sum.wrapping_mul(0x1020_4081).wrapping_add(u32::from(*byte))
    })
}

const VERSION: u32 = 2;
/// Bytes before the ticket.
const FIXED_LEN: usize = 56;
const SECRET: std::ops::Range<usize> = 8..48;
const CHECKSUM: std::ops::Range<usize> = 16..20;
/// What OpenAFS accepts.
const TICKET_MIN: usize = 32;
const TICKET_MAX: usize = 12_000;

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;
    use crate::security::rxkad::SessionKey;

    const KEY: SessionKey = SessionKey::from_bytes(hex!("1020314051617080"));
    const TICKET: [u8; 48] = hex!(
        "095f208dccb65a7c9e5692c6e8b08f81f1b52f1b077b94cf22aa42274e340d8a"
        "6722731fa171cf534583cd43333aa9db"
    );
    const KVNO: u32 = 3;

    /// Level, epoch, connection, body of the challenge, encrypted part of the response.
    type Known = (Level, u32, u32, [u8; 16], [u8; 40]);

    /// From conversations of OpenAFS 1.8.9 (rx-security.md 7).
    const KNOWN: [Known; 3] = [
        (
            Level::Clear,
            0x9ddc_d6a8,
            0x013f_c7a4,
            hex!("00000002fdd8722f0000000000000000"),
            hex!("468ec21d162388e41df18185d1d48812d122d7fc5415e34421d5e220a587e043fe72efffe4bf4c70"),
        ),
        (
            Level::Auth,
            0x9ddf_d1a5,
            0x2ecd_2918,
            hex!("0000000221298c250000000000000000"),
            hex!("7a0701412d487ae561faaee1d4de3a365dc7a44a1645a24df1a55669610756b33ac20bf7059d5a1a"),
        ),
        (
            Level::Crypt,
            0xbfa0_002b,
            0x6873_087c,
            hex!("00000002c59b962e0000000000000000"),
            hex!("1fd42db3afd5dc9aa3a8fa47acaebb3ed102311f5892eee97e475e2fad1ef20272327c495d2ab331"),
        ),
    ];

    fn first_call() -> [CallNumber; 4] {
        [1, 0, 0, 0].map(CallNumber)
    }

    #[test]
    fn known_responses() {
        for (level, epoch, cid, question, secret) in KNOWN {
            let whom = (Epoch(epoch), ConnectionId(cid));
            let session = Session::new(KEY, level, whom.0, whom.1);
            let challenge = Challenge::parse(&question).unwrap();
            assert_eq!(challenge.encode(), question);
            let made = Response::make(challenge, &session, whom, first_call(), KVNO, &TICKET).unwrap();
            let known = [
                &hex!("0000000200000000")[..],
                &secret,
                &hex!("0000000300000030"),
                &TICKET,
            ]
            .concat();
            assert_eq!(made, known, "{level:?}");
            let read = Response::parse(&made.into()).unwrap();
            assert_eq!((read.kvno, &read.ticket[..]), (KVNO, &TICKET[..]));
            let proven = read.verify(challenge, &session, whom).unwrap();
            let calls = first_call();
            assert_eq!(proven, Proven { level, calls });
        }
    }

    #[test]
    fn a_response_proves_one_thing_only() {
        let whom = (Epoch(1), ConnectionId(4));
        let session = Session::new(KEY, Level::Auth, whom.0, whom.1);
        let challenge = Challenge {
            nonce: 7,
            level: Level::Clear,
        };
        let made = Response::make(challenge, &session, whom, first_call(), KVNO, &TICKET).unwrap();
        let response = Response::parse(&made.clone().into()).unwrap();
        assert!(response.verify(challenge, &session, whom).is_ok());

        let other = Challenge {
            nonce: 8,
            ..challenge
        };
        assert_eq!(
            response.verify(other, &session, whom),
            Err(Refusal::OutOfSequence)
        );
        let strict = Challenge {
            level: Level::Crypt,
            ..challenge
        };
        assert_eq!(response.verify(strict, &session, whom), Err(Refusal::LevelFail));
        let refused = Response::make(strict, &session, whom, first_call(), KVNO, &TICKET);
        assert_eq!(
            refused,
            Err(Refusal::LevelFail),
            "no downgrade by the client either"
        );
        let elsewhere = (Epoch(1), ConnectionId(8));
        assert_eq!(
            response.verify(challenge, &session, elsewhere),
            Err(Refusal::SealedInconsistent)
        );
        let key = SessionKey::from_bytes([9; 8]);
        let stranger = Session::new(key, Level::Auth, whom.0, whom.1);
        assert_eq!(
            response.verify(challenge, &stranger, whom),
            Err(Refusal::SealedInconsistent)
        );
        for at in 8..56 {
            let mut changed = made.clone();
            changed[at] ^= 1;
            // The kvno is under the checksum too; the length of the ticket says first that it is wrong.
            if let Ok(changed) = Response::parse(&changed.into()) {
                let refused = changed.verify(challenge, &session, whom);
                assert_eq!(refused, Err(Refusal::SealedInconsistent), "byte {at}");
            }
        }
    }

    #[test]
    fn what_cannot_be_read() {
        assert_eq!(Challenge::parse(&[0; 11]), Err(Refusal::PacketShort));
        assert_eq!(
            Challenge::parse(&hex!("000000010000000000000000")),
            Err(Refusal::Inconsistency)
        );
        assert_eq!(
            Challenge::parse(&hex!("000000020000000000000003")),
            Err(Refusal::LevelFail)
        );
        let short = Bytes::from_static(&[0; 55]);
        assert_eq!(Response::parse(&short), Err(Refusal::PacketShort));
        let with_length = |len: u32, rest: usize| {
            let body = [&[0; 52][..], &len.to_be_bytes(), &vec![0; rest]].concat();
            Response::parse(&body.into()).map(|response| response.ticket.len())
        };
        assert_eq!(with_length(31, 40), Err(Refusal::TicketLength));
        assert_eq!(with_length(12_001, 12_001), Err(Refusal::TicketLength));
        assert_eq!(with_length(40, 39), Err(Refusal::PacketShort));
        assert_eq!(with_length(40, 45), Ok(40));
    }
}
