//! What the file system shows of itself: for metrics, and for whoever asks how it is.

use std::collections::HashSet;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use super::AfsFs;
use super::core::Core;
use crate::clock;

/// The state at one moment.
#[derive(Clone, Debug)]
pub struct State {
    /// The file servers of the volumes that were entered, each once for every cell.
    pub servers: Vec<ServerState>,
    /// Volumes that were entered.
    pub volumes: usize,
    /// Files, directories and links that are known.
    pub vnodes: usize,
    /// The cache of file data.
    pub cache: CacheState,
}

/// A file server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerState {
    /// A cell that it has volumes of.
    pub cell: Arc<str>,
    /// Where it is called.
    pub peer: Option<SocketAddrV4>,
    /// It answers.
    pub up: bool,
    /// The time to it and back, once that was measured.
    pub rtt: Option<Duration>,
    /// It has promised to call us when something changes.
    pub promised: bool,
}

/// The cache of file data, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheState {
    /// What pages in use take.
    pub used: u64,
    /// The most that they may.
    pub limit: u64,
    /// What only we have.
    pub dirty: u64,
}

impl AfsFs {
    /// How it is. Takes only locks that are held for moments.
    #[must_use]
    pub fn state(&self) -> State {
        self.0.state()
    }
}

impl Core {
    fn state(&self) -> State {
        let now = clock::now();
        let mut seen = HashSet::new();
        let mut servers = Vec::new();
        for volume in self.volumes.all() {
            let cell = volume.cell.name.shared();
            for server in volume.servers() {
                if !seen.insert((volume.cell.id, server.id())) {
                    continue;
                }
                servers.push(ServerState {
                    cell: Arc::clone(cell),
                    peer: server.best_address(|_| false),
                    up: server.is_up(),
                    rtt: server.rtt(),
                    promised: server.may_call_back(now),
                });
            }
        }
        State {
            servers,
            volumes: self.volumes.len(),
            vnodes: self.vnodes.len(),
            cache: CacheState {
                used: self.cache.used_bytes(),
                limit: self.cache.max_bytes(),
                dirty: self.cache.dirty_bytes(),
            },
        }
    }
}
