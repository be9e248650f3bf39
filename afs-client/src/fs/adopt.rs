//! What is taken over from an earlier process that served the same mount: volumes, objects that the kernel holds, open
//! files. Nothing of it was asked of a file server yet: the first use of an object asks for its status, as ever.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::AfsFs;
use super::data::Handle;
use super::synthetic::is_synthetic;
use super::types::{HandleId, Invalidation, OpenFlags};
use crate::auth::tokens::Identity;
use crate::cell::CellName;
use crate::error::Error;
use crate::hidden::HiddenFile;
use crate::lock::LeftLocks;
use crate::types::{CellId, Fid, VolumeId};

impl AfsFs {
    /// The name of a cell that was entered.
    #[must_use]
    pub fn cell_name(&self, cell: CellId) -> Option<CellName> {
        self.0.cells.by_id(cell).map(|cell| cell.name.clone())
    }

    /// Whom this file system is seen as.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.0.who
    }

    /// Was something written to a file, or set, that no server has?
    #[must_use]
    pub fn is_dirty(&self, fid: Fid) -> bool {
        self.0.vnodes.peek(fid).is_some_and(|vnode| vnode.is_unstored())
    }

    /// Whatever the kernel keeps may be wrong: breaks may have been missed.
    pub fn doubt_everything(&self) {
        self.0.invalidate(Invalidation::All);
    }

    /// Enters a volume by its number, and gives the number that its cell has in this process.
    ///
    /// # Errors
    ///
    /// The cell is unknown, the volume is gone (`ENODEV`), or no location server answers.
    pub async fn enter_volume(&self, cell: &CellName, volume: VolumeId) -> Result<CellId, Error> {
        let core = &self.0;
        let cell = core.cells.resolve(cell).await?;
        core.volumes.enter_id(&cell, volume, core.until()).await?;
        Ok(cell.id)
    }

    /// Has a cache directory saved what an earlier process had written to a file and no server had?
    #[must_use]
    pub fn is_saved(&self, fid: Fid) -> bool {
        self.0
            .vnodes
            .peek(fid)
            .is_some_and(|vnode| vnode.data().is_saved())
    }

    /// The kernel holds an object of a volume that was entered.
    ///
    /// # Errors
    ///
    /// `ESTALE`: the volume was not entered.
    pub fn adopt(&self, fid: Fid) -> Result<(), Error> {
        if !is_synthetic(fid) {
            self.0.vnode(fid)?.retained.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// A file of a volume that was entered is open under this handle, by whoever this file system is seen as.
    ///
    /// # Errors
    ///
    /// `ESTALE`: the volume was not entered.
    pub fn adopt_handle(&self, id: HandleId, fid: Fid, flags: OpenFlags) -> Result<(), Error> {
        let core = &self.0;
        let vnode = core.vnode(fid)?;
        core.next_handle
            .fetch_max(id.0.saturating_add(1), Ordering::Relaxed);
        let handle = Handle::new(Arc::clone(&vnode), flags, core.who);
        let file = HiddenFile::new(&vnode.volume.cell.name, fid);
        if let Some(hiding) = core.hidden.find(&file) {
            let (dir, dir_unique) = hiding.dir;
            *vnode.doomed.lock() = Some((fid.sibling(dir, dir_unique), file.name()));
        }
        if core.handles.lock().insert(id, handle).is_none() {
            vnode.opens.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Has somebody told which files have hidden names because they were removed while they were open: all of them now, and
    /// from then on each that is hidden (`true`) or gone, before that is done or after. It must not block.
    pub fn witness_hidden(&self, witness: impl Fn(&str, bool) + Send + Sync + 'static) {
        self.0.hidden.witness(Box::new(witness));
    }

    /// An earlier process has hidden a file, as it has told in these words. To be called before handles are adopted.
    pub fn adopt_hidden(&self, words: &str) {
        self.0.hidden.adopt(words);
    }

    /// Has somebody told what is held on a file, at each change of it. It must not block.
    pub fn witness_locks(&self, witness: impl Fn(Fid, LeftLocks) + Send + Sync + 'static) {
        self.0.witness_locks(Box::new(witness));
    }

    /// An earlier process held locks on a file for programs that have it open still. To be called when their handles are
    /// adopted, and before anybody else asks for locks. Whether the server has kept them is asked soon; if not, they are lost
    /// as those that a server forgets.
    ///
    /// # Errors
    ///
    /// `ESTALE`: the volume was not entered.
    pub fn adopt_locks(&self, fid: Fid, left: LeftLocks) -> Result<(), Error> {
        let vnode = self.0.vnode(fid)?;
        self.0.adopt_locks(&vnode, left);
        Ok(())
    }

    /// The next process adopts the locks: they are not given back at the end.
    pub async fn leave_locks(&self) {
        self.0.leave_locks().await;
    }

    /// Handles that are given from now on are beyond this one, which an earlier process may have given.
    pub fn give_handles_after(&self, id: HandleId) {
        self.0
            .next_handle
            .fetch_max(id.0.saturating_add(1), Ordering::Relaxed);
    }
}
