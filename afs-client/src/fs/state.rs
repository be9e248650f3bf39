//! What the file system shows of itself: for metrics, and for whoever asks how it is.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rxrpc::proto::debug::PeerSnapshot;

use super::AfsFs;
use super::core::Core;
use crate::auth::Identity;
use crate::cell::{Cell, CellName};
use crate::clock;
use crate::events::Misfit;
use crate::server::{Server, ServerId, State as Reached};
use crate::store::{Aside, Writer};
use crate::types::VolumeId;
use crate::volume::{Volume, VolumeKind};

/// The state at one moment.
#[derive(Clone, Debug)]
pub struct State {
    /// The file servers of the volumes that were entered, each once for every cell.
    pub servers: Vec<ServerState>,
    /// The location servers of the cells that were entered, by cell, and whether each answers.
    pub location_servers: Vec<(Arc<str>, bool)>,
    /// Volumes that were entered.
    pub volumes: usize,
    /// Files, directories and links that are known.
    pub vnodes: usize,
    /// Directories in memory.
    pub directories: DirectoriesState,
    /// The cache of file data.
    pub cache: CacheState,
    /// Its counts.
    pub counts: CountState,
    /// What was written and is not in its place.
    pub unstored: UnstoredState,
}

/// How much was written and is not in its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnstoredState {
    /// Files that an earlier program has left, and that wait for their server or for a token.
    pub waiting: usize,
    /// Files that were set aside, in this run or before, and not removed from there when this run began.
    pub set_aside: usize,
    /// Files that were written here and changed by somebody else at the same time, in this run.
    pub conflicts: u64,
}

/// What was written and is not in its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptState {
    /// What an earlier program has left, and waits for its server or for a token.
    pub waiting: Vec<Waiting>,
    /// What was set aside, in this run or before, and not removed from there when this run began.
    pub set_aside: Vec<Aside>,
}

/// Changes to a file that wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The cell.
    pub cell: CellName,
    /// `volume:vnode:uniquifier`.
    pub fid: String,
    /// Who wrote them, on this machine.
    pub who: Identity,
    /// The same for people, with the principal of their token.
    pub owner: String,
    /// Since when, in unix seconds.
    pub since: u32,
}

/// What happened from the start.
#[derive(Clone, Debug)]
pub struct CountState {
    /// Calls to file servers that were made once more, by reason.
    pub retries: Vec<(&'static str, u64)>,
    /// How many of them to another address.
    pub failovers: Vec<(&'static str, u64)>,
    /// Replicas left alone for a while, by reason.
    pub misfits: Vec<(&'static str, u64)>,
    /// Questions where volumes are, by how they were answered.
    pub lookups: Vec<(&'static str, u64)>,
    /// Objects, volumes and servers whose promises were broken.
    pub breaks: Vec<(&'static str, u64)>,
    /// Promises given up because nobody needed them, by what came of it.
    pub given_up: Vec<(&'static str, u64)>,
    /// Bytes of file data, by where they went.
    pub flows: Vec<(&'static str, u64)>,
    /// What left the cache of file data for others, by reason.
    pub evictions: Vec<(&'static str, u64)>,
    /// Stores that failed, by errno.
    pub store_errors: Vec<(i32, u64)>,
}

/// A file server.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerState {
    /// A cell that it has volumes of.
    pub cell: Arc<str>,
    /// What makes it itself.
    pub id: ServerId,
    /// Where it is called.
    pub peer: Option<SocketAddrV4>,
    /// Its addresses, and whether each answers.
    pub addresses: Vec<(SocketAddrV4, bool)>,
    /// It answers.
    pub up: bool,
    /// For how long it has not.
    pub down_for: Option<Duration>,
    /// The time to it and back, once that was measured.
    pub rtt: Option<Duration>,
    /// It has promised to call us when something changes.
    pub promised: bool,
    /// The share of the calls to it that have failed of late, of 1.
    pub failing: f64,
    /// So many that what others can send is not asked of it.
    pub fails_often: bool,
    /// Why it is left alone, if it is: for the volume that this is about, or for any.
    pub left_alone: Option<LeftAloneState>,
}

/// Why a replica is left alone for a while, in favour of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftAloneState {
    /// The volume.
    pub volume: String,
    /// Of which kind the reason is.
    pub misfit: Misfit,
    /// The reason.
    pub why: Arc<str>,
    /// For how long still.
    pub left: Duration,
}

/// A volume that was entered.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumeState {
    /// Its cell.
    pub cell: Arc<str>,
    /// Its id.
    pub id: VolumeId,
    /// Name of its group, without suffix.
    pub name: String,
    /// Which copy it is.
    pub kind: VolumeKind,
    /// The servers that have it.
    pub servers: Vec<ServerState>,
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
    /// Files with such bytes.
    pub dirty_files: usize,
    /// For how long the first of them has had some.
    pub dirty_for: Option<Duration>,
    /// How often data went past the cache because its file system was full, and because that failed otherwise.
    pub bypassed: [u64; 2],
    /// How often something in its directory was not as it had been written, or could not be read, and was fetched again.
    pub damaged: u64,
}

/// Directories in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoriesState {
    /// How many.
    pub count: usize,
    /// Bytes that they take.
    pub bytes: usize,
    /// The most that they may.
    pub limit: usize,
}

impl AfsFs {
    /// How it is. Takes only locks that are held for moments.
    #[must_use]
    pub fn state(&self) -> State {
        self.0.state()
    }

    /// What was written and is not in its place: each file of it.
    #[must_use]
    pub fn kept_files(&self) -> KeptState {
        self.0.kept_files()
    }

    /// The volumes that were entered, by cell and name.
    #[must_use]
    pub fn volumes(&self) -> Vec<VolumeState> {
        let now = clock::now();
        let mut volumes: Vec<_> = self
            .0
            .volumes
            .all()
            .iter()
            .map(|volume| volume_state(volume, now))
            .collect();
        volumes.sort_by(|a, b| (&a.cell, &a.name, a.id).cmp(&(&b.cell, &b.name, b.id)));
        volumes
    }

    /// The cells that were entered, in that order.
    #[must_use]
    pub fn cells(&self) -> Vec<Arc<Cell>> {
        self.0.cells.known()
    }

    /// The name of the home cell.
    #[must_use]
    pub fn home(&self) -> &CellName {
        self.0.cells.home()
    }

    /// At most `most` connections, and how many there are.
    #[must_use]
    pub fn connections(&self, most: usize) -> (Vec<rxrpc::net::Listed>, usize) {
        self.0.endpoint.list(most)
    }

    /// Whom there are connections to or from.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerSnapshot> {
        self.0.endpoint.peers()
    }

    /// How many promises stand, by the server that gave them, and when the first of them ends.
    #[must_use]
    pub fn promises(&self) -> Vec<PromiseState> {
        let now = clock::now();
        let mut promises: Vec<PromiseState> = Vec::new();
        self.0.vnodes.each(|vnode| {
            let Some((server, left)) = vnode.promised(now, &self.0.all) else {
                return;
            };
            match promises.iter_mut().find(|known| known.server == server.id()) {
                Some(known) => {
                    known.count += 1;
                    known.first_ends = known.first_ends.min(left);
                }
                None => promises.push(PromiseState {
                    server: server.id(),
                    peer: server.best_address(|_| false),
                    count: 1,
                    first_ends: left,
                }),
            }
        });
        promises
    }
}

impl AfsFs {
    /// How many promises stand, and how many of these end within a minute: counted if there are no more than 16,384 objects,
    /// else estimated from so many of them. The time that this takes is bounded.
    #[must_use]
    pub fn promise_counts(&self) -> (usize, usize) {
        let now = clock::now();
        let (mut looked, mut stand, mut end) = (0, 0, 0);
        let total = self.0.vnodes.sample(PROMISES_LOOKED_AT, |vnode| {
            looked += 1;
            if let Some((_, left)) = vnode.promised(now, &self.0.all) {
                stand += 1;
                end += usize::from(left < ENDS_SOON);
            }
        });
        let of_all = |count: usize| {
            if total <= PROMISES_LOOKED_AT {
                count
            } else {
                count * total / looked.max(1)
            }
        };
        (of_all(stand), of_all(end))
    }

    /// How many peers there are.
    #[must_use]
    pub fn peer_count(&self) -> rxrpc::net::PeerCount {
        self.0.endpoint.peer_count()
    }
}

const PROMISES_LOOKED_AT: usize = 16_384;
const ENDS_SOON: Duration = Duration::from_secs(60);

/// What a server has promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromiseState {
    /// The server.
    pub server: ServerId,
    /// Where it is called.
    pub peer: Option<SocketAddrV4>,
    /// Objects that it has promised to tell of.
    pub count: usize,
    /// When the first of these promises ends.
    pub first_ends: Duration,
}

/// A server as one of those that have a volume.
fn server_state(volume: &Volume, server: &Server, now: Instant) -> ServerState {
    let down = server.down_addresses();
    let addresses = server.addresses();
    let left_alone = volume.left_alone(server, now).map(|left| LeftAloneState {
        volume: volume.name.clone(),
        misfit: left.misfit,
        why: left.why,
        left: left.until.saturating_duration_since(now),
    });
    ServerState {
        cell: Arc::clone(volume.cell.name.shared()),
        id: server.id(),
        peer: server.best_address(|_| false),
        addresses: addresses
            .into_iter()
            .map(|peer| (peer, !down.contains(&peer)))
            .collect(),
        up: server.is_up(),
        down_for: match server.state() {
            Reached::Up => None,
            Reached::Down { since } => Some(now.saturating_duration_since(since)),
        },
        rtt: server.rtt(),
        promised: server.may_call_back(now),
        failing: server.failing(now),
        fails_often: server.fails_often(now),
        left_alone,
    }
}

pub(super) fn volume_state(volume: &Volume, now: Instant) -> VolumeState {
    let cell = volume.cell.name.shared();
    let servers = volume.servers();
    VolumeState {
        cell: Arc::clone(cell),
        id: volume.id,
        name: volume.name.clone(),
        kind: volume.kind,
        servers: servers
            .iter()
            .map(|server| server_state(volume, server, now))
            .collect(),
    }
}

impl Core {
    fn count_state(&self) -> CountState {
        let evicted = ("evicted", self.cache.evicted_bytes());
        CountState {
            retries: self.history.retries.iter().collect(),
            failovers: self.history.failovers.iter().collect(),
            misfits: self.history.misfits.iter().collect(),
            lookups: self.volumes.lookups().iter().collect(),
            breaks: self.counts.scopes.iter().collect(),
            given_up: self.counts.given_up.iter().collect(),
            flows: self.counts.flows.iter().chain([evicted]).collect(),
            evictions: self.cache.evictions().iter().collect(),
            store_errors: self.counts.store_errors().into_iter().collect(),
        }
    }

    /// What was written and is not in its place.
    fn kept_files(&self) -> KeptState {
        let waiting = self.cache.waiting().into_iter().map(|entry| Waiting {
            fid: format!("{}:{}:{}", entry.key.volume, entry.key.vnode, entry.key.unique),
            who: entry.author.who,
            owner: Writer(&entry.author).to_string(),
            since: entry.since,
            cell: entry.cell,
        });
        KeptState {
            waiting: waiting.collect(),
            set_aside: self.cache.asides(),
        }
    }

    fn state(&self) -> State {
        let now = clock::now();
        let mut servers: Vec<ServerState> = Vec::new();
        let mut seen = HashMap::new();
        for volume in self.volumes.all() {
            for server in [volume.servers(), volume.reserve()].concat() {
                let place = *seen.entry((volume.cell.id, server.id())).or_insert(servers.len());
                match servers.get_mut(place) {
                    None => servers.push(server_state(&volume, &server, now)),
                    Some(known) if known.left_alone.is_none() => {
                        known.left_alone = server_state(&volume, &server, now).left_alone;
                    }
                    Some(_) => {}
                }
            }
        }
        let (dirty_files, dirty_since) = self.cache.dirty_files();
        let locations = |cell: Arc<Cell>| {
            let name = Arc::clone(cell.name.shared());
            let up: Vec<_> = cell.location_servers().map(|(_, up)| up).collect();
            up.into_iter().map(move |up| (Arc::clone(&name), up))
        };
        State {
            servers,
            location_servers: self.cells.known().into_iter().flat_map(locations).collect(),
            volumes: self.volumes.len(),
            vnodes: self.vnodes.len(),
            directories: self.vnodes.directories(),
            cache: CacheState {
                used: self.cache.used_bytes(),
                limit: self.cache.max_bytes(),
                dirty: self.cache.dirty_bytes(),
                bypassed: self.cache.bypassed(),
                damaged: self.cache.damaged(),
                dirty_files,
                dirty_for: dirty_since.map(|since| now.saturating_duration_since(since)),
            },
            counts: self.count_state(),
            unstored: UnstoredState {
                waiting: self.cache.waiting_files(),
                set_aside: self.cache.set_aside_files(),
                conflicts: self.counts.conflicts.load(Ordering::Relaxed).into(),
            },
        }
    }
}
