//! Credential caches: where they are, by name, and what is in them.
//!
//! The machine: a name says what kind of store it is and which one in it. Whatever the store, its contents have the form
//! of the file format: a principal, and credentials one by one. Caches are only read here; `kinit` writes them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::credential::Credential;
use super::krb5_conf::Krb5Conf;
use super::principal::Principal;
use super::reader::Malformed;
use super::{ccache_file, ccache_kcm, ccache_keyring};

/// What is in a cache.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Whose it is.
    pub owner: Principal,
    /// Tickets, in the order in which they were got.
    pub credentials: Vec<Credential>,
}

impl Credentials {
    /// Reads what a file of version 4 holds.
    ///
    /// # Errors
    ///
    /// Where it is damaged, and how.
    pub fn parse(data: &[u8]) -> Result<Self, Malformed> {
        ccache_file::parse(data)
    }

    /// The ticket for the ticket granter of the owner's realm that lasts longest.
    #[must_use]
    pub fn ticket_granting(&self) -> Option<&Credential> {
        let granter = Principal::ticket_granter(&self.owner.realm, &self.owner.realm);
        self.credentials
            .iter()
            .filter(|credential| credential.server == granter)
            .max_by_key(|credential| credential.ends)
    }
}

/// Which cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CcacheName {
    /// A file.
    File(PathBuf),
    /// The primary one in a directory.
    Dir(PathBuf),
    /// In a keyring of the kernel.
    Keyring(ccache_keyring::Place),
    /// With the daemon that keeps caches; by default the one that it calls the default.
    Kcm(Option<String>),
}

/// A cache cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CcacheError {
    /// There is none.
    #[error("there is no credential cache {0}: run kinit")]
    Missing(String),
    /// It cannot be read.
    #[error("credential cache {name}: {error}")]
    Io {
        /// Which.
        name: String,
        /// Why not.
        error: io::Error,
    },
    /// It is damaged.
    #[error("credential cache {name} is damaged: {malformed}")]
    Malformed {
        /// Which.
        name: String,
        /// Where and how.
        malformed: Malformed,
    },
    /// Nobody else can see such a cache.
    #[error(
        "credential cache {0} is in the memory of the program that made it: choose FILE, DIR, KEYRING or KCM"
    )]
    Memory(String),
    /// Its kind is unknown.
    #[error("credential cache {0} is of no kind that is known: choose FILE, DIR, KEYRING or KCM")]
    Kind(String),
    /// The daemon that keeps caches refuses.
    #[error("credential cache {name}: the daemon that keeps it answers with error {code}")]
    Refused {
        /// Which.
        name: String,
        /// Its error.
        code: i32,
    },
}

impl CcacheError {
    /// An error of the system.
    pub(super) fn io(name: String, error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound {
            Self::Missing(name)
        } else {
            Self::Io { name, error }
        }
    }
}

impl CcacheName {
    /// Reads a name, `KIND:RESIDUAL` or a path.
    ///
    /// # Errors
    ///
    /// The kind is unknown, or one that only its own program can read.
    pub fn parse(text: &str) -> Result<Self, CcacheError> {
        let Some((kind, rest)) = text.split_once(':') else {
            return Ok(Self::File(text.into()));
        };
        match kind {
            "FILE" => Ok(Self::File(rest.into())),
            // With a second colon it is one file of a directory.
            "DIR" => Ok(match rest.strip_prefix(':') {
                Some(file) => Self::File(file.into()),
                None => Self::Dir(rest.into()),
            }),
            "KEYRING" => Ok(Self::Keyring(ccache_keyring::Place::parse(rest))),
            "KCM" => Ok(Self::Kcm((!rest.is_empty()).then(|| rest.to_owned()))),
            "MEMORY" => Err(CcacheError::Memory(text.to_owned())),
            _ if kind.contains('/') => Ok(Self::File(text.into())),
            _ => Err(CcacheError::Kind(text.to_owned())),
        }
    }

    /// The cache of user `uid`: the one that the environment names (`KRB5CCNAME`), else that of the configuration, else
    /// the file in `/tmp`.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub fn default_for(uid: u32, named: Option<&str>, conf: &Krb5Conf) -> Result<Self, CcacheError> {
        let configured = conf.default_of("default_ccache_name").unwrap_or(DEFAULT);
        match named.filter(|name| !name.is_empty()) {
            Some(named) => Self::parse(named),
            None => Self::parse(&expand(configured, uid)),
        }
    }

    /// Reads the cache. Waits, for the daemon at most a few seconds.
    ///
    /// # Errors
    ///
    /// There is none, or it cannot be read or understood.
    pub fn read(&self, conf: &Krb5Conf) -> Result<Credentials, CcacheError> {
        match self {
            Self::File(path) => ccache_file::read(path),
            Self::Dir(dir) => ccache_file::read(&primary_of(dir)?),
            Self::Keyring(place) => ccache_keyring::read(place),
            Self::Kcm(name) => {
                let socket = conf.default_of("kcm_socket").unwrap_or(KCM_SOCKET);
                ccache_kcm::read(Path::new(socket), name.as_deref())
            }
        }
    }
}

impl fmt::Display for CcacheName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "FILE:{}", path.display()),
            Self::Dir(path) => write!(f, "DIR:{}", path.display()),
            Self::Keyring(place) => write!(f, "KEYRING:{place}"),
            Self::Kcm(name) => write!(f, "KCM:{}", name.as_deref().unwrap_or_default()),
        }
    }
}

/// The file that the directory calls its primary one.
fn primary_of(dir: &Path) -> Result<PathBuf, CcacheError> {
    let name = || format!("DIR:{}", dir.display());
    let primary = match std::fs::read_to_string(dir.join("primary")) {
        Ok(text) => text.lines().next().unwrap_or_default().to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => "tkt".to_owned(),
        Err(error) => return Err(CcacheError::io(name(), error)),
    };
    if !primary.starts_with("tkt") || primary.contains('/') {
        let error = io::Error::new(io::ErrorKind::InvalidData, "the file `primary' names no cache");
        return Err(CcacheError::io(name(), error));
    }
    Ok(dir.join(primary))
}

/// Fills in what the configuration leaves open.
fn expand(name: &str, uid: u32) -> String {
    let uid = uid.to_string();
    ["%{uid}", "%{euid}", "%{USERID}"]
        .iter()
        .fold(name.to_owned(), |name, parameter| name.replace(parameter, &uid))
        .replace("%{TEMP}", "/tmp")
        .replace("%{null}", "")
}

const DEFAULT: &str = "FILE:/tmp/krb5cc_%{uid}";
const KCM_SOCKET: &str = "/var/run/.heim_org.h5l.kcm-socket";

#[cfg(test)]
mod tests;
