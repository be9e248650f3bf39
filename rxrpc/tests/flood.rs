//! A flood of first packets, from one address and from many: the honest are served, and what the flood leaves behind and
//! gets out of us is bounded.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs
)]

mod common;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rxrpc::events::NullSink;
use rxrpc::net::{Endpoint, EndpointConfig, Target};
use rxrpc::proto::{
    ChannelIndex, ConnectionId, Epoch, Flags, Header, PacketType, Seq, Serial, ServiceId, Side,
};

use common::stranger::Stranger;
use common::{ECHO, echo, local, pair, pattern};

/// Calls in a row until it is told to stop; gives how many. None may fail.
async fn call_until(client: Endpoint, target: Target, over: Arc<AtomicBool>) -> usize {
    let mut served = 0;
    while !over.load(Ordering::Relaxed) {
        let request = pattern(1 + served % 3000);
        assert_eq!(
            echo(&client, &target, request.clone()).await,
            Ok(request),
            "call {served}"
        );
        served += 1;
    }
    served
}

/// Numbers without a pattern.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    /// Mostly a first packet of a call that nobody has made; some of it to no service, some of it garbage.
    fn packet(&mut self, like: Header) -> (Header, usize) {
        let header = Header {
            epoch: Epoch(self.next()),
            cid: ConnectionId(self.next() & !3),
            channel: ChannelIndex::ALL[self.next() as usize % 4],
            service: if self.next().is_multiple_of(8) {
                ServiceId(99)
            } else {
                ECHO
            },
            packet_type: match self.next() % 16 {
                0 => PacketType::Ack,
                1 => PacketType::Abort,
                2 => PacketType::Response,
                _ => PacketType::Data,
            },
            seq: Seq(if self.next().is_multiple_of(8) {
                self.next()
            } else {
                1
            }),
            serial: Serial(self.next()),
            flags: Flags::from_bits(self.next() as u8) | Flags::CLIENT_INITIATED,
            ..like
        };
        (header, self.next() as usize % 64)
    }
}

/// Sends `count` packets; gives bytes and packets that it has sent, and that it has got back.
fn attack(mut from: Vec<Stranger>, count: usize, seed: u64) -> [usize; 4] {
    let mut noise = Noise(seed);
    let mut back = [0, 0];
    let mut drain = |from: &[Stranger], patience: Duration| {
        for stranger in from {
            stranger.socket.set_nonblocking(patience.is_zero()).unwrap();
            if !patience.is_zero() {
                stranger.socket.set_read_timeout(Some(patience)).unwrap();
            }
            let mut datagram = [0; 4096];
            while let Ok(len) = stranger.socket.recv(&mut datagram) {
                back[0] += len;
                back[1] += 1;
            }
        }
    };
    let places = from.len();
    for at in 0..count {
        let stranger = &mut from[at % places];
        let (header, len) = noise.packet(stranger.header);
        stranger.send(header, &[0x5a; 64][..len]);
        if at % 32 == 0 {
            drain(&from, Duration::ZERO);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    drain(&from, Duration::from_millis(20));
    let sent = from.iter().map(|stranger| stranger.sent_bytes).sum();
    [sent, count, back[0], back[1]]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_flood_of_first_packets_stays_outside() {
    let (client, server, target, _) = pair(local()).await;
    let limits = EndpointConfig::default().max_half_open;
    assert_eq!(echo(&client, &target, pattern(1)).await, Ok(pattern(1)));

    let over = Arc::new(AtomicBool::new(false));
    let honest = tokio::spawn(call_until(client.clone(), target.clone(), Arc::clone(&over)));
    let one_host: Vec<_> = (0..50)
        .map(|_| Stranger::at(Ipv4Addr::new(127, 0, 1, 1), target.peer))
        .collect();
    let many_hosts: Vec<_> = (0..250)
        .map(|host| Stranger::at(Ipv4Addr::new(127, 0, 2, host), target.peer))
        .collect();
    let one = tokio::task::spawn_blocking(move || attack(one_host, PACKETS, 1));
    let peak = Arc::new(AtomicUsize::new(0));
    let watch = {
        let (server, over, peak) = (server.clone(), Arc::clone(&over), Arc::clone(&peak));
        tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let count = server.connections(Side::Service);
                peak.fetch_max(count.active + count.idle, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    };

    // Somebody new comes while one host floods: its share is its own.
    let newcomer = Endpoint::bind(
        EndpointConfig {
            bind: SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 3), 0),
            ..local()
        },
        Arc::new(NullSink),
    )
    .await
    .unwrap();
    assert_eq!(echo(&newcomer, &target, pattern(5000)).await, Ok(pattern(5000)));
    let by_one = one.await.unwrap();
    let after_one = peak.load(Ordering::Relaxed);

    let by_many = tokio::task::spawn_blocking(move || attack(many_hosts, PACKETS, 2))
        .await
        .unwrap();
    over.store(true, Ordering::Relaxed);
    let served = honest.await.unwrap();
    watch.await.unwrap();
    let peak = peak.load(Ordering::Relaxed);
    println!(
        "honest calls served {served}; service connections at most {after_one} under one host's flood, {peak} under that \
         of 250; bytes and packets sent and got back: {by_one:?}, {by_many:?}"
    );
    assert!(served > 100, "{served}");
    // The honest ones have one connection for four calls at a time.
    assert!(after_one <= limits.per_host + HONEST, "{after_one}");
    assert!(peak <= limits.in_all + limits.per_host + HONEST, "{peak}");
    for [sent, count, back, answers] in [by_one, by_many] {
        assert!(answers <= count, "{answers} answers to {count} packets");
        assert!(back <= sent, "{back} bytes for {sent}");
    }
    client.shutdown().await;
    newcomer.shutdown().await;
    server.shutdown().await;
}

/// Each of two floods.
const PACKETS: usize = 5_000;
const HONEST: usize = 8;
