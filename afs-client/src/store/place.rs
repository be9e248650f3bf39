//! A cache directory: its layout, whose it is, and that one program uses it.
//!
//! The machine: the directory holds `format` (what made it), `lock` (held while a program runs), `index.redb`, `journal`,
//! `hidden`, `data/XX/CELL.VOLUME.VNODE.UNIQUE` (one sparse file for each object, with the cell by its number in the index),
//! and `set-aside/`. A directory that has other things in it is not ours and is left alone; one of a newer program too. What an
//! older format left is removed, but never what was set aside.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FlockOperation;

use super::Shared;
use super::file::is_marked;
use super::journal::Journal;
use super::key::{CacheKey, Encryption};
use super::record::ObjectKey;
use super::seal::{Salt, Seal};

/// A cache directory that is ours for as long as this lives.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    lock: File,
    seal: Option<Arc<Seal>>,
    /// A later program can read it.
    lasts: bool,
}

/// The cache directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Somebody else's things are in it.
    #[error(
        "{} is not a cache of afs and not empty (there is {found:?} in it): give an empty or a new directory",
        dir.display()
    )]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// Something that does not belong there.
        found: String,
    },
    /// A newer program made it.
    #[error(
        "the cache in {} has format {found}, which is newer than {SEALED}: use the program that made it, or another directory",
        dir.display()
    )]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It is encrypted, and no key was given.
    #[error(
        "the cache in {} is encrypted: give its key (--cache-key-file), or another directory",
        dir.display()
    )]
    Sealed {
        /// The directory.
        dir: PathBuf,
    },
    /// It is encrypted with another key.
    #[error(
        "the cache in {} is encrypted with another key: give that one, or another directory",
        dir.display()
    )]
    OtherKey {
        /// The directory.
        dir: PathBuf,
    },
    /// It is not encrypted, is to be, and has something that nobody else has.
    #[error(
        "the cache in {} is not encrypted and has data that is not stored yet: mount it once without encryption, or give another directory",
        dir.display()
    )]
    NotStored {
        /// The directory.
        dir: PathBuf,
    },
    /// Another program uses it.
    #[error("the cache in {} is in use by process {pid}: each mount needs a directory of its own", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Who uses it, as far as that one has said.
        pid: String,
    },
    /// The file system that it is on refuses.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A file of an object, as it lies there.
#[derive(Debug)]
pub(super) struct Lying {
    pub(super) key: ObjectKey,
    pub(super) path: PathBuf,
    /// Bytes of the blocks it takes.
    pub(super) taken: u64,
    /// It was lent, and does not change any more.
    pub(super) was_lent: bool,
}

impl Place {
    /// Opens a cache directory, which is made if it is missing.
    ///
    /// # Errors
    ///
    /// It is not ours to use.
    pub(super) fn open(dir: &Path, encryption: &Encryption) -> Result<Self, CacheError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| CacheError::Io { path, error }
        };
        make_dir(dir).map_err(failed(dir))?;
        let format = dir.join(FORMAT_FILE);
        let found = match fs::read_to_string(&format) {
            Ok(text) => Some(Format::parse(&text).ok_or_else(|| CacheError::Foreign {
                dir: dir.to_owned(),
                found: FORMAT_FILE.to_owned(),
            })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(&format)(error)),
        };
        if found.is_none() {
            for entry in fs::read_dir(dir).map_err(failed(dir))? {
                let name = entry.map_err(failed(dir))?.file_name();
                // A file system of its own has this one by itself.
                if !OURS.iter().chain(["lost+found"].iter()).any(|ours| name == *ours) {
                    return Err(CacheError::Foreign {
                        dir: dir.to_owned(),
                        found: name.to_string_lossy().into_owned(),
                    });
                }
            }
        }
        let lock = take_lock(dir)?;
        let seal = match kept(dir, encryption, found)? {
            Some(seal) => seal,
            None => begin_anew(dir, encryption).map_err(failed(dir))?,
        };
        let place = Self {
            dir: dir.to_owned(),
            lock,
            seal,
            lasts: *encryption != Encryption::Passing,
        };
        make_dir(&place.dir.join(DATA)).map_err(failed(dir))?;
        Ok(place)
    }

    /// What hides it, if anything does.
    pub(super) fn seal(&self) -> Option<&Arc<Seal>> {
        self.seal.as_ref()
    }

    /// What hides the file of an object.
    pub(super) fn seal_of(&self, key: ObjectKey) -> Option<(ObjectKey, Arc<Seal>)> {
        Some((key, Arc::clone(self.seal.as_ref()?)))
    }

    /// Can a later program read it?
    pub(super) fn lasts(&self) -> bool {
        self.lasts
    }

    pub(super) fn index(&self) -> PathBuf {
        self.dir.join(INDEX_FILE)
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.dir.join(JOURNAL_FILE)
    }

    /// Which files are hidden on servers.
    pub(super) fn hidden(&self) -> PathBuf {
        self.dir.join(HIDDEN_FILE)
    }

    /// Where data goes that cannot be stored.
    pub(super) fn set_aside(&self) -> PathBuf {
        self.dir.join(SET_ASIDE)
    }

    /// Where the file of an object lies.
    pub(super) fn data(&self, key: ObjectKey) -> PathBuf {
        let (shard, name) = match &self.seal {
            None => (key.shard(), key.to_string()),
            Some(seal) => {
                let name = seal.name(key);
                (name[0], hex(&name))
            }
        };
        self.dir.join(DATA).join(format!("{shard:02x}")).join(name)
    }

    /// The object of a file.
    fn key(&self, name: &str) -> Option<ObjectKey> {
        match &self.seal {
            None => name.parse().ok(),
            Some(seal) => seal.key(from_hex(name)?.try_into().ok()?),
        }
    }

    /// Every file of an object; whatever else lies among them is removed.
    pub(super) fn lying(&self) -> io::Result<Vec<Lying>> {
        let mut all = Vec::new();
        for shard in fs::read_dir(self.dir.join(DATA))? {
            let shard = shard?.path();
            if !shard.is_dir() {
                remove_file(&shard)?;
                continue;
            }
            for entry in fs::read_dir(&shard)? {
                let entry = entry?;
                let path = entry.path();
                let metadata = entry.metadata()?;
                let key = entry.file_name().to_str().and_then(|name| self.key(name));
                match key {
                    Some(key) if metadata.is_file() && self.data(key) == path => all.push(Lying {
                        key,
                        path,
                        taken: metadata.blocks().saturating_mul(512),
                        was_lent: is_marked(&metadata),
                    }),
                    _ if metadata.is_dir() => fs::remove_dir_all(&path)?,
                    _ => remove_file(&path)?,
                }
            }
        }
        Ok(all)
    }

    /// Gives the directory up.
    pub(super) fn unlock(&self) {
        let _ = rustix::fs::flock(&self.lock, FlockOperation::Unlock);
    }

    /// Bytes that anybody may still take of the file system, and all that it has.
    pub(super) fn space(&self) -> io::Result<(u64, u64)> {
        let space = rustix::fs::fstatvfs(&self.lock)?;
        let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
        Ok((bytes(space.f_bavail), bytes(space.f_blocks)))
    }
}

/// Opens a file of the cache, and makes it if it is missing.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    open_as(path, OpenOptions::new().create(true).truncate(false))
}

/// Makes a file of the cache. Whatever was left in its place does not count.
pub(super) fn make_file(path: &Path) -> io::Result<File> {
    let make = || open_as(path, OpenOptions::new().create_new(true));
    match make() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            remove_file(path)?;
            make()
        }
        result => result,
    }
}

fn open_as(path: &Path, how: &mut OpenOptions) -> io::Result<File> {
    let open = how.read(true).write(true).mode(0o600);
    match open.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                make_dir(parent)?;
            }
            open.open(path)
        }
        result => result,
    }
}

/// Makes a directory that only its owner may look into.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Was the file of an object lent to the kernel, by this program or an earlier one?
pub(super) fn was_lent(shared: &Shared, key: ObjectKey) -> bool {
    let place = shared.place.as_ref().filter(|place| place.seal.is_none());
    place.is_some_and(|place| fs::symlink_metadata(place.data(key)).is_ok_and(|found| is_marked(&found)))
}

/// Removes a file, if it is there.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn take_lock(dir: &Path) -> Result<File, CacheError> {
    let path = dir.join(LOCK_FILE);
    let failed = |error: io::Error| CacheError::Io {
        path: path.clone(),
        error,
    };
    let mut lock = open_file(&path).map_err(failed)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let _ = lock.take(16).read_to_string(&mut pid);
            return Err(CacheError::InUse {
                dir: dir.to_owned(),
                pid: pid.trim().to_owned(),
            });
        }
        Err(error) => return Err(failed(error.into())),
    }
    let tell = |lock: &mut File| {
        lock.set_len(0)?;
        lock.rewind()?;
        writeln!(lock, "{}", std::process::id())
    };
    tell(&mut lock).map_err(failed)?;
    Ok(lock)
}

/// What made a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Plain,
    /// Encrypted with a key that somebody may still have, who is known by what the key makes of the salt.
    Sealed(Salt, [u8; 32]),
    /// Encrypted with a key that went with its program.
    Lost,
    Other(u32),
}

impl Format {
    fn parse(text: &str) -> Option<Self> {
        let (number, rest) = text.strip_prefix(FORMAT_WORDS)?.split_once('\n')?;
        match (number.parse().ok()?, rest.trim_end()) {
            (FORMAT, "") => Some(Self::Plain),
            (SEALED, "key lost") => Some(Self::Lost),
            (SEALED, line) => {
                let (salt, check) = line.strip_prefix("key ")?.split_once(' ')?;
                let (salt, check) = (from_hex(salt)?, from_hex(check)?);
                Some(Self::Sealed(salt.try_into().ok()?, check.try_into().ok()?))
            }
            (other, _) => Some(Self::Other(other)),
        }
    }

    fn text(self) -> String {
        match self {
            Self::Plain => format!("{FORMAT_WORDS}{FORMAT}\n"),
            Self::Sealed(salt, check) => {
                format!("{FORMAT_WORDS}{SEALED}\nkey {} {}\n", hex(&salt), hex(&check))
            }
            Self::Lost => format!("{FORMAT_WORDS}{SEALED}\nkey lost\n"),
            Self::Other(number) => format!("{FORMAT_WORDS}{number}\n"),
        }
    }
}

/// What hides a directory whose contents can be used; `None` if it is to begin anew.
#[allow(clippy::type_complexity, reason = "it may be hidden by nothing")]
fn kept(
    dir: &Path,
    encryption: &Encryption,
    found: Option<Format>,
) -> Result<Option<Option<Arc<Seal>>>, CacheError> {
    let dir = dir.to_owned();
    match (found, encryption) {
        (None, _) => Ok(None),
        (Some(Format::Other(found)), _) if found > SEALED => Err(CacheError::Newer { dir, found }),
        (Some(Format::Other(found)), _) => {
            tracing::warn!(dir = %dir.display(), found, "the cache has an older format: it begins anew");
            Ok(None)
        }
        (Some(Format::Lost), _) => {
            tracing::info!(dir = %dir.display(), "the key of the cache went with its program: it begins anew");
            Ok(None)
        }
        (Some(Format::Plain), Encryption::Off) => Ok(Some(None)),
        (Some(Format::Plain), _) => {
            let path = dir.join(JOURNAL_FILE);
            match Journal::open(&path, None) {
                Ok((_, left)) if left.is_empty() => {}
                Ok(_) => return Err(CacheError::NotStored { dir }),
                Err(error) => return Err(CacheError::Io { path, error }),
            }
            tracing::warn!(dir = %dir.display(), "the cache is not encrypted: it begins anew; the disk may still have what it held");
            Ok(None)
        }
        (Some(Format::Sealed(..)), Encryption::Off) => Err(CacheError::Sealed { dir }),
        (Some(Format::Sealed(..)), Encryption::Passing) => Err(CacheError::OtherKey { dir }),
        (Some(Format::Sealed(salt, check)), Encryption::Key(key)) => {
            let seal = Seal::new(key, salt).map_err(|error| CacheError::Io {
                path: dir.clone(),
                error,
            })?;
            if seal.check() == check {
                Ok(Some(Some(Arc::new(seal))))
            } else {
                Err(CacheError::OtherKey { dir })
            }
        }
    }
}

/// Removes what there is, but for what was set aside, and says what is to come.
fn begin_anew(dir: &Path, encryption: &Encryption) -> io::Result<Option<Arc<Seal>>> {
    for file in [INDEX_FILE, JOURNAL_FILE, HIDDEN_FILE] {
        remove_file(&dir.join(file))?;
    }
    remove_tree(&dir.join(DATA))?;
    let key = match encryption {
        Encryption::Off => None,
        Encryption::Passing => Some(CacheKey::random()?),
        Encryption::Key(key) => Some(key.clone()),
    };
    let mut salt = Salt::default();
    getrandom::fill(&mut salt).map_err(io::Error::other)?;
    let seal = key.map(|key| Seal::new(&key, salt)).transpose()?;
    let format = match (&seal, encryption) {
        (None, _) => Format::Plain,
        (Some(_), Encryption::Passing) => Format::Lost,
        (Some(seal), _) => Format::Sealed(salt, seal.check()),
    };
    let new = dir.join(FORMAT_NEW);
    fs::write(&new, format.text())?;
    fs::rename(&new, dir.join(FORMAT_FILE))?;
    Ok(seal.map(Arc::new))
}

/// Bytes as text.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a text.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.iter().map(byte).collect()
}

/// What this program writes. To be raised when anything in the directory changes its meaning.
const FORMAT: u32 = 1;
/// The same, encrypted.
const SEALED: u32 = 2;
const FORMAT_WORDS: &str = "afs-fuse cache, format ";
const FORMAT_FILE: &str = "format";
const FORMAT_NEW: &str = "format.new";
const LOCK_FILE: &str = "lock";
const INDEX_FILE: &str = "index.redb";
const JOURNAL_FILE: &str = "journal";
const HIDDEN_FILE: &str = "hidden";
const DATA: &str = "data";
const SET_ASIDE: &str = "set-aside";
/// All that may be in a cache directory whose `format` is missing: it was being made.
const OURS: [&str; 4] = [LOCK_FILE, FORMAT_NEW, DATA, SET_ASIDE];
