//! Extended attributes: what AFS knows of an object beyond POSIX, by the names that the Linux kernel's own client gave it.

use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;

use super::core::Caller;
use super::synthetic::is_synthetic;
use super::types::{Invalidation, Kind};
use crate::error::Error;
use crate::op::Class;
use crate::rpc::fs::{FetchAcl, StoreAcl};
use crate::rpc::types::{ACL_MAX, AclText};
use crate::types::Fid;

impl Caller {
    pub(crate) async fn xattr(&self, fid: Fid, name: &[u8]) -> Result<Bytes, Error> {
        if is_synthetic(fid) {
            return Err(Errno::NODATA.into());
        }
        let vnode = self.vnode(fid)?;
        let volume = Arc::clone(&vnode.volume);
        let text = match name {
            b"afs.acl" => {
                // The server knows who may see it; it is asked each time.
                let request = FetchAcl { fid: fid.into() };
                let (reply, _) = self
                    .procedure(&vnode, Class::Reading, &request, self.until())
                    .await?;
                return Ok(reply.acl.0);
            }
            b"afs.cell" => volume.cell.name.to_string(),
            b"afs.fid" => format!("{:x}:{:x}:{:x}", fid.volume.0, fid.vnode.0, fid.unique.0),
            b"afs.volume" => volume.name.clone(),
            _ => return Err(Errno::NODATA.into()),
        };
        Ok(text.into())
    }

    pub(crate) async fn set_xattr(&self, fid: Fid, name: &[u8], value: &[u8]) -> Result<(), Error> {
        match name {
            b"afs.acl" => self.set_acl(fid, value).await,
            b"afs.cell" | b"afs.fid" | b"afs.volume" => Err(Errno::PERM.into()),
            _ => Err(Errno::OPNOTSUPP.into()),
        }
    }

    async fn set_acl(&self, fid: Fid, text: &[u8]) -> Result<(), Error> {
        if is_synthetic(fid) {
            return Err(Errno::ROFS.into());
        }
        let vnode = self.vnode(fid)?;
        self.writable(&vnode)?;
        if self.status(&vnode).await?.0.kind != Kind::Directory {
            return Err(Errno::NOTDIR.into());
        }
        let mut text = text.to_vec();
        // On the wire it is closed by a NUL (afs-dir.md 2.1).
        if text.last() != Some(&0) {
            text.push(0);
        }
        if text.len() > ACL_MAX as usize {
            return Err(Errno::INVAL.into());
        }
        let request = StoreAcl {
            fid: fid.into(),
            acl: AclText::from(&text[..]),
        };
        self.procedure(&vnode, Class::Idempotent, &request, self.until())
            .await?;
        // The server breaks the promises of others only; the rights of everybody here are others now.
        vnode.breaks.bump();
        self.invalidate(Invalidation::Node(fid));
        Ok(())
    }
}
