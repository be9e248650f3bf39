//! Callers with tickets: whose rights they have at every level, and what becomes of tickets, messages and packets that are
//! no good.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use afs_client::error::Error;
use afs_client::rpc::Procedure;
use afs_client::rpc::client::{RpcError, call, fetch_data};
use afs_client::rpc::fs::{FetchDataArgs, FetchStatusOf, MakeDir};
use afs_client::rpc::types::AfsFid;
use bytes::Bytes;
use parking_lot::Mutex;
use rustix::io::Errno;
use rxrpc::crypto::krb5::{Enctype, Key};
use rxrpc::events::{Acquire, Event, Sink};
use rxrpc::net::Target;
use rxrpc::proto::{CallLimits, Level, PacketType, Rejected, ServiceId, Side};
use rxrpc::security::Security;
use rxrpc::security::rxkad::{Fault, SessionKey, Token};
use testcell::embedded::faults::{Action, Calls, Memory, Rule, When};
use testcell::embedded::{Accounts, Cell, Settings};

use super::client::{CELL, Client, cell, cell_with, errno, run, settings};
use super::peer::Peer;
use super::relay::{BODY, Passing, Relay, Way, header, is};

const DIARY: &[u8] = b"Dear diary, only alice reads this.\n";
const KVNO: u32 = 4;
const ALL_RIGHTS: u32 = 0x7f;

fn key(byte: u8) -> Key {
    Key::new(Enctype::Aes256Sha384, &[byte; 32]).unwrap()
}

fn with_key(least: Level) -> Settings {
    let mut accounts = Accounts::default().with_key(KVNO, key(5));
    accounts.least = least;
    Settings {
        accounts,
        ..settings(1)
    }
}

#[expect(clippy::disallowed_methods, reason = "tickets are dated by the calendar")]
fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_secs()
}

/// What the cell's realm gives to a user for ten minutes.
fn token(cell: &Cell, name: &str) -> Token {
    cell.token(&[name], (now() - 60, now() + 600)).unwrap()
}

fn security(token: Token, level: Level) -> Security {
    Security::Rxkad {
        token: Arc::new(token),
        level,
    }
}

fn target(peer: SocketAddrV4, security: Security) -> Target {
    Target {
        security,
        limits: CallLimits {
            dead_in: Duration::from_secs(10),
            ..CallLimits::default()
        },
        ..Target::new(peer, ServiceId(1))
    }
}

fn fid(cell: &Cell, path: &str) -> AfsFid {
    let [volume, vnode, unique] = cell.fid("home.alice", path).unwrap();
    AfsFid {
        volume,
        vnode,
        unique,
    }
}

/// The diary, as somebody may read it.
async fn diary(cell: &Cell, peer: &Peer, target: &Target) -> Result<Vec<u8>, RpcError> {
    let args = FetchDataArgs {
        fid: fid(cell, "diary"),
        length: 1 << 16,
        ..FetchDataArgs::default()
    };
    let mut read = Vec::new();
    let mut sink = |_, parts: &[Bytes]| {
        parts.iter().for_each(|part| read.extend_from_slice(part));
        Ok(())
    };
    fetch_data(&peer.endpoint, target, &args, &mut sink).await?;
    Ok(read)
}

/// Somebody's rights on the root of alice's volume.
async fn rights(cell: &Cell, peer: &Peer, target: &Target) -> Result<u32, RpcError> {
    let request = FetchStatusOf { fid: fid(cell, "") };
    let reply = call(&peer.endpoint, target, &request).await?;
    Ok(reply.status.caller_access)
}

/// Counts what an endpoint tells.
#[derive(Default)]
struct Watch {
    dropped: Mutex<HashMap<&'static str, u64>>,
    connections: Mutex<u64>,
}

impl Watch {
    fn dropped(&self, reason: Rejected) -> u64 {
        self.dropped.lock().get(reason.name()).copied().unwrap_or(0)
    }

    /// Connections made for calls of our own.
    fn connections(&self) -> u64 {
        *self.connections.lock()
    }
}

impl Sink for Watch {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Dropped { reason, .. } => *self.dropped.lock().entry(reason.name()).or_default() += 1,
            Event::Acquired {
                side: Side::Client,
                outcome: Acquire::Created | Acquire::Replaced,
                ..
            } => *self.connections.lock() += 1,
            _ => {}
        }
    }
}

/// Fails with this fault, whoever has found it.
fn fails_with<T: std::fmt::Debug>(result: Result<T, RpcError>, fault: Fault) {
    let error = result.unwrap_err();
    assert_eq!(error.fault(), Some(fault), "{error}");
}

/// Fails with a plain code.
fn refused_with<T: std::fmt::Debug>(result: Result<T, RpcError>, errno: Errno) {
    let error = result.unwrap_err();
    let told = Error::from(error);
    assert_eq!(told.errno(), errno.raw_os_error(), "{told}");
}

#[test]
fn a_ticket_gives_the_rights_of_its_owner_and_the_level_what_others_see() {
    run(async {
        let cell = cell_with(with_key(Level::Clear)).await;
        let watch = Arc::<Watch>::default();
        let peer = Peer::watched(&cell, Arc::clone(&watch) as Arc<dyn Sink>).await;
        for (level, hidden) in [(Level::Clear, false), (Level::Auth, false), (Level::Crypt, true)] {
            let seen = Arc::new(Mutex::new(Vec::new()));
            let wire = Arc::clone(&seen);
            let relay = Relay::before(peer.server, move |passing: Passing| {
                wire.lock().extend_from_slice(&passing.1);
                vec![passing]
            })
            .await;
            let as_whom = |name: &str| target(relay.address, security(token(&cell, name), level));
            let alice = as_whom("alice");
            assert_eq!(rights(&cell, &peer, &alice).await.unwrap(), ALL_RIGHTS);
            assert_eq!(diary(&cell, &peer, &alice).await.unwrap(), DIARY);
            // Level auth seals the first bytes of a packet, and the data comes behind its length.
            let shown = seen.lock().windows(20).any(|bytes| DIARY.starts_with(bytes));
            assert_eq!(shown, !hidden, "{level:?}");

            let admin = as_whom("admin");
            assert_eq!(rights(&cell, &peer, &admin).await.unwrap(), ALL_RIGHTS);
            let foreign = cell.token(&["alice", "elsewhere"], (now(), now() + 60)).unwrap();
            for nobody in [
                as_whom("bob"),
                as_whom("mallory"),
                // A server by its own key is no administrator here (lab-notes).
                as_whom("afs"),
                target(relay.address, security(foreign, level)),
                target(relay.address, Security::None),
            ] {
                assert_eq!(rights(&cell, &peer, &nobody).await.unwrap(), 0);
                refused_with(diary(&cell, &peer, &nobody).await, Errno::ACCESS);
            }
            // What a user makes is his; bob may where he is let.
            let made = MakeDir {
                dir: fid(&cell, ""),
                name: format!("{level:?}").as_bytes().into(),
                ..MakeDir::default()
            };
            assert_eq!(
                call(&peer.endpoint, &alice, &made).await.unwrap().status.owner,
                1001
            );
            cell.allow("home.alice", "", "bob", "rl").await.unwrap();
            assert_eq!(diary(&cell, &peer, &as_whom("bob")).await.unwrap(), DIARY);
            cell.allow("home.alice", "", "bob", "").await.unwrap();
        }
        assert_eq!(watch.dropped(Rejected::BadSeal), 0);
        cell.restart(1, Memory::Lost).await.unwrap();
        let alice = target(peer.server, security(token(&cell, "alice"), Level::Crypt));
        assert_eq!(diary(&cell, &peer, &alice).await.unwrap(), DIARY);
        peer.endpoint.shutdown().await;
        cell.shutdown().await;
    });
}

/// The question who is there is the only one more: the request is not sent again, nor anything waited for.
#[test]
fn the_first_call_of_a_connection_costs_one_round_trip_more() {
    run(async {
        let cell = cell_with(with_key(Level::Clear)).await;
        let peer = Peer::watched(&cell, Arc::new(Watch::default())).await;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let wire = Arc::clone(&seen);
        let relay = Relay::before(peer.server, move |passing: Passing| {
            wire.lock().push((passing.0, header(&passing.1).packet_type));
            vec![passing]
        })
        .await;
        // The server has to know the host first.
        let nobody = target(relay.address, Security::None);
        assert_eq!(rights(&cell, &peer, &nobody).await.unwrap(), 0);
        let alice = target(relay.address, security(token(&cell, "alice"), Level::Crypt));
        let [question, answer] = [Way::ToServer, Way::ToClient].map(|way| (way, PacketType::Data));
        let asked = [
            (Way::ToClient, PacketType::Challenge),
            (Way::ToServer, PacketType::Response),
        ];
        let first = vec![question, asked[0], asked[1], answer];
        for expected in [first, vec![question, answer]] {
            seen.lock().clear();
            assert_eq!(rights(&cell, &peer, &alice).await.unwrap(), ALL_RIGHTS);
            let mut packets = seen.lock().clone();
            packets.retain(|(_, packet_type)| *packet_type != PacketType::Ack);
            assert_eq!(packets, expected);
        }
        peer.endpoint.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn a_cell_without_keys_gives_no_tickets() {
    run(async {
        let cell = cell(1).await;
        assert!(cell.token(&["alice"], (0, 1)).is_err());
        cell.shutdown().await;
    });
}

#[test]
fn a_level_below_the_least_is_refused_and_others_are_not() {
    run(async {
        let cell = cell_with(with_key(Level::Crypt)).await;
        let watch = Arc::<Watch>::default();
        let peer = Peer::watched(&cell, Arc::clone(&watch) as Arc<dyn Sink>).await;
        for level in [Level::Clear, Level::Auth] {
            let alice = target(peer.server, security(token(&cell, "alice"), level));
            fails_with(diary(&cell, &peer, &alice).await, Fault::LevelFail);
        }
        // What happened is told after the call has heard of it.
        while watch.dropped(Rejected::BadChallenge) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let alice = target(peer.server, security(token(&cell, "alice"), Level::Crypt));
        assert_eq!(diary(&cell, &peer, &alice).await.unwrap(), DIARY);
        let nobody = target(peer.server, Security::None);
        assert_eq!(rights(&cell, &peer, &nobody).await.unwrap(), 0);
        peer.endpoint.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn tickets_that_are_no_good_are_refused_each_for_its_own_reason() {
    run(async {
        let cell = cell_with(with_key(Level::Clear)).await;
        let peer = Peer::watched(&cell, Arc::new(Watch::default())).await;
        let day = 24 * 60 * 60;
        let at = |times| cell.token(&["alice"], times).unwrap();
        let issued_with = |kvno, key| {
            let realm = Accounts::default().with_key(kvno, key);
            realm.token(CELL, &["alice"], (now(), now() + 600)).unwrap()
        };
        let forged = issued_with(KVNO, key(6));
        let newer = issued_with(KVNO + 1, key(5));
        let of_alice = token(&cell, "alice");
        let raw = |ticket: Vec<u8>, kvno| Token::new(ticket.into(), kvno, SessionKey::new([1; 8]));
        let other_key = raw(of_alice.ticket().to_vec(), 213);
        // Few enough for the places that a host has before it has proven anything.
        for (level, (token, fault, errno)) in Level::ALL.into_iter().cycle().zip([
            (at((now() - 600, now() - 1)), Fault::Expired, Errno::KEYEXPIRED),
            (
                at((now() + 3600, now() + 7200)),
                Fault::NoAuth,
                Errno::KEYREJECTED,
            ),
            (
                at((now(), now() + 31 * day)),
                Fault::BadTicket,
                Errno::KEYREJECTED,
            ),
            (forged, Fault::BadTicket, Errno::KEYREJECTED),
            (newer, Fault::UnknownKey, Errno::KEYREJECTED),
            (raw(vec![0x30; 40], 3), Fault::UnknownKey, Errno::KEYREJECTED),
            (raw(vec![0x30; 40], 300), Fault::UnknownKey, Errno::KEYREJECTED),
            (raw(vec![0x30; 40], 256), Fault::BadTicket, Errno::KEYREJECTED),
            (raw(vec![0x30; 31], 213), Fault::TicketLength, Errno::KEYREJECTED),
            (
                raw(vec![0x30; 12_001], 213),
                Fault::TicketLength,
                Errno::KEYREJECTED,
            ),
            (other_key, Fault::SealedInconsistent, Errno::KEYREJECTED),
        ]) {
            let target = target(peer.server, security(token, level));
            // The connection is dead: the next call makes a new one, and meets the same.
            fails_with(rights(&cell, &peer, &target).await, fault);
            refused_with(diary(&cell, &peer, &target).await, errno);
        }
        let alice = target(peer.server, security(of_alice, Level::Crypt));
        assert_eq!(diary(&cell, &peer, &alice).await.unwrap(), DIARY);
        peer.endpoint.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn a_ticket_that_ends_while_it_is_used_ends_the_connection() {
    run(async {
        let cell = cell_with(with_key(Level::Clear)).await;
        let peer = Peer::watched(&cell, Arc::new(Watch::default())).await;
        let short = cell.token(&["alice"], (now() - 60, now() + 2)).unwrap();
        let alice = target(peer.server, security(short, Level::Crypt));
        assert_eq!(diary(&cell, &peer, &alice).await.unwrap(), DIARY);
        loop {
            match rights(&cell, &peer, &alice).await {
                Ok(rights) => assert_eq!(rights, ALL_RIGHTS),
                refused => break fails_with(refused, Fault::Expired),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let again = target(peer.server, security(token(&cell, "alice"), Level::Crypt));
        assert_eq!(diary(&cell, &peer, &again).await.unwrap(), DIARY);
        peer.endpoint.shutdown().await;
        cell.shutdown().await;
    });
}

/// What somebody in the middle makes of the messages of the handshake, and what both sides make of that.
#[test]
fn messages_that_are_no_good_end_the_connection_and_the_next_is_as_ever() {
    type Change = fn(&mut Vec<u8>);
    let challenges: [(Change, Fault); 4] = [
        (|packet| packet[BODY + 3] = 3, Fault::Inconsistency),
        (|packet| packet.truncate(BODY + 12), Fault::PacketShort),
        (|packet| packet[BODY + 11] = 3, Fault::LevelFail),
        // The client answers another question than the service has asked.
        (|packet| packet[BODY + 7] ^= 1, Fault::OutOfSequence),
    ];
    let responses: [(Change, Fault); 8] = [
        (|packet| packet[BODY + 3] = 3, Fault::Inconsistency),
        (|packet| packet.truncate(BODY + 55), Fault::PacketShort),
        (|packet| packet.truncate(BODY + 90), Fault::PacketShort),
        (|packet| packet[BODY + 53] = 0xff, Fault::TicketLength),
        (|packet| packet[BODY + 51] = 7, Fault::UnknownKey),
        (|packet| packet[BODY + 30] ^= 1, Fault::SealedInconsistent),
        (|packet| packet[BODY + 47] ^= 1, Fault::SealedInconsistent),
        (|packet| packet[BODY + 100] ^= 1, Fault::BadTicket),
    ];
    let all = challenges
        .map(|(change, fault)| (PacketType::Challenge, change, fault))
        .into_iter()
        .chain(responses.map(|(change, fault)| (PacketType::Response, change, fault)));
    run(async {
        let cell = cell_with(with_key(Level::Clear)).await;
        let peer = Peer::watched(&cell, Arc::new(Watch::default())).await;
        for (packet_type, change, fault) in all {
            let bad = Arc::new(Mutex::new(true));
            let is_bad = Arc::clone(&bad);
            let relay = Relay::before(peer.server, move |(way, mut packet)| {
                if is(&packet, packet_type) && *is_bad.lock() {
                    change(&mut packet);
                }
                vec![(way, packet)]
            })
            .await;
            let alice = target(relay.address, security(token(&cell, "alice"), Level::Crypt));
            fails_with(rights(&cell, &peer, &alice).await, fault);
            *bad.lock() = false;
            assert_eq!(diary(&cell, &peer, &alice).await.unwrap(), DIARY, "{fault}");
        }
        peer.endpoint.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn a_response_is_good_for_one_connection() {
    run(async {
        let cell = cell_with(with_key(Level::Clear)).await;
        let peer = Peer::watched(&cell, Arc::new(Watch::default())).await;
        let first = Mutex::new(None::<Vec<u8>>);
        let relay = Relay::before(peer.server, move |(way, mut packet)| {
            if is(&packet, PacketType::Response) {
                match &*first.lock() {
                    None => {}
                    // The body of the other connection's, under the header of this one.
                    Some(body) => packet.splice(BODY.., body.iter().copied()).for_each(drop),
                }
                first.lock().get_or_insert_with(|| packet[BODY..].to_vec());
            }
            vec![(way, packet)]
        })
        .await;
        let of_alice = token(&cell, "alice");
        let connection = |scope: &str| Target {
            scope: scope.into(),
            ..target(relay.address, security(of_alice.clone(), Level::Crypt))
        };
        assert_eq!(diary(&cell, &peer, &connection("one")).await.unwrap(), DIARY);
        fails_with(
            rights(&cell, &peer, &connection("another")).await,
            Fault::SealedInconsistent,
        );
        assert_eq!(
            rights(&cell, &peer, &connection("one")).await.unwrap(),
            ALL_RIGHTS
        );
        peer.endpoint.shutdown().await;
        cell.shutdown().await;
    });
}

/// Every code, as OpenAFS sends it: an abort of the whole connection.
#[test]
fn a_connection_that_is_aborted_carries_no_more_calls_and_is_replaced() {
    run(async {
        let cell = cell_with(with_key(Level::Clear)).await;
        let watch = Arc::<Watch>::default();
        let peer = Peer::watched(&cell, Arc::clone(&watch) as Arc<dyn Sink>).await;
        for fault in Fault::ALL {
            let armed = Mutex::new(true);
            let relay = Relay::before(peer.server, move |(way, packet)| {
                let due = way == Way::ToServer && is(&packet, PacketType::Data);
                if due && std::mem::take(&mut *armed.lock()) {
                    return vec![(Way::ToClient, abort_of_connection(&packet, *fault))];
                }
                vec![(way, packet)]
            })
            .await;
            let alice = target(relay.address, security(token(&cell, "alice"), Level::Crypt));
            let before = watch.connections();
            let failed = rights(&cell, &peer, &alice).await.unwrap_err();
            assert!(
                matches!(failed, RpcError::Aborted(code) if code == fault.code()),
                "{failed}"
            );
            assert_eq!(diary(&cell, &peer, &alice).await.unwrap(), DIARY, "{fault}");
            assert_eq!(watch.connections(), before + 2, "{fault}");
        }
        peer.endpoint.shutdown().await;
        cell.shutdown().await;
    });
}

fn abort_of_connection(data: &[u8], fault: Fault) -> Vec<u8> {
    let mut packet = data[..BODY].to_vec();
    // No channel, call, place, flags or checksum; the type is ABORT.
    packet[7] &= !3;
    packet[8..16].fill(0);
    packet[20..24].copy_from_slice(&[4, 0, 0, 2]);
    packet[24..26].fill(0);
    packet.extend_from_slice(&fault.code().0.to_be_bytes());
    packet
}

#[test]
fn forged_and_repeated_packets_are_counted_and_the_call_survives() {
    run(async {
        let cell = cell_with(with_key(Level::Clear)).await;
        let big: Vec<u8> = (0..200_000_u32).map(|at| (at * 31 % 251) as u8).collect();
        cell.write("home.alice", "big", &big).await.unwrap();
        let watch = Arc::<Watch>::default();
        let peer = Peer::watched(&cell, Arc::clone(&watch) as Arc<dyn Sink>).await;
        for level in Level::ALL {
            let forging = Arc::new(Mutex::new(false));
            let is_on = Arc::clone(&forging);
            let relay = Relay::before(peer.server, move |passing| {
                if !is(&passing.1, PacketType::Data) || !*is_on.lock() {
                    return vec![passing];
                }
                let mut packets = forgeries(level, &passing);
                // The true one, and once more.
                packets.extend([passing.clone(), passing]);
                packets
            })
            .await;
            let alice = target(relay.address, security(token(&cell, "alice"), level));
            // Until the service knows the key it can tell nothing apart: what comes first counts.
            assert_eq!(rights(&cell, &peer, &alice).await.unwrap(), ALL_RIGHTS);
            *forging.lock() = true;
            let args = FetchDataArgs {
                fid: fid(&cell, "big"),
                length: 1 << 20,
                ..FetchDataArgs::default()
            };
            let before = [Rejected::BadSeal, Rejected::Duplicate].map(|reason| watch.dropped(reason));
            let mut read = Vec::new();
            let mut sink = |_, parts: &[Bytes]| {
                parts.iter().for_each(|part| read.extend_from_slice(part));
                Ok(())
            };
            fetch_data(&peer.endpoint, &alice, &args, &mut sink)
                .await
                .unwrap();
            assert!(read == big, "{level:?}");
            let [bad, again] = [Rejected::BadSeal, Rejected::Duplicate].map(|reason| watch.dropped(reason));
            let packets = big.len() as u64 / 1444;
            assert!(bad - before[0] >= packets, "{level:?}: {bad}");
            assert!(again > before[1], "{level:?}: {again}");
        }
        peer.endpoint.shutdown().await;
        cell.shutdown().await;
    });
}

/// What somebody without the key makes of a packet: another checksum, other first bytes, or another place.
fn forgeries(level: Level, (way, packet): &Passing) -> Vec<Passing> {
    let mut changed = vec![24];
    if level != Level::Clear {
        changed.push(BODY);
    }
    let mut forged: Vec<_> = changed
        .into_iter()
        .map(|at| {
            let mut packet = packet.clone();
            packet[at] ^= 0x55;
            (*way, packet)
        })
        .collect();
    let mut elsewhere = packet.clone();
    let next = header(packet).seq.0 + 1;
    elsewhere[12..16].copy_from_slice(&next.to_be_bytes());
    forged.push((*way, elsewhere));
    forged
}

/// Through the whole client: faults of the ticket are told at once; a connection may be at fault once.
#[test]
fn what_may_be_the_connection_is_tried_once_more_and_what_is_the_ticket_is_not() {
    run(async {
        let cell = cell(1).await;
        let client = Client::new(&cell).await;
        let protocol = [Fault::Inconsistency, Fault::PacketShort, Fault::OutOfSequence];
        for (at, fault) in Fault::ALL.iter().enumerate() {
            let expected = match fault {
                Fault::Expired => Errno::KEYEXPIRED,
                fault if protocol.contains(fault) => Errno::PROTO,
                _ => Errno::KEYREJECTED,
            };
            let abort = |when| {
                Rule::new(
                    when,
                    Calls::to(FetchStatusOf::OPCODE),
                    [Action::Abort(fault.code())],
                )
            };
            let file = format!("lab.example/work/file{at}");
            client.write(&file, b"data").await.unwrap();
            let fid = client.fid(&file).await.unwrap();
            for (when, tries, survives) in [
                (
                    When::nth(1),
                    if fault.is_of_ticket() { 1 } else { 2 },
                    !fault.is_of_ticket(),
                ),
                (When::ALWAYS, if fault.is_of_ticket() { 1 } else { 2 }, false),
            ] {
                // Somebody else changes it: the client has to ask.
                cell.write("work", &format!("file{at}"), b"changed")
                    .await
                    .unwrap();
                cell.faults().clear();
                cell.faults().add(abort(when));
                let before = cell.calls(1, FetchStatusOf::OPCODE).unwrap();
                let asked = client.fs.getattr(fid).await;
                let calls = cell.calls(1, FetchStatusOf::OPCODE).unwrap() - before;
                assert_eq!(calls, tries, "{fault}, {when:?}");
                if survives {
                    assert_eq!(asked.unwrap().0.size, 7, "{fault}");
                } else {
                    assert_eq!(errno(asked), expected.raw_os_error(), "{fault}");
                }
                cell.faults().clear();
                client.fs.getattr(fid).await.unwrap();
            }
        }
        client.shutdown().await;
        cell.shutdown().await;
    });
}

/// What was perhaps done is not done twice.
#[test]
fn a_change_that_may_have_been_made_is_not_tried_again() {
    run(async {
        let cell = cell(1).await;
        let client = Client::new(&cell).await;
        let work = client.fid("lab.example/work").await.unwrap();
        for (fault, tries) in [
            (Fault::SealedInconsistent, 1),
            (Fault::DataLength, 1),
            (Fault::OutOfSequence, 2),
            (Fault::Expired, 1),
        ] {
            cell.faults().clear();
            let calls = Calls::to(MakeDir::OPCODE);
            cell.faults()
                .add(Rule::new(When::ALWAYS, calls, [Action::Abort(fault.code())]));
            let before = cell.calls(1, MakeDir::OPCODE).unwrap();
            client.fs.mkdir(work, b"new", 0o755).await.unwrap_err();
            let made = cell.calls(1, MakeDir::OPCODE).unwrap() - before;
            assert_eq!(made, tries, "{fault}");
        }
        client.shutdown().await;
        cell.shutdown().await;
    });
}
