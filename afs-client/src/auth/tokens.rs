//! Who calls, and with which token.
//!
//! The machine: the program that speaks to the kernel says with each request whose it is, an [`Identity`]. Tokens are kept
//! by identity and cell. Each token that is set gets a number of its own, and what is known of rights is kept by that
//! number ([`ProofId`]): so rights end with the token that they were found out with, and all who have no token for a cell
//! share what nobody in particular may do there. Whoever waits for a new token is woken when one is set.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddrV4;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustix::io::Errno;
use rxrpc::proto::Level;
use rxrpc::security::Security;
use tokio::sync::Notify;

use super::keeper::Keeper;
use super::principal::Principal;
use super::token::Token;
use crate::cell::CellName;
use crate::clock;
use crate::error::Error;
use crate::op::Class;

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
    /// A user below one process: the same user elsewhere is somebody else.
    UserInScope(u32, u64),
    /// Whoever uses the mount.
    Everybody,
}

/// How tokens are used.
#[derive(Clone, Debug)]
pub struct TokenRules {
    /// How well calls with a token are protected.
    pub level: Level,
    /// The same for single cells.
    pub levels: HashMap<CellName, Level>,
    /// Calls to file servers that are less protected are not made; nor are those without a token.
    pub min: Option<Level>,
    /// May who had a token that has expired read as nobody?
    pub expired_read_as_nobody: bool,
    /// How long a store waits for a new token when the old one has expired.
    pub patience: Duration,
    /// Files of the Kerberos configuration, with colons between [default: the system's].
    pub krb5_config: Option<String>,
}

impl Default for TokenRules {
    fn default() -> Self {
        Self {
            level: Level::default(),
            levels: HashMap::new(),
            min: None,
            expired_read_as_nobody: false,
            patience: PATIENCE,
            krb5_config: None,
        }
    }
}

/// A token that is held.
#[derive(Clone, Debug)]
pub struct Holding {
    /// Who makes calls with it.
    pub owner: Identity,
    /// The token.
    pub token: Arc<Token>,
    /// Is there something to get the next one from?
    pub renews: bool,
}

/// How often tokens for a cell were renewed, and how often that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Renewals {
    /// Renewed.
    pub done: u64,
    /// Tried in vain.
    pub failed: u64,
}

/// What rights were found out with: the number of a token, or 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProofId(u64);

impl ProofId {
    pub(crate) const NONE: Self = Self(0);
}

/// What a call is made with.
#[derive(Clone, Debug)]
pub(crate) struct Proof {
    pub(crate) id: ProofId,
    pub(crate) security: Security,
    /// Whose it is, and whether a server's refusal of it was told in the log: that is done once.
    told: Option<Arc<(Principal, AtomicBool)>>,
}

impl Proof {
    const NONE: Self = Self {
        id: ProofId::NONE,
        security: Security::None,
        told: None,
    };

    /// A server does not take the token.
    pub(crate) fn rejected(&self, cell: &CellName, server: SocketAddrV4, why: &dyn fmt::Display) {
        if let Some(told) = &self.told
            && !told.1.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%cell, client = %told.0, %server, "the token is refused: {why}");
        }
    }
}

/// Whom changes of the tokens are told, before who made them goes on.
type Witness = Box<dyn Fn(&[Holding]) + Send + Sync>;

/// The tokens of all identities.
pub(crate) struct Tokens {
    rules: TokenRules,
    held: RwLock<HashMap<(Identity, CellName), Held>>,
    /// Is there any? Most requests need not look further.
    any: AtomicBool,
    /// How many were ever set.
    set: AtomicU64,
    changed: Notify,
    /// Locked while it is told, so that the last word is the newest.
    witness: Mutex<Option<Witness>>,
    renewals: Mutex<HashMap<CellName, Renewals>>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("rules", &self.rules)
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Held {
    token: Arc<Token>,
    proof: Proof,
    /// Gets the next one.
    keeper: Option<Keeper>,
}

impl Tokens {
    pub(crate) fn new(rules: TokenRules) -> Self {
        Self {
            rules,
            held: RwLock::default(),
            any: AtomicBool::new(false),
            set: AtomicU64::new(0),
            changed: Notify::new(),
            witness: Mutex::default(),
            renewals: Mutex::default(),
        }
    }

    /// What calls of `who` to a cell are made with.
    ///
    /// # Errors
    ///
    /// `EKEYEXPIRED`: there is a token, and it is over. `ENOKEY`: there is none, and calls without are not to be made.
    pub(crate) fn proof(&self, who: Identity, cell: &CellName, class: Class) -> Result<Proof, Error> {
        if !self.any.load(Ordering::Acquire) {
            return self.without(cell);
        }
        let held = self.held.read();
        let Some(held) = held.get(&(who, cell.clone())) else {
            return self.without(cell);
        };
        if !held.token.is_expired(clock::wall()) {
            return Ok(held.proof.clone());
        }
        if class == Class::Reading && self.rules.expired_read_as_nobody {
            return self.without(cell);
        }
        let why = format!(
            "the token of {} for cell {cell} has expired: run afs aklog",
            held.token.client
        );
        Err(Error::new(Errno::KEYEXPIRED, why))
    }

    fn without(&self, cell: &CellName) -> Result<Proof, Error> {
        if self.rules.min.is_none() {
            return Ok(Proof::NONE);
        }
        let why = format!("calls to cell {cell} without a token are not to be made: run afs aklog");
        Err(Error::new(Errno::NOKEY, why))
    }

    /// Holds a token, in place of an older one for the same cell. True if it is somebody else's than that was.
    ///
    /// # Errors
    ///
    /// `EKEYREJECTED`: its key is of a kind that rxkad has no use for, or it would be used at too low a level. `ENOSPC`:
    /// the identity has too many.
    pub(crate) fn set(&self, who: Identity, token: Token, keeper: Option<Keeper>) -> Result<bool, Error> {
        let proof = self.prove(&token)?;
        let key = (who, token.cell.clone());
        let mut held = self.held.write();
        let before = held.get(&key).map(|held| held.token.client.clone());
        if before.is_none() && held.keys().filter(|(owner, _)| *owner == who).count() >= MAX_CELLS {
            let why = format!("tokens for {MAX_CELLS} cells are enough");
            return Err(Error::new(Errno::NOSPC, why));
        }
        let is_other = before.is_none_or(|before| before != token.client);
        let token = Arc::new(token);
        let new = Held { token, proof, keeper };
        let old = held.insert(key, new);
        self.any.store(true, Ordering::Release);
        drop(held);
        drop(old);
        self.tell();
        Ok(is_other)
    }

    /// Takes the next token of one that is held, from its keeper. False if it is not held any more.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    pub(crate) fn renew(&self, who: Identity, token: Token) -> Result<bool, Error> {
        let proof = self.prove(&token)?;
        {
            let mut held = self.held.write();
            let Some(held) = held.get_mut(&(who, token.cell.clone())) else {
                return Ok(false);
            };
            if held.token.client != token.client {
                return Ok(false);
            }
            held.token = Arc::new(token);
            held.proof = proof;
        }
        self.tell();
        Ok(true)
    }

    /// What calls with a token are made with.
    fn prove(&self, token: &Token) -> Result<Proof, Error> {
        let rejected = |why: String| Error::new(Errno::KEYREJECTED, why);
        let level = self.rules.levels.get(&token.cell).copied();
        let level = level.unwrap_or(self.rules.level);
        if self.rules.min.is_some_and(|min| level < min) {
            let why = format!(
                "calls to cell {} would be less protected than they must be",
                token.cell
            );
            return Err(rejected(why));
        }
        let with_key = token.rxkad().map_err(|error| rejected(error.to_string()))?;
        Ok(Proof {
            id: ProofId(self.set.fetch_add(1, Ordering::Relaxed) + 1),
            security: Security::Rxkad {
                token: Arc::new(with_key),
                level,
            },
            told: Some(Arc::new((token.client.clone(), AtomicBool::new(false)))),
        })
    }

    /// Forgets the token of a cell, or all that an identity has.
    pub(crate) fn forget(&self, who: Identity, cell: Option<&CellName>) {
        let mut held = self.held.write();
        held.retain(|(owner, of), _| *owner != who || cell.is_some_and(|cell| cell != of));
        self.any.store(!held.is_empty(), Ordering::Release);
        drop(held);
        self.tell();
    }

    /// Has `witness` told what there is: now, and after each change, before who made it goes on.
    pub(crate) fn witness(&self, witness: Witness) {
        let mut place = self.witness.lock();
        witness(&self.list());
        *place = Some(witness);
    }

    fn tell(&self) {
        if let Some(witness) = &*self.witness.lock() {
            witness(&self.list());
        }
        self.changed.notify_waiters();
    }

    /// Who `who` is in a cell; `None` without a token.
    pub(crate) fn principal(&self, who: Identity, cell: &CellName) -> Option<Arc<str>> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let held = self.held.read();
        let held = held.get(&(who, cell.clone()))?;
        Some(held.token.client.to_string().into())
    }

    /// The number of the token that calls which change something are made with; `None` if there is none that is good.
    pub(crate) fn number(&self, who: Identity, cell: &CellName) -> Option<ProofId> {
        self.proof(who, cell, Class::Idempotent)
            .ok()
            .map(|proof| proof.id)
    }

    /// Waits until `who` can prove themselves to the cell, other than by the token `used`. Cancel safe.
    pub(crate) async fn renewed(&self, who: Identity, cell: &CellName, used: Option<ProofId>) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.number(who, cell).is_some_and(|number| Some(number) != used) {
                return;
            }
            changed.await;
        }
    }

    /// How they are used.
    pub(crate) const fn rules(&self) -> &TokenRules {
        &self.rules
    }

    /// All of them.
    pub(crate) fn list(&self) -> Vec<Holding> {
        let held = self.held.read();
        held.iter()
            .map(|((owner, _), held)| Holding {
                owner: *owner,
                token: Arc::clone(&held.token),
                renews: held.keeper.as_ref().is_some_and(Keeper::renews),
            })
            .collect()
    }

    /// Counts what came of a try to renew a token.
    pub(crate) fn count_renewal(&self, cell: &CellName, done: bool) {
        let mut renewals = self.renewals.lock();
        let count = renewals.entry(cell.clone()).or_default();
        if done {
            count.done += 1;
        } else {
            count.failed += 1;
        }
    }

    /// What came of all of them.
    pub(crate) fn renewals(&self) -> Vec<(CellName, Renewals)> {
        let renewals = self.renewals.lock();
        renewals
            .iter()
            .map(|(cell, count)| (cell.clone(), *count))
            .collect()
    }
}

/// As long as somebody may need to come back from lunch, and not so long that a job hangs over night.
const PATIENCE: Duration = Duration::from_mins(10);
/// Cells for which one identity can have a token.
const MAX_CELLS: usize = 64;

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
        let tokens = Tokens::new(TokenRules::default());
        let cell = CellName::new("lab.example").unwrap();
        let other = CellName::new("other.example").unwrap();
        let (alice, bob) = (Identity::User(1001), Identity::User(1002));
        tokens.set(alice, token("lab.example", u32::MAX), None).unwrap();
        let first = tokens.proof(alice, &cell, Class::Reading).unwrap();
        assert_ne!(first.id, ProofId::NONE);
        for (who, cell) in [
            (bob, &cell),
            (Identity::Nobody, &cell),
            (Identity::UserInGroup(1001, 7), &cell),
            (alice, &other),
        ] {
            assert_eq!(tokens.proof(who, cell, Class::Reading).unwrap().id, ProofId::NONE);
        }
        // A new token is a new proof: what was found out with the old one does not count for it.
        tokens.set(alice, token("lab.example", u32::MAX), None).unwrap();
        assert_ne!(tokens.proof(alice, &cell, Class::Reading).unwrap().id, first.id);
        tokens.forget(bob, None);
        tokens.forget(alice, Some(&other));
        assert_eq!(tokens.list().len(), 1);
        tokens.forget(alice, Some(&cell));
        assert_eq!(
            tokens.proof(alice, &cell, Class::Reading).unwrap().id,
            ProofId::NONE
        );

        let now = clock::wall()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        tokens
            .set(alice, token("lab.example", u32::try_from(now - 1).unwrap()), None)
            .unwrap();
        let error = tokens.proof(alice, &cell, Class::Reading).unwrap_err();
        assert_eq!(error.errno(), Errno::KEYEXPIRED.raw_os_error());
        assert_eq!(
            error.to_string(),
            "the token of alice@LAB for cell lab.example has expired: run afs aklog"
        );
    }
    #[test]
    fn a_witness_hears_of_each_change_before_who_makes_it() {
        let tokens = Tokens::new(TokenRules::default());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let alice = Identity::User(1001);
        tokens.set(alice, token("lab.example", 8), None).unwrap();
        let told = Arc::clone(&heard);
        tokens.witness(Box::new(move |held| {
            told.lock()
                .push(held.iter().map(|held| held.token.expires).collect::<Vec<_>>());
        }));
        tokens.renew(alice, token("lab.example", 9)).unwrap();
        tokens.forget(alice, None);
        assert_eq!(*heard.lock(), [vec![8], vec![9], vec![]]);
    }

    #[test]
    fn a_token_is_renewed_only_while_it_is_held_by_the_same() {
        let tokens = Tokens::new(TokenRules::default());
        let cell = CellName::new("lab.example").unwrap();
        let alice = Identity::User(1001);
        assert_eq!(tokens.renew(alice, token("lab.example", 9)), Ok(false));
        tokens.set(alice, token("lab.example", u32::MAX), None).unwrap();
        let first = tokens.number(alice, &cell);
        assert_eq!(tokens.renew(alice, token("lab.example", u32::MAX)), Ok(true));
        assert_ne!(tokens.number(alice, &cell), first);
        let other = Token {
            client: Principal::new(&["bob"], "LAB"),
            ..token("lab.example", u32::MAX)
        };
        assert_eq!(tokens.renew(alice, other.clone()), Ok(false));
        assert_eq!(tokens.set(alice, other.clone(), None), Ok(true));
        assert_eq!(tokens.set(alice, other, None), Ok(false));
    }

    #[test]
    fn levels_and_a_minimum_are_kept_to() {
        let cell = CellName::new("lab.example").unwrap();
        let rules = TokenRules {
            levels: HashMap::from([(cell.clone(), Level::Auth)]),
            min: Some(Level::Crypt),
            ..TokenRules::default()
        };
        let alice = Identity::User(1001);
        let tokens = Tokens::new(rules);
        let refused = tokens
            .set(alice, token("lab.example", u32::MAX), None)
            .unwrap_err();
        assert_eq!(refused.errno(), Errno::KEYREJECTED.raw_os_error());
        let without = tokens.proof(alice, &cell, Class::Reading).unwrap_err();
        assert_eq!(without.errno(), Errno::NOKEY.raw_os_error());
        let other = CellName::new("other.example").unwrap();
        tokens.set(alice, token("other.example", u32::MAX), None).unwrap();
        let proof = tokens.proof(alice, &other, Class::Reading).unwrap();
        assert!(matches!(
            proof.security,
            Security::Rxkad {
                level: Level::Crypt,
                ..
            }
        ));
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_by_another_token() {
        let tokens = Tokens::new(TokenRules::default());
        let cell = CellName::new("lab.example").unwrap();
        let alice = Identity::User(1001);
        tokens.set(alice, token("lab.example", 1), None).unwrap();
        assert_eq!(tokens.number(alice, &cell), None);
        let both = async {
            tokio::join!(tokens.renewed(alice, &cell, None), async {
                tokio::task::yield_now().await;
                tokens.renew(alice, token("lab.example", u32::MAX)).unwrap();
            })
        };
        tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
        // The one that was refused does not count.
        let used = tokens.number(alice, &cell);
        let again = tokens.renewed(alice, &cell, used);
        assert!(
            tokio::time::timeout(Duration::from_millis(10), again)
                .await
                .is_err()
        );
    }
}
