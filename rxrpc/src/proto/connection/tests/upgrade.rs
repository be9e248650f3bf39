//! Service upgrade: who asks, who answers, and what holds afterwards.

use super::*;

const OLDER: ServiceId = ServiceId(1);
const NEWER: ServiceId = ServiceId(2500);

/// A client that asks, and a service that its owner has made for `upgrade`.
fn asking(service: ServiceId, upgrade: Upgrade) -> Pair {
    let mut pair = pair();
    pair.client = Connection::new(ConnectionParams {
        upgrade: Upgrade::Asked,
        ..params(Side::Client)
    });
    pair.service = Connection::new(ConnectionParams {
        service,
        upgrade,
        ..params(Side::Service)
    });
    pair
}

fn data(pair: &Pair, from: Side) -> Vec<Header> {
    let headers = pair.sent.iter().filter(|(side, _)| *side == from);
    headers
        .map(|(_, header)| *header)
        .filter(|header| header.packet_type == PacketType::Data)
        .collect()
}

#[test]
fn a_new_server_is_known_by_its_first_packet() {
    let mut pair = asking(NEWER, Upgrade::From(OLDER));
    let slot = pair.start(CallLimits::default());
    assert!(pair.client.awaits_upgrade());
    assert_eq!(
        pair.client.start_call(pair.now, CallLimits::default()),
        None,
        "one call while it is open"
    );
    pair.client.release(pair.now, slot);
    let request = vec![7; 60_000];
    assert_eq!(echo(&mut pair, &request, |_| false), request);
    assert!(pair.rejected.is_empty(), "{:?}", pair.rejected);
    let asked = data(&pair, Side::Client);
    let (first, rest) = asked.split_first().unwrap();
    assert_eq!((first.seq, first.user_status, first.service), (Seq(1), 1, OLDER));
    assert!(rest.iter().all(|header| header.user_status == 0));
    assert!(
        data(&pair, Side::Service)
            .iter()
            .all(|header| (header.user_status, header.service) == (0, NEWER))
    );
    assert_eq!(pair.client.service(), NEWER);

    pair.sent.clear();
    let slots: Vec<_> = (0..4).map(|_| pair.start(CallLimits::default())).collect();
    assert_eq!(slots.len(), ChannelIndex::COUNT, "the other channels are open");
    for slot in slots {
        pair.client.release(pair.now, slot);
    }
    assert_eq!(echo(&mut pair, b"again", |_| false), b"again");
    let later = data(&pair, Side::Client);
    assert!(
        later
            .iter()
            .all(|header| (header.user_status, header.service) == (0, NEWER)),
        "{later:?}"
    );
}

#[test]
fn an_old_server_goes_on_as_ever() {
    let mut pair = asking(OLDER, Upgrade::Fixed);
    assert_eq!(echo(&mut pair, b"hello", |_| false), b"hello");
    assert_eq!(pair.client.service(), OLDER);
    assert!(!pair.client.awaits_upgrade());
    let answer = Header {
        service: NEWER,
        ..reply_header(&pair)
    };
    let outcome = pair.client.handle_packet(
        pair.now,
        Packet {
            header: answer,
            body: Bytes::new(),
        },
    );
    assert_eq!(
        outcome.rejected,
        Some(Rejected::ServiceMismatch),
        "it has chosen for good"
    );
}

#[test]
fn every_sending_of_the_first_packet_asks_until_there_is_an_answer() {
    let mut pair = asking(NEWER, Upgrade::From(OLDER));
    let mut sent = 0;
    let reply = echo(&mut pair, b"lost twice", |to| {
        sent += usize::from(to == Side::Service);
        to == Side::Service && sent <= 2
    });
    assert_eq!(reply, b"lost twice");
    let asked = data(&pair, Side::Client);
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|header| header.user_status == 1), "{asked:?}");
}

#[test]
fn what_is_out_of_place_decides_nothing() {
    let mut pair = asking(NEWER, Upgrade::From(OLDER));
    let slot = pair.start(CallLimits::default());
    pair.client.finish(pair.now, slot).unwrap();
    pair.flush();
    let busy = Header {
        packet_type: PacketType::Busy,
        service: NEWER,
        seq: Seq(0),
        ..reply_header(&pair)
    };
    let mut give = |header: Header| {
        let body = Bytes::new();
        pair.client.handle_packet(pair.now, Packet { header, body })
    };
    let stateless = give(Header {
        serial: Serial(0),
        ..busy
    });
    assert_eq!(stateless.rejected, Some(Rejected::ServiceMismatch));
    let foreign = give(Header {
        call: CallNumber(9),
        ..busy
    });
    assert_eq!(foreign.rejected, Some(Rejected::UnknownCall));
    assert!(!foreign.upgrade_settled);
    let settled = give(busy);
    assert_eq!((settled.rejected, settled.upgrade_settled), (None, true));
    assert!(!give(busy).upgrade_settled, "once");
    assert_eq!(pair.client.service(), NEWER);
}

#[test]
fn an_upgraded_service_takes_both_names_and_no_third() {
    let mut pair = asking(NEWER, Upgrade::From(OLDER));
    let slot = pair.start(CallLimits::default());
    pair.client.finish(pair.now, slot).unwrap();
    pair.flush();
    let (_, first) = pair.wire.pop_front().unwrap();
    let packet = parse(first).unwrap().next().unwrap();
    for (service, rejected) in [
        (ServiceId(3), Some(Rejected::ServiceMismatch)),
        (OLDER, None),
        (NEWER, Some(Rejected::Duplicate)),
    ] {
        let header = Header {
            service,
            ..packet.header
        };
        let packet = Packet {
            header,
            body: packet.body.clone(),
        };
        let outcome = pair.service.handle_packet(pair.now, packet);
        assert_eq!(outcome.rejected, rejected, "{service:?}");
    }
}

/// As the service would begin its reply to the last call.
fn reply_header(pair: &Pair) -> Header {
    let (_, header) = pair.sent.iter().find(|(from, _)| *from == Side::Client).unwrap();
    Header {
        flags: Flags::NONE,
        serial: Serial(77),
        user_status: 0,
        ..*header
    }
}
