//! The rule by which the user, and perhaps the control group, of a request become an identity.
//!
//! The machine: the kernel names with each request the user and the process that it is made for. By `uid`, each user is an
//! identity. By `uid+cgroup`, a user is another one in each control group: in two containers the same number need not be
//! the same person. By `mount`, all who use the mount are one. Requests that the kernel makes for nobody (reading ahead,
//! writing back) are made with the rights of whoever opened the file.

use std::collections::HashMap;
use std::fs;
use std::sync::LazyLock;

use afs_client::auth::Identity;
use clap::ValueEnum;
use parking_lot::Mutex;

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

impl Rule {
    /// Whose a request is that process `pid` of user `uid` makes.
    pub fn identity(self, uid: u32, pid: u32) -> Identity {
        match self {
            Self::Uid => Identity::User(uid),
            // Of whom the group cannot be told, nobody: not the user in some other group.
            Self::UidCgroup => match group_of(pid) {
                Some(group) => Identity::UserInGroup(uid, group),
                None => Identity::Nobody,
            },
            Self::Mount => Identity::Everybody,
        }
    }
}

/// A number for the control group of a process.
fn group_of(pid: u32) -> Option<u64> {
    // 0 is a process that cannot be seen from here.
    if pid == 0 {
        return None;
    }
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mut numbers = NUMBERS.lock();
    let next = numbers.len() as u64;
    Some(*numbers.entry(path.to_owned()).or_insert(next))
}

/// Groups by their paths. A path that comes back is the same group to us.
static NUMBERS: LazyLock<Mutex<HashMap<String, u64>>> = LazyLock::new(Mutex::default);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_tell_apart_what_they_say() {
        let pid = std::process::id();
        assert_eq!(Rule::Uid.identity(7, pid), Identity::User(7));
        assert_eq!(Rule::Mount.identity(7, pid), Rule::Mount.identity(8, 1));
        assert_eq!(Rule::UidCgroup.identity(7, 0), Identity::Nobody);
        if group_of(pid).is_some() {
            let mine = Rule::UidCgroup.identity(7, pid);
            assert_eq!(mine, Rule::UidCgroup.identity(7, pid));
            assert_ne!(mine, Rule::UidCgroup.identity(8, pid));
            assert_ne!(mine, Identity::User(7));
        }
    }
}
