//! The alerts, each with a history at whose end it fires and one at whose end it does not.

use super::{Alert, Severity};

const FS: &str = "lab.example";

/// The alerts.
pub const ALERTS: &[Alert] = &[
    Alert {
        name: "AfsConnectionChurnHigh",
        query: "afs:rx_reuse:ratio5m < 0.9 and sum by (instance, cell, service) (afs:rx_acquires:rate5m) > 1",
        lasting: "15m",
        severity: Severity::Warning,
        summary: "More than a tenth of the calls find no connection that lives",
        fires: (
            &[
                (
                    r#"afs_rx_connection_acquires_total{instance="a",cell="lab.example",service="fs",outcome="created"}"#,
                    "0+120x40",
                ),
                (
                    r#"afs_rx_connection_acquires_total{instance="a",cell="lab.example",service="fs",outcome="reused"}"#,
                    "0+120x40",
                ),
            ],
            30,
        ),
        labels: &[("instance", "a"), ("cell", FS), ("service", "fs")],
        quiet: (
            &[
                (
                    r#"afs_rx_connection_acquires_total{instance="a",cell="lab.example",service="fs",outcome="created"}"#,
                    "0+1x40",
                ),
                (
                    r#"afs_rx_connection_acquires_total{instance="a",cell="lab.example",service="fs",outcome="reused"}"#,
                    "0+120x40",
                ),
                // Hardly any calls: no matter.
                (
                    r#"afs_rx_connection_acquires_total{instance="b",cell="lab.example",service="vl",outcome="created"}"#,
                    "0+1x40",
                ),
            ],
            30,
        ),
    },
    Alert {
        name: "AfsConnectionsRefusedDying",
        query: r#"sum by (instance, cell) (rate(afs_rx_connection_acquires_total{outcome="refused_dying"}[10m])) > 0.1"#,
        lasting: "10m",
        severity: Severity::Warning,
        summary: "Calls keep meeting connections that are being torn down: they are made anew, at the cost of a handshake",
        fires: (
            &[(
                r#"afs_rx_connection_acquires_total{instance="a",cell="lab.example",service="fs",outcome="refused_dying"}"#,
                "0+12x40",
            )],
            30,
        ),
        labels: &[("instance", "a"), ("cell", FS)],
        quiet: (
            &[(
                r#"afs_rx_connection_acquires_total{instance="a",cell="lab.example",service="fs",outcome="refused_dying"}"#,
                "0+1x40",
            )],
            30,
        ),
    },
    Alert {
        name: "AfsConnectionLeak",
        query: "deriv(sum by (instance) (afs_rx_connections)[1h:1m]) > 0 and sum by (instance) (afs_rx_connections) > 2000",
        lasting: "1h",
        severity: Severity::Warning,
        summary: "The number of connections has grown for two hours",
        fires: (
            &[(
                r#"afs_rx_connections{instance="a",cell="lab.example",service="fs",state="idle"}"#,
                "2000+10x180",
            )],
            170,
        ),
        labels: &[("instance", "a")],
        quiet: (
            &[
                (
                    r#"afs_rx_connections{instance="a",cell="lab.example",service="fs",state="idle"}"#,
                    "3000x180",
                ),
                (
                    r#"afs_rx_connections{instance="b",cell="lab.example",service="fs",state="idle"}"#,
                    "0+2x180",
                ),
            ],
            170,
        ),
    },
    Alert {
        name: "AfsChannelStarvation",
        query: "histogram_quantile(0.99, sum by (instance, service, le) (rate(afs_rx_channel_wait_seconds_bucket[5m]))) > 0.5",
        lasting: "10m",
        severity: Severity::Warning,
        summary: "Calls wait for a channel: more of them are under way to one server than its connections carry",
        fires: (
            &[
                (
                    r#"afs_rx_channel_wait_seconds_bucket{instance="a",service="fs",le="0.25"}"#,
                    "0+1x40",
                ),
                (
                    r#"afs_rx_channel_wait_seconds_bucket{instance="a",service="fs",le="1"}"#,
                    "0+60x40",
                ),
                (
                    r#"afs_rx_channel_wait_seconds_bucket{instance="a",service="fs",le="+Inf"}"#,
                    "0+60x40",
                ),
            ],
            30,
        ),
        labels: &[("instance", "a"), ("service", "fs")],
        quiet: (
            &[
                (
                    r#"afs_rx_channel_wait_seconds_bucket{instance="a",service="fs",le="0.25"}"#,
                    "0+60x40",
                ),
                (
                    r#"afs_rx_channel_wait_seconds_bucket{instance="a",service="fs",le="1"}"#,
                    "0+60x40",
                ),
                (
                    r#"afs_rx_channel_wait_seconds_bucket{instance="a",service="fs",le="+Inf"}"#,
                    "0+60x40",
                ),
            ],
            30,
        ),
    },
    Alert {
        name: "AfsRetransmitsHigh",
        query: r#"sum by (instance) (rate(afs_rx_retransmits_total[5m])) / sum by (instance) (rate(afs_rx_packets_total{direction="tx",type="data"}[5m])) > 0.05"#,
        lasting: "10m",
        severity: Severity::Warning,
        summary: "More than one DATA packet of twenty is sent again",
        fires: (
            &[
                (
                    r#"afs_rx_retransmits_total{instance="a",reason="rack"}"#,
                    "0+60x40",
                ),
                (
                    r#"afs_rx_packets_total{instance="a",direction="tx",type="data"}"#,
                    "0+600x40",
                ),
            ],
            30,
        ),
        labels: &[("instance", "a")],
        quiet: (
            &[
                (
                    r#"afs_rx_retransmits_total{instance="a",reason="rack"}"#,
                    "0+6x40",
                ),
                (
                    r#"afs_rx_packets_total{instance="a",direction="tx",type="data"}"#,
                    "0+600x40",
                ),
            ],
            30,
        ),
    },
    Alert {
        name: "AfsServersDown",
        query: r#"sum by (instance, cell) (afs_servers{service="fs",state="down"}) > 0"#,
        lasting: "5m",
        severity: Severity::Warning,
        summary: "A file server of a volume in use does not answer",
        fires: (
            &[(
                r#"afs_servers{instance="a",cell="lab.example",service="fs",state="down"}"#,
                "0x5 1x30",
            )],
            20,
        ),
        labels: &[("instance", "a"), ("cell", FS)],
        quiet: (
            &[(
                r#"afs_servers{instance="a",cell="lab.example",service="fs",state="down"}"#,
                "1x3 0x30",
            )],
            20,
        ),
    },
    Alert {
        name: "AfsAllServersDown",
        query: r#"sum by (instance, cell) (afs_servers{service="fs",state="up"}) == 0 and sum by (instance, cell) (afs_servers{service="fs",state="down"}) > 0"#,
        lasting: "2m",
        severity: Severity::Critical,
        summary: "No file server of a cell answers",
        fires: (
            &[
                (
                    r#"afs_servers{instance="a",cell="lab.example",service="fs",state="down"}"#,
                    "2x30",
                ),
                (
                    r#"afs_servers{instance="a",cell="lab.example",service="fs",state="up"}"#,
                    "0x30",
                ),
            ],
            20,
        ),
        labels: &[("instance", "a"), ("cell", FS)],
        quiet: (
            &[
                (
                    r#"afs_servers{instance="a",cell="lab.example",service="fs",state="down"}"#,
                    "1x30",
                ),
                (
                    r#"afs_servers{instance="a",cell="lab.example",service="fs",state="up"}"#,
                    "1x30",
                ),
            ],
            20,
        ),
    },
    Alert {
        name: "AfsCallbacksFromStrangers",
        query: r#"sum by (instance) (rate(afs_callback_breaks_total{outcome="stranger"}[10m])) > 0"#,
        lasting: "10m",
        severity: Severity::Warning,
        summary: "Callback breaks come from an address that belongs to no server that is known",
        fires: (
            &[(
                r#"afs_callback_breaks_total{instance="a",outcome="stranger"}"#,
                "0+1x40",
            )],
            30,
        ),
        labels: &[("instance", "a")],
        quiet: (
            &[
                (
                    r#"afs_callback_breaks_total{instance="a",outcome="stranger"}"#,
                    "5x40",
                ),
                (
                    r#"afs_callback_breaks_total{instance="a",outcome="applied"}"#,
                    "0+60x40",
                ),
            ],
            30,
        ),
    },
    Alert {
        name: "AfsCallbackPathSilent",
        query: "time() - max by (instance, cell) (afs_callback_path_last_seen_timestamp_seconds) > 3600 and sum by (instance, cell) (afs_callback_servers) > 0 and on (instance) sum by (instance) (rate(afs_fuse_requests_total[15m])) > 0 and on (instance) time() - process_start_time_seconds > 3600",
        lasting: "10m",
        severity: Severity::Warning,
        summary: "Servers of a cell hold promises, and none has called for an hour: changes of others may not be seen",
        fires: (
            &[
                (
                    r#"afs_callback_path_last_seen_timestamp_seconds{instance="a",cell="lab.example"}"#,
                    "0x120",
                ),
                (
                    r#"afs_callback_servers{instance="a",cell="lab.example"}"#,
                    "1x120",
                ),
                (r#"process_start_time_seconds{instance="a"}"#, "60x120"),
                (
                    r#"afs_fuse_requests_total{instance="a",op="read",result="ok"}"#,
                    "0+10x120",
                ),
            ],
            100,
        ),
        labels: &[("instance", "a"), ("cell", FS)],
        quiet: (
            &[
                (
                    r#"afs_callback_path_last_seen_timestamp_seconds{instance="a",cell="lab.example"}"#,
                    "0+60x120",
                ),
                (
                    r#"afs_callback_servers{instance="a",cell="lab.example"}"#,
                    "1x120",
                ),
                (r#"process_start_time_seconds{instance="a"}"#, "60x120"),
                (
                    r#"afs_fuse_requests_total{instance="a",op="read",result="ok"}"#,
                    "0+10x120",
                ),
                // It has just begun.
                (
                    r#"afs_callback_path_last_seen_timestamp_seconds{instance="c",cell="lab.example"}"#,
                    "0x120",
                ),
                (
                    r#"afs_callback_servers{instance="c",cell="lab.example"}"#,
                    "1x120",
                ),
                (
                    r#"afs_fuse_requests_total{instance="c",op="read",result="ok"}"#,
                    "0+10x120",
                ),
                (r#"process_start_time_seconds{instance="c"}"#, "3000x120"),
                // No promises.
                (
                    r#"afs_callback_path_last_seen_timestamp_seconds{instance="b",cell="lab.example"}"#,
                    "0x120",
                ),
                (
                    r#"afs_callback_servers{instance="b",cell="lab.example"}"#,
                    "0x120",
                ),
                (r#"process_start_time_seconds{instance="b"}"#, "60x120"),
                (
                    r#"afs_fuse_requests_total{instance="b",op="read",result="ok"}"#,
                    "0+10x120",
                ),
            ],
            100,
        ),
    },
    Alert {
        name: "AfsErrorRatioHigh",
        query: "afs:fuse_errors:ratio5m > 0.01",
        lasting: "10m",
        severity: Severity::Critical,
        summary: "More than one request of a hundred ends in an error that no ordinary work explains",
        fires: (
            &[
                (
                    r#"afs_fuse_requests_total{instance="a",op="read",result="ok"}"#,
                    "0+100x40",
                ),
                (
                    r#"afs_fuse_requests_total{instance="a",op="read",result="ETIMEDOUT"}"#,
                    "0+5x40",
                ),
            ],
            30,
        ),
        labels: &[("instance", "a")],
        quiet: (
            &[
                (
                    r#"afs_fuse_requests_total{instance="a",op="lookup",result="ok"}"#,
                    "0+100x40",
                ),
                (
                    r#"afs_fuse_requests_total{instance="a",op="lookup",result="ENOENT"}"#,
                    "0+500x40",
                ),
            ],
            30,
        ),
    },
    Alert {
        name: "AfsDirtyDataStays",
        query: "min_over_time((sum by (instance) (afs_dirty_bytes))[15m:1m]) > 0",
        lasting: "5m",
        severity: Severity::Critical,
        summary: "Something that was written has not been stored on a server for a quarter of an hour",
        fires: (&[(r#"afs_dirty_bytes{instance="a"}"#, "4096x40")], 30),
        labels: &[("instance", "a")],
        quiet: (
            &[(
                r#"afs_dirty_bytes{instance="a"}"#,
                "4096 4096 4096 0 4096x6 0 4096x6 0 4096x6 0 4096x6 0 4096x6",
            )],
            30,
        ),
    },
    Alert {
        name: "AfsUnstoredFiles",
        query: "sum by (instance, state) (afs_unstored_files) > 0",
        lasting: "15m",
        severity: Severity::Critical,
        summary: "What was written is not in its place: it waits for a server or a token, or was set aside",
        fires: (
            &[
                (r#"afs_unstored_files{instance="a",state="waiting"}"#, "0x5 2x40"),
                (r#"afs_unstored_files{instance="a",state="set-aside"}"#, "0x45"),
            ],
            30,
        ),
        labels: &[("instance", "a"), ("state", "waiting")],
        quiet: (
            &[
                // A process that follows one that died stores it at once.
                (
                    r#"afs_unstored_files{instance="a",state="waiting"}"#,
                    "0x5 2x10 0x40",
                ),
                (r#"afs_unstored_files{instance="a",state="set-aside"}"#, "0x55"),
            ],
            30,
        ),
    },
    Alert {
        name: "AfsTokenEndsSoon",
        query: "min by (instance, cell) (afs_token_expiry_timestamp_seconds) - time() < 1800",
        lasting: "5m",
        severity: Severity::Warning,
        summary: "A token ends within half an hour and was not renewed",
        fires: (
            &[(
                r#"afs_token_expiry_timestamp_seconds{instance="a",cell="lab.example"}"#,
                "3600x60",
            )],
            50,
        ),
        labels: &[("instance", "a"), ("cell", FS)],
        quiet: (
            &[(
                r#"afs_token_expiry_timestamp_seconds{instance="a",cell="lab.example"}"#,
                "3600x25 36000x40",
            )],
            50,
        ),
    },
    Alert {
        name: "AfsTokenExpired",
        query: r#"sum by (instance, cell) (afs_tokens{state="expired"}) > 0"#,
        lasting: "5m",
        severity: Severity::Critical,
        summary: "A token has expired: its owner's work fails, or waits to be stored",
        fires: (
            &[(
                r#"afs_tokens{instance="a",cell="lab.example",state="expired"}"#,
                "1x40",
            )],
            30,
        ),
        labels: &[("instance", "a"), ("cell", FS)],
        quiet: (
            &[
                (
                    r#"afs_tokens{instance="a",cell="lab.example",state="good"}"#,
                    "3x40",
                ),
                (
                    r#"afs_tokens{instance="a",cell="lab.example",state="expired"}"#,
                    "1x3 _x40",
                ),
            ],
            30,
        ),
    },
    Alert {
        name: "AfsTokenRenewalFailing",
        query: r#"sum by (instance, cell) (increase(afs_token_renewals_total{result="failed"}[30m])) > 2"#,
        lasting: "1m",
        severity: Severity::Warning,
        summary: "A token that is renewed here is not: it will expire",
        fires: (
            &[(
                r#"afs_token_renewals_total{instance="a",cell="lab.example",result="failed"}"#,
                "0x5 1+1x40",
            )],
            30,
        ),
        labels: &[("instance", "a"), ("cell", FS)],
        quiet: (
            &[
                (
                    r#"afs_token_renewals_total{instance="a",cell="lab.example",result="failed"}"#,
                    "0x5 1x40",
                ),
                (
                    r#"afs_token_renewals_total{instance="a",cell="lab.example",result="ok"}"#,
                    "0+1x60",
                ),
            ],
            30,
        ),
    },
    Alert {
        name: "AfsStoreErrors",
        query: r"sum by (instance, errno) (increase(afs_store_errors_total[10m])) > 0",
        lasting: "0m",
        severity: Severity::Critical,
        summary: "Data could not be stored on a server",
        fires: (
            &[(
                r#"afs_store_errors_total{instance="a",errno="EDQUOT"}"#,
                "0x15 1x40",
            )],
            20,
        ),
        labels: &[("instance", "a"), ("errno", "EDQUOT")],
        quiet: (
            &[(r#"afs_store_errors_total{instance="a",errno="EDQUOT"}"#, "1x40")],
            20,
        ),
    },
    Alert {
        name: "AfsCellUnreachable",
        query: r#"sum by (instance, cell) (afs_servers{service="vl",state="up"}) == 0 and sum by (instance, cell) (afs_servers{service="vl",state="down"}) > 0"#,
        lasting: "2m",
        severity: Severity::Critical,
        summary: "No location server of a cell answers: volumes that are not in use cannot be entered",
        fires: (
            &[
                (
                    r#"afs_servers{instance="a",cell="lab.example",service="vl",state="up"}"#,
                    "1x5 0x30",
                ),
                (
                    r#"afs_servers{instance="a",cell="lab.example",service="vl",state="down"}"#,
                    "0x5 1x30",
                ),
            ],
            20,
        ),
        labels: &[("instance", "a"), ("cell", FS)],
        quiet: (
            &[
                (
                    r#"afs_servers{instance="a",cell="lab.example",service="vl",state="up"}"#,
                    "1x40",
                ),
                (
                    r#"afs_servers{instance="a",cell="lab.example",service="vl",state="down"}"#,
                    "2x40",
                ),
            ],
            20,
        ),
    },
    Alert {
        name: "AfsTelemetryDropped",
        query: r"sum by (instance, signal) (increase(afs_telemetry_dropped_total[15m])) > 0",
        lasting: "5m",
        severity: Severity::Info,
        summary: "Spans are lost: the collector does not take them, or there are too many",
        fires: (
            &[(
                r#"afs_telemetry_dropped_total{instance="a",signal="traces"}"#,
                "0+5x40",
            )],
            30,
        ),
        labels: &[("instance", "a"), ("signal", "traces")],
        quiet: (
            &[(
                r#"afs_telemetry_dropped_total{instance="a",signal="traces"}"#,
                "0+5x5 25x40",
            )],
            40,
        ),
    },
    Alert {
        name: "AfsMountOrphaned",
        query: "sum by (instance) (afs_keeper_orphaned_mounts) > 0",
        lasting: "30s",
        severity: Severity::Critical,
        summary: "No process serves a mount: programs that use it wait",
        fires: (&[(r#"afs_keeper_orphaned_mounts{instance="k"}"#, "0 0 1x10")], 5),
        labels: &[("instance", "k")],
        quiet: (&[(r#"afs_keeper_orphaned_mounts{instance="k"}"#, "0 1 0x10")], 5),
    },
    Alert {
        name: "AfsReattachLoop",
        query: r#"max by (instance) (changes(process_start_time_seconds[15m]) and on (instance) afs_fuse_attaches_total{kind="reattach"}) > 3 or sum by (instance) (increase(afs_keeper_servers_total{result="given"}[15m])) > 3"#,
        lasting: "0s",
        severity: Severity::Critical,
        summary: "The process of a mount ends again and again",
        fires: (
            &[
                (r#"afs_fuse_attaches_total{instance="a",kind="reattach"}"#, "1x20"),
                (
                    r#"process_start_time_seconds{instance="a"}"#,
                    "100x9 700 800 900 1000 1000 1000 1000 1000 1000 1000 1000",
                ),
            ],
            15,
        ),
        labels: &[("instance", "a")],
        quiet: (
            &[
                (r#"afs_fuse_attaches_total{instance="a",kind="reattach"}"#, "1x20"),
                (r#"process_start_time_seconds{instance="a"}"#, "100x9 700x20"),
                (
                    r#"afs_keeper_servers_total{instance="k",result="given"}"#,
                    "1x9 2x20",
                ),
            ],
            15,
        ),
    },
    Alert {
        name: "AfsMemoryNearLimit",
        query: "max by (instance) (process_resident_memory_bytes) / max by (instance) (afs_memory_limit_bytes > 0) > 0.9",
        lasting: "5m",
        severity: Severity::Warning,
        summary: "The process takes nearly all the memory that its control group may have",
        fires: (
            &[
                (r#"process_resident_memory_bytes{instance="a"}"#, "490000000x20"),
                (r#"afs_memory_limit_bytes{instance="a"}"#, "512000000x20"),
            ],
            10,
        ),
        labels: &[("instance", "a")],
        quiet: (
            &[
                (r#"process_resident_memory_bytes{instance="a"}"#, "490000000x20"),
                (r#"afs_memory_limit_bytes{instance="a"}"#, "0x20"),
                (r#"process_resident_memory_bytes{instance="b"}"#, "190000000x20"),
                (r#"afs_memory_limit_bytes{instance="b"}"#, "512000000x20"),
            ],
            10,
        ),
    },
    Alert {
        name: "AfsTargetMissing",
        query: r#"absent(up{job="afs"} == 1)"#,
        lasting: "5m",
        severity: Severity::Info,
        summary: "Prometheus reaches no afs process",
        fires: (&[(r#"up{job="afs",instance="a"}"#, "0x40")], 30),
        labels: &[],
        quiet: (&[(r#"up{job="afs",instance="a"}"#, "1x40")], 30),
    },
    Alert {
        name: "AfsTargetDown",
        query: r#"up{job="afs"} == 0"#,
        lasting: "2m",
        severity: Severity::Critical,
        summary: "Prometheus does not reach one of the afs processes that it is to watch",
        fires: (
            &[
                (r#"up{job="afs",instance="a"}"#, "1x5 0x40"),
                (r#"up{job="afs",instance="b"}"#, "1x45"),
            ],
            10,
        ),
        labels: &[("instance", "a"), ("job", "afs")],
        quiet: (
            &[
                // One scrape that fails is no end of it, and others are not ours.
                (r#"up{job="afs",instance="a"}"#, "1x5 0 1x40"),
                (r#"up{job="node",instance="a"}"#, "0x45"),
            ],
            10,
        ),
    },
    Alert {
        name: "AfsVersionSkew",
        query: "count(count by (version) (afs_build_info)) > 2",
        lasting: "1d",
        severity: Severity::Info,
        summary: "More than two versions have run for a day",
        fires: (
            &[
                (r#"afs_build_info{instance="a",version="0.1.0"}"#, "1x1600"),
                (r#"afs_build_info{instance="b",version="0.2.0"}"#, "1x1600"),
                (r#"afs_build_info{instance="c",version="0.3.0"}"#, "1x1600"),
            ],
            1500,
        ),
        labels: &[],
        quiet: (
            &[
                (r#"afs_build_info{instance="a",version="0.1.0"}"#, "1x1600"),
                (r#"afs_build_info{instance="b",version="0.2.0"}"#, "1x1600"),
            ],
            1500,
        ),
    },
];
