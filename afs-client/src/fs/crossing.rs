//! Mount points: directories at first sight, crossed by who goes in.
//!
//! The machine: a mount point is known by its own FID, a cell in the directory of cells by one that its name makes, before it
//! is crossed and after; so its number never changes. Whatever has to do with the volume behind it (opening it, a name in it,
//! a change, rights, space, ACL) crosses it: the volume is found, and its root is what is worked on. Attributes alone are no
//! reason to: until somebody crosses it they are made up, and no server of the volume is asked. From then on they are those
//! of the root. If these are not known, and the servers do not tell them soon, they are made up again. What is made up has no
//! lifetime. A root knows the mount points that lead to it: of its changes the kernel hears by their FIDs.

use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tracing::Instrument as _;

use super::core::{Caller, Core};
use super::synthetic::{self, is_cell, is_synthetic};
use super::types::{Attr, Fakestat, Invalidation, Kind};
use crate::error::Error;
use crate::events::Cached;
use crate::mount_point::{MountKind, MountTarget};
use crate::types::Fid;
use crate::vnode::Vnode;
use crate::vnode::status::Status;
use crate::volume::{Parent, Volume};

/// A mount point or a cell as it is before it is crossed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    /// Its attributes then, which are made up.
    made_up: Attr,
    /// They will do until somebody crosses it.
    is_faked: bool,
}

impl Core {
    /// Where a mount point or a cell led when it was crossed last.
    fn last_root(&self, point: Fid) -> Option<Fid> {
        if is_cell(point) {
            return self.cell_roots.lock().get(&point).copied();
        }
        self.vnodes.peek(point)?.last_mounted()
    }

    /// The kernel forgot an object: if that was a mount point, its root is not known by it any more.
    pub(super) fn forget_point(&self, point: Fid) {
        self.leads_no_more(point, self.last_root(point));
    }

    /// A mount point that led to this root, if to any, is not known any more.
    pub(super) fn leads_no_more(&self, point: Fid, root: Option<Fid>) {
        if let Some(root) = root.and_then(|root| self.vnodes.peek(root)) {
            root.not_led_to(point);
        }
    }

    /// The root that a mount point leads to, which learns that the kernel may know it by that.
    fn root_by(&self, point: Fid, root: Fid) -> Result<Arc<Vnode>, Error> {
        let root = self.vnode(root)?;
        root.led_to(point);
        Ok(root)
    }

    /// We changed an object: the kernel has seen that by the name by which it was done.
    pub(super) fn show_by_all(&self, vnode: &Vnode) {
        if vnode.is_known_twice() {
            self.invalidate(Invalidation::Node(vnode.fid));
        }
    }

    /// Where an object leads, if it is a mount point; `None` if that is not known.
    pub(super) fn target_cached(&self, point: &Vnode, status: &Status) -> Option<Option<MountTarget>> {
        if !status.may_be_mount_point() {
            return Some(None);
        }
        point.link(status.version).map(|text| target(&text))
    }
}

impl Caller {
    /// Where an object leads, if it is a mount point.
    pub(super) async fn target(
        &self,
        point: &Arc<Vnode>,
        status: &Status,
    ) -> Result<Option<MountTarget>, Error> {
        match self.target_cached(point, status) {
            Some(known) => Ok(known),
            None => Ok(target(&self.link_text(point, status).await?)),
        }
    }

    /// A mount point with this status, before it is crossed.
    pub(super) fn sight(&self, point: &Vnode, status: &Status, target: &MountTarget) -> Sight {
        let here = &point.volume.cell.name;
        Sight {
            made_up: made_up(point.fid, status),
            is_faked: match self.fakestat {
                Fakestat::All => true,
                Fakestat::Cells => target.cell.as_ref().is_some_and(|cell| cell != here),
                Fakestat::Off => false,
            },
        }
    }

    /// A cell in the directory of cells, before it is crossed.
    pub(super) fn sight_of_cell(&self, cell: Fid) -> Sight {
        Sight {
            made_up: self.synthetic(cell),
            is_faked: self.fakestat != Fakestat::Off,
        }
    }

    /// What an operation on an object works on: the root that it leads to, or itself if it is no mount point. `None`: it was
    /// not crossed, or is not known.
    pub(super) fn crossed_cached(&self, fid: Fid) -> Option<Fid> {
        let root = if is_cell(fid) {
            self.cell_roots.lock().get(&fid).copied()?
        } else if fid.vnode.is_directory() {
            return Some(fid);
        } else {
            let point = self.vnodes.peek(fid)?;
            let status = point.status()?;
            match (
                point.mounted(status.version),
                self.target_cached(&point, &status)?,
            ) {
                (Some(root), Some(_)) => root,
                (None, Some(_)) => return None,
                (_, None) => return Some(fid),
            }
        };
        Some(self.root_by(fid, root).ok()?.fid)
    }

    /// The same, and crosses it.
    pub(super) async fn crossed(&self, fid: Fid) -> Result<Fid, Error> {
        if let Some(known) = self.crossed_cached(fid) {
            return Ok(known);
        }
        let root = if is_synthetic(fid) {
            self.cross_cell(fid).await?
        } else {
            let point = self.vnode(fid)?;
            let (status, _) = self.status(&point).await?;
            match self.target(&point, &status).await? {
                Some(target) => self.cross(&point, &status, &target).await?,
                None => return Ok(fid),
            }
        };
        self.counts.misses.count(Cached::MountPoint);
        Ok(self.root_by(fid, root.fid)?.fid)
    }

    async fn cross(&self, point: &Vnode, status: &Status, target: &MountTarget) -> Result<Arc<Vnode>, Error> {
        let here = &point.volume;
        let (cell, parent) = match &target.cell {
            Some(name) if *name != here.cell.name => {
                (self.cells.resolve(name).await?, Parent::OtherCell(here.kind))
            }
            _ => (Arc::clone(&here.cell), Parent::SameCell(here.kind)),
        };
        let volume = self.volumes.enter(&cell, target, parent, self.until()).await?;
        let root = self.root_of(&volume, target);
        point.set_mounted(status.version, root.fid);
        Ok(root)
    }

    /// Crosses into the home cell, and asks for the status of its root.
    pub(super) async fn enter_home(&self) -> Result<(), Error> {
        let home = synthetic::cell(self.cells.home(), MountKind::Normal);
        self.clone().attr_of_root(home).await.map(drop)
    }

    async fn cross_cell(&self, cell: Fid) -> Result<Arc<Vnode>, Error> {
        let names = self.cells.known().into_iter().map(|cell| cell.name.clone());
        let kinds = [MountKind::Normal, MountKind::ForceReadWrite];
        let (name, kind) = names
            .chain(self.cells.names())
            .flat_map(|name| kinds.map(|kind| (name.clone(), kind)))
            .find(|(name, kind)| synthetic::cell(name, *kind) == cell)
            .ok_or(Errno::STALE)?;
        let target = MountTarget {
            kind,
            cell: None,
            volume: ROOT_CELL.to_owned(),
            root: None,
        };
        let found = self.cells.resolve(&name).await?;
        let volume = self
            .volumes
            .enter(&found, &target, Parent::Root, self.until())
            .await?;
        let root = self.root_of(&volume, &target);
        self.cell_roots.lock().insert(cell, root.fid);
        Ok(root)
    }

    pub(super) fn root_of(&self, volume: &Arc<Volume>, target: &MountTarget) -> Arc<Vnode> {
        let root = match target.root {
            Some((vnode, unique)) => volume.root().sibling(vnode, unique),
            None => volume.root(),
        };
        self.vnode_in(root, volume)
    }

    /// The attributes of a mount point or a cell, and how long they stand, without waiting.
    pub(super) fn attr_of_point_cached(&self, sight: Sight) -> Option<(Attr, Duration)> {
        let point = sight.made_up.fid;
        let Some(root) = self.crossed_cached(point) else {
            return sight.is_faked.then_some((sight.made_up, Duration::ZERO));
        };
        let root = self.vnodes.get(root)?;
        let (status, ttl) = self.valid(&root)?;
        if status.may_search().is_err() {
            return None;
        }
        self.counts.hits.count(Cached::MountPoint);
        Some((attr_by(point, &root, &status), self.kept(&status, ttl)))
    }

    /// The same. If it is faked that never fails, and never takes long.
    pub(super) async fn attr_of_point(&self, sight: Sight) -> Result<(Attr, Duration), Error> {
        if let Some(known) = self.attr_of_point_cached(sight) {
            return Ok(known);
        }
        let asked = self.clone().attr_of_root(sight.made_up.fid);
        if !sight.is_faked {
            return asked.await;
        }
        // It goes on when nobody waits any more: so it is found out that a server is down, and for the next one told at once.
        let asking = self.runtime.spawn(asked.in_current_span());
        match tokio::time::timeout(GLANCE, asking).await {
            Ok(Ok(Ok(found))) => Ok(found),
            _ => Ok((sight.made_up, Duration::ZERO)),
        }
    }

    async fn attr_of_root(self, point: Fid) -> Result<(Attr, Duration), Error> {
        let root = self.vnode(self.crossed(point).await?)?;
        let (status, ttl) = self.status(&root).await?;
        self.may_see(&root, &status).await?;
        Ok((attr_by(point, &root, &status), self.kept(&status, ttl)))
    }
}

/// What the text of a link says, if that makes it a mount point: it leads to a directory.
fn target(text: &[u8]) -> Option<MountTarget> {
    let target = MountTarget::parse(text).ok()?;
    target
        .root
        .is_none_or(|(vnode, _)| vnode.is_directory())
        .then_some(target)
}

/// The attributes of a root by a mount point.
fn attr_by(point: Fid, root: &Vnode, status: &Status) -> Attr {
    Attr {
        fid: point,
        ..Core::attr(root, status)
    }
}

/// What a mount point with this status looks like before it is crossed.
pub(super) fn made_up(point: Fid, status: &Status) -> Attr {
    Attr {
        kind: Kind::Directory,
        size: 2048,
        mode: 0o755,
        nlink: 2,
        ..status.attr(point)
    }
}

const ROOT_CELL: &str = "root.cell";
/// How long somebody who only wants to see what there is waits for a server that may be down.
const GLANCE: Duration = Duration::from_secs(1);
