//! A cache directory: its layout, whose it is, and that one program uses it.
//!
//! The machine: the directory holds `format` (what made it), `lock` (held while a program runs), `index.redb`, `journal`,
//! `data/XX/CELL.VOLUME.VNODE.UNIQUE` (one sparse file for each object, with the cell by its number in the index), and
//! `set-aside/`. A directory that has other things in it is not ours and is left alone; one of a newer program too. What an
//! older format left is removed, but never what was set aside.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::record::ObjectKey;

/// A cache directory that is ours for as long as this lives.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    lock: File,
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
        "the cache in {} has format {found}, which is newer than {FORMAT}: use the program that made it, or another directory",
        dir.display()
    )]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
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
}

impl Place {
    /// Opens a cache directory, which is made if it is missing.
    ///
    /// # Errors
    ///
    /// It is not ours to use.
    pub(super) fn open(dir: &Path) -> Result<Self, CacheError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| CacheError::Io { path, error }
        };
        make_dir(dir).map_err(failed(dir))?;
        let format = dir.join(FORMAT_FILE);
        let found = match fs::read_to_string(&format) {
            Ok(text) => Some(parse_format(&text).ok_or_else(|| CacheError::Foreign {
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
        match found {
            Some(found) if found > FORMAT => {
                return Err(CacheError::Newer {
                    dir: dir.to_owned(),
                    found,
                });
            }
            Some(FORMAT) => {}
            found => {
                if let Some(found) = found {
                    tracing::warn!(dir = %dir.display(), found, "the cache has an older format: it begins anew");
                }
                for file in [INDEX_FILE, JOURNAL_FILE] {
                    remove_file(&dir.join(file)).map_err(failed(dir))?;
                }
                remove_tree(&dir.join(DATA)).map_err(failed(dir))?;
                let new = dir.join(FORMAT_NEW);
                fs::write(&new, format!("{FORMAT_WORDS}{FORMAT}\n")).map_err(failed(&new))?;
                fs::rename(&new, &format).map_err(failed(&format))?;
            }
        }
        let place = Self {
            dir: dir.to_owned(),
            lock,
        };
        make_dir(&place.dir.join(DATA)).map_err(failed(dir))?;
        Ok(place)
    }

    pub(super) fn index(&self) -> PathBuf {
        self.dir.join(INDEX_FILE)
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.dir.join(JOURNAL_FILE)
    }

    /// Where data goes that cannot be stored.
    pub(super) fn set_aside(&self) -> PathBuf {
        self.dir.join(SET_ASIDE)
    }

    /// Where the file of an object lies.
    pub(super) fn data(&self, key: ObjectKey) -> PathBuf {
        let shard = format!("{:02x}", key.shard());
        self.dir.join(DATA).join(shard).join(key.to_string())
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
                let key = entry.file_name().to_str().and_then(|name| name.parse().ok());
                match key {
                    Some(key) if metadata.is_file() && self.data(key) == path => all.push(Lying {
                        key,
                        path,
                        taken: metadata.blocks().saturating_mul(512),
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
    let open = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
    };
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                make_dir(parent)?;
            }
            open()
        }
        result => result,
    }
}

/// Makes a directory that only its owner may look into.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
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

fn parse_format(text: &str) -> Option<u32> {
    text.strip_prefix(FORMAT_WORDS)?.trim_end().parse().ok()
}

/// What this program writes. To be raised when anything in the directory changes its meaning.
const FORMAT: u32 = 1;
const FORMAT_WORDS: &str = "afs-fuse cache, format ";
const FORMAT_FILE: &str = "format";
const FORMAT_NEW: &str = "format.new";
const LOCK_FILE: &str = "lock";
const INDEX_FILE: &str = "index.redb";
const JOURNAL_FILE: &str = "journal";
const DATA: &str = "data";
const SET_ASIDE: &str = "set-aside";
/// All that may be in a cache directory whose `format` is missing: it was being made.
const OURS: [&str; 4] = [LOCK_FILE, FORMAT_NEW, DATA, SET_ASIDE];
