//! Names: lookup, and all that adds and removes them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use afs_client::fs::{AfsFs, Entry, Kind, Lookup};
use afs_client::types::Fid;
use fuser::{Errno, FileAttr, Generation, INodeNo, RenameFlags, ReplyEmpty, ReplyEntry};

use super::change::Change;
use super::reply::{Answer, Asked, errno_of};
use super::{Adapter, Limit, Shared, convert};
use crate::inode::Remembered;

/// A name whose answer the kernel may keep.
#[derive(Clone, Copy)]
pub(super) struct Place {
    directory: u64,
    seen: Remembered,
    doubts: u64,
}

impl Shared {
    /// To be called before the file system is asked.
    pub(super) fn place(&self, directory: INodeNo, name: &[u8]) -> Place {
        if let Some(kept) = self.kept()
            && !self.names.knows(directory.0, name)
        {
            kept.named(directory.0, name);
        }
        Place {
            directory: directory.0,
            seen: self.names.remember(directory.0, name),
            doubts: self.inodes.doubts(),
        }
    }

    /// How long the kernel may believe in the name.
    fn entry_lifetime(&self, place: Place, name: &[u8], kind: Option<Kind>, promise: Duration) -> Duration {
        if kind == Some(Kind::Directory) && !self.expires.load(Ordering::Relaxed) {
            // Dropping the name of a directory would break `getcwd` in it: it is never dropped, only short-lived.
            self.names.drop_one(place.directory, name);
            return promise.min(Duration::from_secs(1));
        }
        if self.names.stands(place.directory, place.seen) {
            convert::lifetime(promise)
        } else {
            Duration::ZERO
        }
    }

    /// Counts the entry as known and gives what the kernel is told: attributes, generation, the two lifetimes.
    pub(super) fn tell(&self, place: Place, name: &[u8], entry: &Entry) -> Told {
        let id = self.retain(entry.fid);
        if entry.attr.kind == Kind::Directory {
            self.inodes.walked(id, place.directory);
        }
        // Doubted meanwhile, perhaps before the kernel knew it and could be told.
        let doubted = self.inodes.doubts() != place.doubts;
        Told {
            attr: self.attributes(id, &entry.attr),
            generation: Generation(u64::from(entry.fid.unique.0)),
            attr_lifetime: if doubted {
                Duration::ZERO
            } else {
                convert::lifetime(entry.attr_ttl)
            },
            entry_lifetime: self.entry_lifetime(place, name, Some(entry.attr.kind), entry.entry_ttl),
        }
    }

    /// The node of a directory that the kernel knows, by its name.
    fn directory_at(&self, fs: &AfsFs, dir: Fid, name: &[u8]) -> Option<u64> {
        match fs.lookup_cached(dir, name)? {
            Ok(Lookup::Found(entry)) if entry.attr.kind == Kind::Directory => self.inodes.known(entry.fid),
            _ => None,
        }
    }

    fn answer_entry(&self, asked: Asked<ReplyEntry>, place: Place, name: &[u8], entry: &Entry) {
        let told = self.tell(place, name, entry);
        self.metrics.inodes(self.inodes.len());
        asked.ok(|reply| {
            reply.entry_with_ttls(
                &told.attr_lifetime,
                &told.entry_lifetime,
                &told.attr,
                told.generation,
            );
        });
    }

    fn answer_lookup(&self, asked: Asked<ReplyEntry>, place: Place, name: &[u8], found: &Lookup) {
        match found {
            Lookup::Found(entry) => self.answer_entry(asked, place, name, entry),
            Lookup::Absent { ttl } => {
                let lifetime = self.entry_lifetime(place, name, None, *ttl);
                asked.negative(Errno::ENOENT, |reply| {
                    if lifetime.is_zero() {
                        reply.error(Errno::ENOENT);
                    } else {
                        reply.entry_with_ttls(&Duration::ZERO, &lifetime, &convert::absent(), Generation(0));
                    }
                });
            }
        }
    }
}

/// What the kernel is told about an entry.
pub(super) struct Told {
    pub(super) attr: FileAttr,
    pub(super) generation: Generation,
    pub(super) attr_lifetime: Duration,
    pub(super) entry_lifetime: Duration,
}

impl Adapter {
    pub(super) fn do_lookup(&self, asked: Asked<ReplyEntry>, parent: INodeNo, name: &[u8]) {
        let Some((dir, asked)) = self.named(parent, name, asked) else {
            return;
        };
        let place = self.shared.place(parent, name);
        match asked.fs().lookup_cached(dir, name) {
            Some(Ok(found)) => self.shared.answer_lookup(asked, place, name, &found),
            Some(Err(error)) => asked.fail(errno_of(&error)),
            None => {
                let (fs, name) = (asked.fs().clone(), name.to_vec());
                let asked_name = name.clone();
                let work = async move { fs.lookup(dir, &asked_name).await };
                self.shared
                    .wait(Limit::Deadline, asked, work, move |shared, asked, found| {
                        shared.answer_lookup(asked, place, &name, &found);
                    });
            }
        }
    }

    pub(super) fn do_mknod(&self, asked: Asked<ReplyEntry>, parent: INodeNo, name: &[u8], mode: u32) {
        let Some((dir, asked)) = self.named(parent, name, asked) else {
            return;
        };
        if !matches!(mode & libc::S_IFMT, 0 | libc::S_IFREG) {
            // AFS has no devices, pipes and sockets.
            return asked.fail(Errno::EPERM);
        }
        let place = self.shared.place(parent, name);
        let (fs, name) = (asked.fs().clone(), name.to_vec());
        let asked_name = name.clone();
        let work = async move {
            let flags = convert::open_flags(fuser::OpenFlags(libc::O_WRONLY));
            let (entry, opened) = fs
                .create(dir, &asked_name, convert::permissions(mode), flags)
                .await?;
            fs.release(opened.handle).await;
            Ok(entry)
        };
        let change = Change::make(dir, &name);
        self.shared
            .change(asked, change, work, move |shared, asked, entry| {
                shared.answer_entry(asked, place, &name, &entry);
            });
    }

    pub(super) fn do_mkdir(&self, asked: Asked<ReplyEntry>, parent: INodeNo, name: &[u8], mode: u32) {
        let Some((dir, asked)) = self.named(parent, name, asked) else {
            return;
        };
        let place = self.shared.place(parent, name);
        let (fs, name) = (asked.fs().clone(), name.to_vec());
        let asked_name = name.clone();
        let work = async move { fs.mkdir(dir, &asked_name, convert::permissions(mode)).await };
        let change = Change::make(dir, &name);
        self.shared
            .change(asked, change, work, move |shared, asked, entry| {
                shared.answer_entry(asked, place, &name, &entry);
            });
    }

    pub(super) fn do_symlink(&self, asked: Asked<ReplyEntry>, parent: INodeNo, name: &[u8], target: &[u8]) {
        let Some((dir, asked)) = self.named(parent, name, asked) else {
            return;
        };
        let place = self.shared.place(parent, name);
        let (fs, name, target) = (asked.fs().clone(), name.to_vec(), target.to_vec());
        let asked_name = name.clone();
        let work = async move { fs.symlink(dir, &asked_name, &target).await };
        let change = Change::make(dir, &name);
        self.shared
            .change(asked, change, work, move |shared, asked, entry| {
                shared.answer_entry(asked, place, &name, &entry);
            });
    }

    pub(super) fn do_link(&self, asked: Asked<ReplyEntry>, node: INodeNo, parent: INodeNo, name: &[u8]) {
        let Some((fid, asked)) = self.object(node, asked) else {
            return;
        };
        let Some((dir, asked)) = self.named(parent, name, asked) else {
            return;
        };
        let place = self.shared.place(parent, name);
        let (fs, name) = (asked.fs().clone(), name.to_vec());
        let asked_name = name.clone();
        let work = async move { fs.link(fid, dir, &asked_name).await };
        let change = Change::link(fid, dir, &name);
        self.shared
            .change(asked, change, work, move |shared, asked, entry| {
                shared.answer_entry(asked, place, &name, &entry);
            });
    }

    pub(super) fn do_unlink(&self, asked: Asked<ReplyEmpty>, parent: INodeNo, name: &[u8]) {
        let Some((dir, asked)) = self.named(parent, name, asked) else {
            return;
        };
        let change = Change::remove(dir, name);
        let (fs, name) = (asked.fs().clone(), name.to_vec());
        let work = async move { fs.unlink(dir, &name).await };
        self.shared
            .change(asked, change, work, |_, asked, ()| asked.ok(ReplyEmpty::ok));
    }

    pub(super) fn do_rmdir(&self, asked: Asked<ReplyEmpty>, parent: INodeNo, name: &[u8]) {
        let Some((dir, asked)) = self.named(parent, name, asked) else {
            return;
        };
        let change = Change::remove(dir, name);
        let (fs, name) = (asked.fs().clone(), name.to_vec());
        let work = async move { fs.rmdir(dir, &name).await };
        self.shared
            .change(asked, change, work, |_, asked, ()| asked.ok(ReplyEmpty::ok));
    }

    pub(super) fn do_rename(
        &self,
        asked: Asked<ReplyEmpty>,
        from: (INodeNo, &[u8]),
        to: (INodeNo, &[u8]),
        flags: RenameFlags,
    ) {
        let Some((from_dir, asked)) = self.named(from.0, from.1, asked) else {
            return;
        };
        let Some((to_dir, asked)) = self.named(to.0, to.1, asked) else {
            return;
        };
        let replaces = flags.is_empty();
        if !replaces && flags != RenameFlags::RENAME_NOREPLACE {
            return asked.fail(Errno::EINVAL);
        }
        let change = Change::rename((from_dir, from.1), (to_dir, to.1));
        let above = to.0.0;
        let moved = self.shared.directory_at(asked.fs(), from_dir, from.1);
        let (fs, from, to) = (asked.fs().clone(), from.1.to_vec(), to.1.to_vec());
        // The kernel keeps the moved entry under its new name without asking.
        let work = async move {
            if replaces {
                fs.rename(from_dir, &from, to_dir, &to).await
            } else {
                fs.rename_new(from_dir, &from, to_dir, &to).await
            }
        };
        self.shared.change(asked, change, work, move |shared, asked, ()| {
            if let Some(moved) = moved {
                shared.inodes.walked(moved, above);
            }
            asked.ok(ReplyEmpty::ok);
        });
    }

    /// The directory of a name; answers `ESTALE` or `ENAMETOOLONG` itself.
    pub(super) fn named<R: Answer>(
        &self,
        parent: INodeNo,
        name: &[u8],
        asked: Asked<R>,
    ) -> Option<(Fid, Asked<R>)> {
        if name.len() > NAME_MAX {
            asked.fail(Errno::ENAMETOOLONG);
            return None;
        }
        self.object(parent, asked)
    }
}

/// The longest name that file servers take.
const NAME_MAX: usize = 255;
