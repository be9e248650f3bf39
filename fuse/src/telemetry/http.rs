//! /metrics and /healthz.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::metrics::Metrics;

/// What the pages show.
#[derive(Clone)]
pub struct Pages {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Set while the mount answers.
    pub healthy: Arc<AtomicBool>,
}

/// Binds the address and serves until the handle is aborted.
pub async fn serve(address: SocketAddr, pages: Pages) -> io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    let router = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(show_health));
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router.with_state(pages)).await {
            tracing::error!(%error, "the metrics page ended");
        }
    });
    Ok((bound, task))
}

async fn show_metrics(State(pages): State<Pages>) -> impl IntoResponse {
    match pages.metrics.render() {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, CLASSIC_TEXT)], text),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            error.to_string(),
        ),
    }
}

async fn show_health(State(pages): State<Pages>) -> impl IntoResponse {
    if pages.healthy.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    }
}

const CLASSIC_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn page(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_pages_answer() {
        let healthy = Arc::new(AtomicBool::new(true));
        let pages = Pages {
            metrics: Arc::new(Metrics::new().unwrap()),
            healthy: Arc::clone(&healthy),
        };
        let (address, task) = serve(SocketAddr::from(([127, 0, 0, 1], 0)), pages.clone())
            .await
            .unwrap();
        let metrics = page(address, "/metrics").await;
        assert!(
            metrics.starts_with("HTTP/1.1 200") && metrics.contains("afs_build_info{version="),
            "{metrics}"
        );
        assert!(page(address, "/healthz").await.ends_with("ok\n"));
        healthy.store(false, Ordering::Relaxed);
        assert!(page(address, "/healthz").await.starts_with("HTTP/1.1 503"));
        let taken = serve(address, pages).await.unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        task.abort();
    }
}
