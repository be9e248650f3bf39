//! What was written and is not in its place, of this program or an earlier one: for `afs status`.
//!
//! How much there is of it everybody is told who may ask. Which files those are is told to who wrote them, and to who can
//! read the cache directory: the mount's owner and root.

use std::fmt;
use std::path::PathBuf;

use afs_client::auth::Identity;
use afs_client::fs::{Aside, UnstoredState, Waiting};
use serde::{Deserialize, Serialize};

use super::Reports;
use crate::token::day_and_time;

/// What is not in its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnstoredStatus {
    /// Files that an earlier program has left, and that wait for their server or for a token.
    pub waiting: usize,
    /// Files that were set aside in the cache directory.
    pub set_aside: usize,
    /// Files that were written here and changed by somebody else at the same time, since the mount began to be served.
    pub conflicts: u64,
    /// Those that wait or were set aside and may be told, as many as are shown.
    pub files: Vec<UnstoredFile>,
}

/// A file with something that is not in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum UnstoredFile {
    /// It is stored when its server answers and its writer has a token, if there was one.
    Waiting {
        /// Its cell.
        cell: String,
        /// `volume:vnode:uniquifier`.
        fid: String,
        /// Who wrote it.
        owner: String,
        /// Since when, in unix seconds.
        since: u32,
    },
    /// It is in a folder of its own.
    SetAside {
        /// The folder, as the process that serves the mount sees it.
        folder: PathBuf,
        /// Its cell.
        cell: String,
        /// `volume:vnode:uniquifier`.
        fid: String,
        /// Who wrote it.
        owner: String,
        /// Why.
        reason: String,
    },
}

/// Who is told of which files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Of all.
    All,
    /// Of those that this user wrote.
    Of(u32),
}

impl Told {
    fn of_waiting(self, waiting: &Waiting) -> bool {
        match (self, waiting.who) {
            (Self::All, _) => true,
            (
                Self::Of(user),
                Identity::User(who) | Identity::UserInGroup(who, _) | Identity::UserInScope(who, _),
            ) => user == who,
            (Self::Of(_), Identity::Nobody | Identity::Everybody) => false,
        }
    }

    fn of_aside(self, aside: &Aside) -> bool {
        match self {
            Self::All => true,
            Self::Of(user) => aside.is_of(user),
        }
    }
}

impl Reports {
    pub(super) fn unstored(&self, counted: UnstoredState, told: Told) -> UnstoredStatus {
        let kept = self.fs.kept_files();
        let waiting = kept.waiting.iter().filter(|file| told.of_waiting(file));
        let aside = kept.set_aside.iter().filter(|file| told.of_aside(file));
        let files = waiting
            .map(UnstoredFile::from)
            .chain(aside.map(UnstoredFile::from));
        UnstoredStatus {
            waiting: kept.waiting.len(),
            set_aside: kept.set_aside.len(),
            conflicts: counted.conflicts,
            files: files.take(FILES_SHOWN).collect(),
        }
    }
}

impl From<&Waiting> for UnstoredFile {
    fn from(waiting: &Waiting) -> Self {
        Self::Waiting {
            cell: waiting.cell.to_string(),
            fid: waiting.fid.clone(),
            owner: waiting.owner.clone(),
            since: waiting.since,
        }
    }
}

impl From<&Aside> for UnstoredFile {
    fn from(aside: &Aside) -> Self {
        let says = |what| aside.says(what).unwrap_or("not known").to_owned();
        Self::SetAside {
            folder: aside.path.clone(),
            cell: says("cell"),
            fid: says("fid"),
            owner: says("owner"),
            reason: says("reason"),
        }
    }
}

impl UnstoredStatus {
    /// Files that are not in their place.
    pub const fn files(&self) -> usize {
        self.waiting + self.set_aside
    }
}

impl fmt::Display for UnstoredStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.files() == 0 && self.conflicts == 0 {
            return Ok(());
        }
        writeln!(
            f,
            "  unstored     {} of an earlier program wait to be stored, {} set aside; {} changed by others at the same time",
            self.waiting, self.set_aside, self.conflicts
        )?;
        for file in &self.files {
            writeln!(f, "  unstored     {file}")?;
        }
        let hidden = self.files().saturating_sub(self.files.len());
        if hidden > 0 {
            writeln!(f, "  unstored     and {hidden} that are not shown here")?;
        }
        Ok(())
    }
}

impl fmt::Display for UnstoredFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting {
                cell,
                fid,
                owner,
                since,
            } => write!(
                f,
                "{fid} of {cell} waits for its server or a token: by {owner}, since {} UTC",
                day_and_time(*since)
            ),
            Self::SetAside {
                folder,
                cell,
                fid,
                owner,
                reason,
            } => write!(
                f,
                "{fid} of {cell} SET ASIDE in {}: by {owner}, {reason}",
                folder.display()
            ),
        }
    }
}

/// What is listed of more.
const FILES_SHOWN: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wrote_it_is_told_which_and_others_how_much() {
        let waiting = |who| Waiting {
            cell: "lab.example".parse().unwrap(),
            fid: "536870924:2:2".into(),
            who,
            owner: "user 1001 (alice@LAB)".into(),
            since: 0,
        };
        let aside = Aside {
            path: "/cache/set-aside/1".into(),
            about: "reason: the server refused it: EDQUOT\ncell: lab.example\nfid: 1:2:3\nowner: user 1001 in scope 7 (alice@LAB)\n"
                .into(),
        };
        for (told, is_told) in [(Told::All, true), (Told::Of(1001), true), (Told::Of(100), false)] {
            for who in [
                Identity::User(1001),
                Identity::UserInScope(1001, 7),
                Identity::UserInGroup(1001, 9),
            ] {
                assert_eq!(told.of_waiting(&waiting(who)), is_told, "{told:?} {who:?}");
            }
            assert_eq!(told.of_waiting(&waiting(Identity::Everybody)), told == Told::All);
            assert_eq!(told.of_aside(&aside), is_told, "{told:?}");
        }
        let mut unstored = UnstoredStatus {
            waiting: 2,
            set_aside: 1,
            conflicts: 1,
            files: vec![UnstoredFile::from(&aside)],
        };
        assert_eq!(
            unstored.to_string(),
            "  unstored     2 of an earlier program wait to be stored, 1 set aside; 1 changed by others at the same time\n  \
             unstored     1:2:3 of lab.example SET ASIDE in /cache/set-aside/1: by user 1001 in scope 7 (alice@LAB), the server \
             refused it: EDQUOT\n  unstored     and 2 that are not shown here\n"
        );
        unstored = UnstoredStatus::default();
        assert_eq!(unstored.to_string(), "");
    }
}
