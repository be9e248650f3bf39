//! The servers as anybody on the network meets them: procedure by procedure, and with nonsense.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use afs_client::rpc::client::{RpcError, call, fetch_data, store_data};
use afs_client::rpc::fs::*;
use afs_client::rpc::types::AfsFid;
use afs_client::xdr::{Encode, List};
use bytes::Bytes;
use rxrpc::events::{NullSink, Sink};
use rxrpc::net::{Endpoint, EndpointConfig, Target};
use rxrpc::proto::{AbortCode, ServiceId};
use testcell::embedded::{Cell, Clock, Settings};

use super::client::{CELL, address, cell, cell_with, run, settings};
use super::peer::Peer;
use super::transcript;

/// The first file server of a cell.
fn server_of(cell: &Cell) -> SocketAddrV4 {
    let line = cell.cellservdb();
    let address = line.lines().nth(1).unwrap().split(' ').next().unwrap();
    SocketAddrV4::new(address.parse().unwrap(), 7000)
}

fn local(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

impl Peer {
    async fn new(cell: &Cell, questions: usize) -> Self {
        Self::at(local(0), server_of(cell), questions, Arc::new(NullSink)).await
    }

    /// One that tells what happens to it.
    pub(crate) async fn watched(cell: &Cell, sink: Arc<dyn Sink>) -> Self {
        Self::at(local(0), server_of(cell), 2, sink).await
    }
}

fn root(cell: &Cell, volume: &str) -> AfsFid {
    let [volume, vnode, unique] = cell.fid(volume, "").unwrap();
    AfsFid {
        volume,
        vnode,
        unique,
    }
}

const EACCES: i32 = 49_733_388;
const EINVAL: i32 = 49_733_397;
const EAGAIN: i32 = 49_733_386;
const EXDEV: i32 = 49_733_393;

#[test]
fn an_unknown_client_is_asked_in_the_order_of_openafs() {
    for (questions, asked, absent) in [
        (
            2,
            vec![("InitCallBackState3", 1), ("TellMeAboutYourself", 1)],
            49_733_377,
        ),
        (
            1,
            vec![
                ("WhoAreYou", 1),
                ("InitCallBackState3", 1),
                ("TellMeAboutYourself", 1),
            ],
            2,
        ),
        (
            0,
            vec![
                ("InitCallBackState", 1),
                ("WhoAreYou", 1),
                ("TellMeAboutYourself", 1),
            ],
            2,
        ),
    ] {
        run(async move {
            let cell = cell(1).await;
            let peer = Peer::new(&cell, questions).await;
            peer.call(GetTime {}).await.unwrap();
            peer.call(GetTime {}).await.unwrap();
            assert_eq!(peer.asked(), asked);
            // Who does not announce it gets the numbers of the system.
            let request = RemoveFile {
                dir: root(&cell, "work"),
                name: b"none"[..].into(),
            };
            assert_eq!(peer.call(request).await, Err(absent));
            peer.endpoint.shutdown().await;
            cell.shutdown().await;
        });
    }
}

#[test]
fn a_client_that_does_not_answer_is_refused() {
    run(async {
        let cell = cell(1).await;
        let mut peer = Peer::new(&cell, 2).await;
        // No callback service at this port.
        let config = EndpointConfig {
            bind: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
            ..EndpointConfig::default()
        };
        peer.endpoint = Endpoint::bind(config, Arc::new(NullSink)).await.unwrap();
        assert_eq!(peer.call(GetTime {}).await, Err(-1));
        cell.shutdown().await;
    });
}

#[test]
fn lists_of_rights_are_kept_and_checked() {
    run(async {
        let cell = cell(1).await;
        let peer = Peer::new(&cell, 2).await;
        let dir = root(&cell, "work");
        let acl = |text: &str| StoreAcl {
            fid: dir,
            acl: text.as_bytes().into(),
        };
        let listed = peer.call(FetchAcl { fid: dir }).await.unwrap().acl;
        assert_eq!(
            &listed.0[..],
            b"2\n0\nsystem:administrators\t127\nsystem:anyuser\t127\n\0"
        );
        let many = format!("21\n0\n{}", "system:anyuser 1\n".repeat(21));
        assert_eq!(peer.call(acl(&many)).await, Err(EINVAL));
        assert_eq!(peer.call(acl("1\n0\nnobody\t1\n")).await, Err(EINVAL));
        let file = peer.create(dir, "file").await;
        peer.call(acl("1\n0\nsystem:anyuser\t8\n\0")).await.unwrap();
        let lookup = FetchAcl { fid: dir };
        assert!(peer.call(lookup).await.is_ok(), "LOOKUP is enough");
        assert_eq!(
            peer.call(FetchAcl { fid: file }).await,
            Err(EACCES),
            "a file needs READ"
        );
        assert_eq!(peer.call(FetchStatusOf { fid: file }).await, Err(EACCES));
        assert_eq!(peer.call(acl("1\n0\nsystem:anyuser\t127\n")).await, Err(EACCES));
        cell.allow_anyone("work", "", "rlidwka").await.unwrap();
        assert!(peer.call(FetchStatusOf { fid: file }).await.is_ok());
        let home = root(&cell, "home.alice");
        assert_eq!(peer.call(FetchAcl { fid: home }).await, Err(EACCES));
        assert_eq!(
            peer.status(home).await.status.caller_access,
            0,
            "a directory shows itself"
        );
        cell.shutdown().await;
    });
}

#[test]
fn locks_belong_to_nobody_and_end() {
    run(async {
        let clock = Clock::standing(1_700_000_000);
        let cell = cell_with(Settings {
            clock: clock.clone(),
            ..settings(1)
        })
        .await;
        let (one, two) = (Peer::new(&cell, 2).await, Peer::new(&cell, 2).await);
        let fid = one.create(root(&cell, "work"), "file").await;
        one.call(SetLock { fid, kind: 1 }).await.unwrap();
        assert_eq!(two.call(SetLock { fid, kind: 0 }).await.unwrap_err(), EAGAIN);
        assert_eq!(two.status(fid).await.status.lock_count, u32::MAX);
        clock.advance(Duration::from_secs(299));
        two.call(ExtendLock { fid }).await.unwrap();
        clock.advance(Duration::from_secs(299));
        assert_eq!(two.call(SetLock { fid, kind: 0 }).await.unwrap_err(), EAGAIN);
        // Who waits for it hears that it is free.
        let heard = two.asked_for("CallBack");
        one.call(ReleaseLock { fid }).await.unwrap();
        assert_eq!(two.asked_for("CallBack"), heard + 1);
        two.call(SetLock { fid, kind: 0 }).await.unwrap();
        one.call(SetLock { fid, kind: 0 }).await.unwrap();
        assert_eq!(one.status(fid).await.status.lock_count, 2);
        clock.advance(Duration::from_secs(300));
        assert_eq!(one.status(fid).await.status.lock_count, 0);
        assert_eq!(one.call(ExtendLock { fid }).await.unwrap_err(), EINVAL);
        assert_eq!(one.call(SetLock { fid, kind: 2 }).await.unwrap_err(), EINVAL);
        cell.shutdown().await;
    });
}

#[test]
fn bulk_calls_fail_as_a_whole_or_slot_by_slot() {
    run(async {
        let cell = cell(1).await;
        let peer = Peer::new(&cell, 2).await;
        let file = peer.create(root(&cell, "work"), "file").await;
        let gone = AfsFid { unique: 99, ..file };
        let nowhere = AfsFid { volume: 1, ..file };
        let [volume, vnode, unique] = cell.fid("home.alice", "diary").unwrap();
        let secret = AfsFid {
            volume,
            vnode,
            unique,
        };
        let fids = List(vec![file, gone, nowhere, secret, root(&cell, "tiny")]);
        let reply = peer.call(InlineBulkStatus { fids: fids.clone() }).await.unwrap();
        let codes: Vec<_> = reply.statuses.0.iter().map(|status| status.error_code).collect();
        assert_eq!(codes, [0, 102, 103, EACCES, 0]);
        let types: Vec<_> = reply
            .callbacks
            .0
            .iter()
            .map(|promise| promise.callback_type)
            .collect();
        assert_eq!(types, [2, 0, 0, 0, 2]);
        let life = reply.callbacks.0[0].expiration_time;
        assert!((1_801..=1_928).contains(&life), "{life}");
        assert_eq!(peer.call(BulkStatus { fids }).await.unwrap_err(), 102);
        let whole = List(vec![file, root(&cell, "work")]);
        assert_eq!(
            peer.call(BulkStatus { fids: whole })
                .await
                .unwrap()
                .statuses
                .0
                .len(),
            2
        );
        cell.shutdown().await;
    });
}

#[test]
fn volumes_and_servers_tell_about_themselves() {
    run(async {
        let cell = cell(1).await;
        let peer = Peer::new(&cell, 2).await;
        let volume = root(&cell, "tiny").volume;
        let reply = peer.call(GetVolumeStatus { volume }).await.unwrap();
        assert_eq!(reply.name.lossy(), "tiny");
        assert_eq!(
            (
                reply.status.max_quota,
                reply.status.blocks_in_use,
                reply.status.kind
            ),
            (1000, 2, 1)
        );
        let set = SetVolumeStatus {
            volume,
            ..SetVolumeStatus::default()
        };
        assert_eq!(peer.call(set).await, Err(EACCES));
        let capabilities = peer.call(GetCapabilities {}).await.unwrap().capabilities;
        assert_eq!(capabilities.0, [7]);
        let file = peer.create(root(&cell, "work"), "file").await;
        let link = Link {
            dir: root(&cell, "tiny"),
            name: b"link"[..].into(),
            fid: file,
        };
        assert_eq!(peer.call(link).await, Err(EXDEV));
        cell.refuse("work", Some(106)).await.unwrap();
        assert_eq!(peer.call(FetchStatusOf { fid: file }).await, Err(106));
        cell.refuse("work", None).await.unwrap();
        peer.status(file).await;
        cell.shutdown().await;
    });
}

#[test]
fn data_has_lengths_of_63_bits() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let cell = cell_with(Settings {
            spill: Some(folder.path().to_owned()),
            ..settings(1)
        })
        .await;
        cell.set_quota("work", 0).await.unwrap();
        let peer = Peer::new(&cell, 2).await;
        let fid = peer.create(root(&cell, "work"), "sparse").await;
        let far = 1 << 40;
        let args = StoreDataArgs {
            fid,
            position: far,
            length: 3,
            file_length: far + 3,
            ..StoreDataArgs::default()
        };
        let mut source = |_: u64, _: usize| Ok(Bytes::from_static(b"end"));
        let stored = store_data(&peer.endpoint, &peer.target(), &args, &mut source)
            .await
            .unwrap();
        assert_eq!(stored.status.length(), far + 3);
        let fetch = |position, length| FetchDataArgs {
            fid,
            position,
            length,
        };
        let mut got = Vec::new();
        let mut sink = |_: u64, parts: &[Bytes]| {
            parts.iter().for_each(|part| got.extend_from_slice(part));
            Ok(())
        };
        let (length, _) = fetch_data(&peer.endpoint, &peer.target(), &fetch(far - 2, 100), &mut sink)
            .await
            .unwrap();
        assert_eq!((length, &got[..]), (5, &b"\0\0end"[..]));
        let mut nothing = |_: u64, _: &[Bytes]| Ok(());
        let (length, _) = fetch_data(&peer.endpoint, &peer.target(), &fetch(far * 2, 100), &mut nothing)
            .await
            .unwrap();
        assert_eq!(length, 0, "behind the end is nothing, and no error");
        let wrong = fetch_data(&peer.endpoint, &peer.target(), &fetch(u64::MAX, 1), &mut nothing).await;
        assert!(
            matches!(wrong, Err(RpcError::Aborted(AbortCode(49_733_402)))),
            "EFBIG"
        );
        cell.shutdown().await;
    });
}

#[test]
fn a_host_that_died_costs_one_wait_and_hears_of_everything_when_it_is_back() {
    run(async {
        let cell = cell(1).await;
        let (one, two) = (Peer::new(&cell, 2).await, Peer::new(&cell, 2).await);
        let dir = root(&cell, "work");
        let fid = one.create(dir, "file").await;
        two.status(fid).await;
        two.status(dir).await;
        let port = two.endpoint.local_addr().port();
        two.endpoint.shutdown().await;
        drop(two);
        let before = cell.promises(1).unwrap();
        one.store(fid, b"new").await.unwrap();
        one.create(dir, "other").await;
        assert!(cell.promises(1).unwrap() < before + 2);
        // The same client at the same port: it is told what it missed before it is answered.
        let two = Peer::at(local(port), server_of(&cell), 2, Arc::new(NullSink)).await;
        two.call(GetTime {}).await.unwrap();
        assert_eq!(two.asked(), [("CallBack", 1), ("TellMeAboutYourself", 1)]);
        cell.shutdown().await;
    });
}

#[test]
fn silent_hosts_are_asked_and_forgotten() {
    run(async {
        let clock = Clock::standing(1_700_000_000);
        let cell = cell_with(Settings {
            clock: clock.clone(),
            ..settings(1)
        })
        .await;
        let (there, gone) = (Peer::new(&cell, 2).await, Peer::new(&cell, 2).await);
        let dir = root(&cell, "work");
        there.status(dir).await;
        gone.status(dir).await;
        gone.endpoint.shutdown().await;
        clock.advance(Duration::from_mins(16));
        cell.look_after_hosts().await;
        assert_eq!(there.asked_for("ProbeUuid"), 1);
        // The one that is gone is known to be: nobody waits for it.
        there.create(dir, "file").await;
        assert_eq!(cell.hosts(1).unwrap(), 2);
        clock.advance(Duration::from_mins(105));
        there.call(GetTime {}).await.unwrap();
        cell.look_after_hosts().await;
        assert_eq!(cell.hosts(1).unwrap(), 1);
        cell.shutdown().await;
    });
}

#[test]
fn promises_are_given_up_one_by_one() {
    run(async {
        let cell = cell(1).await;
        let (one, two) = (Peer::new(&cell, 2).await, Peer::new(&cell, 2).await);
        let fid = one.create(root(&cell, "work"), "file").await;
        two.status(fid).await;
        let before = cell.promises(1).unwrap();
        let more = GiveUpCallBacks {
            fids: List(vec![]),
            callbacks: List(vec![Default::default()]),
        };
        assert_eq!(two.call(more).await, Err(EINVAL));
        let give_up = GiveUpCallBacks {
            fids: List(vec![fid, AfsFid::default()]),
            callbacks: List(vec![]),
        };
        two.call(give_up).await.unwrap();
        assert_eq!(cell.promises(1).unwrap(), before - 1);
        one.store(fid, b"data").await.unwrap();
        assert_eq!(two.asked_for("CallBack"), 0);
        cell.shutdown().await;
    });
}

/// Whatever is sent, the server answers the next call.
#[test]
fn nonsense_is_refused_and_harms_nobody() {
    run(async {
        let cell = cell(1).await;
        let peer = Peer::new(&cell, 2).await;
        let dir = root(&cell, "work");
        peer.create(dir, "file").await;
        let mut random = testcell::Random::new(4);
        let opcodes: Vec<u32> = PROCEDURES.iter().map(|(opcode, _)| *opcode).collect();
        let opcodes = [&opcodes[..], &[FETCH_DATA, STORE_DATA, 0, u32::MAX, 130]].concat();
        for round in 0..600_usize {
            let opcode = opcodes[round % opcodes.len()];
            let mut request = Vec::new();
            opcode.encode(&mut request);
            if round % 3 > 0 {
                // A real file first, so that it gets further.
                dir.encode(&mut request);
            }
            let length = random.below(120) as usize;
            let mut bytes = random.bytes(length);
            if round % 2 == 0 {
                bytes.iter_mut().for_each(|byte| *byte %= 3);
            }
            request.extend_from_slice(&bytes);
            request.truncate(request.len().saturating_sub(random.below(4) as usize));
            let mut call = peer.endpoint.call(&peer.target()).await.unwrap();
            // It may be refused before it is sent.
            let _ = call.send(request.into()).await;
            let _ = call.finish();
            while let Ok(Some(_)) = call.recv().await {}
        }
        assert_eq!(
            peer.call(FetchStatusOf {
                fid: AfsFid::default()
            })
            .await,
            Err(EINVAL)
        );
        peer.status(dir).await;
        let unknown = Target::new(peer.server, ServiceId(2500));
        let refused = call(&peer.endpoint, &unknown, &GetTime {}).await;
        assert!(
            matches!(refused, Err(RpcError::Aborted(AbortCode(-2)))),
            "{refused:?}"
        );
        cell.shutdown().await;
    });
}

#[test]
fn a_taken_port_is_told() {
    run(async {
        let address = address();
        let cell = Cell::start(Settings::new(CELL, address)).await.unwrap();
        let second = Cell::start(Settings::new(CELL, address)).await.unwrap_err();
        assert!(second.to_string().contains("7003"), "{second}");
        cell.shutdown().await;
    });
}

/// Call by call the answers are those of OpenAFS: `tests/cell/procedures.rs` holds real servers against the same text.
#[test]
fn the_servers_say_what_those_of_openafs_say() {
    run(async {
        let cell = cell(1).await;
        let server = *server_of(&cell).ip();
        let said = transcript::of(Ipv4Addr::LOCALHOST, server, server).await;
        let differences = transcript::differences(transcript::EXPECTED, &said);
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        cell.shutdown().await;
    });
}

/// Many callers at once, each in a directory of its own: each call is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_never_pause_are_all_answered() {
    let cell = cell(1).await;
    let client = Arc::new(Peer::new(&cell, 2).await);
    let root = root(&cell, "work");
    let callers: Vec<_> = (0..8)
        .map(|number| {
            let client = Arc::clone(&client);
            tokio::spawn(async move {
                let target = Target {
                    scope: Arc::from(format!("callers-{}", number / 4)),
                    ..client.target()
                };
                let make = MakeDir {
                    dir: root,
                    name: format!("of-{number}").as_bytes().into(),
                    ..MakeDir::default()
                };
                let dir = call(&client.endpoint, &target, &make).await.unwrap().fid;
                for _ in 0..ROUNDS {
                    let name = b"file"[..].into();
                    let create = CreateFile {
                        dir,
                        name,
                        ..CreateFile::default()
                    };
                    call(&client.endpoint, &target, &create).await.unwrap();
                    let remove = RemoveFile {
                        dir,
                        name: b"file"[..].into(),
                    };
                    call(&client.endpoint, &target, &remove).await.unwrap();
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
}

/// Of one caller. With fifty times as many, servers that forgot what waited to leave fell silent each time.
const ROUNDS: u32 = 3000;
