//! Who is who in the cell: its users, and the keys by which it knows them.
//!
//! The machine: a ticket is sealed with one of the service's keys and names a user; who shows it has that user's rights.
//! What a Kerberos realm would give out is made here ([`Accounts::token`]), with the same keys. Who is not known, or comes
//! from another realm, is nobody in particular, and so is a server that shows a ticket of its own.

use rxrpc::crypto::krb5::Key;
use rxrpc::proto::{self, Level};
use rxrpc::security::rxkad::{Issue, ServerKeys, SessionKey, Token};

use super::storage::{ADMINISTRATORS, Caller};

/// The users of a cell, and its keys.
#[derive(Clone, Debug)]
pub struct Accounts {
    users: Vec<User>,
    /// By version.
    keys: Vec<(u32, Key)>,
    /// The lowest level at which calls with a ticket are taken.
    pub least: Level,
}

#[derive(Clone, Debug)]
struct User {
    name: String,
    id: u32,
    groups: Vec<String>,
}

impl Default for Accounts {
    /// `alice`, `bob` and `admin`, who is an administrator; and no keys: nobody can prove to be any of them.
    fn default() -> Self {
        let none = Self {
            users: Vec::new(),
            keys: Vec::new(),
            least: Level::Clear,
        };
        none.with_user("admin", 1, &[ADMINISTRATORS])
            .with_user("alice", 1001, &[])
            .with_user("bob", 1002, &[])
    }
}

impl Accounts {
    /// The same, and one user more.
    #[must_use]
    pub fn with_user(mut self, name: &str, id: u32, groups: &[&str]) -> Self {
        self.users.push(User {
            name: name.to_owned(),
            id,
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        });
        self
    }

    /// The same, and one key more: tickets made with it are taken.
    #[must_use]
    pub fn with_key(mut self, kvno: u32, key: Key) -> Self {
        self.keys.push((kvno, key));
        self
    }

    /// The names that access control lists may hold.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.users.iter().map(|user| user.name.as_str())
    }

    /// What opens tickets; `None` without any key.
    pub(crate) fn server_keys(&self) -> Option<ServerKeys> {
        let keys = (!self.keys.is_empty()).then_some(&self.keys)?;
        Some(keys.iter().cloned().collect())
    }

    /// A token for a client of this name (its parts), as the realm of `cell` would give it, with the newest key. `times`:
    /// from when and until when it holds (unix seconds). `None` without any key, or if the name is too long.
    #[must_use]
    pub fn token(&self, cell: &str, name: &[&str], times: (u64, u64)) -> Option<Token> {
        let (kvno, key) = self.keys.iter().max_by_key(|(kvno, _)| kvno)?;
        let (mut session, mut confounder) = ([0; 8], [0; 16]);
        getrandom::fill(&mut session).ok()?;
        getrandom::fill(&mut confounder).ok()?;
        let issue = Issue {
            name,
            realm: &realm_of(cell),
            session: SessionKey::new(session),
            times,
        };
        issue.token(*kvno, key, confounder).ok()
    }

    /// Who calls, by what a ticket has shown.
    pub(crate) fn caller(&self, cell: &str, shown: Option<&proto::Caller>) -> Caller {
        shown
            .filter(|shown| shown.cell == realm_of(cell) && shown.instance.is_empty())
            .and_then(|shown| self.users.iter().find(|user| user.name == shown.name))
            .map_or(Caller::ANONYMOUS, |user| {
                Caller::user(user.id, &user.name, &user.groups)
            })
    }
}

fn realm_of(cell: &str) -> String {
    cell.to_ascii_uppercase()
}
