//! How a session of fuser comes to serve a device whose first question may have been answered long ago.
//!
//! The machine: fuser always begins with FUSE_INIT. So it is seated on one end of a pair of sockets, and asked from the
//! other: by the kernel's own words, read from the device, or written down by the process that read them. Of a device that
//! was answered before, it is offered what was agreed on then, and must want all of it. Then the device takes the place of the
//! socket under the session.
//!
//! The place is descriptor 0: it is the one that may be exchanged under its owner, by whoever knows that its owner is there.
#![expect(clippy::host_endian_bytes, reason = "the kernel on this machine reads it")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::kept::Init;

/// Descriptor 0, empty.
#[derive(Debug)]
pub struct Seat(OwnedFd);

impl Seat {
    /// Takes what was the standard input away. To be called before there are threads.
    pub fn take() -> io::Result<Self> {
        nix::unistd::close(STDIN)?;
        let empty = OwnedFd::from(File::open("/dev/null")?);
        if empty.as_raw_fd() == STDIN {
            Ok(Self(empty))
        } else {
            Err(io::Error::other("descriptor 0 is taken by somebody else"))
        }
    }
}

/// Has `begin` make a session that serves `device` from then on. `first`: what was agreed on with the kernel before, if it
/// was. `agreed` is called with what is agreed on now, before the kernel can know it.
pub fn attach<S>(
    mut seat: Seat,
    device: BorrowedFd<'_>,
    first: Option<&Init>,
    begin: impl FnOnce(OwnedFd) -> io::Result<S>,
    agreed: impl FnOnce(Init),
) -> io::Result<S> {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::io::dup2(theirs, &mut seat.0)?;
    let request = match first {
        Some(init) => offer(&init.request, init.agreed)?,
        None => read(device)?,
    };
    rustix::io::write(&ours, &request)?;
    let session = begin(seat.0)?;
    let reply = read(ours.as_fd())?;
    let capabilities = capabilities(&reply, REPLY_FLAGS).ok_or(io::ErrorKind::InvalidData)?;
    match first {
        Some(init) if init.agreed & !capabilities & !UNUSED != 0 => {
            let lost = init.agreed & !capabilities & !UNUSED;
            return Err(io::Error::other(format!(
                "this version lacks capabilities {lost:#x} that were agreed on when it was mounted"
            )));
        }
        Some(_) => {}
        None => {
            let agreed_on = capabilities;
            agreed(Init {
                request,
                agreed: agreed_on,
            });
            rustix::io::write(device, &reply)?;
        }
    }
    rustix::stdio::dup2_stdin(device)?;
    Ok(session)
}

/// Has the kernel send again what it has sent and nobody has answered.
pub fn resend(device: BorrowedFd<'_>) -> io::Result<()> {
    let mut message = [0; OUT_HEADER];
    let (length, rest) = message.split_at_mut(4);
    let (code, _) = rest.split_at_mut(4);
    length.copy_from_slice(&16_u32.to_ne_bytes());
    code.copy_from_slice(&NOTIFY_RESEND.to_ne_bytes());
    rustix::io::write(device, &message)?;
    Ok(())
}

/// Can the kernel send again? (Since Linux 6.9.)
pub fn can_resend(init: &Init) -> bool {
    capabilities(&init.request, REQUEST_FLAGS).is_some_and(|offered| offered & HAS_RESEND != 0)
}

/// The kernel's question with no more capabilities than were agreed on, and what it says of itself.
fn offer(request: &[u8], agreed: u64) -> io::Result<Vec<u8>> {
    let mut request = request.to_vec();
    let offered = capabilities(&request, REQUEST_FLAGS).ok_or(io::ErrorKind::InvalidData)?;
    let narrow = offered & (agreed | INFORMATION);
    let halves = [narrow & u64::from(u32::MAX), narrow >> 32].map(|half| u32::try_from(half).unwrap_or(0));
    for (at, half) in REQUEST_FLAGS.into_iter().zip(halves) {
        if let Some(place) = request.get_mut(at..at + 4) {
            place.copy_from_slice(&half.to_ne_bytes());
        }
    }
    Ok(request)
}

/// The two halves of the capabilities, where they stand in a message.
fn capabilities(message: &[u8], [low, high]: [usize; 2]) -> Option<u64> {
    let word = |at: usize| {
        let bytes = message.get(at..at + 4)?.try_into().ok()?;
        Some(u64::from(u32::from_ne_bytes(bytes)))
    };
    let low = word(low)?;
    // The upper half counts only with this bit.
    let high = if low & INIT_EXT == 0 { 0 } else { word(high)? };
    Some(low | high << 32)
}

fn read(from: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; READ_MIN];
    let length = rustix::io::read(from, &mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

const STDIN: i32 = 0;
/// The kernel refuses to write into less.
const READ_MIN: usize = 64 << 10;
const OUT_HEADER: usize = 16;
/// `flags` and `flags2` of fuse_init_in, behind a header of 40 bytes.
const REQUEST_FLAGS: [usize; 2] = [52, 56];
/// `flags` and `flags2` of fuse_init_out, behind a header of 16 bytes.
const REPLY_FLAGS: [usize; 2] = [28, 48];
const NOTIFY_RESEND: i32 = 7;
const INIT_EXT: u64 = 1 << 30;
const HAS_EXPIRE_ONLY: u64 = 1 << 35;
const PASSTHROUGH: u64 = 1 << 37;
const HAS_RESEND: u64 = 1 << 39;
/// What the kernel says of itself, rather than offers.
const INFORMATION: u64 = INIT_EXT | HAS_EXPIRE_ONLY | HAS_RESEND;
/// What was agreed on and may be left unused.
const UNUSED: u64 = PASSTHROUGH;

#[cfg(test)]
mod tests {
    use super::*;

    fn question(low: u32, high: u32) -> Vec<u8> {
        let mut message = vec![0; 104];
        message[52..56].copy_from_slice(&low.to_ne_bytes());
        message[56..60].copy_from_slice(&high.to_ne_bytes());
        message
    }

    #[test]
    fn no_more_is_offered_than_was_agreed_on() {
        let ext = u32::try_from(INIT_EXT).unwrap();
        let asked = question(ext | 0xff, 0xff);
        let again = offer(&asked, 0x0000_0002_0000_0003).unwrap();
        let offered = capabilities(&again, REQUEST_FLAGS).unwrap();
        assert_eq!(
            offered,
            INIT_EXT | HAS_EXPIRE_ONLY | HAS_RESEND | 0x0000_0002_0000_0003
        );
        let init = Init {
            request: asked,
            agreed: 0,
        };
        assert!(can_resend(&init));
        let old = Init {
            request: question(0xff, u32::MAX),
            agreed: 0,
        };
        assert!(!can_resend(&old), "without INIT_EXT the upper half is not there");
        assert!(offer(&[0; 50], 0).is_err());
    }
}
