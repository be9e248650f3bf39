//! The callback service: what servers tell us, and what tools ask.
//!
//! The machine: a break raises a counter and tells the kernel; nothing waits for anything, because a server holds its
//! writer until we have answered. What is not known is counted, so that a reply under way makes no promise that is
//! broken already.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use rxrpc::proto::AbortCode;

use crate::cell::Cell;
use crate::clock;
use crate::events::{Broken, Cached, Scope};
use crate::fs::Invalidation;
use crate::fs::core::Core;
use crate::rpc::cb::{self, CallbackServer};
use crate::rpc::types::{AfsFid, AfsUuid, InterfaceAddr};
use crate::server::{Origin, Server, ServerId};
use crate::trace;
use crate::types::{Fid, Uniquifier, VnodeId, VolumeId};
use crate::vnode::Vnode;
use crate::xdr::{List, Text};

/// Answers for a file system as long as there is one.
pub(crate) struct CallbackService(pub(crate) Weak<Core>);

type Answer<T> = Result<T, AbortCode>;

impl CallbackService {
    fn core(&self) -> Answer<Arc<Core>> {
        self.0.upgrade().ok_or(GONE)
    }
}

impl CallbackServer for CallbackService {
    fn call_back(&self, _peer: SocketAddrV4, request: cb::CallBack) -> Answer<cb::CallBackReply> {
        let core = self.core()?;
        let span = trace::callback_break(request.fids.0.len());
        let _inside = span.enter();
        for fid in &request.fids.0 {
            let scope = if fid.vnode == 0 {
                Scope::Volume
            } else {
                Scope::File
            };
            core.counts.scopes.count(scope);
            core.break_fid(*fid);
        }
        Ok(cb::CallBackReply {})
    }

    fn init_callback_state(
        &self,
        peer: SocketAddrV4,
        _: cb::InitCallBackState,
    ) -> Answer<cb::InitCallBackStateReply> {
        self.core()?.forget_promises(peer, None);
        Ok(cb::InitCallBackStateReply {})
    }

    fn init_callback_state_3(
        &self,
        peer: SocketAddrV4,
        request: cb::InitCallBackState3,
    ) -> Answer<cb::InitCallBackState3Reply> {
        self.core()?.forget_promises(peer, Some(request.server));
        Ok(cb::InitCallBackState3Reply {})
    }

    fn probe(&self, _: SocketAddrV4, _: cb::Probe) -> Answer<cb::ProbeReply> {
        Ok(cb::ProbeReply {})
    }

    fn probe_uuid(&self, _: SocketAddrV4, request: cb::ProbeUuid) -> Answer<cb::ProbeUuidReply> {
        if self.core()?.uuid == request.client {
            Ok(cb::ProbeUuidReply {})
        } else {
            Err(NO)
        }
    }

    fn who_are_you(&self, _: SocketAddrV4, _: cb::WhoAreYou) -> Answer<cb::WhoAreYouReply> {
        Ok(cb::WhoAreYouReply {
            interface: self.core()?.interface(),
        })
    }

    fn tell_me_about_yourself(
        &self,
        _: SocketAddrV4,
        _: cb::TellMeAboutYourself,
    ) -> Answer<cb::TellMeAboutYourselfReply> {
        let interface = self.core()?.interface();
        Ok(cb::TellMeAboutYourselfReply {
            interface,
            capabilities: List(vec![ERROR_TRANSLATION]),
        })
    }

    /// There is no lock that is held for longer than a moment.
    fn get_lock(&self, _: SocketAddrV4, _: cb::GetLock) -> Answer<cb::GetLockReply> {
        Err(NO)
    }

    fn get_cache_entry(&self, _: SocketAddrV4, request: cb::GetCacheEntry) -> Answer<cb::GetCacheEntryReply> {
        let entry = self.core()?.cache_entry(request.index)?;
        Ok(cb::GetCacheEntryReply {
            address: entry.address,
            cell: entry.cell,
            fid: entry.fid,
            length: u32::try_from(entry.length).unwrap_or(u32::MAX),
            data_version: entry.data_version,
            lock: entry.lock,
            callback: entry.callback,
            expires: entry.expires,
            references: entry.references,
            opens: entry.opens,
            writers: entry.writers,
            mount: entry.mount,
            states: entry.states,
        })
    }

    fn get_cache_entry_64(
        &self,
        _: SocketAddrV4,
        request: cb::GetCacheEntry64,
    ) -> Answer<cb::GetCacheEntry64Reply> {
        self.core()?.cache_entry(request.index)
    }

    fn xstats_version(&self, _: SocketAddrV4, _: cb::XStatsVersion) -> Answer<cb::XStatsVersionReply> {
        Ok(cb::XStatsVersionReply {
            version: XSTATS_VERSION,
        })
    }

    fn get_xstats(&self, _: SocketAddrV4, request: cb::GetXStats) -> Answer<cb::GetXStatsReply> {
        let core = self.core()?;
        let words = match request.collection {
            0 => vec![0; CALL_WORDS],
            1 => core.performance(),
            2 => {
                let mut words = vec![0];
                words.extend(core.performance());
                words.resize(FULL_WORDS, 0);
                words
            }
            _ => return Err(NO),
        };
        Ok(cb::GetXStatsReply {
            version: XSTATS_VERSION,
            time: unix_now().cast_signed(),
            words: List(words),
        })
    }

    fn get_server_prefs(
        &self,
        _: SocketAddrV4,
        request: cb::GetServerPrefs,
    ) -> Answer<cb::GetServerPrefsReply> {
        let core = self.core()?;
        let servers = sorted(core.servers.list());
        let found = usize::try_from(request.index)
            .ok()
            .and_then(|index| servers.get(index));
        Ok(match found {
            None => cb::GetServerPrefsReply {
                address: -1,
                rank: -1,
            },
            Some(server) => cb::GetServerPrefsReply {
                address: address_of(server).cast_signed(),
                rank: i32::try_from(server.rank(clock::now())).unwrap_or(i32::MAX),
            },
        })
    }

    fn get_cell_serv_db(
        &self,
        _: SocketAddrV4,
        request: cb::GetCellServDb,
    ) -> Answer<cb::GetCellServDbReply> {
        let (name, hosts) = described(self.core()?.cell_at(request.index));
        Ok(cb::GetCellServDbReply { name, hosts })
    }

    fn get_cell_by_num(&self, _: SocketAddrV4, request: cb::GetCellByNum) -> Answer<cb::GetCellByNumReply> {
        let (name, hosts) = described(self.core()?.cell_at(request.number.saturating_sub(1)));
        Ok(cb::GetCellByNumReply { name, hosts })
    }

    fn get_local_cell(&self, _: SocketAddrV4, _: cb::GetLocalCell) -> Answer<cb::GetLocalCellReply> {
        Ok(cb::GetLocalCellReply {
            name: Text::from(self.core()?.cells.home().as_str().as_bytes()),
        })
    }

    fn get_cache_config(&self, _: SocketAddrV4, _: cb::GetCacheConfig) -> Answer<cb::GetCacheConfigReply> {
        let core = self.core()?;
        let word = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let chunk = u32::try_from(crate::store::CHUNK).unwrap_or(u32::MAX);
        let kib = u32::try_from(core.cache.max_bytes() / 1024).unwrap_or(u32::MAX);
        let vnodes = word(core.vnodes.len());
        let chunks = word(core.cache.chunks());
        let config = vec![
            chunks,
            vnodes,
            chunks,
            word(core.volumes.len()),
            chunk,
            chunk,
            kib,
            0,
            u32::from(core.cache.is_memory()),
        ];
        Ok(cb::GetCacheConfigReply {
            version: 1,
            bytes: word(config.len() * 4),
            config: List(config),
        })
    }
}

impl Core {
    fn break_fid(&self, fid: AfsFid) {
        if fid.volume == 0 {
            return;
        }
        let volumes = self.volumes.with_id(VolumeId(fid.volume));
        let mut known = false;
        for volume in volumes {
            if fid.vnode == 0 {
                known = true;
                volume.breaks.bump();
                volume.doubt_sites();
                self.released.notify_one();
                self.invalidate_all_of(|vnode| Arc::ptr_eq(&vnode.volume, &volume));
                trace::undone(format_args!("volume {}", volume.id), || {
                    let is_of = |fid: &Fid, _| (fid.cell, fid.volume) == (volume.cell.id, volume.id);
                    self.history.spans_where(is_of)
                });
                continue;
            }
            let fid = Fid {
                cell: volume.cell.id,
                volume: volume.id,
                vnode: VnodeId(fid.vnode),
                unique: Uniquifier(fid.unique),
            };
            if let Some(vnode) = self.vnodes.peek(fid) {
                known = true;
                vnode.breaks.bump();
                self.invalidate(Invalidation::Node(fid));
                trace::undone(fid, || self.history.spans(fid));
            }
        }
        if !known {
            self.unknown.bump();
        }
        self.broken
            .count(if known { Broken::Applied } else { Broken::Unknown });
    }

    /// The server remembers no promise that it gave us.
    fn forget_promises(&self, peer: SocketAddrV4, uuid: Option<AfsUuid>) {
        self.counts.scopes.count(Scope::Server);
        let named = uuid.and_then(|uuid| self.servers.by_id(&ServerId::Uuid(uuid)));
        let server = match (named, self.servers.origin(peer)) {
            (Some(server), _) => {
                self.servers.learn(*peer.ip(), &server);
                server
            }
            (None, Origin::Server(server)) => server,
            (None, Origin::Stranger(_)) => {
                self.broken.count(Broken::Stranger);
                return;
            }
        };
        let now = clock::now();
        // Before the counter moves: afterwards nobody can tell whose promises they were.
        let mut lost = Vec::new();
        self.vnodes.each(|vnode| {
            let by = vnode.promised_by(now, &self.all);
            if by.is_some_and(|by| Arc::ptr_eq(&by, &server)) {
                lost.push(vnode.fid);
            }
        });
        let span = trace::promises_forgotten(peer);
        span.record("afs.objects", lost.len());
        span.in_scope(|| {
            trace::undone(format_args!("all promises of {peer}"), || {
                let addresses = server.addresses();
                self.history.spans_where(|_, at| addresses.contains(&at))
            });
        });
        server.drop_promises();
        // It may have restarted.
        self.locks.doubted.notify_one();
        for fid in lost {
            self.invalidate(Invalidation::Node(fid));
        }
        self.broken.count(Broken::Server);
    }

    pub(crate) fn invalidate_all_of(&self, which: impl Fn(&Vnode) -> bool) {
        self.vnodes.each(|vnode| {
            if which(vnode) {
                self.invalidate(Invalidation::Node(vnode.fid));
            }
        });
    }

    /// Who we are, and the addresses from which the servers that we know see us.
    fn interface(&self) -> InterfaceAddr {
        let file_servers = self
            .servers
            .list()
            .into_iter()
            .flat_map(|server| server.addresses());
        let location_servers = self
            .cells
            .known()
            .into_iter()
            .flat_map(|cell| cell.servers.clone());
        let mut ours: Vec<u32> = Vec::new();
        for address in location_servers.chain(file_servers).filter_map(local_address) {
            if !ours.contains(&address) && ours.len() < INTERFACES_MAX {
                ours.push(address);
            }
        }
        let mut interface = InterfaceAddr {
            uuid: self.uuid,
            ..InterfaceAddr::default()
        };
        interface.count = u32::try_from(ours.len()).unwrap_or(0);
        let slots = interface
            .addresses
            .iter_mut()
            .zip(&mut interface.masks)
            .zip(&mut interface.mtus);
        for (((address, mask), mtu), ours) in slots.zip(ours) {
            (*address, *mask, *mtu) = (ours, HOST_MASK, DATAGRAM_MAX);
        }
        interface
    }

    fn cell_at(&self, index: i32) -> Option<Arc<Cell>> {
        self.cells.known().into_iter().nth(usize::try_from(index).ok()?)
    }

    fn cache_entry(&self, index: i32) -> Answer<cb::GetCacheEntry64Reply> {
        let index = usize::try_from(index).map_err(|_| NO)?;
        let vnode = self.vnodes.all().into_iter().nth(index).ok_or(NO)?;
        let now = clock::now();
        let (status, valid) = (vnode.status(), vnode.stands(now, &self.all));
        let promised = vnode.promised_by(now, &self.all);
        let left = valid.map_or(0, |left| u32::try_from(left.as_secs()).unwrap_or(u32::MAX));
        let opens = u32::try_from(vnode.opens.load(std::sync::atomic::Ordering::Relaxed)).unwrap_or(u32::MAX);
        let read_only = vnode.volume.kind.is_read_only();
        Ok(cb::GetCacheEntry64Reply {
            // Any number but 0, which tools take for no entry.
            address: u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1),
            cell: vnode.fid.cell.0,
            fid: vnode.fid.into(),
            length: vnode
                .loaded()
                .map_or(0, |data| data.len())
                .max(status.map_or(0, |status| status.size)),
            data_version: status.map_or(0, |status| u32::try_from(status.version.0).unwrap_or(u32::MAX)),
            lock: [0; 8],
            callback: promised.map_or(0, |server| address_of(&server)),
            expires: if left == 0 {
                0
            } else {
                unix_now().saturating_add(left)
            },
            references: u32::try_from(Arc::strong_count(&vnode)).unwrap_or(u32::MAX),
            opens,
            writers: u32::from(vnode.is_modified()),
            mount: match status {
                _ if vnode.fid.vnode == VnodeId(1) => MOUNT_ROOT,
                Some(status) if status.may_be_mount_point() => MOUNT_POINT,
                _ => 0,
            },
            states: u32::from(valid.is_some()) | if read_only { STATE_READ_ONLY } else { 0 },
        })
    }

    /// `afs_stats_CMPerf` (afs-rpc.md 5.3), with what we know in it.
    fn performance(&self) -> Vec<i32> {
        let mut words = vec![0; PERFORMANCE_WORDS];
        let mut put = |index: usize, value: usize| {
            if let Some(word) = words.get_mut(index) {
                *word = i32::try_from(value).unwrap_or(i32::MAX);
            }
        };
        let kib = |bytes: u64| usize::try_from(bytes / 1024).unwrap_or(usize::MAX);
        let up_for = clock::now().saturating_duration_since(self.started).as_secs();
        put(
            1,
            usize::try_from(u64::from(unix_now()).saturating_sub(up_for)).unwrap_or(0),
        );
        put(2, self.cells.names().len());
        put(3, self.cells.known().len());
        put(8, self.vnodes.len());
        put(9, kib(self.cache.max_bytes()));
        put(10, kib(self.cache.used_bytes()));
        put(11, kib(self.cache.max_bytes()));
        let cached = [
            (14, &self.counts.hits, Cached::Data),
            (15, &self.counts.hits, Cached::Status),
            (16, &self.counts.misses, Cached::Data),
            (17, &self.counts.misses, Cached::Status),
        ];
        for (place, tally, cache) in cached {
            put(place, usize::try_from(tally.get(cache)).unwrap_or(usize::MAX));
        }
        put(35, usize::try_from(self.counts.breaks()).unwrap_or(usize::MAX));
        put(37, self.servers.list().len());
        words
    }
}

fn described(cell: Option<Arc<Cell>>) -> (Text<256>, List<u32, 8>) {
    cell.map_or_else(Default::default, |cell| {
        let hosts = cell
            .servers
            .iter()
            .take(8)
            .map(|server| server.ip().to_bits())
            .collect();
        (Text::from(cell.name.as_str().as_bytes()), List(hosts))
    })
}

/// The address from which the kernel would send to `peer`. Nothing is sent.
fn local_address(peer: SocketAddrV4) -> Option<u32> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(peer).ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(local) => Some(local.ip().to_bits()),
        SocketAddr::V6(_) => None,
    }
}

fn sorted(mut servers: Vec<Arc<Server>>) -> Vec<Arc<Server>> {
    servers.sort_by_key(|server| address_of(server));
    servers
}

fn address_of(server: &Server) -> u32 {
    server
        .addresses()
        .first()
        .map_or(Ipv4Addr::UNSPECIFIED, |peer| *peer.ip())
        .to_bits()
}

#[expect(clippy::disallowed_methods, reason = "tools are told the time of the world")]
fn unix_now() -> u32 {
    crate::vnode::status::to_seconds(SystemTime::now())
}

/// There is no such thing (afs-rpc.md 5).
const NO: AbortCode = AbortCode(1);
/// We are shutting down.
const GONE: AbortCode = rxrpc::proto::abort_codes::RX_CALL_DEAD;
/// Servers may use the unified error codes.
const ERROR_TRANSLATION: u32 = 1;
/// As many as the reply has room for.
const INTERFACES_MAX: usize = 32;
/// Of the networks behind an address we say nothing.
const HOST_MASK: u32 = u32::MAX;
/// Bytes of a datagram that we take.
const DATAGRAM_MAX: u32 = 1444;
const XSTATS_VERSION: i32 = 2;
const CALL_WORDS: usize = 566;
const PERFORMANCE_WORDS: usize = 159;
const FULL_WORDS: usize = 775;
const STATE_READ_ONLY: u32 = 4;
const MOUNT_POINT: u32 = 1;
const MOUNT_ROOT: u32 = 2;
