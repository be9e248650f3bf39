//! Access control lists and what they let a caller do (afs-dir.md 2, afs-rpc.md 3.5).

use std::fmt;

use super::Refusal;
use rustix::io::Errno;

/// A set of rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rights(pub(crate) u32);

impl Rights {
    pub(crate) const READ: Self = Self(1);
    pub(crate) const WRITE: Self = Self(2);
    pub(crate) const INSERT: Self = Self(4);
    pub(crate) const LOOKUP: Self = Self(8);
    pub(crate) const DELETE: Self = Self(16);
    pub(crate) const LOCK: Self = Self(32);
    pub(crate) const ADMINISTER: Self = Self(64);
    pub(crate) const ALL: Self = Self(0x7f);

    /// Are all of `needed` there?
    pub(crate) const fn allow(self, needed: Self) -> bool {
        self.0 & needed.0 == needed.0
    }

    pub(crate) const fn and(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// Fails without all of `needed`.
    pub(crate) fn demand(self, needed: Self) -> Result<(), Refusal> {
        if self.allow(needed) {
            Ok(())
        } else {
            Err(Errno::ACCESS.into())
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// ViceId.
    pub(crate) id: u32,
    /// The names that lists may call him, and many others.
    names: &'static [&'static str],
    /// His own, and those of his groups.
    own: Vec<String>,
    /// A member of system:administrators.
    pub(crate) is_administrator: bool,
}

impl Caller {
    /// Who shows no token.
    pub(crate) const ANONYMOUS: Self = Self {
        id: 32_766,
        names: &[ANYUSER, "anonymous"],
        own: Vec::new(),
        is_administrator: false,
    };
    /// The owner of this process.
    pub(crate) const ADMINISTRATOR: Self = Self {
        id: 0,
        names: &[ANYUSER, AUTHUSER, ADMINISTRATORS],
        own: Vec::new(),
        is_administrator: true,
    };

    /// Who has proven to be this user.
    pub(crate) fn user(id: u32, name: &str, groups: &[String]) -> Self {
        Self {
            id,
            names: &[ANYUSER, AUTHUSER],
            own: groups.iter().cloned().chain([name.to_owned()]).collect(),
            is_administrator: groups.iter().any(|group| group == ADMINISTRATORS),
        }
    }

    /// May a list mean him by this name?
    fn is_called(&self, name: &str) -> bool {
        self.names.contains(&name) || self.own.iter().any(|own| own == name)
    }

    /// Is it somebody, and the owner?
    pub(crate) const fn owns(&self, owner: u32) -> bool {
        self.id == owner
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        self.id == Self::ANONYMOUS.id
    }
}

/// An access control list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acl {
    positive: Vec<(String, Rights)>,
    negative: Vec<(String, Rights)>,
}

impl Acl {
    /// The list that gives `rights` to everybody, and all to administrators.
    pub(crate) fn anyuser(rights: Rights) -> Self {
        let mut acl = Self {
            positive: vec![(ADMINISTRATORS.to_owned(), Rights::ALL)],
            negative: Vec::new(),
        };
        if rights != Rights::default() {
            acl.positive.push((ANYUSER.to_owned(), rights));
        }
        acl
    }

    /// The list that gives `rights` to one more.
    pub(crate) fn and(mut self, name: &str, rights: Rights) -> Self {
        self.positive.retain(|(listed, _)| listed != name);
        self.positive.push((name.to_owned(), rights));
        self
    }

    /// Reads a list as it comes from a client. Names must be known.
    pub(crate) fn parse(text: &[u8], known: impl Fn(&str) -> bool) -> Result<Self, Refusal> {
        let invalid = Refusal::Errno(Errno::INVAL);
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        let text = text
            .get(..end)
            .and_then(|text| std::str::from_utf8(text).ok())
            .ok_or(invalid)?;
        let mut lines = text.lines();
        let mut count = || -> Option<usize> { lines.next()?.trim().parse().ok() };
        let (positive, negative) = (count().ok_or(invalid)?, count().ok_or(invalid)?);
        if positive.saturating_add(negative) > ENTRIES_MAX {
            return Err(invalid);
        }
        let mut entry = || -> Option<(String, Rights)> {
            let mut words = lines.next()?.split_ascii_whitespace();
            let (name, rights) = (words.next()?, words.next()?.parse().ok()?);
            let fits = words.next().is_none() && name.len() <= NAME_MAX && known(name);
            fits.then(|| (name.to_owned(), Rights(rights)))
        };
        let mut list = |count| -> Option<Vec<_>> { (0..count).map(|_| entry()).collect() };
        let acl = Self {
            positive: list(positive).ok_or(invalid)?,
            negative: list(negative).ok_or(invalid)?,
        };
        match lines.next() {
            None => Ok(acl),
            Some(_) => Err(invalid),
        }
    }

    /// What the list gives to a caller.
    pub(crate) fn rights(&self, caller: &Caller) -> Rights {
        if caller.is_administrator {
            return Rights::ALL;
        }
        let union = |list: &[(String, Rights)]| {
            list.iter()
                .filter(|(name, _)| caller.is_called(name))
                .fold(0, |all, (_, rights)| all | rights.0)
        };
        Rights(union(&self.positive) & !union(&self.negative))
    }
}

impl fmt::Display for Acl {
    /// As it goes to a client, but for the NUL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}", self.positive.len(), self.negative.len())?;
        let mut entries = self.positive.iter().chain(&self.negative);
        entries.try_for_each(|(name, rights)| writeln!(f, "{name}\t{}", rights.0))
    }
}

/// Everybody.
pub(crate) const ANYUSER: &str = "system:anyuser";
/// Everybody who has proven to be somebody.
const AUTHUSER: &str = "system:authuser";
/// Those who may do everything.
pub(crate) const ADMINISTRATORS: &str = "system:administrators";
const ENTRIES_MAX: usize = 20;
const NAME_MAX: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written() {
        let text = "2\n1\nsystem:administrators\t127\nsystem:anyuser 9\nanonymous\t1\n\0";
        let acl = Acl::parse(text.as_bytes(), |_| true).unwrap();
        assert_eq!(acl.rights(&Caller::ANONYMOUS), Rights::LOOKUP);
        assert_eq!(acl.rights(&Caller::ADMINISTRATOR), Rights::ALL);
        let shown = acl.to_string();
        assert_eq!(Acl::parse(shown.as_bytes(), |_| true), Ok(acl));
    }

    #[test]
    fn users_have_the_rights_of_all_their_names() {
        let acl = Acl::anyuser(Rights::LOOKUP)
            .and("alice", Rights::WRITE)
            .and("staff", Rights::READ)
            .and("system:authuser", Rights::LOCK);
        let staff = ["staff".to_owned()];
        let rights = |caller: &Caller| acl.rights(caller).0;
        assert_eq!(rights(&Caller::ANONYMOUS), 8);
        assert_eq!(rights(&Caller::user(1002, "bob", &[])), 8 + 32);
        assert_eq!(rights(&Caller::user(1001, "alice", &staff)), 8 + 32 + 2 + 1);
        let admins = [ADMINISTRATORS.to_owned()];
        assert_eq!(rights(&Caller::user(1, "admin", &admins)), 0x7f);
        let denied = Acl::parse(b"1\n1\nsystem:anyuser 9\nbob 8\n", |_| true).unwrap();
        assert_eq!(denied.rights(&Caller::user(1002, "bob", &[])), Rights::READ);
    }

    #[test]
    fn broken_lists_are_refused() {
        let many = format!("21\n0\n{}", "system:anyuser\t1\n".repeat(21));
        let long = format!("1\n0\n{}\t1\n", "n".repeat(64));
        for text in [
            "",
            "1\n",
            "1\n0\n",
            "x\n0\n",
            "1\n0\nsystem:anyuser\n",
            "1\n0\nsystem:anyuser\tx\n",
            "0\n0\nmore\t1\n",
            "1\n0\nnobody\t1\n",
            "99999999999999999999\n0\n",
            &many,
            &long,
        ] {
            let parsed = Acl::parse(text.as_bytes(), |name| name != "nobody");
            assert_eq!(parsed, Err(Refusal::Errno(Errno::INVAL)), "{text:?}");
        }
    }
}
