//! What a call sends when (rxrpc.md 5.5, 5.6, 7, 8.5, 8.6, 10.2, 11): windows, flags, repairs, PINGs, last words.

use std::time::Duration;

use super::by_hand::{ByHand, said};
use super::*;
use crate::proto::{AckPacket, AckReason, AckTrailer, Flags, Packet, PacketType, Seq};

const MS: Duration = Duration::from_millis(1);

fn asks(packets: &[Packet]) -> Vec<u32> {
    packets
        .iter()
        .filter(|packet| packet.header.flags.request_ack())
        .map(|packet| packet.header.seq.0)
        .collect()
}

fn reason(packet: &Packet) -> Option<AckReason> {
    (packet.header.packet_type == PacketType::Ack).then(|| AckPacket::parse(&packet.body).unwrap().reason)
}

/// Of what a wait has brought.
fn pings(waited: &[(Duration, Packet)]) -> Vec<u128> {
    waited
        .iter()
        .filter(|(_, packet)| reason(packet) == Some(AckReason::Ping))
        .map(|(at, _)| at.as_millis())
        .collect()
}

#[test]
fn the_end_of_a_reply_asks_for_nothing_when_it_is_sent_first() {
    for packets in [1, 2, 8] {
        let mut hand = ByHand::replying(packets);
        let sent = hand.sent();
        let last = sent.last().unwrap().header;
        assert!(last.flags.last() && !last.flags.request_ack(), "{packets}");
        assert!(!last.flags.contains(Flags::MORE_PACKETS));
    }
    let mut hand = ByHand::replying(1);
    hand.sent();
    let again = hand.wait(1500 * MS).remove(0).1.header;
    assert!(
        again.flags.last() && again.flags.request_ack(),
        "sent again it may"
    );
}

#[test]
fn all_of_a_burst_but_its_end_announce_more() {
    let mut hand = ByHand::sending(5);
    let more = |packet: &Packet| packet.header.flags.contains(Flags::MORE_PACKETS);
    let announced: Vec<_> = hand.sent().iter().map(more).collect();
    assert_eq!(announced, [true, true, true, true, false]);
}

#[test]
fn an_ack_is_asked_for_once_a_round_trip_and_where_something_stands_still() {
    let mut hand = ByHand::client();
    hand.write(11);
    assert_eq!(asks(&hand.sent()).len(), 10, "nothing is known of the round trip");

    let mut hand = ByHand::sending_over(20 * MS, 40);
    assert_eq!(asks(&hand.sent()), [1], "the first of many");
    hand.now += 10 * MS;
    hand.acked(5, 0, AckReason::Idle, &[]);
    assert_eq!(asks(&hand.sent()), []);
    hand.now += 10 * MS;
    hand.acked(9, 0, AckReason::Idle, &[]);
    let sent = hand.sent();
    assert_eq!(asks(&sent), [sent[0].header.seq.0], "a round trip later");
    // The peer's window closes.
    hand.now += MS;
    let narrow = AckPacket {
        trailer: AckTrailer::new(1444, 1444, 20, 1),
        ..said(15, 0, AckReason::Idle, &[])
    };
    hand.ack(narrow, Flags::NONE);
    let mut sent = hand.sent();
    sent.extend(hand.wait(30 * MS).into_iter().map(|(_, packet)| packet));
    assert!(asks(&sent).contains(&34), "{:?}", asks(&sent));

    // The application has no more for now.
    let mut hand = ByHand::client();
    hand.measured(20 * MS);
    hand.write(5);
    assert_eq!(asks(&hand.sent()), [1, 4], "the fifth may be the last");
}

#[test]
fn a_closed_window_is_asked_about_with_patience() {
    let mut hand = ByHand::client();
    hand.write(20);
    hand.sent();
    let closed = AckPacket {
        trailer: AckTrailer::new(1444, 1444, 0, 1),
        ..said(11, 10, AckReason::Requested, &[])
    };
    hand.ack(closed, Flags::NONE);
    let waited = hand.wait(10_000 * MS);
    assert_eq!(pings(&waited), [500, 1500, 3500, 6500, 9500]);
    assert_eq!(waited.len(), 5, "nothing but PINGs");
    // A PING's answer opens it, and the next time patience begins anew.
    let serial = waited.last().unwrap().1.header.serial.0;
    let mut open = said(11, serial, AckReason::PingResponse, &[]);
    open.trailer.rwind = Some(3);
    hand.ack(open, Flags::NONE);
    assert_eq!(hand.sent_data(), [11, 12, 13]);
    let closed = AckPacket {
        trailer: AckTrailer::new(1444, 1444, 0, 1),
        ..said(14, serial + 3, AckReason::Requested, &[])
    };
    hand.ack(closed, Flags::NONE);
    assert_eq!(pings(&hand.wait(2000 * MS)), [500, 1500]);
}

#[test]
fn soft_acks_that_stay_soft_are_asked_about() {
    let mut hand = ByHand::client();
    hand.write(5);
    hand.sent();
    hand.acked(1, 4, AckReason::Requested, &[1, 1, 1, 1]);
    assert_eq!(pings(&hand.wait(2000 * MS)), [500, 1500]);
}

#[test]
fn nothing_goes_into_a_window_that_has_shrunk() {
    let mut hand = ByHand::sending(10);
    assert_eq!(hand.sent_data().len(), 10);
    let narrow = AckPacket {
        trailer: AckTrailer::new(1444, 1444, 2, 1),
        ..said(3, 2, AckReason::Requested, &[])
    };
    hand.ack(narrow, Flags::NONE);
    let waited = hand.wait(30_000 * MS);
    let data = |(_, packet): &(Duration, Packet)| packet.header.packet_type == PacketType::Data;
    let beyond = waited
        .iter()
        .filter(|sent| data(sent) && sent.1.header.seq.after(Seq(4)));
    assert_eq!(beyond.count(), 0);
    assert!(waited.iter().any(data), "but what has room goes again");
    // It widens: the window of one that timeouts have left grows again.
    let mut last = waited.iter().rfind(|sent| data(sent)).unwrap().1.header;
    while last.seq != Seq(10) {
        hand.acked(last.seq.next().0, last.serial.0, AckReason::Requested, &[]);
        let sent = hand.sent();
        assert_eq!(sent[0].header.seq, last.seq.next());
        last = sent.last().unwrap().header;
    }
}

#[test]
fn the_tail_is_probed_long_before_the_timeout() {
    let mut hand = ByHand::sending_over(20 * MS, 8);
    hand.sent();
    hand.now += 20 * MS;
    hand.acked(6, 5, AckReason::Requested, &[]);
    hand.sent();
    // 6 to 8 were lost: two round trips, and what the peer may hold back the ACK of the end of a request.
    let probe = hand.wait(600 * MS).remove(0);
    assert_eq!((probe.0, probe.1.header.seq), (170 * MS, Seq(8)));
    assert!(probe.1.header.flags.request_ack());
    let serial = probe.1.header.serial.0;
    hand.acked(6, serial, AckReason::OutOfSequence, &[0, 0, 1]);
    assert_eq!(
        hand.sent_data(),
        [6, 7],
        "the ACK of the probe shows what is missing"
    );
}

#[test]
fn what_is_sent_again_is_counted_by_its_reason() {
    let mut hand = ByHand::sending_over(100 * MS, 8);
    let first = hand.sent()[0].header.serial.0;
    hand.now += 100 * MS;
    // The first is missing, and the others have long overtaken it.
    hand.acked(1, first + 7, AckReason::Requested, &[0, 1, 1, 1, 1, 1, 1, 1]);
    hand.sent();
    let count = |hand: &ByHand| hand.resent.iter().map(|(_, packets)| packets).collect::<Vec<_>>();
    assert_eq!(count(&hand), [1, 0, 0]);
    // Nothing is heard: a probe of the tail, then timeouts.
    let mut hand = ByHand::sending_over(100 * MS, 1);
    hand.sent();
    hand.wait(3000 * MS);
    let [rack, rto, tlp] = count(&hand)[..] else {
        unreachable!("three reasons")
    };
    assert!(rack == 0 && rto >= 2 && tlp == 1, "{:?}", hand.resent);
    assert_eq!(hand.resent.total(), rto + tlp);
}

#[test]
fn timeouts_double_until_something_certain_is_heard() {
    let mut hand = ByHand::sending_over(20 * MS, 1);
    hand.sent();
    let times = |waited: &[(Duration, Packet)]| -> Vec<u128> {
        let data = |packet: &Packet| packet.header.packet_type == PacketType::Data;
        waited
            .iter()
            .filter(|(_, packet)| data(packet))
            .map(|(at, _)| at.as_millis())
            .collect()
    };
    let waited = hand.wait(12_000 * MS);
    assert_eq!(
        times(&waited),
        [190, 890, 2290, 5090, 10690],
        "a probe, then timeouts of 700 ms and twice as much each"
    );
    assert!(
        waited
            .iter()
            .filter(|(_, packet)| packet.header.seq == Seq(1))
            .all(|(_, packet)| packet.header.flags.request_ack())
    );
    let serials: Vec<_> = waited.iter().map(|(_, packet)| packet.header.serial.0).collect();
    assert!(serials.is_sorted_by(|a, b| a < b), "each has a serial of its own");
}

#[test]
fn a_long_path_is_paced_and_a_short_one_is_not() {
    for (round_trip, at_once) in [(40 * MS, false), (MS, true)] {
        let mut hand = ByHand::sending_over(round_trip, 200);
        let mut sent = hand.sent_data().len();
        assert_eq!(sent, 10, "the first window");
        // Slow start opens it to 80.
        for (first, window) in [(11, 20), (31, 40), (71, 80)] {
            hand.wait(round_trip);
            let serial = first - 1;
            hand.acked(first, serial, AckReason::Idle, &[]);
            let burst = hand.sent_data().len();
            assert_eq!(burst == window, at_once, "{burst} of {window} at once");
            let later = hand.wait(round_trip / 2);
            let data = later
                .iter()
                .filter(|(_, packet)| packet.header.seq != Seq(0))
                .count();
            assert_eq!(burst + data, window, "all of it within half a round trip");
            sent += window;
        }
        assert_eq!(sent, 150);
    }
}

#[test]
fn silence_fades_the_window() {
    for (silence, faded) in [(299, 40), (400, 20), (1000, 10)] {
        let mut hand = ByHand::client();
        hand.write(40);
        for (first, window) in [(11, 10), (31, 20), (40, 9)] {
            assert_eq!(hand.sent_data().len(), window);
            hand.acked(first, first - 1, AckReason::Requested, &[]);
        }
        hand.now += silence * MS;
        for _ in 0..5 {
            assert_eq!(hand.sent(), [], "looking does it no harm");
        }
        hand.write(100);
        assert_eq!(
            hand.sent_data().len(),
            faded,
            "of 40, with a timeout of 300 ms, after {silence}"
        );
    }
}

#[test]
fn a_silent_peer_is_asked_every_three_seconds_and_given_up() {
    let mut hand = ByHand::sending(1);
    hand.sent();
    hand.acked(2, 1, AckReason::Requested, &[]);
    let waited = hand.wait(60_000 * MS);
    let asked = pings(&waited);
    assert_eq!(asked.len(), 16);
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] == 3000));
    assert_eq!(
        hand.conn.read(hand.now, hand.slot),
        Err(CallError::PeerDead),
        "after 50 s"
    );
    let (at, last) = waited.last().unwrap();
    assert_eq!((at.as_secs(), last.header.packet_type), (50, PacketType::Abort));
    assert_eq!(last.body[..], abort_codes::RX_CALL_DEAD.0.to_be_bytes());
}

#[test]
fn a_busy_service_is_alive_and_the_call_stays_where_it_is() {
    let mut hand = ByHand::sending(1);
    let call = hand.sent()[0].header.call;
    let mut sent = 0;
    for _ in 0..40 {
        for (_, packet) in hand.wait(3000 * MS) {
            assert_eq!(
                (packet.header.call, packet.header.channel),
                (call, hand.slot.channel)
            );
            sent += usize::from(packet.header.packet_type == PacketType::Data);
        }
        hand.take(PacketType::Busy, Flags::NONE, 0, Bytes::new());
    }
    assert_eq!(
        hand.conn.read(hand.now, hand.slot),
        Ok(Read::Pending),
        "two minutes later"
    );
    assert!((4..12).contains(&sent), "{sent}: with growing patience");
    hand.data(1, Flags::LAST_PACKET);
    assert!(matches!(hand.conn.read(hand.now, hand.slot), Ok(Read::Data(_))));
}

#[test]
fn each_end_has_its_code() {
    let told = |mut hand: ByHand| {
        let sent = hand.sent();
        let aborts = sent
            .iter()
            .filter(|packet| packet.header.packet_type == PacketType::Abort);
        aborts.map(|packet| packet.body[..].to_vec()).collect::<Vec<_>>()
    };
    let mut hand = ByHand::sending(1);
    hand.sent();
    hand.conn.release(hand.now, hand.slot);
    assert_eq!(
        told(hand),
        [abort_codes::RX_USER_ABORT.0.to_be_bytes()],
        "cancelled"
    );

    let mut hand = ByHand::sending(1);
    hand.sent();
    hand.acked(2, 1, AckReason::Requested, &[]);
    hand.conn.release(hand.now, hand.slot);
    assert_eq!(
        told(hand),
        [abort_codes::RX_USER_ABORT.0.to_be_bytes()],
        "also when the service has all of the request: OpenAFS looks at it"
    );

    let mut hand = ByHand::sending(1);
    hand.conn.release(hand.now, hand.slot);
    assert!(told(hand).is_empty(), "never heard of");

    let mut hand = ByHand::sending(1);
    hand.sent();
    hand.conn.close(hand.now);
    assert_eq!(
        told(hand),
        [abort_codes::RX_CALL_DEAD.0.to_be_bytes()],
        "shut down"
    );

    let mut hand = ByHand::sending(1);
    hand.sent();
    let code = Bytes::from_static(&[0, 0, 0, 0]);
    hand.take(PacketType::Abort, Flags::NONE, 0, code);
    let read = hand.conn.read(hand.now, hand.slot);
    assert_eq!(
        read,
        Err(CallError::Aborted(abort_codes::RX_CALL_DEAD)),
        "0 is no success"
    );
    assert!(told(hand).is_empty(), "an ABORT is never answered");
}

#[test]
fn a_limit_that_runs_out_is_told_as_such() {
    let mut hand = ByHand::service();
    hand.conn = Connection::new(tests::params(Side::Client));
    let limits = CallLimits {
        hard_in: Some(Duration::from_secs(2)),
        ..CallLimits::default()
    };
    hand.slot = hand.conn.start_call(hand.now, limits).unwrap();
    hand.conn.finish(hand.now, hand.slot).unwrap();
    hand.sent();
    let (at, last) = hand.wait(10_000 * MS).pop().unwrap();
    assert_eq!((at.as_secs(), last.header.packet_type), (2, PacketType::Abort));
    assert_eq!(last.body[..], abort_codes::RX_CALL_TIMEOUT.0.to_be_bytes());
}

#[test]
fn the_final_ack_is_sent_in_a_moment_and_again_to_each_stray() {
    let mut hand = ByHand::sending(1);
    hand.sent();
    hand.data(1, Flags::LAST_PACKET);
    let waited = hand.wait(100 * MS);
    assert_eq!(waited.len(), 1);
    assert_eq!(waited[0].0, 5 * MS);
    let ack = AckPacket::parse(&waited[0].1.body).unwrap();
    assert_eq!(
        (ack.reason, ack.serial, ack.first),
        (AckReason::Idle, Serial(0), Seq(2))
    );
    assert_eq!((ack.previous, ack.acks.len()), (Seq(1), 0));
    assert!(ack.trailer.jumbo_max.is_some(), "with all of its trailer");
    hand.conn.release(hand.now, hand.slot);
    // The reply again, a PING: each is answered once.
    hand.data(1, Flags::LAST_PACKET);
    hand.ack(said(2, 0, AckReason::Ping, &[]), Flags::REQUEST_ACK);
    let acks = hand.sent_acks();
    assert_eq!(acks.len(), 1, "one answer for a batch");
    assert_eq!(
        (acks[0].reason, acks[0].serial),
        (AckReason::Duplicate, Serial(3))
    );
    // But not what answers us, nor an ABORT.
    hand.acked(2, 0, AckReason::PingResponse, &[]);
    hand.take(PacketType::Abort, Flags::NONE, 0, Bytes::from_static(&[0; 4]));
    assert_eq!(hand.sent(), []);
}

#[test]
fn a_reply_that_is_over_is_not_defended() {
    let mut hand = ByHand::replying(1);
    hand.sent();
    hand.acked(2, 1, AckReason::Delay, &[]);
    hand.conn.release(hand.now, hand.slot);
    hand.data(1, Flags::LAST_PACKET);
    hand.ack(said(2, 0, AckReason::Ping, &[]), Flags::REQUEST_ACK);
    assert_eq!(hand.sent(), [], "the client had the last word");
}
