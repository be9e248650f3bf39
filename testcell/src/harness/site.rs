//! What a mount needs of the cell it is of, whichever kind that is.

use std::ffi::OsStr;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::metrics::Metrics;
use super::watch::Clients;

/// A cell with places for clients, which are numbered from 1.
pub(crate) trait Site: fmt::Debug + Sync {
    /// The cell's AFS name.
    fn name(&self) -> &str;
    /// The file that tells where its location servers are.
    fn cellservdb(&self) -> PathBuf;
    /// A program where client K lives.
    fn client(&self, k: u8, program: &OsStr) -> Command;
    /// What a mount of client K must be told beside that.
    fn mount_arguments(&self, k: u8) -> Vec<String>;
    /// Where a mount of client K shows its metrics.
    fn metrics_address(&self, k: u8) -> SocketAddr;
    /// Reads a page where client K lives.
    fn page(&self, k: u8, address: SocketAddr, path: &str) -> Result<String>;

    /// Reads the metrics page of the mount of client K.
    fn metrics_page(&self, k: u8) -> Result<Metrics> {
        Metrics::parse(&self.page(k, self.metrics_address(k), "/metrics")?)
    }
    /// The clients that run.
    fn clients(&self) -> &Clients;
}
