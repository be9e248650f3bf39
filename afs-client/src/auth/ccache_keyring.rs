//! Credential caches in keyrings of the kernel (MIT's layout).
//!
//! The machine: an anchor (the session, the user, or the user's persistent keyring) holds a keyring per collection of
//! caches; in it is a keyring per cache, and a key that names the primary one. A cache holds a key per credential and one
//! for its principal.

use std::fmt;
use std::io;

use keyutils::{Key, Keyring, SpecialKeyring};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::ccache::{CcacheError, Credentials};
use super::credential::Credential;
use super::reader::{Malformed, Reader};

/// Where in the keyrings a cache is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    anchor: Anchor,
    collection: String,
    /// One cache of the collection; by default its primary one.
    cache: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Anchor {
    Process,
    Session,
    Thread,
    User,
    Persistent,
}

impl Anchor {
    const NAMES: [(&str, Self); 5] = [
        ("process", Self::Process),
        ("session", Self::Session),
        ("thread", Self::Thread),
        ("user", Self::User),
        ("persistent", Self::Persistent),
    ];
}

impl Place {
    /// Reads what follows `KEYRING:`, `ANCHOR:COLLECTION[:CACHE]`. Without an anchor it is the session.
    pub(super) fn parse(text: &str) -> Self {
        let named = text.split_once(':').and_then(|(word, rest)| {
            let (_, anchor) = Anchor::NAMES.iter().find(|(name, _)| *name == word)?;
            Some((*anchor, rest))
        });
        let (anchor, rest) = named.unwrap_or((Anchor::Session, text));
        let (collection, cache) = match rest.split_once(':') {
            Some((collection, cache)) => (collection, Some(cache.to_owned())),
            None => (rest, None),
        };
        Self {
            anchor,
            collection: collection.to_owned(),
            cache,
        }
    }

    /// The keyring of the collection.
    fn open(&self) -> io::Result<Keyring> {
        let special = match self.anchor {
            Anchor::Process => SpecialKeyring::Process,
            Anchor::Session => SpecialKeyring::Session,
            Anchor::Thread => SpecialKeyring::Thread,
            Anchor::User => SpecialKeyring::User,
            Anchor::Persistent => {
                let mut process = Keyring::attach_or_create(SpecialKeyring::Process)?;
                return child(&process.attach_persistent()?, "_krb");
            }
        };
        child(&Keyring::attach(special)?, &format!("_krb_{}", self.collection))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Anchor::NAMES.iter().find(|(_, anchor)| *anchor == self.anchor);
        write!(f, "{}:{}", name.map_or("", |(name, _)| name), self.collection)?;
        match &self.cache {
            Some(cache) => write!(f, ":{cache}"),
            None => Ok(()),
        }
    }
}

/// Reads a cache.
pub(super) fn read(place: &Place) -> Result<Credentials, CcacheError> {
    let name = || format!("KEYRING:{place}");
    let io = |error: io::Error| match Errno::from_io_error(&error) {
        Some(Errno::NOKEY | Errno::KEYREVOKED | Errno::KEYEXPIRED) => CcacheError::Missing(name()),
        _ => CcacheError::io(name(), error),
    };
    let malformed = |malformed| CcacheError::Malformed {
        name: name(),
        malformed,
    };
    let collection = place.open().map_err(io)?;
    let cache = match &place.cache {
        Some(cache) => cache.clone(),
        None => primary(&collection, place).map_err(io)?.map_err(malformed)?,
    };
    let (keys, _) = child(&collection, &cache)
        .and_then(|cache| Ok(cache.read()?))
        .map_err(io)?;
    let mut owner = None;
    let mut credentials = Vec::new();
    for key in keys {
        let named = key.description().map_err(|error| io(error.into()))?.description;
        if named != PRINCIPAL && named.starts_with(RESERVED) {
            continue;
        }
        let payload = Zeroizing::new(key.read().map_err(|error| io(error.into()))?);
        let mut input = Reader::new(&payload);
        if named == PRINCIPAL {
            owner = Some(input.principal().map_err(malformed)?);
        } else {
            credentials.push(Credential::read(&mut input).map_err(malformed)?);
        }
    }
    credentials.retain(|credential| !credential.is_note());
    let owner = owner.ok_or_else(|| CcacheError::Missing(name()))?;
    Ok(Credentials { owner, credentials })
}

/// The name of the collection's primary cache: a version and the name behind its length.
fn primary(collection: &Keyring, place: &Place) -> io::Result<Result<String, Malformed>> {
    let (keys, _) = collection.read()?;
    let is_primary = |key: &&Key| key.description().is_ok_and(|told| told.description == PRIMARY);
    let Some(key) = keys.iter().find(is_primary) else {
        return Ok(Ok(match place.anchor {
            Anchor::Persistent => "tkt".to_owned(),
            _ => place.collection.clone(),
        }));
    };
    let payload = key.read()?;
    let mut input = Reader::new(&payload);
    Ok(input.u32().and_then(|_version| {
        let name = input.bytes()?;
        input.text(name)
    }))
}

/// The keyring of this name that is linked from `parent`, and not from one further down.
fn child(parent: &Keyring, name: &str) -> io::Result<Keyring> {
    let (_, keyrings) = parent.read()?;
    keyrings
        .into_iter()
        .find(|keyring| keyring.description().is_ok_and(|told| told.description == name))
        .ok_or_else(|| Errno::NOKEY.into())
}

const PRINCIPAL: &str = "__krb5_princ__";
/// Other keys of the library's own begin like this: the offset of the clock, for one.
const RESERVED: &str = "__krb5_";
const PRIMARY: &str = "krb_ccache:primary";
