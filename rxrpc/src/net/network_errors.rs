//! What the network says about datagrams that it could not deliver.
//!
//! The machine: the kernel keeps ICMP errors in the error queue of the socket, each with the address that the datagram
//! was for and as much of the datagram as the router sent back. A task reads them: one that tells of a narrow place makes
//! datagrams to that peer smaller, any other fails the calls to it, as OpenAFS and Linux do.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

use bytes::Bytes;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};
use rustix::io::Errno;

use super::endpoint::Endpoint;
use crate::cache::Ref;
use crate::events::Event;
use crate::proto::{self, ConnectionId, Header, Slot};

/// A datagram came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NetworkError {
    /// Whom it was for.
    peer: SocketAddrV4,
    errno: i32,
    /// The largest IP packet that gets through, if it was too large.
    mtu: Option<u32>,
    /// The call it was of, if so much of it came back.
    refused: Option<(ConnectionId, Slot)>,
}

/// Has the kernel keep errors for [`read`].
pub(super) fn enable(socket: &UdpSocket) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::Ipv4RecvErr, &true)?)
}

/// Takes the errors that are there; `WouldBlock` if there is none.
pub(super) fn read(socket: &(impl AsFd + ?Sized)) -> io::Result<Vec<NetworkError>> {
    let mut errors = Vec::new();
    while errors.len() < BATCH {
        match read_one(socket) {
            Ok(error) => errors.extend(error),
            Err(nix::Error::EAGAIN) if errors.is_empty() => return Err(io::ErrorKind::WouldBlock.into()),
            Err(nix::Error::EAGAIN) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(errors)
}

fn read_one(socket: &(impl AsFd + ?Sized)) -> nix::Result<Option<NetworkError>> {
    let mut quoted = [0; Header::LEN];
    let mut control = nix::cmsg_space!([u8; CONTROL_BYTES]);
    let mut slices = [IoSliceMut::new(&mut quoted)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let fd = socket.as_fd().as_raw_fd();
    let message = recvmsg::<SockaddrIn>(fd, &mut slices, Some(&mut control), flags)?;
    let (address, len) = (message.address, message.bytes);
    let error = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4RecvErr(error, _) => Some(error),
        _ => None,
    });
    let (Some(address), Some(error)) = (address, error) else {
        return Ok(None);
    };
    let Ok(errno) = i32::try_from(error.ee_errno) else {
        return Ok(None);
    };
    Ok(Some(NetworkError {
        peer: SocketAddrV4::new(address.ip(), address.port()),
        errno,
        mtu: (errno == Errno::MSGSIZE.raw_os_error()).then_some(error.ee_info),
        refused: quoted.get(..len).and_then(call_of),
    }))
}

/// The call of a datagram of ours.
fn call_of(quoted: &[u8]) -> Option<(ConnectionId, Slot)> {
    let packet = proto::parse(Bytes::copy_from_slice(quoted)).ok()?.next()?;
    let slot = Slot {
        channel: packet.header.channel,
        call: packet.header.call,
    };
    Some((packet.header.cid, slot))
}

/// Acts on what the network says until the task is dropped.
pub(super) async fn hear(endpoint: Endpoint) {
    loop {
        match endpoint.shared.socket.network_errors().await {
            Ok(errors) => act(&endpoint, errors),
            Err(error) => {
                tracing::debug!(%error, "the error queue cannot be read");
                tokio::task::yield_now().await;
            }
        }
    }
}

fn act(Endpoint { shared, connections }: &Endpoint, errors: Vec<NetworkError>) {
    let mut gone: Vec<NetworkError> = Vec::new();
    for error in errors {
        // Nobody is there to be told.
        let Some(peer) = shared.peers.known(error.peer) else {
            continue;
        };
        tracing::debug!(peer = %error.peer, errno = error.errno, mtu = error.mtu, "datagram came back");
        shared.sink.event(&Event::NetworkError {
            peer: error.peer,
            errno: error.errno,
        });
        match error.mtu {
            Some(mtu) => peer.on_mtu(mtu),
            None => {
                peer.on_error();
                // One walk over the connections for all errors about a peer, and for each call that is known.
                if !gone.contains(&error) {
                    gone.push(error);
                }
            }
        }
    }
    let now = shared.clock.now();
    let all = if gone.is_empty() {
        Vec::new()
    } else {
        connections.snapshot()
    };
    for conn in all {
        let peer = conn.peer.address();
        let of_peer = || gone.iter().filter(|error| error.peer == peer);
        let Some(error) = of_peer().next() else { continue };
        let refused = of_peer()
            .filter_map(|error| error.refused)
            .find(|(cid, _)| *cid == conn.key.cid())
            .map(|(_, slot)| slot);
        // A dying connection has no calls.
        if let Some((conn, _)) = Ref::get_live(&conn) {
            conn.unreachable(now, error.errno, refused);
        }
    }
}

/// Errors taken before they are acted on.
const BATCH: usize = 64;
/// The error takes 48 of them; the rest is for what the socket tells of every datagram.
const CONTROL_BYTES: usize = 256;
