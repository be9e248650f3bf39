//! Logs and spans.
//!
//! Messages go to standard error (which the daemon has turned into its log file), filtered by `AFS_LOG` or `RUST_LOG`.
//! Spans leave by OTLP over gRPC, only if `OTEL_EXPORTER_OTLP_ENDPOINT` is set. Which requests are traced is drawn when they
//! come, by a ratio that `afs trace` changes; with a threshold all are followed, and those kept that were slow or failed.

use std::cell::Cell;
use std::env;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceId, TraceState, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample};
use rxrpc::events::SPAN_TARGET;
use serde::{Deserialize, Serialize};
use tracing::Span;
use tracing::field::Empty;
use tracing_subscriber::filter::{FilterExt as _, LevelFilter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, filter};

use super::export::{Limits, Queue, dropped};
use super::op::{Op, result_name};
use crate::environment;

/// Keeps the exporter alive; [`Tracing::flush`] sends what is left.
#[derive(Default)]
pub struct Tracing {
    provider: Option<SdkTracerProvider>,
}

/// What is traced.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Traced {
    /// Spans can leave: there is a collector to send them to.
    pub exports: bool,
    /// The share of requests that are traced.
    pub ratio: f64,
    /// Requests that take so many milliseconds are kept, and those that fail; 0: none for that.
    pub slow_ms: u32,
    /// Spans that were lost: the queue was full, or the collector did not take them.
    pub dropped: u64,
}

/// Sets logs and, if asked for, spans up. To be called inside the runtime, which the exporter needs.
pub fn start() -> Tracing {
    // That of AFS_LOG was looked at by who mounts or serves.
    let ours = env::var("AFS_LOG")
        .ok()
        .and_then(|text| environment::filter(&text).ok());
    let usual = || {
        env::var("RUST_LOG")
            .ok()
            .and_then(|text| EnvFilter::try_new(text).ok())
    };
    let filter = ours
        .or_else(usual)
        .unwrap_or_else(|| EnvFilter::new(DEFAULT_FILTER));
    let terminal = std::io::stderr().is_terminal();
    let is_span = |metadata: &tracing::Metadata<'_>| metadata.target().starts_with(SPAN_TARGET);
    // Without its hint the other filter's would not count, and all that anybody would say for debugging came as far as here.
    let others =
        filter::filter_fn(move |metadata| !is_span(metadata)).with_max_level_hint(LevelFilter::TRACE);
    let messages = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(terminal)
        .with_target(false)
        .with_filter(filter.and(others));
    let mut complaints = Vec::new();
    let provider = exporter(&mut complaints).unwrap_or_else(|error| {
        complaints.push(format!("no spans will be exported: {error}"));
        None
    });
    let spans = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("afs"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter::filter_fn(is_span).with_max_level_hint(LevelFilter::INFO))
    });
    // The second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::registry()
        .with(messages)
        .with(spans)
        .try_init();
    for complaint in complaints {
        tracing::warn!("{complaint}");
    }
    EXPORTS.store(provider.is_some(), Ordering::Relaxed);
    Tracing { provider }
}

impl Tracing {
    /// Sends what is left. Blocks: not for a runtime's own threads.
    pub fn flush(self) {
        if let Some(provider) = self.provider
            && let Err(error) = provider.shutdown_with_timeout(Duration::from_secs(3))
        {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// What is traced now.
pub fn traced() -> Traced {
    Traced {
        exports: EXPORTS.load(Ordering::Relaxed),
        ratio: f64::from(RATIO.load(Ordering::Relaxed)) / f64::from(MILLION),
        slow_ms: SLOW_MS.load(Ordering::Relaxed),
        dropped: dropped(),
    }
}

/// Changes what is traced: the share in millionths, and the threshold in milliseconds.
pub fn trace(ratio: Option<u32>, slow_ms: Option<u32>) {
    if let Some(ratio) = ratio {
        RATIO.store(ratio.min(MILLION), Ordering::Relaxed);
    }
    if let Some(slow_ms) = slow_ms {
        SLOW_MS.store(slow_ms, Ordering::Relaxed);
    }
}

/// From which time on a request is kept for being slow; `None`: none is.
pub(super) fn slow() -> Option<Duration> {
    let slow_ms = SLOW_MS.load(Ordering::Relaxed);
    (slow_ms > 0).then(|| Duration::from_millis(slow_ms.into()))
}

/// The span of a FUSE request; none unless it is traced.
pub fn request_span(op: Op, unique: u64, node: u64) -> Span {
    let (ratio, slow) = (RATIO.load(Ordering::Relaxed), SLOW_MS.load(Ordering::Relaxed));
    if (ratio == 0 && slow == 0) || !EXPORTS.load(Ordering::Relaxed) {
        return Span::none();
    }
    let drawn = draw() < ratio;
    if !drawn && slow == 0 {
        return Span::none();
    }
    tracing::info_span!(
        target: SPAN_TARGET,
        parent: None,
        "fuse",
        otel.name = %format_args!("fuse {}", op.name()),
        otel.kind = "server",
        otel.status_code = Empty,
        error.type = Empty,
        fuse.op = op.name(),
        fuse.unique = unique,
        fuse.nodeid = node,
        afs.cache.outcome = Empty,
        afs.drawn = drawn,
    )
}

/// A request is answered: from memory, or after it had waited.
pub fn request_answered(span: &Span, waited: bool, result: Result<(), i32>) {
    if span.is_none() {
        return;
    }
    span.record("afs.cache.outcome", if waited { "miss" } else { "hit" });
    if let Err(errno) = result {
        span.record("error.type", result_name(errno).unwrap_or("other"));
        // That a name is not there is an answer.
        if errno != rustix::io::Errno::NOENT.raw_os_error() {
            span.record("otel.status_code", "ERROR");
        }
    }
}

/// A number below a million. Chance enough to choose requests by.
fn draw() -> u32 {
    thread_local! {
        static SEED: Cell<u64> = Cell::new(RandomState::new().build_hasher().finish() | 1);
    }
    SEED.with(|seed| {
        // Marsaglia's xorshift.
        let mut word = seed.get();
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        seed.set(word);
        u32::try_from((word >> 33) % u64::from(MILLION)).unwrap_or(0)
    })
}

/// Requests were drawn before; breaks are drawn here. What is below something goes with it.
#[derive(Clone, Debug)]
struct Drawn;

impl ShouldSample for Drawn {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        _: TraceId,
        name: &str,
        _: &SpanKind,
        _: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        let parent = parent.filter(|parent| parent.has_active_span());
        let taken = match parent {
            Some(parent) => parent.span().span_context().is_sampled(),
            None => name.starts_with("fuse") || draw() < RATIO.load(Ordering::Relaxed),
        };
        SamplingResult {
            decision: if taken {
                SamplingDecision::RecordAndSample
            } else {
                SamplingDecision::Drop
            },
            attributes: Vec::new(),
            trace_state: TraceState::default(),
        }
    }
}

/// What the variables of OpenTelemetry ask for. What cannot be understood counts as not set, and is complained of.
fn exporter(
    complaints: &mut Vec<String>,
) -> Result<Option<SdkTracerProvider>, opentelemetry_otlp::ExporterBuildError> {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let asked = [
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ]
    .iter()
    .any(|name| set(name).is_some());
    let disabled = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if !asked || disabled {
        return Ok(None);
    }
    let limit = export_limit(set, complaints);
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_timeout(limit)
        .build()?;
    trace(Some(millionths(sampled(set, complaints))), None);
    let resource = Resource::builder()
        .with_service_name(set("OTEL_SERVICE_NAME").unwrap_or_else(|| "afs".to_owned()))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let limits = Limits::read(set, limit, complaints);
    let provider = SdkTracerProvider::builder()
        .with_span_processor(Queue::start(exporter, &resource, limits))
        .with_sampler(Drawn)
        .with_resource(resource)
        .build();
    Ok(Some(provider))
}

/// The share of the requests that is traced at first.
fn sampled(set: impl Fn(&str) -> Option<String>, complaints: &mut Vec<String>) -> f64 {
    match set("OTEL_TRACES_SAMPLER").as_deref() {
        Some("always_off" | "parentbased_always_off") => return 0.0,
        Some("always_on" | "parentbased_always_on") => return 1.0,
        None | Some("traceidratio" | "parentbased_traceidratio") => {}
        Some(other) => complaints.push(format!(
            "OTEL_TRACES_SAMPLER={other} is not known here: requests are drawn by OTEL_TRACES_SAMPLER_ARG"
        )),
    }
    let Some(text) = set("OTEL_TRACES_SAMPLER_ARG") else {
        return 1.0;
    };
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
        _ => {
            complaints.push(format!(
                "OTEL_TRACES_SAMPLER_ARG={text} is no share from 0 to 1: all requests are traced"
            ));
            1.0
        }
    }
}

/// How long a collector may take for a batch.
fn export_limit(set: impl Fn(&str) -> Option<String>, complaints: &mut Vec<String>) -> Duration {
    for name in ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"] {
        let Some(text) = set(name) else { continue };
        match text.parse() {
            Ok(millis) if millis > 0 => return Duration::from_millis(millis),
            _ => complaints.push(format!("{name}={text} is no number of milliseconds")),
        }
    }
    EXPORT_LIMIT
}

/// A share in millionths.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it lies between 0 and a million"
)]
pub fn millionths(share: f64) -> u32 {
    (share.clamp(0.0, 1.0) * f64::from(MILLION)).round() as u32
}

/// Spans are exported.
static EXPORTS: AtomicBool = AtomicBool::new(false);
/// The share of requests that are traced, in millionths.
static RATIO: AtomicU32 = AtomicU32::new(0);
/// Requests that take longer are kept; 0: none for that.
static SLOW_MS: AtomicU32 = AtomicU32::new(0);
const MILLION: u32 = 1_000_000;
/// A collector that takes longer for a batch does not get it, if nothing else is said.
const EXPORT_LIMIT: Duration = Duration::from_secs(5);
const DEFAULT_FILTER: &str = "info,fuser=warn,h2=warn,hyper=warn,tonic=warn,tower=warn,opentelemetry=warn";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_drawn_as_asked() {
        for (share, parts) in [
            (0.0, 0),
            (0.01, 10_000),
            (1.0, MILLION),
            (7.0, MILLION),
            (-1.0, 0),
        ] {
            assert_eq!(millionths(share), parts);
        }
        let drawn = (0..100_000).filter(|_| draw() < millionths(0.1)).count();
        assert!((9_000..11_000).contains(&drawn), "{drawn}");
    }

    #[test]
    fn what_the_variables_say_counts_or_is_complained_of() {
        fn asked(variables: &[(&str, &str)]) -> (u32, u128, usize) {
            let set = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            let mut complaints = Vec::new();
            let ratio = sampled(set, &mut complaints);
            let limit = export_limit(set, &mut complaints);
            (millionths(ratio), limit.as_millis(), complaints.len())
        }
        let arg = "OTEL_TRACES_SAMPLER_ARG";
        let (limit, of_traces) = ("OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT");
        assert_eq!(asked(&[]), (MILLION, 5000, 0));
        assert_eq!(asked(&[("OTEL_TRACES_SAMPLER", "always_off")]), (0, 5000, 0));
        assert_eq!(
            asked(&[("OTEL_TRACES_SAMPLER", "traceidratio"), (arg, "0.25")]),
            (250_000, 5000, 0)
        );
        assert_eq!(
            asked(&[("OTEL_TRACES_SAMPLER", "jaeger_remote")]),
            (MILLION, 5000, 1)
        );
        assert_eq!(asked(&[(arg, "1%")]), (MILLION, 5000, 1));
        assert_eq!(asked(&[(arg, "7")]), (MILLION, 5000, 1));
        assert_eq!(asked(&[(limit, "20000")]), (MILLION, 20_000, 0));
        assert_eq!(asked(&[(limit, "20000"), (of_traces, "300")]), (MILLION, 300, 0));
        assert_eq!(asked(&[(limit, "10s")]), (MILLION, 5000, 1));
    }
}
