//! Objects: attributes, link texts, extended attributes, space.

use std::time::Duration;

use afs_client::fs::{Access, Attr, SetAttr};
use bytes::Bytes;
use fuser::{AccessFlags, Errno, INodeNo, ReplyAttr, ReplyData, ReplyEmpty, ReplyStatfs, ReplyXattr};

use super::reply::{Asked, errno_of};
use super::shared::Shared;
use super::{Adapter, Limit, convert};

impl Shared {
    /// Tells attributes and for how long they stand.
    fn answer_attributes(&self, asked: Asked<ReplyAttr>, node: INodeNo, (attr, promise): (Attr, Duration)) {
        let attr = self.attributes(node.0, &attr);
        asked.ok(|reply| reply.attr(&convert::lifetime(promise), &attr));
    }
}

impl Adapter {
    pub(super) fn do_getattr(&self, asked: Asked<ReplyAttr>, node: INodeNo) {
        let Some((fid, asked)) = self.object(node, asked) else {
            return;
        };
        match asked.fs().getattr_cached(fid) {
            Some(Ok(found)) => self.shared.answer_attributes(asked, node, found),
            Some(Err(error)) => asked.fail(errno_of(&error)),
            None => {
                let fs = asked.fs().clone();
                let work = async move { fs.getattr(fid).await };
                self.shared
                    .wait(Limit::Deadline, asked, work, move |shared, asked, found| {
                        shared.answer_attributes(asked, node, found);
                    });
            }
        }
    }

    pub(super) fn do_setattr(&self, asked: Asked<ReplyAttr>, node: INodeNo, set: SetAttr) {
        if set == SetAttr::default() {
            // Only times that AFS does not keep.
            return self.do_getattr(asked, node);
        }
        let Some((fid, asked)) = self.object(node, asked) else {
            return;
        };
        let fs = asked.fs().clone();
        let work = async move { fs.setattr(fid, set).await };
        self.shared
            .wait(Limit::Deadline, asked, work, move |shared, asked, found| {
                shared.answer_attributes(asked, node, found);
            });
    }

    pub(super) fn do_readlink(&self, asked: Asked<ReplyData>, node: INodeNo) {
        let Some((fid, asked)) = self.object(node, asked) else {
            return;
        };
        let fs = asked.fs().clone();
        let work = async move { fs.readlink(fid).await };
        self.shared
            .wait(Limit::Deadline, asked, work, |_, asked, text: Bytes| {
                asked.ok(|reply| reply.data(&text));
            });
    }

    pub(super) fn do_access(&self, asked: Asked<ReplyEmpty>, node: INodeNo, mask: AccessFlags) {
        let Some((fid, asked)) = self.object(node, asked) else {
            return;
        };
        let access = convert::access(mask);
        if access == Access::default() {
            return asked.ok(ReplyEmpty::ok);
        }
        let fs = asked.fs().clone();
        let work = async move { fs.access(fid, access).await };
        self.shared.wait(Limit::Deadline, asked, work, |_, asked, ()| {
            asked.ok(ReplyEmpty::ok)
        });
    }

    pub(super) fn do_getxattr(&self, asked: Asked<ReplyXattr>, node: INodeNo, name: &[u8], size: u32) {
        if !name.starts_with(b"afs.") {
            // The kernel asks for security.capability before writes, `ls -l` for security.selinux: at once, and so that it does
            // not ask for that of each file.
            return asked.fail(Errno::EOPNOTSUPP);
        }
        let Some((fid, asked)) = self.object(node, asked) else {
            return;
        };
        let (fs, name) = (asked.fs().clone(), name.to_vec());
        let work = async move { fs.getxattr(fid, &name).await };
        self.shared.wait(
            Limit::Deadline,
            asked,
            work,
            move |_, asked, value: Bytes| match u32::try_from(value.len()) {
                Ok(len) if size == 0 => asked.ok(|reply| reply.size(len)),
                Ok(len) if len <= size => asked.ok(|reply| reply.data(&value)),
                _ => asked.fail(Errno::ERANGE),
            },
        );
    }

    pub(super) fn do_setxattr(
        &self,
        asked: Asked<ReplyEmpty>,
        node: INodeNo,
        name: &[u8],
        value: &[u8],
        flags: i32,
    ) {
        if !name.starts_with(b"afs.") {
            return asked.fail(Errno::EOPNOTSUPP);
        }
        if flags & libc::XATTR_CREATE != 0 {
            // Those of ours are always there; the errno is that of the Linux kernel's own client.
            return asked.fail(Errno::EINVAL);
        }
        let Some((fid, asked)) = self.object(node, asked) else {
            return;
        };
        let (fs, name, value) = (asked.fs().clone(), name.to_vec(), value.to_vec());
        let work = async move { fs.setxattr(fid, &name, &value).await };
        self.shared.wait(Limit::Deadline, asked, work, |_, asked, ()| {
            asked.ok(ReplyEmpty::ok)
        });
    }

    pub(super) fn do_statfs(&self, asked: Asked<ReplyStatfs>, node: INodeNo) {
        let Some((fid, asked)) = self.object(node, asked) else {
            return;
        };
        let fs = asked.fs().clone();
        let work = async move { fs.statfs(fid).await };
        self.shared.wait(Limit::Deadline, asked, work, |_, asked, space| {
            asked.ok(|reply| {
                // The servers do not count files.
                let files = 0;
                reply.statfs(
                    space.blocks,
                    space.free,
                    space.free,
                    files,
                    files,
                    space.block_size,
                    space.name_max,
                    space.block_size,
                );
            });
        });
    }
}
