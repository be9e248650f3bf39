//! Tokens: what a caller proves with, to the servers of a cell, who they are.

use std::fmt;
use std::time::SystemTime;

use rxrpc::security::rxkad::{self, BadSessionKey, SessionKey};
use zeroize::Zeroizing;

use super::credential::{Credential, from_unix};
use super::principal::Principal;
use crate::cell::CellName;

/// A ticket for the service of a cell, with the key inside. Wiped when dropped, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The cell.
    pub cell: CellName,
    /// Whose it is.
    pub client: Principal,
    /// What form the ticket has (rx-security.md 5.1).
    pub kvno: u32,
    /// The kind of the key.
    pub enctype: i32,
    /// The key that the servers find in the ticket.
    pub key: Zeroizing<Vec<u8>>,
    /// The ticket.
    pub ticket: Vec<u8>,
    /// From when it can be used (unix seconds).
    pub begins: u32,
    /// Until when (unix seconds).
    pub expires: u32,
}

impl Token {
    /// The token that a ticket for the cell's service makes.
    #[must_use]
    pub fn from_credential(cell: CellName, credential: &Credential) -> Self {
        Self {
            cell,
            client: credential.client.clone(),
            kvno: KERBEROS_5,
            enctype: credential.enctype,
            key: credential.key.clone(),
            ticket: credential.ticket.clone(),
            begins: credential.starts,
            expires: credential.ends,
        }
    }

    /// What calls are made with.
    ///
    /// # Errors
    ///
    /// Its key is of a kind that rxkad has no use for.
    pub fn rxkad(&self) -> Result<rxkad::Token, BadSessionKey> {
        let key = SessionKey::derive(self.enctype, &self.key)?;
        Ok(rxkad::Token::new(self.ticket.clone().into(), self.kvno, key))
    }

    /// Is it over at `now`?
    #[must_use]
    pub fn is_expired(&self, now: SystemTime) -> bool {
        from_unix(self.expires) <= now
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cell, client) = (&self.cell, &self.client);
        write!(f, "Token({client} for {cell}, expires {})", self.expires)
    }
}

/// The ticket is a whole ticket of Kerberos 5.
const KERBEROS_5: u32 = 256;
