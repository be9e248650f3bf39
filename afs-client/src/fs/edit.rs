//! Changes to directories.
//!
//! The machine: each change is one call that is not repeated when its outcome is unknown. Its reply gives the new status
//! of the directory; if nobody else changed it, our copy is edited the same way, else it is dropped.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use rustix::io::Errno;

use super::core::{Caller, Core, Noted};
use super::synthetic::is_synthetic;
use super::types::{Entry, Invalidation, Kind, OpenFlags, Opened};
use super::walk::check_name;
use crate::clock;
use crate::dir::Directory;
use crate::error::Error;
use crate::hidden::{HiddenFile, Hiding, hidden_name};
use crate::op::Class;
use crate::rpc::types::{FetchStatus, Name, PATH_MAX, StoreStatus};
use crate::rpc::{Procedure, fs as rpc};
use crate::types::Fid;
use crate::vnode::Vnode;
use crate::vnode::status::{DELETE, Status, to_seconds};
use crate::xdr::Text;

impl Caller {
    /// A directory that may be changed.
    fn parent(&self, dir: Fid) -> Result<Arc<Vnode>, Error> {
        if is_synthetic(dir) {
            return Err(Errno::ROFS.into());
        }
        let vnode = self.vnode(dir)?;
        self.writable(&vnode)?;
        Ok(vnode)
    }

    /// Makes a change in `dir`.
    async fn change<P: Procedure>(&self, dir: &Arc<Vnode>, request: &P) -> Result<(P::Reply, Noted), Error> {
        self.procedure(dir, Class::Modifying, request, self.until()).await
    }

    /// Takes over the status of a directory that we changed.
    fn changed(
        &self,
        dir: &Vnode,
        status: &FetchStatus,
        noted: &Noted,
        edit: impl FnOnce(&mut Directory) -> bool,
    ) -> Result<Status, Error> {
        let status = self.learn(dir, status, None, noted)?;
        dir.edit_directory(status.version, edit);
        self.vnodes.shelve(dir);
        self.show_by_all(dir);
        Ok(status)
    }

    /// A new object of ours: its entry, with its status learnt.
    fn made(&self, dir: &Vnode, vnode: &Arc<Vnode>, status: &Status) -> Entry {
        let ttl = |vnode: &Vnode| {
            let valid = self.valid(vnode);
            valid.map_or(Duration::ZERO, |(status, ttl)| self.kept(&status, ttl))
        };
        Entry {
            fid: vnode.fid,
            attr: Core::attr(vnode, status),
            attr_ttl: ttl(vnode),
            entry_ttl: ttl(dir),
        }
    }

    pub(crate) async fn create(
        &self,
        dir: Fid,
        name: &[u8],
        mode: u16,
        flags: OpenFlags,
    ) -> Result<(Entry, Opened), Error> {
        check_name(name)?;
        let dir = self.parent(dir)?;
        let request = rpc::CreateFile {
            dir: dir.fid.into(),
            name: Name::from(name),
            status: fresh(mode),
        };
        let (reply, noted) = self.change(&dir, &request).await?;
        let fid = reply.fid.in_cell_of(dir.fid);
        self.changed(&dir, &reply.dir_status, &noted, added(name, fid))?;
        let vnode = self.vnode_in(fid, &dir.volume);
        let status = self.learn(
            &vnode,
            &reply.status,
            Some(&reply.callback),
            &noted.for_new(&vnode, &self.all),
        )?;
        let opened = self.open_valid(
            &vnode,
            &status,
            OpenFlags {
                truncate: false,
                // What it is made with is open, whatever its mode says.
                read: false,
                ..flags
            },
        )?;
        Ok((self.made(&dir, &vnode, &status), opened))
    }

    pub(crate) async fn mkdir(&self, dir: Fid, name: &[u8], mode: u16) -> Result<Entry, Error> {
        check_name(name)?;
        let dir = self.parent(dir)?;
        let request = rpc::MakeDir {
            dir: dir.fid.into(),
            name: Name::from(name),
            status: fresh(mode),
        };
        let (reply, noted) = self.change(&dir, &request).await?;
        let fid = reply.fid.in_cell_of(dir.fid);
        self.changed(&dir, &reply.dir_status, &noted, added(name, fid))?;
        let vnode = self.vnode_in(fid, &dir.volume);
        let status = self.learn(
            &vnode,
            &reply.status,
            Some(&reply.callback),
            &noted.for_new(&vnode, &self.all),
        )?;
        Ok(self.made(&dir, &vnode, &status))
    }

    pub(crate) async fn symlink(&self, dir: Fid, name: &[u8], target: &[u8]) -> Result<Entry, Error> {
        check_name(name)?;
        if target.len() > PATH_MAX as usize {
            return Err(Errno::NAMETOOLONG.into());
        }
        let dir = self.parent(dir)?;
        let request = rpc::Symlink {
            dir: dir.fid.into(),
            name: Name::from(name),
            target: Text::from(target),
            status: fresh(0o777),
        };
        let (reply, noted) = self.change(&dir, &request).await?;
        let fid = reply.fid.in_cell_of(dir.fid);
        self.changed(&dir, &reply.dir_status, &noted, added(name, fid))?;
        let vnode = self.vnode_in(fid, &dir.volume);
        let status = self.learn(&vnode, &reply.status, None, &noted.for_new(&vnode, &self.all))?;
        vnode.set_link(status.version, Bytes::copy_from_slice(target));
        Ok(self.made(&dir, &vnode, &status))
    }

    pub(crate) async fn link(&self, fid: Fid, dir: Fid, name: &[u8]) -> Result<Entry, Error> {
        check_name(name)?;
        let dir = self.parent(dir)?;
        let vnode = self.vnode(fid)?;
        let (status, _) = self.status(&vnode).await?;
        if status.kind != Kind::File {
            return Err(Errno::PERM.into());
        }
        // A file has one directory: the server knows no other (afs-rpc.md 4.4).
        let same = (fid.cell, fid.volume, status.parent)
            == (dir.fid.cell, dir.fid.volume, (dir.fid.vnode, dir.fid.unique));
        if !same {
            return Err(Errno::XDEV.into());
        }
        let request = rpc::Link {
            dir: dir.fid.into(),
            name: Name::from(name),
            fid: fid.into(),
        };
        let (reply, noted) = self.change(&dir, &request).await?;
        self.changed(&dir, &reply.dir_status, &noted, added(name, fid))?;
        let status = self.learn(&vnode, &reply.status, None, &noted)?;
        Ok(self.made(&dir, &vnode, &status))
    }

    /// Removes a name. A file that is open here keeps a hidden name until its last release.
    pub(crate) async fn unlink(&self, dir: Fid, name: &[u8]) -> Result<(), Error> {
        check_name(name)?;
        let parent = self.parent(dir)?;
        let (_, _, directory) = self.directory(&parent).await?;
        let (vnode, unique) = directory.lookup(name).ok_or(Errno::NOENT)?;
        let known = self.vnodes.get(dir.sibling(vnode, unique));
        if let Some(vnode) = &known
            && is_open_with_one_name(vnode)
        {
            return self.hide(&parent, name, vnode).await;
        }
        self.remove_file(dir, name).await?;
        if let Some(vnode) = known {
            // One link less; what is left of it the server tells at the next question.
            vnode.distrust();
            if vnode.status().is_some_and(|status| status.links <= 1) {
                vnode.data().discard();
            }
        }
        Ok(())
    }

    /// Gives a file that is open here its hidden name.
    async fn hide(&self, dir: &Vnode, name: &[u8], vnode: &Vnode) -> Result<(), Error> {
        let give = async |hidden: &[u8]| self.rename(dir.fid, name, dir.fid, hidden).await;
        self.give_hidden_name(dir.fid, vnode, give).await?;
        self.doom(dir.fid, vnode).await;
        Ok(())
    }

    /// Gives a file that is open here its hidden name beside the one that it has: a rename is about to take that.
    async fn hide_beside(&self, dir: Fid, vnode: &Vnode) -> Result<(), Error> {
        let give = async |hidden: &[u8]| self.link(vnode.fid, dir, hidden).await.map(drop);
        self.give_hidden_name(dir, vnode, give).await
    }

    /// Writes down that a file is about to be hidden, and has that done. If it was hidden though that failed, the name stays.
    async fn give_hidden_name(
        &self,
        dir: Fid,
        vnode: &Vnode,
        give: impl AsyncFnOnce(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let file = HiddenFile::new(&vnode.volume.cell.name, vnode.fid);
        let hiding = Hiding {
            dir: (dir.vnode, dir.unique),
            who: self.who,
        };
        self.hidden.add(&file, hiding);
        let given = give(&file.name()).await;
        if given.is_err() {
            self.hidden.remove(&file);
        }
        given
    }

    /// The rename has failed, as far as we have heard. Whether the file has its name still, the directory tells; if that
    /// cannot be read, the hidden name stays, and goes with the next program.
    async fn unhide(&self, dir: &Arc<Vnode>, name: &[u8], vnode: &Vnode) {
        let file = HiddenFile::new(&vnode.volume.cell.name, vnode.fid);
        dir.distrust();
        match self.directory(dir).await {
            Ok((_, _, directory)) if directory.lookup(name) == Some(file.file) => {
                match self.remove_file(dir.fid, &file.name()).await {
                    Ok(()) => self.hidden.remove(&file),
                    Err(error) => tracing::warn!(fid = %vnode.fid, %error, "a hidden name is left behind"),
                }
            }
            Ok(_) => self.doom(dir.fid, vnode).await,
            Err(error) => tracing::warn!(fid = %vnode.fid, %error, "a hidden name is left behind"),
        }
    }

    /// A file has only its hidden name now, which goes with its last release. That may have been meanwhile.
    async fn doom(&self, dir: Fid, vnode: &Vnode) {
        let hidden = HiddenFile::new(&vnode.volume.cell.name, vnode.fid).name();
        *vnode.doomed.lock() = Some((dir, hidden));
        if vnode.opens.load(Ordering::Acquire) > 0 {
            return;
        }
        let doomed = vnode.doomed.lock().take();
        if let Some((dir, name)) = doomed {
            self.remove_doomed(dir, &name, vnode).await;
        }
    }

    /// Nobody has a removed file open any more.
    pub(crate) async fn remove_doomed(&self, dir: Fid, name: &[u8], vnode: &Vnode) {
        vnode.data().discard();
        if let Err(error) = self.remove_hidden(dir, name, vnode).await {
            tracing::warn!(fid = %vnode.fid, %error, "a removed file is left behind");
        }
    }

    /// Removes a hidden file after its last release.
    async fn remove_hidden(&self, dir: Fid, name: &[u8], vnode: &Vnode) -> Result<(), Error> {
        match self.remove_file(dir, name).await {
            Err(error) if error.errno() != Errno::NOENT.raw_os_error() => return Err(error),
            _ => {}
        }
        self.hidden
            .remove(&HiddenFile::new(&vnode.volume.cell.name, vnode.fid));
        Ok(())
    }

    /// Removes a file that an earlier program has hidden, unless it is open here: then its last release does.
    pub(crate) async fn remove_left_hidden(&self, file: &HiddenFile, hiding: Hiding) -> Result<(), Error> {
        let cell = self.cells.resolve(&file.cell).await?;
        let volume = match self.volumes.enter_id(&cell, file.volume, self.until()).await {
            Err(error) if error.errno() == Errno::NODEV.raw_os_error() => {
                self.hidden.remove(file);
                return Ok(());
            }
            result => result?,
        };
        let at = |(vnode, unique)| volume.root().sibling(vnode, unique);
        let vnode = self.vnode_in(at(file.file), &volume);
        if vnode.opens.load(Ordering::Acquire) > 0 {
            return Ok(());
        }
        let dir = self.vnode_in(at(hiding.dir), &volume);
        let is_there = match self.directory(&dir).await {
            Ok((_, _, directory)) => directory.lookup(&file.name()) == Some(file.file),
            // Its directory has gone, and it with that.
            Err(error) if error.errno() == Errno::NOENT.raw_os_error() => false,
            Err(error) => return Err(error),
        };
        if is_there {
            self.remove_file(dir.fid, &file.name()).await?;
            tracing::info!(fid = %vnode.fid, "removed what an earlier program had removed while it was open");
        }
        self.hidden.remove(file);
        Ok(())
    }

    pub(crate) async fn remove_file(&self, dir: Fid, name: &[u8]) -> Result<(), Error> {
        let dir = self.parent(dir)?;
        let request = rpc::RemoveFile {
            dir: dir.fid.into(),
            name: Name::from(name),
        };
        let (reply, noted) = self.change(&dir, &request).await?;
        self.changed(&dir, &reply.dir_status, &noted, |directory| {
            directory.remove(name).is_ok()
        })?;
        Ok(())
    }

    pub(crate) async fn rmdir(&self, dir: Fid, name: &[u8]) -> Result<(), Error> {
        check_name(name)?;
        let dir = self.parent(dir)?;
        let request = rpc::RemoveDir {
            dir: dir.fid.into(),
            name: Name::from(name),
        };
        let mut tries = RELEASE_TRIES;
        let (reply, noted) = loop {
            match self.change(&dir, &request).await {
                // The server says EEXIST for what POSIX calls ENOTEMPTY (afs-rpc.md 4).
                Err(error) if error.errno() == Errno::EXIST.raw_os_error() => {
                    if tries == 0 || !self.only_hides(&dir, name).await? {
                        return Err(Errno::NOTEMPTY.into());
                    }
                }
                result => break result?,
            }
            tries -= 1;
            clock::sleep_until(clock::now() + RELEASE_STEP).await;
        };
        self.changed(&dir, &reply.dir_status, &noted, |directory| {
            directory.remove(name).is_ok()
        })?;
        Ok(())
    }

    /// Nothing is left in a directory but hidden names. They go when their files are closed, which the kernel may tell
    /// after the program has been told that it is done.
    async fn only_hides(&self, dir: &Arc<Vnode>, name: &[u8]) -> Result<bool, Error> {
        let (_, _, directory) = self.directory(dir).await?;
        let (vnode, unique) = directory.lookup(name).ok_or(Errno::NOENT)?;
        let inner = self.vnode_in(dir.fid.sibling(vnode, unique), &dir.volume);
        let (_, _, directory) = self.directory(&inner).await?;
        let mut inside = directory
            .iter()
            .filter(|entry| entry.name != b"." && entry.name != b"..");
        Ok(inside.all(|entry| entry.name == hidden_name(entry.vnode, entry.unique)))
    }

    /// Renames a file within its directory if the new name is free: the new name is a link first, which the server makes
    /// only where there is nothing. For anything else there is no way without a race: `EINVAL`.
    pub(crate) async fn rename_new(
        &self,
        from_dir: Fid,
        from: &[u8],
        to_dir: Fid,
        to: &[u8],
    ) -> Result<(), Error> {
        check_name(to)?;
        let parent = self.parent(to_dir)?;
        let (_, _, directory) = self.directory(&parent).await?;
        if directory.lookup(to).is_some() {
            return Err(Errno::EXIST.into());
        }
        if from_dir != to_dir {
            return Err(Errno::INVAL.into());
        }
        let (vnode, unique) = directory.lookup(from).ok_or(Errno::NOENT)?;
        let file = self.vnode_in(to_dir.sibling(vnode, unique), &parent.volume);
        if self.status(&file).await?.0.kind != Kind::File {
            return Err(Errno::INVAL.into());
        }
        self.link(file.fid, to_dir, to).await?;
        self.remove_file(from_dir, from).await?;
        file.distrust();
        self.invalidate(Invalidation::Node(file.fid));
        Ok(())
    }

    pub(crate) async fn rename(
        &self,
        from_dir: Fid,
        from: &[u8],
        to_dir: Fid,
        to: &[u8],
    ) -> Result<(), Error> {
        check_name(from)?;
        check_name(to)?;
        let source = self.parent(from_dir)?;
        let target = self.parent(to_dir)?;
        if (from_dir.cell, from_dir.volume) != (to_dir.cell, to_dir.volume) {
            return Err(Errno::XDEV.into());
        }
        let (from_status, _, directory) = self.directory(&source).await?;
        let (vnode, unique) = directory.lookup(from).ok_or(Errno::NOENT)?;
        let (to_status, _, into) = self.directory(&target).await?;
        let replaced = into.lookup(to);
        if replaced == Some((vnode, unique)) {
            // Two names of one file: POSIX has nothing happen, the server refuses (afs-rpc.md 4.4).
            return Ok(());
        }
        let replaced = replaced.and_then(|(vnode, unique)| self.vnodes.get(to_dir.sibling(vnode, unique)));
        // A file that is open here has its hidden name before it loses the other, so that there is no moment without either.
        let kept = replaced.clone().filter(|old| is_open_with_one_name(old));
        if let Some(old) = &kept {
            if from_status.access & to_status.access & DELETE == 0 {
                return Err(Errno::ACCESS.into());
            }
            self.hide_beside(to_dir, old).await?;
        }
        let request = rpc::Rename {
            from_dir: from_dir.into(),
            from: Name::from(from),
            to_dir: to_dir.into(),
            to: Name::from(to),
        };
        let (reply, noted) = match self.change(&source, &request).await {
            Ok(done) => done,
            Err(error) => {
                if let Some(old) = &kept {
                    self.unhide(&target, to, old).await;
                }
                return Err(if error.errno() == Errno::EXIST.raw_os_error() {
                    Errno::NOTEMPTY.into()
                } else {
                    error
                });
            }
        };
        let enter = |directory: &mut Directory| {
            let gone = directory.lookup(to).is_none() || directory.remove(to).is_ok();
            gone && directory.create(to, vnode, unique).is_ok()
        };
        if from_dir == to_dir {
            self.changed(&source, &reply.from_status, &noted, |directory| {
                directory.remove(from).is_ok() && enter(directory)
            })?;
        } else {
            self.changed(&source, &reply.from_status, &noted, |directory| {
                directory.remove(from).is_ok()
            })?;
            self.changed(
                &target,
                &reply.to_status,
                &noted.for_new(&target, &self.all),
                enter,
            )?;
            // Its parent is another one now; of a directory, so is its "..".
            let moved = from_dir.sibling(vnode, unique);
            if let Some(moved) = self.vnodes.get(moved) {
                moved.distrust();
            }
            // The kernel takes along how long it may believe in it; the new place may not be for everybody.
            self.invalidate(Invalidation::Node(moved));
            self.invalidate(Invalidation::Entry {
                dir: to_dir,
                name: Bytes::copy_from_slice(to),
            });
        }
        if let Some(replaced) = replaced {
            replaced.distrust();
            if kept.is_some() {
                self.doom(to_dir, &replaced).await;
            } else if replaced.opens.load(Ordering::Acquire) == 0 {
                replaced.data().discard();
            }
        }
        Ok(())
    }
}

/// Would it lose its last name while somebody here has it open? (Of files only handles are counted.)
fn is_open_with_one_name(vnode: &Vnode) -> bool {
    let is_last = |status: Status| status.kind == Kind::File && status.links <= 1;
    vnode.opens.load(Ordering::Acquire) > 0 && vnode.status().is_some_and(is_last)
}

fn added<'a>(name: &'a [u8], fid: Fid) -> impl FnOnce(&mut Directory) -> bool + 'a {
    move |directory| directory.create(name, fid.vnode, fid.unique).is_ok()
}

/// How long a directory that only hides something is tried to be removed: a second.
const RELEASE_TRIES: u32 = 20;
const RELEASE_STEP: Duration = Duration::from_millis(50);

/// The attributes of a new object.
fn fresh(mode: u16) -> StoreStatus {
    StoreStatus {
        mask: StoreStatus::SET_MODE | StoreStatus::SET_MTIME,
        client_mod_time: to_seconds(clock::wall()),
        unix_mode_bits: u32::from(mode & 0o7777),
        ..StoreStatus::default()
    }
}
