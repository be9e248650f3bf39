//! The metric families: one table, from which registration, the reference and the checks are derived.
//!
//! Rules: base units, counters end in `_total`, label sets are closed, never a path, FID, user or address in a label.

use prometheus::{
    CounterVec, Error, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
    core::Collector,
};

/// How far a family may be relied upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// Name, labels and meaning stay.
    Stable,
    /// May still change.
    Experimental,
}

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only rises; whole numbers.
    Counter,
    /// Only rises.
    Seconds,
    /// Rises and falls.
    Gauge,
    /// A distribution with these upper bounds.
    Histogram(&'static [f64]),
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// Name as exposed.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// Label names.
    pub labels: &'static [&'static str],
    /// Whether it may be relied upon.
    pub stability: Stability,
    /// What it means.
    pub help: &'static str,
}

impl Definition {
    fn opts(&self) -> Opts {
        let word = match self.stability {
            Stability::Stable => "stable",
            Stability::Experimental => "experimental",
        };
        Opts::new(self.name, format!("{} ({word})", self.help))
    }

    /// The type as Prometheus calls it.
    pub const fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Counter | Kind::Seconds => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        }
    }
}

/// What a row of the table makes.
trait Family: Collector + Clone + Sized + 'static {
    fn make(definition: &Definition) -> Result<Self, Error>;
}

impl Family for IntCounterVec {
    fn make(definition: &Definition) -> Result<Self, Error> {
        Self::new(definition.opts(), definition.labels)
    }
}

impl Family for CounterVec {
    fn make(definition: &Definition) -> Result<Self, Error> {
        Self::new(definition.opts(), definition.labels)
    }
}

impl Family for IntGaugeVec {
    fn make(definition: &Definition) -> Result<Self, Error> {
        Self::new(definition.opts(), definition.labels)
    }
}

impl Family for HistogramVec {
    fn make(definition: &Definition) -> Result<Self, Error> {
        let mut opts = HistogramOpts::from(definition.opts());
        if let Kind::Histogram(bounds) = definition.kind {
            opts = opts.buckets(bounds.to_vec());
        }
        Self::new(opts, definition.labels)
    }
}

macro_rules! families {
    (@type Counter) => { IntCounterVec };
    (@type Seconds) => { CounterVec };
    (@type Gauge) => { IntGaugeVec };
    (@type Histogram) => { HistogramVec };
    ($($field:ident: $kind:ident $(($bounds:expr))?, $name:literal, [$($label:literal),*], $stability:ident, $help:literal;)*) => {
        /// Every family, registered.
        #[derive(Clone)]
        pub struct Families {
            $(#[doc = $help] pub $field: families!(@type $kind),)*
        }

        impl Families {
            /// Makes every family of the table and registers it.
            pub fn register(registry: &Registry) -> Result<Self, Error> {
                let mut rows = DEFINITIONS.iter();
                let mut next = || rows.next().ok_or_else(|| Error::Msg("table".to_owned()));
                Ok(Self {
                    $($field: register(registry, next()?)?,)*
                })
            }
        }

        /// The table.
        pub const DEFINITIONS: &[Definition] = &[
            $(Definition {
                name: $name,
                kind: Kind::$kind $(($bounds))?,
                labels: &[$($label),*],
                stability: Stability::$stability,
                help: $help,
            },)*
        ];
    };
}

fn register<F: Family>(registry: &Registry, definition: &Definition) -> Result<F, Error> {
    let family = F::make(definition)?;
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

const LATENCIES: &[f64] = &[
    50e-6, 200e-6, 1e-3, 4e-3, 15e-3, 60e-3, 0.25, 1.0, 3.0, 10.0, 30.0, 60.0,
];
const ROUND_TRIPS: &[f64] = &[
    100e-6, 250e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1.0,
];
const LIFETIMES: &[f64] = &[
    1.0, 5.0, 15.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 14400.0, 43200.0, 86400.0,
];
/// Packets: the window opens from 10 to 255.
const WINDOWS: &[f64] = &[
    2.0, 4.0, 8.0, 10.0, 14.0, 20.0, 32.0, 48.0, 64.0, 96.0, 128.0, 255.0,
];
const ORPHANED: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 300.0];
const CALLS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0,
];

families! {
    acquires: Counter, "afs_rx_connection_acquires_total", ["cell", "service", "security", "outcome"], Stable,
        "How calls came by their connection; one per call start.";
    closed: Counter, "afs_rx_connections_closed_total", ["cell", "service", "reason"], Stable,
        "Connections that ended, by reason.";
    connections: Gauge, "afs_rx_connections", ["cell", "service", "state"], Stable,
        "Connections that exist now.";
    reap_lost: Counter, "afs_rx_reaps_lost_total", ["side"], Experimental,
        "Idle connections that came back to life while the reaper was about to end them.";
    channel_wait: Histogram(LATENCIES), "afs_rx_channel_wait_seconds", ["service"], Stable,
        "Time that calls waited for a free channel.";
    lifetime: Histogram(LIFETIMES), "afs_rx_connection_lifetime_seconds", ["service"], Stable,
        "Age of connections when they ended.";
    calls_carried: Histogram(CALLS), "afs_rx_connection_calls", ["service"], Stable,
        "Calls that connections had carried when they ended.";
    handshakes: Counter, "afs_rx_security_handshakes_total", ["side", "security", "result"], Stable,
        "Handshakes that ended: challenges of servers that we answered (client), or of ours that were answered (service).";
    handshake_time: Histogram(LATENCIES), "afs_rx_security_handshake_seconds", ["side"], Stable,
        "Time that calls waited for a handshake: what a new connection costs, and a reused one does not.";
    peers: Gauge, "afs_rx_peers", ["state"], Stable,
        "Hosts that there are connections with (used), and those whose way back to us is kept open (kept_open).";
    packets: Counter, "afs_rx_packets_total", ["direction", "type"], Stable,
        "Packets sent and received.";
    bytes: Counter, "afs_rx_bytes_total", ["direction", "type"], Stable,
        "Bytes sent and received, packet headers included.";
    retransmits: Counter, "afs_rx_retransmits_total", ["reason"], Stable,
        "DATA packets sent again: overtaken by others (rack), after a timeout (rto), to have the end acknowledged (tlp).";
    acks: Counter, "afs_rx_acks_total", ["direction", "reason"], Stable,
        "ACKs sent and received, by the reason that they give.";
    rtt: Histogram(ROUND_TRIPS), "afs_rx_rtt_seconds", ["service"], Stable,
        "Times that packets took to the peer and back.";
    window: Histogram(WINDOWS), "afs_rx_cwnd_packets", ["service"], Stable,
        "Packets that might be under way to the peer at the end of a call, as congestion control saw it.";
    dropped: Counter, "afs_rx_dropped_packets_total", ["reason"], Stable,
        "Received packets thrown away, by the rule they broke.";
    socket_drops: Counter, "afs_rx_socket_drops_total", [], Stable,
        "Datagrams that Linux threw away because there was no room for them in the queue of our socket.";
    network_errors: Counter, "afs_rx_network_errors_total", ["reason"], Stable,
        "Datagrams that the network gave back (ICMP), by what it said.";
    keep_alives: Counter, "afs_rx_keep_alives_total", [], Experimental,
        "Packets sent to file servers so that a NAT lets their calls in.";
    path_changes: Counter, "afs_rx_path_changes_total", ["reason"], Experimental,
        "Changes of the datagram size to a peer: proved by a search, or after packets had vanished.";
    upgrades: Counter, "afs_rx_service_upgrades_total", ["service", "outcome"], Experimental,
        "Answers of servers that were asked for a newer service.";
    rpc_calls: Counter, "afs_rpc_calls_total", ["cell", "service", "result"], Stable,
        "Calls that ended, by result.";
    rpc_aborts: Counter, "afs_rpc_aborts_total", ["service", "code"], Stable,
        "Calls that the other side aborted, by the name of the code.";
    rpc_duration: Histogram(LATENCIES), "afs_rpc_duration_seconds", ["service", "rpc"], Stable,
        "Time from the start of a call to its end.";
    rpc_in_flight: Gauge, "afs_rpc_in_flight", ["service"], Stable,
        "Calls that we make now, each on a channel of its own.";
    calls_waiting: Gauge, "afs_rx_calls_waiting", ["service"], Stable,
        "Calls that wait for a free channel now.";
    retries: Counter, "afs_rpc_retries_total", ["service", "reason"], Stable,
        "Calls that were made once more, by what had become of the first.";
    failovers: Counter, "afs_failovers_total", ["service", "reason"], Stable,
        "How many of the calls that were made once more went to another address.";
    avoided: Gauge, "afs_servers_avoided", ["cell", "reason"], Stable,
        "File servers that others are preferred to now: too many calls to them fail (failing), what they say makes no sense (nonsense), they have another release of a volume (release).";
    left_alone: Counter, "afs_replicas_left_alone_total", ["reason"], Stable,
        "Times that a replica was left alone for half a minute, because what it said makes no sense, or because it has another release.";
    vldb_lookups: Counter, "afs_vldb_lookups_total", ["outcome"], Stable,
        "Questions where a volume is: known (hit), asked (miss), asked again (stale), no such volume (negative).";
    breaks_received: Counter, "afs_callback_breaks_received_total", ["scope"], Stable,
        "Callback breaks as received, one per object named.";
    breaks: Counter, "afs_callback_breaks_total", ["outcome"], Stable,
        "What became of the callback breaks received.";
    callback_requests: Counter, "afs_callback_requests_total", ["rpc"], Stable,
        "Requests of file servers to us: proof that the way back is open.";
    callback_apply: Histogram(LATENCIES), "afs_callback_apply_seconds", [], Experimental,
        "Time from the queueing of an invalidation until the kernel applied it.";
    given_up: Counter, "afs_callback_giveups_total", ["result"], Stable,
        "Promises given back to their servers because the objects had left the cache.";
    callback_path_last_seen: Gauge, "afs_callback_path_last_seen_timestamp_seconds", ["cell"], Stable,
        "When a file server of the cell last called us, in seconds since the epoch; 0 if none has.";
    callbacks: Gauge, "afs_callbacks", ["state"], Stable,
        "Promises of file servers that stand; expiring: they end within a minute. Of more than 16384 objects an estimate from so many.";
    servers: Gauge, "afs_servers", ["cell", "service", "state"], Stable,
        "Servers of the volumes in use, by whether they answer.";
    promising: Gauge, "afs_callback_servers", ["cell"], Experimental,
        "File servers that have promised to call us when something changes.";
    cache_requests: Counter, "afs_cache_requests_total", ["cache", "outcome"], Stable,
        "Questions to the caches, by outcome.";
    cache_size: Gauge, "afs_cache_size_bytes", ["cache"], Stable,
        "Bytes that a cache takes.";
    cache_limit: Gauge, "afs_cache_limit_bytes", ["cache"], Stable,
        "Bytes that a cache may take.";
    cache_entries: Gauge, "afs_cache_entries", ["cache"], Stable,
        "Things that a cache knows.";
    cache_bytes: Counter, "afs_cache_bytes_total", ["flow"], Stable,
        "Bytes of file data: read from the cache at once, fetched, fetched ahead and not read, stored, evicted.";
    cache_evictions: Counter, "afs_cache_evictions_total", ["cache", "reason"], Stable,
        "Things that left a cache because others needed the room, or the descriptor.";
    dirty_files: Gauge, "afs_dirty_files", [], Stable,
        "Files with bytes written here and not stored on a server yet.";
    oldest_dirty: Gauge, "afs_oldest_dirty_timestamp_seconds", [], Stable,
        "Since when the first of them has had such bytes, in seconds since the epoch; 0 if there is none.";
    store_errors: Counter, "afs_store_errors_total", ["errno"], Stable,
        "Stores that failed, by error: the data is here only.";
    dirty_bytes: Gauge, "afs_dirty_bytes", [], Stable,
        "Bytes written here and not stored on a server yet.";
    locks: Gauge, "afs_locks", [], Stable,
        "Locks on files that programs hold.";
    locks_lost: Counter, "afs_locks_lost_total", [], Stable,
        "Locks that a file server has forgotten while programs held them.";
    unstored: Gauge, "afs_unstored_files", ["state"], Stable,
        "Files whose data is not in its place: left by an earlier program and waiting, or set aside in the cache directory.";
    write_conflicts: Counter, "afs_write_conflicts_total", [], Stable,
        "Files that were written here while somebody else changed them.";
    cache_bypasses: Counter, "afs_cache_bypasses_total", ["reason"], Stable,
        "Times that data went past the cache because its file system was full, or failed.";
    cache_damaged: Counter, "afs_cache_damaged_total", [], Stable,
        "Times that something in the cache directory was not as it had been written, or could not be read, and was fetched again.";
    fuse_requests: Counter, "afs_fuse_requests_total", ["op", "result"], Stable,
        "FUSE requests answered, by result.";
    fuse_duration: Histogram(LATENCIES), "afs_fuse_request_duration_seconds", ["op"], Stable,
        "Time from taking a FUSE request to answering it.";
    opens: Counter, "afs_fuse_opens_total", ["kind"], Experimental,
        "Opens of files by who reads their data then: this program (served), the kernel by itself (lent), which no other metric sees; or nobody, because the kernel was told to look again (stale).";
    attaches: Counter, "afs_fuse_attaches_total", ["kind"], Stable,
        "Sessions with the kernel that this process began: of a mount of its own (fresh), or of one that another process served before (reattach).";
    resent: Counter, "afs_fuse_resent_requests_total", ["outcome"], Stable,
        "Requests that the kernel sent again after another process had died: done (replayed), answered from what that one had written down (journaled) or by a look at the names (found), or failed because it cannot be known (failed).";
    fuse_in_flight: Gauge, "afs_fuse_in_flight", [], Stable,
        "FUSE requests that wait for the network now.";
    fuse_inodes: Gauge, "afs_fuse_inodes", [], Experimental,
        "Objects that the kernel knows.";
    fuse_invalidations: Counter, "afs_fuse_invalidations_total", ["kind", "result"], Stable,
        "Notifications to the kernel to forget something.";
    tokens: Gauge, "afs_tokens", ["cell", "security", "state"], Stable,
        "Tokens held, by whether they are valid or have expired.";
    token_expiry: Gauge, "afs_token_expiry_timestamp_seconds", ["cell", "security"], Stable,
        "When the first of the tokens ends that are renewed here, in seconds since the epoch.";
    token_renewals: Counter, "afs_token_renewals_total", ["cell", "result"], Stable,
        "Tries to renew a token, by result.";
    telemetry_dropped: Counter, "afs_telemetry_dropped_total", ["signal"], Stable,
        "Telemetry that was lost: the queue was full, or the collector did not take it.";
    keeper_mounts: Gauge, "afs_keeper_mounts", [], Stable,
        "Mounts that this keeper holds.";
    keeper_orphans: Gauge, "afs_keeper_orphaned_mounts", [], Stable,
        "How many of them no process serves: programs wait.";
    keeper_given: Counter, "afs_keeper_servers_total", ["result"], Stable,
        "Processes that were given the mount (given), and those that could not go on with it (hopeless).";
    keeper_orphan_time: Histogram(ORPHANED), "afs_keeper_orphan_seconds", [], Stable,
        "Time that the mount was without a process.";
    keeper_aborts: Counter, "afs_keeper_aborts_total", [], Stable,
        "Mounts given up, so that programs got errors.";
    build_info: Gauge, "afs_build_info", ["version"], Stable,
        "Always 1; the label tells the version.";
    cpu_seconds: Seconds, "process_cpu_seconds_total", [], Stable,
        "Processor time used.";
    resident_bytes: Gauge, "process_resident_memory_bytes", [], Stable,
        "Resident memory.";
    memory_limit: Gauge, "afs_memory_limit_bytes", [], Stable,
        "Memory that the control group of the process may take; 0 if it has no limit.";
    virtual_bytes: Gauge, "process_virtual_memory_bytes", [], Stable,
        "Address space.";
    open_fds: Gauge, "process_open_fds", [], Stable,
        "Open file descriptors.";
    max_fds: Gauge, "process_max_fds", [], Stable,
        "Limit of open file descriptors.";
    threads: Gauge, "process_threads", [], Stable,
        "Threads of the process.";
    start_time: Gauge, "process_start_time_seconds", [], Stable,
        "Start of the process, in seconds since the epoch.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_keeps_its_rules() {
        let names: BTreeSet<_> = DEFINITIONS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), DEFINITIONS.len(), "each name once");
        for row in DEFINITIONS {
            let ours = row.name.starts_with("afs_") || row.name.starts_with("process_");
            assert!(ours, "{}", row.name);
            assert_eq!(
                row.type_name() == "counter",
                row.name.ends_with("_total"),
                "{}",
                row.name
            );
            assert!(
                row.help.ends_with('.') || row.help.ends_with("version."),
                "{}",
                row.name
            );
            if let Kind::Histogram(bounds) = row.kind {
                assert_eq!(bounds.len(), 12, "{}", row.name);
                assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]), "{}", row.name);
            }
            for label in row.labels {
                let allowed = [
                    "cell",
                    "service",
                    "security",
                    "rpc",
                    "op",
                    "result",
                    "outcome",
                    "reason",
                    "state",
                    "cache",
                    "direction",
                    "type",
                    "scope",
                    "kind",
                    "code",
                    "side",
                    "version",
                    "flow",
                    "signal",
                    "errno",
                ];
                assert!(allowed.contains(label), "{}: {label}", row.name);
            }
        }
    }

    #[test]
    fn registration_follows_the_table() {
        let registry = Registry::new();
        Families::register(&registry).unwrap();
        assert!(Families::register(&registry).is_err(), "names are taken");
    }
}
