//! Every transmission that may still be heard of, in the order in which they left.
//!
//! The machine: each sending of a packet, the first and every later one, adds an entry. Serials and times rise from front
//! to back, so the one that an ACK names is found by halving, and the ones that are overdue lie together: a mark divides
//! those that were judged to be lost, or that something newer has made meaningless, from those that were not judged yet.
//! An entry goes when its packet has arrived and nothing older waits before it.

use std::collections::VecDeque;
use std::time::Instant;

use crate::proto::{Seq, Serial};

/// The transmissions of one call.
#[derive(Debug, Default)]
pub(super) struct Flights {
    list: VecDeque<Flight>,
    /// Entries before this one have been judged.
    judged: usize,
}

/// One transmission of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flight {
    pub(super) seq: Seq,
    pub(super) serial: Serial,
    /// The n-th transmission of the call, from 1.
    pub(super) order: u64,
    pub(super) at: Instant,
}

impl Flights {
    pub(super) fn push(&mut self, flight: Flight) {
        self.list.push_back(flight);
    }

    /// The transmission that had this serial, if it is still known.
    pub(super) fn find(&self, serial: Serial) -> Option<&Flight> {
        let index = self.list.partition_point(|flight| flight.serial.before(serial));
        self.list.get(index).filter(|flight| flight.serial == serial)
    }

    /// The oldest that was not judged and still flies.
    pub(super) fn oldest(&mut self, flies: impl Fn(&Flight) -> bool) -> Option<Flight> {
        while let Some(flight) = self.list.get(self.judged) {
            if flies(flight) {
                return Some(*flight);
            }
            self.judged += 1;
        }
        None
    }

    /// The oldest has been judged.
    pub(super) fn judge(&mut self) {
        self.judged = (self.judged + 1).min(self.list.len());
    }

    /// Drops what lies at the front and has `arrived`. Should too many pile up, only those stay that fly.
    pub(super) fn prune(&mut self, arrived: impl Fn(&Flight) -> bool, flies: impl Fn(&Flight) -> bool) {
        while self.list.front().is_some_and(&arrived) {
            self.list.pop_front();
            self.judged = self.judged.saturating_sub(1);
        }
        // Only a peer that drops packets again and again brings this about.
        if self.list.len() >= FLIGHTS_MAX {
            self.list.retain(flies);
            self.judged = 0;
        }
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.judged = 0;
    }
}

#[cfg(test)]
impl Flights {
    /// How many of those that were not judged fly.
    pub(super) fn count_unjudged(&self, flies: impl Fn(&Flight) -> bool) -> usize {
        self.list
            .range(self.judged..)
            .filter(|flight| flies(flight))
            .count()
    }
}

/// Four windows of 255.
const FLIGHTS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn flights(serials: impl Iterator<Item = u32>) -> Flights {
        let mut flights = Flights::default();
        for (order, serial) in (1..).zip(serials) {
            flights.push(Flight {
                seq: Seq(serial),
                serial: Serial(serial),
                order,
                at: Instant::now(),
            });
        }
        flights
    }

    #[test]
    fn a_serial_names_one_transmission() {
        let flights = flights([u32::MAX - 4, u32::MAX - 1, 2, 9].into_iter());
        assert_eq!(flights.find(Serial(u32::MAX - 1)).unwrap().order, 2);
        assert_eq!(flights.find(Serial(9)).unwrap().order, 4);
        for unknown in [0, 1, 3, 10, u32::MAX] {
            assert_eq!(flights.find(Serial(unknown)), None, "{unknown}");
        }
    }

    #[test]
    fn judged_ones_are_not_met_again() {
        let mut flights = flights(1..=5);
        assert_eq!(flights.oldest(|flight| flight.order != 1).unwrap().order, 2);
        flights.judge();
        assert_eq!(flights.oldest(|_| true).unwrap().order, 3);
        assert!(flights.find(Serial(1)).is_some(), "but ACKs may name them");
        flights.prune(|flight| flight.order < 3, |_| true);
        assert!(flights.find(Serial(1)).is_none());
        assert_eq!(flights.oldest(|_| true).unwrap().order, 3);
        assert_eq!(flights.oldest(|_| false), None);
    }

    #[test]
    fn only_those_that_fly_stay_when_too_many_pile_up() {
        let mut flights = flights(1..=5000);
        flights.prune(|_| false, |flight| flight.order > 4800);
        assert_eq!(flights.list.len(), 200);
        assert_eq!(flights.oldest(|_| true).unwrap().order, 4801);
    }
}
