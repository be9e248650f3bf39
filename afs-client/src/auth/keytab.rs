//! Key tables: the keys of services, in files of MIT's format, version 2.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rxrpc::crypto::krb5::{Enctype, Key};
use zeroize::Zeroizing;

use super::principal::Principal;
use super::reader::{Malformed, Reader};

/// The keys of a table.
#[derive(Debug)]
pub struct Keytab {
    path: PathBuf,
    entries: Vec<Entry>,
}

/// One key.
struct Entry {
    principal: Principal,
    version: u32,
    enctype: i32,
    key: Zeroizing<Vec<u8>>,
}

/// The keys of a table cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeytabError {
    /// The file cannot be read.
    #[error("keytab {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The file is damaged.
    #[error("keytab {}: {malformed}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and how.
        malformed: Malformed,
    },
    /// It has no key for the principal.
    #[error("keytab {} has no AES key of {principal}; it has {}", path.display(), list(present))]
    NoKey {
        /// The file.
        path: PathBuf,
        /// Whose key was looked for.
        principal: Box<Principal>,
        /// Whose keys there are.
        present: Vec<Principal>,
    },
}

impl Keytab {
    /// Reads a table.
    ///
    /// # Errors
    ///
    /// The file cannot be read or is damaged.
    pub fn read(path: &Path) -> Result<Self, KeytabError> {
        match std::fs::read(path) {
            Ok(data) => Self::parse(path, &Zeroizing::new(data)),
            Err(error) => {
                let path = path.to_owned();
                Err(KeytabError::Io { path, error })
            }
        }
    }

    /// Reads what the file at `path` holds.
    ///
    /// # Errors
    ///
    /// It is damaged.
    pub fn parse(path: &Path, data: &[u8]) -> Result<Self, KeytabError> {
        let path = path.to_owned();
        match parse(data) {
            Ok(entries) => Ok(Self { path, entries }),
            Err(malformed) => Err(KeytabError::Malformed { path, malformed }),
        }
    }

    /// The keys of the newest version of a service, whatever its host or cell and its realm: of the kinds that are spoken
    /// here, in the order of the table.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn keys_of_service(&self, name: &str) -> Result<(u32, Vec<Key>), KeytabError> {
        let ours = || {
            self.entries.iter().filter_map(|entry| {
                let enctype = Enctype::from_number(entry.enctype)?;
                let key = Key::new(enctype, &entry.key).ok()?;
                let is_it = entry
                    .principal
                    .components
                    .first()
                    .is_some_and(|first| first == name);
                is_it.then_some((entry.version, key))
            })
        };
        let Some(newest) = ours().map(|(version, _)| version).max() else {
            return Err(self.no_key(Principal::new(&[name], "*")));
        };
        let keys = ours().filter(|(version, _)| *version == newest);
        Ok((newest, keys.map(|(_, key)| key).collect()))
    }

    /// The newest keys of a principal, of the kinds that are spoken here, the best kind first.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn keys_of(&self, principal: &Principal) -> Result<Vec<Key>, KeytabError> {
        let ours = || self.entries.iter().filter(|entry| entry.principal == *principal);
        let newest = |enctype: Enctype| {
            ours()
                .filter(|entry| entry.enctype == enctype.number())
                .max_by_key(|entry| entry.version)
                .and_then(|entry| Key::new(enctype, &entry.key).ok())
        };
        let keys: Vec<_> = Enctype::ALL.into_iter().filter_map(newest).collect();
        if keys.is_empty() {
            return Err(self.no_key(principal.clone()));
        }
        Ok(keys)
    }

    fn no_key(&self, principal: Principal) -> KeytabError {
        let mut present: Vec<_> = self.entries.iter().map(|entry| entry.principal.clone()).collect();
        present.dedup();
        KeytabError::NoKey {
            path: self.path.clone(),
            principal: Box::new(principal),
            present,
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (principal, version) = (&self.principal, self.version);
        write!(f, "{principal} version {version} enctype {}", self.enctype)
    }
}

fn list(principals: &[Principal]) -> String {
    let names: Vec<_> = principals.iter().map(ToString::to_string).collect();
    if names.is_empty() {
        "none at all".to_owned()
    } else {
        names.join(", ")
    }
}

fn parse(data: &[u8]) -> Result<Vec<Entry>, Malformed> {
    let mut input = Reader::new(data);
    if input.u16()? != VERSION_2 {
        return Err(Malformed {
            at: 0,
            what: "not a keytab of version 2",
        });
    }
    let mut entries = Vec::new();
    while !input.is_empty() {
        let length = input.i32()?;
        let bytes =
            usize::try_from(length.unsigned_abs()).map_err(|_| input.bad("a length that cannot be"))?;
        if length == 0 {
            // The end of a table in a longer file.
            break;
        }
        let before = input.clone();
        let record = input.take(bytes)?;
        // A negative length is that of a hole.
        if length > 0 {
            entries.push(entry(record).map_err(|inner| Malformed {
                at: before.bad("").at + inner.at,
                ..inner
            })?);
        }
    }
    Ok(entries)
}

fn entry(record: &[u8]) -> Result<Entry, Malformed> {
    let mut input = Reader::new(record);
    let count = input.u16()?;
    let realm = input.short_bytes()?;
    let realm = input.text(realm)?;
    let mut components = Vec::new();
    for _ in 0..count {
        let component = input.short_bytes()?;
        components.push(input.text(component)?);
    }
    let _name_type = input.u32()?;
    let _written = input.u32()?;
    let short_version = input.u8()?;
    let enctype = input.u16()?;
    let key = Zeroizing::new(input.short_bytes()?.to_vec());
    // The whole version comes last, if at all.
    let version = match input.u32() {
        Ok(version) if version != 0 => version,
        _ => short_version.into(),
    };
    Ok(Entry {
        principal: Principal { components, realm },
        version,
        enctype: enctype.into(),
        key,
    })
}

const VERSION_2: u16 = 0x0502;

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry of `alice@LAB` with a key of 32 bytes.
    fn record(version: u32, byte: u8) -> Vec<u8> {
        let mut record = vec![0, 1, 0, 3];
        record.extend_from_slice(b"LAB\0\x05alice");
        record.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0]);
        record.push(version.to_be_bytes()[3]);
        record.extend_from_slice(&[0, 18, 0, 32]);
        record.extend_from_slice(&[byte; 32]);
        record.extend_from_slice(&version.to_be_bytes());
        let length = i32::try_from(record.len()).unwrap();
        [&length.to_be_bytes()[..], &record].concat()
    }

    fn table(records: &[Vec<u8>]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keytab");
        let data = [&[5, 2][..], &records.concat()].concat();
        std::fs::write(&path, data).unwrap();
        (dir, path)
    }

    #[test]
    fn the_newest_key_counts_and_holes_do_not() {
        let hole = [&(-3_i32).to_be_bytes()[..], &[9, 9, 9]].concat();
        let (_dir, path) = table(&[record(2, 7), hole, record(258, 8), record(3, 9)]);
        let keytab = Keytab::read(&path).unwrap();
        let keys = keytab.keys_of(&Principal::new(&["alice"], "LAB")).unwrap();
        assert_eq!(keys.len(), 1);
        assert_eq!(keys[0].bytes(), [8; 32]);
        assert!(!format!("{keytab:?}").contains("8, 8"));
        let error = keytab.keys_of(&Principal::new(&["bob"], "LAB")).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("has no AES key of bob@LAB; it has alice@LAB"),
            "{error}"
        );
    }

    #[test]
    fn damage_is_named_with_its_place() {
        let whole = record(2, 7);
        for len in 1..whole.len() {
            let (_dir, path) = table(&[whole[..len].to_vec()]);
            let error = Keytab::read(&path).unwrap_err().to_string();
            assert!(error.contains("byte "), "{len}: {error}");
        }
        let (_dir, path) = table(&[[&i32::MIN.to_be_bytes()[..], &whole].concat()]);
        assert!(Keytab::read(&path).is_err());
        let missing = Keytab::read(Path::new("/nonexistent/keytab")).unwrap_err();
        assert!(missing.to_string().starts_with("keytab /nonexistent/keytab: "));
    }
}
