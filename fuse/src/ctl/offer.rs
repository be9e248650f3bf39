//! What comes along with a token, so that the mount can get the next one.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::sync::Arc;

use afs_client::auth::Principal;
use afs_client::auth::ccache::CcacheName;
use afs_client::auth::credential::Credential;
use afs_client::auth::source::{Cache, CacheFile, Origin, Source};
use afs_client::xdr::{Decode, Decoder, Encode, put_counted};
use rxrpc::crypto::krb5::{Enctype, Key};
use zeroize::Zeroizing;

use super::proto::{Nonsense, data, principal, put_principal, text};

/// A source of tokens, as it is handed over.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The cell's service.
    pub service: Principal,
    /// What proves who asks.
    pub origin: Offered,
}

/// What a ticket-granting ticket is had from.
#[derive(Clone, Debug)]
pub enum Offered {
    /// Keys, and whose.
    Keys(Principal, Vec<Key>),
    /// Such a ticket, and where the next one will be.
    Ticket(Box<Credential>, Place),
}

/// Where a newer ticket may appear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// That is not to be known.
    Nowhere,
    /// In a file of this name, in the directory that comes along as a descriptor.
    Beside(OsString),
    /// In a cache of this name, which only who has the rights of its owner can read.
    Named(String),
}

impl Offer {
    /// The source that this makes for user `asker`, whose `directory` came along. A cache is read by name only if the rights
    /// with which that is done are the asker's own anyway.
    pub fn source(self, asker: u32, directory: Option<OwnedFd>) -> Source {
        let origin = match self.origin {
            Offered::Keys(client, keys) => Origin::Keys { client, keys },
            Offered::Ticket(granting, place) => {
                let cache = match (place, directory) {
                    (Place::Beside(name), Some(directory)) => Some(Cache::File(CacheFile {
                        directory,
                        name,
                        owner: asker,
                    })),
                    (Place::Named(name), _) if asker == rustix::process::geteuid().as_raw() => {
                        CcacheName::parse(&name).ok().map(Cache::Named)
                    }
                    _ => None,
                };
                Origin::Ticket {
                    granting,
                    cache: cache.map(Arc::new),
                }
            }
        };
        let service = self.service;
        Source { service, origin }
    }

    /// As bytes, with keys in them.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_principal(out, &self.service);
        match &self.origin {
            Offered::Keys(client, keys) => {
                KEYS.encode(out);
                put_principal(out, client);
                u32::try_from(keys.len()).unwrap_or(u32::MAX).encode(out);
                for key in keys {
                    key.enctype().number().encode(out);
                    put_counted(out, key.bytes());
                }
            }
            Offered::Ticket(granting, place) => {
                TICKET.encode(out);
                put_principal(out, &granting.client);
                put_principal(out, &granting.server);
                granting.enctype.encode(out);
                put_counted(out, &granting.key);
                for time in [granting.starts, granting.ends, granting.renew_till] {
                    time.encode(out);
                }
                put_counted(out, &granting.ticket);
                match place {
                    Place::Nowhere => NOWHERE.encode(out),
                    Place::Beside(name) => {
                        BESIDE.encode(out);
                        put_counted(out, name.as_bytes());
                    }
                    Place::Named(name) => {
                        NAMED.encode(out);
                        put_counted(out, name.as_bytes());
                    }
                }
            }
        }
    }

    /// Of bytes.
    pub(super) fn decode(input: &mut Decoder<'_>) -> Result<Self, Nonsense> {
        let service = principal(input)?;
        let origin = match input.word()? {
            KEYS => {
                let client = principal(input)?;
                let count = input.word()?;
                if count == 0 || count > MAX_KEYS {
                    return Err(Nonsense);
                }
                let mut keys = Vec::new();
                for _ in 0..count {
                    let enctype = Enctype::from_number(i32::decode(input)?).ok_or(Nonsense)?;
                    keys.push(Key::new(enctype, data(input)?).map_err(|_| Nonsense)?);
                }
                Offered::Keys(client, keys)
            }
            TICKET => {
                let granting = Credential {
                    client: principal(input)?,
                    server: principal(input)?,
                    enctype: i32::decode(input)?,
                    key: Zeroizing::new(data(input)?.to_vec()),
                    starts: u32::decode(input)?,
                    ends: u32::decode(input)?,
                    renew_till: u32::decode(input)?,
                    ticket: data(input)?.to_vec(),
                };
                let place = match input.word()? {
                    NOWHERE => Place::Nowhere,
                    BESIDE => Place::Beside(file_name(data(input)?)?),
                    NAMED => Place::Named(text(input)?),
                    _ => return Err(Nonsense),
                };
                Offered::Ticket(Box::new(granting), place)
            }
            _ => return Err(Nonsense),
        };
        Ok(Self { service, origin })
    }
}

/// A name in a directory, and no way out of it.
fn file_name(bytes: &[u8]) -> Result<OsString, Nonsense> {
    let is_name = !bytes.is_empty() && bytes != b"." && bytes != b".." && !bytes.contains(&b'/');
    if is_name && !bytes.contains(&0) {
        Ok(OsString::from_vec(bytes.to_vec()))
    } else {
        Err(Nonsense)
    }
}

const KEYS: u32 = 1;
const TICKET: u32 = 2;
const NOWHERE: u32 = 0;
const BESIDE: u32 = 1;
const NAMED: u32 = 2;
/// There are four kinds.
const MAX_KEYS: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_directory() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"/etc/passwd", b"a\0b"] {
            assert!(file_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(file_name(b"krb5cc_7"), Ok("krb5cc_7".into()));
    }
}
