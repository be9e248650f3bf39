//! The first bytes of a request, with which a descriptor may come along (SCM_RIGHTS).

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use tokio::io::Interest;

use crate::descriptors;

/// Sends the length of a request, and a descriptor if there is one.
pub(super) fn send(stream: &UnixStream, length: u32, along: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let bytes = length.to_be_bytes();
    let sent = descriptors::send(stream.as_fd(), &bytes, along.as_slice())?;
    // Four bytes fit into an empty socket.
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// Receives what [`send`] has sent. Not cancel safe: what came is lost.
pub(super) async fn receive(stream: &tokio::net::UnixStream) -> io::Result<(u32, Option<OwnedFd>)> {
    let mut bytes = [0; 4];
    let mut along = None;
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        stream.readable().await?;
        match stream.try_io(Interest::READABLE, || descriptors::receive(stream.as_fd(), rest)) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((count, [descriptor, _])) => {
                filled += count;
                along = along.or(descriptor);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok((u32::from_be_bytes(bytes), along))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[tokio::test]
    async fn a_descriptor_comes_along_or_not() {
        for with in [true, false] {
            let (mine, theirs) = UnixStream::pair().unwrap();
            let file = std::fs::File::open("/proc/self/comm").unwrap();
            send(&mine, 0x0102_0304, with.then(|| file.as_fd())).unwrap();
            theirs.set_nonblocking(true).unwrap();
            let theirs = tokio::net::UnixStream::from_std(theirs).unwrap();
            let (length, along) = receive(&theirs).await.unwrap();
            assert_eq!((length, along.is_some()), (0x0102_0304, with));
            if let Some(along) = along {
                let mut text = String::new();
                std::fs::File::from(along).read_to_string(&mut text).unwrap();
                assert!(!text.is_empty());
            }
        }
    }
}
