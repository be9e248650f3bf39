//! The UDP socket: batches in, batches out.
//!
//! The machine: one receiver reads whatever the kernel merged (GRO) into one region and hands out each datagram as a
//! slice of it, without copying. Senders on any thread hand in a run of equal datagrams, which leaves in one system call
//! (GSO). A run that meets a full socket buffer goes to the outbox, and one task sends it when the socket has room: no
//! sender ever waits here.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Notify;

/// A bound UDP socket with batched input and output.
pub(crate) struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    local: SocketAddrV4,
    outbox: Mutex<VecDeque<Run>>,
    outbox_filled: Notify,
}

/// A run of datagrams to one peer, all `segment` bytes long but the last.
struct Run {
    peer: SocketAddrV4,
    segment: usize,
    bytes: Vec<u8>,
}

/// Where received datagrams are put. One for each receiving task.
pub(crate) struct Region {
    free: BytesMut,
}

impl Socket {
    /// Binds `addr` and asks for buffers that hold a burst.
    pub(crate) fn bind(addr: SocketAddrV4) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(addr)?;
        socket.set_nonblocking(true)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // Best effort: the kernel clamps these to net.core.{r,w}mem_max.
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), BUFFER_BYTES);
        let _ = state.set_send_buffer_size(UdpSockRef::from(&socket), BUFFER_BYTES);
        let SocketAddr::V4(local) = socket.local_addr()? else {
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "not an IPv4 address"));
        };
        let io = UdpSocket::from_std(socket)?;
        Ok(Self { io, state, local, outbox: Mutex::default(), outbox_filled: Notify::new() })
    }

    /// The bound address.
    pub(crate) fn local_addr(&self) -> SocketAddrV4 {
        self.local
    }

    /// Datagrams that one `send` may carry.
    pub(crate) fn max_segments(&self) -> usize {
        self.state.max_gso_segments().max(1)
    }

    /// Waits for input and calls `each` for every datagram of one batch.
    ///
    /// Cancel safe: a datagram is taken only when it is also handed out. Datagrams from other than IPv4 peers are
    /// dropped (none can arrive at an IPv4 socket).
    pub(crate) async fn receive(
        &self,
        region: &mut Region,
        mut each: impl FnMut(SocketAddrV4, Bytes),
    ) -> io::Result<()> {
        let free = region.make_room();
        let mut meta = [RecvMeta::default()];
        let got = loop {
            self.io.readable().await?;
            let attempt = self.io.try_io(Interest::READABLE, || {
                let mut slices = [IoSliceMut::new(free)];
                self.state.recv(UdpSockRef::from(&self.io), &mut slices, &mut meta)
            });
            match attempt {
                Ok(got) => break got,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        };
        for meta in meta.iter().take(got) {
            let mut batch = region.take(meta.len);
            let SocketAddr::V4(peer) = meta.addr else { continue };
            let stride = meta.stride.max(1);
            while !batch.is_empty() {
                let datagram = batch.split_to(stride.min(batch.len()));
                each(peer, datagram);
            }
        }
        Ok(())
    }

    /// Sends a run of datagrams, each `segment` bytes long but for the last, or keeps it in the outbox.
    pub(crate) fn send(&self, peer: SocketAddrV4, segment: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.outbox.lock().is_empty() && self.try_send(peer, segment, bytes) {
            return;
        }
        let mut outbox = self.outbox.lock();
        // Beyond the limit the run is lost, as it would be in a full queue of the network; calls send it again.
        if outbox.len() < OUTBOX_RUNS {
            outbox.push_back(Run { peer, segment, bytes: bytes.to_vec() });
            drop(outbox);
            self.outbox_filled.notify_one();
        }
    }

    /// Empties the outbox whenever the socket has room. Runs until it is dropped.
    pub(crate) async fn drain_outbox(&self) {
        loop {
            let Some(run) = self.outbox.lock().pop_front() else {
                self.outbox_filled.notified().await;
                continue;
            };
            while !self.try_send(run.peer, run.segment, &run.bytes) {
                if self.io.writable().await.is_err() {
                    return;
                }
            }
        }
    }

    /// True when the run has left or can never leave; false when the socket has no room now.
    fn try_send(&self, peer: SocketAddrV4, segment: usize, bytes: &[u8]) -> bool {
        let transmit = Transmit {
            destination: SocketAddr::V4(peer),
            ecn: None,
            contents: bytes,
            segment_size: (segment < bytes.len()).then_some(segment),
            src_ip: None,
        };
        let sent = self
            .io
            .try_io(Interest::WRITABLE, || self.state.try_send(UdpSockRef::from(&self.io), &transmit));
        match sent {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                // Unreachable networks and the like: the timers of the calls decide.
                tracing::debug!(%peer, %error, "send failed");
                true
            }
        }
    }
}

impl Region {
    /// An empty region.
    pub(crate) fn new() -> Self {
        Self { free: BytesMut::new() }
    }

    /// At least one largest batch of writable bytes.
    fn make_room(&mut self) -> &mut [u8] {
        if self.free.len() < BATCH_BYTES {
            self.free = BytesMut::zeroed(REGION_BYTES);
        }
        &mut self.free
    }

    fn take(&mut self, len: usize) -> Bytes {
        self.free.split_to(len.min(self.free.len())).freeze()
    }
}

/// The largest batch the kernel merges into one read.
const BATCH_BYTES: usize = 65_536;
/// Small datagrams of many reads share one region, so that a slow reader pins no more than it was sent.
const REGION_BYTES: usize = 4 * BATCH_BYTES;
const BUFFER_BYTES: usize = 4 << 20;
const OUTBOX_RUNS: usize = 4096;
