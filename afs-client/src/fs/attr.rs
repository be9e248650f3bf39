//! Attributes, access, space.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::io::Errno;

use super::Access;
use super::core::{Caller, Core};
use super::data::{ROUNDS, check_length};
use super::synthetic::{FOREVER, is_cell, is_synthetic, target};
use super::types::{Attr, HandleId, Kind, OpenFlags, SetAttr, StatFs};
use crate::error::Error;
use crate::events::Cached;
use crate::op::Class;
use crate::rpc::fs::{GetVolumeStatus, StoreStatusOf};
use crate::rpc::types::StoreStatus;
use crate::types::Fid;
use crate::vnode::Vnode;
use crate::vnode::status::{DELETE, INSERT, LOOKUP, Status, to_seconds};

impl Caller {
    pub(crate) fn getattr_cached(&self, fid: Fid) -> Option<Result<(Attr, Duration), Error>> {
        if is_cell(fid) {
            return self.attr_of_point_cached(self.sight_of_cell(fid)).map(Ok);
        }
        if is_synthetic(fid) {
            return Some(Ok((self.synthetic(fid), FOREVER)));
        }
        let vnode = self.vnodes.get(fid)?;
        let (status, ttl) = self.valid(&vnode)?;
        if status.kind == Kind::Directory && status.may_search().is_err() {
            return None;
        }
        if let Some(target) = self.target_cached(&vnode, &status)? {
            let sight = self.sight(&vnode, &status, &target);
            return self.attr_of_point_cached(sight).map(Ok);
        }
        self.counts.hits.count(Cached::Status);
        Some(Ok((Core::attr(&vnode, &status), self.kept(&status, ttl))))
    }

    pub(crate) async fn getattr(&self, fid: Fid) -> Result<(Attr, Duration), Error> {
        if is_cell(fid) {
            return self.attr_of_point(self.sight_of_cell(fid)).await;
        }
        if is_synthetic(fid) {
            return Ok((self.synthetic(fid), FOREVER));
        }
        let vnode = self.vnode(fid)?;
        let (status, ttl) = self.status(&vnode).await?;
        if let Some(target) = self.target(&vnode, &status).await? {
            return self.attr_of_point(self.sight(&vnode, &status, &target)).await;
        }
        self.may_see(&vnode, &status).await?;
        Ok((Core::attr(&vnode, &status), self.kept(&status, ttl)))
    }

    pub(crate) async fn setattr(&self, fid: Fid, set: SetAttr) -> Result<(Attr, Duration), Error> {
        if is_synthetic(fid) {
            return Err(Errno::ROFS.into());
        }
        let vnode = self.vnode(fid)?;
        self.writable(&vnode)?;
        if let Some(size) = set.size {
            if !set.is_open {
                let cuts = OpenFlags {
                    truncate: true,
                    ..OpenFlags::default()
                };
                self.status(&vnode).await?.0.may_open(cuts)?;
            }
            self.truncate(&vnode, size).await?;
        }
        let status = store_status(&set);
        if status.mask != 0 {
            let goes_with_data = vnode.is_unstored_of(self.who)
                && (self.sets_behind(&vnode, status) || self.store_with(&vnode, status).await?);
            if !goes_with_data {
                // A later store would set the modification time again.
                self.store(&vnode, false).await?;
                self.set_status(&vnode, status).await?;
            }
        }
        self.getattr(fid).await
    }

    /// Notes attributes to go with what is not stored yet, and waits for nobody. False if the server is to be asked: what it
    /// may refuse though it takes the data, or whether the caller may set them at all.
    fn sets_behind(&self, vnode: &Vnode, status: StoreStatus) -> bool {
        let disputable = StoreStatus::SET_OWNER | StoreStatus::SET_GROUP;
        let is_sure = !status.has(disputable) && status.unix_mode_bits & !0o777 == 0;
        let may_set =
            |(known, _): (Status, Duration)| known.kind == Kind::File && known.is_settable_with(known.access);
        is_sure
            && self.stores_behind(vnode)
            && self.valid(vnode).is_some_and(may_set)
            && vnode.set_status_as(self.who, status)
    }

    /// Has the server set attributes.
    pub(super) async fn set_status(&self, vnode: &Vnode, status: StoreStatus) -> Result<(), Error> {
        let request = StoreStatusOf {
            fid: vnode.fid.into(),
            status,
        };
        let (reply, noted) = self
            .procedure(vnode, Class::Idempotent, &request, self.until())
            .await?;
        self.learn(vnode, &reply.status, None, &noted)?;
        self.show_by_all(vnode);
        Ok(())
    }

    /// Sets the length, here and on the server.
    async fn truncate(&self, vnode: &Arc<Vnode>, size: u64) -> Result<(), Error> {
        let (status, _) = self.status(vnode).await?;
        match status.kind {
            Kind::File => {}
            Kind::Directory => return Err(Errno::ISDIR.into()),
            Kind::Symlink => return Err(Errno::INVAL.into()),
        }
        check_length(size)?;
        self.cut(vnode, size).await?;
        let stored = self.store(vnode, false).await;
        if stored.is_err() && vnode.opens.load(std::sync::atomic::Ordering::Acquire) == 0 {
            // The caller knows; nobody else wants it any more.
            vnode.data().discard();
        }
        stored
    }

    /// Has the file at least `end` bytes, on the server too, which counts them against the quota. If it refuses them, nothing
    /// has changed.
    pub(crate) async fn allocate(&self, id: HandleId, end: u64) -> Result<(), Error> {
        check_length(end)?;
        let handle = self.handle(id)?;
        let (vnode, writer) = (&handle.vnode, self.as_identity(handle.who));
        writer.status(vnode).await?;
        let before = vnode.data().len();
        if end <= before {
            return Ok(());
        }
        writer.cut(vnode, end).await?;
        let stored = writer.store(vnode, false).await;
        if stored.is_err() && vnode.data().len() == end {
            writer.cut(vnode, before).await?;
        }
        stored
    }

    /// Cuts or extends the data here.
    pub(crate) async fn cut(&self, vnode: &Arc<Vnode>, size: u64) -> Result<(), Error> {
        for _ in 0..ROUNDS {
            let storing = vnode.storing.lock().await;
            if self.change_data(vnode, |data| data.truncate(size)).is_some() {
                return Ok(());
            }
            drop(storing);
            self.store(vnode, false).await?;
        }
        // Somebody else writes it all the time.
        Err(Errno::AGAIN.into())
    }

    pub(crate) async fn access(&self, fid: Fid, access: Access) -> Result<(), Error> {
        if is_synthetic(fid) {
            return if access.write {
                Err(Errno::ROFS.into())
            } else {
                Ok(())
            };
        }
        let vnode = self.vnode(fid)?;
        if access.write {
            self.writable(&vnode)?;
        }
        let (status, _) = self.status(&vnode).await?;
        let has = |rights| status.access & rights != 0;
        let allowed = match status.kind {
            Kind::Directory => {
                (!(access.read || access.execute) || has(LOOKUP)) && (!access.write || has(INSERT | DELETE))
            }
            Kind::File => {
                let opened = OpenFlags {
                    read: access.read,
                    write: access.write,
                    ..OpenFlags::default()
                };
                let readable = status.is_readable_with(status.access);
                status.may_open(opened).is_ok()
                    && (!access.read || readable)
                    && (!access.write || status.is_writable_with(status.access))
                    && (!access.execute || (readable && status.mode & 0o111 != 0))
            }
            Kind::Symlink => status.is_readable_with(status.access),
        };
        if allowed {
            Ok(())
        } else {
            Err(Errno::ACCESS.into())
        }
    }

    pub(crate) async fn readlink(&self, fid: Fid) -> Result<Bytes, Error> {
        if is_synthetic(fid) {
            let text = target(fid, self.cells.home().as_str()).ok_or(Errno::INVAL)?;
            return Ok(text.into());
        }
        let vnode = self.vnode(fid)?;
        let (status, _) = self.status(&vnode).await?;
        if status.kind != Kind::Symlink {
            return Err(Errno::INVAL.into());
        }
        self.link_text(&vnode, &status).await
    }

    pub(crate) async fn statfs(&self, fid: Fid) -> Result<StatFs, Error> {
        let space = |blocks, free| StatFs {
            block_size: BLOCK,
            blocks,
            free,
            name_max: 255,
        };
        if is_synthetic(fid) {
            return Ok(space(0, 0));
        }
        let vnode = self.vnode(fid)?;
        let request = GetVolumeStatus { volume: fid.volume.0 };
        let (reply, _) = self
            .procedure(&vnode, Class::Reading, &request, self.until())
            .await?;
        let status = reply.status;
        let count = |blocks: i32| u64::try_from(blocks).unwrap_or(0);
        let on_partition = count(status.partition_available);
        if status.max_quota <= 0 {
            return Ok(space(count(status.partition_blocks), on_partition));
        }
        let quota = count(status.max_quota);
        Ok(space(
            quota,
            quota
                .saturating_sub(count(status.blocks_in_use))
                .min(on_partition),
        ))
    }
}

/// What servers are to set.
fn store_status(set: &SetAttr) -> StoreStatus {
    let bit = |bit, is_set| if is_set { bit } else { 0 };
    StoreStatus {
        mask: bit(StoreStatus::SET_MTIME, set.mtime.is_some())
            | bit(StoreStatus::SET_OWNER, set.uid.is_some())
            | bit(StoreStatus::SET_GROUP, set.gid.is_some())
            | bit(StoreStatus::SET_MODE, set.mode.is_some()),
        client_mod_time: set.mtime.map(to_seconds).unwrap_or_default(),
        owner: set.uid.unwrap_or_default(),
        group: set.gid.unwrap_or_default(),
        unix_mode_bits: u32::from(set.mode.unwrap_or_default() & 0o7777),
        segment_size: 0,
    }
}

/// Space is counted in KiB.
const BLOCK: u32 = 1024;
