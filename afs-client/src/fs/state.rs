//! What the file system shows of itself: for metrics, and for whoever asks how it is.

use std::collections::HashSet;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::AfsFs;
use super::core::Core;
use crate::cell::CellName;
use crate::clock;
use crate::store::{Aside, Writer};

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
    /// What was written and is not in its place.
    pub kept: KeptState,
}

/// Data that was written and is not in its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptState {
    /// What an earlier program has left, and waits for its server or for a token.
    pub waiting: Vec<Waiting>,
    /// What was set aside, in this run or before, and not removed from there by somebody.
    pub set_aside: Vec<Aside>,
    /// Files that were written here and changed by somebody else at the same time, in this run.
    pub conflicts: u64,
}

/// Changes to a file that wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The cell.
    pub cell: CellName,
    /// `volume:vnode:uniquifier`.
    pub fid: String,
    /// Who wrote them.
    pub owner: String,
    /// Since when, in unix seconds.
    pub since: u32,
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
    /// How often data went past the cache because its file system was full, and because that failed otherwise.
    pub bypassed: [u64; 2],
}

impl AfsFs {
    /// How it is. Takes only locks that are held for moments.
    #[must_use]
    pub fn state(&self) -> State {
        self.0.state()
    }
}

impl Core {
    /// What was written and is not in its place.
    pub(super) fn kept(&self) -> KeptState {
        let waiting = self.cache.waiting().into_iter().map(|entry| Waiting {
            fid: format!("{}:{}:{}", entry.key.volume, entry.key.vnode, entry.key.unique),
            owner: Writer(&entry.author).to_string(),
            since: entry.since,
            cell: entry.cell,
        });
        KeptState {
            waiting: waiting.collect(),
            set_aside: self.cache.asides(),
            conflicts: self.counts.conflicts.load(Ordering::Relaxed).into(),
        }
    }

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
                bypassed: self.cache.bypassed(),
            },
            kept: self.kept(),
        }
    }
}
