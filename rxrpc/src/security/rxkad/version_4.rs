//! Tickets of Kerberos 4: what servers make for themselves that have only a KeyFile, and no newer key (rx-security.md 5.2).
//!
//! The machine: all is one text, sealed with DES by the server's key: who the client is, the session key, from when and for
//! how long, and the service. How long is one byte: a number of five-minute steps, or a place in a table of longer times.

use zeroize::Zeroizing;

use super::ticket::{Name, Ticket};
use super::{Fault, SessionKey};
use crate::crypto::des::Key;

/// What a ticket says, before it is sealed.
pub(super) struct Contents<'a> {
    pub(super) name: &'a str,
    pub(super) instance: &'a str,
    pub(super) cell: &'a str,
    pub(super) session: &'a SessionKey,
    /// From when and until when (unix seconds).
    pub(super) times: (u64, u64),
}

/// A name or a time has no place in a ticket of Kerberos 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a ticket of Kerberos 4 has no place for such a name or time")]
pub struct Unfit;

impl Contents<'_> {
    /// The ticket, sealed.
    pub(super) fn seal(&self, key: &Key) -> Result<Vec<u8>, Unfit> {
        let (starts, ends) = self.times;
        let mut text = vec![BIG_ENDIAN];
        for string in [self.name, self.instance, self.cell] {
            put_string(&mut text, string)?;
        }
        text.extend_from_slice(&NO_HOST);
        text.extend_from_slice(&self.session.bytes());
        text.push(lifetime_byte(starts, ends).ok_or(Unfit)?);
        text.extend_from_slice(&u32::try_from(starts).map_err(|_| Unfit)?.to_be_bytes());
        for string in [SERVICE, ""] {
            put_string(&mut text, string)?;
        }
        text.resize(text.len().next_multiple_of(8), 0);
        key.encrypt(&mut text);
        Ok(text)
    }
}

/// Opens a ticket.
pub(super) fn open(ticket: &[u8], key: &Key) -> Result<Ticket, Fault> {
    if !ticket.len().is_multiple_of(8) {
        return Err(Fault::BadTicket);
    }
    let mut text = Zeroizing::new(ticket.to_vec());
    key.decrypt(&mut text);
    read(&text).ok_or(Fault::BadTicket)
}

/// Reads what was sealed. What is behind it is padding.
fn read(text: &[u8]) -> Option<Ticket> {
    let (flags, mut rest) = text.split_first()?;
    let name = take_string(&mut rest)?;
    let instance = take_string(&mut rest)?;
    let cell = take_string(&mut rest)?;
    let _host: [u8; 4] = take(&mut rest)?;
    let session: [u8; 8] = take(&mut rest)?;
    let [lifetime] = take(&mut rest)?;
    let starts = take(&mut rest)?;
    let starts = if flags & LITTLE_ENDIAN == 0 {
        u32::from_be_bytes(starts)
    } else {
        u32::from_le_bytes(starts)
    };
    let service = (take_string(&mut rest)?, take_string(&mut rest)?);
    if service != (SERVICE.to_owned(), String::new()) || name.is_empty() {
        return None;
    }
    Some(Ticket {
        name: Name::Kerberos4 { name, instance },
        realm: cell,
        enctype: SessionKey::ENCTYPE,
        key: Zeroizing::new(session.to_vec()),
        starts: starts.into(),
        ends: end(starts.into(), lifetime),
        valid: true,
    })
}

/// When a ticket ends that begins at `starts`.
fn end(starts: u64, lifetime: u8) -> u64 {
    let longer = lifetime.checked_sub(STEPS).map(usize::from);
    match (lifetime, longer) {
        (NEVER, _) => NEVER_ENDS,
        (_, None) => starts + STEP * u64::from(lifetime),
        (_, Some(at)) => starts + u64::from(LONGER.get(at).copied().unwrap_or(LONGEST)),
    }
}

/// The byte for a lifetime, rounded up; `None` if it is too long for one.
fn lifetime_byte(starts: u64, ends: u64) -> Option<u8> {
    if ends >= NEVER_ENDS {
        return Some(NEVER);
    }
    (0..NEVER).find(|byte| end(starts, *byte) >= ends)
}

fn put_string(text: &mut Vec<u8>, string: &str) -> Result<(), Unfit> {
    if string.len() >= NAME_MAX || string.contains('\0') {
        return Err(Unfit);
    }
    text.extend_from_slice(string.as_bytes());
    text.push(0);
    Ok(())
}

fn take_string(rest: &mut &[u8]) -> Option<String> {
    let end = rest
        .iter()
        .position(|byte| *byte == 0)
        .filter(|end| *end < NAME_MAX)?;
    let (string, behind) = rest.split_at_checked(end)?;
    *rest = behind.get(1..)?;
    String::from_utf8(string.to_vec()).ok()
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*taken)
}

const SERVICE: &str = "afs";
const NO_HOST: [u8; 4] = [0; 4];
/// Flags: which way round numbers are.
const BIG_ENDIAN: u8 = 0;
const LITTLE_ENDIAN: u8 = 1;
/// OpenAFS `MAXKTCNAMELEN`.
const NAME_MAX: usize = 64;
/// Lifetimes below this are counted in steps.
const STEPS: u8 = 0x80;
/// Seconds.
const STEP: u64 = 300;
const NEVER: u8 = 0xff;
pub(super) const NEVER_ENDS: u64 = 0xffff_ffff;
/// Thirty days.
const LONGEST: u32 = 2_592_000;
/// Seconds, from lifetime 0x80 on.
const LONGER: [u32; 64] = [
    38_400, 41_055, 43_894, 46_929, 50_174, 53_643, 57_352, 61_318, 65_558, 70_091, 74_937, 80_119, 85_658,
    91_581, 97_914, 104_684, 111_922, 119_661, 127_935, 136_781, 146_239, 156_350, 167_161, 178_720, 191_077,
    204_289, 218_415, 233_517, 249_664, 266_926, 285_383, 305_116, 326_213, 348_769, 372_885, 398_668,
    426_234, 455_705, 487_215, 520_904, 556_921, 595_430, 636_601, 680_618, 727_680, 777_995, 831_789,
    889_303, 950_794, 1_016_537, 1_086_825, 1_161_973, 1_242_318, 1_328_218, 1_420_057, 1_518_247, 1_623_226,
    1_735_464, 1_855_462, 1_983_758, 2_120_925, 2_267_576, 2_424_367, 2_592_000,
];

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    const KEY: Key = Key::new(hex!("23456789abcdef01"));
    static SESSION: SessionKey = SessionKey::new(hex!("1020314051617080"));

    fn admin(times: (u64, u64)) -> Contents<'static> {
        Contents {
            name: "admin",
            instance: "",
            cell: "lab.example",
            session: &SESSION,
            times,
        }
    }

    /// What OpenAFS's ticket maker gives.
    #[test]
    fn known_answers() {
        for (times, known) in [
            (
                (1_700_000_000, 1_700_036_000),
                hex!(
                    "095f208dccb65a7c9e5692c6e8b08f81f1b52f1b077b94cf22aa42274e340d8a899702fb8073d711a9891edf919b4290"
                ),
            ),
            (
                (0, NEVER_ENDS),
                hex!(
                    "095f208dccb65a7c9e5692c6e8b08f81f1b52f1b077b94cf22aa42274e340d8a6722731fa171cf534583cd43333aa9db"
                ),
            ),
        ] {
            assert_eq!(admin(times).seal(&KEY).unwrap(), known);
            let opened = open(&known, &KEY).unwrap();
            assert_eq!((opened.starts, opened.ends), times);
            assert_eq!(
                (&*opened.realm, &opened.key[..]),
                ("lab.example", &SESSION.bytes()[..])
            );
            assert!(open(&known, &Key::new([1; 8])).is_err());
        }
    }

    #[test]
    fn lifetimes_are_rounded_up() {
        for (lifetime, byte, rounded) in [
            (0, 0, 0),
            (1, 1, 300),
            (38_100, 0x7f, 38_100),
            (38_101, 0x80, 38_400),
            (41_056, 0x82, 43_894),
            (2_592_000, 0xbf, 2_592_000),
        ] {
            let starts = 1_700_000_000;
            assert_eq!(lifetime_byte(starts, starts + lifetime), Some(byte));
            assert_eq!(end(starts, byte), starts + rounded);
        }
        assert_eq!(lifetime_byte(0, 2_592_001), None);
        assert_eq!(end(5, 0xfe), 5 + u64::from(LONGEST));
    }

    #[test]
    fn what_is_no_ticket_is_refused() {
        let seal = |text: &[u8]| {
            let mut text = text.to_vec();
            text.resize(text.len().next_multiple_of(8), 0);
            KEY.encrypt(&mut text);
            text
        };
        let long = [b"\0".as_slice(), &[b'a'; 64], &[0; 40]].concat();
        for bad in [
            seal(b""),
            seal(b"\0admin\0\0lab\0hosthostkey"),
            seal(b"\0admin\0\0lab\0....keykeykeL0000other\0\0"),
            seal(b"\0\0\0lab\0....keykeykeL0000afs\0\0"),
            seal(&long),
            vec![0; 47],
        ] {
            assert!(matches!(open(&bad, &KEY), Err(Fault::BadTicket)), "{bad:02x?}");
        }
        let good = seal(b"\x01admin\0\0lab\0....keykeyke\x01\x05\0\0\0afs\0\0");
        assert_eq!(open(&good, &KEY).unwrap().starts, 5);
        let name = "n".repeat(64);
        for bad in [
            Contents {
                name: &name,
                ..admin((0, 1))
            },
            Contents {
                cell: "a\0b",
                ..admin((0, 1))
            },
            admin((0, 40_000_000)),
        ] {
            assert_eq!(bad.seal(&KEY), Err(Unfit));
        }
    }
}
