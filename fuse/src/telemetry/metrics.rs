//! Turns events into metrics. One object is the sink of every layer.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use afs_client::events::{Broken, Kind as _};
use afs_client::fs::{AfsFs, CountState, State};
use parking_lot::RwLock;
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{Encoder, Histogram, IntCounter, IntGauge, Registry, TextEncoder};
use rxrpc::events::{CallResult, Event};
use rxrpc::proto::{DropReason, Resend, Side};
use rxrpc::security::rxkad;

use super::families::Families;
use super::labels::{acquire_name, close_name, code_name, network_error, security_name, service_name};
use super::op::{Op, OpMetrics, result_name};
use super::process;
use super::wire::Wire;
use crate::report::series::{Sample, Series};

/// All metrics of the program.
pub struct Metrics {
    registry: Registry,
    families: Families,
    ops: OpMetrics,
    wire: Wire,
    keep_alives: IntCounter,
    in_flight: IntGauge,
    inodes: IntGauge,
    callback_apply: Histogram,
    invalidations: [[IntCounter; 2]; 2],
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
        Ok(Self {
            ops: OpMetrics::new(families.fuse_requests.clone(), families.fuse_duration.clone()),
            wire: Wire::new(&families),
            keep_alives: families.keep_alives.with_label_values(NO_LABELS),
            in_flight: families.fuse_in_flight.with_label_values(NO_LABELS),
            inodes: families.fuse_inodes.with_label_values(NO_LABELS),
            callback_apply: families.callback_apply.with_label_values(NO_LABELS),
            invalidations: [invalidation("inode"), invalidation("entry")],
            cells: RwLock::default(),
            watched: OnceLock::new(),
            registry,
            families,
        })
    }

    /// The exposition in the classic text form.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
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

    /// Takes over what the file system counts itself.
    fn look_at(&self, fs: &AfsFs) {
        let families = &self.families;
        families.connections.reset();
        for counted in fs.census() {
            let state = if counted.idle { "idle" } else { "active" };
            let service = service_name(counted.side, counted.service);
            self.with_cell(&counted.scope, |cell| {
                families
                    .connections
                    .with_label_values(&[cell, service, state])
                    .inc();
            });
        }
        for (what, count) in fs.breaks().iter() {
            raise(&families.breaks.with_label_values(&[what]), count);
        }
        families
            .callback_path_last_seen
            .with_label_values(NO_LABELS)
            .set(whole(fs.requests().last()));
        let state = fs.state();
        self.show(&state);
        self.show_counts(&state.counts);
        self.show_tokens(fs);
        let (held, lost) = fs.lock_counts();
        families
            .locks
            .with_label_values(NO_LABELS)
            .set(whole(held as u64));
        raise(&families.locks_lost.with_label_values(NO_LABELS), lost);
        for (rpc, count) in fs.requests().iter() {
            raise(&families.callback_requests.with_label_values(&[rpc]), count);
        }
        let [status_hits, status_misses, data_hits, data_misses] = fs.cache_counts();
        for (cache, outcome, count) in [
            ("status", "hit", status_hits),
            ("status", "miss", status_misses),
            ("data", "hit", data_hits),
            ("data", "miss", data_misses),
        ] {
            raise(
                &families.cache_requests.with_label_values(&[cache, outcome]),
                count.into(),
            );
        }
    }

    fn show(&self, state: &State) {
        let families = &self.families;
        families.servers.reset();
        families.promising.reset();
        let count_server = |cell: &Arc<str>, service, up| {
            self.with_cell(cell, |cell| {
                let answers = if up { "up" } else { "down" };
                for state in ["up", "down"] {
                    let servers = families.servers.with_label_values(&[cell, service, state]);
                    servers.add(i64::from(state == answers));
                }
            });
        };
        for (cell, up) in &state.location_servers {
            count_server(cell, "vl", *up);
        }
        for server in &state.servers {
            count_server(&server.cell, "fs", server.up);
            self.with_cell(&server.cell, |cell| {
                let promising = families.promising.with_label_values(&[cell]);
                promising.add(i64::from(server.promised));
            });
        }
        let data = &["data"];
        families
            .cache_size
            .with_label_values(data)
            .set(whole(state.cache.used));
        families
            .cache_limit
            .with_label_values(data)
            .set(whole(state.cache.limit));
        for (state, files) in [
            ("waiting", state.kept.waiting.len()),
            ("set-aside", state.kept.set_aside.len()),
        ] {
            let files = whole(files as u64);
            families.unstored.with_label_values(&[state]).set(files);
        }
        raise(
            &families.write_conflicts.with_label_values(NO_LABELS),
            state.kept.conflicts,
        );
        let [full, failed] = state.cache.bypassed;
        for (reason, count) in [("full", full), ("failed", failed)] {
            raise(&families.cache_bypasses.with_label_values(&[reason]), count);
        }
        let oldest = state.cache.dirty_for.map(|age| SystemTime::now() - age);
        let oldest = oldest.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        for (gauge, value) in [
            (&families.dirty_bytes, state.cache.dirty),
            (&families.dirty_files, state.cache.dirty_files as u64),
            (&families.oldest_dirty, oldest.map_or(0, |at| at.as_secs())),
        ] {
            gauge.with_label_values(NO_LABELS).set(whole(value));
        }
        for (cache, entries) in [("status", state.vnodes), ("volume", state.volumes)] {
            families
                .cache_entries
                .with_label_values(&[cache])
                .set(whole(entries as u64));
        }
    }

    /// Takes over what the file system has counted by closed sets.
    fn show_counts(&self, counts: &CountState) {
        let families = &self.families;
        for (family, labels, counted) in [
            (&families.retries, &["fs"][..], &counts.retries),
            (&families.failovers, &["fs"], &counts.failovers),
            (&families.vldb_lookups, &[], &counts.lookups),
            (&families.breaks_received, &[], &counts.breaks),
            (&families.cache_bytes, &[], &counts.flows),
            (&families.cache_evictions, &["data"], &counts.evictions),
        ] {
            for (label, count) in counted {
                let labels: Vec<_> = labels.iter().copied().chain([*label]).collect();
                raise(&family.with_label_values(&labels), *count);
            }
        }
        // Several errors may share a label.
        let mut by_label = BTreeMap::new();
        for (errno, count) in &counts.store_errors {
            *by_label
                .entry(result_name(*errno).unwrap_or("other"))
                .or_insert(0) += count;
        }
        for (label, count) in by_label {
            raise(&families.store_errors.with_label_values(&[label]), count);
        }
    }

    /// Counts one answered FUSE request.
    pub fn fuse_done(&self, op: Op, result: Result<(), i32>, duration: Duration) {
        self.ops.done(op, result, duration);
    }

    /// A FUSE request went to the network (+1) or came back (-1).
    pub fn fuse_in_flight(&self, change: i64) {
        self.in_flight.add(change);
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

    fn show_tokens(&self, fs: &AfsFs) {
        let (tokens, expiry) = (&self.families.tokens, &self.families.token_expiry);
        tokens.reset();
        expiry.reset();
        let now = SystemTime::now();
        for held in fs.tokens() {
            let token = held.token;
            let state = if token.is_expired(now) { "expired" } else { "valid" };
            self.with_cell(token.cell.shared(), |cell| {
                tokens.with_label_values(&[cell, RXKAD, state]).inc();
                if held.renews {
                    let first = expiry.with_label_values(&[cell, RXKAD]);
                    let ends = i64::from(token.expires);
                    if first.get() == 0 || ends < first.get() {
                        first.set(ends);
                    }
                }
            });
        }
        for (cell, count) in fs.renewals() {
            self.with_cell(cell.shared(), |cell| {
                for (result, to) in [("ok", count.done), ("failed", count.failed)] {
                    let counter = self.families.token_renewals.with_label_values(&[cell, result]);
                    raise(&counter, to);
                }
            });
        }
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

impl rxrpc::events::Sink for Metrics {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Packet {
                sent,
                packet_type,
                packets,
                bytes,
            } => {
                self.wire.count(*sent, *packet_type, *packets, *bytes);
            }
            Event::Acquired {
                side,
                scope,
                service,
                security,
                outcome,
            } => self.with_cell(scope, |cell| {
                let service = service_name(*side, *service);
                if *side == Side::Client {
                    self.families.rpc_in_flight.with_label_values(&[service]).inc();
                }
                self.families
                    .acquires
                    .with_label_values(&[cell, service, security_name(*security), acquire_name(*outcome)])
                    .inc();
            }),
            Event::Closed {
                side,
                scope,
                service,
                reason,
                age,
                calls,
            } => self.with_cell(scope, |cell| {
                let service = service_name(*side, *service);
                self.families
                    .closed
                    .with_label_values(&[cell, service, close_name(*reason)])
                    .inc();
                self.families
                    .lifetime
                    .with_label_values(&[service])
                    .observe(age.as_secs_f64());
                self.families
                    .calls_carried
                    .with_label_values(&[service])
                    .observe(count(*calls));
            }),
            Event::ReapLost { side } => {
                let side = match side {
                    Side::Client => "client",
                    Side::Service => "service",
                };
                self.families.reap_lost.with_label_values(&[side]).inc();
            }
            Event::ChannelAwaited { service } => {
                let service = service_name(Side::Client, *service);
                self.families.calls_waiting.with_label_values(&[service]).inc();
            }
            Event::ChannelWaited { service, waited } => {
                let service = service_name(Side::Client, *service);
                self.families.calls_waiting.with_label_values(&[service]).dec();
                self.families
                    .channel_wait
                    .with_label_values(&[service])
                    .observe(waited.as_secs_f64());
            }
            Event::CallEnded {
                side,
                scope,
                service,
                name,
                result,
                duration,
            } => {
                let service = service_name(*side, *service);
                if *side == Side::Client {
                    self.families.rpc_in_flight.with_label_values(&[service]).dec();
                }
                if !name.is_empty() {
                    self.families
                        .rpc_duration
                        .with_label_values(&[service, name])
                        .observe(duration.as_secs_f64());
                }
                if let CallResult::Aborted(code) = result {
                    let code = code_name(*code);
                    self.families.rpc_aborts.with_label_values(&[service, code]).inc();
                }
                let result = match result {
                    CallResult::Ok => "ok",
                    CallResult::Aborted(_) => "abort",
                    CallResult::TimedOut => "timeout",
                    CallResult::NetworkError => "net",
                    CallResult::Cancelled => "cancelled",
                };
                self.with_cell(scope, |cell| {
                    self.families
                        .rpc_calls
                        .with_label_values(&[cell, service, result])
                        .inc();
                });
            }
            Event::Dropped { reason, .. } => {
                self.families.dropped.with_label_values(&[reason.name()]).inc();
            }
            Event::NetworkError { errno, .. } => {
                let error = network_error(*errno);
                self.families.network_errors.with_label_values(&[error]).inc();
            }
            Event::KeptAlive { .. } => self.keep_alives.inc(),
            Event::PathChanged { black_hole, .. } => {
                let reason = if *black_hole { "black_hole" } else { "search" };
                self.families.path_changes.with_label_values(&[reason]).inc();
            }
            Event::UpgradeAnswered { service, answered } => {
                let outcome = if service == answered { "kept" } else { "upgraded" };
                self.families
                    .upgrades
                    .with_label_values(&[service_name(Side::Client, *service), outcome])
                    .inc();
            }
            Event::Retransmitted { why, packets } => {
                let reason = why.name();
                self.families
                    .retransmits
                    .with_label_values(&[reason])
                    .inc_by(*packets);
            }
            Event::Acks {
                sent,
                reason,
                packets,
            } => self.wire.count_acks(*sent, *reason, *packets),
            Event::RoundTrip { side, service, rtt } => self
                .families
                .rtt
                .with_label_values(&[service_name(*side, *service)])
                .observe(rtt.as_secs_f64()),
            _ => {}
        }
    }
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

/// The only class with tokens.
const RXKAD: &str = security_name(rxkad::INDEX);
const NO_LABELS: &[&str] = &[];
/// Cells with a label of their own; the rest is `other`.
const MAX_CELLS: usize = 16;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use rxrpc::events::{Acquire, CloseReason, Sink};
    use rxrpc::proto::{AbortCode, AckReason, Malformed, PacketType, SecurityIndex, ServiceId};

    use super::*;
    use crate::telemetry::families::DEFINITIONS;

    fn value(text: &str, series: &str) -> Option<f64> {
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    fn series(text: &str) -> usize {
        text.lines().filter(|line| !line.starts_with('#')).count()
    }

    #[test]
    fn events_are_counted_with_closed_labels() {
        let metrics = Metrics::new().unwrap();
        let cell: Arc<str> = "example.org".into();
        let service = ServiceId(1);
        for outcome in [
            Acquire::Created,
            Acquire::Reused,
            Acquire::Reused,
            Acquire::Revived,
        ] {
            metrics.event(&Event::Acquired {
                side: Side::Client,
                scope: &cell,
                service,
                security: SecurityIndex(2),
                outcome,
            });
        }
        metrics.event(&Event::Packet {
            sent: true,
            packet_type: PacketType::Data,
            packets: 3,
            bytes: 4000,
        });
        let peer = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7000);
        metrics.event(&Event::Dropped {
            reason: Malformed::Short.into(),
            peer,
        });
        metrics.event(&Event::Acks {
            sent: false,
            reason: AckReason::Delay,
            packets: 2,
        });
        metrics.event(&Event::Retransmitted {
            why: Resend::Probe,
            packets: 5,
        });
        for (name, result) in [
            ("FetchStatus", CallResult::Ok),
            ("FetchStatus", CallResult::Aborted(AbortCode(110))),
            ("StoreACL", CallResult::Aborted(AbortCode(13))),
            ("", CallResult::Aborted(AbortCode(-12345))),
        ] {
            metrics.event(&Event::CallEnded {
                side: Side::Client,
                scope: &cell,
                service,
                name,
                result,
                duration: Duration::from_millis(3),
            });
        }
        metrics.event(&Event::Closed {
            side: Side::Client,
            scope: &cell,
            service,
            reason: CloseReason::IdleReaped,
            age: Duration::from_secs(30),
            calls: 4,
        });
        let text = metrics.render().unwrap();
        let labels = r#"cell="example.org",outcome="reused",security="rxkad",service="fs""#;
        assert_eq!(
            value(&text, &format!("afs_rx_connection_acquires_total{{{labels}}}")),
            Some(2.0),
            "{text}"
        );
        assert_eq!(
            value(&text, r#"afs_rx_bytes_total{direction="tx",type="data"}"#),
            Some(4000.0)
        );
        assert_eq!(
            value(&text, r#"afs_rx_dropped_packets_total{reason="short"}"#),
            Some(1.0)
        );
        for (series, expected) in [
            (r#"afs_rx_acks_total{direction="rx",reason="delay"}"#, 2.0),
            (r#"afs_rx_retransmits_total{reason="tlp"}"#, 5.0),
            (r#"afs_rx_retransmits_total{reason="rto"}"#, 0.0),
            (
                r#"afs_rpc_duration_seconds_count{rpc="FetchStatus",service="fs"}"#,
                2.0,
            ),
            (r#"afs_rpc_aborts_total{code="VBUSY",service="fs"}"#, 1.0),
            (r#"afs_rpc_aborts_total{code="EACCES",service="fs"}"#, 1.0),
            (r#"afs_rpc_aborts_total{code="other",service="fs"}"#, 1.0),
        ] {
            assert_eq!(value(&text, series), Some(expected), "{series}");
        }
        assert_eq!(
            value(&text, r#"afs_rx_connection_calls_sum{service="fs"}"#),
            Some(4.0)
        );
    }

    #[test]
    fn cells_beyond_the_limit_share_a_label() {
        let metrics = Metrics::new().unwrap();
        for number in 0..40 {
            let cell: Arc<str> = format!("cell{number}.example").into();
            let outcome = Acquire::Created;
            metrics.event(&Event::Acquired {
                side: Side::Client,
                scope: &cell,
                service: ServiceId(52),
                security: SecurityIndex(0),
                outcome,
            });
        }
        let text = metrics.render().unwrap();
        let other = r#"afs_rx_connection_acquires_total{cell="other",outcome="created",security="none",service="vl"}"#;
        assert_eq!(value(&text, other), Some(24.0), "{text}");
    }

    /// Everything that a mount with four cells can count, at once.
    #[test]
    fn a_loaded_mount_keeps_to_its_budget() {
        use afs_client::rpc::{cb, fs, vl};
        let metrics = Metrics::new().unwrap();
        type Served = (Side, u16, &'static [(u32, &'static str)]);
        let services: [Served; 3] = [
            (Side::Client, 1, fs::PROCEDURES),
            (Side::Client, 52, vl::PROCEDURES),
            (Side::Service, 1, cb::PROCEDURES),
        ];
        for cell in ["a.example", "b.example", "c.example", "d.example"] {
            let scope: Arc<str> = cell.into();
            for (side, service, procedures) in services {
                let service = ServiceId(service);
                let scope = match side {
                    Side::Client => Arc::clone(&scope),
                    Side::Service => "".into(),
                };
                for security in [0, 2] {
                    for outcome in [
                        Acquire::Created,
                        Acquire::Reused,
                        Acquire::Revived,
                        Acquire::Replaced,
                        Acquire::RefusedDying,
                    ] {
                        metrics.event(&Event::Acquired {
                            side,
                            scope: &scope,
                            service,
                            security: SecurityIndex(security),
                            outcome,
                        });
                    }
                }
                for reason in [
                    CloseReason::IdleReaped,
                    CloseReason::Aborted,
                    CloseReason::PeerDead,
                ] {
                    metrics.event(&Event::Closed {
                        side,
                        scope: &scope,
                        service,
                        reason,
                        age: Duration::from_secs(30),
                        calls: 4,
                    });
                }
                for (_, name) in procedures {
                    for result in [
                        CallResult::Ok,
                        CallResult::Aborted(AbortCode(13)),
                        CallResult::TimedOut,
                        CallResult::NetworkError,
                        CallResult::Cancelled,
                    ] {
                        metrics.event(&Event::CallEnded {
                            side,
                            scope: &scope,
                            service,
                            name,
                            result,
                            duration: Duration::from_millis(3),
                        });
                    }
                }
                metrics.event(&Event::RoundTrip {
                    side,
                    service,
                    rtt: Duration::from_millis(1),
                });
                metrics.event(&Event::ChannelAwaited { service });
                metrics.event(&Event::ChannelWaited {
                    service,
                    waited: Duration::from_millis(1),
                });
            }
        }
        for op in Op::ALL {
            for result in [Ok(()), Err(2), Err(13), Err(110)] {
                metrics.fuse_done(*op, result, Duration::from_micros(80));
            }
        }
        let text = metrics.render().unwrap();
        assert!(series(&text) < LOADED, "{} series", series(&text));
    }

    #[test]
    fn the_exposition_is_whole_and_small() {
        let metrics = Metrics::new().unwrap();
        for op in Op::ALL {
            metrics.fuse_done(*op, Ok(()), Duration::from_micros(80));
            metrics.fuse_done(
                *op,
                Err(rustix::io::Errno::NOENT.raw_os_error()),
                Duration::from_millis(2),
            );
            metrics.fuse_done(*op, Err(9999), Duration::from_secs(61));
        }
        let text = metrics.render().unwrap();
        for line in text.lines() {
            let valid = line.starts_with("# HELP ")
                || line.starts_with("# TYPE ")
                || line
                    .rsplit_once(' ')
                    .is_some_and(|(_, number)| number.parse::<f64>().is_ok());
            assert!(valid, "{line}");
        }
        for (name, kind) in text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        {
            let row = DEFINITIONS.iter().find(|row| row.name == name).unwrap();
            assert_eq!(row.type_name(), kind);
        }
        let lookup = r#"afs_fuse_requests_total{op="lookup",result="ENOENT"}"#;
        assert_eq!(value(&text, lookup), Some(1.0));
        assert_eq!(
            value(&text, r#"afs_fuse_requests_total{op="read",result="other"}"#),
            Some(1.0)
        );
        assert!(
            value(&text, "process_resident_memory_bytes").unwrap() > 1e5,
            "{text}"
        );
        assert!(value(&text, "process_start_time_seconds").unwrap() > 1.7e9);
        assert!(series(&text) < IDLE, "{}", series(&text));
    }

    const IDLE: usize = 1500;
    const LOADED: usize = 3000;
}
