//! Logs and spans.
//!
//! Messages go to standard error (which the daemon has turned into its log file), filtered by `AFS_LOG` or `RUST_LOG`.
//! Spans leave by OTLP over gRPC, only if `OTEL_EXPORTER_OTLP_ENDPOINT` is set.

use std::env;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::Span;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, filter};

use super::op::Op;

/// Keeps the exporter alive; [`Tracing::flush`] sends what is left.
#[derive(Default)]
pub struct Tracing {
    provider: Option<SdkTracerProvider>,
}

/// Sets logs and, if asked for, spans up. To be called inside the runtime, which the exporter needs.
pub fn start() -> Tracing {
    let filter = env::var("AFS_LOG")
        .or_else(|_| env::var("RUST_LOG"))
        .ok()
        .and_then(|directives| EnvFilter::try_new(directives).ok())
        .unwrap_or_else(|| EnvFilter::new(DEFAULT_FILTER));
    let terminal = std::io::stderr().is_terminal();
    let messages = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(terminal)
        .with_target(false)
        .with_filter(filter);
    let mut complaint = None;
    let provider = exporter().unwrap_or_else(|error| {
        complaint = Some(error);
        None
    });
    let spans = provider.as_ref().map(|provider| {
        let ours = filter::filter_fn(|metadata| metadata.target().starts_with(SPAN_TARGET));
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("afs"))
            .with_filter(ours)
    });
    // The second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::registry()
        .with(messages)
        .with(spans)
        .try_init();
    if let Some(error) = complaint {
        tracing::warn!(%error, "no spans will be exported");
    }
    SPANS.store(provider.is_some(), Ordering::Relaxed);
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

/// The span of a FUSE request that was not answered from memory; disabled unless spans are exported.
pub fn request_span(op: Op, unique: u64, node: u64) -> Span {
    if SPANS.load(Ordering::Relaxed) {
        tracing::info_span!(
            target: SPAN_TARGET,
            "fuse",
            otel.name = %format_args!("fuse {}", op.name()),
            otel.kind = "server",
            fuse.op = op.name(),
            fuse.unique = unique,
            fuse.nodeid = node,
        )
    } else {
        Span::none()
    }
}

fn exporter() -> Result<Option<SdkTracerProvider>, opentelemetry_otlp::ExporterBuildError> {
    let asked = [
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ]
    .iter()
    .any(|name| env::var_os(name).is_some_and(|value| !value.is_empty()));
    if !asked {
        return Ok(None);
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().build()?;
    let ratio = env::var("OTEL_TRACES_SAMPLER_ARG")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1.0);
    let resource = Resource::builder()
        .with_service_name(env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| "afs".to_owned()))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))))
        .with_resource(resource)
        .build();
    Ok(Some(provider))
}

/// Spans are exported.
static SPANS: AtomicBool = AtomicBool::new(false);
const SPAN_TARGET: &str = "afs::span";
const DEFAULT_FILTER: &str = "info,fuser=warn,h2=warn,hyper=warn,tonic=warn,tower=warn,opentelemetry=warn";
