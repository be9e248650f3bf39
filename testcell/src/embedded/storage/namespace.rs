//! What can be done to the names in a directory (afs-rpc.md 4.4).

use std::sync::Arc;

use afs_client::dir::{Directory, EditError};
use afs_client::rpc::types::StoreStatus;
use afs_client::types::{DataVersion, VnodeId};
use bytes::Bytes;
use rustix::io::Errno;

use super::vnode::{Content, Lock, Vnode, blocks};
use super::volume::{At, Broken, Volume};
use super::{Caller, Data, Refusal, Rights};

impl From<EditError> for Refusal {
    fn from(error: EditError) -> Self {
        Self::Errno(match error {
            EditError::Exists => Errno::EXIST,
            EditError::NotFound => Errno::NOENT,
            EditError::BadName => Errno::INVAL,
            EditError::Full => Errno::FBIG,
        })
    }
}

impl Volume {
    /// Makes an empty file.
    pub(crate) fn create_file(
        &mut self,
        dir: At,
        name: &[u8],
        set: &StoreStatus,
        caller: &Caller,
        now: u32,
    ) -> Result<(At, Vec<Broken>), Refusal> {
        let content = Content::File(Arc::new(Data::default()));
        self.make(dir, name, content, set, caller, now)
    }

    /// Makes a symbolic link; without any execute bit, a mount point.
    pub(crate) fn symlink(
        &mut self,
        dir: At,
        name: &[u8],
        text: Bytes,
        set: &StoreStatus,
        caller: &Caller,
        now: u32,
    ) -> Result<(At, Vec<Broken>), Refusal> {
        let is_mount_point = set.mask & StoreStatus::SET_MODE != 0 && set.unix_mode_bits & 0o111 == 0;
        if is_mount_point {
            self.may_change(dir, caller)?.demand(Rights::ADMINISTER)?;
        }
        if text.contains(&0) {
            return Err(Errno::INVAL.into());
        }
        self.make(dir, name, Content::Symlink(text), set, caller, now)
    }

    /// Makes a directory, with the list of the one it is in.
    pub(crate) fn make_dir(
        &mut self,
        dir: At,
        name: &[u8],
        set: &StoreStatus,
        caller: &Caller,
        now: u32,
    ) -> Result<(At, Vec<Broken>), Refusal> {
        let acl = match &self.vnode(dir)?.content {
            Content::Directory { acl, .. } => acl.clone(),
            _ => return Err(Errno::NOTDIR.into()),
        };
        let content = Content::Directory {
            names: Directory::new(dir, dir),
            acl,
        };
        self.make(dir, name, content, set, caller, now)
    }

    fn make(
        &mut self,
        dir: At,
        name: &[u8],
        content: Content,
        set: &StoreStatus,
        caller: &Caller,
        now: u32,
    ) -> Result<(At, Vec<Broken>), Refusal> {
        self.may_change(dir, caller)?.demand(Rights::INSERT)?;
        check_name(name)?;
        if self.names(dir)?.lookup(name).is_some() {
            return Err(Errno::EXIST.into());
        }
        self.check_room(1)?;
        let is_directory = matches!(content, Content::Directory { .. });
        let group = self.vnode(dir)?.group;
        let has = |bit| set.mask & bit != 0;
        let make = |at: At| Vnode {
            unique: at.1,
            content: match content {
                Content::Directory { acl, .. } => Content::Directory {
                    names: Directory::new(at, dir),
                    acl,
                },
                content => content,
            },
            links: if is_directory { 2 } else { 1 },
            version: DataVersion(0),
            author: caller.id,
            owner: caller.id,
            group: if has(StoreStatus::SET_GROUP) {
                set.group
            } else {
                group
            },
            mode: if has(StoreStatus::SET_MODE) {
                set.unix_mode_bits & 0o7777
            } else {
                0o777
            },
            modified: if has(StoreStatus::SET_MTIME) {
                set.client_mod_time
            } else {
                now
            },
            changed: now,
            parent: dir,
            lock: Lock::default(),
        };
        // The directory may be full: that shows before anything is done.
        let mut names = self.names(dir)?.clone();
        names.create(name, VnodeId(0), dir.1)?;
        let at = self.add(make, is_directory);
        names.retarget(name, at.0, at.1)?;
        self.put_names(dir, names, caller, now)?;
        if is_directory {
            self.vnode_mut(dir)?.links += 1;
        }
        Ok((at, vec![Broken::others(dir)]))
    }

    /// Gives a file of the directory another name in it.
    pub(crate) fn link(
        &mut self,
        dir: At,
        name: &[u8],
        file: At,
        caller: &Caller,
        now: u32,
    ) -> Result<Vec<Broken>, Refusal> {
        self.may_change(dir, caller)?.demand(Rights::INSERT)?;
        check_name(name)?;
        let vnode = self.vnode(file)?;
        if !matches!(vnode.content, Content::File(_)) {
            return Err(Errno::ISDIR.into());
        }
        if vnode.parent != dir {
            return Err(Errno::XDEV.into());
        }
        let mut names = self.names(dir)?.clone();
        names.create(name, file.0, file.1)?;
        self.put_names(dir, names, caller, now)?;
        let vnode = self.vnode_mut(file)?;
        vnode.links += 1;
        vnode.changed = now;
        Ok(vec![Broken::others(file), Broken::others(dir)])
    }

    /// Removes a name that is not a directory's.
    pub(crate) fn remove_file(
        &mut self,
        dir: At,
        name: &[u8],
        caller: &Caller,
        now: u32,
    ) -> Result<Vec<Broken>, Refusal> {
        let file = self.doomed(dir, name, caller)?;
        if self.vnode(file)?.is_directory() {
            return Err(Errno::ISDIR.into());
        }
        let mut names = self.names(dir)?.clone();
        names.remove(name)?;
        self.put_names(dir, names, caller, now)?;
        let mut broken = vec![Broken::others(dir)];
        broken.extend(self.unlink(file, now)?);
        Ok(broken)
    }

    /// Removes an empty directory.
    pub(crate) fn remove_dir(
        &mut self,
        dir: At,
        name: &[u8],
        caller: &Caller,
        now: u32,
    ) -> Result<Vec<Broken>, Refusal> {
        let removed = self.doomed(dir, name, caller)?;
        if !self.names(removed)?.is_empty() {
            return Err(Errno::EXIST.into());
        }
        let mut names = self.names(dir)?.clone();
        names.remove(name)?;
        self.put_names(dir, names, caller, now)?;
        self.discard(removed);
        self.vnode_mut(dir)?.links -= 1;
        Ok(vec![Broken::others(dir)])
    }

    /// What a name stands for, if the caller may remove it.
    fn doomed(&self, dir: At, name: &[u8], caller: &Caller) -> Result<At, Refusal> {
        self.may_change(dir, caller)?.demand(Rights::DELETE)?;
        check_own_name(name)?;
        self.names(dir)?.lookup(name).ok_or(Refusal::Errno(Errno::NOENT))
    }

    /// Renames within the volume; replaces what has the new name.
    pub(crate) fn rename(
        &mut self,
        from_dir: At,
        from: &[u8],
        to_dir: At,
        to: &[u8],
        caller: &Caller,
        now: u32,
    ) -> Result<Vec<Broken>, Refusal> {
        self.may_change(from_dir, caller)?.demand(Rights::DELETE)?;
        let at_target = self.may_change(to_dir, caller)?;
        at_target.demand(Rights::INSERT)?;
        check_own_name(from)?;
        check_own_name(to)?;
        check_name(to)?;
        let moved = self.names(from_dir)?.lookup(from).ok_or(Errno::NOENT)?;
        let replaced = self.names(to_dir)?.lookup(to);
        let across = from_dir != to_dir;
        let vnode = self.vnode(moved)?;
        let is_directory = vnode.is_directory();
        if !is_directory && vnode.links != 1 && across {
            return Err(Errno::XDEV.into());
        }
        if let Some(replaced) = replaced {
            self.check_replaceable(moved, replaced)?;
            at_target.demand(Rights::DELETE)?;
        }
        if is_directory && self.is_below(to_dir, moved)? {
            return Err(Refusal::Code(UAE_MSGSIZE));
        }

        if across {
            let (mut source, mut target) = (self.names(from_dir)?.clone(), self.names(to_dir)?.clone());
            if replaced.is_some() {
                target.remove(to)?;
            }
            target.create(to, moved.0, moved.1)?;
            source.remove(from)?;
            self.put_names(from_dir, source, caller, now)?;
            self.put_names(to_dir, target, caller, now)?;
        } else {
            let mut names = self.names(from_dir)?.clone();
            names.rename(from, to)?;
            self.put_names(from_dir, names, caller, now)?;
        }
        let mut broken = vec![Broken::others(from_dir)];
        if across {
            broken.push(Broken::others(to_dir));
        }
        let vnode = self.vnode_mut(moved)?;
        vnode.parent = to_dir;
        vnode.changed = now;
        if is_directory && across {
            let mut names = self.names(moved)?.clone();
            names.retarget(b"..", to_dir.0, to_dir.1)?;
            self.put_names(moved, names, caller, now)?;
            self.vnode_mut(from_dir)?.links -= 1;
            self.vnode_mut(to_dir)?.links += 1;
            broken.push(Broken::all(moved));
        }
        match replaced {
            Some(replaced) if is_directory => {
                self.discard(replaced);
                self.vnode_mut(to_dir)?.links -= 1;
            }
            Some(replaced) => broken.extend(self.unlink(replaced, now)?),
            None => {}
        }
        Ok(broken)
    }

    fn check_replaceable(&self, moved: At, replaced: At) -> Result<(), Refusal> {
        if moved == replaced {
            return Err(Errno::INVAL.into());
        }
        let old = self.vnode(replaced)?;
        match (self.vnode(moved)?.is_directory(), old.is_directory()) {
            (false, true) => Err(Errno::ISDIR.into()),
            (true, false) => Err(Errno::NOTDIR.into()),
            (true, true) if !self.names(replaced)?.is_empty() => Err(Errno::EXIST.into()),
            _ => Ok(()),
        }
    }

    /// Is `dir` the directory `top`, or somewhere below it?
    fn is_below(&self, dir: At, top: At) -> Result<bool, Refusal> {
        let mut here = dir;
        loop {
            if here == top {
                return Ok(true);
            }
            let above = self.vnode(here)?.parent;
            if above == here {
                return Ok(false);
            }
            here = above;
        }
    }

    /// Takes a link away, and the file with the last one.
    fn unlink(&mut self, file: At, now: u32) -> Result<Option<Broken>, Refusal> {
        let vnode = self.vnode_mut(file)?;
        vnode.links -= 1;
        vnode.changed = now;
        if vnode.links == 0 {
            self.discard(file);
            return Ok(None);
        }
        Ok(Some(Broken::all(file)))
    }

    /// The caller's rights on a directory in a volume that can be written.
    fn may_change(&self, dir: At, caller: &Caller) -> Result<Rights, Refusal> {
        let vnode = self.vnode(dir)?;
        if !vnode.is_directory() {
            return Err(Errno::NOTDIR.into());
        }
        self.check_writable()?;
        self.rights(vnode, caller)
    }

    /// The names of a directory.
    pub(crate) fn names(&self, dir: At) -> Result<&Directory, Refusal> {
        match &self.vnode(dir)?.content {
            Content::Directory { names, .. } => Ok(names),
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    /// Gives a directory other names: one change of its data.
    fn put_names(&mut self, dir: At, new: Directory, caller: &Caller, now: u32) -> Result<(), Refusal> {
        let vnode = self.vnode_mut(dir)?;
        let Content::Directory { names, .. } = &mut vnode.content else {
            return Err(Errno::NOTDIR.into());
        };
        let (before, after) = (names.blob().len() as u64, new.blob().len() as u64);
        *names = new;
        vnode.touch(caller, now);
        self.recount(blocks(before), blocks(after));
        Ok(())
    }
}

/// Can a new object have this name?
fn check_name(name: &[u8]) -> Result<(), Refusal> {
    if name.is_empty() || name.contains(&b'/') || name.ends_with(b"@sys") {
        return Err(Errno::INVAL.into());
    }
    Ok(())
}

/// The names of the directory itself and of its parent stay.
fn check_own_name(name: &[u8]) -> Result<(), Refusal> {
    if matches!(name, b"" | b"." | b"..") {
        return Err(Errno::INVAL.into());
    }
    Ok(())
}

/// What the translation makes of the number for "into its own subtree".
const UAE_MSGSIZE: i32 = 49_733_464;
