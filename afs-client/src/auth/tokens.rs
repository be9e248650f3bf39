//! Who calls, and with which token.
//!
//! The machine: the program that speaks to the kernel says with each request whose it is, an [`Identity`]. Tokens are kept
//! by identity and cell. Each token that is set gets a number of its own, and what is known of rights is kept by that
//! number ([`ProofId`]): so rights end with the token that they were found out with, and all who have no token for a cell
//! share what nobody in particular may do there.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;
use rustix::io::Errno;
use rxrpc::proto::Level;
use rxrpc::security::{Security, rxkad};

use super::token::Token;
use crate::cell::CellName;
use crate::clock;
use crate::error::Error;

/// Whose request it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// Nobody in particular: the program's own requests.
    #[default]
    Nobody,
    /// A user of this machine.
    User(u32),
    /// A user in one control group: the same user in another is somebody else.
    UserInGroup(u32, u64),
    /// Whoever uses the mount.
    Everybody,
}

/// What rights were found out with: the number of a token, or 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProofId(u64);

impl ProofId {
    pub(crate) const NONE: Self = Self(0);
}

/// What a call is made with.
#[derive(Clone, Debug)]
pub(crate) struct Proof {
    pub(crate) id: ProofId,
    pub(crate) security: Security,
}

impl Proof {
    const NONE: Self = Self {
        id: ProofId::NONE,
        security: Security::None,
    };
}

/// The tokens of all identities.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    held: RwLock<HashMap<(Identity, CellName), Held>>,
    /// Is there any? Most requests need not look further.
    any: AtomicBool,
    /// How many were ever set.
    set: AtomicU64,
}

#[derive(Debug)]
struct Held {
    token: Arc<Token>,
    proof: Proof,
}

impl Tokens {
    /// What calls of `who` to a cell are made with.
    ///
    /// # Errors
    ///
    /// `EKEYEXPIRED`: there is a token, and it is over.
    pub(crate) fn proof(&self, who: Identity, cell: &CellName) -> Result<Proof, Error> {
        if !self.any.load(Ordering::Acquire) {
            return Ok(Proof::NONE);
        }
        let held = self.held.read();
        let Some(held) = held.get(&(who, cell.clone())) else {
            return Ok(Proof::NONE);
        };
        if held.token.is_expired(clock::wall()) {
            let why = format!(
                "the token of {} for cell {cell} has expired: run afs aklog",
                held.token.client
            );
            return Err(Error::new(Errno::KEYEXPIRED, why));
        }
        Ok(held.proof.clone())
    }

    /// Keeps a token, in place of an older one for the same cell.
    ///
    /// # Errors
    ///
    /// `EKEYREJECTED`: its key is of a kind that rxkad has no use for.
    pub(crate) fn set(&self, who: Identity, token: Token) -> Result<(), Error> {
        let ticket = token.ticket.clone().into();
        let with_key = rxkad::Token::kerberos(ticket, token.enctype, &token.key)
            .map_err(|error| Error::new(Errno::KEYREJECTED, error.to_string()))?;
        let proof = Proof {
            id: ProofId(self.set.fetch_add(1, Ordering::Relaxed) + 1),
            security: Security::Rxkad {
                token: Arc::new(with_key),
                level: Level::Crypt,
            },
        };
        let key = (who, token.cell.clone());
        let token = Arc::new(token);
        let mut held = self.held.write();
        held.insert(key, Held { token, proof });
        self.any.store(true, Ordering::Release);
        Ok(())
    }

    /// Forgets the token of a cell, or all that an identity has.
    pub(crate) fn forget(&self, who: Identity, cell: Option<&CellName>) {
        let mut held = self.held.write();
        held.retain(|(owner, of), _| *owner != who || cell.is_some_and(|cell| cell != of));
        self.any.store(!held.is_empty(), Ordering::Release);
    }

    /// All of them, and whose they are.
    pub(crate) fn list(&self) -> Vec<(Identity, Arc<Token>)> {
        let held = self.held.read();
        held.iter()
            .map(|((who, _), held)| (*who, Arc::clone(&held.token)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use zeroize::Zeroizing;

    use super::*;
    use crate::auth::Principal;

    fn token(cell: &str, ends: u32) -> Token {
        Token {
            cell: CellName::new(cell).unwrap(),
            client: Principal::new(&["alice"], "LAB"),
            kvno: 256,
            enctype: 18,
            key: Zeroizing::new(vec![7; 32]),
            ticket: vec![1, 2, 3],
            begins: 0,
            expires: ends,
        }
    }

    #[test]
    fn tokens_are_of_one_identity_and_cell_and_count_until_they_expire() {
        let tokens = Tokens::default();
        let cell = CellName::new("lab.example").unwrap();
        let other = CellName::new("other.example").unwrap();
        let (alice, bob) = (Identity::User(1001), Identity::User(1002));
        tokens.set(alice, token("lab.example", u32::MAX)).unwrap();
        let first = tokens.proof(alice, &cell).unwrap();
        assert_ne!(first.id, ProofId::NONE);
        for (who, cell) in [
            (bob, &cell),
            (Identity::Nobody, &cell),
            (Identity::UserInGroup(1001, 7), &cell),
            (alice, &other),
        ] {
            assert_eq!(tokens.proof(who, cell).unwrap().id, ProofId::NONE);
        }
        // A new token is a new proof: what was found out with the old one does not count for it.
        tokens.set(alice, token("lab.example", u32::MAX)).unwrap();
        assert_ne!(tokens.proof(alice, &cell).unwrap().id, first.id);
        tokens.forget(bob, None);
        tokens.forget(alice, Some(&other));
        assert_eq!(tokens.list().len(), 1);
        tokens.forget(alice, Some(&cell));
        assert_eq!(tokens.proof(alice, &cell).unwrap().id, ProofId::NONE);

        let now = clock::wall()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        tokens
            .set(alice, token("lab.example", u32::try_from(now - 1).unwrap()))
            .unwrap();
        let error = tokens.proof(alice, &cell).unwrap_err();
        assert_eq!(error.errno(), Errno::KEYEXPIRED.raw_os_error());
        assert_eq!(
            error.to_string(),
            "the token of alice@LAB for cell lab.example has expired: run afs aklog"
        );
    }
}
