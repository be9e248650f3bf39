//! Those who call, and those who answer with bytes that follow from the request.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::proto::{CallError, CallLimits, Connection, Read, Slot};
use crate::random::Random;

/// A call of the client.
pub(super) struct Calling {
    pub(super) slot: Slot,
    rest: Bytes,
    finished: bool,
    reply: Vec<u8>,
    expected: Vec<u8>,
}

impl Calling {
    pub(super) fn begin(now: Instant, client: &mut Connection, random: &mut Random) -> Option<Self> {
        let limits = CallLimits {
            dead_in: Duration::from_secs(60),
            idle_in: None,
            hard_in: Some(Duration::from_secs(600)),
        };
        let slot = client.start_call(now, limits)?;
        let bits = 1 + random.below(17);
        let request: Vec<u8> = (0..1 + random.below(1 << bits))
            .map(|_| random.next().to_le_bytes()[0])
            .collect();
        Some(Self {
            slot,
            expected: answer_to(&request),
            rest: request.into(),
            finished: false,
            reply: Vec::new(),
        })
    }

    /// Goes on as far as it can; gives the result at the end.
    pub(super) fn poll(&mut self, now: Instant, client: &mut Connection) -> Option<Result<(), CallError>> {
        match self.step(now, client) {
            Ok(false) => None,
            Ok(true) => Some(Ok(())),
            Err(error) => Some(Err(error)),
        }
    }

    /// The reply is the one that follows from the request.
    pub(super) fn is_answered(&self) -> bool {
        self.reply == self.expected
    }

    fn step(&mut self, now: Instant, client: &mut Connection) -> Result<bool, CallError> {
        let slot = self.slot;
        while !self.rest.is_empty() {
            if client.write(now, slot, &mut self.rest)? == 0 {
                break;
            }
        }
        if self.rest.is_empty() && !self.finished {
            client.finish(now, slot)?;
            self.finished = true;
        }
        loop {
            match client.read(now, slot)? {
                Read::Data(data) => self.reply.extend_from_slice(&data),
                Read::Pending => return Ok(false),
                Read::End => return Ok(true),
            }
        }
    }
}

/// A call at the service.
pub(super) struct Answering {
    pub(super) slot: Slot,
    heard: Vec<u8>,
    reply: Option<Bytes>,
}

impl Answering {
    pub(super) const fn new(slot: Slot) -> Self {
        Self {
            slot,
            heard: Vec::new(),
            reply: None,
        }
    }

    /// Reads and answers as far as it can. False when there is nothing left to do.
    pub(super) fn poll(&mut self, now: Instant, service: &mut Connection) -> bool {
        let goes_on = self.step(now, service).unwrap_or(false);
        if !goes_on {
            service.release(now, self.slot);
        }
        goes_on
    }

    fn step(&mut self, now: Instant, service: &mut Connection) -> Result<bool, CallError> {
        while self.reply.is_none() {
            match service.read(now, self.slot)? {
                Read::Data(data) => self.heard.extend_from_slice(&data),
                Read::Pending => return Ok(true),
                Read::End => self.reply = Some(answer_to(&self.heard).into()),
            }
        }
        let Some(reply) = &mut self.reply else { return Ok(true) };
        while !reply.is_empty() {
            if service.write(now, self.slot, reply)? == 0 {
                return Ok(true);
            }
        }
        service.finish(now, self.slot)?;
        Ok(false)
    }
}

/// As long as the request says, and made of its bytes.
fn answer_to(request: &[u8]) -> Vec<u8> {
    let len = request
        .iter()
        .take(2)
        .fold(0, |len, byte| len * 256 + usize::from(*byte));
    let sum = request
        .iter()
        .fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte));
    (0..=len)
        .map(|at| at.to_le_bytes()[0].wrapping_add(sum))
        .collect()
}
