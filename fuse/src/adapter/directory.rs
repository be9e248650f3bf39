//! Directory streams.
//!
//! The kernel wants the type of each entry, and fuser has no word for "unknown". So where the directory itself does not
//! tell, the status of the entries is fetched in bulk. READDIRPLUS hands it to the kernel in the same reply; after
//! READDIR the lookups that usually follow find it in memory.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use afs_client::error::Error;
use afs_client::fs::{AfsFs, Kind, ListEntry, Listing, Lookup};
use afs_client::types::{DataVersion, Fid};
use fuser::{FileHandle, FopenFlags, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus, ReplyOpen};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::reply::{Answer, Asked, errno_of};
use super::{Adapter, Limit, Shared, convert};

/// The open directories.
#[derive(Default)]
pub(super) struct Streams {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Stream>>,
    /// What the kernel may hold the entries of.
    given: Mutex<HashMap<Fid, Given>>,
}

/// The version of a directory, and the node above it, which is in its entries.
type Given = (DataVersion, Option<u64>);

/// One open directory: a snapshot from the first read on, until it is rewound.
#[derive(Clone)]
struct Stream {
    /// The file system as whoever opened it sees it.
    fs: AfsFs,
    /// None yet: nothing was read.
    listing: Option<Arc<Listing>>,
}

impl Streams {
    /// Handles that are given from now on are these and beyond.
    pub(super) fn begin_at(&self, first: u64) {
        self.next.store(first, Ordering::Relaxed);
    }

    /// A new stream, and whether what the kernel keeps of an earlier one is still right.
    fn open(&self, fs: AfsFs, dir: Fid, now: Given) -> (FileHandle, bool) {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        let same = {
            let mut given = self.given.lock();
            if given.len() >= MAX_GIVEN {
                given.clear();
            }
            given.insert(dir, now) == Some(now)
        };
        self.open.lock().insert(handle, Stream { fs, listing: None });
        (FileHandle(handle), same)
    }

    pub(super) fn close(&self, handle: u64) {
        self.open.lock().remove(&handle);
    }

    /// The stream as it is. One that is not known was opened by an earlier process: as who reads it.
    fn read(&self, handle: u64, fs: &AfsFs) -> Stream {
        let mut open = self.open.lock();
        let stream = open.entry(handle).or_insert_with(|| Stream {
            fs: fs.clone(),
            listing: None,
        });
        stream.clone()
    }

    fn begin(&self, handle: u64, listing: &Arc<Listing>) {
        if let Some(stream) = self.open.lock().get_mut(&handle) {
            stream.listing = Some(Arc::clone(listing));
        }
    }
}

impl Adapter {
    pub(super) fn do_opendir(&self, asked: Asked<ReplyOpen>, node: INodeNo) {
        let Some((dir, asked)) = self.object(node, asked) else {
            return;
        };
        match asked.fs().opendir_cached(dir) {
            Some(Ok(version)) => self.shared.answer_opendir(asked, dir, version),
            Some(Err(error)) => asked.fail(errno_of(&error)),
            None => {
                let fs = asked.fs().clone();
                let work = async move { fs.opendir(dir).await };
                self.shared
                    .wait(Limit::Deadline, asked, work, move |shared, asked, version| {
                        shared.answer_opendir(asked, dir, version);
                    });
            }
        }
    }

    pub(super) fn do_readdir<P: Page>(&self, asked: Asked<P>, handle: FileHandle, offset: u64) {
        let Some((dir, asked)) = self.object(INodeNo(asked.node()), asked) else {
            return;
        };
        let Stream { fs, listing } = self.shared.streams.read(handle.0, asked.fs());
        // From the beginning: what there is now.
        let mut listing = listing.filter(|_| offset > 0);
        if listing.is_none() {
            listing = match fs.readdir_cached(dir) {
                Some(Ok(fresh)) => Some(fresh),
                Some(Err(error)) => return asked.fail(errno_of(&error)),
                None => None,
            };
            if let Some(fresh) = &listing {
                self.shared.streams.begin(handle.0, fresh);
            }
        }
        if let Some(listing) = &listing
            && Shared::unknown_after(&fs, dir, listing, offset).is_none()
        {
            return self.shared.answer_readdir(asked, &fs, dir, listing, offset);
        }
        let (shared, asks) = (Arc::clone(&self.shared), fs.clone());
        let work = async move {
            let listing = match listing {
                Some(listing) => listing,
                None => {
                    let fresh = asks.readdir(dir).await?;
                    shared.streams.begin(handle.0, &fresh);
                    fresh
                }
            };
            Shared::learn_kinds(&asks, dir, &listing, offset).await?;
            Ok(listing)
        };
        self.shared
            .wait(Limit::Deadline, asked, work, move |shared, asked, listing| {
                shared.answer_readdir(asked, &fs, dir, &listing, offset);
            });
    }
}

impl Shared {
    fn answer_opendir(&self, asked: Asked<ReplyOpen>, dir: Fid, version: DataVersion) {
        let now = (version, self.inodes.above(asked.node()));
        let (handle, same) = self.streams.open(asked.fs().clone(), dir, now);
        let mut flags = FopenFlags::FOPEN_CACHE_DIR;
        flags.set(FopenFlags::FOPEN_KEEP_CACHE, same);
        asked.ok(|reply| reply.opened(handle, flags));
    }

    fn answer_readdir<P: Page>(&self, asked: Asked<P>, fs: &AfsFs, dir: Fid, listing: &Listing, offset: u64) {
        let node = asked.node();
        asked.ok(|mut page| {
            for entry in listing.after(offset) {
                if page.put(self, fs, (node, dir), entry) {
                    break;
                }
            }
            page.done();
        });
    }

    /// What is known in memory about an entry.
    fn look(fs: &AfsFs, dir: Fid, entry: &ListEntry) -> (Fid, Option<Kind>) {
        if matches!(entry.name.as_ref(), b"." | b"..") {
            return (entry.fid, Some(Kind::Directory));
        }
        match fs.lookup_cached(dir, &entry.name) {
            Some(Ok(Lookup::Found(found))) => (found.fid, Some(found.attr.kind)),
            _ => (entry.fid, entry.kind),
        }
    }

    /// The node id of an entry. A directory knows itself and what is above it by other numbers than those by which it was
    /// walked, where one of them is the root of a volume.
    fn number(&self, node: u64, entry: &ListEntry, fid: Fid) -> u64 {
        match entry.name.as_ref() {
            b"." => Some(node),
            b".." => self.inodes.above(node),
            _ => None,
        }
        .unwrap_or_else(|| self.inodes.id(fid))
    }

    /// The cookie before the first entry of unknown type among those that one reply may hold.
    fn unknown_after(fs: &AfsFs, dir: Fid, listing: &Listing, offset: u64) -> Option<u64> {
        let mut before = offset;
        for entry in listing.after(offset).iter().take(LOOK_AHEAD) {
            if entry.kind.is_none() && Self::look(fs, dir, entry).1.is_none() {
                return Some(before);
            }
            before = entry.cookie;
        }
        None
    }

    /// Fetches the status of the entries behind `offset`, several calls at once.
    async fn learn_kinds(fs: &AfsFs, dir: Fid, listing: &Listing, offset: u64) -> Result<(), Error> {
        let Some(first) = Self::unknown_after(fs, dir, listing, offset) else {
            return Ok(());
        };
        let mut calls = JoinSet::new();
        let ahead = listing.after(first);
        for start in (0..ahead.len().min(LOOK_AHEAD)).step_by(BULK) {
            let cookie = start
                .checked_sub(1)
                .and_then(|last| ahead.get(last))
                .map_or(first, |entry| entry.cookie);
            let fs = fs.clone();
            calls.spawn(async move { fs.prefetch_status(dir, cookie).await });
        }
        // Types that could not be learned are guessed. Only a total failure is told.
        let (mut failure, mut learned) = (None, false);
        while let Some(done) = calls.join_next().await {
            match done {
                Ok(Ok(())) => learned = true,
                Ok(Err(error)) => failure = Some(error),
                Err(_) => {}
            }
        }
        match failure {
            Some(error) if !learned => Err(error),
            _ => Ok(()),
        }
    }
}

/// A reply that takes entries of a listing.
pub(super) trait Page: Answer {
    /// Takes an entry; true if there was no room for it.
    fn put(&mut self, shared: &Shared, fs: &AfsFs, dir: (u64, Fid), entry: &ListEntry) -> bool;
    /// Sends what was taken.
    fn done(self);
}

impl Page for ReplyDirectory {
    fn put(&mut self, shared: &Shared, fs: &AfsFs, (node, dir): (u64, Fid), entry: &ListEntry) -> bool {
        let (fid, kind) = Shared::look(fs, dir, entry);
        let kind = convert::file_type(kind.unwrap_or(GUESS));
        self.add(
            INodeNo(shared.number(node, entry, fid)),
            entry.cookie,
            kind,
            OsStr::from_bytes(&entry.name),
        )
    }

    fn done(self) {
        self.ok();
    }
}

impl Page for ReplyDirectoryPlus {
    fn put(&mut self, shared: &Shared, fs: &AfsFs, (node, dir): (u64, Fid), entry: &ListEntry) -> bool {
        let name = OsStr::from_bytes(&entry.name);
        if matches!(entry.name.as_ref(), b"." | b"..") {
            // The kernel neither counts nor keeps these two.
            let attr = convert::unknown(shared.number(node, entry, entry.fid), Kind::Directory);
            return self.add(
                attr.ino,
                entry.cookie,
                name,
                &Duration::ZERO,
                &attr,
                Generation(0),
            );
        }
        let place = shared.place(INodeNo(node), &entry.name);
        let (attr, generation, lifetime) = match fs.lookup_cached(dir, &entry.name) {
            Some(Ok(Lookup::Found(found))) => {
                let told = shared.tell(place, &entry.name, &found);
                (
                    told.attr,
                    told.generation,
                    told.attr_lifetime.min(told.entry_lifetime),
                )
            }
            _ => {
                // No lifetime: the kernel looks the name up before it uses what is guessed here.
                let id = shared.retain(entry.fid);
                let generation = Generation(u64::from(entry.fid.unique.0));
                (
                    convert::unknown(id, entry.kind.unwrap_or(GUESS)),
                    generation,
                    Duration::ZERO,
                )
            }
        };
        let full = self.add(attr.ino, entry.cookie, name, &lifetime, &attr, generation);
        if full {
            shared.forget(attr.ino.0, 1);
        }
        full
    }

    fn done(self) {
        self.ok();
    }
}

/// What is still unknown after asking is a mount point whose volume was not looked for yet, or an object whose status is
/// refused: a directory, then, is the better guess.
const GUESS: Kind = Kind::Directory;
/// Directories of which it is remembered what the kernel has.
const MAX_GIVEN: usize = 1 << 16;
/// Entries whose types are learned together: a reply of 32 KiB holds about half of them.
const LOOK_AHEAD: usize = 400;
/// Entries that one bulk call covers.
const BULK: usize = 50;
