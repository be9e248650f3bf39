//! The key of an encrypted cache, as it is given.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

/// How what lies in a cache directory is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// Not at all.
    Off,
    /// With a key that only this process knows: when it ends, nobody can read the directory any more.
    Passing,
    /// With a key that is given again after a restart.
    Key(CacheKey),
}

/// The key of an encrypted cache.
#[derive(Clone, PartialEq, Eq)]
pub struct CacheKey(Arc<Zeroizing<Vec<u8>>>);

/// A file is not the key of a cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheKeyError {
    /// It cannot be read.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is too short to be kept from being guessed, or too long to be one.
    #[error(
        "{} holds {found} bytes, and a key is {MIN_KEY} to {MAX_KEY}: make one with head -c {MIN_KEY} /dev/urandom",
        path.display()
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length in bytes, as far as it was read.
        found: usize,
    },
}

impl CacheKey {
    /// Reads a key: all bytes of a file, or of whatever a descriptor leads to (`/dev/fd/N`).
    ///
    /// # Errors
    ///
    /// It cannot be read, or is no key.
    pub fn read(path: &Path) -> Result<Self, CacheKeyError> {
        let mut key = Zeroizing::new(Vec::with_capacity(MAX_KEY + 1));
        File::open(path)
            .and_then(|file| file.take(MAX_KEY as u64 + 1).read_to_end(&mut key))
            .map_err(|error| CacheKeyError::Io {
                path: path.to_owned(),
                error,
            })?;
        if !(MIN_KEY..=MAX_KEY).contains(&key.len()) {
            return Err(CacheKeyError::Length {
                path: path.to_owned(),
                found: key.len(),
            });
        }
        Ok(Self(Arc::new(key)))
    }

    /// A key that nobody else knows.
    pub(super) fn random() -> io::Result<Self> {
        let mut key = Zeroizing::new(vec![0; MIN_KEY]);
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        Ok(Self(Arc::new(key)))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CacheKey(..)")
    }
}

/// Of 256 bits.
const MIN_KEY: usize = 32;
const MAX_KEY: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_long_enough_and_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for (len, is_key) in [(0, false), (31, false), (32, true), (4096, true), (5000, false)] {
            std::fs::write(&path, vec![b'k'; len]).unwrap();
            match CacheKey::read(&path) {
                Ok(key) => assert!(is_key && !format!("{key:?}").contains('k'), "{len}"),
                Err(error) => assert!(!is_key && error.to_string().contains("head -c 32"), "{error}"),
            }
        }
        assert!(matches!(
            CacheKey::read(dir.path()),
            Err(CacheKeyError::Io { .. })
        ));
    }
}
