//! What a keeper and the process that serves its mount say to each other.
//!
//! One packet of a SOCK_SEQPACKET socket is one message; the descriptors of the device and of the state come along with it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use afs_client::xdr::{Decoder, Encode, XdrError, put_counted};

use crate::descriptors;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Server: I want to serve.
    Take,
    /// Keeper: then do. The device and the state come along.
    Given(Place),
    /// Server: you were not there a moment ago; keep this. The device and the state come along.
    Keep(Place),
    /// Server: the mount answers.
    Serving,
    /// Server: nobody can go on with it, and why.
    Hopeless(String),
    /// Keeper: leave it to the next one.
    Retire,
    /// Keeper: no, and why not.
    Refused(String),
}

/// Where a mount is, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The mount point.
    pub at: PathBuf,
    /// The kernel refuses changes.
    pub read_only: bool,
}

/// The descriptors of a mount.
#[derive(Debug)]
pub struct Held {
    /// Of the kernel's device.
    pub device: OwnedFd,
    /// Of the state.
    pub state: OwnedFd,
}

impl Held {
    /// Both once more.
    pub fn share(&self) -> io::Result<Self> {
        Ok(Self {
            device: self.device.try_clone()?,
            state: self.state.try_clone()?,
        })
    }
}

impl Message {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Take => TAKE.encode(&mut out),
            Self::Given(place) => put_place(&mut out, GIVEN, place),
            Self::Keep(place) => put_place(&mut out, KEEP, place),
            Self::Serving => SERVING.encode(&mut out),
            Self::Hopeless(why) => put_text(&mut out, HOPELESS, why),
            Self::Retire => RETIRE.encode(&mut out),
            Self::Refused(why) => put_text(&mut out, REFUSED, why),
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, XdrError> {
        let mut input = Decoder::new(bytes);
        let message = match input.word()? {
            TAKE => Self::Take,
            GIVEN => Self::Given(place(&mut input)?),
            KEEP => Self::Keep(place(&mut input)?),
            SERVING => Self::Serving,
            HOPELESS => Self::Hopeless(text(&mut input)?),
            RETIRE => Self::Retire,
            REFUSED => Self::Refused(text(&mut input)?),
            other => return Err(XdrError::BadValue(other)),
        };
        input.end()?;
        Ok(message)
    }
}

fn put_place(out: &mut Vec<u8>, kind: u32, place: &Place) {
    kind.encode(out);
    put_counted(out, place.at.as_os_str().as_bytes());
    u32::from(place.read_only).encode(out);
}

fn place(input: &mut Decoder<'_>) -> Result<Place, XdrError> {
    let at = OsString::from_vec(input.counted(u32::MAX)?.to_vec());
    Ok(Place {
        at: at.into(),
        read_only: input.word()? != 0,
    })
}

fn put_text(out: &mut Vec<u8>, kind: u32, text: &str) {
    kind.encode(out);
    put_counted(out, text.as_bytes());
}

fn text(input: &mut Decoder<'_>) -> Result<String, XdrError> {
    Ok(String::from_utf8_lossy(input.counted(u32::MAX)?).into_owned())
}

/// Sends a message.
pub(super) fn send(socket: BorrowedFd<'_>, message: &Message, along: Option<&Held>) -> io::Result<()> {
    let along = along.map(|held| [held.device.as_fd(), held.state.as_fd()]);
    let along = along.as_ref().map_or(&[][..], |along| &along[..]);
    descriptors::send(socket, &message.encode(), along)?;
    Ok(())
}

/// Receives a message; none if the other side has gone.
pub(super) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<(Message, Option<Held>)>> {
    let mut bytes = [0; MESSAGE_MAX];
    let (length, along) = descriptors::receive(socket, &mut bytes)?;
    let held = match along {
        [Some(device), Some(state)] => Some(Held { device, state }),
        _ => None,
    };
    let bytes = bytes.get(..length).unwrap_or_default();
    if bytes.is_empty() {
        return Ok(None);
    }
    match Message::decode(bytes) {
        Ok(message) => Ok(Some((message, held))),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

/// No path is longer.
const MESSAGE_MAX: usize = 8 << 10;
const TAKE: u32 = 1;
const GIVEN: u32 = 2;
const KEEP: u32 = 3;
const SERVING: u32 = 4;
const HOPELESS: u32 = 5;
const RETIRE: u32 = 6;
const REFUSED: u32 = 7;

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn messages_arrive_with_their_descriptors() {
        let (one, two) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let file = || OwnedFd::from(File::open("/dev/null").unwrap());
        let held = Held {
            device: file(),
            state: file(),
        };
        let place = Place {
            at: "/a b".into(),
            read_only: true,
        };
        for (message, along) in [
            (Message::Take, false),
            (Message::Given(place.clone()), true),
            (Message::Keep(place), true),
            (Message::Serving, false),
            (Message::Hopeless("x".to_owned()), false),
            (Message::Retire, false),
            (Message::Refused("y".to_owned()), false),
        ] {
            send(one.as_fd(), &message, along.then_some(&held)).unwrap();
            let (got, came) = receive(two.as_fd()).unwrap().unwrap();
            assert_eq!((got, came.is_some()), (message, along));
        }
        rustix::io::write(&one, b"nonsense").unwrap();
        assert!(receive(two.as_fd()).is_err());
        drop(one);
        assert!(receive(two.as_fd()).unwrap().is_none());
    }
}
