//! What a call that we make and a call that we answer have in common: reading, writing, ending.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;

use super::connection::Connection;
use crate::cache::Ref;
use crate::events::{CallResult, Event, SPAN_TARGET};
use crate::proto::{AbortCode, CallError, PacketSecurity, Read, Slot, Unopened};

/// One call on a connection, as the application sees it. Released when dropped.
pub(crate) struct Call {
    conn: Ref<Connection>,
    slot: Slot,
    started: Instant,
    name: &'static str,
    /// Packets that were taken from the connection and not asked for yet: a window of them at the most.
    ready: VecDeque<Unopened>,
    /// What opens them, once there are any.
    security: Option<Arc<dyn PacketSecurity>>,
    /// How it ended, once that is known.
    result: Option<CallResult>,
    /// DATA packets sent again, as far as that was told.
    resent: u64,
}

impl Call {
    pub(crate) fn new(conn: Ref<Connection>, slot: Slot) -> Self {
        let started = conn.shared.clock.now();
        Self {
            conn,
            slot,
            started,
            name: "",
            ready: VecDeque::new(),
            security: None,
            result: None,
            resent: 0,
        }
    }

    /// Events call it so from now on.
    pub(crate) fn set_name(&mut self, name: &'static str) {
        self.name = name;
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.conn
    }

    pub(crate) fn slot(&self) -> Slot {
        self.slot
    }

    /// Tells whoever traces the call what was sent again since the last look.
    fn tell_resent(&mut self, resent: u64) {
        let packets = resent.saturating_sub(self.resent);
        if packets > 0 {
            self.resent = resent;
            tracing::info!(target: SPAN_TARGET, packets, "retransmitted");
        }
    }

    /// Queues all of `data`, waiting for window. Cancelled, it may have queued a part.
    pub(crate) async fn send(&mut self, mut data: Bytes) -> Result<(), CallError> {
        poll_fn(|context| self.poll_send(context, &mut data, false)).await
    }

    /// The same, and marks the end: what is left of it leaves in one system call.
    pub(crate) async fn send_last(&mut self, mut data: Bytes) -> Result<(), CallError> {
        poll_fn(|context| self.poll_send(context, &mut data, true)).await
    }

    fn poll_send(
        &mut self,
        context: &Context<'_>,
        data: &mut Bytes,
        is_last: bool,
    ) -> Poll<Result<(), CallError>> {
        let slot = self.slot;
        let now = self.conn.shared.clock.now();
        let mut resent = 0;
        let polled = self.conn.turn(now, |turn| {
            resent = turn.state.proto.resent(slot);
            while !data.is_empty() {
                match turn.state.proto.write(now, slot, data) {
                    Ok(0) => {
                        turn.write_later(slot.channel, context.waker());
                        return Poll::Pending;
                    }
                    Ok(_) => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            Poll::Ready(if is_last {
                turn.state.proto.finish(now, slot)
            } else {
                Ok(())
            })
        });
        self.tell_resent(resent);
        self.note(polled)
    }

    /// Marks the end of what is sent.
    pub(crate) fn finish(&mut self) -> Result<(), CallError> {
        let slot = self.slot;
        let now = self.conn.shared.clock.now();
        let finished = self.conn.turn(now, |turn| turn.state.proto.finish(now, slot));
        finished.inspect_err(|error| self.ended(result_of(error)))
    }

    /// The payload of the next packet, `None` at the end. Cancel safe.
    pub(crate) async fn recv(&mut self) -> Result<Option<Bytes>, CallError> {
        poll_fn(|context| self.poll_recv(context)).await
    }

    /// The payload of the next packet if it is here and was taken along with others.
    pub(crate) fn recv_ready(&mut self) -> Option<Bytes> {
        // What could not be opened has ended the call: the next look at it says so.
        self.open_ready().ok().flatten()
    }

    /// Opens the next packet that was taken, on the task of the reader and under no lock.
    fn open_ready(&mut self) -> Result<Option<Bytes>, CallError> {
        while let Some(packet) = self.ready.pop_front() {
            let Some(security) = self.security.as_deref() else {
                break;
            };
            match packet.open(security) {
                Ok(payload) if payload.is_empty() => {}
                Ok(payload) => return Ok(Some(payload)),
                Err(code) => {
                    self.ready.clear();
                    let error = CallError::Protocol(code);
                    self.ended(result_of(&error));
                    self.abort(code);
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    /// Takes all that is here in one turn.
    fn poll_recv(&mut self, context: &Context<'_>) -> Poll<Result<Option<Bytes>, CallError>> {
        loop {
            if let Some(payload) = self.open_ready()? {
                return Poll::Ready(Ok(Some(payload)));
            }
            let (slot, ready, security) = (self.slot, &mut self.ready, &mut self.security);
            let now = self.conn.shared.clock.now();
            let mut resent = 0;
            let polled = self.conn.turn(now, |turn| {
                resent = turn.state.proto.resent(slot);
                security.get_or_insert_with(|| Arc::clone(turn.state.proto.security()));
                loop {
                    return match turn.state.proto.take(now, slot) {
                        Ok(Read::Data(packet)) => {
                            ready.push_back(packet);
                            continue;
                        }
                        _ if !ready.is_empty() => Poll::Ready(Ok(true)),
                        Ok(Read::End) => Poll::Ready(Ok(false)),
                        Ok(Read::Pending) => {
                            turn.read_later(slot.channel, context.waker());
                            Poll::Pending
                        }
                        Err(error) => Poll::Ready(Err(error)),
                    };
                }
            });
            self.tell_resent(resent);
            match self.note(polled) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return Poll::Ready(Ok(None)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Aborts the call with `code`.
    pub(crate) fn abort(&mut self, code: AbortCode) {
        let slot = self.slot;
        let now = self.conn.shared.clock.now();
        self.conn
            .turn(now, |turn| turn.state.proto.abort(now, slot, code));
        self.ended(CallResult::Cancelled);
    }

    /// The first word on how it ended stands.
    pub(crate) fn ended(&mut self, result: CallResult) {
        self.result.get_or_insert(result);
    }

    fn note<T>(&mut self, polled: Poll<Result<T, CallError>>) -> Poll<Result<T, CallError>> {
        if let Poll::Ready(Err(error)) = &polled {
            self.ended(result_of(error));
        }
        polled
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let slot = self.slot;
        let now = self.conn.shared.clock.now();
        let window = self.conn.turn(now, |turn| {
            let window = turn.state.proto.window(slot);
            turn.state.proto.release(now, slot);
            window
        });
        self.conn.shared.sink.event(&Event::CallEnded {
            side: self.conn.side(),
            scope: self.conn.scope(),
            service: self.conn.service,
            name: self.name,
            result: self.result.unwrap_or(CallResult::Cancelled),
            duration: now.saturating_duration_since(self.started),
            window,
        });
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("peer", &self.conn.peer.address())
            .field("slot", &self.slot)
            .field("result", &self.result)
            .finish_non_exhaustive()
    }
}

fn result_of(error: &CallError) -> CallResult {
    match *error {
        CallError::Aborted(code) | CallError::ConnectionAborted(code) => CallResult::Aborted(code),
        CallError::TimedOut => CallResult::TimedOut,
        CallError::LocalAbort(_) | CallError::Released | CallError::Shutdown => CallResult::Cancelled,
        CallError::PeerDead
        | CallError::Unreachable(_)
        | CallError::PathBroken(_)
        | CallError::CallLost
        | CallError::Protocol(_) => CallResult::NetworkError,
    }
}
