//! What the kernel can be told without being asked.
#![expect(clippy::host_endian_bytes, reason = "the kernel on this machine reads it")]

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

use rustix::io::Errno;

/// What the kernel can be told. `NotFound`: it does not have that.
pub trait Kernel: Send + 'static {
    /// Forget attributes and cached contents.
    fn forget_inode(&self, id: u64) -> io::Result<()>;
    /// Ask again before using the name.
    fn doubt_entry(&self, directory: u64, name: &[u8]) -> io::Result<()>;
}

/// The kernel behind a session. It writes its own messages: those of fuser cannot mark a name as doubtful, and do not say
/// when an inode was not found.
pub struct Device {
    /// A duplicate of the session's descriptor.
    device: OwnedFd,
    entry_flags: u32,
}

impl Device {
    /// With `expire` names are marked as doubtful and keep their place in the kernel's tree; without it (before Linux 6.2)
    /// they are dropped from it, which a process whose working directory is dropped would notice in `getcwd`.
    pub fn new(device: OwnedFd, expire: bool) -> Self {
        Self {
            device,
            entry_flags: if expire { EXPIRE_ONLY } else { 0 },
        }
    }

    fn write(&self, head: &[u8], name: &[u8]) -> io::Result<()> {
        rustix::io::writev(&self.device, &[IoSlice::new(head), IoSlice::new(name)])?;
        Ok(())
    }
}

impl Kernel for Device {
    fn forget_inode(&self, id: u64) -> io::Result<()> {
        self.write(&forget_inode(id), b"")
    }

    fn doubt_entry(&self, directory: u64, name: &[u8]) -> io::Result<()> {
        let head = doubt_entry(directory, name, self.entry_flags)?;
        self.write(&head, &[name, b"\0"].concat())
    }
}

/// FUSE_NOTIFY_INVAL_INODE for attributes and all contents.
fn forget_inode(id: u64) -> Vec<u8> {
    let mut message = notification(NOTIFY_INVAL_INODE, 40);
    message.extend_from_slice(&id.to_ne_bytes());
    // Offset and length.
    message.extend_from_slice(&[0; 16]);
    message
}

/// The head of FUSE_NOTIFY_INVAL_ENTRY; the name and a zero byte follow.
fn doubt_entry(directory: u64, name: &[u8], flags: u32) -> io::Result<Vec<u8>> {
    let too_long = |_| io::Error::from(Errno::NAMETOOLONG);
    let name_len = u32::try_from(name.len()).map_err(too_long)?;
    let whole = u32::try_from(name.len() + 33).map_err(too_long)?;
    let mut message = notification(NOTIFY_INVAL_ENTRY, whole);
    message.extend_from_slice(&directory.to_ne_bytes());
    message.extend_from_slice(&name_len.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    Ok(message)
}

/// The header of a message that answers no request.
fn notification(code: i32, len: u32) -> Vec<u8> {
    let mut message = Vec::with_capacity(40);
    message.extend_from_slice(&len.to_ne_bytes());
    message.extend_from_slice(&code.to_ne_bytes());
    message.extend_from_slice(&0_u64.to_ne_bytes());
    message
}

const NOTIFY_INVAL_INODE: i32 = 2;
const NOTIFY_INVAL_ENTRY: i32 = 3;
const EXPIRE_ONLY: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_are_as_the_kernel_reads_them() {
        let head = doubt_entry(0x0102_0304_0506_0708, b"abc", EXPIRE_ONLY).unwrap();
        assert_eq!(
            (head.len(), head[0], head[4]),
            (32, 36, 3),
            "32 + name + zero byte"
        );
        assert_eq!((head[24], head[28]), (3, 1));
        let whole = forget_inode(7);
        assert_eq!((whole.len(), whole[0], whole[4], whole[16]), (40, 40, 2, 7));
    }
}
