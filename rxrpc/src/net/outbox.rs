//! Runs of datagrams that wait to leave: for the socket to have room, or for others to leave with.
//!
//! The machine: a queue in the order in which the runs were made. A small run joins the one before it if both go to the
//! same peer in datagrams of one size, so that what many calls have to say leaves in one system call.
//!
//! What waits has somebody who comes for it: while small runs are gathered, the one who gathers them; else the task that
//! waits for room, which is told after a run was queued because there was none. A run that is queued behind others
//! relies on that, so to see that others wait and to queue up is one step: between two, the last of them might leave.

use std::collections::VecDeque;
use std::net::SocketAddrV4;

/// What waits.
#[derive(Default)]
pub(super) struct Outbox {
    runs: VecDeque<Run>,
    /// Small runs wait for others.
    gathers: bool,
}

/// A run of datagrams to one peer, all `segment` bytes long but the last.
pub(super) struct Run {
    pub(super) peer: SocketAddrV4,
    pub(super) segment: usize,
    pub(super) bytes: Vec<u8>,
}

impl Outbox {
    /// Queues a run, as part of the last one if all of its datagrams, no more than `most`, are of one size. Beyond a limit
    /// the run is lost, as it would be in a full queue of the network; calls send it again.
    pub(super) fn push(&mut self, peer: SocketAddrV4, segment: usize, bytes: &[u8], most: usize) {
        let last = self.runs.back_mut();
        if let Some(run) = last.filter(|run| run.takes(peer, segment, bytes, most)) {
            run.bytes.extend_from_slice(bytes);
        } else if self.runs.len() < RUNS_MAX {
            self.runs.push_back(Run {
                peer,
                segment,
                bytes: bytes.to_vec(),
            });
        }
    }

    /// Queues a run if it has to wait; false if it may leave now. While small ones are gathered only these wait: a large one
    /// may overtake them, as it may in the network.
    pub(super) fn keeps_back(
        &mut self,
        peer: SocketAddrV4,
        segment: usize,
        bytes: &[u8],
        most: usize,
    ) -> bool {
        let waits = if self.gathers {
            is_small(bytes)
        } else {
            !self.runs.is_empty()
        };
        if waits {
            self.push(peer, segment, bytes, most);
        }
        waits
    }

    /// Small runs wait from now on, although the socket may have room, until nothing is left.
    pub(super) fn gather(&mut self) {
        self.gathers = true;
    }

    /// Takes the run that leaves first.
    pub(super) fn pop(&mut self) -> Option<Run> {
        let run = self.runs.pop_front();
        self.gathers &= run.is_some();
        run
    }

    /// The run that was taken has not left.
    pub(super) fn put_back(&mut self, run: Run) {
        self.runs.push_front(run);
    }
}

impl Run {
    fn takes(&self, peer: SocketAddrV4, segment: usize, bytes: &[u8], most: usize) -> bool {
        (self.peer, self.segment) == (peer, segment)
            && is_small(bytes)
            && self.bytes.len().is_multiple_of(segment)
            && self.bytes.len() + bytes.len() <= segment * most
    }
}

/// True for a run that is worth less than the system call that sends it. One that needs no fragments on any path may join
/// others.
fn is_small(bytes: &[u8]) -> bool {
    bytes.len() <= SMALL_BYTES
}

const SMALL_BYTES: usize = 512;
const RUNS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_runs_of_one_size_to_one_peer_leave_together() {
        let [one, other] = [1, 2].map(|port| SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port));
        let mut outbox = Outbox::default();
        outbox.push(one, 40, &[1; 40], 3);
        outbox.push(one, 40, &[2; 40], 3);
        outbox.push(one, 40, &[3; 40], 3);
        outbox.push(one, 40, &[4; 40], 3);
        outbox.push(other, 40, &[5; 40], 3);
        outbox.push(other, 40, &[6; 70], 3);
        outbox.push(other, 40, &[7; 40], 3);
        outbox.push(other, 1444, &[8; 2888], 3);
        outbox.push(other, 1444, &[9; 1444], 3);
        let runs: Vec<_> = std::iter::from_fn(|| outbox.runs.pop_front()).collect();
        let lengths: Vec<_> = runs.iter().map(|run| run.bytes.len()).collect();
        assert_eq!(
            lengths,
            [120, 40, 110, 40, 2888, 1444],
            "at most three; none after a short one; none that is large"
        );
        assert_eq!(runs[0].bytes, [[1; 40], [2; 40], [3; 40]].concat());
    }

    #[test]
    fn small_runs_are_kept_back_until_nothing_is_left() {
        let peer = SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 1);
        let small = |outbox: &mut Outbox| outbox.keeps_back(peer, 40, &[0; 40], 64);
        let large = |outbox: &mut Outbox| outbox.keeps_back(peer, 1444, &[0; 1444], 44);
        let mut outbox = Outbox::default();
        assert!(!small(&mut outbox) && !large(&mut outbox));
        outbox.gather();
        assert!(small(&mut outbox) && !large(&mut outbox));
        let run = outbox.pop().unwrap();
        assert!(small(&mut outbox), "they leave in order");
        outbox.put_back(run);
        assert!(outbox.pop().is_some() && outbox.pop().is_some() && outbox.pop().is_none());
        assert!(
            !small(&mut outbox),
            "nothing is left, so nobody would come for it"
        );
        assert!(outbox.pop().is_none());
        outbox.push(peer, 1444, &[0; 1444], 44);
        assert!(small(&mut outbox), "the socket was full");
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut outbox = Outbox::default();
        for port in 0..2 * RUNS_MAX {
            let peer = SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, u16::try_from(port).unwrap());
            outbox.push(peer, 40, &[0; 40], 64);
        }
        assert_eq!(outbox.runs.len(), RUNS_MAX);
    }
}
