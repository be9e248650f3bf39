use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

/// A queue, a clock, and the serials of a connection that only sends.
struct Sender {
    queue: SendQueue,
    rtt: RttEstimator,
    now: Instant,
    serial: u32,
    acks: u32,
}

#[expect(clippy::disallowed_methods, reason = "any instant will do")]
fn sender(packets: usize) -> Sender {
    let mut sender = Sender {
        queue: SendQueue::new(),
        rtt: RttEstimator::default(),
        now: Instant::now(),
        serial: 0,
        acks: 0,
    };
    sender.rtt.sample(sender.now, 40 * MS);
    for index in 0..packets {
        let body = Bytes::from_static(b"x");
        sender
            .queue
            .push(Sealed { body, checksum: 0 }, index + 1 == packets);
    }
    sender
}

impl Sender {
    /// Sends all it may; gives the packets.
    fn send(&mut self) -> Vec<u32> {
        let mut sent = Vec::new();
        while let Some(index) = self.queue.next_to_send() {
            self.serial += 1;
            sent.push(self.queue.seq(index).0);
            self.queue.on_sent(index, Serial(self.serial), self.now);
        }
        sent
    }

    fn received(&mut self, first: u32, serial: u32, reason: AckReason, table: &[u8]) -> Received {
        self.acks += 1;
        let len = u32::try_from(table.len()).unwrap();
        Received {
            own: Serial(self.acks),
            first: Seq(first),
            previous: Seq(first + len - 1),
            serial: Serial(serial),
            reason,
            acks: table.iter().map(|&entry| entry == 1).collect(),
        }
    }

    /// Time passes and an ACK comes; gives what it brings and what is lost by then.
    fn ack(&mut self, after: Duration, first: u32, serial: u32, table: &[u8]) -> (Progress, Losses) {
        self.now += after;
        let ack = self.received(first, serial, AckReason::Requested, table);
        self.queue.accepts(&ack).unwrap();
        let progress = self.queue.on_ack(&ack, self.now, self.rtt.least(), 0);
        (progress, self.lose())
    }

    fn lose(&mut self) -> Losses {
        let window = self.queue.reordering_window(false, &self.rtt);
        self.queue.detect_losses(window, self.now)
    }

    /// When the reordering timer would run out.
    fn reordering_ends(&mut self) -> Option<Instant> {
        let window = self.queue.reordering_window(false, &self.rtt);
        self.queue.reordering_ends(window)
    }
}

#[test]
fn three_that_overtake_make_a_loss_at_once() {
    let mut sender = sender(8);
    assert_eq!(sender.send().len(), 8);
    let (progress, losses) = sender.ack(40 * MS, 2, 4, &[0, 1, 1]);
    assert_eq!((progress.newly, progress.freed, losses.packets), (3, 1, 0));
    let (progress, losses) = sender.ack(Duration::ZERO, 2, 5, &[0, 1, 1, 1]);
    assert_eq!((progress.newly, losses.packets, losses.newest), (1, 1, 2));
    assert_eq!(sender.send(), [2]);
    let (progress, losses) = sender.ack(40 * MS, 9, 9, &[]);
    assert_eq!((progress.freed, losses.packets), (7, 0));
    assert!(sender.queue.is_empty() && sender.queue.is_acked() && sender.queue.in_flight() == 0);
}

#[test]
fn fewer_make_one_after_the_reordering_window() {
    let mut sender = sender(8);
    sender.send();
    let (_, losses) = sender.ack(40 * MS, 1, 2, &[0, 1]);
    assert_eq!(losses.packets, 0);
    assert_eq!(sender.reordering_ends(), Some(sender.now + 10 * MS));
    sender.now += 10 * MS;
    assert_eq!(sender.lose().packets, 1);
    assert_eq!(sender.send(), [1]);
    assert_eq!(sender.reordering_ends(), None);
}

#[test]
fn on_a_path_that_reorders_three_are_not_enough() {
    let mut sender = sender(12);
    sender.send();
    sender.ack(40 * MS, 1, 3, &[0, 0, 1]);
    sender.ack(MS, 3, 2, &[1]);
    let (_, losses) = sender.ack(MS, 3, 8, &[1, 0, 1, 1, 1, 1]);
    assert_eq!(losses.packets, 0);
    assert!(sender.reordering_ends().is_some());
}

#[test]
fn a_lost_retransmission_is_lost_again() {
    let mut sender = sender(12);
    sender.queue.set_peer_window(6, true);
    sender.send();
    assert_eq!(sender.ack(40 * MS, 1, 4, &[0, 1, 1, 1]).1.newest, 1);
    assert_eq!(sender.send(), [1]);
    sender.queue.set_peer_window(12, true);
    sender.now += MS;
    assert_eq!(sender.send(), [7, 8, 9, 10, 11, 12]);
    let (_, losses) = sender.ack(40 * MS, 1, 10, &[0, 1, 1, 1, 1, 1, 1, 1, 1]);
    assert_eq!(
        (losses.packets, losses.newest),
        (1, 7),
        "sent as the seventh, later ones have arrived"
    );
}

#[test]
fn arrivals_after_all_are_counted_and_teach_nothing_else() {
    let mut sender = sender(12);
    sender.send();
    assert_eq!(sender.ack(40 * MS, 1, 8, &[0, 0, 0, 1, 1, 1]).1.packets, 3);
    // The first comes before it is sent again, the second just after, the third is truly lost.
    let (progress, _) = sender.ack(MS, 2, 1, &[0, 0, 1, 1, 1]);
    assert_eq!((progress.unfounded, progress.certain), (1, true));
    assert_eq!(sender.send(), [2, 3]);
    let (progress, _) = sender.ack(MS, 3, 2, &[0, 1, 1, 1]);
    assert_eq!((progress.unfounded, progress.certain), (1, false));
    assert_eq!(sender.queue.newest_arrival(), 6, "not by what was sent again");
    let (progress, _) = sender.ack(40 * MS, 7, 14, &[]);
    assert_eq!((progress.unfounded, progress.freed), (0, 4));
    assert_eq!(sender.queue.newest_arrival(), 14);
}

#[test]
fn a_serial_samples_the_sending_that_it_names() {
    let mut sender = sender(4);
    sender.send();
    sender.ack(40 * MS, 1, 4, &[0, 1, 1, 1]);
    assert_eq!(sender.send(), [1]);
    sender.now += 5 * MS;
    let sample = |serial| sender.queue.sample(Serial(serial), sender.now);
    assert_eq!(sample(5), Some(5 * MS), "the second");
    assert_eq!(sample(1), Some(45 * MS), "the first");
    assert_eq!(sample(6), None);
    assert_eq!(sample(0), None);
}

#[test]
fn a_probe_of_the_tail_finds_what_is_missing() {
    let mut sender = sender(3);
    sender.send();
    sender.ack(40 * MS, 2, 1, &[]);
    assert!(sender.queue.ready_probe());
    assert_eq!(sender.send(), [3], "nothing new is left: the highest in flight");
    sender.queue.on_probe_sent(true);
    assert!(sender.queue.is_probed());
    let (progress, losses) = sender.ack(40 * MS, 2, 4, &[0, 1]);
    assert_eq!((progress.repaired, losses.packets), (Some(4), 1));
    assert!(!sender.queue.is_probed());
    assert_eq!(sender.send(), [2]);
}

#[test]
fn a_probe_that_comes_second_has_repaired_nothing() {
    let mut sender = sender(3);
    sender.send();
    sender.now += 80 * MS;
    assert!(sender.queue.ready_probe());
    assert_eq!(sender.send(), [3]);
    sender.queue.on_probe_sent(true);
    sender.now += 40 * MS;
    let ack = sender.received(4, 4, AckReason::Duplicate, &[]);
    let progress = sender.queue.on_ack(&ack, sender.now, sender.rtt.least(), 0);
    assert_eq!((progress.freed, progress.repaired), (3, None));
    assert!(!sender.queue.is_probed());
}

#[test]
fn a_timeout_takes_what_is_old() {
    let mut sender = sender(6);
    sender.queue.set_peer_window(3, true);
    sender.send();
    sender.ack(40 * MS, 1, 2, &[0, 1]);
    sender.now += 300 * MS;
    sender.queue.set_peer_window(6, true);
    assert_eq!(sender.send(), [4, 5, 6]);
    let losses = sender.queue.on_timeout(10 * MS, sender.now);
    assert_eq!(
        (losses.packets, sender.queue.in_flight()),
        (2, 3),
        "not what has just left"
    );
    assert_eq!(sender.send(), [1, 3]);
    sender.queue.on_timeout(10 * MS, sender.now);
    assert_eq!(sender.send(), [4], "but always the oldest");
}

#[test]
fn stale_and_impossible_acks() {
    let mut sender = sender(8);
    sender.send();
    let late = sender.received(4, 2, AckReason::Requested, &[]);
    sender.ack(40 * MS, 4, 3, &[0, 1]);
    let mut judge = |first, serial, table: &[u8]| {
        let ack = sender.received(first, serial, AckReason::Requested, table);
        sender.queue.accepts(&ack)
    };
    assert_eq!(judge(3, 2, &[1]), Err(AckFault::Stale), "frees less");
    assert_eq!(judge(1, 3, &[]), Err(AckFault::Stale));
    assert_eq!(judge(10, 2, &[]), Err(AckFault::BeyondSent));
    assert_eq!(judge(4, 2, &[1, 1, 1, 1, 1, 1]), Err(AckFault::BeyondSent));
    assert_eq!(judge(4, 2, &[1]), Ok(()), "OpenAFS goes back");
    assert_eq!(sender.queue.accepts(&late), Err(AckFault::Stale), "sent before");
    let restarted = Received {
        previous: Seq(6),
        ..late
    };
    assert_eq!(sender.queue.accepts(&restarted), Ok(()), "tells of more");
}

#[test]
fn a_peer_that_knew_more_has_forgotten() {
    let mut sender = sender(20);
    sender.send();
    sender.ack(40 * MS, 9, 8, &[]);
    let late = sender.received(1, 16, AckReason::OutOfSequence, &[0, 0]);
    assert_eq!(
        sender.queue.accepts(&late),
        Err(AckFault::Stale),
        "it had not come yet"
    );
    assert_eq!(sender.send().len(), 4);
    let ack = sender.received(1, 17, AckReason::OutOfSequence, &[0, 0]);
    assert_eq!(sender.queue.accepts(&ack), Err(AckFault::Forgotten));
}

#[test]
fn packets_that_the_peer_drops_again_are_sent_again() {
    let mut sender = sender(4);
    sender.send();
    sender.ack(40 * MS, 1, 4, &[1, 1, 1, 1]);
    assert!(sender.queue.is_acked());
    sender.ack(MS, 1, 4, &[1, 0, 1, 1]);
    assert!(!sender.queue.is_acked());
    assert_eq!(sender.send(), [2]);
    assert_eq!(sender.queue.in_flight(), 1);
}

#[test]
fn a_peer_that_drops_for_ever_costs_no_memory() {
    let mut sender = sender(16);
    sender.send();
    for round in 0..1000_u32 {
        let serial = 16 + round * 15;
        sender.ack(MS, 1, serial, &[0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        sender.ack(MS, 1, serial, &[0; 16]);
        sender.send();
    }
    assert_eq!(sender.queue.in_flight(), 16);
    assert_eq!(sender.ack(MS, 17, sender.serial, &[]).0.freed, 16);
}

#[test]
fn nothing_goes_beyond_a_window_that_shrinks() {
    let mut sender = sender(8);
    sender.send();
    sender.queue.set_peer_window(2, true);
    let losses = sender.queue.on_timeout(Duration::ZERO, sender.now + 400 * MS);
    assert_eq!(losses.packets, 8);
    assert_eq!(sender.send(), [1, 2]);
    sender.queue.set_peer_window(0, true);
    assert_eq!(sender.queue.next_to_send(), None);
    assert!(!sender.queue.ready_probe(), "what flies lies beyond");
    sender.queue.set_peer_window(9, false);
    assert_eq!(
        sender.queue.next_to_send(),
        None,
        "three words may only narrow it"
    );
    sender.queue.set_peer_window(255, true);
    assert_eq!(sender.send(), [3, 4, 5, 6, 7, 8]);
}

/// Something that happens to a sender.
#[derive(Clone, Debug)]
enum Happening {
    Send,
    /// An ACK: how many it frees, its table, how far back is what it answers, its reason.
    Ack(u32, Vec<u8>, u32, u8),
    Time(u64),
    Timeout,
    Probe,
    Window(u8),
}

fn happening() -> impl Strategy<Value = Happening> {
    let table = proptest::collection::vec(0_u8..2, 0..30);
    prop_oneof![
        Just(Happening::Send),
        (0_u32..8, table, 0_u32..40, 1_u8..10)
            .prop_map(|(frees, table, back, reason)| Happening::Ack(frees, table, back, reason)),
        (0_u64..60).prop_map(Happening::Time),
        Just(Happening::Timeout),
        Just(Happening::Probe),
        (0_u8..40).prop_map(Happening::Window),
    ]
}

impl Sender {
    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Send => drop(self.send()),
            Happening::Ack(frees, table, back, reason) => {
                let first = self.queue.bottom.plus(frees).0;
                let serial = self.serial.saturating_sub(back);
                let ack = self.received(first, serial, AckReason::from_number(reason), &table);
                if self.queue.accepts(&ack).is_ok() {
                    self.queue.on_ack(&ack, self.now, self.rtt.least(), 0);
                    self.lose();
                }
            }
            Happening::Time(ms) => {
                self.now += MS * u32::try_from(ms).unwrap();
                self.lose();
            }
            Happening::Timeout => drop(self.queue.on_timeout(MS, self.now)),
            Happening::Probe => {
                if self.queue.ready_probe() {
                    self.send();
                    self.queue.on_probe_sent(true);
                }
            }
            Happening::Window(packets) => self.queue.set_peer_window(packets, true),
        }
    }

    /// Every packet that was sent is in one state, and what is in flight can be found to be lost.
    fn check(&self) {
        let queue = &self.queue;
        assert!(queue.acked.and(queue.lost).is_empty());
        let settled = queue.acked.len() + queue.lost.len();
        assert_eq!(queue.in_flight + settled, queue.sent);
        let flies = |flight: &Flight| flies(flight, queue.bottom, &queue.packets, &queue.acked, &queue.lost);
        assert_eq!(queue.flights.count_unjudged(flies), queue.in_flight);
        assert!(queue.next_to_send().is_none_or(|index| index < queue.peer_window));
    }
}

proptest! {
    /// Whatever a peer says, no packet is forgotten, and all arrive in the end.
    #[test]
    fn no_packet_is_forgotten(happenings in proptest::collection::vec(happening(), 0..200)) {
        let mut sender = sender(60);
        for happening in happenings {
            sender.happen(happening);
            sender.check();
        }
        sender.queue.set_peer_window(255, true);
        while !sender.queue.is_empty() {
            sender.queue.on_timeout(Duration::ZERO, sender.now);
            sender.send();
            let first = sender.queue.bottom.plus(1).0;
            let serial = sender.serial;
            sender.ack(MS, first, serial, &[]);
            sender.check();
        }
        prop_assert!(sender.queue.is_acked());
    }
}
