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
use crate::events::Misfit;
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
    places: RwLock<Places>,
    /// Replicas that are no good for it now.
    left_alone: Mutex<Vec<LeftAlone>>,
    /// Breaks of the whole volume.
    pub(crate) breaks: Breaks,
    /// It may have been released: who has it is to be asked again.
    sites_doubted: AtomicBool,
}

/// A replica that is asked only if there is no other one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftAlone {
    server: ServerId,
    pub(crate) until: Instant,
    pub(crate) misfit: Misfit,
    /// What exactly was wrong.
    pub(crate) why: Arc<str>,
}

/// The servers that have a volume, by the rule of [`sites`].
#[derive(Debug)]
struct Places {
    used: Vec<Arc<Server>>,
    reserve: Vec<Arc<Server>>,
    is_released: bool,
}

impl Volume {
    fn new(cell: Arc<Cell>, id: VolumeId, name: String, kind: VolumeKind, places: Places) -> Self {
        Self {
            cell,
            id,
            name,
            kind,
            places: RwLock::new(places),
            left_alone: Mutex::default(),
            breaks: Breaks::default(),
            sites_doubted: AtomicBool::new(false),
        }
    }

    /// A volume that no server has.
    #[cfg(test)]
    pub(crate) fn example() -> Arc<Self> {
        let name = crate::cell::CellName::new("lab.example").unwrap();
        let cell = Cell {
            id: crate::types::CellId(1),
            name,
            servers: Vec::new(),
            reach: Vec::new(),
        };
        let places = Places {
            used: Vec::new(),
            reserve: Vec::new(),
            is_released: true,
        };
        let name = "work".to_owned();
        Arc::new(Self::new(
            Arc::new(cell),
            VolumeId(1),
            name,
            VolumeKind::ReadWrite,
            places,
        ))
    }

    /// Has it asked again, in a while, who has a read-only copy.
    pub(crate) fn doubt_sites(&self) {
        self.sites_doubted
            .store(self.kind.is_read_only(), Ordering::Release);
    }

    /// These have it from now on. If that is because another release is used, what those have promised that are left says
    /// nothing any more; true then.
    fn move_to(&self, places: Places) -> bool {
        let mut known = self.places.write();
        let is_used = |server: &Server| places.used.iter().any(|used| used.id() == server.id());
        let turned = places.is_released && !known.used.iter().all(|server| is_used(server));
        *known = places;
        drop(known);
        if turned {
            self.breaks.bump();
        }
        turned
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

    /// The servers that have it, all of them the same release.
    #[must_use]
    pub fn servers(&self) -> Vec<Arc<Server>> {
        self.places.read().used.clone()
    }

    /// Those that have another release, while it is being released: for when none of the others answers.
    pub(crate) fn reserve(&self) -> Vec<Arc<Server>> {
        self.places.read().reserve.clone()
    }

    /// Is this one of the reserve? What it says holds for the moment: nobody is told when the others are back.
    pub(crate) fn is_reserve(&self, server: &Server) -> bool {
        let places = self.places.read();
        places.reserve.iter().any(|reserve| reserve.id() == server.id())
    }

    /// Has more than one server it?
    pub(crate) fn is_replicated(&self) -> bool {
        self.places.read().used.len() > 1
    }

    /// How much of its files is fetched ahead of a reader: what all its servers together can make use of.
    pub(crate) fn aim(&self) -> Aim {
        let places = self.places.read();
        let used = places.used.iter();
        let aims = used.filter(|server| server.is_up()).map(|server| server.aim());
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
                    (is_slow || server.fails_often(now), server.load(bytes))
                });
                (self.is_left_alone(server, now), load, server.rank(now))
            });
        }
        servers
    }

    /// This server is no good for it for a while.
    pub(crate) fn leave_alone(
        &self,
        server: &Server,
        misfit: Misfit,
        why: impl Into<Arc<str>>,
        now: Instant,
    ) {
        let mut left = self.left_alone.lock();
        left.retain(|one| one.server != server.id() && one.until > now);
        left.push(LeftAlone {
            server: server.id(),
            until: now + LEFT_ALONE,
            misfit,
            why: why.into(),
        });
    }

    /// Why a server is left alone, if it is.
    pub(crate) fn left_alone(&self, server: &Server, now: Instant) -> Option<LeftAlone> {
        let left = self.left_alone.lock();
        let mut of_server = left
            .iter()
            .filter(|one| one.server == server.id() && one.until > now);
        of_server.next().cloned()
    }

    pub(crate) fn is_left_alone(&self, server: &Server, now: Instant) -> bool {
        let left = self.left_alone.lock();
        left.iter()
            .any(|one| one.server == server.id() && one.until > now)
    }
}

/// A replica that sends so many times slower than another one gets no share of what is large.
const SLOWER_MAX: u64 = 4;
/// If it sends fewer pieces than this in a second.
const PIECES_A_SECOND: u64 = 10;
/// A release takes a while from the first of the replicas to the last, and who mends a server too.
const LEFT_ALONE: Duration = Duration::from_secs(30);
