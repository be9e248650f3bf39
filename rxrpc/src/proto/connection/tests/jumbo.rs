//! Jumbograms: only if both sides were set up for them, and only what may share a datagram.

use super::*;

fn willing(client: bool, service: bool) -> Pair {
    let mut pair = pair();
    for (side, jumbograms) in [(Side::Client, client), (Side::Service, service)] {
        *pair.side(side) = Connection::new(ConnectionParams {
            jumbograms,
            ..params(side)
        });
    }
    pair
}

/// One call whose datagrams `lose` decides about; gives those that were sent, as packets.
fn datagrams(pair: &mut Pair, len: usize, lose: impl FnMut(Side) -> bool) -> Vec<Vec<Packet>> {
    let request: Vec<u8> = (0..len).map(|at| (at % 251).to_le_bytes()[0]).collect();
    assert!(echo(pair, &request, lose) == request, "{pair:?}");
    pair.datagrams
        .iter()
        .map(|datagram| parse(datagram.clone()).unwrap().collect())
        .collect()
}

#[test]
fn full_packets_share_datagrams_once_the_peer_has_said_so() {
    let mut pair = willing(true, true);
    let sent = datagrams(&mut pair, 200_000, |_| false);
    let first = &sent[0];
    assert_eq!(first.len(), 1, "nothing is known of the peer yet");
    let jumbograms: Vec<_> = sent.iter().filter(|parts| parts.len() > 1).collect();
    assert!(
        jumbograms.iter().any(|parts| parts.len() == 4),
        "as many as allowed"
    );
    assert!(
        jumbograms
            .iter()
            .any(|parts| parts[0].header.flags.sender() == Side::Service),
        "replies too"
    );
    for parts in &jumbograms {
        assert!(parts.len() <= 4);
        let (last, full) = parts.split_last().unwrap();
        assert!(
            full.iter()
                .all(|part| part.body.len() == 1412 && !part.header.flags.last())
        );
        assert!(last.body.len() <= 1412);
    }
    assert!(pair.rejected.is_empty(), "{:?}", pair.rejected);
    let acks = sent
        .iter()
        .flatten()
        .filter(|packet| packet.header.packet_type == PacketType::Ack);
    for ack in acks {
        let trailer = AckPacket::parse(&ack.body).unwrap().trailer;
        assert_eq!(
            (trailer.max_mtu, trailer.if_mtu, trailer.jumbo_max),
            (Some(5692), Some(1444), Some(4))
        );
    }
}

#[test]
fn one_unwilling_side_is_enough_to_have_none() {
    for (client, service) in [(false, false), (true, false), (false, true)] {
        let mut pair = willing(client, service);
        let sent = datagrams(&mut pair, 100_000, |_| false);
        assert!(sent.iter().all(|parts| parts.len() == 1), "{client} {service}");
        let unwilling = if client { Side::Service } else { Side::Client };
        let from = |packet: &&Packet| packet.header.flags.sender() == unwilling;
        let full = sent
            .iter()
            .flatten()
            .filter(from)
            .map(|packet| packet.body.len())
            .max();
        assert_eq!(full, Some(1416), "as large as ever");
        let ack = sent
            .iter()
            .flatten()
            .filter(from)
            .find(|packet| packet.header.packet_type == PacketType::Ack)
            .unwrap();
        let trailer = AckPacket::parse(&ack.body).unwrap().trailer;
        assert_eq!((trailer.max_mtu, trailer.jumbo_max), (Some(1444), Some(1)));
    }
}

#[test]
fn what_is_sent_again_goes_alone() {
    let mut pair = willing(true, true);
    let mut count = 0;
    let sent = datagrams(&mut pair, 400_000, |to| {
        count += usize::from(to == Side::Service);
        to == Side::Service && count % 11 == 5
    });
    let mut seen = std::collections::HashSet::new();
    let mut again = 0;
    for parts in &sent {
        for part in parts {
            let header = part.header;
            let is_data = header.packet_type == PacketType::Data;
            if is_data && !seen.insert((header.flags.sender(), header.seq)) {
                again += 1;
                assert_eq!(parts.len(), 1, "{header:?}");
            }
        }
    }
    assert!(again > 0);
    assert!(sent.iter().any(|parts| parts.len() > 1));
}
