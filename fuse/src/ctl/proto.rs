//! What is said over the control socket, in XDR.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use afs_client::auth::{Principal, Token};
use afs_client::cell::CellName;
use afs_client::xdr::{Decode, Decoder, Encode, XdrError, put_counted};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::offer::Offer;

/// What a command asks.
#[derive(Debug)]
pub enum Request {
    /// Make calls with this token from now on, and get the next one from there.
    SetToken(Box<Token>, Option<Offer>),
    /// Which tokens are there?
    ListTokens,
    /// Forget the token of a cell, or all of them.
    ForgetTokens(Option<CellName>),
    /// The process that asks, and all below it, are an identity of their own from now on.
    OpenScope,
    /// How is the mount?
    Status,
    /// Why is this path, from the root of the mount on, as it is?
    Why(PathBuf),
    /// What do the metrics say?
    Sample,
    /// Trace this share of requests (in millionths) from now on, and those that take so many milliseconds.
    Trace(Option<u32>, Option<u32>),
}

/// What a mount answers.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is done.
    Done,
    /// These are held.
    Tokens(Vec<Held>),
    /// A report, in JSON.
    Report(String),
    /// No, and why not.
    Refused(String),
}

/// A token that is held: all that anybody is told of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Held {
    /// Who makes calls with it.
    pub owner: String,
    /// The cell.
    pub cell: String,
    /// Whose it is.
    #[serde(rename = "principal")]
    pub client: String,
    /// Until when it can be used (unix seconds).
    pub expires: u32,
    /// Will the mount get the next one?
    pub renews: bool,
}

/// Bytes that mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonsense;

impl From<XdrError> for Nonsense {
    fn from(_: XdrError) -> Self {
        Self
    }
}

impl fmt::Display for Nonsense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it cannot be understood")
    }
}

impl Request {
    /// As bytes. They hold a key if this does.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Grown beforehand: what a growing vector leaves behind is not wiped.
        let mut out = Zeroizing::new(Vec::with_capacity(MESSAGE_MAX));
        match self {
            Self::SetToken(token, offer) => {
                SET_TOKEN.encode(&mut out);
                put_counted(&mut out, token.cell.as_str().as_bytes());
                put_principal(&mut out, &token.client);
                token.kvno.encode(&mut out);
                token.enctype.encode(&mut out);
                put_counted(&mut out, &token.key);
                put_counted(&mut out, &token.ticket);
                token.begins.encode(&mut out);
                token.expires.encode(&mut out);
                u32::from(offer.is_some()).encode(&mut out);
                if let Some(offer) = offer {
                    offer.encode(&mut out);
                }
            }
            Self::ListTokens => LIST_TOKENS.encode(&mut out),
            Self::OpenScope => OPEN_SCOPE.encode(&mut out),
            Self::Status => STATUS.encode(&mut out),
            Self::Why(path) => {
                WHY.encode(&mut out);
                put_counted(&mut out, path.as_os_str().as_bytes());
            }
            Self::Sample => SAMPLE.encode(&mut out),
            Self::Trace(ratio, slow_ms) => {
                TRACE.encode(&mut out);
                for setting in [ratio, slow_ms] {
                    setting.unwrap_or(AS_IT_IS).encode(&mut out);
                }
            }
            Self::ForgetTokens(cell) => {
                FORGET_TOKENS.encode(&mut out);
                put_counted(&mut out, cell.as_ref().map_or("", CellName::as_str).as_bytes());
            }
        }
        out
    }

    /// Of bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Nonsense> {
        let mut input = Decoder::new(bytes);
        let request = match input.word()? {
            SET_TOKEN => {
                let token = Token {
                    cell: CellName::new(&text(&mut input)?).map_err(|_| Nonsense)?,
                    client: principal(&mut input)?,
                    kvno: u32::decode(&mut input)?,
                    enctype: i32::decode(&mut input)?,
                    key: Zeroizing::new(data(&mut input)?.to_vec()),
                    ticket: data(&mut input)?.to_vec(),
                    begins: u32::decode(&mut input)?,
                    expires: u32::decode(&mut input)?,
                };
                let offer = match input.word()? {
                    0 => None,
                    1 => Some(Offer::decode(&mut input)?),
                    _ => return Err(Nonsense),
                };
                Self::SetToken(Box::new(token), offer)
            }
            LIST_TOKENS => Self::ListTokens,
            OPEN_SCOPE => Self::OpenScope,
            STATUS => Self::Status,
            WHY => Self::Why(OsStr::from_bytes(data(&mut input)?).into()),
            SAMPLE => Self::Sample,
            TRACE => {
                let mut setting = || input.word().map(|word| (word != AS_IT_IS).then_some(word));
                Self::Trace(setting()?, setting()?)
            }
            FORGET_TOKENS => match text(&mut input)?.as_str() {
                "" => Self::ForgetTokens(None),
                cell => Self::ForgetTokens(Some(CellName::new(cell).map_err(|_| Nonsense)?)),
            },
            _ => return Err(Nonsense),
        };
        input.end()?;
        Ok(request)
    }
}

impl Reply {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Done => DONE.encode(&mut out),
            Self::Tokens(tokens) => {
                TOKENS.encode(&mut out);
                for held in tokens {
                    put_counted(&mut out, held.owner.as_bytes());
                    put_counted(&mut out, held.cell.as_bytes());
                    put_counted(&mut out, held.client.as_bytes());
                    held.expires.encode(&mut out);
                    u32::from(held.renews).encode(&mut out);
                }
            }
            Self::Report(json) => {
                REPORT.encode(&mut out);
                put_counted(&mut out, json.as_bytes());
            }
            Self::Refused(why) => {
                REFUSED.encode(&mut out);
                put_counted(&mut out, why.as_bytes());
            }
        }
        out
    }

    /// Of bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Nonsense> {
        let mut input = Decoder::new(bytes);
        let reply = match input.word()? {
            DONE => Self::Done,
            TOKENS => {
                let mut tokens = Vec::new();
                while !input.rest().is_empty() {
                    tokens.push(Held {
                        owner: text(&mut input)?,
                        cell: text(&mut input)?,
                        client: text(&mut input)?,
                        expires: u32::decode(&mut input)?,
                        renews: u32::decode(&mut input)? != 0,
                    });
                }
                Self::Tokens(tokens)
            }
            REPORT => Self::Report(text(&mut input)?),
            REFUSED => Self::Refused(text(&mut input)?),
            _ => return Err(Nonsense),
        };
        input.end()?;
        Ok(reply)
    }
}

pub(super) fn data<'a>(input: &mut Decoder<'a>) -> Result<&'a [u8], Nonsense> {
    // A message holds no more.
    Ok(input.counted(u32::MAX)?)
}

pub(super) fn text(input: &mut Decoder<'_>) -> Result<String, Nonsense> {
    String::from_utf8(data(input)?.to_vec()).map_err(|_| Nonsense)
}

/// A principal in its parts: some have names that their own spelling cannot tell.
pub(super) fn put_principal(out: &mut Vec<u8>, principal: &Principal) {
    put_counted(out, principal.realm.as_bytes());
    u32::try_from(principal.components.len())
        .unwrap_or(u32::MAX)
        .encode(out);
    for component in &principal.components {
        put_counted(out, component.as_bytes());
    }
}

pub(super) fn principal(input: &mut Decoder<'_>) -> Result<Principal, Nonsense> {
    let realm = text(input)?;
    let count = input.word()?;
    if count == 0 || count > MAX_COMPONENTS {
        return Err(Nonsense);
    }
    let components = (0..count).map(|_| text(input)).collect::<Result<_, _>>()?;
    Ok(Principal { components, realm })
}

/// No message is longer: servers take tickets of up to 12,000 bytes, and KDCs give longer ones to themselves.
pub(super) const MESSAGE_MAX: usize = 64 << 10;
const MAX_COMPONENTS: u32 = 16;
const SET_TOKEN: u32 = 1;
const LIST_TOKENS: u32 = 2;
const FORGET_TOKENS: u32 = 3;
const OPEN_SCOPE: u32 = 4;
const STATUS: u32 = 5;
const WHY: u32 = 6;
const SAMPLE: u32 = 7;
const TRACE: u32 = 8;
const AS_IT_IS: u32 = u32::MAX;
const DONE: u32 = 0;
const TOKENS: u32 = 1;
const REFUSED: u32 = 2;
const REPORT: u32 = 3;

#[cfg(test)]
mod tests {
    use afs_client::auth::credential::Credential;
    use rxrpc::crypto::krb5::{Enctype, Key};

    use super::*;
    use crate::ctl::offer::{Offered, Place};

    fn token() -> Token {
        Token {
            cell: CellName::new("lab.example").unwrap(),
            client: Principal::new(&["alice"], "LAB.EXAMPLE"),
            kvno: 256,
            enctype: 18,
            key: Zeroizing::new(vec![7; 32]),
            ticket: vec![1, 2, 3],
            begins: 5,
            expires: 6,
        }
    }

    fn offer(origin: Offered) -> Offer {
        let service = Principal::new(&["afs", "lab.example"], "LAB.EXAMPLE");
        Offer { service, origin }
    }

    fn keys() -> Offered {
        let keys = Enctype::ALL.map(|enctype| Key::new(enctype, &vec![7; enctype.key_len()]).unwrap());
        Offered::Keys(token().client, keys.to_vec())
    }

    fn ticket(place: Place) -> Offered {
        let granting = Credential {
            client: token().client,
            server: Principal::ticket_granter("LAB.EXAMPLE", "LAB.EXAMPLE"),
            enctype: 18,
            key: Zeroizing::new(vec![7; 32]),
            starts: 1,
            ends: 2,
            renew_till: 3,
            ticket: vec![4; 5],
        };
        Offered::Ticket(Box::new(granting), place)
    }

    #[test]
    fn requests_and_replies_arrive_as_sent() {
        for request in [
            Request::SetToken(Box::new(token()), None),
            Request::SetToken(Box::new(token()), Some(offer(keys()))),
            Request::SetToken(Box::new(token()), Some(offer(ticket(Place::Nowhere)))),
            Request::SetToken(Box::new(token()), Some(offer(ticket(Place::Beside("x".into()))))),
            Request::SetToken(
                Box::new(token()),
                Some(offer(ticket(Place::Named("KCM:".into())))),
            ),
            Request::ListTokens,
            Request::OpenScope,
            Request::Status,
            Request::Why("/a.b/c".into()),
            Request::Sample,
            Request::Trace(Some(10_000), None),
            Request::ForgetTokens(None),
            Request::ForgetTokens(CellName::new("a.b").ok()),
        ] {
            let bytes = request.encode();
            for len in 0..bytes.len() {
                assert_eq!(Request::decode(&bytes[..len]).err(), Some(Nonsense));
            }
            assert_eq!(Request::decode(&bytes).unwrap().encode(), bytes);
        }
        let held = Held {
            owner: "uid 7".to_owned(),
            cell: "lab.example".to_owned(),
            client: "alice@LAB.EXAMPLE".to_owned(),
            expires: 7,
            renews: true,
        };
        for reply in [
            Reply::Done,
            Reply::Tokens(vec![held.clone(), held]),
            Reply::Tokens(Vec::new()),
            Reply::Report("{}".to_owned()),
            Reply::Refused("no".to_owned()),
        ] {
            assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
        }
        for bytes in [&[0, 0, 0, 9][..], &[0, 0, 0, 1, 255, 255, 255, 255], &[]] {
            assert_eq!(Request::decode(bytes).err(), Some(Nonsense));
        }
    }

    #[test]
    fn keys_are_not_shown() {
        for origin in [keys(), ticket(Place::Nowhere)] {
            let shown = format!("{:?}", Request::SetToken(Box::new(token()), Some(offer(origin))));
            assert!(!shown.contains("7, 7"), "{shown}");
        }
    }
}
