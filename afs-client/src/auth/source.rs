//! Where a token comes from, and so where the next one does.
//!
//! The machine: from keys, which get a ticket-granting ticket whenever one is wanted; or from a ticket-granting ticket, which
//! is renewed as long as it can be, and given up for a newer one of the same owner as soon as their credential cache holds
//! one. Either is exchanged for a ticket for the cell's service.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rxrpc::crypto::krb5::Key;
use zeroize::Zeroizing;

use super::ccache::{CcacheName, Credentials};
use super::ccache_file;
use super::credential::Credential;
use super::kdc::{KdcClient, KdcError};
use super::krb5_conf::{Krb5Conf, Krb5ConfError};
use super::principal::Principal;
use super::token::Token;
use crate::cell::CellName;
use crate::clock;

/// Where the next token of a cell is had from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The cell's service.
    pub service: Principal,
    /// What proves who asks.
    pub origin: Origin,
}

/// What a ticket-granting ticket is had from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// Keys.
    Keys {
        /// Whose they are.
        client: Principal,
        /// The best first.
        keys: Vec<Key>,
    },
    /// Such a ticket.
    Ticket {
        /// The ticket.
        granting: Box<Credential>,
        /// Where its owner will put the next one.
        cache: Option<Arc<Cache>>,
    },
}

/// A credential cache in which a newer ticket may appear.
#[derive(Debug)]
pub enum Cache {
    /// A file.
    File(CacheFile),
    /// Any kind, read with our own rights.
    Named(CcacheName),
}

/// A file that belongs to somebody who could look it up, which we might not or not the same: so it is known by a directory
/// that they have opened, and must be a plain file of theirs.
#[derive(Debug)]
pub struct CacheFile {
    /// The directory.
    pub directory: OwnedFd,
    /// The file's name there.
    pub name: OsString,
    /// Its owner.
    pub owner: u32,
}

/// There is no newer token.
#[derive(Debug, thiserror::Error)]
pub enum NoToken {
    /// The KDC gives no ticket.
    #[error("{0}")]
    Kdc(#[from] KdcError),
    /// The configuration cannot be read.
    #[error("{0}")]
    Conf(#[from] Krb5ConfError),
    /// All that is there ends as soon.
    #[error("the ticket of {0} ends as soon and cannot be renewed: run kinit and afs aklog")]
    Ends(Principal),
    /// There is nothing to get one from.
    #[error("nothing is there to renew it with: run afs aklog")]
    Nothing,
    /// The program ends.
    #[error("the program ends")]
    Shutdown,
}

impl Source {
    /// A token that lasts longer than until `ends` (unix seconds). Cancel safe.
    ///
    /// # Errors
    ///
    /// There is none to be had now.
    pub async fn token(&mut self, conf: &Krb5Conf, cell: &CellName, ends: u32) -> Result<Token, NoToken> {
        let client = KdcClient::new(conf);
        let granting = match &mut self.origin {
            Origin::Keys { client: owner, keys } => client.initial(owner, keys).await?,
            Origin::Ticket { granting, cache } => {
                if let Some(newer) = newer(cache.as_ref(), granting, conf).await {
                    **granting = newer;
                }
                if granting.ends <= ends && granting.renew_till > ends {
                    **granting = client.renew(granting).await?;
                }
                (**granting).clone()
            }
        };
        if granting.ends <= ends {
            return Err(NoToken::Ends(granting.client));
        }
        let credential = client.service(&granting, &self.service).await?;
        if credential.ends <= ends {
            return Err(NoToken::Ends(credential.client));
        }
        Ok(Token::from_credential(cell.clone(), &credential))
    }

    /// May a newer ticket appear without our doing?
    #[must_use]
    pub const fn is_watched(&self) -> bool {
        matches!(&self.origin, Origin::Ticket { cache: Some(_), .. })
    }
}

/// A ticket-granting ticket of the same owner that lasts longer. A cache that cannot be read holds none.
async fn newer(cache: Option<&Arc<Cache>>, than: &Credential, conf: &Krb5Conf) -> Option<Credential> {
    let (cache, conf) = (Arc::clone(cache?), conf.clone());
    let read = tokio::task::spawn_blocking(move || cache.read(&conf));
    let found = match read.await.ok()? {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!(client = %than.client, error, "the credential cache tells nothing");
            return None;
        }
    };
    let granting = found.ticket_granting()?;
    let is_newer = granting.client == than.client && granting.ends > than.ends;
    (is_newer && granting.is_valid(clock::wall())).then(|| granting.clone())
}

impl Cache {
    fn read(&self, conf: &Krb5Conf) -> Result<Credentials, String> {
        match self {
            Self::File(file) => file.read().map_err(|error| error.to_string()),
            Self::Named(name) => name.read(conf).map_err(|error| error.to_string()),
        }
    }
}

impl CacheFile {
    fn read(&self) -> io::Result<Credentials> {
        // It may be replaced by anything: we wait for no pipe and follow no link.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = rustix::fs::openat(&self.directory, &self.name, flags, Mode::empty())?;
        let found = rustix::fs::fstat(&file)?;
        let is_plain = rustix::fs::FileType::from_raw_mode(found.st_mode).is_file();
        if !is_plain || found.st_uid != self.owner {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it is not a file of whose it should be",
            ));
        }
        // Grown beforehand: what a growing vector leaves behind is not wiped.
        let mut data = Zeroizing::new(Vec::with_capacity(MAX_FILE));
        std::fs::File::from(file)
            .take(MAX_FILE as u64)
            .read_to_end(&mut data)?;
        ccache_file::parse(&data)
            .map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed.to_string()))
    }
}

/// A longer cache is not read to its end.
const MAX_FILE: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_plain_files_of_the_owner_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let owner = rustix::process::geteuid().as_raw();
        let read = |name: &str, owner| {
            let directory = rustix::fs::open(
                folder.path(),
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            );
            let file = CacheFile {
                directory: directory.unwrap(),
                name: name.into(),
                owner,
            };
            file.read().unwrap_err().kind()
        };
        // An empty one is damaged: it was looked into.
        std::fs::write(folder.path().join("plain"), []).unwrap();
        symlink("plain", folder.path().join("link")).unwrap();
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.path().join("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::RWXU,
            0,
        )
        .unwrap();
        assert_eq!(read("plain", owner), io::ErrorKind::InvalidData);
        assert_eq!(read("plain", owner + 1), io::ErrorKind::PermissionDenied);
        assert_eq!(read("pipe", owner), io::ErrorKind::PermissionDenied);
        assert_eq!(read("folder", owner), io::ErrorKind::PermissionDenied);
        assert_eq!(read("none", owner), io::ErrorKind::NotFound);
        assert!(![io::ErrorKind::InvalidData, io::ErrorKind::NotFound].contains(&read("link", owner)));
    }
}
