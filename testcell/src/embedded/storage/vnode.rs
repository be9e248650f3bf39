//! A vnode: a file, a directory or a symbolic link, with its attributes and its lock.

use std::sync::Arc;

use afs_client::dir::Directory;
use afs_client::rpc::types::{FetchStatus, StoreStatus};
use afs_client::types::{DataVersion, Uniquifier, VnodeId};
use bytes::Bytes;
use rustix::io::Errno;

use super::{Acl, Caller, Data, Refusal, Rights};

/// What a vnode holds.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    File(Arc<Data>),
    Directory {
        names: Directory,
        acl: Acl,
    },
    /// A symbolic link, or a mount point if no execute bit is set.
    Symlink(Bytes),
}

/// A vnode. Times are unix seconds.
#[derive(Clone, Debug)]
pub(crate) struct Vnode {
    pub(crate) unique: Uniquifier,
    pub(crate) content: Content,
    pub(crate) links: u32,
    pub(crate) version: DataVersion,
    pub(crate) author: u32,
    pub(crate) owner: u32,
    pub(crate) group: u32,
    pub(crate) mode: u32,
    pub(crate) modified: u32,
    /// The last change of any kind, by the server's clock.
    pub(crate) changed: u32,
    /// The directory it is in.
    pub(crate) parent: (VnodeId, Uniquifier),
    pub(crate) lock: Lock,
}

impl Vnode {
    pub(crate) fn len(&self) -> u64 {
        match &self.content {
            Content::File(data) => data.len(),
            Content::Directory { names, .. } => names.blob().len() as u64,
            Content::Symlink(text) => text.len() as u64,
        }
    }

    /// KiB that count against the quota; nothing is free.
    pub(crate) fn blocks(&self) -> u64 {
        blocks(self.len())
    }

    pub(crate) const fn is_directory(&self) -> bool {
        matches!(self.content, Content::Directory { .. })
    }

    /// The data has changed.
    pub(crate) const fn touch(&mut self, caller: &Caller, now: u32) {
        self.version = self.version.next();
        self.author = caller.id;
        self.modified = now;
        self.changed = now;
    }

    /// Sets attributes that the caller may set (afs-rpc.md 3.3). `rights` are the caller's here.
    pub(crate) fn set(&mut self, set: &StoreStatus, rights: Rights, caller: &Caller) -> Result<(), Refusal> {
        let has = |bit| set.mask & bit != 0;
        let owner = has(StoreStatus::SET_OWNER) && set.owner != self.owner;
        let group = has(StoreStatus::SET_GROUP) && set.group != self.group;
        if (owner || group) && !caller.is_administrator {
            return Err(Errno::PERM.into());
        }
        let mode = has(StoreStatus::SET_MODE).then_some(set.unix_mode_bits & 0o7777);
        let mode = match mode {
            Some(_) if matches!(self.content, Content::Symlink(_)) => return Err(Errno::INVAL.into()),
            Some(mode) if mode & 0o6000 != 0 && !caller.is_administrator => {
                if self.is_directory() || !(caller.owns(self.owner) && rights.allow(Rights::INSERT)) {
                    return Err(Errno::ACCESS.into());
                }
                Some(mode & 0o777)
            }
            mode => mode,
        };
        if owner {
            self.owner = set.owner;
        }
        if group {
            self.group = set.group;
        }
        self.mode = mode.unwrap_or(self.mode);
        if has(StoreStatus::SET_MTIME) {
            self.modified = set.client_mod_time;
        }
        Ok(())
    }

    /// The status for a caller, whose rights and everybody's are given. `id` is its own.
    pub(crate) fn status(
        &self,
        id: VnodeId,
        caller: &Caller,
        rights: Rights,
        anybody: Rights,
        now: u32,
    ) -> FetchStatus {
        let (length, version) = (self.len(), self.version.0);
        let (file_type, parent) = match self.content {
            Content::File(_) => (1, self.parent),
            // For a directory the server shows the directory itself (afs-rpc.md 3.2).
            Content::Directory { .. } => (2, (id, self.unique)),
            Content::Symlink(_) => (3, self.parent),
        };
        let owned = !self.is_directory() && caller.owns(self.owner);
        let low = |number: u64| u32::try_from(number & 0xffff_ffff).unwrap_or(0);
        FetchStatus {
            interface_version: 1,
            file_type,
            link_count: self.links,
            length_low: low(length),
            length_high: low(length >> 32),
            version_low: low(version),
            version_high: 0,
            author: self.author,
            owner: self.owner,
            group: self.group,
            caller_access: rights.0 | if owned { Rights::ADMINISTER.0 } else { 0 },
            anonymous_access: anybody.0,
            unix_mode_bits: self.mode,
            parent_vnode: parent.0.0,
            parent_unique: parent.1.0,
            residency_mask: 1,
            client_mod_time: self.modified,
            server_mod_time: self.changed,
            sync_counter: 0,
            lock_count: self.lock.count(now),
            error_code: 0,
        }
    }
}

/// The lock of a file: held by nobody in particular, and not for ever (afs-rpc.md 4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lock {
    readers: u32,
    writer: bool,
    until: u32,
}

impl Lock {
    fn at(self, now: u32) -> Self {
        if now < self.until { self } else { Self::default() }
    }

    /// As the status shows it.
    fn count(self, now: u32) -> u32 {
        let lock = self.at(now);
        if lock.writer { u32::MAX } else { lock.readers }
    }

    /// Takes it for reading or writing.
    pub(crate) fn take(&mut self, write: bool, now: u32) -> Result<(), Refusal> {
        let lock = self.at(now);
        if lock.writer || (write && lock.readers > 0) {
            return Err(Errno::AGAIN.into());
        }
        *self = Self {
            readers: lock.readers + u32::from(!write),
            writer: write,
            until: now + LOCK_SECONDS,
        };
        Ok(())
    }

    /// Renews it.
    pub(crate) fn extend(&mut self, now: u32) -> Result<(), Refusal> {
        if self.count(now) == 0 {
            return Err(Errno::INVAL.into());
        }
        self.until = now + LOCK_SECONDS;
        Ok(())
    }

    /// Takes one holder away. True if that left none.
    pub(crate) fn release(&mut self, now: u32) -> bool {
        let lock = self.at(now);
        *self = Self {
            readers: lock.readers.saturating_sub(1),
            writer: false,
            until: lock.until,
        };
        lock.count(now) != 0 && self.readers == 0
    }
}

/// KiB that a length takes.
pub(crate) const fn blocks(length: u64) -> u64 {
    if length == 0 { 1 } else { length.div_ceil(1024) }
}

const LOCK_SECONDS: u32 = 300;
