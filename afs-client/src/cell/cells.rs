//! The cells that this program knows or can come to know.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use rustix::io::Errno;

use super::dns::{self, Found};
use super::{BadLine, CellName, CellServDb};
use crate::error::Error;
use crate::server::{Server, ServerId};
use crate::types::CellId;

/// A cell.
#[derive(Debug)]
pub struct Cell {
    /// Its number in this program.
    pub id: CellId,
    /// Its name.
    pub name: CellName,
    /// Its volume location servers, in the order in which they are asked.
    pub servers: Vec<SocketAddrV4>,
    /// The same, with whether they answer.
    pub(crate) reach: Vec<Server>,
}

impl Cell {
    /// Its location servers, and what is known of reaching them.
    pub(crate) fn known(&self) -> impl Iterator<Item = (&SocketAddrV4, Option<&Server>)> {
        self.servers
            .iter()
            .enumerate()
            .map(|(place, server)| (server, self.reach.get(place)))
    }

    /// Its location servers, and whether each answers, or was never asked.
    pub fn location_servers(&self) -> impl Iterator<Item = (SocketAddrV4, bool)> + '_ {
        self.known()
            .map(|(server, reach)| (*server, reach.is_none_or(Server::is_up)))
    }
}

/// Where the cells come from.
#[derive(Clone, Debug, Default)]
pub struct CellsConfig {
    /// The home cell; by default the one in `ThisCell`.
    pub home: Option<CellName>,
    /// A `CellServDB` in place of those in the standard places.
    pub cellservdb: Option<PathBuf>,
}

/// The cells cannot be known.
#[derive(Debug, thiserror::Error)]
pub enum CellsError {
    /// A file cannot be read.
    #[error("{}: {error}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A file has a line that cannot be read.
    #[error(transparent)]
    Line(#[from] BadLine),
    /// `ThisCell` holds no name.
    #[error("{}: {text:?} is not the name of a cell", file.display())]
    ThisCell {
        /// The file.
        file: PathBuf,
        /// What it holds.
        text: String,
    },
    /// No option and no file names the home cell.
    #[error("no cell is given and there is no {}", THIS_CELL.join(" or "))]
    NoHome,
}

/// The cells.
#[derive(Debug)]
pub struct Cells {
    home: CellName,
    db: CellServDb,
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_name: HashMap<CellName, Arc<Cell>>,
    by_id: Vec<Arc<Cell>>,
}

impl Cells {
    /// Reads the configuration.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and where.
    pub fn load(config: &CellsConfig) -> Result<Self, CellsError> {
        let home = match &config.home {
            Some(home) => home.clone(),
            None => this_cell()?,
        };
        let mut db = CellServDb::default();
        match &config.cellservdb {
            Some(file) => db.extend(read_db(file)?),
            None => {
                for file in CELL_SERV_DB.map(Path::new) {
                    match read_db(file) {
                        Ok(found) => db.extend(found),
                        Err(CellsError::File { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(Self {
            home,
            db,
            known: RwLock::default(),
        })
    }

    /// The name of the home cell.
    #[must_use]
    pub const fn home(&self) -> &CellName {
        &self.home
    }

    /// The names that are worth listing: the home cell first, then those of the file.
    #[must_use]
    pub fn names(&self) -> Vec<CellName> {
        let mut names = vec![self.home.clone()];
        names.extend(
            self.db
                .cells()
                .map(|cell| cell.name.clone())
                .filter(|name| *name != self.home),
        );
        names
    }

    /// Is it the home cell, or one of the file?
    #[must_use]
    pub fn is_listed(&self, name: &CellName) -> bool {
        *name == self.home || self.db.cell(name).is_some()
    }

    /// A cell that was entered before.
    #[must_use]
    pub fn by_id(&self, id: CellId) -> Option<Arc<Cell>> {
        let index = usize::try_from(id.0).ok()?.checked_sub(1)?;
        self.known.read().by_id.get(index).cloned()
    }

    /// The cells that were entered, in the order of their numbers.
    #[must_use]
    pub fn known(&self) -> Vec<Arc<Cell>> {
        self.known.read().by_id.clone()
    }

    /// Finds a cell: among those entered before, in the file, then in DNS.
    ///
    /// # Errors
    ///
    /// `ENOENT` and where it was looked for; other errors if DNS did not answer.
    pub async fn resolve(&self, name: &CellName) -> Result<Arc<Cell>, Error> {
        if let Some(cell) = self.known.read().by_name.get(name) {
            return Ok(Arc::clone(cell));
        }
        let listed = self
            .db
            .cell(name)
            .map(|entry| &entry.servers)
            .filter(|servers| !servers.is_empty());
        let (name, servers) = match listed {
            Some(servers) => {
                let servers = servers
                    .iter()
                    .map(|server| SocketAddrV4::new(server.address, VL_PORT));
                (name.clone(), servers.collect())
            }
            None => match dns::lookup(name).await {
                Ok(Found { name, servers }) => (name, servers),
                Err(reason) => {
                    let why = format!(
                        "unknown cell {name}: it is not in CellServDB and {reason}; add it to CellServDB or give --cellservdb"
                    );
                    return Err(Error::new(Errno::NOENT, why));
                }
            },
        };
        Ok(self.enter(name, servers))
    }

    fn enter(&self, name: CellName, servers: Vec<SocketAddrV4>) -> Arc<Cell> {
        let mut known = self.known.write();
        if let Some(cell) = known.by_name.get(&name) {
            return Arc::clone(cell);
        }
        let id = CellId(u32::try_from(known.by_id.len() + 1).unwrap_or(u32::MAX));
        let cell = Arc::new(Cell {
            id,
            name: name.clone(),
            reach: servers
                .iter()
                .map(|peer| Server::new(ServerId::Database(*peer), &[*peer], 0))
                .collect(),
            servers,
        });
        known.by_id.push(Arc::clone(&cell));
        known.by_name.insert(name, Arc::clone(&cell));
        cell
    }
}

fn read(file: &Path) -> Result<Vec<u8>, CellsError> {
    std::fs::read(file).map_err(|error| CellsError::File {
        file: file.to_owned(),
        error,
    })
}

fn read_db(file: &Path) -> Result<CellServDb, CellsError> {
    Ok(CellServDb::parse(&read(file)?, file)?)
}

fn this_cell() -> Result<CellName, CellsError> {
    for file in THIS_CELL.map(Path::new) {
        let text = match read(file) {
            Ok(text) => text,
            Err(CellsError::File { error, .. }) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        return CellName::new(&text).map_err(|_| CellsError::ThisCell {
            file: file.to_owned(),
            text,
        });
    }
    Err(CellsError::NoHome)
}

/// Debian's place, the classic one, and that of a build from source.
const THIS_CELL: [&str; 3] = [
    "/etc/openafs/ThisCell",
    "/usr/vice/etc/ThisCell",
    "/usr/local/etc/openafs/ThisCell",
];
const CELL_SERV_DB: [&str; 3] = [
    "/usr/local/etc/openafs/CellServDB",
    "/usr/vice/etc/CellServDB",
    "/etc/openafs/CellServDB",
];
const VL_PORT: u16 = 7003;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn cells_of_a_file_are_numbered_as_they_are_entered() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("CellServDB");
        std::fs::write(&file, ">one.example\n192.0.2.1\n>two.example\n192.0.2.2\n").unwrap();
        let home = CellName::new("two.example").unwrap();
        let cells = Cells::load(&CellsConfig {
            home: Some(home.clone()),
            cellservdb: Some(file),
        })
        .unwrap();
        assert_eq!(
            cells.names().iter().map(CellName::as_str).collect::<Vec<_>>(),
            ["two.example", "one.example"]
        );
        let two = cells.resolve(&home).await.unwrap();
        assert_eq!(
            (two.id, two.servers.first()),
            (CellId(1), Some(&"192.0.2.2:7003".parse().unwrap()))
        );
        assert!(Arc::ptr_eq(&cells.by_id(CellId(1)).unwrap(), &two));
        assert!(cells.by_id(CellId(0)).is_none() && cells.by_id(CellId(2)).is_none());
        // One label is no domain: nobody is asked for it.
        let error = cells
            .resolve(&CellName::new("nowhere").unwrap())
            .await
            .unwrap_err();
        assert_eq!(error.errno(), Errno::NOENT.raw_os_error());
        assert!(error.to_string().contains("unknown cell nowhere"), "{error}");
    }

    #[test]
    fn errors_name_the_file() {
        let config = CellsConfig {
            home: CellName::new("a.b").ok(),
            cellservdb: Some("/nonexistent/db".into()),
        };
        assert!(
            Cells::load(&config)
                .unwrap_err()
                .to_string()
                .starts_with("/nonexistent/db: ")
        );
    }
}
