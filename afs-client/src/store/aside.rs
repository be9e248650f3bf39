//! What was set aside: data that could not be stored in its place, for people to look at.
//!
//! The machine: each is a folder of its own in `set-aside` of the cache directory: `data`, the file as it was here, and
//! `about`, a text that says what it was and why it is there. The program never removes one.

use std::fmt::{self, Display};
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use super::journal::Author;
use super::place::{self, Place};
use super::record::ObjectKey;
use crate::auth::tokens::Identity;
use crate::cell::CellName;
use crate::types::DataVersion;

/// Data that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// Its folder.
    pub path: PathBuf,
    /// What it was and why it is there: the text beside it.
    pub about: String,
}

/// What is said of it.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) cell: CellName,
    pub(super) key: ObjectKey,
    pub(super) author: Author,
    pub(super) reason: String,
    pub(super) base: DataVersion,
    pub(super) len: u64,
    pub(super) ranges: String,
}

impl Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ObjectKey {
            volume,
            vnode,
            unique,
            ..
        } = self.key;
        writeln!(f, "reason: {}", self.reason)?;
        writeln!(f, "cell: {}", self.cell)?;
        writeln!(f, "fid: {volume}:{vnode}:{unique}")?;
        writeln!(f, "owner: {}", Owner(&self.author))?;
        writeln!(
            f,
            "set aside: {} (seconds; see date -d @SECONDS)",
            super::seconds()
        )?;
        writeln!(f, "based on: version {} of the file", self.base)?;
        writeln!(f, "length: {}", self.len)?;
        writeln!(f, "written here: {}", self.ranges)?;
        f.write_str("Bytes that were not written here are the server's of that version, or zeros where they were not cached.\n")
    }
}

/// Who wrote it, for people.
pub(crate) struct Owner<'a>(pub(crate) &'a Author);

impl Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.who {
            Identity::Nobody | Identity::Everybody => f.write_str("the mount")?,
            Identity::User(user) => write!(f, "user {user}")?,
            Identity::UserInGroup(user, group) => write!(f, "user {user} in control group {group}")?,
            Identity::UserInScope(user, scope) => write!(f, "user {user} in scope {scope}")?,
        }
        match &self.0.principal {
            Some(principal) => write!(f, " ({principal})"),
            None => f.write_str(" (without a token)"),
        }
    }
}

/// Makes a folder, with the data that `copy` puts there.
pub(super) fn put(
    place: &Place,
    about: &About,
    copy: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<Aside> {
    let all = place.set_aside();
    place::make_dir(&all)?;
    let ObjectKey {
        volume,
        vnode,
        unique,
        ..
    } = about.key;
    let name = format!("{}-{}-{volume}.{vnode}.{unique}", super::seconds(), about.cell);
    let mut path = all.join(&name);
    let mut number = 0;
    loop {
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                number += 1;
                path = all.join(format!("{name}-{number}"));
            }
            made => break made?,
        }
    }
    let aside = Aside {
        path,
        about: about.to_string(),
    };
    let put = || {
        let data = place::open_file(&aside.path.join(DATA))?;
        copy(&data)?;
        // It is the only one there is.
        data.sync_all()?;
        fs::write(aside.path.join(ABOUT), &aside.about)
    };
    if let Err(error) = put() {
        // Half of it is nothing to rely on.
        let _ = fs::remove_dir_all(&aside.path);
        return Err(error);
    }
    tracing::warn!(path = %aside.path.display(), cell = %about.cell, reason = about.reason, "data was set aside");
    Ok(aside)
}

/// All that was ever set aside and not removed since.
pub(super) fn list(place: &Place) -> io::Result<Vec<Aside>> {
    let mut all = Vec::new();
    let folders = match fs::read_dir(place.set_aside()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all),
        folders => folders?,
    };
    for folder in folders {
        let path = folder?.path();
        let about = fs::read_to_string(path.join(ABOUT)).unwrap_or_default();
        all.push(Aside { path, about });
    }
    all.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(all)
}

const DATA: &str = "data";
const ABOUT: &str = "about";
