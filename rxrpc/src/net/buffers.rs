//! Where received datagrams are kept until they are read.
//!
//! The machine: each datagram is copied into a buffer of its own, so that a slow reader pins what it has not read and
//! nothing else. A buffer goes out as [`Bytes`], and a handle to it stays behind: when the last of the bytes is dropped
//! the buffer goes out again. So a transfer that is read as it comes allocates nothing, and what is never read costs no
//! more than a buffer for each packet.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// The buffers of one receiving task.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// Not lent. The one that came back last goes out first, because the processor still has it at hand.
    free: Vec<BytesMut>,
    /// Lent to readers, in the order of the last look.
    lent: VecDeque<BytesMut>,
}

impl Buffers {
    /// Takes a datagram into a buffer of its own.
    pub(super) fn keep(&mut self, datagram: &[u8]) -> Bytes {
        if datagram.len() > BUFFER_BYTES {
            return Bytes::copy_from_slice(datagram);
        }
        let mut buffer = self
            .free
            .pop()
            .unwrap_or_else(|| BytesMut::with_capacity(BUFFER_BYTES));
        buffer.extend_from_slice(datagram);
        let kept = buffer.split().freeze();
        if self.lent.len() == LENT_MAX {
            // Its readers alone own it from now on.
            self.lent.pop_front();
        }
        self.lent.push_back(buffer);
        kept
    }

    /// Takes back what was read, as far as a few looks tell.
    pub(super) fn collect(&mut self) {
        let mut looks = LOOKS;
        while looks > 0
            && let Some(mut buffer) = self.lent.pop_front()
        {
            if buffer.try_reclaim(BUFFER_BYTES) {
                self.free.push(buffer);
            } else {
                self.lent.push_back(buffer);
                looks -= 1;
            }
        }
    }
}

/// Holds any datagram that Ethernet carries whole: 1500 bytes less the headers of IP and UDP.
const BUFFER_BYTES: usize = 1472;
/// 1.5 MB: the windows of a few calls at full speed.
const LENT_MAX: usize = 1024;
/// Looks at buffers that are still lent before the search is given up.
const LOOKS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_goes_out_again() {
        let mut buffers = Buffers::default();
        let kept: Vec<_> = (0..4).map(|byte| buffers.keep(&[byte; 100])).collect();
        let places: Vec<_> = kept.iter().map(|bytes| bytes.as_ptr()).collect();
        buffers.collect();
        assert_eq!((buffers.free.len(), buffers.lent.len()), (0, 4));
        let slow = kept.into_iter().nth(1).unwrap();
        buffers.collect();
        assert_eq!((buffers.free.len(), buffers.lent.len()), (3, 1));
        for _ in 0..3 {
            let again = buffers.keep(&[9; BUFFER_BYTES]);
            assert!(places.contains(&again.as_ptr()) && again.as_ptr() != slow.as_ptr());
        }
        assert_eq!(slow, [1; 100].as_slice());
    }

    #[test]
    fn what_is_never_read_is_let_go() {
        let mut buffers = Buffers::default();
        let kept: Vec<_> = (0..2 * LENT_MAX).map(|_| buffers.keep(b"unread")).collect();
        buffers.collect();
        assert_eq!((buffers.free.len(), buffers.lent.len()), (0, LENT_MAX));
        assert!(kept.iter().all(|bytes| bytes == "unread"));
        let jumbogram = [7; 5692];
        assert_eq!(buffers.keep(&jumbogram), jumbogram.as_slice());
        assert_eq!(buffers.lent.len(), LENT_MAX, "a large one is not lent");
    }
}
