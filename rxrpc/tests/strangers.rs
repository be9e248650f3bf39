//! Packets from strangers: what is answered, what is executed, and what is neither.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs
)]

mod common;

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rxrpc::events::Sink;
use rxrpc::net::{Endpoint, EndpointConfig, Limit, Service, ServiceCall, Target};
use rxrpc::proto::{
    AbortCode, AckPacket, AckReason, CallError, CallNumber, ConnectionId, DropReason, Epoch, Flags, Header,
    Malformed, Packet, PacketType, Rejected, SecurityIndex, Seq, Serial, ServiceId, Side, Unplaced,
};

use common::stranger::Stranger;
use common::{Counts, ECHO, echo, local, pair, pattern};

/// Counts the calls that it is given, and echoes them.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Service for Counting {
    fn handle(&self, call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        common::Echo.handle(call)
    }
}

/// An endpoint that counts calls, and a stranger who knows it.
async fn host(config: EndpointConfig) -> (Endpoint, Arc<Counting>, Arc<Counts>, Stranger) {
    let counts = Arc::new(Counts::default());
    let endpoint = Endpoint::bind(config, Arc::clone(&counts) as Arc<dyn Sink>)
        .await
        .unwrap();
    let counting = Arc::new(Counting::default());
    endpoint.serve(ECHO, Arc::clone(&counting) as Arc<dyn Service>);
    let stranger = Stranger::new(endpoint.local_addr());
    (endpoint, counting, counts, stranger)
}

fn types(packets: &[Packet]) -> Vec<PacketType> {
    packets.iter().map(|packet| packet.header.packet_type).collect()
}

fn is_ping(packet: &Packet) -> bool {
    packet.header.packet_type == PacketType::Ack
        && AckPacket::parse(&packet.body).unwrap().reason == AckReason::Ping
}

/// What begins nothing and is for nothing is dropped without a word, and counted by its rule.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_for_nobody_is_never_answered() {
    let (endpoint, _, counts, mut stranger) = host(local()).await;
    let data = stranger.header;
    let of = |packet_type, flags| Header {
        packet_type,
        flags,
        seq: Seq(0),
        ..data
    };
    let connection_level = |header| Header {
        call: CallNumber(0),
        ..header
    };
    let (client, service) = (Flags::CLIENT_INITIATED, Flags::NONE);
    let cases: Vec<(DropReason, Header, &[u8])> = vec![
        (
            Malformed::NoService.into(),
            Header {
                service: ServiceId(0),
                ..data
            },
            b"1234",
        ),
        (Malformed::DataWithoutCall.into(), connection_level(data), b"1234"),
        (
            Malformed::DataWithoutSeq.into(),
            Header { seq: Seq(0), ..data },
            b"1234",
        ),
        (
            Malformed::AckWithoutCall.into(),
            connection_level(of(PacketType::Ack, client)),
            &[0; 40],
        ),
        (
            Malformed::AckWithoutCall.into(),
            connection_level(of(PacketType::AckAll, client)),
            b"",
        ),
        (
            Malformed::AckWithoutCall.into(),
            connection_level(of(PacketType::Busy, service)),
            b"",
        ),
        (
            Malformed::BusyFromClient.into(),
            of(PacketType::Busy, client),
            b"",
        ),
        (
            Malformed::ChallengeFromClient.into(),
            connection_level(of(PacketType::Challenge, client)),
            &[0; 16],
        ),
        (
            Malformed::ResponseFromService.into(),
            connection_level(of(PacketType::Response, service)),
            &[0; 64],
        ),
        (
            Malformed::AbortWithoutCode.into(),
            of(PacketType::Abort, client),
            b"123",
        ),
        (
            Malformed::UnknownType(9).into(),
            of(PacketType::Params, client),
            b"",
        ),
        // Nobody's connection, from either side.
        (
            Unplaced::NoConnection.into(),
            of(PacketType::Ack, client),
            &[0; 40],
        ),
        (Unplaced::NoConnection.into(), of(PacketType::AckAll, client), b""),
        (
            Unplaced::NoConnection.into(),
            of(PacketType::Abort, client),
            &[0xff; 4],
        ),
        (
            Unplaced::NoConnection.into(),
            connection_level(of(PacketType::Abort, client)),
            &[0xff; 4],
        ),
        (
            Unplaced::NoConnection.into(),
            connection_level(of(PacketType::Response, client)),
            &[0; 64],
        ),
        (
            Unplaced::ForeignEpoch.into(),
            Header {
                flags: service,
                ..data
            },
            b"1234",
        ),
        (
            Unplaced::ForeignEpoch.into(),
            of(PacketType::Ack, service),
            &[0; 40],
        ),
        (
            Unplaced::ForeignEpoch.into(),
            of(PacketType::Abort, service),
            &[0xff; 4],
        ),
        (Unplaced::ForeignEpoch.into(), of(PacketType::Busy, service), b""),
        (
            Unplaced::ForeignEpoch.into(),
            connection_level(of(PacketType::Challenge, service)),
            &[0; 16],
        ),
        (
            Unplaced::NoQuestion.into(),
            of(PacketType::Debug, service),
            &[0; 8],
        ),
        (
            Unplaced::NoQuestion.into(),
            of(PacketType::Debug, client),
            &[0; 3],
        ),
    ];
    stranger.send_bytes(&data.to_bytes()[..27]);
    stranger.send(of(PacketType::Version, service), &[0]);
    for (_, header, body) in &cases {
        stranger.send(*header, body);
    }
    assert_eq!(stranger.answers(), []);
    assert_eq!(counts.dropped(Malformed::Short), 1);
    for (reason, header, _) in &cases {
        let expected = cases
            .iter()
            .filter(|(other, ..)| other.name() == reason.name())
            .count();
        assert_eq!(counts.dropped(*reason), expected, "{} {header:?}", reason.name());
    }
    assert_eq!(
        counts.dropped.lock().unwrap().len(),
        cases.len() + 1,
        "nothing else was dropped"
    );
    assert_eq!(endpoint.connections(Side::Service).active, 0);
    endpoint.shutdown().await;
}

/// Refusals echo the call, come once, and are no longer than what they answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_no_longer_than_what_they_refuse() {
    let none = Limit {
        in_all: 0,
        per_host: 0,
    };
    let config = EndpointConfig {
        max_half_open: none,
        ..local()
    };
    let (endpoint, _, counts, mut stranger) = host(config).await;
    let data = stranger.header;
    let unknown_service = Header {
        service: ServiceId(99),
        ..data
    };
    let unknown_security = Header {
        security: SecurityIndex(7),
        ..data
    };
    for (refused, reason) in [
        (unknown_service, Unplaced::UnknownService),
        (unknown_security, Unplaced::UnknownSecurity),
    ] {
        stranger.send(refused, b"");
        assert_eq!(stranger.answers(), [], "an ABORT is longer than this");
        stranger.send(
            Header {
                seq: Seq(2),
                ..refused
            },
            b"1234",
        );
        assert_eq!(stranger.answers(), [], "not the first packet");
        stranger.send(refused, b"1234");
        let answers = stranger.answers();
        assert_eq!(types(&answers), [PacketType::Abort]);
        let answer = answers[0].header;
        assert_eq!(
            (answer.epoch, answer.cid, answer.call, answer.seq, answer.serial),
            (data.epoch, data.cid, data.call, Seq(0), Serial(0))
        );
        assert_eq!(answer.flags.sender(), Side::Service);
        assert_eq!(answers[0].body[..], (-2_i32).to_be_bytes());
        assert_eq!(counts.dropped(reason), 3);
    }
    stranger.send(data, b"");
    assert_eq!(types(&stranger.answers()), [PacketType::Busy]);
    assert_eq!(counts.dropped(Unplaced::TooManyHalfOpen), 1);
    endpoint.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_source_gets_no_call_executed() {
    let (endpoint, counting, _, mut stranger) = host(local()).await;
    let mut received = 0;
    let mut sent = 0;
    for cid in 1..=10 {
        for again in 0..5 {
            let header = Header {
                cid: ConnectionId(cid * 4),
                serial: Serial(again + 1),
                ..stranger.header
            };
            stranger.send(header, b"spoofed call");
            // As if it had come: the serial of a first packet is 1 elsewhere.
            let guess = AckPacket::new(Seq(1), Seq(0), Serial(again + 1), AckReason::PingResponse);
            stranger.acknowledge(&header, Flags::CLIENT_INITIATED, guess);
            sent += 2;
            let answers = stranger.answers();
            assert!(answers.iter().all(is_ping), "{answers:?}");
            received += answers.len();
        }
    }
    assert!(received <= sent, "{received} for {sent}");
    assert_eq!(counting.0.load(Ordering::SeqCst), 0);
    endpoint.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_asked_once() {
    let (endpoint, counting, _, mut stranger) = host(local()).await;
    stranger.send(stranger.header, b"call");
    let ping = stranger.next();
    assert!(is_ping(&ping), "{ping:?}");
    stranger.answer(&ping);
    assert_eq!(stranger.next().body[..], *b"call");
    // A call on the same connection, and one on another.
    let next_call = Header {
        call: CallNumber(2),
        ..stranger.header
    };
    let other = Header {
        cid: ConnectionId(0x80),
        ..stranger.header
    };
    for header in [next_call, other] {
        stranger.send(header, b"more");
        let reply = stranger.next();
        assert_eq!(
            (reply.header.packet_type, &reply.body[..]),
            (PacketType::Data, &b"more"[..]),
            "{reply:?}"
        );
    }
    assert_eq!(counting.0.load(Ordering::SeqCst), 3);
    // A stranger at another port is another.
    let mut second = Stranger::new(endpoint.local_addr());
    second.send(second.header, b"call");
    assert!(is_ping(&second.next()));
    endpoint.shutdown().await;
}

/// A file server that we have called may break callbacks without being asked whether it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_has_answered_is_not_asked() {
    let (endpoint, counting, _, mut server) = host(local()).await;
    let target = Target::new(server.address(), ServiceId(1));
    let caller = endpoint.clone();
    let call = tokio::spawn(async move { echo(&caller, &target, pattern(10)).await });
    let request = server.next();
    let reply = Header {
        flags: Flags::LAST_PACKET,
        ..request.header
    };
    server.send(reply, b"reply");
    assert_eq!(call.await.unwrap(), Ok(Bytes::from_static(b"reply")));
    let call_back = server.header;
    server.send(call_back, b"break");
    let answer = loop {
        let packet = server.next();
        // The end of the first call, on its own connection.
        if packet.header.epoch == call_back.epoch {
            break packet;
        }
    };
    assert_eq!(
        (answer.header.packet_type, &answer.body[..]),
        (PacketType::Data, &b"break"[..])
    );
    assert_eq!(counting.0.load(Ordering::SeqCst), 1);
    endpoint.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_a_first_packet_are_one_call() {
    let (endpoint, counting, counts, mut stranger) = host(local()).await;
    for _ in 0..20 {
        stranger.send(stranger.header, b"once");
    }
    let pings = stranger.answers();
    assert!(pings.iter().all(is_ping) && pings.len() <= 20, "{pings:?}");
    stranger.answer(&pings[0]);
    let reply = loop {
        let packet = stranger.next();
        if packet.header.packet_type == PacketType::Data {
            break packet;
        }
    };
    assert_eq!(reply.body[..], *b"once");
    for _ in 0..20 {
        stranger.send(stranger.header, b"once");
    }
    let again = stranger.answers();
    assert!(again.len() <= 20, "{again:?}");
    // It is acknowledged; copies that come later are of a call that is over.
    let ack = AckPacket::new(Seq(2), Seq(1), reply.header.serial, AckReason::Idle);
    stranger.acknowledge(&reply.header, Flags::CLIENT_INITIATED, ack);
    for _ in 0..20 {
        stranger.send(stranger.header, b"once");
    }
    let late = stranger.answers();
    assert_eq!(late, [], "the peer had the last word");
    assert_eq!(counting.0.load(Ordering::SeqCst), 1);
    assert_eq!(counts.dropped(Rejected::Duplicate), 39);
    assert_eq!(counts.dropped(Rejected::CallOver), 20);
    endpoint.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_aborted_is_silent() {
    let (endpoint, counting, counts, mut stranger) = host(local()).await;
    stranger.send(stranger.header, b"call");
    let ping = stranger.next();
    stranger.answer(&ping);
    assert_eq!(stranger.next().header.packet_type, PacketType::Data);
    let abort = Header {
        packet_type: PacketType::Abort,
        call: CallNumber(0),
        seq: Seq(0),
        flags: Flags::CLIENT_INITIATED,
        ..stranger.header
    };
    stranger.send(abort, &(-5_i32).to_be_bytes());
    let next_call = Header {
        call: CallNumber(2),
        ..stranger.header
    };
    stranger.send(next_call, b"dead");
    stranger.send(abort, &(-5_i32).to_be_bytes());
    stranger.send(
        Header {
            packet_type: PacketType::Ack,
            seq: Seq(0),
            ..next_call
        },
        &[0; 30],
    );
    assert_eq!(stranger.answers(), []);
    assert_eq!(counts.dropped(Rejected::ConnectionDead), 3);
    assert_eq!(counting.0.load(Ordering::SeqCst), 1);
    endpoint.shutdown().await;
}

/// Replies count by epoch, id and port. A server may use another of its addresses (rxrpc.md 2.4, 16).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_come_from_the_right_port_in_our_epoch() {
    let (endpoint, _, counts, server) = host(local()).await;
    let target = Target::new(server.address(), ECHO);
    let caller = endpoint.clone();
    let call = tokio::spawn(async move { echo(&caller, &target, pattern(10)).await });
    let request = server.next();
    let reply = Header {
        flags: Flags::LAST_PACKET,
        ..request.header
    };
    let mut other_port = Stranger::new(endpoint.local_addr());
    other_port.send(reply, b"forged");
    assert_eq!(other_port.answers(), []);
    assert_eq!(counts.dropped(Unplaced::ForeignPort), 1);

    let socket = UdpSocket::bind(SocketAddrV4::new(
        Ipv4Addr::new(127, 0, 0, 2),
        server.address().port(),
    ))
    .unwrap();
    let mut other_address = Stranger {
        socket,
        ..Stranger::new(endpoint.local_addr())
    };
    other_address.send(
        Header {
            epoch: Epoch(reply.epoch.0 ^ 1),
            ..reply
        },
        b"forged",
    );
    other_address.send(
        Header {
            cid: ConnectionId(reply.cid.0 ^ 4),
            ..reply
        },
        b"forged",
    );
    assert_eq!(other_address.answers(), []);
    assert_eq!(counts.dropped(Unplaced::ForeignEpoch), 1);
    assert_eq!(counts.dropped(Unplaced::NoConnection), 1);
    assert!(!call.is_finished());
    other_address.send(reply, b"true");
    assert_eq!(call.await.unwrap(), Ok(Bytes::from_static(b"true")));
    endpoint.shutdown().await;
}

/// Panics at its first, third, ... call.
#[derive(Default)]
struct Fragile(AtomicUsize);

impl Service for Fragile {
    fn handle(&self, call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let at = self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let mut call = call;
            let _ = call.recv().await;
            assert!(at % 2 == 1, "a panic on purpose");
            let _ = call.send(Bytes::from_static(b"whole")).await;
            let _ = call.finish();
        })
    }
}

/// The call is aborted, its place is free again, and nobody else notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_panics_ends_its_call() {
    let config = EndpointConfig {
        max_service_calls: 2,
        max_calls: Limit {
            in_all: 4,
            per_host: 2,
        },
        ..local()
    };
    let (client, server, target, _) = pair(config).await;
    let fragile = ServiceId(8);
    server.serve(fragile, Arc::new(Fragile::default()));
    let target = Target {
        service: fragile,
        ..target
    };
    for round in 0..20 {
        let answer = echo(&client, &target, pattern(10)).await;
        if round % 2 == 0 {
            assert_eq!(answer, Err(CallError::Aborted(AbortCode(-6))), "round {round}");
        } else {
            assert_eq!(answer, Ok(Bytes::from_static(b"whole")), "round {round}");
        }
    }
    client.shutdown().await;
    server.shutdown().await;
}

/// Answers only when it is told to.
struct Slow(Arc<tokio::sync::Semaphore>);

impl Service for Slow {
    fn handle(&self, call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let told = Arc::clone(&self.0);
        Box::pin(async move {
            let _told = told.acquire().await;
            common::Echo.handle(call).await;
        })
    }
}

/// A host with all the calls that it may have is told BUSY, and the others are served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_has_no_more_than_its_share_of_calls() {
    let config = EndpointConfig {
        max_calls: Limit {
            in_all: 100,
            per_host: 3,
        },
        check_reach: false,
        ..local()
    };
    let (endpoint, counting, counts, mut greedy) = host(config).await;
    let told = Arc::new(tokio::sync::Semaphore::new(0));
    let slow = ServiceId(8);
    endpoint.serve(slow, Arc::new(Slow(Arc::clone(&told))));
    for cid in 1..=10 {
        let header = Header {
            cid: ConnectionId(cid * 4),
            service: slow,
            ..greedy.header
        };
        greedy.send(header, b"wait");
    }
    let answers = greedy.answers();
    assert_eq!(types(&answers), [PacketType::Busy; 7]);
    assert_eq!(counts.dropped(Unplaced::TooManyCalls), 7);
    let mut other = Stranger::at(Ipv4Addr::new(127, 0, 0, 2), endpoint.local_addr());
    other.send(other.header, b"quick");
    assert_eq!(other.next().body[..], *b"quick");
    assert_eq!(counting.0.load(Ordering::SeqCst), 1);

    // Who repeats its call is served when there is room.
    told.add_permits(1);
    let mut replies = 0;
    while replies < 3 {
        replies += usize::from(greedy.next().header.packet_type == PacketType::Data);
    }
    let turned_away = Header {
        cid: answers[0].header.cid,
        service: slow,
        ..greedy.header
    };
    let served = loop {
        greedy.send(turned_away, b"again");
        let packet = greedy.next();
        if packet.header.cid == turned_away.cid && packet.header.packet_type == PacketType::Data {
            break packet;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(served.body[..], *b"again");
    endpoint.shutdown().await;
}

/// Connections are counted by host, whatever its ports.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_has_no_more_than_its_share_of_connections() {
    let config = EndpointConfig {
        max_service_connections: Limit {
            in_all: 5,
            per_host: 3,
        },
        check_reach: false,
        ..local()
    };
    let (endpoint, _, counts, _) = host(config).await;
    let peer = endpoint.local_addr();
    let mut busy = 0;
    for _ in 0..10 {
        let mut stranger = Stranger::new(peer);
        stranger.send(stranger.header, b"call");
        busy += usize::from(stranger.next().header.packet_type == PacketType::Busy);
        // By then it is counted.
        stranger.answers();
    }
    assert_eq!(busy, 7);
    for number in 2..6 {
        let mut stranger = Stranger::at(Ipv4Addr::new(127, 0, 0, number), peer);
        stranger.send(stranger.header, b"call");
        busy += usize::from(stranger.next().header.packet_type == PacketType::Busy);
        stranger.answers();
    }
    assert_eq!(busy, 7 + 2, "five in all");
    assert_eq!(counts.dropped(Unplaced::TooManyConnections), 9);
    endpoint.shutdown().await;
}

/// While the replies that are on their way arrive, nothing new begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closing_endpoint_takes_no_calls() {
    let config = EndpointConfig {
        check_reach: false,
        ..local()
    };
    let (endpoint, counting, counts, mut stranger) = host(config).await;
    // A reply that is not acknowledged keeps the endpoint for a moment.
    stranger.send(stranger.header, b"call");
    assert_eq!(stranger.next().body[..], *b"call");
    let closing = tokio::spawn(async move { endpoint.shutdown().await });
    let mut late = stranger.header;
    let refused = loop {
        late.cid = ConnectionId(late.cid.0 + 4);
        stranger.send(late, b"late");
        let packet = stranger.next();
        if packet.header.packet_type == PacketType::Abort {
            break packet;
        }
    };
    assert_eq!(refused.body[..], (-1_i32).to_be_bytes());
    closing.await.unwrap();
    assert!(counts.dropped(Unplaced::Closing) > 0);
    assert!(counting.0.load(Ordering::SeqCst) >= 1);
}

/// A patient asker gets what it asks for; one in a hurry, no more than the rate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_answered_at_a_limited_rate() {
    let (endpoint, _, counts, mut asker) = host(local()).await;
    let question = Header {
        packet_type: PacketType::Debug,
        flags: Flags::CLIENT_INITIATED | Flags::LAST_PACKET,
        service: ServiceId(0),
        ..asker.header
    };
    let started = tokio::time::Instant::now();
    asker
        .socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut answered = 0;
    for _ in 0..40 {
        for _ in 0..50 {
            asker.send(question, &[0, 0, 0, 4, 0, 0, 0, 0]);
        }
        asker
            .socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        while asker.try_next().is_ok() {
            answered += 1;
        }
    }
    let allowed = 200 + 20 * (started.elapsed().as_secs() + 1);
    assert!((200..=allowed).contains(&answered), "{answered} of {allowed}");
    assert!(counts.dropped(Unplaced::TooManyQuestions) > 0);
    let mut other = Stranger::at(Ipv4Addr::new(127, 0, 0, 2), endpoint.local_addr());
    assert_eq!(other.answers(), [], "another host is answered");
    endpoint.shutdown().await;

    let config = EndpointConfig {
        answer_debug: false,
        ..local()
    };
    let (endpoint, _, counts, mut asker) = host(config).await;
    asker.send(question, &[0, 0, 0, 4, 0, 0, 0, 0]);
    assert_eq!(asker.answers(), [], "the version is told, nothing else");
    assert_eq!(counts.dropped(Unplaced::DebugDisabled), 1);
    endpoint.shutdown().await;
}

/// Who takes no reply does not keep an endpoint from going away: its port is free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_nobody_takes_does_not_hold_the_port() {
    let (endpoint, counting, _, mut stranger) = host(local()).await;
    let address = endpoint.local_addr();
    stranger.send(stranger.header, b"hello");
    loop {
        let packet = stranger.next();
        if is_ping(&packet) {
            stranger.answer(&packet);
        } else if packet.header.packet_type == PacketType::Data {
            break;
        }
    }
    assert_eq!(counting.0.load(Ordering::SeqCst), 1);
    endpoint.shutdown().await;
    drop(endpoint);
    let config = EndpointConfig {
        bind: address,
        ..local()
    };
    let mut tries = 0;
    // The tasks of the old one end a moment later.
    while let Err(error) = Endpoint::bind(config.clone(), Arc::new(Counts::default())).await {
        tries += 1;
        assert!(tries < 500, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
