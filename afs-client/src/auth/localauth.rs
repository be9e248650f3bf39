//! Tokens that a server makes with its own key, as `-localauth` does (rx-security.md 6.3).
//!
//! The machine: the servers of a cell share a key, and take who can seal a ticket with it for one of themselves: `afs`, of no
//! realm, for ever. The key lies in an `rxkad.keytab`, in a `KeyFileExt`, or, in old cells, in a `KeyFile`, where it is one
//! of DES and the ticket one of Kerberos 4; what a file is shows in its first bytes. The database and volume servers take
//! such a caller for a super-user; the file server does not, and gives it what anybody has.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rxrpc::crypto::des;
use rxrpc::crypto::krb5::{BLOCK, Enctype, Key};
use rxrpc::security::rxkad::{Issue, SessionKey};
use zeroize::Zeroizing;

use super::keytab::{Keytab, KeytabError};
use super::principal::Principal;
use super::reader::{Malformed, Reader};
use super::token::Token;
use crate::cell::CellName;

/// The key with which the servers of a cell prove who they are to each other.
pub struct ServerKey {
    version: u32,
    secret: Secret,
}

enum Secret {
    Kerberos5(Key),
    Kerberos4(des::Key),
}

/// There is no such key, or no token was made with it.
#[derive(Debug, thiserror::Error)]
pub enum LocalauthError {
    /// The file cannot be read.
    #[error("key file {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The file is damaged.
    #[error("key file {}: {malformed}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and how.
        malformed: Malformed,
    },
    /// It has no key that is spoken here.
    #[error("key file {}: has no key for rxkad (AES, or DES of a version below 256)", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// It is a keytab, and no good.
    #[error(transparent)]
    Keytab(#[from] KeytabError),
    /// This machine gives no random numbers, which keys are made of.
    #[error("no random numbers: {0}")]
    NoRandom(getrandom::Error),
}

impl ServerKey {
    /// Reads the newest key out of an `rxkad.keytab`, a `KeyFileExt` or a `KeyFile`.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is damaged, or has no key that is spoken here.
    pub fn read(path: &Path) -> Result<Self, LocalauthError> {
        match std::fs::read(path) {
            Ok(data) => Self::parse(path, &Zeroizing::new(data)),
            Err(error) => {
                let path = path.to_owned();
                Err(LocalauthError::Io { path, error })
            }
        }
    }

    /// Reads the newest key out of what the file at `path` holds.
    ///
    /// # Errors
    ///
    /// It is damaged, or has no key that is spoken here.
    pub fn parse(path: &Path, data: &[u8]) -> Result<Self, LocalauthError> {
        if data.starts_with(&KEYTAB) {
            let (version, keys) = Keytab::parse(path, data)?.keys_of_service(SERVICE)?;
            let keys = keys.into_iter().map(|key| (version, key));
            return Self::best(keys).ok_or_else(|| LocalauthError::NoKey {
                path: path.to_owned(),
            });
        }
        match Self::of_key_file(data) {
            Ok(Some(key)) => Ok(key),
            Ok(None) => Err(LocalauthError::NoKey {
                path: path.to_owned(),
            }),
            Err(malformed) => Err(LocalauthError::Malformed {
                path: path.to_owned(),
                malformed,
            }),
        }
    }

    /// The newest key of a `KeyFileExt` or `KeyFile`.
    fn of_key_file(data: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut input = Reader::new(data);
        let count = input.u32()?;
        if is_extended(input.clone()) {
            let mut keys = Vec::new();
            for _ in 0..count {
                keys.extend(extended_key(&mut input)?);
            }
            return Ok(Self::best(keys));
        }
        let mut newest = None;
        for _ in 0..count {
            let (version, key) = (input.u32()?, input.array()?);
            if version < VERSIONS_OF_DES && newest.as_ref().is_none_or(|(newest, _)| *newest < version) {
                newest = Some((version, des::Key::new(key)));
            }
        }
        Ok(newest.map(|(version, key)| Self {
            version,
            secret: Secret::Kerberos4(key),
        }))
    }

    /// The newest, and of the kinds that it has the one that most servers know.
    fn best(keys: impl IntoIterator<Item = (u32, Key)>) -> Option<Self> {
        let rank = |(version, key): &(u32, Key)| {
            let place = KINDS.iter().position(|kind| *kind == key.enctype());
            (*version, place.map(|place| KINDS.len() - place))
        };
        let (version, key) = keys.into_iter().max_by_key(rank)?;
        let secret = Secret::Kerberos5(key);
        Some(Self { version, secret })
    }

    /// A token of the servers of `cell`, whose key this is. It never expires.
    ///
    /// # Errors
    ///
    /// This machine gives no random numbers.
    pub fn token(&self, cell: CellName) -> Result<Token, LocalauthError> {
        let (mut seed, mut confounder) = (Zeroizing::new([0; 16]), [0; BLOCK]);
        getrandom::fill(&mut *seed).map_err(LocalauthError::NoRandom)?;
        getrandom::fill(&mut confounder).map_err(LocalauthError::NoRandom)?;
        // The derivation gives a key with parity, and no weak one.
        let session = SessionKey::derive(Enctype::Aes128Sha1.number(), &*seed);
        let session = session.unwrap_or_else(|_| unreachable!("a key of 16 bytes is one of aes128"));
        let issue = |ends: u32| Issue {
            name: &[SERVICE],
            realm: "",
            session: session.clone(),
            times: (0, ends.into()),
        };
        let (made, expires) = match &self.secret {
            Secret::Kerberos5(key) => (
                issue(END_OF_KERBEROS_5).token(self.version, key, confounder).ok(),
                END_OF_KERBEROS_5,
            ),
            Secret::Kerberos4(key) => (
                u8::try_from(self.version)
                    .ok()
                    .and_then(|version| issue(u32::MAX).token_of_version_4(version, key).ok()),
                u32::MAX,
            ),
        };
        let made = made.unwrap_or_else(|| unreachable!("the name is short and the times fit"));
        Ok(Token {
            cell,
            client: Principal::new(&[SERVICE], ""),
            kvno: made.kvno(),
            enctype: SessionKey::ENCTYPE,
            key: Zeroizing::new(session.bytes().to_vec()),
            ticket: made.ticket().to_vec(),
            begins: 0,
            expires,
        })
    }
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerKey(version {})", self.version)
    }
}

/// Whether records of a `KeyFileExt` follow: a length and a small number, where a `KeyFile` has a version and a key, none
/// of whose bytes can be 0.
fn is_extended(mut input: Reader<'_>) -> bool {
    let head = input.u32().is_ok_and(|len| len >= RECORD_HEAD);
    head && input.u32().is_ok_and(|kind| kind <= 0xff)
}

/// A key for rxkad with its version, or one of another use or kind.
fn extended_key(input: &mut Reader<'_>) -> Result<Option<(u32, Key)>, Malformed> {
    let head = input.u32()?;
    let Some(more) = head.checked_sub(RECORD_HEAD) else {
        return Err(input.bad("a record that is too short"));
    };
    let (kind, version, enctype) = (input.u32()?, input.u32()?, input.i32()?);
    input.take(usize::try_from(more).map_err(|_| input.bad("a length that cannot be"))?)?;
    let key = input.bytes()?;
    if kind != FOR_RXKAD {
        return Ok(None);
    }
    let enctype = Enctype::from_number(enctype);
    Ok(enctype.and_then(|enctype| Some((version, Key::new(enctype, key).ok()?))))
}

const SERVICE: &str = "afs";
/// The first bytes of a keytab of version 2.
const KEYTAB: [u8; 2] = [5, 2];
/// The least length of the fixed part of a record, itself included (OpenAFS `keys.c`).
const RECORD_HEAD: u32 = 16;
/// The use of a key in a `KeyFileExt` (OpenAFS `afsconf_rxkad_krb5`).
const FOR_RXKAD: u32 = 2;
/// Version numbers above are forms of tickets.
const VERSIONS_OF_DES: u32 = 256;
/// The best first: OpenAFS 1.8 knows the first two.
const KINDS: [Enctype; 4] = [
    Enctype::Aes256Sha1,
    Enctype::Aes128Sha1,
    Enctype::Aes256Sha384,
    Enctype::Aes128Sha256,
];
const END_OF_KERBEROS_5: u32 = 0x7fff_ffff;

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    /// A record of a `KeyFileExt` with a key of so many equal bytes.
    fn record(kind: u32, version: u32, enctype: u32, len: u32, byte: u8) -> Vec<u8> {
        let head = words(&[16, kind, version, enctype, len]);
        [head, vec![byte; usize::try_from(len).unwrap()]].concat()
    }

    fn read(data: &[u8]) -> Result<ServerKey, LocalauthError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        std::fs::write(&path, data).unwrap();
        ServerKey::read(&path)
    }

    fn of_kerberos_5(key: ServerKey) -> (u32, Enctype, u8) {
        match key.secret {
            Secret::Kerberos5(secret) => (key.version, secret.enctype(), secret.bytes()[0]),
            Secret::Kerberos4(_) => panic!("a key of DES"),
        }
    }

    #[test]
    fn the_newest_key_and_the_best_of_its_kinds_is_taken() {
        let records = [
            record(2, 4, 18, 32, 1),
            record(2, 5, 17, 16, 2),
            record(2, 5, 18, 32, 3),
            record(2, 5, 20, 32, 4),
            // Of another use, of a kind that is not spoken here, and of a length that is wrong.
            record(3, 9, 18, 32, 5),
            record(2, 9, 23, 16, 6),
            record(2, 9, 18, 31, 7),
        ];
        let file = [words(&[7]), records.concat()].concat();
        assert_eq!(of_kerberos_5(read(&file).unwrap()), (5, Enctype::Aes256Sha1, 3));
        let longer = [words(&[1, 20, 2, 3, 17, 99, 16]), vec![8; 16]].concat();
        assert_eq!(of_kerberos_5(read(&longer).unwrap()), (3, Enctype::Aes128Sha1, 8));
    }

    #[test]
    fn old_files_have_keys_of_des() {
        let key = |version: u32, byte| [words(&[version]), vec![byte; 8]].concat();
        let file = [words(&[3]), key(3, 7), key(9, 11), key(4, 13)].concat();
        // As old programs write it: with room for eight.
        let file = [file, vec![0; 60]].concat();
        let token = read(&file).unwrap();
        assert_eq!(token.version, 9);
        let token = token.token(CellName::new("lab.example").unwrap()).unwrap();
        assert_eq!((token.kvno, token.enctype, token.expires), (9, 1, u32::MAX));
        assert_eq!(token.key[..], token.rxkad().map(|_| token.key.to_vec()).unwrap());
        let only_forms = [words(&[1]), key(300, 7)].concat();
        assert!(matches!(read(&only_forms), Err(LocalauthError::NoKey { .. })));
    }

    #[test]
    fn each_token_has_a_key_of_its_own_and_shows_none() {
        let file = [words(&[1]), record(2, 4, 18, 32, 1)].concat();
        let key = read(&file).unwrap();
        let cell = CellName::new("lab.example").unwrap();
        let [one, other] = [(); 2].map(|()| key.token(cell.clone()).unwrap());
        assert_ne!(one.key, other.key);
        assert_eq!((one.kvno, one.ticket.len(), one.expires), (213, 154, 0x7fff_ffff));
        assert_eq!(format!("{key:?}"), "ServerKey(version 4)");
        assert!(one.key.iter().all(|byte| byte.count_ones() % 2 == 1), "parity");
    }

    #[test]
    fn damage_is_named_with_its_place() {
        let whole = [words(&[1]), record(2, 4, 18, 32, 1)].concat();
        for len in 0..whole.len() {
            let error = read(&whole[..len]).unwrap_err().to_string();
            assert!(error.contains(": byte "), "{len}: {error}");
        }
        let old = [words(&[1, 3]), vec![1; 8]].concat();
        for len in 0..old.len() {
            let error = read(&old[..len]).unwrap_err().to_string();
            assert!(error.contains(": byte "), "{len}: {error}");
        }
        let many = words(&[u32::MAX, 3, 1, 1]);
        assert!(matches!(read(&many), Err(LocalauthError::Malformed { .. })));
        assert!(matches!(read(&words(&[0])), Err(LocalauthError::NoKey { .. })));
        assert!(matches!(read(&[5, 2]), Err(LocalauthError::Keytab(_))));
        let missing = ServerKey::read(Path::new("/nonexistent/KeyFile")).unwrap_err();
        assert!(missing.to_string().starts_with("key file /nonexistent/KeyFile: "));
    }
}
