//! The receive window of a call: what came, in order or ahead of order.
//!
//! The machine: packets in order go to the queue that the application reads; packets ahead of a gap wait in a table that
//! begins at the next one expected. Both together never hold more than the window: its right edge moves only when the
//! application reads. A packet in order is hard-acked at once (it is never given up again), and the advertised window
//! shrinks by what is still unread.

use std::collections::VecDeque;

use crate::proto::{SackTable, Sealed, Seq};

/// Received packets of one direction of a call.
#[derive(Debug)]
pub(super) struct ReceiveQueue {
    window: usize,
    ready: VecDeque<(Seq, Sealed)>,
    /// Entry `i` is packet `next + i`; entry 0 is always empty and the final entry, if any, is not.
    ahead: VecDeque<Option<Sealed>>,
    /// Those of them that are there.
    beyond: u16,
    next: Seq,
    highest: Seq,
    last: Option<Seq>,
    /// The edge of the window as the peer knows it: the first packet it may not send.
    advertised: Seq,
    /// The application wants no more of it.
    discarding: bool,
}

/// How a packet stands to the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is the next one expected.
    InOrder {
        /// Others waited for it.
        fills_gap: bool,
    },
    /// There is a gap before it.
    Ahead,
    /// It is here already.
    Duplicate,
    /// It may not be sent yet.
    BeyondWindow,
}

/// The packet contradicts another one about where the stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndMoved;

impl ReceiveQueue {
    pub(super) fn new(window: usize) -> Self {
        let window = window.clamp(1, WINDOW_MAX);
        Self {
            window,
            ready: VecDeque::new(),
            ahead: VecDeque::new(),
            beyond: 0,
            next: Seq(1),
            highest: Seq(0),
            last: None,
            advertised: Seq(1).plus(count(window)),
            discarding: false,
        }
    }

    /// Judges a packet without taking it.
    pub(super) fn judge(&self, seq: Seq, last: bool) -> Result<Arrival, EndMoved> {
        let Ok(offset) = usize::try_from(seq.since(self.next)) else {
            return if last && self.last != Some(seq) {
                Err(EndMoved)
            } else {
                Ok(Arrival::Duplicate)
            };
        };
        if offset >= self.room() {
            return match self.last {
                Some(end) if seq.after(end) => Err(EndMoved),
                _ => Ok(Arrival::BeyondWindow),
            };
        }
        match self.last {
            Some(end) if seq.after(end) || last != (seq == end) => return Err(EndMoved),
            None if last && seq.before(self.highest) => return Err(EndMoved),
            _ => {}
        }
        if self.ahead.get(offset).is_some_and(Option::is_some) {
            return if last && self.last.is_none() {
                Err(EndMoved)
            } else {
                Ok(Arrival::Duplicate)
            };
        }
        Ok(if offset == 0 {
            Arrival::InOrder {
                fills_gap: !self.ahead.is_empty(),
            }
        } else {
            Arrival::Ahead
        })
    }

    /// Takes a packet that was judged to be in order or ahead.
    pub(super) fn insert(&mut self, seq: Seq, last: bool, packet: Sealed) {
        let Ok(offset) = usize::try_from(seq.since(self.next)) else {
            return;
        };
        if offset >= self.room() {
            return;
        }
        if last {
            self.last = Some(seq);
        }
        if seq.after(self.highest) {
            self.highest = seq;
        }
        if offset > 0 {
            if self.ahead.len() <= offset {
                self.ahead.resize(offset + 1, None);
            }
            if let Some(place) = self.ahead.get_mut(offset) {
                *place = Some(packet);
                self.beyond += 1;
            }
            return;
        }
        // Its own place in the table, if there is one, is empty.
        self.ahead.pop_front();
        self.advance(packet);
        while let Some(Some(packet)) = self.ahead.pop_front_if(|place| place.is_some()) {
            self.beyond -= 1;
            self.advance(packet);
        }
    }

    /// The next packet expected is here.
    fn advance(&mut self, packet: Sealed) {
        if !packet.body.is_empty() && !self.discarding {
            self.ready.push_back((self.next, packet));
        }
        self.next = self.next.next();
    }

    /// The next packet for the application.
    pub(super) fn pop(&mut self) -> Option<(Seq, Sealed)> {
        self.ready.pop_front()
    }

    /// True when nothing is left to read.
    pub(super) fn is_drained(&self) -> bool {
        self.ready.is_empty()
    }

    /// True when the stream is here to its end.
    pub(super) fn is_complete(&self) -> bool {
        self.last.is_some_and(|last| last.before(self.next))
    }

    /// Throws away what is here and what is still to come.
    pub(super) fn discard(&mut self) {
        self.discarding = true;
        self.ready.clear();
    }

    /// The next packet expected: all before it are hard-acked.
    pub(super) fn next(&self) -> Seq {
        self.next
    }

    /// The highest packet that came, 0 before the first.
    pub(super) fn highest(&self) -> Seq {
        self.highest
    }

    /// The packets that are kept, in order or not.
    pub(super) fn held(&self) -> impl Iterator<Item = &Sealed> {
        let ready = self.ready.iter().map(|(_, packet)| packet);
        ready.chain(self.ahead.iter().flatten())
    }

    /// Packets that may still come from `next` on.
    pub(super) fn room(&self) -> usize {
        self.window.saturating_sub(self.ready.len())
    }

    /// Packets that are here beyond a gap.
    pub(super) fn beyond_gap(&self) -> usize {
        self.beyond.into()
    }

    /// One entry for each packet from `next` to the highest that came: true if it is here.
    pub(super) fn table(&self) -> SackTable {
        self.ahead.iter().map(Option::is_some).collect()
    }

    /// An ACK is about to tell the peer the present window.
    pub(super) fn on_advertised(&mut self) {
        self.advertised = self.edge();
    }

    /// True when the application has read so much since the last ACK that the peer should know.
    pub(super) fn has_opened(&self) -> bool {
        let gained = usize::try_from(self.edge().since(self.advertised)).unwrap_or(0);
        let left = usize::try_from(self.advertised.since(self.next)).unwrap_or(0);
        !self.is_complete()
            && gained > 0
            && (gained >= OPENED.min(self.window) || (self.ready.is_empty() && left < self.window / 2))
    }

    fn edge(&self) -> Seq {
        self.next.plus(count(self.room()))
    }
}

fn count(packets: usize) -> u32 {
    u32::try_from(packets).unwrap_or(u32::MAX)
}

/// The SACK table of an ACK has at most 255 entries.
const WINDOW_MAX: usize = 255;
/// Linux tells its peer after as many packets read.
const OPENED: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(seq: u32) -> Sealed {
        Sealed {
            body: seq.to_be_bytes().to_vec().into(),
            checksum: 0,
        }
    }

    fn take(queue: &mut ReceiveQueue, seq: u32, last: bool) -> Result<Arrival, EndMoved> {
        let arrival = queue.judge(Seq(seq), last)?;
        queue.insert(Seq(seq), last, packet(seq));
        Ok(arrival)
    }

    #[test]
    fn gaps_fill_and_order_returns() {
        let mut queue = ReceiveQueue::new(8);
        assert_eq!(take(&mut queue, 3, false), Ok(Arrival::Ahead));
        assert_eq!(queue.table().iter().collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(queue.judge(Seq(3), false), Ok(Arrival::Duplicate));
        assert_eq!(
            take(&mut queue, 1, false),
            Ok(Arrival::InOrder { fills_gap: true })
        );
        assert_eq!(queue.table().iter().collect::<Vec<_>>(), [false, true]);
        assert_eq!(
            take(&mut queue, 2, false),
            Ok(Arrival::InOrder { fills_gap: true })
        );
        assert_eq!(queue.next(), Seq(4));
        assert_eq!(
            take(&mut queue, 4, true),
            Ok(Arrival::InOrder { fills_gap: false })
        );
        assert!(queue.is_complete());
        for seq in 1..=4 {
            assert_eq!(queue.pop(), Some((Seq(seq), packet(seq))));
        }
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn window_holds_unread_packets() {
        let mut queue = ReceiveQueue::new(2);
        take(&mut queue, 1, false).unwrap();
        take(&mut queue, 2, false).unwrap();
        assert_eq!(queue.room(), 0);
        assert_eq!(queue.judge(Seq(3), false), Ok(Arrival::BeyondWindow));
        queue.on_advertised();
        queue.pop();
        queue.pop();
        assert!(queue.has_opened());
        assert_eq!(
            queue.judge(Seq(3), false),
            Ok(Arrival::InOrder { fills_gap: false })
        );
    }

    #[test]
    fn end_is_where_it_is() {
        let mut queue = ReceiveQueue::new(8);
        take(&mut queue, 3, true).unwrap();
        assert_eq!(queue.judge(Seq(4), false), Err(EndMoved));
        assert_eq!(queue.judge(Seq(2), true), Err(EndMoved));
        assert_eq!(queue.judge(Seq(3), false), Err(EndMoved));
        let mut queue = ReceiveQueue::new(8);
        take(&mut queue, 3, false).unwrap();
        assert_eq!(queue.judge(Seq(2), true), Err(EndMoved));
        assert_eq!(queue.judge(Seq(3), true), Err(EndMoved));
    }
}
