//! ACKs: when one is given (rxrpc.md 6.5), and what is made of one (6.4). A test for each line of both.

use std::time::Duration;

use super::by_hand::{ByHand, said};
use super::*;
use crate::proto::{AckPacket, AckReason, AckTrailer, BadAck, Flags, PacketType, Rejected, Seq};

const MS: Duration = Duration::from_millis(1);

/// Reason, serial, first, previous, and the table as digits.
fn shown(acks: &[AckPacket]) -> Vec<(AckReason, u32, u32, u32, String)> {
    acks.iter()
        .map(|ack| {
            let table = ack.acks.iter().map(|here| if here { '1' } else { '0' });
            let table = table.collect();
            (ack.reason, ack.serial.0, ack.first.0, ack.previous.0, table)
        })
        .collect()
}

#[test]
fn data_in_order_that_asks_is_answered_at_once() {
    let mut hand = ByHand::service();
    hand.data(1, Flags::REQUEST_ACK);
    let acks = hand.sent_acks();
    assert_eq!(shown(&acks), [(AckReason::Requested, 1, 2, 1, String::new())]);
    assert_eq!(
        acks[0].trailer,
        AckTrailer::new(1444, 1444, 63, 1),
        "less what is unread"
    );
}

#[test]
fn data_that_is_here_is_a_duplicate() {
    let mut hand = ByHand::service();
    hand.data(1, Flags::NONE);
    hand.data(3, Flags::NONE);
    hand.sent();
    for seq in [3, 1] {
        assert_eq!(hand.data(seq, Flags::NONE).rejected, Some(Rejected::Duplicate));
        let expected = (AckReason::Duplicate, hand.serial, 2, 3, "01".to_owned());
        assert_eq!(shown(&hand.sent_acks()), [expected]);
    }
}

#[test]
fn data_after_a_gap_is_out_of_sequence_and_what_fills_it_is_told_at_once() {
    let mut hand = ByHand::service();
    hand.data(2, Flags::NONE);
    let expected = (AckReason::OutOfSequence, 1, 1, 2, "01".to_owned());
    assert_eq!(shown(&hand.sent_acks()), [expected], "a call may begin so");
    hand.data(1, Flags::NONE);
    let expected = (AckReason::Delay, 2, 3, 2, String::new());
    assert_eq!(shown(&hand.sent_acks()), [expected]);
}

#[test]
fn data_beyond_the_window_is_dropped_and_told() {
    let mut hand = ByHand::service();
    hand.data(1, Flags::NONE);
    hand.sent();
    assert_eq!(
        hand.data(65, Flags::NONE).rejected,
        Some(Rejected::BeyondWindow),
        "one is unread"
    );
    let expected = (AckReason::ExceedsWindow, 2, 2, 1, String::new());
    assert_eq!(shown(&hand.sent_acks()), [expected]);
}

#[test]
fn the_second_packet_is_told_and_the_first_in_a_while() {
    let mut hand = ByHand::service();
    hand.data(1, Flags::NONE);
    assert_eq!(hand.sent(), []);
    hand.data(2, Flags::NONE);
    let expected = (AckReason::Idle, 2, 3, 2, String::new());
    assert_eq!(shown(&hand.sent_acks()), [expected]);
    hand.data(3, Flags::NONE);
    let waited = hand.wait(200 * MS);
    let (at, packet) = &waited[0];
    let ack = AckPacket::parse(&packet.body).unwrap();
    assert_eq!(*at, 100 * MS, "OpenAFS waits as long");
    assert_eq!(
        shown(&[ack]),
        [(AckReason::Delay, 0, 4, 3, String::new())],
        "no sample"
    );
    assert_eq!(waited.len(), 1);
}

#[test]
fn a_reader_that_has_made_room_says_so() {
    let mut hand = ByHand::service();
    for seq in 1..=20 {
        hand.data(seq, Flags::NONE);
    }
    hand.sent();
    for _ in 0..7 {
        hand.conn.read(hand.now, hand.slot).unwrap();
    }
    assert_eq!(hand.sent(), []);
    hand.conn.read(hand.now, hand.slot).unwrap();
    let acks = hand.sent_acks();
    assert_eq!(shown(&acks), [(AckReason::Idle, 0, 21, 20, String::new())]);
    assert_eq!(acks[0].trailer.rwind, Some(52));
}

#[test]
fn of_several_reasons_in_one_batch_the_one_that_says_most_wins() {
    let mut hand = ByHand::service();
    hand.data(1, Flags::REQUEST_ACK);
    hand.data(3, Flags::NONE);
    hand.data(1, Flags::NONE);
    hand.data(99, Flags::NONE);
    let expected = (AckReason::OutOfSequence, 2, 2, 3, "01".to_owned());
    assert_eq!(shown(&hand.sent_acks()), [expected]);
    hand.data(2, Flags::REQUEST_ACK);
    hand.data(4, Flags::REQUEST_ACK);
    let expected = (AckReason::Requested, 6, 5, 4, String::new());
    assert_eq!(shown(&hand.sent_acks()), [expected], "of equals the newest");
}

#[test]
fn a_ping_is_answered_whatever_else_is_due() {
    let mut hand = ByHand::service();
    hand.data(1, Flags::NONE);
    hand.ack(said(1, 0, AckReason::Ping, &[]), Flags::REQUEST_ACK);
    let expected = (AckReason::PingResponse, 2, 2, 1, String::new());
    assert_eq!(shown(&hand.sent_acks()), [expected]);
    hand.data(3, Flags::NONE);
    hand.ack(said(1, 0, AckReason::Ping, &[]), Flags::REQUEST_ACK);
    let reasons: Vec<_> = hand.sent_acks().iter().map(|ack| ack.reason).collect();
    assert_eq!(reasons, [AckReason::PingResponse, AckReason::OutOfSequence]);
    hand.data(2, Flags::NONE);
    hand.data(4, Flags::NONE);
    hand.ack(said(1, 0, AckReason::Ping, &[]), Flags::REQUEST_ACK);
    assert_eq!(
        hand.sent_acks().len(),
        1,
        "the answer says as much as DELAY and IDLE"
    );
    assert_eq!(hand.wait(200 * MS), [], "and as the delayed ACK");
}

#[test]
fn any_other_ack_that_asks_is_answered_too() {
    let mut hand = ByHand::sending(2);
    hand.sent();
    hand.ack(said(3, 1, AckReason::Delay, &[]), Flags::REQUEST_ACK);
    let acks = hand.sent_acks();
    assert_eq!(shown(&acks), [(AckReason::Requested, 1, 1, 0, String::new())]);
}

#[test]
fn acks_that_cannot_be_read_break_the_call() {
    let body = |ack: &AckPacket| {
        let mut body = Vec::new();
        ack.encode(&mut body);
        body
    };
    let short = vec![0; 17];
    let zero = body(&said(0, 1, AckReason::Requested, &[]));
    let mut cut = body(&said(1, 1, AckReason::Requested, &[1, 1]));
    cut.truncate(19);
    for (body, rule) in [
        (short, BadAck::Short),
        (zero, BadAck::FirstZero),
        (cut, BadAck::TableCut),
    ] {
        let mut hand = ByHand::sending(4);
        hand.sent();
        let outcome = hand.take(PacketType::Ack, Flags::NONE, 0, body.into());
        assert_eq!(outcome.rejected, Some(Rejected::BadAck(rule)));
        let error = CallError::Protocol(abort_codes::RX_PROTOCOL_ERROR);
        assert_eq!(hand.conn.read(hand.now, hand.slot), Err(error));
        let sent = hand.sent();
        assert_eq!(sent[0].header.packet_type, PacketType::Abort);
        assert_eq!(
            sent[0].body[..],
            abort_codes::RX_PROTOCOL_ERROR.0.to_be_bytes(),
            "it is told"
        );
    }
}

#[test]
fn acks_of_unsent_packets_break_the_call_and_those_of_sent_ones_do_not() {
    for (first, table, fine) in [
        (5, &[][..], true),
        (6, &[], false),
        (3, &[1, 1], true),
        (3, &[1, 1, 1], false),
    ] {
        let mut hand = ByHand::sending(4);
        hand.sent();
        let outcome = hand.acked(first, 1, AckReason::Requested, table);
        let expected = (!fine).then_some(Rejected::AckBeyondSent);
        assert_eq!(outcome.rejected, expected, "{first} {table:?}");
    }
}

#[test]
fn an_old_ack_gives_a_sample_and_nothing_else() {
    let mut hand = ByHand::sending(8);
    hand.sent();
    hand.now += 30 * MS;
    hand.acked(5, 0, AckReason::Delay, &[]);
    assert_eq!(hand.conn.rtt(), None);
    let mut old = said(3, 8, AckReason::Requested, &[]);
    old.trailer.rwind = Some(1);
    hand.ack(old, Flags::NONE);
    assert_eq!(hand.conn.rtt().unwrap().smoothed, 30 * MS);
    hand.acked(5, 0, AckReason::Delay, &[0, 0, 0, 1]);
    hand.now += 200 * MS;
    hand.conn.handle_timeout(hand.now);
    assert!(hand.sent_data().contains(&5), "the old window does not count");
}

#[test]
fn only_an_answer_that_comes_at_once_is_a_sample() {
    for (reason, sampled) in [
        (AckReason::Requested, true),
        (AckReason::Duplicate, true),
        (AckReason::OutOfSequence, true),
        (AckReason::ExceedsWindow, true),
        (AckReason::NoSpace, true),
        (AckReason::Ping, false),
        (AckReason::PingResponse, false),
        (AckReason::Delay, false),
        (AckReason::Idle, false),
        (AckReason::Unknown, false),
    ] {
        let mut hand = ByHand::sending(8);
        hand.sent();
        hand.now += 30 * MS;
        hand.acked(2, 3, reason, &[]);
        assert_eq!(hand.conn.rtt().is_some(), sampled, "{reason:?}");
    }
    let mut hand = ByHand::sending(8);
    hand.sent();
    hand.acked(2, 77, AckReason::Requested, &[]);
    assert_eq!(hand.conn.rtt(), None, "it names nothing that was sent");
}

#[test]
fn the_answer_to_a_ping_samples_the_ping() {
    let mut hand = ByHand::sending(1);
    hand.sent();
    hand.acked(2, 0, AckReason::Delay, &[]);
    let pings = hand.wait(3000 * MS);
    let ping = pings.last().unwrap().1.header;
    assert!(ping.flags.request_ack());
    hand.now += 40 * MS;
    hand.acked(2, ping.serial.0 + 1, AckReason::PingResponse, &[]);
    assert_eq!(hand.conn.rtt(), None);
    hand.acked(2, ping.serial.0, AckReason::PingResponse, &[]);
    assert_eq!(hand.conn.rtt().unwrap().smoothed, 40 * MS);
    hand.now += 400 * MS;
    hand.acked(2, ping.serial.0, AckReason::PingResponse, &[]);
    assert_eq!(hand.conn.rtt().unwrap().smoothed, 40 * MS, "once");
}

#[test]
fn a_peer_that_drops_for_want_of_room_gets_it_again() {
    for reason in [AckReason::NoSpace, AckReason::ExceedsWindow] {
        let mut hand = ByHand::sending_over(MS, 4);
        hand.sent();
        hand.now += MS;
        hand.acked(2, 2, reason, &[0, 1, 1]);
        let sent = hand.wait(20 * MS);
        assert_eq!(sent.len(), 1, "{reason:?}");
        assert_eq!(sent[0].1.header.seq, Seq(2));
    }
}

#[test]
fn the_trailer_counts_as_far_as_it_goes() {
    let window = |trailer: AckTrailer| {
        let mut hand = ByHand::client();
        hand.write(40);
        assert_eq!(hand.sent_data().len(), 10);
        let ack = AckPacket {
            trailer,
            ..said(11, 10, AckReason::Requested, &[])
        };
        hand.ack(ack, Flags::NONE);
        hand.sent_data().len()
    };
    let words = |count: usize| AckTrailer {
        rwind: (count > 2).then_some(18),
        jumbo_max: (count > 3).then_some(1),
        ..AckTrailer::new(1444, 1444, 18, 1)
    };
    assert_eq!(window(AckTrailer::default()), 16, "what every peer has room for");
    assert_eq!(window(words(2)), 16);
    assert_eq!(window(words(3)), 16, "three words may only narrow");
    assert_eq!(window(words(4)), 18);
    assert_eq!(window(AckTrailer::new(1444, 1444, 5, 1)), 5);
    assert_eq!(window(AckTrailer::new(1444, 1444, 0, 1)), 0);
}

#[test]
fn a_peer_that_puts_a_serial_where_the_packet_should_stand_is_understood() {
    let mut hand = ByHand::sending(12);
    hand.sent();
    for (first, previous) in [(3, 900), (5, 901), (5, 902), (8, 800)] {
        let mut ack = said(first, first - 1, AckReason::Requested, &[1]);
        ack.previous = Seq(previous);
        assert_eq!(hand.ack(ack, Flags::NONE).rejected, None);
    }
    hand.sent();
    hand.acked(13, 12, AckReason::Requested, &[]);
    assert!(hand.conn.is_sent(hand.slot));
}

#[test]
fn while_a_reply_comes_acks_of_the_request_change_nothing() {
    let mut hand = ByHand::sending(3);
    hand.sent();
    hand.now += 20 * MS;
    hand.data(1, Flags::NONE);
    let outcome = hand.acked(9, 2, AckReason::Requested, &[1, 1]);
    assert_eq!(outcome.rejected, None, "not even impossible ones");
    assert_eq!(
        hand.conn.rtt().unwrap().smoothed,
        20 * MS,
        "but what they answer counts"
    );
    assert_eq!(
        hand.conn.read(hand.now, hand.slot),
        Ok(Read::Data(Bytes::from_static(b"x")))
    );
    hand.ack(said(1, 0, AckReason::Ping, &[]), Flags::REQUEST_ACK);
    assert_eq!(hand.sent_acks()[0].reason, AckReason::PingResponse);
}

#[test]
fn ack_all_frees_everything_or_is_a_fault() {
    let mut hand = ByHand::sending(3);
    hand.sent();
    let outcome = hand.take(PacketType::AckAll, Flags::NONE, 0, Bytes::new());
    assert_eq!(outcome.rejected, None);
    assert!(hand.conn.is_sent(hand.slot));
    let mut hand = ByHand::client();
    hand.write(3);
    hand.sent();
    let outcome = hand.take(PacketType::AckAll, Flags::NONE, 0, Bytes::new());
    assert_eq!(outcome.rejected, Some(Rejected::AckBeyondSent));
}

#[test]
fn a_service_that_has_lost_the_call_is_found_out() {
    let lost = |hand: &mut ByHand| hand.conn.read(hand.now, hand.slot) == Err(CallError::CallLost);
    let nothing = |serial, reason| AckPacket::new(Seq(1), Seq(0), Serial(serial), reason);
    for (reason, is_lost) in [
        (AckReason::ExceedsWindow, true),
        (AckReason::OutOfSequence, true),
        (AckReason::Delay, false),
        (AckReason::PingResponse, false),
    ] {
        let mut hand = ByHand::sending(5);
        hand.sent();
        hand.ack(nothing(3, reason), Flags::NONE);
        assert_eq!(lost(&mut hand), is_lost, "{reason:?}");
    }
    // One that starts at the second packet has lost nothing.
    let mut hand = ByHand::sending(5);
    hand.sent();
    hand.acked(1, 2, AckReason::OutOfSequence, &[0, 1]);
    assert!(!lost(&mut hand));
    // It has acked the first eight, restarts, and meets the ninth as the first that it hears of.
    let mut hand = ByHand::sending(12);
    hand.sent();
    hand.acked(9, 8, AckReason::Requested, &[]);
    hand.sent();
    hand.acked(1, 9, AckReason::OutOfSequence, &[0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert!(!lost(&mut hand), "that may be an old ACK");
    hand.wait(400 * MS);
    hand.acked(1, 13, AckReason::OutOfSequence, &[0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert!(lost(&mut hand), "but not when it answers what was sent since");
    assert_eq!(hand.sent()[0].header.packet_type, PacketType::Abort);
}

#[test]
fn a_client_that_has_lost_the_call_is_nothing_special() {
    let mut hand = ByHand::replying(5);
    hand.sent();
    let ack = AckPacket::new(Seq(1), Seq(0), Serial(3), AckReason::ExceedsWindow);
    assert_eq!(hand.ack(ack, Flags::NONE).rejected, None);
    hand.acked(6, 5, AckReason::Requested, &[]);
    assert!(hand.conn.is_sent(hand.slot));
}
