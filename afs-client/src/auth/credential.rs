//! Tickets with their keys, as they are kept in credential caches.

use std::fmt;
use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use super::principal::Principal;
use super::reader::{Malformed, Reader};

/// A ticket and the key that is inside it.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// Whose it is.
    pub client: Principal,
    /// For whom it is.
    pub server: Principal,
    /// The kind of the key.
    pub enctype: i32,
    /// The key that both sides share.
    pub key: Zeroizing<Vec<u8>>,
    /// From when it can be used (unix seconds).
    pub starts: u32,
    /// Until when (unix seconds).
    pub ends: u32,
    /// Until when it can be renewed (unix seconds); 0 if it cannot.
    pub renew_till: u32,
    /// The ticket: DER, for the server's eyes only.
    pub ticket: Vec<u8>,
}

impl Credential {
    /// Reads one, as version 4 of the file format and the stores that took it over have it.
    pub(super) fn read(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        let client = input.principal()?;
        let server = input.principal()?;
        let (enctype, key) = input.key()?;
        let authenticated = input.u32()?;
        let starts = input.u32()?;
        let ends = input.u32()?;
        let renew_till = input.u32()?;
        let _is_session_key = input.u8()?;
        let _flags = input.u32()?;
        for _addresses_then_authorization_data in 0..2 {
            let count = input.length()?;
            for _ in 0..count {
                input.u16()?;
                input.bytes()?;
            }
        }
        let ticket = input.bytes()?.to_vec();
        let _second_ticket = input.bytes()?;
        Ok(Self {
            client,
            server,
            enctype,
            key,
            starts: if starts == 0 { authenticated } else { starts },
            ends,
            renew_till,
            ticket,
        })
    }

    /// It is no ticket but a note of the library's own.
    pub(super) fn is_note(&self) -> bool {
        self.server.realm == "X-CACHECONF:"
    }

    /// Can it be used at `now` for some time still?
    #[must_use]
    pub fn is_valid(&self, now: SystemTime) -> bool {
        from_unix(self.ends) > now + MARGIN
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (client, server) = (&self.client, &self.server);
        write!(f, "Credential({client} for {server}, ends {})", self.ends)
    }
}

/// A time of Kerberos.
#[must_use]
pub fn from_unix(seconds: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into())
}

/// What ends sooner is not worth using.
const MARGIN: Duration = Duration::from_secs(60);
