//! The page at the address that was asked for, as soon as that can be had.
//!
//! The machine: if the address is taken the program does without, and tries again: a process that was killed may hold it for
//! a while longer than its mount.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::http;

/// Where metrics are shown, or why they are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsPage {
    /// The address that was asked for, or is bound.
    pub address: SocketAddr,
    /// Why it is not bound.
    pub error: Option<String>,
}

/// A page that is shown, or will be.
#[derive(Clone, Debug)]
pub struct Shown(Arc<Mutex<MetricsPage>>);

impl Shown {
    /// Shows `router` at `address` from tasks of `runtime`. Must not be called from one of them.
    pub fn at(runtime: &Handle, address: SocketAddr, router: Router) -> Self {
        let shown = Self(Arc::new(Mutex::new(MetricsPage { address, error: None })));
        if let Err(error) = runtime.block_on(shown.bind(address, router.clone())) {
            tracing::error!(
                "metrics are not shown: {address} cannot be used: {error}; choose another with --metrics, or free it"
            );
            let later = shown.clone();
            runtime.spawn(async move {
                while later.bind(address, router.clone()).await.is_err() {
                    tokio::time::sleep(AGAIN).await;
                }
            });
        }
        shown
    }

    /// How it is now.
    pub fn now(&self) -> MetricsPage {
        self.0.lock().clone()
    }

    async fn bind(&self, address: SocketAddr, router: Router) -> std::io::Result<()> {
        let bound = http::serve(address, router).await;
        let mut page = self.0.lock();
        match bound {
            Ok((bound, _)) => {
                tracing::info!("metrics at http://{bound}/metrics");
                *page = MetricsPage {
                    address: bound,
                    error: None,
                };
                Ok(())
            }
            Err(error) => {
                page.error = Some(error.to_string());
                Err(error)
            }
        }
    }
}

const AGAIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_taken_is_had_when_it_is_free() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let holder = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = holder.local_addr().unwrap();
        let shown = Shown::at(runtime.handle(), address, Router::new());
        assert!(shown.now().error.is_some(), "{shown:?}");
        drop(holder);
        let free = MetricsPage { address, error: None };
        for _ in 0..100 {
            if shown.now() == free {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{shown:?}");
    }
}
