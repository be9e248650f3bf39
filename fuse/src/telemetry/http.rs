//! The pages over HTTP: /metrics, the probes /healthz and /readyz, and /debug/....
//!
//! The machine: /healthz says that the process lives, /readyz that its mount can be used: the kernel gets answers through
//! it, and some server of the home cell answers; while none is known, as after a take-over, the cell is asked where they are.
//! A page of debugging is a table, or JSON for who asks for that with `?format=json` or an `Accept` header. Whoever reaches the
//! address may read all of it. Pages are made on threads that may wait: none of the data's way.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use afs_client::fs::AfsFs;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::keeper::KeeperMetrics;
use super::metrics::Metrics;
use crate::mount::answers;
use crate::report::Reports;
use crate::report::pages::{Page, Row};

/// What the pages show.
#[derive(Clone)]
pub struct Pages {
    metrics: Arc<Metrics>,
    /// What tells the rest, once there is a mount.
    reports: Arc<OnceLock<Reports>>,
    /// The mount is not served any more.
    ended: Arc<AtomicBool>,
    /// Held while the kernel is asked through the mount.
    asking: Arc<tokio::sync::Mutex<()>>,
    /// Held while the home cell is asked where its servers are.
    finding: Arc<tokio::sync::Mutex<()>>,
}

impl Pages {
    /// Pages of a mount that is to come.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            reports: Arc::default(),
            ended: Arc::default(),
            asking: Arc::default(),
            finding: Arc::default(),
        }
    }

    /// The mount is served.
    pub fn show(&self, reports: Reports) {
        // A second one is not shown: a program has one.
        let _ = self.reports.set(reports);
    }

    /// The mount is not served any more.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Binds the address and serves until the handle is aborted.
pub async fn serve(address: SocketAddr, router: Router) -> io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the metrics page ended");
        }
    });
    Ok((bound, task))
}

/// The pages of a process that serves a mount.
pub fn of_mount(pages: Pages) -> Router {
    alive()
        .route("/metrics", get(show_metrics))
        .route("/readyz", get(show_ready))
        .route("/debug/connections", debug(Reports::connections))
        .route("/debug/calls", debug(Reports::calls))
        .route("/debug/peers", debug(Reports::peers))
        .route("/debug/servers", debug(Reports::servers))
        .route("/debug/callbacks", debug(Reports::callbacks))
        .route("/debug/tokens", debug(Reports::tokens))
        .with_state(pages)
}

/// The pages of a keeper.
pub fn of_keeper(metrics: Arc<KeeperMetrics>) -> Router {
    let show = || async move { exposed(metrics.render()) };
    alive().route("/metrics", get(show))
}

fn alive<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/healthz", get(|| async { "ok\n" }))
}

async fn show_metrics(State(pages): State<Pages>) -> Response {
    match tokio::task::spawn_blocking(move || pages.metrics.render()).await {
        Ok(rendered) => exposed(rendered).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn exposed(rendered: Result<String, prometheus::Error>) -> impl IntoResponse {
    match rendered {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, CLASSIC_TEXT)], text),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            error.to_string(),
        ),
    }
}

async fn show_ready(State(pages): State<Pages>) -> Response {
    match pages.unready().await {
        None => "ready\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
    }
}

impl Pages {
    /// Why the mount cannot be used.
    async fn unready(&self) -> Option<String> {
        if self.ended.load(Ordering::Relaxed) {
            return Some("the mount has ended".to_owned());
        }
        let Some(reports) = self.reports.get() else {
            return Some("the mount is not there yet".to_owned());
        };
        let kernel = async {
            // One that this process does not see it cannot ask; it is served all the same.
            if reports.served.device.is_some() {
                self.unanswered(reports.served.at.clone()).await
            } else {
                None
            }
        };
        let (kernel, home) = tokio::join!(kernel, self.unreached(&reports.fs));
        kernel.or(home)
    }

    /// Why nothing of the home cell can be had.
    async fn unreached(&self, fs: &AfsFs) -> Option<String> {
        let home = fs.home();
        let of_home = || -> Vec<bool> {
            let servers = fs.state().servers.into_iter();
            servers
                .filter(|server| *server.cell == *home.as_str())
                .map(|server| server.up)
                .collect()
        };
        if of_home().is_empty() {
            let asked = async {
                let turn = Arc::clone(&self.finding).lock_owned().await;
                let fs = fs.clone();
                // It goes on when this probe has ended: the first of its servers may be the one that does not answer.
                tokio::spawn(async move {
                    let found = fs.check_home().await;
                    drop(turn);
                    found
                })
                .await
            };
            match tokio::time::timeout(PATIENCE, asked).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) => return Some(format!("cell {home}: {error}")),
                Ok(Err(_)) | Err(_) => return Some(format!("no location server of cell {home} answers")),
            }
        }
        let servers = of_home();
        let none_up = !servers.is_empty() && !servers.contains(&true);
        none_up.then(|| format!("none of {} file servers of cell {home} answers", servers.len()))
    }

    /// Why the kernel gets no answer through the mount.
    async fn unanswered(&self, at: PathBuf) -> Option<String> {
        let answer = async {
            // A thread that hangs is not given company.
            let turn = Arc::clone(&self.asking).lock_owned().await;
            let path = at.clone();
            tokio::task::spawn_blocking(move || {
                let answer = answers(&path);
                drop(turn);
                answer
            })
            .await
        };
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(error))) => Some(format!("the mount at {}: {error}", at.display())),
            Ok(Err(_)) | Err(_) => Some(format!("the mount at {} does not answer", at.display())),
        }
    }
}

/// A page of debugging.
fn debug<R: Row + Send + 'static>(page: fn(&Reports) -> Page<R>) -> axum::routing::MethodRouter<Pages> {
    get(
        move |State(pages): State<Pages>, RawQuery(query): RawQuery, headers: HeaderMap| async move {
            let Some(reports) = pages.reports.get().cloned() else {
                return (StatusCode::SERVICE_UNAVAILABLE, "the mount is not there yet\n").into_response();
            };
            let as_json = match query.as_deref() {
                None | Some("") => headers
                    .get(header::ACCEPT)
                    .and_then(|accepted| accepted.to_str().ok())
                    .is_some_and(|accepted| accepted.contains(JSON)),
                Some("format=json") => true,
                Some("format=text") => false,
                Some(other) => {
                    let why = format!("{other:?} is not known here: write ?format=json or ?format=text\n");
                    return (StatusCode::BAD_REQUEST, why).into_response();
                }
            };
            let page = match tokio::task::spawn_blocking(move || page(&reports)).await {
                Ok(page) => page,
                Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
            };
            if !as_json {
                return page.table().into_response();
            }
            match serde_json::to_string(&page) {
                Ok(json) => ([(header::CONTENT_TYPE, JSON)], json).into_response(),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
            }
        },
    )
}

const CLASSIC_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";
/// Less than a probe of Kubernetes waits by default would be nothing: it waits for one second.
const PATIENCE: Duration = Duration::from_millis(900);

#[cfg(test)]
mod tests {
    use afs_client::cell::{CellName, Cells, CellsConfig};
    use afs_client::fs::{CacheConfig, Config};
    use rxrpc::events::NullSink;
    use rxrpc::net::EndpointConfig;
    use testcell::embedded::{Cell, Settings};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::report::Served;

    async fn page(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_pages_answer_before_there_is_a_mount() {
        let pages = Pages::new(Arc::new(Metrics::new().unwrap()));
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (address, task) = serve(anywhere, of_mount(pages.clone())).await.unwrap();
        let metrics = page(address, "/metrics").await;
        assert!(
            metrics.starts_with("HTTP/1.1 200") && metrics.contains("afs_build_info{version="),
            "{metrics}"
        );
        assert!(page(address, "/healthz").await.ends_with("ok\n"));
        let ready = page(address, "/readyz").await;
        assert!(
            ready.starts_with("HTTP/1.1 503") && ready.contains("not there yet"),
            "{ready}"
        );
        assert!(page(address, "/debug/calls").await.starts_with("HTTP/1.1 503"));
        let taken = serve(address, of_mount(pages)).await.unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        task.abort();
    }

    /// A mount that was taken over knows no server: that says nothing about whether there is one.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_mount_that_knows_no_server_is_ready_when_its_cell_has_answered() {
        let here = std::net::Ipv4Addr::from_bits(0x7f61_0000 + std::process::id() % 0x1_0000);
        let folder = tempfile::tempdir().unwrap();
        let servers = folder.path().join("CellServDB");
        std::fs::write(&servers, format!(">lab.example\n{here}\n")).unwrap();
        let cells = Cells::load(&CellsConfig {
            home: Some(CellName::new("lab.example").unwrap()),
            cellservdb: Some(servers),
        });
        let endpoint = EndpointConfig {
            bind: std::net::SocketAddrV4::new(here, 0),
            ..EndpointConfig::default()
        };
        let cache = CacheConfig::Memory { max_bytes: 1 << 20 };
        let config = Config {
            deadline: Duration::from_secs(3),
            ..Config::new(Arc::new(cells.unwrap()), endpoint, cache)
        };
        let fs = AfsFs::start(config, Arc::new(NullSink)).await.unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let pages = Pages::new(Arc::clone(&metrics));
        let served = Served {
            device: None,
            ..Served::new(folder.path(), false, true, None)
        };
        pages.show(Reports::new(served, &fs, &metrics));
        let unready = pages.unready().await.unwrap();
        assert!(unready.contains("lab.example"), "{unready}");

        let cell = Cell::start(Settings::new("lab.example", here)).await.unwrap();
        cell.furnish().await.unwrap();
        let mut unready = pages.unready().await;
        for _ in 0..20 {
            if unready.is_none() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            unready = pages.unready().await;
        }
        assert_eq!(unready, None);
        fs.shutdown().await;
        cell.shutdown().await;
    }
}
