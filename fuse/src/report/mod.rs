//! What a mount tells of itself: to commands over its control socket, and to the pages of debugging over HTTP.
//!
//! The machine: a report is a plain structure, made of snapshots at the moment of the question. Its JSON is derived from it;
//! the form for people is its `Display`. Lists in it are bounded, and say how much was left out. Nothing in a report gives
//! a key away, and what is told of tokens and calls is told to their owner and to root.

pub mod pages;
pub mod series;
pub mod status;
pub mod text;
pub mod unstored;
pub mod why;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use afs_client::fs::AfsFs;

use crate::mount_table::{self, Device};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::page::Shown;

/// The mount that is served, as its process knows it.
#[derive(Clone, Debug)]
pub struct Served {
    /// Where it is mounted.
    pub at: PathBuf,
    /// Its number, if this process sees the mount.
    pub device: Option<Device>,
    /// Whose it is.
    pub owner: u32,
    /// Others may use it too.
    pub allow_other: bool,
    /// Every change is refused.
    pub read_only: bool,
    /// When it was begun to be served.
    pub started: (Instant, SystemTime),
    /// The page of metrics, if it was asked for.
    pub metrics: Option<Shown>,
}

/// What makes reports.
#[derive(Clone)]
pub struct Reports {
    /// The mount.
    pub served: Arc<Served>,
    /// The file system, as nobody in particular sees it.
    pub fs: AfsFs,
    /// Its metrics.
    pub metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Reports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reports")
            .field("served", &self.served)
            .finish_non_exhaustive()
    }
}

impl Reports {
    /// Reports on this mount.
    pub fn new(served: Served, fs: &AfsFs, metrics: &Arc<Metrics>) -> Self {
        Self {
            served: Arc::new(served),
            fs: fs.clone(),
            metrics: Arc::clone(metrics),
        }
    }
}

impl Served {
    /// A mount that this process begins to serve.
    pub fn new(at: &Path, read_only: bool, allow_other: bool, metrics: Option<Shown>) -> Self {
        Self {
            at: at.to_owned(),
            device: mount_table::at(at).map(|entry| entry.device),
            owner: rustix::process::geteuid().as_raw(),
            allow_other,
            read_only,
            started: (Instant::now(), SystemTime::now()),
            metrics,
        }
    }

    /// May this user ask how it is? Whoever may use it may.
    pub fn may_ask(&self, user: u32) -> bool {
        self.allow_other || user == self.owner || user == 0
    }
}
