//! A wide network between a client of the real cell and its servers, for kernels without netem: `cell link` runs it.
//!
//! The machine: standard input and output are two TAP devices, one in the client's namespace, one on the servers' bridge.
//! A frame that comes out of one goes into the other as late as the emulated link has it arrive, if it does. Each server
//! has a link of its own, with a rate and a queue of its own. What is not IPv4 (ARP) passes at once and always.

#![forbid(unsafe_code)]
// It lives in real time.
#![allow(clippy::disallowed_methods)]

#[path = "../../../rxrpc/benches/wan/link.rs"]
#[allow(dead_code, reason = "the other half belongs to the bench in virtual time")]
mod link;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use clap::Parser;
use link::{Direction, Link};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Passes frames between the TAP devices on standard input and output, as a wide network would.
#[derive(Parser)]
struct Options {
    /// Round trip time in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 20.0)]
    rtt: f64,
    /// Share of the packets that is lost, each way.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    loss: f64,
    /// Rate of the link to each server, each way.
    #[arg(long, value_name = "MBIT/S", default_value_t = 1000)]
    rate: u64,
    /// What may wait for that.
    #[arg(long, value_name = "KIB", default_value_t = 1024)]
    queue: u64,
    /// Other packets are lost with another one.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// One end: what goes into it, and when.
struct End<'a> {
    device: BorrowedFd<'a>,
    /// Where the address of the server lies in a frame that leaves here.
    server_at: usize,
    seed: u64,
    links: HashMap<Ipv4Addr, Direction>,
    /// Under way to this end, with their numbers: what is due at the same time arrives as it was sent.
    under_way: BinaryHeap<Reverse<(Duration, u64, Vec<u8>)>>,
    sent: u64,
}

fn main() -> Result<(), Errno> {
    let options = Options::parse();
    let link = Link {
        round_trip: Duration::from_secs_f64(options.rtt / 1000.0),
        loss_ppm: parts_in_a_million(options.loss),
        late_ppm: 0,
        bits_per_second: options.rate.clamp(1, 8000) * 1_000_000,
        queue_bytes: options.queue << 10,
    };
    let (input, output) = (std::io::stdin(), std::io::stdout());
    let end = |device, server_at, seed| End {
        device,
        server_at,
        seed,
        links: HashMap::new(),
        under_way: BinaryHeap::new(),
        sent: 0,
    };
    let mut client = end(input.as_fd(), IP_TO, options.seed);
    let mut servers = end(output.as_fd(), IP_FROM, !options.seed);
    let start = Instant::now();
    let mut buffer = vec![0; FRAME_MAX];
    loop {
        let now = start.elapsed();
        client.deliver(now);
        servers.deliver(now);
        let due = [client.next(), servers.next()].into_iter().flatten().min();
        let wait = due.map(|due| due.saturating_sub(start.elapsed()));
        let timeout = wait.and_then(|wait| Timespec::try_from(wait).ok());
        let mut ready = [&client, &servers].map(|end| PollFd::from_borrowed_fd(end.device, PollFlags::IN));
        match poll(&mut ready, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        client.take(&mut servers, link, start, &mut buffer)?;
        servers.take(&mut client, link, start, &mut buffer)?;
    }
}

impl End<'_> {
    fn next(&self) -> Option<Duration> {
        self.under_way.peek().map(|Reverse((due, ..))| *due)
    }

    /// Puts in what is due. What the device has no room for is lost, as on any network.
    fn deliver(&mut self, now: Duration) {
        while self.next().is_some_and(|due| due <= now) {
            if let Some(Reverse((.., frame))) = self.under_way.pop() {
                let _ = rustix::io::write(self.device, &frame);
            }
        }
    }

    /// Takes what comes out of this end and sends it to the other one. A few frames at a time, so that what is due there
    /// does not wait.
    fn take(&mut self, other: &mut Self, link: Link, start: Instant, buffer: &mut [u8]) -> Result<(), Errno> {
        for _ in 0..AT_ONCE {
            let len = match rustix::io::read(self.device, &mut *buffer) {
                Ok(len) => len,
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error),
            };
            let frame = buffer.get(..len).unwrap_or_default();
            let now = start.elapsed();
            if let Some(due) = self.send(frame, link, now) {
                other.sent += 1;
                other.under_way.push(Reverse((due, other.sent, frame.to_vec())));
            }
        }
        Ok(())
    }

    /// When a frame that leaves here arrives, if it does.
    fn send(&mut self, frame: &[u8], link: Link, now: Duration) -> Option<Duration> {
        if frame.get(ETHER_TYPE..IP) != Some(&IPV4) {
            return Some(now);
        }
        let octets: [u8; 4] = frame.get(self.server_at..)?.first_chunk().copied()?;
        let server = Ipv4Addr::from(octets);
        let seed = self.seed ^ u64::from(server.to_bits());
        let direction = self
            .links
            .entry(server)
            .or_insert_with(|| Direction::new(link, seed));
        direction.send(now, frame.len().saturating_sub(HEADERS))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates"
)]
fn parts_in_a_million(percent: f64) -> u64 {
    (percent * 10_000.0) as u64
}

/// With room for whatever the device has.
const FRAME_MAX: usize = 65_536 + IP;
const AT_ONCE: usize = 64;
// Ethernet without tags, and IPv4.
const ETHER_TYPE: usize = 12;
const IP: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IP_FROM: usize = IP + 12;
const IP_TO: usize = IP + 16;
/// Of Ethernet, IP and UDP: the link counts payload.
const HEADERS: usize = IP + 28;
