//! The UDP socket: batches in, batches out.
//!
//! The machine: one receiver reads up to 32 datagrams, or runs of them that the kernel merged (GRO), in one system call,
//! and hands out each in a buffer of its own. Senders on any thread hand in a run of equal datagrams, which leaves in one
//! system call (GSO). A run that meets a full socket buffer goes to the `outbox`, and one task sends it when the socket has
//! room: no sender ever waits here. While the answers to a batch are being made, small runs go there too, and leave
//! together.
//!
//! The runtime watches the socket for input only. For room it watches, for as long as something waits for that, a copy of the
//! descriptor: else every datagram that has left would wake a thread.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::io::Errno;
use rustix::net::sockopt;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::buffers::Buffers;
use super::network_errors::{self, NetworkError};
use super::outbox::Outbox;

/// A bound UDP socket with batched input and output.
pub(crate) struct Socket {
    io: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    local: SocketAddrV4,
    fragments: AtomicBool,
    outbox: Mutex<Outbox>,
    outbox_filled: Notify,
}

/// What became of a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// It has left, or will never leave.
    Gone,
    /// The socket has no room now.
    Full,
    /// A run of datagrams that do not fit the path, which the kernel refuses as a whole.
    TooLarge,
    /// There is no way to the peer (an `errno`).
    Unreachable(i32),
}

/// Why a run was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendError {
    /// Its datagrams do not fit the path any more. Smaller ones do, and these do one by one, in fragments.
    TooLarge,
    /// There is no way to the peer (an `errno`).
    Unreachable(i32),
}

/// Where received datagrams are put. One for each receiving task.
pub(crate) struct Inbox {
    /// The kernel writes here; of each slot only what it has written ever is resident memory.
    slots: [Vec<u8>; BATCH_SIZE],
    buffers: Buffers,
}

impl Socket {
    /// Binds `addr` and asks for buffers that hold a burst.
    pub(crate) fn bind(addr: SocketAddrV4) -> io::Result<Self> {
        let socket = UdpSocket::bind(addr)?;
        socket.set_nonblocking(true)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // What fits the route, as far as the kernel knows it, leaves with DF set: ICMP tells if it is too large further on, and
        // a probe of the path that is answered has travelled whole. What does not fit leaves in fragments.
        sockopt::set_ip_mtu_discover(&socket, sockopt::Ipv4PathMtuDiscovery::WANT)?;
        network_errors::enable(&socket)?;
        // Best effort: the kernel clamps these to net.core.{r,w}mem_max.
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), BUFFER_BYTES);
        let _ = state.set_send_buffer_size(UdpSockRef::from(&socket), BUFFER_BYTES);
        let SocketAddr::V4(local) = socket.local_addr()? else {
            return Err(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                "not an IPv4 address",
            ));
        };
        let io = watch(socket, Interest::READABLE | Interest::ERROR)?;
        Ok(Self {
            io,
            state,
            local,
            fragments: AtomicBool::new(false),
            outbox: Mutex::default(),
            outbox_filled: Notify::new(),
        })
    }

    /// From now on what is sent may be cut to pieces on the way, as OpenAFS has it always: some router drops what it cannot
    /// pass on whole and does not say so.
    pub(crate) fn allow_fragments(&self) {
        self.fragments.store(true, Ordering::Relaxed);
        if let Err(error) = sockopt::set_ip_mtu_discover(&self.io, sockopt::Ipv4PathMtuDiscovery::DONT) {
            tracing::debug!(%error, "fragments cannot be allowed");
        }
    }

    /// True if what is sent may be cut to pieces on the way: that it arrives says nothing about the path then.
    pub(crate) fn allows_fragments(&self) -> bool {
        self.fragments.load(Ordering::Relaxed)
    }

    /// The bound address.
    pub(crate) fn local_addr(&self) -> SocketAddrV4 {
        self.local
    }

    /// Waits until the network has given back a datagram, and passes on what it says. Cancel safe.
    pub(crate) async fn network_errors(&self) -> io::Result<Vec<NetworkError>> {
        loop {
            let mut ready = self.io.ready(Interest::ERROR).await?;
            if let Ok(read) = ready.try_io(|socket| network_errors::read(socket.get_ref())) {
                return read;
            }
        }
    }

    /// Datagrams of a size that one system call may send.
    fn segments(&self, segment: usize) -> usize {
        self.state.max_gso_segments().min(RUN_BYTES / segment).max(1)
    }

    /// Waits for input and calls `each` for every datagram of one batch.
    ///
    /// Cancel safe: a datagram is taken only when it is also handed out. Datagrams from other than IPv4 peers are
    /// dropped (none can arrive at an IPv4 socket).
    pub(crate) async fn receive(
        &self,
        inbox: &mut Inbox,
        mut each: impl FnMut(SocketAddrV4, Bytes),
    ) -> io::Result<()> {
        let mut meta = [RecvMeta::default(); BATCH_SIZE];
        let mut got = 0;
        while got == 0 {
            let mut ready = self.io.readable().await?;
            let attempt = ready.try_io(|socket| {
                let mut slices = inbox.slots.each_mut().map(|slot| IoSliceMut::new(slot));
                got = self
                    .state
                    .recv(UdpSockRef::from(socket.get_ref()), &mut slices, &mut meta)?;
                // A batch that is not full has emptied the socket: to ask it again would be in vain.
                if got < BATCH_SIZE {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(())
            });
            if let Ok(result) = attempt {
                result?;
            }
        }
        inbox.buffers.collect();
        for (meta, slot) in meta.iter().zip(&inbox.slots).take(got) {
            let SocketAddr::V4(peer) = meta.addr else { continue };
            let merged = slot.get(..meta.len).unwrap_or(slot);
            for datagram in merged.chunks(meta.stride.max(1)) {
                each(peer, inbox.buffers.keep(datagram));
            }
        }
        Ok(())
    }

    /// Sends datagrams, each `segment` bytes long but for the last, or keeps them in the outbox. Those longer than `whole`
    /// leave one by one, because the kernel fragments no run.
    pub(crate) fn send(
        &self,
        peer: SocketAddrV4,
        whole: u16,
        segment: usize,
        bytes: &[u8],
    ) -> Result<(), SendError> {
        let segment = segment.max(1);
        let segments = if segment > usize::from(whole) {
            1
        } else {
            self.segments(segment)
        };
        bytes
            .chunks(segment * segments)
            .try_for_each(|run| self.send_run(peer, segment, run))
    }

    fn send_run(&self, peer: SocketAddrV4, segment: usize, bytes: &[u8]) -> Result<(), SendError> {
        let most = self.segments(segment);
        if self.outbox.lock().keeps_back(peer, segment, bytes, most) {
            return Ok(());
        }
        match self.try_send(peer, segment, bytes) {
            Sent::Gone => Ok(()),
            Sent::TooLarge => Err(SendError::TooLarge),
            Sent::Unreachable(errno) => Err(SendError::Unreachable(errno)),
            Sent::Full => {
                self.outbox.lock().push(peer, segment, bytes, most);
                // Afterwards, so that the one who is told finds it.
                self.outbox_filled.notify_one();
                Ok(())
            }
        }
    }

    /// Has small runs wait from now on, until [`send_waiting`](Self::send_waiting) has sent them together.
    pub(crate) fn gather(&self) {
        self.outbox.lock().gather();
    }

    /// Empties the outbox, if the socket has room for what is in it. What cannot be sent is as good as lost on the way.
    pub(crate) fn send_waiting(&self) {
        loop {
            // The lock is not held while the kernel works.
            let Some(run) = self.outbox.lock().pop() else {
                return;
            };
            if self.try_send(run.peer, run.segment, &run.bytes) == Sent::Full {
                self.outbox.lock().put_back(run);
                self.outbox_filled.notify_one();
                return;
            }
        }
    }

    /// Empties the outbox whenever the socket has room again. Runs until it is dropped.
    pub(crate) async fn drain_outbox(&self) {
        loop {
            self.outbox_filled.notified().await;
            if let Err(error) = self.has_room().await {
                tracing::debug!(%error, "the socket cannot be watched for room");
                tokio::time::sleep(ROOM_WAIT).await;
            }
            self.send_waiting();
        }
    }

    async fn has_room(&self) -> io::Result<()> {
        let copy = watch(self.io.as_fd().try_clone_to_owned()?, Interest::WRITABLE)?;
        copy.writable().await.map(|_| ())
    }

    fn try_send(&self, peer: SocketAddrV4, segment: usize, bytes: &[u8]) -> Sent {
        let transmit = Transmit {
            destination: SocketAddr::V4(peer),
            ecn: None,
            contents: bytes,
            segment_size: (segment < bytes.len()).then_some(segment),
            src_ip: None,
        };
        let attempt = || {
            self.state
                .try_send(UdpSockRef::from(self.io.get_ref()), &transmit)
        };
        // An error that ICMP left on the socket ends one attempt, whoever caused it.
        let sent = match attempt() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => attempt(),
            sent => sent,
        };
        match sent {
            Ok(()) => Sent::Gone,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Full,
            Err(error) => {
                tracing::debug!(%peer, %error, "send failed");
                match (error.kind(), error.raw_os_error()) {
                    (
                        io::ErrorKind::NetworkUnreachable
                        | io::ErrorKind::HostUnreachable
                        | io::ErrorKind::NetworkDown,
                        Some(errno),
                    ) => Sent::Unreachable(errno),
                    // Kernels before 6.13 say EINVAL.
                    (_, Some(EMSGSIZE | EINVAL)) if segment < bytes.len() => Sent::TooLarge,
                    // As good as lost on the way: the timers of the calls decide.
                    _ => Sent::Gone,
                }
            }
        }
    }
}

impl Inbox {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self {
            slots: std::array::from_fn(|_| vec![0; MERGED_BYTES]),
            buffers: Buffers::default(),
        }
    }
}

/// Has the runtime watch a descriptor for no more than what is of interest.
#[expect(
    deprecated,
    reason = "its successor is unsafe for descriptors that are not owned; this one is"
)]
fn watch<T: AsRawFd>(owned: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(owned, interest)
}

/// The largest IP packet that the route to a peer takes.
pub(super) fn route_mtu(peer: SocketAddrV4) -> io::Result<u32> {
    let socket = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(peer)?;
    Ok(sockopt::ip_mtu(&socket)?)
}

/// The most that the kernel merges into one read.
const MERGED_BYTES: usize = 65_536;
const BUFFER_BYTES: usize = 4 << 20;
/// The kernel takes no more than a UDP datagram's worth in one run.
const RUN_BYTES: usize = 65_000;
/// So long it is until what waits for room is tried again, if the socket cannot be watched.
const ROOM_WAIT: Duration = Duration::from_millis(10);
const EMSGSIZE: i32 = Errno::MSGSIZE.raw_os_error();
const EINVAL: i32 = Errno::INVAL.raw_os_error();
