//! The search for the largest datagram that the path to a peer takes in one piece (rxrpc.md 12).
//!
//! The machine: while DATA is under way, a PING padded to the size on trial goes with it, and its answer proves the size.
//! An answer to something sent later, with none to the PING, says that it was lost; after the second loss the size counts
//! as too large. The largest size of all is tried first, since a path mostly takes what its route and the peer say; then
//! the range is halved until what is left is not worth a packet. A search that has ended begins again after a while.

use std::time::{Duration, Instant};

use super::{Serial, Slot};

/// Where the search stands. All sizes are bytes of UDP payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct PathSearch {
    trial: Option<Trial>,
    /// Before this no search begins.
    rests_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Trial {
    /// This arrives.
    good: u16,
    /// This does not.
    bad: u16,
    size: u16,
    losses: u8,
    /// The PING under way, and the call that it belongs to.
    under_way: Option<(Slot, Serial)>,
}

impl PathSearch {
    pub(super) const fn new() -> Self {
        Self {
            trial: None,
            rests_until: None,
        }
    }

    /// Sizes up to `most` may be tried, and `good` arrives: begins a search if one is due, and narrows one that goes on.
    pub(super) fn look(&mut self, now: Instant, good: u16, most: u16) {
        match &mut self.trial {
            Some(trial) if most <= trial.good => self.rest(now),
            Some(trial) => {
                trial.bad = trial.bad.min(most.saturating_add(1));
                if trial.size >= trial.bad {
                    self.go_on(now);
                }
            }
            None if most < good.saturating_add(WORTHWHILE) => {}
            None if self.rests_until.is_some_and(|until| now < until) => {}
            None => {
                self.trial = Some(Trial {
                    good,
                    bad: most.saturating_add(1),
                    size: most,
                    losses: 0,
                    under_way: None,
                });
            }
        }
    }

    /// The size of the PING that is to be sent.
    pub(super) fn next(&self) -> Option<u16> {
        self.trial
            .filter(|trial| trial.under_way.is_none())
            .map(|trial| trial.size)
    }

    /// The PING has left.
    pub(super) fn on_sent(&mut self, slot: Slot, serial: Serial) {
        if let Some(trial) = &mut self.trial {
            trial.under_way = Some((slot, serial));
        }
    }

    /// The call of the PING under way, if there is one.
    pub(super) fn asked(&self) -> Option<Slot> {
        let (slot, _) = self.trial?.under_way?;
        Some(slot)
    }

    /// The call of the PING is over: nobody will say what became of it.
    pub(super) fn forget(&mut self) {
        if let Some(trial) = &mut self.trial {
            trial.under_way = None;
        }
    }

    /// An ACK of a call answers the packet `serial`, as the answer to a PING or otherwise. Gives the size that it proves.
    pub(super) fn on_answer(
        &mut self,
        now: Instant,
        slot: Slot,
        serial: Serial,
        to_ping: bool,
    ) -> Option<u16> {
        let trial = self.trial.as_mut()?;
        let (_, probe) = trial.under_way.filter(|(asked, _)| *asked == slot)?;
        if to_ping && serial == probe {
            trial.good = trial.size;
            let proven = trial.size;
            self.go_on(now);
            return Some(proven);
        }
        if serial != Serial(0) && serial.after(probe) {
            trial.under_way = None;
            trial.losses += 1;
            if trial.losses == LOSSES {
                trial.bad = trial.size;
                self.go_on(now);
            }
        }
        None
    }

    /// Nothing is tried for a while.
    pub(super) fn rest(&mut self, now: Instant) {
        self.trial = None;
        self.rests_until = Some(now + AGAIN);
    }

    fn go_on(&mut self, now: Instant) {
        let Some(trial) = &mut self.trial else { return };
        if trial.bad - trial.good <= WORTHWHILE {
            return self.rest(now);
        }
        trial.size = trial.good + (trial.bad - trial.good) / 2;
        trial.losses = 0;
        trial.under_way = None;
    }
}

/// What a larger packet must gain.
const WORTHWHILE: u16 = 32;
/// A PING may be lost by chance once.
const LOSSES: u8 = 2;
/// Routes change (RFC 8899 raises its probes after as long).
const AGAIN: Duration = Duration::from_mins(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{CallNumber, ChannelIndex};

    const SLOT: Slot = Slot {
        channel: ChannelIndex::ALL[0],
        call: CallNumber(1),
    };

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn now() -> Instant {
        Instant::now()
    }

    /// Searches on a path of so many bytes; gives what was found and what was tried.
    fn search(path: u16, most: u16) -> (u16, Vec<u16>) {
        let (mut search, now) = (PathSearch::new(), now());
        let (mut good, mut tried, mut serial) = (1444, Vec::new(), Serial(1));
        search.look(now, good, most);
        while let Some(size) = search.next() {
            tried.push(size);
            search.on_sent(SLOT, serial);
            assert_eq!(search.next(), None, "one at a time");
            let answered = size <= path;
            let to = if answered { serial } else { serial.next() };
            if let Some(proven) = search.on_answer(now, SLOT, to, answered) {
                good = proven;
            }
            serial = serial.next().next();
        }
        search.look(now + AGAIN - Duration::from_secs(1), good, most);
        assert_eq!(search.next(), None, "it rests");
        (good, tried)
    }

    #[test]
    fn the_largest_is_tried_first() {
        assert_eq!(search(9000, 8972), (8972, vec![8972]));
        assert_eq!(search(9000, 1475), (1444, vec![]), "not worth it");
        assert_eq!(search(1472, 1500), (1472, vec![1500, 1500, 1472]));
    }

    #[test]
    fn halving_finds_any_path_in_few_packets() {
        for path in (1444..65_000).step_by(97) {
            let (good, tried) = search(path, 65_507);
            assert!(good <= path && path - good <= WORTHWHILE, "{path}: {good}");
            assert!(tried.len() <= 24, "{path}: {tried:?}");
        }
    }

    #[test]
    fn one_loss_is_chance_and_the_end_of_a_call_says_nothing() {
        let (mut search, now) = (PathSearch::new(), now());
        search.look(now, 1444, 8972);
        search.on_sent(SLOT, Serial(5));
        assert_eq!(search.on_answer(now, SLOT, Serial(4), false), None, "sent before");
        assert_eq!(search.next(), None);
        search.on_answer(now, SLOT, Serial(6), false);
        assert_eq!(search.next(), Some(8972), "once more");
        search.on_sent(SLOT, Serial(7));
        assert_eq!(search.asked(), Some(SLOT));
        search.forget();
        search.on_sent(SLOT, Serial(8));
        let other = Slot {
            call: CallNumber(2),
            ..SLOT
        };
        search.on_answer(now, other, Serial(9), false);
        assert_eq!(search.next(), None, "another call says nothing either");
        assert_eq!(search.on_answer(now, SLOT, Serial(8), true), Some(8972));
        assert_eq!(search.next(), None);
        search.look(now + AGAIN, 1444, 8972);
        assert_eq!(search.next(), Some(8972), "after a while");
    }

    #[test]
    fn what_icmp_forbids_is_not_tried() {
        let (mut search, now) = (PathSearch::new(), now());
        search.look(now, 1444, 8972);
        search.on_sent(SLOT, Serial(5));
        search.look(now, 1444, 4000);
        assert_eq!(search.next(), Some(1444 + (4001 - 1444) / 2));
        search.look(now, 1444, 1440);
        assert_eq!(search.next(), None);
    }
}
