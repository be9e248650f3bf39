//! Turns events into metrics. One object is the sink of every layer.

mod events;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use afs_client::events::{Broken, Kind as _};
use afs_client::fs::AfsFs;
use parking_lot::RwLock;
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{Encoder, Histogram, IntCounter, IntGauge, Registry, TextEncoder};
use rxrpc::proto::{DropReason, Resend, Side};

use super::families::Families;
use super::labels::side_name;
use super::op::{Op, OpMetrics};
use super::process;
use super::service::Services;
use super::wire::Wire;
use crate::report::series::{Sample, Series};

/// All metrics of the program.
pub struct Metrics {
    registry: Registry,
    families: Families,
    ops: OpMetrics,
    wire: Wire,
    services: Services,
    keep_alives: IntCounter,
    in_flight: IntGauge,
    inodes: IntGauge,
    callback_apply: Histogram,
    opens: [IntCounter; 3],
    invalidations: [[IntCounter; 2]; 2],
    /// Requests that were sent again.
    resent: AtomicU64,
    cells: RwLock<Vec<Arc<str>>>,
    watched: OnceLock<AfsFs>,
}

/// What a notification told the kernel to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// An inode: attributes, data.
    Inode,
    /// A name.
    Entry,
}

/// Who reads a file that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// We do.
    Served,
    /// The kernel does.
    Lent,
    /// Nobody: it was told to look again.
    Stale,
}

/// What became of a request that the kernel sent again, if it was not simply done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// What was written down of it was the answer.
    Journaled,
    /// The names told that it had been done.
    Found,
    /// Nobody can tell.
    Failed,
}

impl Replay {
    const ALL: [Self; 3] = [Self::Journaled, Self::Found, Self::Failed];

    const fn name(self) -> &'static str {
        match self {
            Self::Journaled => "journaled",
            Self::Found => "found",
            Self::Failed => "failed",
        }
    }
}

impl Metrics {
    /// The sum of the samples of a family of counters that have all these labels.
    pub fn sum(&self, family: &str, labels: &[(&str, &str)]) -> f64 {
        let sample = Sample {
            series: series_of(&self.registry.gather()),
            ..Sample::default()
        };
        sample.sum(family, labels)
    }

    /// Registers every family.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let families = Families::register(&registry)?;
        families
            .build_info
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        let invalidation = |kind: &str| {
            ["ok", "error"].map(|result| families.fuse_invalidations.with_label_values(&[kind, result]))
        };
        // A rate needs a first sample.
        for reason in DropReason::names() {
            families.dropped.with_label_values(&[reason]);
        }
        for reason in Resend::ALL {
            families.retransmits.with_label_values(&[reason.name()]);
        }
        for what in Broken::ALL {
            families.breaks.with_label_values(&[what.name()]);
        }
        for errno in ["EACCES", "EDQUOT", "EIO", "ENOSPC", "ETIMEDOUT", "other"] {
            families.store_errors.with_label_values(&[errno]);
        }
        for reason in ["black_hole", "search"] {
            families.path_changes.with_label_values(&[reason]);
        }
        for outcome in ["kept", "upgraded"] {
            families.upgrades.with_label_values(&["fs", outcome]);
        }
        for error in ["host_unreachable", "refused"] {
            families.network_errors.with_label_values(&[error]);
        }
        for (side, result) in [("client", "ok"), ("client", "failed"), ("service", "ok")] {
            families.handshakes.with_label_values(&[side, "rxkad", result]);
        }
        for side in [Side::Client, Side::Service] {
            families.reap_lost.with_label_values(&[side_name(side)]);
        }
        Ok(Self {
            ops: OpMetrics::new(families.fuse_requests.clone(), families.fuse_duration.clone()),
            wire: Wire::new(&families),
            services: Services::new(&families),
            keep_alives: families.keep_alives.with_label_values(NO_LABELS),
            in_flight: families.fuse_in_flight.with_label_values(NO_LABELS),
            inodes: families.fuse_inodes.with_label_values(NO_LABELS),
            callback_apply: families.callback_apply.with_label_values(NO_LABELS),
            resent: AtomicU64::new(0),
            opens: ["served", "lent", "stale"].map(|kind| families.opens.with_label_values(&[kind])),
            invalidations: [invalidation("inode"), invalidation("entry")],
            cells: RwLock::default(),
            watched: OnceLock::new(),
            registry,
            families,
        })
    }

    /// The exposition in the classic text form.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        exposition(&self.gather())
    }

    /// The same as numbers: of histograms the sums and the counts.
    pub fn series(&self) -> Vec<Series> {
        series_of(&self.gather())
    }

    fn gather(&self) -> Vec<MetricFamily> {
        process::refresh(&self.families);
        raise(
            &self.families.telemetry_dropped.with_label_values(&["traces"]),
            super::trace::traced().dropped,
        );
        self.show_resent();
        if let Some(fs) = self.watched.get() {
            self.look_at(fs);
        }
        self.registry.gather()
    }

    /// The file system whose state is shown from now on.
    pub fn watch(&self, fs: AfsFs) {
        // A second one is not shown: a program has one.
        let _ = self.watched.set(fs);
    }

    /// Counts one answered FUSE request.
    pub fn fuse_done(&self, op: Op, result: Result<(), i32>, duration: Duration) {
        self.ops.done(op, result, duration);
    }

    /// A FUSE request went to the network (+1) or came back (-1).
    pub fn fuse_in_flight(&self, change: i64) {
        self.in_flight.add(change);
    }

    /// Counts one file that was opened.
    pub fn opened(&self, reads: Reads) {
        let [served, lent, stale] = &self.opens;
        match reads {
            Reads::Served => served,
            Reads::Lent => lent,
            Reads::Stale => stale,
        }
        .inc();
    }

    /// A session with the kernel began; `again` if another process had served the mount before.
    pub fn attached(&self, again: bool) {
        let kind = if again { "reattach" } else { "fresh" };
        self.families.attaches.with_label_values(&[kind]).inc();
    }

    /// A request came that the kernel had sent before.
    pub fn resent(&self) {
        self.resent.fetch_add(1, Ordering::Relaxed);
    }

    /// It was not simply done.
    pub fn replayed(&self, replay: Replay) {
        self.families.resent.with_label_values(&[replay.name()]).inc();
    }

    fn show_resent(&self) {
        let others = Replay::ALL.map(|replay| self.families.resent.with_label_values(&[replay.name()]).get());
        let done = self
            .resent
            .load(Ordering::Relaxed)
            .saturating_sub(others.iter().sum());
        raise(&self.families.resent.with_label_values(&["replayed"]), done);
    }

    /// So many objects are known to the kernel.
    pub fn inodes(&self, count: usize) {
        self.inodes.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts one notification to the kernel.
    pub fn invalidated(&self, what: Forgotten, ok: bool) {
        let [inode, entry] = &self.invalidations;
        let [done, failed] = match what {
            Forgotten::Inode => inode,
            Forgotten::Entry => entry,
        };
        if ok { done.inc() } else { failed.inc() }
    }

    /// An invalidation waited so long from its queueing until the kernel had applied it.
    pub fn invalidation_applied(&self, waited: Duration) {
        self.callback_apply.observe(waited.as_secs_f64());
    }

    /// At most [`MAX_CELLS`] cells have a label of their own.
    fn with_cell<T>(&self, scope: &Arc<str>, then: impl FnOnce(&str) -> T) -> T {
        if scope.is_empty() {
            return then("none");
        }
        if self.cells.read().contains(scope) {
            return then(scope);
        }
        let known = {
            let mut cells = self.cells.write();
            let room = cells.len() < MAX_CELLS;
            if room && !cells.contains(scope) {
                cells.push(Arc::clone(scope));
            }
            room
        };
        then(if known { scope } else { "other" })
    }
}

/// Families in the classic text form.
pub(super) fn exposition(families: &[MetricFamily]) -> Result<String, prometheus::Error> {
    let mut text = Vec::with_capacity(16 * 1024);
    TextEncoder::new().encode(families, &mut text)?;
    String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
}

fn series_of(families: &[MetricFamily]) -> Vec<Series> {
    let mut all = Vec::new();
    for family in families {
        for metric in family.get_metric() {
            let pairs = metric.get_label().iter();
            let labels: BTreeMap<_, _> = pairs
                .map(|pair| (pair.name().to_owned(), pair.value().to_owned()))
                .collect();
            let mut add = |suffix: &str, value| {
                all.push(Series {
                    name: format!("{}{suffix}", family.name()),
                    labels: labels.clone(),
                    value,
                });
            };
            match family.get_field_type() {
                MetricType::COUNTER => add("", metric.get_counter().get_value()),
                MetricType::HISTOGRAM => {
                    let histogram = metric.get_histogram();
                    add("_sum", histogram.get_sample_sum());
                    add("_count", count(histogram.get_sample_count()));
                }
                _ => add("", metric.get_gauge().get_value()),
            }
        }
    }
    all
}

/// Takes over a count that somebody else keeps.
fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "an observation of a histogram")]
fn count(value: u64) -> f64 {
    value as f64
}

pub(super) const NO_LABELS: &[&str] = &[];
/// Cells with a label of their own; the rest is `other`.
const MAX_CELLS: usize = 16;
