//! What was set aside: data that could not be stored in its place, for people to look at.
//!
//! The machine: each is a folder of its own in `set-aside` of the cache directory: `data`, the file as it was here, and
//! `about`, a text that says what it was and why it is there. The program never removes one.

use std::fmt::{self, Display};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::backing::{Backing, Counts};
use super::journal::Author;
use super::key::CacheKey;
use super::place::{self, Place};
use super::ranges::RangeSet;
use super::record::{Input, ObjectKey};
use super::seal::{self, Salt, Seal};
use crate::auth::tokens::Identity;
use crate::cell::CellName;
use crate::rpc::types::StoreStatus;
use crate::types::DataVersion;

/// Data that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// Its folder.
    pub path: PathBuf,
    /// What it was and why it is there: the text beside it.
    pub about: String,
}

impl Aside {
    /// What the text beside it says of `what`: `reason`, `cell`, `fid` or `owner`.
    #[must_use]
    pub fn says(&self, what: &str) -> Option<&str> {
        let mut lines = self.about.lines();
        lines.find_map(|line| line.strip_prefix(what)?.strip_prefix(": "))
    }

    /// Was it written by this user of this machine?
    #[must_use]
    pub fn is_of(&self, user: u32) -> bool {
        let owner = self.says("owner").and_then(|owner| owner.strip_prefix("user "));
        owner.and_then(|rest| rest.split(' ').next()?.parse().ok()) == Some(user)
    }
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
    /// Attributes that were set.
    pub(super) noted: StoreStatus,
    /// What is copied.
    pub(super) held: RangeSet,
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
        if self.noted.has(StoreStatus::SET_MODE) {
            writeln!(f, "mode set here: {:04o}", self.noted.unix_mode_bits)?;
        }
        if self.noted.has(StoreStatus::SET_MTIME) {
            writeln!(f, "time set here: {} (seconds)", self.noted.client_mod_time)?;
        }
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
    copy: impl FnOnce(&Backing) -> io::Result<()>,
) -> io::Result<Aside> {
    let all = place.set_aside();
    place::make_dir(&all)?;
    let ObjectKey {
        volume,
        vnode,
        unique,
        ..
    } = about.key;
    let name = match place.seal() {
        None => format!("{}-{}-{volume}.{vnode}.{unique}", super::seconds(), about.cell),
        Some(seal) => format!("{}-{}", super::seconds(), place::hex(&seal.name(about.key))),
    };
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
        // It is the only one there is.
        let synced = data.try_clone()?;
        copy(&Backing::new(data, place.seal_of(about.key).as_ref()))?;
        synced.sync_all()?;
        let text = match place.seal() {
            None => aside.about.clone().into_bytes(),
            Some(seal) => sealed_about(seal, about)?,
        };
        fs::write(aside.path.join(ABOUT), text)
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
        let about = fs::read(path.join(ABOUT)).unwrap_or_default();
        let about = match (Sealed::parse(&about), place.seal()) {
            (None, _) => String::from_utf8_lossy(&about).into_owned(),
            (Some(sealed), Some(seal)) if sealed.salt == seal.salt() => {
                sealed.open(seal).map(|opened| opened.about).unwrap_or_default()
            }
            (Some(_), _) => "reason: it is encrypted with a key that is not here\n".to_owned(),
        };
        all.push(Aside { path, about });
    }
    all.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(all)
}

/// A text that is encrypted.
struct Sealed<'a> {
    salt: Salt,
    text: &'a [u8],
}

/// What an encrypted text says: what it is of, the length of that and the bytes of it that are there, and the text itself.
struct Opened {
    key: ObjectKey,
    len: u64,
    held: RangeSet,
    about: String,
}

impl<'a> Sealed<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (salt, text) = bytes.strip_prefix(SEALED)?.split_first_chunk()?;
        Some(Self { salt: *salt, text })
    }

    /// What it says.
    fn open(&self, seal: &Seal) -> Option<Opened> {
        let text = seal.open_text(seal::Place::About, self.text)?;
        let (key, rest) = text.split_first_chunk::<16>()?;
        let mut input = Input(rest);
        let (len, parts) = (input.u64()?, input.u64()?);
        let mut held = RangeSet::default();
        for _ in 0..parts {
            let part = input.u64()?..input.u64()?;
            held.extend((part.start < part.end && part.end <= len).then_some(part));
        }
        Some(Opened {
            key: ObjectKey::from_bytes(key)?,
            len,
            held,
            about: std::str::from_utf8(input.0).ok()?.to_owned(),
        })
    }
}

fn sealed_about(seal: &Seal, about: &About) -> io::Result<Vec<u8>> {
    let mut text = about.key.to_bytes().to_vec();
    let mut put = |number: u64| text.extend_from_slice(&number.to_be_bytes());
    put(about.len);
    put(about.held.iter().count() as u64);
    for part in about.held.iter() {
        put(part.start);
        put(part.end);
    }
    text.extend_from_slice(about.to_string().as_bytes());
    let text = seal.seal_text(seal::Place::About, &text)?;
    Ok([SEALED, &seal.salt(), &text].concat())
}

/// Writes what an encrypted cache has set aside in `folder`, as it was, and gives the text beside it.
///
/// # Errors
///
/// It cannot be read or written. `InvalidData`: it is not encrypted, or with another key, or damaged.
pub fn reveal(folder: &Path, key: &CacheKey, out: &mut dyn Write) -> io::Result<String> {
    let refused = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let text = fs::read(folder.join(ABOUT))?;
    let sealed = Sealed::parse(&text).ok_or_else(|| refused("it is not encrypted: look at it as it is"))?;
    let seal = Arc::new(Seal::new(key, sealed.salt)?);
    let opened = sealed
        .open(&seal)
        .ok_or_else(|| refused("this is not its key, or it is damaged"))?;
    let data = Backing::new(File::open(folder.join(DATA))?, Some(&(opened.key, seal)));
    let counts: Counts<'_> = &|page| opened.held.overlapping(page.clone()).next().is_some();
    let mut buffer = vec![0; 128 << 10];
    let mut at = 0;
    while at < opened.len {
        let step = usize::try_from(opened.len - at).map_or(buffer.len(), |rest| rest.min(buffer.len()));
        let buffer = buffer.get_mut(..step).unwrap_or_default();
        data.read(buffer, at, counts)?;
        out.write_all(buffer)?;
        at += step as u64;
    }
    out.flush()?;
    Ok(opened.about)
}

/// What an encrypted text begins with.
const SEALED: &[u8] = b"afs-fuse set aside, encrypted\n";
const DATA: &str = "data";
const ABOUT: &str = "about";
