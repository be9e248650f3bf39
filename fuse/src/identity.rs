//! The rule by which the user, and perhaps the control group, of a request become an identity.
//!
//! The machine: the kernel names with each request the user and the process that it is made for. By `uid`, each user is an
//! identity. By `uid+cgroup`, a user is another one in each control group: in two containers the same number need not be
//! the same person. Below a process that `afs pagsh` has made a scope, the user is another one in either case. By `mount`,
//! all who use the mount are one. What is done through an open file is done with the rights of whoever opened it.

use std::collections::HashMap;

use afs_client::auth::Identity;
use clap::ValueEnum;
use parking_lot::Mutex;

use crate::process::control_group;
use crate::scope::Scopes;

/// What makes an identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Rule {
    /// The user.
    #[default]
    Uid,
    /// The user, and the control group: the same user in two containers is two.
    #[value(name = "uid+cgroup")]
    UidCgroup,
    /// All who use the mount are one, and use the same tokens.
    Mount,
}

/// The identities of one mount.
#[derive(Debug)]
pub struct Identities {
    /// What makes one.
    pub rule: Rule,
    /// Those of process trees.
    pub scopes: Scopes,
    groups: Mutex<Groups>,
}

/// Numbers for control groups, by their paths. Only those in which somebody had a token have one.
#[derive(Debug, Default)]
struct Groups {
    given: u64,
    numbers: HashMap<String, u64>,
}

impl Identities {
    /// Those of a rule.
    pub fn new(rule: Rule) -> Self {
        Self {
            rule,
            scopes: Scopes::default(),
            groups: Mutex::default(),
        }
    }

    /// Whose a request is that thread `pid` of user `uid` makes.
    pub fn of(&self, uid: u32, pid: u32) -> Identity {
        self.identity(uid, pid, |path| {
            self.groups.lock().numbers.get(path).copied().unwrap_or(STRANGE)
        })
    }

    /// The same, for somebody who is to have a token. `held` are the identities that have one: groups with none of them lose
    /// their numbers when there are many.
    pub fn of_holder(&self, uid: u32, pid: u32, held: impl Fn() -> Vec<Identity>) -> Identity {
        self.identity(uid, pid, |path| {
            let mut groups = self.groups.lock();
            if groups.numbers.len() >= MANY_GROUPS {
                let held = held();
                groups.numbers.retain(|_, number| {
                    held.iter()
                        .any(|who| matches!(who, Identity::UserInGroup(_, of) if of == number))
                });
            }
            if let Some(number) = groups.numbers.get(path) {
                return *number;
            }
            groups.given += 1;
            let number = groups.given;
            groups.numbers.insert(path.to_owned(), number);
            number
        })
    }

    fn identity(&self, uid: u32, pid: u32, number: impl FnOnce(&str) -> u64) -> Identity {
        if self.rule == Rule::Mount {
            return Identity::Everybody;
        }
        if let Some(scope) = self.scopes.of(uid, pid) {
            return Identity::UserInScope(uid, scope);
        }
        match self.rule {
            // Of whom the group cannot be told, nobody: not the user in some other group.
            Rule::UidCgroup => {
                control_group(pid).map_or(Identity::Nobody, |path| Identity::UserInGroup(uid, number(&path)))
            }
            _ => Identity::User(uid),
        }
    }
}

/// The number of groups that have none: nobody in them has a token.
const STRANGE: u64 = 0;
const MANY_GROUPS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_tell_apart_what_they_say() {
        let pid = std::process::id();
        assert_eq!(Identities::new(Rule::Uid).of(7, pid), Identity::User(7));
        let mount = Identities::new(Rule::Mount);
        assert_eq!(mount.of(7, pid), mount.of(8, 1));
        let groups = Identities::new(Rule::UidCgroup);
        assert_eq!(groups.of(7, 0), Identity::Nobody);
        if control_group(pid).is_some() {
            assert_eq!(groups.of(7, pid), Identity::UserInGroup(7, STRANGE));
            let mine = groups.of_holder(7, pid, Vec::new);
            assert_eq!(mine, Identity::UserInGroup(7, 1));
            assert_eq!(groups.of(7, pid), mine);
            assert_ne!(groups.of(8, pid), mine);
        }
    }

    #[test]
    fn a_scope_is_an_identity_of_its_own() {
        let pid = std::process::id();
        for rule in [Rule::Uid, Rule::UidCgroup] {
            let identities = Identities::new(rule);
            let outside = identities.of(7, pid);
            let scope = identities.scopes.open(7, pid).unwrap();
            assert_eq!(identities.of(7, pid), Identity::UserInScope(7, scope));
            identities.scopes.close(scope);
            assert_eq!(identities.of(7, pid), outside);
        }
    }

    #[test]
    fn groups_without_tokens_lose_their_numbers() {
        let identities = Identities::new(Rule::UidCgroup);
        let pid = std::process::id();
        if control_group(pid).is_none() {
            return;
        }
        let paths = (0..4096).map(|number| (format!("/{number}"), number));
        identities.groups.lock().numbers = paths.collect();
        identities.groups.lock().given = 4096;
        let held = || vec![Identity::UserInGroup(9, 17)];
        assert_eq!(identities.of_holder(7, pid, held), Identity::UserInGroup(7, 4097));
        assert_eq!(identities.groups.lock().numbers.len(), 2);
    }
}
