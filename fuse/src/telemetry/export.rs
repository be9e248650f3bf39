//! The way of spans to the collector.
//!
//! The machine: a span that ends is put into a bounded queue, from which a task sends batches. A full queue and a batch that
//! the collector does not take cost a count and nothing else: nobody ever waits. While there is a threshold for slow
//! requests, the spans of a request are held until its root ends, which decides for all of them.

use std::collections::{HashMap, VecDeque};
use std::env;
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
    pub(super) fn start(mut exporter: impl SpanExporter + 'static, resource: &Resource) -> Self {
        exporter.set_resource(resource);
        let setting = |name: &str, default: usize| {
            let set = env::var(name).ok().and_then(|text| text.parse().ok());
            set.filter(|number| *number > 0).unwrap_or(default)
        };
        let (spans, queue) = channel(setting("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE));
        let most = setting("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH);
        let delay = u64::try_from(setting("OTEL_BSP_SCHEDULE_DELAY", DELAY_MS)).unwrap_or(1000);
        tokio::spawn(send(queue, exporter, most, Duration::from_millis(delay)));
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

async fn send(mut queue: Receiver<Message>, exporter: impl SpanExporter, most: usize, delay: Duration) {
    let mut batch = Vec::new();
    let mut ticks = tokio::time::interval(delay);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let flushed = tokio::select! {
            message = queue.recv() => match message {
                None => return,
                Some(Message::Span(span)) => {
                    batch.push(*span);
                    if batch.len() < most {
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
            let sent = tokio::time::timeout(PATIENCE, exporter.export(spans)).await;
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
/// More than the exporter's own limit.
const PATIENCE: Duration = Duration::from_secs(6);
