//! Spans as a collector receives them, over OTLP.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use testcell::{MountOptions, afs_program, eventually, local, run};
use tokio::runtime::Runtime;
use tonic::{Request, Response, Status};

const LIMIT: Duration = Duration::from_secs(20);

/// A collector that keeps what it gets.
#[derive(Clone, Default)]
struct Collector(Arc<std::sync::Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        self.0
            .lock()
            .unwrap()
            .extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    fn start() -> (Self, SocketAddr, Runtime) {
        let collector = Self::default();
        let runtime = Runtime::new().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let server =
            tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
        runtime.spawn(server.serve(address));
        (collector, address, runtime)
    }

    fn spans(&self) -> Vec<Span> {
        self.0.lock().unwrap().clone()
    }

    fn named(&self, name: &str) -> Vec<Span> {
        self.spans()
            .into_iter()
            .filter(|span| span.name == name)
            .collect()
    }
}

/// A mount whose spans soon go to a collector.
fn traced_to(collector: SocketAddr) -> MountOptions {
    let options =
        MountOptions::default().environment("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{collector}"));
    options.environment("OTEL_BSP_SCHEDULE_DELAY", "100")
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.clone()?.value? {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

#[test]
fn a_request_its_call_and_its_connection_are_one_trace() {
    let (collector, address, _runtime) = Collector::start();
    let cell = local();
    let options = traced_to(address);
    let mount = cell.mount_with(1, &options).unwrap();
    std::fs::read(mount.path("ro/hello")).unwrap();
    let arrived = || {
        ["RXAFS/FetchData64", "fuse read", "vldb.resolve", "cache.wait"]
            .iter()
            .all(|name| !collector.named(name).is_empty())
    };
    assert!(eventually(LIMIT, arrived), "{:?}", collector.spans());
    let spans = collector.spans();
    let calls: Vec<_> = spans
        .iter()
        .filter(|span| span.name.starts_with("RXAFS/"))
        .collect();
    for call in &calls {
        for key in [
            "rx.epoch",
            "rx.connection.id",
            "rx.call.number",
            "server.address",
            "rpc.method",
        ] {
            assert!(attribute(call, key).is_some(), "{key}: {call:?}");
        }
        assert_eq!(attribute(call, "rpc.system").as_deref(), Some("rxrpc"));
    }
    let whole = calls.iter().any(|call| {
        let same = |span: &&Span| span.trace_id == call.trace_id;
        let root = spans
            .iter()
            .filter(same)
            .any(|span| span.parent_span_id.is_empty() && span.name.starts_with("fuse "));
        let acquire = spans.iter().filter(same).any(|span| {
            span.name == "conn.acquire"
                && span.parent_span_id == call.span_id
                && attribute(span, "rx.acquire.outcome").is_some()
        });
        root && acquire
    });
    assert!(whole, "no whole trace in {spans:#?}");
    // What the request itself waited for stands below it.
    for name in ["vldb.resolve", "cache.wait"] {
        let is_child = |span: &Span| {
            let mut roots = spans.iter().filter(|root| root.parent_span_id.is_empty());
            !span.parent_span_id.is_empty()
                && roots.any(|root| root.trace_id == span.trace_id && root.name.starts_with("fuse "))
        };
        assert!(
            spans.iter().any(|span| span.name == name && is_child(span)),
            "{name}: {spans:#?}"
        );
    }
    // Off again, while it runs.
    let trace = |words: &[&str]| {
        let mut command = cell.client_command(1, afs_program().unwrap());
        run(LIMIT, command.arg("trace").args(words).arg(mount.point()))
            .unwrap()
            .ok()
            .unwrap()
            .text()
    };
    assert!(trace(&["--ratio", "0"]).contains("0 % of the requests"));
    std::thread::sleep(Duration::from_millis(500));
    let before = collector.spans().len();
    std::fs::read(mount.path("README")).unwrap();
    // What is slow or fails is kept all the same, once that is wanted.
    assert!(trace(&["--slow", "60000"]).contains("fail or take 60000 ms"));
    assert!(std::fs::read(mount.path("home/alice/diary")).is_err());
    let refused = || {
        let is_refusal = |span: &Span| attribute(span, "error.type").as_deref() == Some("EACCES");
        collector.spans().iter().skip(before).any(is_refusal)
    };
    assert!(eventually(LIMIT, refused), "{:?}", collector.spans());
    let later = collector.spans();
    let readme = later.iter().skip(before).filter(|span| span.name == "fuse read");
    assert_eq!(readme.count(), 0, "{later:?}");
}

#[test]
fn a_break_points_to_the_requests_that_it_undoes() {
    let (collector, address, _runtime) = Collector::start();
    let cell = local();
    let options = traced_to(address);
    let watched = cell.mount_with(1, &options).unwrap();
    let other = cell.mount(2).unwrap();
    let file = watched.work("traced").unwrap().join("file");
    std::fs::write(other.path("work/traced/file"), "other").unwrap();
    // The break overtakes the reply.
    cell.fail("on 1 fs FetchData64: break before, delay 300ms")
        .unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), b"other");
    let linked = || {
        let spans = collector.spans();
        let is_request = |id: &[u8]| {
            let mut of_trace = spans.iter().filter(|span| span.trace_id == id);
            of_trace.any(|span| span.name.starts_with("fuse "))
        };
        let breaks = spans.iter().filter(|span| span.name == "callback.break");
        breaks
            .flat_map(|span| &span.links)
            .any(|link| is_request(&link.trace_id))
    };
    assert!(
        eventually(LIMIT, linked),
        "{:#?}",
        collector.named("callback.break")
    );
    assert!(collector.named("callback.break")[0].parent_span_id.is_empty());
}

/// A release breaks a whole volume, and a server that has restarted has forgotten all that it has promised: either is a trace of
/// its own, with links to what was under way about it.
#[test]
fn volumes_and_servers_that_break_point_to_what_they_undo() {
    let (collector, address, _runtime) = Collector::start();
    let cell = local();
    let options = traced_to(address);
    let mount = cell.mount_with(1, &options).unwrap();
    let links_to_request = |name: &str, what: &str| {
        let spans = collector.spans();
        let is_request = |id: &[u8]| {
            let mut of_trace = spans.iter().filter(|span| span.trace_id == id);
            of_trace.any(|span| span.name.starts_with("fuse "))
        };
        spans.iter().filter(|span| span.name == name).any(|span| {
            let said = span.events.iter().filter(|event| event.name == "invalidated");
            let mut about = said.flat_map(|event| &event.attributes);
            span.parent_span_id.is_empty()
                && about.any(|attribute| {
                    attribute.key == "what" && format!("{:?}", attribute.value).contains(what)
                })
                && span.links.iter().any(|link| is_request(&link.trace_id))
        })
    };
    // There is a promise for the volume before.
    std::fs::metadata(mount.path("ro/hello")).unwrap();
    cell.fail("on 1 fs FetchData64: delay 1500ms").unwrap();
    std::thread::scope(|scope| {
        let reads = scope.spawn(|| std::fs::read(mount.path("ro/hello")));
        std::thread::sleep(Duration::from_millis(500));
        cell.release_with("ro.data", "released", b"new").unwrap();
        reads.join().unwrap().unwrap();
    });
    let linked = || links_to_request("callback.break", "volume ");
    assert!(
        eventually(LIMIT, linked),
        "{:#?}",
        collector.named("callback.break")
    );

    cell.kill_server(1).unwrap();
    let work = mount.path("work");
    let linked = || {
        // The first call to it after that has it say so.
        let _ = std::fs::write(work.join("anew"), "x");
        links_to_request("callback.init_state", "all promises of ")
    };
    assert!(
        eventually(LIMIT, linked),
        "{:#?}",
        collector.named("callback.init_state")
    );
}

#[test]
fn a_collector_that_is_down_costs_a_count() {
    let cell = local();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = traced_to(nobody);
    let mount = cell.mount_with(1, &options).unwrap();
    std::fs::read(mount.path("ro/hello")).unwrap();
    let lost = || {
        mount
            .metrics()
            .unwrap()
            .sum("afs_telemetry_dropped_total", &[("signal", "traces")])
            > 0.0
    };
    assert!(eventually(LIMIT, lost));
}
