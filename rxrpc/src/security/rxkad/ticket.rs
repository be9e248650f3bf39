//! Tickets, as a service opens them (rx-security.md 5.1 and 5.3, RFC 4120 5.3).
//!
//! The machine: a ticket of Kerberos 5 comes whole or as its encrypted part alone; the version number in the RESPONSE says
//! which. The part names the kind and version of the key that opens it. Any other number is the version of a key itself,
//! one of DES, and the ticket one of [Kerberos 4](super::version_4). Inside are the client's name, the session key and the
//! times.

use std::fmt;
use std::sync::Arc;

use der::asn1::{AnyRef, BitStringRef, GeneralizedTime, OctetStringRef};
use der::{Decode, Sequence, Tag, TagNumber, Tagged};
use zeroize::Zeroizing;

use super::{Fault, ServerKeys, SessionKey, version_4};
use crate::crypto::krb5::{Enctype, Usage};
use crate::proto::{Caller, Level};

/// How a ticket is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TicketForm {
    /// Its encrypted part alone.
    EncryptedPart,
    /// All of it.
    Whole,
    /// One of Kerberos 4, sealed with the DES key of this version.
    Version4(u8),
}

impl TicketForm {
    /// The form that a version number stands for. `None` for the numbers above 256, which stand for nothing yet.
    #[must_use]
    pub fn from_kvno(kvno: u32) -> Option<Self> {
        match kvno {
            213 => Some(Self::EncryptedPart),
            256 => Some(Self::Whole),
            version => u8::try_from(version).ok().map(Self::Version4),
        }
    }

    /// The version number that stands for it.
    #[must_use]
    pub fn kvno(self) -> u32 {
        match self {
            Self::EncryptedPart => 213,
            Self::Whole => 256,
            Self::Version4(version) => version.into(),
        }
    }
}

/// A ticket that was opened. Its key is wiped when it is dropped, and never shown.
pub struct Ticket {
    pub(super) name: Name,
    pub(super) realm: String,
    pub(super) enctype: i32,
    pub(super) key: Zeroizing<Vec<u8>>,
    pub(super) starts: u64,
    pub(super) ends: u64,
    pub(super) valid: bool,
}

/// A client's name, as its Kerberos has it.
#[derive(Debug)]
pub(super) enum Name {
    Kerberos4 { name: String, instance: String },
    Kerberos5(Vec<String>),
}

#[derive(Sequence)]
struct WholeTicket<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: i32,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT")]
    realm: AnyRef<'a>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT")]
    service: PrincipalName<'a>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
    encrypted: EncryptedData<'a>,
}

#[derive(Sequence)]
pub(super) struct EncryptedData<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub(super) enctype: i32,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) kvno: Option<u32>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT")]
    pub(super) cipher: &'a OctetStringRef,
}

#[derive(Sequence)]
pub(super) struct EncryptedPart<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub(super) flags: BitStringRef<'a>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT")]
    pub(super) key: EncryptionKey<'a>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT")]
    pub(super) realm: AnyRef<'a>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
    pub(super) client: PrincipalName<'a>,
    #[asn1(context_specific = "4", tag_mode = "EXPLICIT")]
    pub(super) transited: AnyRef<'a>,
    #[asn1(context_specific = "5", tag_mode = "EXPLICIT")]
    pub(super) authenticated: GeneralizedTime,
    #[asn1(context_specific = "6", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) starts: Option<GeneralizedTime>,
    #[asn1(context_specific = "7", tag_mode = "EXPLICIT")]
    pub(super) ends: GeneralizedTime,
    #[asn1(context_specific = "8", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) renew_till: Option<GeneralizedTime>,
    #[asn1(context_specific = "9", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) addresses: Option<AnyRef<'a>>,
    #[asn1(context_specific = "10", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) authorization: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
pub(super) struct EncryptionKey<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub(super) enctype: i32,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT")]
    pub(super) key: &'a OctetStringRef,
}

#[derive(Sequence)]
pub(super) struct PrincipalName<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub(super) kind: i32,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT")]
    pub(super) parts: Vec<AnyRef<'a>>,
}

impl Ticket {
    /// Opens a ticket with the key that it asks for.
    ///
    /// # Errors
    ///
    /// There is no such key, or the ticket cannot be opened or read.
    pub fn open(form: TicketForm, ticket: &[u8], keys: &ServerKeys) -> Result<Self, Fault> {
        let encrypted = match form {
            TicketForm::Version4(version) => {
                let key = keys.find_des(version.into()).ok_or(Fault::UnknownKey)?;
                return version_4::open(ticket, key);
            }
            TicketForm::EncryptedPart => EncryptedData::from_der(ticket).map_err(bad)?,
            TicketForm::Whole => {
                let whole = WholeTicket::from_der(application(ticket, TICKET_TAG)?).map_err(bad)?;
                if whole.version != KERBEROS {
                    return Err(Fault::BadTicket);
                }
                whole.encrypted
            }
        };
        let enctype = Enctype::from_number(encrypted.enctype).ok_or(Fault::UnknownKey)?;
        let kvno = encrypted.kvno.unwrap_or(0);
        let key = keys.find(kvno, enctype).ok_or(Fault::UnknownKey)?;
        let plain = key
            .decrypt(TICKET_USAGE, encrypted.cipher.as_bytes())
            .map_err(|_| Fault::BadTicket)?;
        Self::read(&plain)
    }

    /// Reads what is inside. Bytes after its end are padding.
    fn read(plain: &[u8]) -> Result<Self, Fault> {
        let part = EncryptedPart::from_der(application(plain, PART_TAG)?).map_err(bad)?;
        Ok(Self {
            name: Name::Kerberos5(
                part.client
                    .parts
                    .iter()
                    .map(|name| text(*name))
                    .collect::<Result<_, _>>()?,
            ),
            realm: text(part.realm)?,
            enctype: part.key.enctype,
            key: Zeroizing::new(part.key.key.as_bytes().to_vec()),
            starts: seconds(part.starts.unwrap_or(part.authenticated)),
            ends: seconds(part.ends),
            valid: part.flags.get(INVALID_FLAG) != Some(true),
        })
    }

    /// Whether it may be used at `time` (unix seconds).
    ///
    /// # Errors
    ///
    /// It may not yet or not any more, or is for longer than any ticket.
    pub fn check_times(&self, time: u64) -> Result<(), Fault> {
        if !self.valid || self.starts > time + SKEW {
            Err(Fault::NoAuth)
        } else if self.ends < time {
            Err(Fault::Expired)
        } else if self.ends < self.starts || !self.is_local() && self.ends - self.starts > LIFETIME_MAX {
            Err(Fault::BadTicket)
        } else {
            Ok(())
        }
    }

    /// Made by a server with its own key (`-localauth`): from the beginning of time to its end.
    fn is_local(&self) -> bool {
        (self.starts, self.ends) == (0, FOR_EVER) || self.ends == version_4::NEVER_ENDS
    }

    /// Until when it may be used (unix seconds).
    #[must_use]
    pub const fn ends(&self) -> u64 {
        self.ends
    }

    /// The key of rxkad.
    ///
    /// # Errors
    ///
    /// Its session key has no place in rxkad.
    pub fn session_key(&self) -> Result<SessionKey, Fault> {
        SessionKey::derive(self.enctype, &self.key).map_err(|_| Fault::BadKey)
    }

    /// Who it is for, by the names of Kerberos 4, which AFS goes by.
    pub(super) fn caller(&self, level: Level) -> Result<Arc<Caller>, Fault> {
        let (name, instance) = self.name.of_version_4()?;
        Ok(Arc::new(Caller {
            name: name.to_owned(),
            instance: instance.to_owned(),
            cell: self.realm.clone(),
            level,
        }))
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("name", &self.name)
            .field("realm", &self.realm)
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

impl Name {
    /// Name and instance.
    fn of_version_4(&self) -> Result<(&str, &str), Fault> {
        let parts = match self {
            Self::Kerberos4 { name, instance } => return Ok((name, instance)),
            Self::Kerberos5(parts) => parts,
        };
        let (name, instance) = match parts.as_slice() {
            [name] => (name.as_str(), ""),
            [service, host] => match ServiceName::of(service) {
                ServiceName::Other => (service.as_str(), host.as_str()),
                ServiceName::Plain => (service.as_str(), ""),
                ServiceName::OnHost(name) => (name, host.split_once('.').ok_or(Fault::BadTicket)?.0),
            },
            _ => return Err(Fault::BadTicket),
        };
        if parts.first().is_some_and(|first| first.contains('.')) || name.is_empty() {
            return Err(Fault::BadTicket);
        }
        Ok((name, instance))
    }
}

/// What becomes of the names of a service principal.
enum ServiceName<'a> {
    /// Both are kept.
    Other,
    /// The host is left out.
    Plain,
    /// The service under this name, and the host without its domain.
    OnHost(&'a str),
}

impl<'a> ServiceName<'a> {
    fn of(service: &'a str) -> Self {
        match service {
            "host" => Self::OnHost("rcmd"),
            "kadmin" | "zephyr" => Self::Plain,
            name if ON_HOSTS.contains(&name) => Self::OnHost(name),
            _ => Self::Other,
        }
    }
}

/// What is inside an application tag.
fn application(bytes: &[u8], number: TagNumber) -> Result<&[u8], Fault> {
    let (any, _padding) = AnyRef::from_der_partial(bytes).map_err(bad)?;
    let expected = Tag::Application {
        constructed: true,
        number,
    };
    if any.tag() == expected {
        Ok(any.value())
    } else {
        Err(Fault::BadTicket)
    }
}

fn text(string: AnyRef<'_>) -> Result<String, Fault> {
    if string.tag() != Tag::GeneralString {
        return Err(Fault::BadTicket);
    }
    let text = str::from_utf8(string.value()).map_err(|_| Fault::BadTicket)?;
    if text.len() < NAME_MAX && !text.contains('\0') {
        Ok(text.to_owned())
    } else {
        Err(Fault::BadTicket)
    }
}

fn seconds(time: GeneralizedTime) -> u64 {
    time.to_unix_duration().as_secs()
}

fn bad(_: der::Error) -> Fault {
    Fault::BadTicket
}

const KERBEROS: i32 = 5;
const TICKET_TAG: TagNumber = TagNumber(1);
pub(super) const PART_TAG: TagNumber = TagNumber(3);
/// RFC 4120 7.5.1.
pub(super) const TICKET_USAGE: Usage = Usage(2);
/// RFC 4120 5.3.
const INVALID_FLAG: usize = 7;
/// OpenAFS `MAXKTCNAMELEN`.
const NAME_MAX: usize = 64;
/// OpenAFS `KTC_TIME_UNCERTAINTY`.
const SKEW: u64 = 15 * 60;
/// OpenAFS `MAXKTCTICKETLIFETIME`.
const LIFETIME_MAX: u64 = 30 * 24 * 60 * 60;
const FOR_EVER: u64 = 0x7fff_ffff;
/// Services whose second name is a host.
const ON_HOSTS: [&str; 37] = [
    "discuss",
    "rvdsrv",
    "sample",
    "olc",
    "pop",
    "sis",
    "rfs",
    "imap",
    "ftp",
    "ecat",
    "daemon",
    "gnats",
    "moira",
    "prms",
    "mandarin",
    "register",
    "changepw",
    "sms",
    "afpserver",
    "gdss",
    "news",
    "abs",
    "nfs",
    "tftp",
    "http",
    "khttp",
    "pgpsigner",
    "irc",
    "mandarin-agent",
    "write",
    "palladium",
    "smtp",
    "lmtp",
    "ldap",
    "acap",
    "argus",
    "mupdate",
];
