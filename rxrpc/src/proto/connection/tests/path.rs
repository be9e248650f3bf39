//! The size of the path: searched for with PINGs, used once proved, given up where packets vanish.

use super::*;

/// Both take so much and know of no narrower place than `most`; the path carries `mtu`.
fn on_path(takes: u16, most: u16, mtu: usize) -> Pair {
    let mut pair = pair();
    pair.mtu = mtu;
    for side in [Side::Client, Side::Service] {
        let datagram = takes;
        let mut conn = Connection::new(ConnectionParams {
            datagram,
            ..params(side)
        });
        conn.set_path_mtu(most, DATAGRAM_USUAL);
        *pair.side(side) = conn;
    }
    pair
}

fn transfer(pair: &mut Pair, len: usize) {
    let request: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[0]).collect();
    assert!(echo(pair, &request, |_| false) == request, "{pair:?}");
}

/// The longest datagram of a type.
fn longest(pair: &Pair, packet_type: PacketType) -> usize {
    let of_type = pair.datagrams.iter().filter(|datagram| {
        let header = *parse((*datagram).clone()).unwrap().header();
        header.packet_type == packet_type
    });
    of_type.map(Bytes::len).max().unwrap_or(0)
}

#[test]
fn packets_grow_to_what_was_proved() {
    let mut pair = on_path(9000, 8972, usize::MAX);
    transfer(&mut pair, 3_000_000);
    assert_eq!(pair.client.proven_mtu(), 8972);
    assert_eq!(longest(&pair, PacketType::Data), 8972);
    assert_eq!(longest(&pair, PacketType::Ack), 8972, "the PING that proved it");
    assert!(pair.rejected.is_empty(), "{:?}", pair.rejected);
}

#[test]
fn a_narrow_place_is_found_with_pings_alone() {
    for mtu in [1444, 1500, 3000, 8000] {
        let mut pair = on_path(9000, 8972, mtu);
        transfer(&mut pair, 3_000_000);
        let proven = usize::from(pair.client.proven_mtu());
        assert!(proven <= mtu && mtu - proven < 64, "{mtu}: {proven}");
        assert!(
            longest(&pair, PacketType::Data) <= mtu,
            "{mtu}: nothing but PINGs was risked"
        );
        assert_eq!(pair.count(Side::Client, PacketType::Abort), 0);
    }
}

#[test]
fn a_peer_that_takes_no_more_is_asked_nothing() {
    let mut pair = on_path(DATAGRAM_USUAL, 8972, usize::MAX);
    transfer(&mut pair, 1_000_000);
    assert_eq!(longest(&pair, PacketType::Data), 1444);
    assert!(longest(&pair, PacketType::Ack) < 400);
    let ack = pair
        .datagrams
        .iter()
        .map(|datagram| parse(datagram.clone()).unwrap().next().unwrap());
    let ack = ack
        .into_iter()
        .find(|packet| packet.header.packet_type == PacketType::Ack)
        .unwrap();
    let trailer = AckPacket::parse(&ack.body).unwrap().trailer;
    assert_eq!(
        (trailer.max_mtu, trailer.if_mtu, trailer.jumbo_max),
        (Some(1444), Some(1444), Some(1))
    );
}

#[test]
fn a_black_hole_is_noticed_and_left() {
    let mut pair = on_path(9000, 8972, usize::MAX);
    transfer(&mut pair, 2_000_000);
    assert_eq!(pair.client.proven_mtu(), 8972);
    // The route changes, and its routers say nothing.
    pair.mtu = 1500;
    transfer(&mut pair, 500_000);
    assert!(pair.fragments, "the owner was told to let them travel in pieces");
    assert_eq!(pair.client.proven_mtu(), DATAGRAM_USUAL);
    pair.datagrams.clear();
    transfer(&mut pair, 500_000);
    pair.datagrams.retain(|datagram| {
        let header = *parse(datagram.clone()).unwrap().header();
        header.flags.sender() == Side::Client
    });
    assert_eq!(longest(&pair, PacketType::Data), 1444);
}

#[test]
fn silence_is_no_black_hole() {
    let mut pair = on_path(9000, 8972, usize::MAX);
    transfer(&mut pair, 1_000_000);
    let mut count = 0;
    let request = vec![1; 400_000];
    // Everything is lost for a while, small packets too.
    let reply = echo(&mut pair, &request, |_| {
        count += 1;
        (20..35).contains(&count)
    });
    assert!(reply == request);
    assert!(!pair.fragments);
}
