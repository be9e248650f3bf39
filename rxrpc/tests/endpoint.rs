//! Two endpoints on loopback: calls, their limits, and the life of connections.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs
)]

mod common;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rxrpc::events::{Acquire, NullSink};
use rxrpc::net::{Endpoint, EndpointConfig, Service, ServiceCall, Target};
use rxrpc::proto::{AbortCode, CallError, CallLimits, ServiceId, Side};

use common::{ECHO, echo, local, pair, pattern};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_are_what_was_sent() {
    let (client, server, target, _) = pair(local()).await;
    for len in [1, 2, 1411, 1412, 1413, 1416, 1417, 100_000, 5_000_000] {
        let reply = echo(&client, &target, pattern(len)).await.unwrap();
        assert!(reply == pattern(len), "{len} bytes");
    }
    client.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_share_four_connections() {
    let (client, server, target, counts) = pair(local()).await;
    let calls: Vec<_> = (0..500)
        .map(|at| {
            let (client, target) = (client.clone(), target.clone());
            tokio::spawn(async move { echo(&client, &target, pattern(1 + at * 7)).await })
        })
        .collect();
    for (at, call) in calls.into_iter().enumerate() {
        assert!(call.await.unwrap().unwrap() == pattern(1 + at * 7));
    }
    let total = client.connections(Side::Client);
    assert!(total.active + total.idle <= 4, "{total:?}");
    let created = counts.acquired(Side::Client, Acquire::Created);
    assert!(created <= 4, "{created}");
    assert_eq!(counts.acquired(Side::Service, Acquire::Created), created);
    client.shutdown().await;
    server.shutdown().await;
    assert_eq!(*counts.closed.lock().unwrap(), 2 * created);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborts_reach_the_other_side() {
    let (client, server, target, _) = pair(local()).await;
    assert_eq!(
        echo(&client, &target, Bytes::new()).await,
        Err(CallError::Aborted(AbortCode(42)))
    );
    let unknown = Target {
        service: ServiceId(99),
        ..target.clone()
    };
    let refused = echo(&client, &unknown, pattern(10)).await;
    assert!(
        matches!(
            refused,
            Err(CallError::Aborted(AbortCode(-2)) | CallError::ConnectionAborted(AbortCode(-2)))
        ),
        "{refused:?}"
    );
    assert_eq!(echo(&client, &target, pattern(10)).await, Ok(pattern(10)));
    client.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_peer_is_dead_in_time() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let SocketAddr::V4(peer) = silent.local_addr().unwrap() else {
        unreachable!()
    };
    let client = Endpoint::bind(local(), Arc::new(NullSink)).await.unwrap();
    let limits = CallLimits {
        dead_in: Duration::from_millis(300),
        ..CallLimits::default()
    };
    let target = Target {
        limits,
        ..Target::new(peer, ECHO)
    };
    assert_eq!(
        echo(&client, &target, pattern(10)).await,
        Err(CallError::PeerDead)
    );
    client.shutdown().await;
}

/// Where nobody listens any more: the network says so at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_port_fails_calls_at_once() {
    let (client, server, target, _) = pair(local()).await;
    let closed = Target {
        peer: {
            let gone = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let SocketAddr::V4(peer) = gone.local_addr().unwrap() else {
                unreachable!()
            };
            peer
        },
        ..target.clone()
    };
    let started = tokio::time::Instant::now();
    for round in 0..100 {
        let (refused, answered) = tokio::join!(
            echo(&client, &closed, pattern(10)),
            echo(&client, &target, pattern(10_000))
        );
        assert!(matches!(refused, Err(CallError::Unreachable(_))), "{refused:?}");
        assert_eq!(
            answered,
            Ok(pattern(10_000)),
            "round {round}: another peer is none the worse"
        );
    }
    assert!(
        started.elapsed() < target.limits.dead_in,
        "no call has waited for its limit"
    );
    let errors = client
        .peers()
        .iter()
        .find(|peer| peer.address == closed.peer)
        .unwrap()
        .errors;
    assert!(errors >= 100, "{errors}");
    client.shutdown().await;
    server.shutdown().await;
}

/// A server that had the request and vanished: nobody knows what it did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_vanishes_breaks_the_path() {
    let server = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let SocketAddr::V4(peer) = server.local_addr().unwrap() else {
        unreachable!()
    };
    let client = Endpoint::bind(local(), Arc::new(NullSink)).await.unwrap();
    let target = Target::new(peer, ECHO);
    let call = tokio::spawn(async move { (echo(&client, &target, pattern(10)).await, client) });
    server.readable().await.unwrap();
    drop(server);
    let (broken, client) = call.await.unwrap();
    assert!(matches!(broken, Err(CallError::PathBroken(_))), "{broken:?}");
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_reaped_and_come_back() {
    let config = EndpointConfig {
        client_idle: Duration::from_millis(50),
        service_idle: Duration::from_millis(50),
        ..local()
    };
    let (client, server, target, counts) = pair(config).await;
    for round in 1..=3 {
        assert_eq!(echo(&client, &target, pattern(100)).await, Ok(pattern(100)));
        assert_eq!(counts.acquired(Side::Client, Acquire::Created), round);
        while client.connections(Side::Client).idle + server.connections(Side::Service).idle > 0
            || server.connections(Side::Service).active > 0
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    client.shutdown().await;
    server.shutdown().await;
}

/// The point of the whole scheme: calls that arrive while the reaper retires their connection are all answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_call_is_lost_on_a_dying_connection() {
    let config = EndpointConfig {
        client_idle: Duration::from_mins(2),
        service_idle: Duration::from_millis(1),
        ..local()
    };
    let (client, server, target, counts) = pair(config).await;
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let (client, target) = (client.clone(), target.clone());
            tokio::spawn(async move {
                for round in 0..60_usize {
                    let request = pattern(1 + round);
                    assert_eq!(echo(&client, &target, request.clone()).await, Ok(request));
                    tokio::time::sleep(Duration::from_millis(8 + (worker + round as u64) % 4)).await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    let made = counts.acquired(Side::Service, Acquire::Created)
        + counts.acquired(Side::Service, Acquire::RefusedDying);
    assert!(
        made > 4,
        "the reaper was never in the way: {:?}",
        counts.acquired.lock().unwrap()
    );
    client.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_do_no_harm() {
    let (client, server, target, counts) = pair(local()).await;
    let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut seed = 0x9e37_79b9_u32;
    let noise = tokio::task::spawn_blocking(move || {
        for round in 0..3000_usize {
            let datagram: Vec<u8> = (0..round % 90)
                .map(|at| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    if at == 20 {
                        (seed >> 24) as u8 % 15
                    } else {
                        (seed >> 24) as u8
                    }
                })
                .collect();
            for peer in [target.peer, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1)] {
                let _ = stranger.send_to(&datagram, peer);
            }
        }
        target
    });
    let (second, _server2, target2, _) = pair(local()).await;
    drop(second);
    for _ in 0..20 {
        assert!(echo(&client, &target2, pattern(50_000)).await.is_ok());
    }
    let target = noise.await.unwrap();
    assert_eq!(echo(&client, &target, pattern(100)).await, Ok(pattern(100)));
    assert!(!counts.dropped.lock().unwrap().is_empty());
    client.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_is_answered() {
    let config = EndpointConfig {
        version: "hello from a test".to_owned(),
        ..local()
    };
    let (client, server, target, _) = pair(config).await;
    let asker = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    asker.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut question = [0; 29];
    question[20] = 13;
    question[21] = 0x05;
    asker.send_to(&question, target.peer).unwrap();
    let reply = tokio::task::spawn_blocking(move || {
        let mut reply = [0; 200];
        let len = asker.recv(&mut reply).unwrap();
        reply[..len].to_vec()
    })
    .await
    .unwrap();
    assert_eq!(reply.len(), 28 + 65);
    assert_eq!((reply[20], reply[21]), (13, 0x04));
    assert!(reply[28..].starts_with(b"hello from a test\0"));
    client.shutdown().await;
    server.shutdown().await;
}

/// Answers with the number of its service.
struct Named;

impl Service for Named {
    fn handle(&self, mut call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            while let Ok(Some(_)) = call.recv().await {}
            let name = Bytes::copy_from_slice(&call.service().0.to_be_bytes());
            if call.send(name).await.is_ok() {
                let _ = call.finish();
            }
        })
    }
}

/// Makes a call; gives which service answered, by its own word and by its packets.
async fn who_answers(client: &Endpoint, target: &Target) -> Result<(ServiceId, ServiceId), CallError> {
    let mut call = client.call(target).await?;
    call.send(pattern(40_000)).await?;
    call.finish()?;
    let mut name = Vec::new();
    while let Some(data) = call.recv().await? {
        name.extend_from_slice(&data);
    }
    let said = ServiceId(u16::from_be_bytes([name[0], name[1]]));
    Ok((said, call.service()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_service_is_offered_to_those_who_ask() {
    let (older, newer) = (ServiceId(1), ServiceId(2500));
    let server = Endpoint::bind(local(), Arc::new(NullSink)).await.unwrap();
    server.serve(older, Arc::new(Named));
    server.serve_upgraded(older, newer, Arc::new(Named));
    let client = Endpoint::bind(local(), Arc::new(NullSink)).await.unwrap();
    let plain = Target::new(server.local_addr(), older);
    let asking = Target {
        upgrade: true,
        ..plain.clone()
    };
    assert_eq!(who_answers(&client, &plain).await.unwrap(), (older, older));
    // More than there are connections: those that find no open channel wait for one.
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let (client, asking) = (client.clone(), asking.clone());
            tokio::spawn(async move { who_answers(&client, &asking).await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), (newer, newer));
    }
    assert_eq!(who_answers(&client, &plain).await.unwrap(), (older, older));

    let old_server = Endpoint::bind(local(), Arc::new(NullSink)).await.unwrap();
    old_server.serve(older, Arc::new(Named));
    let asking = Target {
        upgrade: true,
        ..Target::new(old_server.local_addr(), older)
    };
    assert_eq!(who_answers(&client, &asking).await.unwrap(), (older, older));
    for endpoint in [client, server, old_server] {
        endpoint.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_back_is_kept_open_while_somebody_wants_it() {
    let client = Endpoint::bind(local(), Arc::new(NullSink)).await.unwrap();
    let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let SocketAddr::V4(address) = peer.local_addr().unwrap() else {
        panic!("not IPv4");
    };
    let held = [client.keep_open(address), client.keep_open(address)];
    peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (packet, len) = tokio::task::spawn_blocking(move || {
        let mut packet = [0; 100];
        let len = peer.recv(&mut packet).unwrap();
        (packet, len)
    })
    .await
    .unwrap();
    assert_eq!(len, 29);
    assert_eq!(
        packet[4..29],
        *b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x0d\x04\0\0\0\0\0\0\0"
    );
    let [known] = client.peers()[..] else {
        panic!("one peer");
    };
    assert_eq!((known.address, known.connections), (address, 0));
    assert_eq!(known.keep_alive, Some(Duration::from_secs(20)));
    assert_eq!(known.keep_alives_sent, 1);
    drop(held);
    assert!(client.peers().is_empty());
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_datagrams_are_searched_for_where_both_sides_want_them() {
    let config = EndpointConfig {
        max_datagram: 16_000,
        ..local()
    };
    for (config, most) in [(config, 16_000), (local(), 1444)] {
        let (client, server, target, _) = pair(config).await;
        let request = pattern(8_000_000);
        assert!(echo(&client, &target, request.clone()).await.unwrap() == request);
        let [known] = client.peers()[..] else {
            panic!("one peer");
        };
        assert_eq!(known.datagram, most, "{known:?}");
        assert_eq!(known.path_probes > 0, most > 1444, "{known:?}");
        client.shutdown().await;
        server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jumbograms_carry_what_was_sent_if_they_are_wanted() {
    let (client, server, target, counts) = pair(EndpointConfig {
        jumbograms: true,
        ..local()
    })
    .await;
    let request = pattern(8_000_000);
    assert!(echo(&client, &target, request.clone()).await.unwrap() == request);
    assert!(!counts.dropped.lock().unwrap().contains(&"jumbo_too_many"));
    client.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jumbograms_are_refused_where_nobody_asked_for_them() {
    let (client, server, _, counts) = pair(local()).await;
    let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    // DATA of call 1, CLIENT_INITIATED and JUMBO_PACKET, for service 7; another full part follows.
    let mut jumbogram =
        b"\x80\0\0\x01\0\0\0\x10\0\0\0\x01\0\0\0\x01\0\0\0\x01\x01\x21\0\0\0\0\0\x07".to_vec();
    jumbogram.extend([7; 1412]);
    jumbogram.extend([0x05, 0, 0, 0]);
    jumbogram.extend([7; 1412]);
    stranger.send_to(&jumbogram, server.local_addr()).unwrap();
    let refused = async {
        while !counts.dropped.lock().unwrap().contains(&"jumbo_too_many") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), refused)
        .await
        .unwrap();
    assert_eq!(server.connections(Side::Service).active, 0);
    client.shutdown().await;
    server.shutdown().await;
}
