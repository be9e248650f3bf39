//! Volumes: which copy a path leads to, and where it is.

mod kind;
mod sites;
mod volumes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

pub use kind::{NoChoice, Parent, VolumeKind, choose};
pub use volumes::Volumes;

use crate::cell::Cell;
use crate::clock;
use crate::server::{Aim, Server, ServerId};
use crate::types::{Fid, Uniquifier, VnodeId, VolumeId};
use crate::vnode::promise::Breaks;

/// One copy of a volume.
#[derive(Debug)]
pub struct Volume {
    /// Its cell.
    pub cell: Arc<Cell>,
    /// Its id.
    pub id: VolumeId,
    /// Name of its group, without suffix.
    pub name: String,
    /// Which copy it is.
    pub kind: VolumeKind,
    servers: RwLock<Vec<Arc<Server>>>,
    /// Replicas that had another release than the one that was being read, and until when they are left alone.
    left_alone: Mutex<Vec<(ServerId, Instant)>>,
    /// Breaks of the whole volume.
    pub(crate) breaks: Breaks,
    /// It is being released, or may be: who has it is to be asked again.
    sites_doubted: AtomicBool,
}

impl Volume {
    fn new(cell: Arc<Cell>, id: VolumeId, name: String, kind: VolumeKind, servers: Vec<Arc<Server>>) -> Self {
        Self {
            cell,
            id,
            name,
            kind,
            servers: RwLock::new(servers),
            left_alone: Mutex::default(),
            breaks: Breaks::default(),
            sites_doubted: AtomicBool::new(false),
        }
    }

    /// Has it asked again, in a while, who has a read-only copy.
    pub(crate) fn doubt_sites(&self) {
        self.sites_doubted
            .store(self.kind.is_read_only(), Ordering::Release);
    }

    /// Its root directory.
    #[must_use]
    pub fn root(&self) -> Fid {
        Fid {
            cell: self.cell.id,
            volume: self.id,
            vnode: VnodeId(1),
            unique: Uniquifier(1),
        }
    }

    /// The servers that have it.
    #[must_use]
    pub fn servers(&self) -> Vec<Arc<Server>> {
        self.servers.read().clone()
    }

    /// Has more than one server it?
    pub(crate) fn is_replicated(&self) -> bool {
        self.servers.read().len() > 1
    }

    /// How much of its files is fetched ahead of a reader: what all its servers together can make use of.
    pub(crate) fn aim(&self) -> Aim {
        let servers = self.servers.read();
        let aims = servers
            .iter()
            .filter(|server| server.is_up())
            .map(|server| server.aim());
        aims.reduce(|one, other| Aim {
            window: one.window + other.window,
            unit: one.unit.max(other.unit),
        })
        .unwrap_or_default()
    }

    /// Its servers, the best first: for a share of `bytes` of something large, if it is said, else for anything.
    pub(crate) fn ranked(&self, share: Option<u64>) -> Vec<Arc<Server>> {
        let (mut servers, now) = (self.servers(), clock::now());
        if servers.len() > 1 {
            let best = servers
                .iter()
                .map(|server| server.single_pace())
                .max()
                .unwrap_or(0);
            servers.sort_by_cached_key(|server| {
                let load = share.map(|bytes| {
                    let pace = server.single_pace();
                    // The reader would wait for it longer than the others help.
                    let is_slow = pace > 0
                        && pace < best / SLOWER_MAX
                        && bytes > pace / PIECES_A_SECOND
                        && !server.is_due(now);
                    (is_slow, server.load(bytes))
                });
                (self.is_left_alone(server, now), load, server.rank())
            });
        }
        servers
    }

    /// This server has another release than the one that is being read.
    pub(crate) fn leave_alone(&self, server: &Server, now: Instant) {
        let mut left = self.left_alone.lock();
        left.retain(|(id, until)| *id != server.id() && *until > now);
        left.push((server.id(), now + LEFT_ALONE));
    }

    /// Has it had another release of late?
    pub(crate) fn is_left_alone(&self, server: &Server, now: Instant) -> bool {
        let left = self.left_alone.lock();
        left.iter().any(|(id, until)| *id == server.id() && *until > now)
    }
}

/// A replica that sends so many times slower than another one gets no share of what is large.
const SLOWER_MAX: u64 = 4;
/// If it sends fewer pieces than this in a second.
const PIECES_A_SECOND: u64 = 10;
/// A release takes a while from the first of the replicas to the last.
const LEFT_ALONE: Duration = Duration::from_secs(30);
