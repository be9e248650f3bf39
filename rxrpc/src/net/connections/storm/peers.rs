//! Callers that speak bare datagrams, so that they know exactly what was answered, and what they had to send again.
//!
//! The machine: one thread with one socket plays thousands of connections. Each makes one call after the other; the pause
//! between two calls is drawn close to the expiry of the callee, where the reaper is at work, or long. Loopback loses
//! nothing: a call that must be sent again was lost by the callee.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::net::clock::Clock;
use crate::proto::{
    AckPacket, AckReason, AckTrailer, CallNumber, ChannelIndex, ConnectionId, Epoch, Flags, Header, Packet,
    PacketType, SackTable, SecurityIndex, Seq, Serial, ServiceId, parse,
};
use crate::random::Random;

/// What a thread of callers has to do.
#[derive(Clone, Copy)]
pub(super) struct Orders {
    pub(super) callee: SocketAddrV4,
    pub(super) service: ServiceId,
    pub(super) connections: u32,
    /// The first of the numbers that the calls carry.
    pub(super) first: u64,
    pub(super) calls: u64,
    /// Pauses are drawn up to a little more than this.
    pub(super) expiry: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) answered: u64,
    pub(super) resent: u64,
    /// Replies to calls that had been answered.
    pub(super) answered_again: u64,
    /// ABORT and BUSY.
    pub(super) refused: u64,
    /// The longest wait for an answer.
    pub(super) longest: Duration,
}

impl Tally {
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            answered: self.answered + other.answered,
            resent: self.resent + other.resent,
            answered_again: self.answered_again + other.answered_again,
            refused: self.refused + other.refused,
            longest: self.longest.max(other.longest),
        }
    }
}

/// Makes all the calls and waits until each is answered.
pub(super) fn call_all(orders: Orders) -> io::Result<Tally> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(orders.callee)?;
    socket.set_read_timeout(Some(Duration::from_millis(1)))?;
    let conns: Vec<_> = (0..orders.connections).map(Conn::new).collect();
    Callers {
        orders,
        socket,
        clock: Clock::start(),
        random: Random::new(orders.first),
        next: orders.first,
        cold: (0..conns.len()).collect(),
        conns,
        hot: BinaryHeap::new(),
        waiting: VecDeque::new(),
        tally: Tally::default(),
        in_flight: 0,
    }
    .run()
}

struct Callers {
    orders: Orders,
    socket: UdpSocket,
    clock: Clock,
    random: Random,
    /// The number of the next call.
    next: u64,
    conns: Vec<Conn>,
    /// Connections whose next call is due soon.
    hot: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Those that have time.
    cold: VecDeque<usize>,
    /// When to look whether a call was answered.
    waiting: VecDeque<(Instant, usize, CallNumber)>,
    tally: Tally,
    in_flight: usize,
}

/// One connection. It uses one channel.
struct Conn {
    cid: ConnectionId,
    call: CallNumber,
    serial: Serial,
    /// The number that its call carries, and when it was first sent.
    asked: Option<(u64, Instant)>,
    /// For the reply to its last call.
    owes_ack: bool,
}

impl Callers {
    fn run(mut self) -> io::Result<Tally> {
        while self.tally.answered < self.orders.calls {
            let now = self.clock.now();
            self.begin_calls(now)?;
            self.send_again(now)?;
            self.receive()?;
        }
        for Reverse((_, at)) in std::mem::take(&mut self.hot) {
            self.acknowledge(at)?;
        }
        Ok(self.tally)
    }

    fn begin_calls(&mut self, now: Instant) -> io::Result<()> {
        while self.in_flight < IN_FLIGHT && self.next < self.orders.first + self.orders.calls {
            let due = self.hot.peek().is_some_and(|Reverse((at, _))| *at <= now);
            let Some(at) = (if due {
                self.hot.pop().map(|Reverse((_, at))| at)
            } else {
                self.cold.pop_front()
            }) else {
                break;
            };
            let conn = &mut self.conns[at];
            conn.call = conn.call.next();
            conn.asked = Some((self.next, now));
            conn.owes_ack = false;
            self.next += 1;
            self.in_flight += 1;
            self.send_request(at, now)?;
        }
        Ok(())
    }

    fn send_request(&mut self, at: usize, now: Instant) -> io::Result<()> {
        let conn = &mut self.conns[at];
        let Some((number, _)) = conn.asked else {
            return Ok(());
        };
        self.waiting.push_back((now + RESEND_AFTER, at, conn.call));
        // Some requests are of two packets.
        let packets = if number % 4 == 0 { 2 } else { 1 };
        for seq in 1..=packets {
            let last = if seq == packets {
                Flags::LAST_PACKET
            } else {
                Flags::NONE
            };
            let header = conn.header(&self.orders, PacketType::Data, Seq(seq), last);
            send(&self.socket, &header, &number.to_be_bytes())?;
        }
        Ok(())
    }

    fn send_again(&mut self, now: Instant) -> io::Result<()> {
        while let Some(&(_, at, call)) = self.waiting.front().filter(|(due, ..)| *due <= now) {
            self.waiting.pop_front();
            let conn = &self.conns[at];
            if conn.call == call && conn.asked.is_some() {
                self.tally.resent += 1;
                self.send_request(at, now)?;
            }
        }
        Ok(())
    }

    /// Takes what there is, but not too much before other things get their turn.
    fn receive(&mut self) -> io::Result<()> {
        let mut datagram = [0; 2048];
        for _ in 0..IN_FLIGHT {
            match self.socket.recv(&mut datagram) {
                Ok(len) => {
                    let packets =
                        parse(Bytes::copy_from_slice(&datagram[..len])).map_err(io::Error::other)?;
                    for packet in packets {
                        self.take(&packet)?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take(&mut self, packet: &Packet) -> io::Result<()> {
        let header = &packet.header;
        match header.packet_type {
            PacketType::Data => {}
            PacketType::Abort | PacketType::Busy => {
                self.tally.refused += 1;
                return Ok(());
            }
            _ => return Ok(()),
        }
        let at = usize::try_from(header.cid.0 / 4).map_err(io::Error::other)?;
        let conn = &mut self.conns[at];
        let Some((number, since)) = conn.asked.filter(|_| header.call == conn.call) else {
            self.tally.answered_again += 1;
            return Ok(());
        };
        if *packet.body != number.to_be_bytes() {
            return Err(io::Error::other(format!(
                "call {number} was answered with another's reply"
            )));
        }
        conn.asked = None;
        conn.owes_ack = true;
        let now = self.clock.now();
        self.tally.answered += 1;
        self.tally.longest = self.tally.longest.max(now.saturating_duration_since(since));
        self.in_flight -= 1;
        // The next call on the channel acks the reply as well.
        if self.random.percent(10) {
            self.hot.push(Reverse((now, at)));
            return Ok(());
        }
        self.acknowledge(at)?;
        if self.random.percent(85) {
            let micros = u64::try_from(self.orders.expiry.as_micros()).map_err(io::Error::other)?;
            let pause = Duration::from_micros(self.random.below(micros * 2));
            self.hot.push(Reverse((now + pause, at)));
        } else {
            self.cold.push_back(at);
        }
        Ok(())
    }

    fn acknowledge(&mut self, at: usize) -> io::Result<()> {
        let conn = &mut self.conns[at];
        if !std::mem::take(&mut conn.owes_ack) {
            return Ok(());
        }
        let header = conn.header(&self.orders, PacketType::Ack, Seq(0), Flags::NONE);
        let mut body = Vec::new();
        ALL_RECEIVED.encode(&mut body);
        send(&self.socket, &header, &body)
    }
}

impl Conn {
    fn new(index: u32) -> Self {
        Self {
            cid: ConnectionId(index * 4),
            call: CallNumber(0),
            serial: Serial(0),
            asked: None,
            owes_ack: false,
        }
    }

    fn header(&mut self, orders: &Orders, packet_type: PacketType, seq: Seq, flags: Flags) -> Header {
        self.serial = self.serial.next();
        Header {
            epoch: Epoch(0x8000_0001),
            cid: self.cid,
            channel: ChannelIndex::ALL[0],
            call: self.call,
            seq,
            serial: self.serial,
            packet_type,
            flags: flags | Flags::CLIENT_INITIATED,
            user_status: 0,
            security: SecurityIndex(0),
            cksum: 0,
            service: orders.service,
        }
    }
}

fn send(socket: &UdpSocket, header: &Header, body: &[u8]) -> io::Result<()> {
    let mut datagram = Vec::with_capacity(Header::LEN + body.len());
    header.encode(&mut datagram);
    datagram.extend_from_slice(body);
    socket.send(&datagram).map(drop)
}

/// Replies are one packet long.
const ALL_RECEIVED: AckPacket = AckPacket {
    buffer_space: 0,
    max_skew: 0,
    first: Seq(2),
    previous: Seq(1),
    serial: Serial(0),
    reason: AckReason::Delay,
    acks: SackTable::new(),
    trailer: AckTrailer {
        max_mtu: None,
        if_mtu: None,
        rwind: None,
        jumbo_max: None,
    },
};

/// Few enough that no socket buffer overflows.
const IN_FLIGHT: usize = 64;
/// Far longer than an answer takes.
const RESEND_AFTER: Duration = Duration::from_secs(2);
