//! Two endpoints on loopback, of which one proves who it is.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs
)]

mod common;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rxrpc::crypto::krb5::{Enctype, Key};
use rxrpc::events::Acquire;
use rxrpc::net::{Endpoint, Service, ServiceCall, Target};
use rxrpc::proto::{AbortCode, CallError, Level, Rejected, ServiceId, Side, Unplaced};
use rxrpc::security::Security;
use rxrpc::security::rxkad::{Fault, Issue, ServerKeys, SessionKey, Token};

use common::{ECHO, echo, local, pair, pattern};

const WHO: ServiceId = ServiceId(9);

/// Answers with the name of the caller and the level.
struct Who;

impl Service for Who {
    fn handle(&self, mut call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            while let Ok(Some(_)) = call.recv().await {}
            let Some(caller) = call.caller() else {
                return call.abort(AbortCode(13));
            };
            let text = format!("{}@{} {:?}", caller.name, caller.cell, caller.level);
            if call.send(text.into()).await.is_ok() {
                let _ = call.finish();
            }
        })
    }
}

fn key() -> Key {
    Key::new(Enctype::Aes256Sha384, &[5; 32]).unwrap()
}

fn security(name: &str, level: Level, key: &Key) -> Security {
    let issue = Issue {
        name: &[name],
        realm: "LAB.EXAMPLE",
        session: SessionKey::new([name.len() as u8; 8]),
        times: (0, 0x7fff_ffff),
    };
    let token: Token = issue.token(4, key, [name.len() as u8; 16]).unwrap();
    Security::Rxkad {
        token: Arc::new(token),
        level,
    }
}

fn accept(server: &Endpoint, least: Level) {
    server.accept_rxkad(ServerKeys::from_iter([(4, key())]), least);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_is_intact_at_every_level() {
    let (client, server, target, counts) = pair(local()).await;
    accept(&server, Level::Clear);
    for level in Level::ALL {
        let target = Target {
            security: security("alice", level, &key()),
            ..target.clone()
        };
        for len in [1, 1407, 1408, 1409, 1416, 100_000, 3_000_000] {
            let reply = echo(&client, &target, pattern(len)).await.unwrap();
            assert!(reply == pattern(len), "{level:?}, {len} bytes");
        }
    }
    let created = counts.acquired(Side::Service, Acquire::Created);
    assert_eq!(created, 3, "one connection for each level");
    assert_eq!(counts.dropped(Rejected::BadSeal), 0);
    client.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_are_told_apart() {
    let (client, server, _, _) = pair(local()).await;
    accept(&server, Level::Auth);
    server.serve(WHO, Arc::new(Who));
    let anonymous = Target::new(server.local_addr(), WHO);
    let calls: Vec<_> = (0..60)
        .map(|at| {
            let name = ["al", "bob", "carol"][at % 3];
            let level = [Level::Auth, Level::Crypt][at % 2];
            let target = Target {
                security: security(name, level, &key()),
                ..anonymous.clone()
            };
            let client = client.clone();
            tokio::spawn(async move {
                let reply = echo(&client, &target, Bytes::from_static(b"?")).await.unwrap();
                assert_eq!(reply, format!("{name}@LAB.EXAMPLE {level:?}"));
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    let refused = echo(&client, &anonymous, Bytes::from_static(b"?")).await;
    assert_eq!(
        refused,
        Err(CallError::Aborted(AbortCode(13))),
        "nobody has no name"
    );
    client.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_proves_nothing_is_refused_and_others_are_not() {
    let (client, server, target, counts) = pair(local()).await;
    let alice = Target {
        security: security("alice", Level::Crypt, &key()),
        ..target.clone()
    };
    let refused = echo(&client, &alice, pattern(10)).await;
    assert!(
        matches!(
            refused,
            Err(CallError::Aborted(_) | CallError::ConnectionAborted(_))
        ),
        "{refused:?}"
    );
    // What happened is told after the answer was sent.
    let told = async {
        while counts.dropped(Unplaced::UnknownSecurity) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(10), told).await;
    told.expect("a service without keys");

    accept(&server, Level::Auth);
    let stranger = Key::new(Enctype::Aes256Sha384, &[6; 32]).unwrap();
    for (security, expected) in [
        (
            security("alice", Level::Crypt, &stranger),
            CallError::ConnectionAborted(Fault::BadTicket.code()),
        ),
        (
            security("alice", Level::Clear, &key()),
            CallError::Protocol(Fault::LevelFail.code()),
        ),
    ] {
        let target = Target {
            security,
            ..target.clone()
        };
        // The connection is dead, and a call makes a new one: each is refused for its own reason.
        for _ in 0..2 {
            assert_eq!(echo(&client, &target, pattern(5000)).await, Err(expected));
        }
        assert_eq!(echo(&client, &alice, pattern(5000)).await, Ok(pattern(5000)));
    }
    assert_eq!(
        echo(
            &client,
            &Target {
                service: ECHO,
                ..target
            },
            pattern(9)
        )
        .await,
        Ok(pattern(9))
    );
    client.shutdown().await;
    server.shutdown().await;
}
