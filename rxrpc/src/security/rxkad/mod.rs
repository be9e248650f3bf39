//! rxkad: Kerberos tickets, and packets sealed with fcrypt. Security index 2 (rx-security.md 2 to 7).
//!
//! The machine: a client holds a [`Token`], which is a ticket and the key inside it. It seals its packets with that key
//! from the first on. The service cannot open them yet: it sends a challenge, the client answers with the ticket and a
//! proof that it knows the key (`handshake`), the service opens the ticket with one of its own keys (`ticket`), and from
//! then on both seal and open (`packet`) by the same key. Kerberos keys of any kind become keys of rxkad by a derivation (`kdf`).
//!
//! At level clear only the place of each packet is sealed, at level auth the first eight bytes of it too, at level crypt
//! all. None of it is strong by the measure of today; see [`fcrypt`](crate::crypto::fcrypt).

mod fault;
mod handshake;
mod issue;
mod kdf;
mod keys;
mod packet;
mod ticket;
mod version_4;

use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use zeroize::{Zeroize, ZeroizeOnDrop};

pub use fault::Fault;
pub use handshake::{Acceptor, Challenge, Response};
pub use issue::Issue;
pub use kdf::BadSessionKey;
pub use keys::ServerKeys;
pub use packet::Rxkad;
pub use ticket::{Ticket, TicketForm};
pub use version_4::Unfit;

use crate::proto::SecurityIndex;

/// The number of the class on the wire.
pub const INDEX: SecurityIndex = SecurityIndex(2);

/// The key that client and service share: eight bytes, parity and all. Wiped when dropped, and never shown.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SessionKey([u8; 8]);

impl SessionKey {
    /// What it is in the terms of Kerberos (`des-cbc-crc`).
    pub const ENCTYPE: i32 = 1;

    /// A key of these bytes, as they are: the parity bits do not matter to the cipher but are part of every IV.
    #[must_use]
    pub const fn new(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The key that a Kerberos session key of some enctype stands for.
    ///
    /// # Errors
    ///
    /// The enctype has no place in rxkad, or the key is not as long as its keys are.
    pub fn derive(enctype: i32, key: &[u8]) -> Result<Self, BadSessionKey> {
        kdf::derive(enctype, key)
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> [u8; 8] {
        self.0
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey")
    }
}

/// What a client shows: a ticket, and the key that is in it. Two tokens are the same if their tickets are.
#[derive(Clone)]
pub struct Token {
    key: SessionKey,
    kvno: u32,
    ticket: Bytes,
}

impl Token {
    /// A Kerberos 5 ticket (DER, whole) with its session key.
    ///
    /// # Errors
    ///
    /// No key of rxkad can be derived from the session key.
    pub fn kerberos(ticket: Bytes, enctype: i32, key: &[u8]) -> Result<Self, BadSessionKey> {
        Ok(Self {
            key: SessionKey::derive(enctype, key)?,
            kvno: TicketForm::Whole.kvno(),
            ticket,
        })
    }

    /// A ticket of the form, or for the version of the server's key, that `kvno` says.
    #[must_use]
    pub const fn new(ticket: Bytes, kvno: u32, key: SessionKey) -> Self {
        Self { key, kvno, ticket }
    }

    /// The number that is shown with the ticket: what [form](TicketForm) it has.
    #[must_use]
    pub const fn kvno(&self) -> u32 {
        self.kvno
    }

    /// The ticket, as it is shown to services.
    #[must_use]
    pub const fn ticket(&self) -> &Bytes {
        &self.ticket
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.kvno == other.kvno && self.ticket == other.ticket
    }
}

impl Eq for Token {}

impl Hash for Token {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.ticket.hash(state);
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Token(kvno {}, ticket of {} bytes)",
            self.kvno,
            self.ticket.len()
        )
    }
}

#[cfg(test)]
mod tests;
