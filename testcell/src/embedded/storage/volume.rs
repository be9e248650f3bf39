//! A volume: its vnodes, and what can be done to one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use afs_client::dir::Directory;
use afs_client::rpc::fs::StoreDataArgs;
use afs_client::rpc::types::{FetchStatus, StoreStatus, StoreVolumeStatus, VolSync, VolumeStatus};
use afs_client::types::{DataVersion, Uniquifier, VnodeId, VolumeId};
use afs_client::volume::VolumeKind;
use bytes::Bytes;
use rustix::io::Errno;

use super::vnode::{Content, Lock, Vnode, blocks};
use super::{Acl, Caller, Data, Refusal, Rights, Spill};

/// A vnode, for the clients of its volume.
pub(crate) type At = (VnodeId, Uniquifier);

/// A volume.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    pub(crate) id: VolumeId,
    /// The read-write volume that it is, or was copied from.
    pub(crate) parent: VolumeId,
    /// Its name, `.readonly` or `.backup` included.
    pub(crate) name: String,
    pub(crate) kind: VolumeKind,
    /// When this instance was made.
    pub(crate) creation: u32,
    /// The code that everything is refused with while the volume is out of service.
    pub(crate) refuses: Option<i32>,
    min_quota: i32,
    max_quota: i32,
    offline_message: Bytes,
    /// KiB in use.
    blocks: u64,
    vnodes: BTreeMap<VnodeId, Vnode>,
    next_unique: u32,
    /// Of files and of directories.
    numbers: [Numbers; 2],
}

/// Vnode numbers of one parity. The lowest free one is given out, as OpenAFS does, so that uniquifiers matter.
#[derive(Clone, Debug)]
struct Numbers {
    next: u32,
    free: BTreeSet<u32>,
}

/// A promise that a change breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) at: At,
    /// Even the promise to the one who made the change (afs-rpc.md 4.4 has three such cases).
    pub(crate) caller_too: bool,
}

impl Broken {
    pub(crate) const fn others(at: At) -> Self {
        Self {
            at,
            caller_too: false,
        }
    }

    pub(crate) const fn all(at: At) -> Self {
        Self { at, caller_too: true }
    }
}

/// What can be read of a vnode.
#[derive(Clone, Debug)]
pub(crate) enum Readable {
    File(Arc<Data>),
    Bytes(Bytes),
}

impl Readable {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::File(data) => data.len(),
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Some bytes from `at` on, at most `most`; empty at the end only.
    pub(crate) fn part(&self, at: u64, most: u64) -> io::Result<Bytes> {
        match self {
            Self::File(data) => data.part(at, most),
            Self::Bytes(bytes) => {
                let at = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                let most = usize::try_from(most).unwrap_or(usize::MAX);
                Ok(bytes.slice(at..bytes.len().min(at.saturating_add(most))))
            }
        }
    }
}

/// A store under way. It works on a copy: until it is finished the file is as it was.
#[derive(Debug)]
pub(crate) struct Store {
    at: At,
    set: StoreStatus,
    data: Data,
    next: u64,
    end: u64,
}

impl Store {
    /// Takes the next bytes; what is beyond the announced length is refused.
    pub(crate) fn write(&mut self, bytes: &[u8], spill: &Spill) -> Result<(), Refusal> {
        if bytes.len() as u64 > self.end - self.next {
            return Err(Refusal::Code(rxrpc::proto::abort_codes::RXGEN_SS_UNMARSHAL.0));
        }
        self.data.write(self.next, bytes, spill).map_err(disk)?;
        self.next += bytes.len() as u64;
        Ok(())
    }

    /// All came that was announced: closes the data.
    pub(crate) fn complete(&mut self, spill: &Spill) -> Result<(), Refusal> {
        if self.next != self.end {
            return Err(Refusal::Code(rxrpc::proto::abort_codes::RX_EOF.0));
        }
        if self.data.len() < self.end {
            self.data.set_len(self.end).map_err(disk)?;
        }
        self.data.settle(spill).map_err(disk)
    }
}

impl Volume {
    /// A read-write volume with nothing in it but its root.
    pub(crate) fn new(id: VolumeId, name: &str, acl: Acl, now: u32) -> Self {
        let root = Vnode {
            unique: ROOT.1,
            content: Content::Directory {
                names: Directory::new(ROOT, ROOT),
                acl,
            },
            links: 2,
            version: DataVersion(0),
            author: 0,
            owner: 0,
            group: 0,
            mode: 0o755,
            modified: now,
            changed: now,
            parent: ROOT,
            lock: Lock::default(),
        };
        Self {
            id,
            parent: id,
            name: name.to_owned(),
            kind: VolumeKind::ReadWrite,
            creation: now,
            refuses: None,
            min_quota: 0,
            max_quota: QUOTA,
            offline_message: Bytes::new(),
            blocks: root.blocks(),
            vnodes: BTreeMap::from([(ROOT.0, root)]),
            next_unique: ROOT.1.0 + 1,
            numbers: [2, 3].map(|next| Numbers {
                next,
                free: BTreeSet::new(),
            }),
        }
    }

    /// A read-only copy of it as it is now.
    pub(crate) fn snapshot(&self, id: VolumeId, kind: VolumeKind, now: u32) -> Self {
        let suffix = match kind {
            VolumeKind::ReadWrite => "",
            VolumeKind::ReadOnly => ".readonly",
            VolumeKind::Backup => ".backup",
        };
        let mut copy = Self {
            id,
            name: format!("{}{suffix}", self.name),
            kind,
            creation: now,
            refuses: None,
            ..self.clone()
        };
        copy.vnodes
            .values_mut()
            .for_each(|vnode| vnode.lock = Lock::default());
        copy
    }

    /// What replies say about the volume.
    pub(crate) fn sync(&self) -> VolSync {
        VolSync {
            creation: self.creation,
            spare: [0; 5],
        }
    }

    /// Nobody holds a lock any more.
    pub(crate) fn forget_locks(&mut self) {
        for vnode in self.vnodes.values_mut() {
            vnode.lock = Lock::default();
        }
    }

    pub(crate) fn vnode(&self, at: At) -> Result<&Vnode, Refusal> {
        let vnode = self.vnodes.get(&at.0).filter(|vnode| vnode.unique == at.1);
        vnode.ok_or(Refusal::GONE)
    }

    pub(super) fn vnode_mut(&mut self, at: At) -> Result<&mut Vnode, Refusal> {
        let vnode = self.vnodes.get_mut(&at.0).filter(|vnode| vnode.unique == at.1);
        vnode.ok_or(Refusal::GONE)
    }

    /// The list that governs a vnode.
    pub(crate) fn acl<'a>(&'a self, vnode: &'a Vnode) -> Result<&'a Acl, Refusal> {
        match &vnode.content {
            Content::Directory { acl, .. } => Ok(acl),
            _ => match &self.vnode(vnode.parent)?.content {
                Content::Directory { acl, .. } => Ok(acl),
                _ => Err(Refusal::GONE),
            },
        }
    }

    /// What the caller may do with a vnode.
    pub(crate) fn rights(&self, vnode: &Vnode, caller: &Caller) -> Result<Rights, Refusal> {
        let rights = self.acl(vnode)?.rights(caller);
        let owns_volume = caller.owns(self.vnode(ROOT)?.owner);
        Ok(if owns_volume {
            rights.and(Rights::ADMINISTER)
        } else {
            rights
        })
    }

    /// The status, whoever asks.
    pub(crate) fn status(&self, at: At, caller: &Caller, now: u32) -> Result<FetchStatus, Refusal> {
        let vnode = self.vnode(at)?;
        let (rights, anybody) = (
            self.rights(vnode, caller)?,
            self.rights(vnode, &Caller::ANONYMOUS)?,
        );
        Ok(vnode.status(at.0, caller, rights, anybody, now))
    }

    /// May the caller see the status?
    pub(crate) fn may_see(&self, at: At, caller: &Caller) -> Result<(), Refusal> {
        let vnode = self.vnode(at)?;
        match &vnode.content {
            Content::Directory { .. } => Ok(()),
            Content::Symlink(_) => self.rights(vnode, caller)?.demand(Rights::LOOKUP),
            Content::File(_) => self.may_read(vnode, caller),
        }
    }

    fn may_read(&self, vnode: &Vnode, caller: &Caller) -> Result<(), Refusal> {
        let rights = self.rights(vnode, caller)?;
        let own = caller.owns(vnode.owner) && !caller.is_anonymous();
        if own && rights.allow(Rights::INSERT) {
            return Ok(());
        }
        rights.demand(Rights::READ)
    }

    /// The data of a vnode.
    pub(crate) fn read(&self, at: At, caller: &Caller) -> Result<Readable, Refusal> {
        let vnode = self.vnode(at)?;
        match &vnode.content {
            Content::File(data) => {
                self.may_read(vnode, caller)?;
                let own = caller.owns(vnode.owner) && !caller.is_anonymous();
                if vnode.mode & 0o500 == 0 && !own && !caller.is_administrator {
                    return Err(Errno::ACCESS.into());
                }
                Ok(Readable::File(Arc::clone(data)))
            }
            Content::Directory { names, acl } => {
                acl.rights(caller).demand(Rights::LOOKUP)?;
                Ok(Readable::Bytes(names.blob().clone()))
            }
            Content::Symlink(text) => {
                self.rights(vnode, caller)?.demand(Rights::LOOKUP)?;
                Ok(Readable::Bytes(text.clone()))
            }
        }
    }

    pub(super) fn check_writable(&self) -> Result<(), Refusal> {
        if self.kind.is_read_only() {
            return Err(Errno::ROFS.into());
        }
        Ok(())
    }

    /// Begins a store (afs-rpc.md 4.2).
    pub(crate) fn begin_store(&self, args: &StoreDataArgs, caller: &Caller) -> Result<Store, Refusal> {
        let at = (VnodeId(args.fid.vnode), Uniquifier(args.fid.unique));
        let vnode = self.vnode(at)?;
        self.check_writable()?;
        let Content::File(data) = &vnode.content else {
            return Err(Errno::ISDIR.into());
        };
        let rights = self.rights(vnode, caller)?;
        let mine = caller.owns(vnode.owner) && rights.allow(Rights::INSERT);
        if !mine && !caller.is_administrator {
            rights.demand(Rights::WRITE)?;
            if vnode.mode & 0o200 == 0 {
                return Err(Errno::ACCESS.into());
            }
        }
        let end = args
            .position
            .checked_add(args.length)
            .filter(|end| *end <= LENGTH_MAX && args.file_length <= LENGTH_MAX)
            .ok_or(Refusal::Errno(Errno::FBIG))?;
        let kept = data.len().min(args.file_length);
        self.check_room(blocks(kept.max(end)).saturating_sub(vnode.blocks()))?;
        let mut data = Data::clone(data);
        data.set_len(kept).map_err(disk)?;
        Ok(Store {
            at,
            set: args.status,
            data,
            next: args.position,
            end,
        })
    }

    /// Ends a store: from now on the file is the new one.
    pub(crate) fn finish_store(&mut self, store: Store, caller: &Caller, now: u32) -> Result<(), Refusal> {
        let at = store.at;
        let vnode = self.vnode(at)?;
        let rights = self.rights(vnode, caller)?;
        let before = vnode.blocks();
        self.check_room(blocks(store.data.len()).saturating_sub(before))?;
        let vnode = self.vnode_mut(at)?;
        vnode.set(&store.set, rights, caller)?;
        let set_time = store.set.mask & StoreStatus::SET_MTIME != 0;
        let modified = if set_time { vnode.modified } else { now };
        vnode.touch(caller, now);
        vnode.modified = modified;
        if !caller.is_administrator {
            vnode.mode &= !0o6000;
        }
        vnode.content = Content::File(Arc::new(store.data));
        let after = vnode.blocks();
        self.recount(before, after);
        Ok(())
    }

    /// Sets attributes.
    pub(crate) fn set_status(
        &mut self,
        at: At,
        set: &StoreStatus,
        caller: &Caller,
        now: u32,
    ) -> Result<Broken, Refusal> {
        let vnode = self.vnode(at)?;
        self.check_writable()?;
        let rights = self.rights(vnode, caller)?;
        let may = if vnode.is_directory() {
            rights.allow(Rights::DELETE) || rights.allow(Rights::INSERT)
        } else {
            rights.allow(Rights::WRITE) || (caller.owns(vnode.owner) && rights.allow(Rights::INSERT))
        };
        if !may {
            return Err(Errno::ACCESS.into());
        }
        let vnode = self.vnode_mut(at)?;
        vnode.set(set, rights, caller)?;
        vnode.changed = now;
        Ok(Broken::others(at))
    }

    /// The text of the list that governs a vnode.
    pub(crate) fn acl_text(&self, at: At, caller: &Caller) -> Result<String, Refusal> {
        let vnode = self.vnode(at)?;
        let needed = if vnode.is_directory() {
            Rights::LOOKUP
        } else {
            Rights::READ
        };
        self.rights(vnode, caller)?.demand(needed)?;
        self.acl(vnode).map(Acl::to_string)
    }

    /// Sets the list of a directory.
    pub(crate) fn set_acl(
        &mut self,
        at: At,
        list: Acl,
        caller: &Caller,
        now: u32,
    ) -> Result<Broken, Refusal> {
        let vnode = self.vnode(at)?;
        self.check_writable()?;
        if !vnode.is_directory() {
            return Err(Errno::NOTDIR.into());
        }
        self.rights(vnode, caller)?.demand(Rights::ADMINISTER)?;
        let vnode = self.vnode_mut(at)?;
        if let Content::Directory { acl, .. } = &mut vnode.content {
            *acl = list;
        }
        vnode.changed = now;
        Ok(Broken::others(at))
    }

    /// Takes the lock of a vnode.
    pub(crate) fn set_lock(&mut self, at: At, write: bool, caller: &Caller, now: u32) -> Result<(), Refusal> {
        let vnode = self.vnode(at)?;
        let rights = self.rights(vnode, caller)?;
        let mine = caller.owns(vnode.owner) && rights.allow(Rights::INSERT);
        if !(mine || rights.allow(Rights::WRITE) || (!write && rights.allow(Rights::LOCK))) {
            return Err(Errno::ACCESS.into());
        }
        if self.kind.is_read_only() {
            // Nobody can change it: a reader needs no lock.
            return if write { Err(Errno::ROFS.into()) } else { Ok(()) };
        }
        self.vnode_mut(at)?.lock.take(write, now)
    }

    /// Renews the lock of a vnode.
    pub(crate) fn extend_lock(&mut self, at: At, now: u32) -> Result<(), Refusal> {
        let read_only = self.kind.is_read_only();
        let vnode = self.vnode_mut(at)?;
        if read_only {
            return Ok(());
        }
        vnode.lock.extend(now)
    }

    /// Takes a holder of the lock away; the last one breaks the promises of those who wait for it.
    pub(crate) fn release_lock(&mut self, at: At, now: u32) -> Result<Option<Broken>, Refusal> {
        let vnode = self.vnode_mut(at)?;
        Ok(vnode.lock.release(now).then_some(Broken::others(at)))
    }

    /// Quota and space.
    pub(crate) fn volume_status(&self) -> VolumeStatus {
        let kib = |blocks: u64| i32::try_from(blocks).unwrap_or(i32::MAX);
        VolumeStatus {
            id: self.id.0,
            parent: self.parent.0,
            online: u32::from(self.refuses.is_none()),
            in_service: 1,
            blessed: 1,
            needs_salvage: 0,
            kind: u32::from(!self.kind.is_read_only()),
            min_quota: self.min_quota,
            max_quota: self.max_quota,
            blocks_in_use: kib(self.blocks),
            partition_available: kib(PARTITION_BLOCKS.saturating_sub(self.blocks)),
            partition_blocks: kib(PARTITION_BLOCKS),
        }
    }

    pub(crate) fn offline_message(&self) -> &Bytes {
        &self.offline_message
    }

    /// Sets quota and texts, which only administrators may.
    pub(crate) fn set_volume_status(
        &mut self,
        set: &StoreVolumeStatus,
        offline_message: &Bytes,
        caller: &Caller,
    ) -> Result<(), Refusal> {
        if !caller.is_administrator {
            return Err(Errno::ACCESS.into());
        }
        self.check_writable()?;
        if set.mask & 1 != 0 {
            self.min_quota = set.min_quota;
        }
        if set.mask & 2 != 0 {
            self.max_quota = set.max_quota;
        }
        if !offline_message.is_empty() {
            self.offline_message = offline_message.clone();
        }
        Ok(())
    }

    /// Are there so many KiB more?
    pub(super) fn check_room(&self, more: u64) -> Result<(), Refusal> {
        let limit = u64::try_from(self.max_quota).unwrap_or(0);
        if more > 0 && limit > 0 && self.blocks + more > limit {
            return Err(Refusal::OVER_QUOTA);
        }
        Ok(())
    }

    /// Something took `before` KiB and takes `after` now.
    pub(super) const fn recount(&mut self, before: u64, after: u64) {
        self.blocks = (self.blocks + after).saturating_sub(before);
    }

    /// Puts a vnode in under numbers of its own.
    pub(super) fn add(&mut self, make: impl FnOnce(At) -> Vnode, directory: bool) -> At {
        let [files, directories] = &mut self.numbers;
        let numbers = if directory { directories } else { files };
        let number = numbers.free.pop_first().unwrap_or_else(|| {
            numbers.next += 2;
            numbers.next - 2
        });
        let at = (VnodeId(number), Uniquifier(self.next_unique));
        self.next_unique += 1;
        let vnode = make(at);
        self.recount(0, vnode.blocks());
        self.vnodes.insert(at.0, vnode);
        at
    }

    /// Takes a vnode away; its number is free again.
    pub(super) fn discard(&mut self, at: At) {
        if let Some(vnode) = self.vnodes.remove(&at.0) {
            self.recount(vnode.blocks(), 0);
            let [files, directories] = &mut self.numbers;
            let numbers = if vnode.is_directory() { directories } else { files };
            numbers.free.insert(at.0.0);
        }
    }

    /// What must hold between any two operations: says what does not.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut named: BTreeMap<VnodeId, u32> = BTreeMap::from([(ROOT.0, 0)]);
        let mut subdirectories: BTreeMap<VnodeId, u32> = BTreeMap::new();
        for (id, vnode) in &self.vnodes {
            let Content::Directory { names, .. } = &vnode.content else {
                continue;
            };
            let parsed = Directory::parse(names.blob().clone()).map_err(|error| format!("{id}: {error}"))?;
            for entry in &parsed {
                let there = self.vnode((entry.vnode, entry.unique));
                let there = there.map_err(|_| format!("{id} names {}", entry.vnode))?;
                match entry.name {
                    b"." if entry.vnode != *id => return Err(format!("{id} is not its own .")),
                    b".." if entry.vnode != vnode.parent.0 => return Err(format!(".. of {id}")),
                    b"." | b".." => {}
                    _ => {
                        *named.entry(entry.vnode).or_default() += 1;
                        *subdirectories.entry(*id).or_default() += u32::from(there.is_directory());
                        if there.parent.0 != *id {
                            return Err(format!("{} is not at home in {id}", entry.vnode));
                        }
                    }
                }
            }
        }
        for (id, vnode) in &self.vnodes {
            let links = if vnode.is_directory() {
                2 + subdirectories.get(id).copied().unwrap_or(0)
            } else {
                named.get(id).copied().unwrap_or(0)
            };
            if links != vnode.links || !named.contains_key(id) {
                return Err(format!("{id} has {} links for {links}", vnode.links));
            }
        }
        let blocks = self.vnodes.values().map(Vnode::blocks).sum::<u64>();
        if blocks != self.blocks {
            return Err(format!("{} blocks counted of {blocks}", self.blocks));
        }
        Ok(())
    }
}

/// The spill file is in trouble.
fn disk(error: io::Error) -> Refusal {
    Refusal::Errno(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// The root directory of every volume.
pub(crate) const ROOT: At = (VnodeId(1), Uniquifier(1));
/// Lengths have 63 bits.
const LENGTH_MAX: u64 = i64::MAX.unsigned_abs();
/// KiB that a volume may take unless told otherwise.
const QUOTA: i32 = 4_000_000;
/// KiB of the partition that we pretend to have.
const PARTITION_BLOCKS: u64 = 1 << 30;
