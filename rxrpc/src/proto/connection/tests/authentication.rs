//! Connections of a client that proves who it is, or does not.

use super::*;
use crate::crypto::krb5;
use crate::proto::{Level, Proof, WallClock};
use crate::security::rxkad::{Acceptor, Challenge, Fault, Issue, Rxkad, ServerKeys, SessionKey, Token};

const NOW: u64 = 1_700_000_000;
const SESSION: SessionKey = SessionKey::new(*b"\x10\x20\x31\x40\x51\x61\x70\x80");

fn key(byte: u8) -> krb5::Key {
    krb5::Key::new(krb5::Enctype::Aes128Sha1, &[byte; 16]).unwrap()
}

/// A ticket that holds for a minute, made with a server's key.
fn token(key: &krb5::Key) -> Token {
    let issue = Issue {
        name: &["alice"],
        realm: "LAB.EXAMPLE",
        session: SESSION,
        times: (NOW - 60, NOW + 60),
    };
    issue.token(1, key, [3; 16]).unwrap()
}

/// A client with this token and level, and a service that takes tickets of `key(1)` at level `least`, `late` seconds later.
fn secure(token: &Token, level: Level, least: Level, late: u64) -> Pair {
    let mut pair = pair();
    let of = |side| ConnectionParams {
        security: crate::security::rxkad::INDEX,
        ..params(side)
    };
    let ConnectionParams { epoch, cid, .. } = of(Side::Client);
    let client = Rxkad::client(epoch, cid, token, level);
    pair.client = Connection::secured(of(Side::Client), Arc::new(client));
    let acceptor = Acceptor {
        keys: Arc::new(ServerKeys::from_iter([(1, key(1))])),
        least,
        nonce: 77,
        epoch,
        cid,
        clock: WallClock {
            read_at: pair.now,
            unix: Duration::from_secs(NOW + late),
        },
    };
    pair.service = Connection::asking(of(Side::Service), Box::new(acceptor));
    pair
}

/// Begins a call with a small request.
fn begin(pair: &mut Pair) -> Slot {
    let slot = pair.start(CallLimits::default());
    pair.client
        .write(pair.now, slot, &mut Bytes::from_static(b"please"))
        .unwrap();
    pair.client.finish(pair.now, slot).unwrap();
    slot
}

/// Sends a small request and lets everything arrive; gives the call, and how it stands at the client.
fn request(pair: &mut Pair) -> (Slot, Result<Read, CallError>) {
    let slot = begin(pair);
    pair.settle(nothing_lost);
    let read = pair.client.read(pair.now, slot);
    (slot, read)
}

/// A CHALLENGE out of nowhere.
fn challenge(pair: &Pair, serial: u32) -> Packet {
    let body = Challenge {
        nonce: serial,
        least: Level::Clear,
    };
    Packet {
        header: Header {
            epoch: pair.client.params.epoch,
            cid: pair.client.params.cid,
            channel: ChannelIndex::default(),
            call: CallNumber(0),
            seq: Seq(0),
            serial: Serial(serial),
            packet_type: PacketType::Challenge,
            flags: Flags::NONE,
            user_status: 0,
            security: pair.client.params.security,
            cksum: 0,
            service: pair.client.params.service,
        },
        body: body.encode(),
    }
}

#[test]
fn calls_run_at_every_level() {
    for level in Level::ALL {
        let mut pair = secure(&token(&key(1)), level, Level::Clear, 0);
        for len in [0, 1, 1408, 1409, 100_000] {
            assert!(
                echo(&mut pair, &pattern(len), nothing_lost) == pattern(len),
                "{level:?}, {len}"
            );
        }
        assert_eq!(pair.rejected, [], "{level:?}");
        let handshakes = [
            pair.count(Side::Service, PacketType::Challenge),
            pair.count(Side::Client, PacketType::Response),
        ];
        assert_eq!(handshakes, [1, 1]);
        let caller = pair.service.caller().unwrap();
        assert_eq!(
            (&*caller.name, &*caller.cell, caller.level),
            ("alice", "LAB.EXAMPLE", level)
        );
        assert_eq!(pair.client.caller(), None);
    }
}

#[test]
fn calls_run_over_a_bad_network() {
    for level in Level::ALL {
        let mut random = crate::random::Random::new(5);
        let mut pair = secure(&token(&key(1)), level, Level::Clear, 0);
        let reply = echo(&mut pair, &pattern(50_000), |_| random.percent(15));
        assert!(reply == pattern(50_000), "{level:?}");
    }
}

#[test]
fn both_ends_tell_once_how_long_the_handshake_took() {
    let mut pair = secure(&token(&key(1)), Level::Crypt, Level::Clear, 0);
    begin(&mut pair);
    // The challenge is lost once: the service asks again after two seconds.
    pair.settle(|to| to == Side::Client);
    pair.now += 2000 * MS;
    pair.service.handle_timeout(pair.now);
    pair.settle(nothing_lost);
    let given = |took| Some(Proof { given: true, took });
    assert_eq!(pair.client.take_proof(), given(2000 * MS));
    assert_eq!(pair.service.take_proof(), given(2000 * MS));
    request(&mut pair).1.unwrap();
    assert_eq!(
        (pair.client.take_proof(), pair.service.take_proof()),
        (None, None)
    );

    let mut pair = secure(&token(&key(2)), Level::Crypt, Level::Clear, 0);
    request(&mut pair).1.unwrap_err();
    let took = Duration::ZERO;
    assert_eq!(pair.client.take_proof(), given(took), "it has answered");
    assert_eq!(pair.service.take_proof(), Some(Proof { given: false, took }));
}

#[test]
fn nothing_is_executed_before_the_response() {
    let mut pair = secure(&token(&key(1)), Level::Crypt, Level::Crypt, 0);
    let slot = pair.start(CallLimits::default());
    let mut rest = Bytes::from(pattern(60_000));
    pair.client.write(pair.now, slot, &mut rest).unwrap();
    let before = pair.now;
    // The client never hears of the challenge.
    for _ in 0..100 {
        pair.settle(|to| to == Side::Client);
        pair.now += 500 * MS;
        pair.service.handle_timeout(pair.now);
        pair.client.handle_timeout(pair.now);
        if pair.service.is_idle() {
            break;
        }
    }
    assert_eq!(pair.calls, []);
    let asked = pair.count(Side::Service, PacketType::Challenge);
    let seconds = usize::try_from(pair.now.duration_since(before).as_secs()).unwrap();
    assert!(
        asked > 1 && asked <= seconds / 2 + 1,
        "{asked} challenges in {seconds} s"
    );
    assert!(
        pair.rejected.contains(&Rejected::Doubted),
        "no more than a few packets are kept: {:?}",
        pair.rejected
    );
}

#[test]
fn a_service_does_not_ask_for_ever() {
    let mut pair = secure(&token(&key(1)), Level::Crypt, Level::Crypt, 0);
    begin(&mut pair);
    pair.flush();
    while let Some((side, datagram)) = pair.wire.pop_front() {
        pair.deliver(side, datagram);
    }
    for _ in 0..1000 {
        let mut out = Vec::new();
        while pair.service.poll_transmit(pair.now, &mut out).is_some() {
            for datagram in std::mem::take(&mut out).chunks(2000) {
                let header = *parse(Bytes::copy_from_slice(datagram)).unwrap().header();
                pair.sent.push((Side::Service, header));
            }
        }
        let Some(next) = pair.service.next_timeout() else {
            break;
        };
        pair.now = pair.now.max(next);
        pair.service.handle_timeout(pair.now);
    }
    assert!(pair.service.is_idle(), "{pair:?}");
    let asked = pair.count(Side::Service, PacketType::Challenge);
    assert!((2..=50).contains(&asked), "{asked} challenges");
}

#[test]
fn who_cannot_prove_it_is_told_so() {
    let good = token(&key(1));
    let forger = Token::new(token_bytes(&good), 213, SessionKey::new([1; 8]));
    let cases = [
        (token(&key(2)), 0, Fault::BadTicket),
        (forger, 0, Fault::SealedInconsistent),
        (good, 61, Fault::Expired),
    ];
    for (token, late, fault) in cases {
        let mut pair = secure(&token, Level::Crypt, Level::Clear, late);
        let (_, read) = request(&mut pair);
        assert_eq!(read, Err(CallError::ConnectionAborted(fault.code())), "{fault:?}");
        assert_eq!(
            (&pair.calls[..], &pair.rejected[..]),
            (&[][..], &[Rejected::BadResponse][..])
        );
        assert!(!pair.client.usable() && !pair.service.usable());
        assert!(
            pair.service.is_idle(),
            "the call that has waited is gone: {pair:?}"
        );
    }
}

fn token_bytes(token: &Token) -> Bytes {
    token.ticket().clone()
}

#[test]
fn a_client_does_not_go_below_its_service_nor_its_own_level() {
    let mut pair = secure(&token(&key(1)), Level::Clear, Level::Crypt, 0);
    let (_, read) = request(&mut pair);
    assert_eq!(read, Err(CallError::Protocol(Fault::LevelFail.code())));
    assert_eq!(pair.rejected.first(), Some(&Rejected::BadChallenge));
    assert!(pair.service.is_aborted(), "the service is told");

    // A challenge that asks for less does not lower the level.
    let mut pair = secure(&token(&key(1)), Level::Crypt, Level::Clear, 0);
    let (_, read) = request(&mut pair);
    assert_eq!(read, Ok(Read::Pending));
    assert_eq!(pair.service.caller().unwrap().level, Level::Crypt);
}

#[test]
fn an_aborted_connection_says_so_again_but_not_to_aborts() {
    let mut pair = secure(&token(&key(2)), Level::Crypt, Level::Clear, 0);
    assert!(request(&mut pair).1.is_err());
    let aborts = pair.count(Side::Service, PacketType::Abort);
    assert_eq!(aborts, 1);
    let mut header = challenge(&pair, 0).header;
    header.flags = Flags::NONE | Flags::sent_by(Side::Client);
    for (packet_type, expected) in [
        (PacketType::Response, 2),
        (PacketType::Abort, 2),
        (PacketType::Data, 3),
    ] {
        header.packet_type = packet_type;
        let packet = Packet {
            header,
            body: Bytes::from_static(&[0; 4]),
        };
        pair.service.handle_packet(pair.now, packet);
        pair.flush();
        assert_eq!(
            pair.count(Side::Service, PacketType::Abort),
            expected,
            "{packet_type:?}"
        );
    }
}

#[test]
fn a_tampered_packet_is_as_good_as_lost() {
    for level in [Level::Auth, Level::Crypt] {
        let mut pair = secure(&token(&key(1)), level, Level::Clear, 0);
        assert_eq!(echo(&mut pair, b"first", nothing_lost), b"first");
        let slot = pair.start(CallLimits::default());
        pair.client
            .write(pair.now, slot, &mut Bytes::from_static(b"second"))
            .unwrap();
        pair.client.finish(pair.now, slot).unwrap();
        pair.flush();
        let mut changed = pair.wire.pop_back().unwrap().1.to_vec();
        changed[Header::LEN + 1] ^= 0x10;
        pair.deliver(Side::Service, changed.into());
        assert_eq!(pair.rejected, [Rejected::BadSeal], "{level:?}");
        let call = pair.calls.pop().unwrap();
        assert_eq!(
            pair.service.read(pair.now, call),
            Ok(Read::Pending),
            "the call survives"
        );
        let mut heard = Vec::new();
        for _ in 0..10 {
            pair.wait();
            pair.settle(nothing_lost);
            if read_all(&mut pair.service, pair.now, call, &mut heard).is_none() {
                break;
            }
        }
        assert_eq!(heard, b"second", "{level:?}");
    }
}

#[test]
fn what_was_kept_unverified_is_verified_when_it_is_read() {
    let mut pair = secure(&token(&key(1)), Level::Crypt, Level::Clear, 0);
    let slot = begin(&mut pair);
    pair.flush();
    let mut changed = pair.wire.pop_back().unwrap().1.to_vec();
    changed[Header::LEN + 1] ^= 0x10;
    pair.deliver(Side::Service, changed.into());
    pair.settle(nothing_lost);
    let call = pair.calls.pop().unwrap();
    let code = Fault::SealedInconsistent.code();
    assert_eq!(pair.service.read(pair.now, call), Err(CallError::Protocol(code)));
    pair.settle(nothing_lost);
    assert_eq!(pair.client.read(pair.now, slot), Err(CallError::Aborted(code)));
}

#[test]
fn challenges_are_answered_only_in_a_call_and_not_too_often() {
    let mut pair = secure(&token(&key(1)), Level::Crypt, Level::Clear, 0);
    let ask = |pair: &mut Pair, serial| {
        let packet = challenge(pair, serial);
        let outcome = pair.client.handle_packet(pair.now, packet);
        pair.flush();
        outcome.rejected
    };
    assert_eq!(ask(&mut pair, 5), Some(Rejected::NothingAsked), "no call");
    pair.start(CallLimits::default());
    assert_eq!(ask(&mut pair, 5), None);
    assert_eq!(ask(&mut pair, 5), Some(Rejected::StaleChallenge), "a replay");
    assert_eq!(ask(&mut pair, 4), Some(Rejected::StaleChallenge));
    for serial in 6..=8 {
        assert_eq!(ask(&mut pair, serial), None);
    }
    for serial in 9..=100 {
        assert_eq!(ask(&mut pair, serial), Some(Rejected::TooManyChallenges));
    }
    pair.now += 1000 * MS;
    assert_eq!(ask(&mut pair, 101), None);
    assert_eq!(ask(&mut pair, 102), Some(Rejected::TooManyChallenges));
    assert_eq!(pair.count(Side::Client, PacketType::Response), 5);
}

#[test]
fn only_the_newest_challenge_is_answered() {
    let mut pair = secure(&token(&key(1)), Level::Crypt, Level::Clear, 0);
    pair.start(CallLimits::default());
    for serial in 1..=3 {
        let packet = challenge(&pair, serial);
        assert_eq!(pair.client.handle_packet(pair.now, packet).rejected, None);
    }
    pair.flush();
    assert_eq!(pair.count(Side::Client, PacketType::Response), 1);
}

#[test]
fn nobody_in_particular_is_not_asked() {
    let mut pair = pair();
    let slot = pair.start(CallLimits::default());
    pair.client
        .write(pair.now, slot, &mut Bytes::from_static(b"x"))
        .unwrap();
    let packet = challenge(&pair, 1);
    pair.client.handle_packet(pair.now, packet);
    let code = abort_codes::RX_PROTOCOL_ERROR;
    assert_eq!(pair.client.read(pair.now, slot), Err(CallError::Protocol(code)));
    assert!(pair.client.is_aborted());
}

#[test]
fn what_was_proven_ends_with_the_ticket() {
    let mut pair = secure(&token(&key(1)), Level::Crypt, Level::Clear, 0);
    assert_eq!(echo(&mut pair, b"in time", nothing_lost), b"in time");
    pair.now += 61_000 * MS;
    let (_, read) = request(&mut pair);
    assert_eq!(read, Err(CallError::ConnectionAborted(Fault::Expired.code())));
    assert!(pair.rejected.contains(&Rejected::Expired));
}

#[test]
fn calls_from_before_are_not_executed_again() {
    let mut pair = secure(&token(&key(1)), Level::Clear, Level::Clear, 0);
    // What an earlier service has seen and somebody has recorded: the first calls of two channels.
    for _ in 0..3 {
        let slot = pair.start(CallLimits::default());
        pair.client.release(pair.now, slot);
    }
    let (slot, _) = request(&mut pair);
    assert_eq!(slot.call, CallNumber(4));
    assert_eq!(pair.calls, [slot]);
    let mut old = challenge(&pair, 50).header;
    old.flags = Flags::LAST_PACKET | Flags::sent_by(Side::Client);
    old.packet_type = PacketType::Data;
    (old.call, old.seq) = (CallNumber(1), Seq(1));
    let outcome = pair.service.handle_packet(
        pair.now,
        Packet {
            header: old,
            body: Bytes::from_static(b"again"),
        },
    );
    assert_eq!(outcome.rejected, Some(Rejected::StaleCall));
}
