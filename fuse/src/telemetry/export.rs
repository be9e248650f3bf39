//! The way of spans to the collector.
//!
//! The machine: a span that ends is put into a bounded queue, from which a task sends batches. A full queue and a batch that
//! the collector does not take cost a count and nothing else: nobody ever waits. While there is a threshold for slow
//! requests, the spans of a request are held until its root ends, which decides for all of them.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use opentelemetry::trace::{SpanId, Status, TraceId};
use opentelemetry::{Context, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use parking_lot::Mutex;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::MissedTickBehavior;

use super::trace::slow;

/// Spans that were lost so far.
pub(super) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

fn lose(spans: usize) {
    DROPPED.fetch_add(spans as u64, Ordering::Relaxed);
}

/// Takes ended spans.
#[derive(Debug)]
pub(super) struct Queue {
    spans: Sender<Message>,
    held: Mutex<Held>,
}

/// How much waits, and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Spans that wait to be sent.
    queue: usize,
    /// Spans that are sent together.
    batch: usize,
    /// Until so many are not waited for any longer.
    delay: Duration,
    /// A batch that the exporter has not sent then is lost.
    patience: Duration,
}

impl Limits {
    /// Those that the variables ask for, for an exporter that takes so long at the most.
    pub(super) fn read(
        set: impl Fn(&str) -> Option<String>,
        export: Duration,
        complaints: &mut Vec<String>,
    ) -> Self {
        let mut number = |name: &str, default: usize| match set(name) {
            None => default,
            Some(text) => text.parse().ok().filter(|number| *number > 0).unwrap_or_else(|| {
                complaints.push(format!("{name}={text} is no number from 1"));
                default
            }),
        };
        Self {
            queue: number("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE).min(QUEUE_MAX),
            batch: number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH),
            delay: Duration::from_millis(number("OTEL_BSP_SCHEDULE_DELAY", DELAY_MS) as u64),
            patience: export + Duration::from_secs(1),
        }
    }
}

#[derive(Debug)]
enum Message {
    Span(Box<SpanData>),
    /// Send what is there, and say so.
    Flush(SyncSender<()>),
}

/// Spans of requests that have not ended.
#[derive(Debug, Default)]
struct Held {
    count: usize,
    traces: HashMap<TraceId, Vec<SpanData>>,
    /// What was decided last: some spans end after their root.
    decided: VecDeque<(TraceId, bool)>,
}

impl Queue {
    /// A queue that a task empties. Needs a tokio runtime.
    pub(super) fn start(
        mut exporter: impl SpanExporter + 'static,
        resource: &Resource,
        limits: Limits,
    ) -> Self {
        exporter.set_resource(resource);
        let (spans, queue) = channel(limits.queue);
        tokio::spawn(send(queue, exporter, limits));
        Self {
            spans,
            held: Mutex::default(),
        }
    }

    fn push(&self, span: SpanData) {
        if self.spans.try_send(Message::Span(Box::new(span))).is_err() {
            lose(1);
        }
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        let Some(slow) = slow() else {
            return self.push(span);
        };
        let ready = self.held.lock().take(span, slow);
        for span in ready {
            self.push(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.shutdown_with_timeout(Duration::from_secs(5))
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        let (told, done) = sync_channel(1);
        let full = |_| OTelSdkError::InternalFailure("the queue is full".to_owned());
        self.spans.try_send(Message::Flush(told)).map_err(full)?;
        done.recv_timeout(timeout)
            .map_err(|_| OTelSdkError::Timeout(timeout))
    }
}

impl Held {
    /// Takes an ended span; gives those that are to leave.
    fn take(&mut self, span: SpanData, slow: Duration) -> Vec<SpanData> {
        let trace = span.span_context.trace_id();
        if span.parent_span_id != SpanId::INVALID {
            let decided = self.decided.iter().rev().find(|(known, _)| *known == trace);
            return match decided {
                Some((_, true)) => vec![span],
                Some((_, false)) => Vec::new(),
                None if self.count >= HELD => {
                    lose(1);
                    Vec::new()
                }
                None => {
                    self.count += 1;
                    self.traces.entry(trace).or_default().push(span);
                    Vec::new()
                }
            };
        }
        let took = span.end_time.duration_since(span.start_time).unwrap_or_default();
        let drawn = span
            .attributes
            .iter()
            .find(|attribute| attribute.key.as_str() == "afs.drawn");
        // What is no request was drawn by the sampler.
        let drawn = drawn.is_none_or(|attribute| attribute.value == Value::Bool(true));
        let keep = drawn || took >= slow || matches!(span.status, Status::Error { .. });
        if self.decided.len() >= DECIDED {
            self.decided.pop_front();
        }
        self.decided.push_back((trace, keep));
        let mut spans = self.traces.remove(&trace).unwrap_or_default();
        self.count -= spans.len();
        if !keep {
            return Vec::new();
        }
        spans.push(span);
        spans
    }
}

async fn send(mut queue: Receiver<Message>, exporter: impl SpanExporter, limits: Limits) {
    let mut batch = Vec::new();
    let mut ticks = tokio::time::interval(limits.delay);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let flushed = tokio::select! {
            message = queue.recv() => match message {
                None => return,
                Some(Message::Span(span)) => {
                    batch.push(*span);
                    if batch.len() < limits.batch {
                        continue;
                    }
                    None
                }
                Some(Message::Flush(told)) => Some(told),
            },
            _ = ticks.tick() => None,
        };
        if !batch.is_empty() {
            let spans = std::mem::take(&mut batch);
            let count = spans.len();
            let sent = tokio::time::timeout(limits.patience, exporter.export(spans)).await;
            if !matches!(sent, Ok(Ok(()))) {
                lose(count);
                tracing::debug!(?sent, count, "spans were not taken");
            }
        }
        if let Some(told) = flushed {
            let _ = told.send(());
        }
    }
}

static DROPPED: AtomicU64 = AtomicU64::new(0);
/// As the specification of OpenTelemetry has it.
const QUEUE: usize = 2048;
const BATCH: usize = 512;
const DELAY_MS: usize = 1000;
/// Spans held for requests that have not ended.
const HELD: usize = 8192;
const DECIDED: usize = 256;
/// More would be no queue, but a leak.
const QUEUE_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::future;
    use std::time::SystemTime;

    use opentelemetry::trace::{SpanContext, SpanKind, TraceFlags, TraceState};
    use opentelemetry::{InstrumentationScope, KeyValue};

    use super::*;

    /// A collector that takes spans and never says so.
    #[derive(Debug)]
    struct Hanging;

    impl SpanExporter for Hanging {
        fn export(&self, _: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
            future::pending()
        }
    }

    /// A span of a trace, below its root or the root itself, that took so long.
    fn span(trace: u8, is_root: bool, millis: u64) -> SpanData {
        let (trace, id) = (TraceId::from_bytes([trace; 16]), SpanId::from_bytes([7; 8]));
        SpanData {
            span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::default()),
            parent_span_id: if is_root { SpanId::INVALID } else { id },
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: "fuse read".into(),
            start_time: SystemTime::UNIX_EPOCH,
            end_time: SystemTime::UNIX_EPOCH + Duration::from_millis(millis),
            attributes: vec![KeyValue::new("afs.drawn", !is_root)],
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::default(),
        }
    }

    /// With a queue of four and a collector that hangs, whoever ends a span goes on at once, and what is lost is counted.
    #[tokio::test]
    async fn a_full_queue_and_a_collector_that_hangs_cost_a_count() {
        let limits = Limits {
            queue: 4,
            batch: 1,
            delay: Duration::from_secs(3600),
            patience: Duration::from_millis(50),
        };
        let queue = Queue::start(Hanging, &Resource::builder_empty().build(), limits);
        let before = dropped();
        // The task that sends has no turn before something is awaited here: nothing but these calls can have ended.
        (0..10).for_each(|_| queue.on_end(span(1, true, 1)));
        assert_eq!(dropped() - before, 6);
        // Each of the others is given up in its turn.
        while dropped() - before < 10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        queue.on_end(span(1, true, 1));
        assert_eq!(dropped() - before, 10);
    }

    #[test]
    fn slow_requests_and_failed_ones_are_kept_whole() {
        let slow = Duration::from_millis(500);
        let mut held = Held::default();
        for (trace, took, failed, kept) in [(1, 600, false, 3), (2, 400, false, 0), (3, 1, true, 3)] {
            let mut root = span(trace, true, took);
            if failed {
                root.status = Status::error("");
            }
            // Two below it end before their root does, and one after it.
            assert!(held.take(span(trace, false, 1), slow).is_empty());
            assert!(held.take(span(trace, false, 700), slow).is_empty());
            assert_eq!(held.take(root, slow).len(), kept, "{took} ms");
            assert_eq!(
                held.take(span(trace, false, 1), slow).len(),
                kept.min(1),
                "{took} ms"
            );
        }
        assert_eq!((held.count, held.traces.len()), (0, 0));
    }
}
