//! Overview: does it work, how fast, and if not, why not?

use super::WAITING;
use crate::grafana::Look::{Lines, Number, Stacked};
use crate::grafana::{Dashboard, Panel, Query, Row, Unit};

pub(super) const DASHBOARD: Dashboard = Dashboard {
    uid: "afs-overview",
    title: "AFS / Overview",
    description: "Mounts, what their users see, and the servers behind them.",
    rows: &[
        Row {
            title: "Now",
            panels: &[
                Panel {
                    title: "Mounts",
                    description: "Processes that answer, by version.",
                    look: Number,
                    unit: Unit::Count,
                    queries: &[Query {
                        query: r"sum by (version) (afs_build_info{@})",
                        legend: "{{version}}",
                    }],
                },
                Panel {
                    title: "Requests",
                    description: "System calls that reached the program.",
                    look: Number,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum(rate(afs_fuse_requests_total{@}[$__rate_interval]))",
                        legend: "requests",
                    }],
                },
                Panel {
                    title: "Errors",
                    description: "Share of the requests that ended in an error which no ordinary work explains.",
                    look: Number,
                    unit: Unit::Share,
                    queries: &[Query {
                        query: r#"sum(rate(afs_fuse_requests_total{@,result!~"ok|ENOENT|EEXIST|EACCES|EPERM|ENODATA|EOPNOTSUPP|EINTR|ENOTEMPTY|EROFS"}[$__rate_interval])) / sum(rate(afs_fuse_requests_total{@}[$__rate_interval])) or vector(0)"#,
                        legend: "errors",
                    }],
                },
                Panel {
                    title: "Servers up",
                    description: "File servers of the volumes in use that answer.",
                    look: Number,
                    unit: Unit::Count,
                    queries: &[Query {
                        query: r#"sum(afs_servers{@cell,service="fs",state="up"})"#,
                        legend: "up",
                    }],
                },
                Panel {
                    title: "Servers down",
                    description: "File servers of the volumes in use that do not answer.",
                    look: Number,
                    unit: Unit::Count,
                    queries: &[Query {
                        query: r#"sum(afs_servers{@cell,service="fs",state="down"})"#,
                        legend: "down",
                    }],
                },
                Panel {
                    title: "Not stored yet",
                    description: "Written here, and on no server.",
                    look: Number,
                    unit: Unit::Bytes,
                    queries: &[Query {
                        query: r"sum(afs_dirty_bytes{@})",
                        legend: "dirty",
                    }],
                },
            ],
        },
        Row {
            title: "What users see",
            panels: &[
                Panel {
                    title: "Requests, by operation",
                    description: "Those that the kernel could not answer from its own caches.",
                    look: Stacked,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (op) (rate(afs_fuse_requests_total{@}[$__rate_interval]))",
                        legend: "{{op}}",
                    }],
                },
                Panel {
                    title: "Results other than ok",
                    description: "ENOENT is ordinary: shells and compilers look where nothing is.",
                    look: Stacked,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r#"sum by (result) (rate(afs_fuse_requests_total{@,result!="ok"}[$__rate_interval]))"#,
                        legend: "{{result}}",
                    }],
                },
                Panel {
                    title: "Time to answer",
                    description: "All operations.",
                    look: Lines,
                    unit: Unit::Seconds,
                    queries: &[
                        Query {
                            query: r"histogram_quantile(0.5, sum by (le) (rate(afs_fuse_request_duration_seconds_bucket{@}[$__rate_interval])))",
                            legend: "p50",
                        },
                        Query {
                            query: r"histogram_quantile(0.95, sum by (le) (rate(afs_fuse_request_duration_seconds_bucket{@}[$__rate_interval])))",
                            legend: "p95",
                        },
                        Query {
                            query: r"histogram_quantile(0.99, sum by (le) (rate(afs_fuse_request_duration_seconds_bucket{@}[$__rate_interval])))",
                            legend: "p99",
                        },
                    ],
                },
                Panel {
                    title: "Time to answer, p99 by operation",
                    description: "Slow ones wait for servers.",
                    look: Lines,
                    unit: Unit::Seconds,
                    queries: &[Query {
                        query: r"histogram_quantile(0.99, sum by (le, op) (rate(afs_fuse_request_duration_seconds_bucket{@}[$__rate_interval])))",
                        legend: "{{op}}",
                    }],
                },
                WAITING,
                Panel {
                    title: "Data over the network",
                    description: "Packets of DATA, headers included.",
                    look: Lines,
                    unit: Unit::ByteRate,
                    queries: &[Query {
                        query: r#"sum by (direction) (rate(afs_rx_bytes_total{@,type="data"}[$__rate_interval]))"#,
                        legend: "{{direction}}",
                    }],
                },
            ],
        },
        Row {
            title: "Servers",
            panels: &[
                Panel {
                    title: "Calls, by result",
                    description: "abort: the server refused. timeout, net: it did not answer.",
                    look: Stacked,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (service, result) (rate(afs_rpc_calls_total{@cell}[$__rate_interval]))",
                        legend: "{{service}} {{result}}",
                    }],
                },
                Panel {
                    title: "Refusals, by code",
                    description: "Of servers, or of us to servers (cb).",
                    look: Stacked,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (service, code) (rate(afs_rpc_aborts_total{@}[$__rate_interval]))",
                        legend: "{{service}} {{code}}",
                    }],
                },
                Panel {
                    title: "Time of a call, p95 by procedure",
                    description: "From its first packet to the last of the reply.",
                    look: Lines,
                    unit: Unit::Seconds,
                    queries: &[Query {
                        query: r"histogram_quantile(0.95, sum by (le, service, rpc) (rate(afs_rpc_duration_seconds_bucket{@}[$__rate_interval])))",
                        legend: "{{service}} {{rpc}}",
                    }],
                },
                Panel {
                    title: "Tokens",
                    description: "By cell; expired ones hold their owner's work up.",
                    look: Stacked,
                    unit: Unit::Count,
                    queries: &[Query {
                        query: r"sum by (cell, state) (afs_tokens{@cell}) or vector(0)",
                        legend: "{{cell}} {{state}}",
                    }],
                },
                Panel {
                    title: "Servers",
                    description: "File servers (fs) of the volumes in use, and location servers (vl) of the cells.",
                    look: Stacked,
                    unit: Unit::Count,
                    queries: &[Query {
                        query: r"sum by (cell, service, state) (afs_servers{@cell})",
                        legend: "{{cell}} {{service}} {{state}}",
                    }],
                },
                Panel {
                    title: "Left alone",
                    description: "File servers that others are preferred to: failing, too many calls to them fail; nonsense, what they say makes no sense; release, they have another one.",
                    look: Stacked,
                    unit: Unit::Count,
                    queries: &[Query {
                        query: r"sum by (cell, reason) (afs_servers_avoided{@cell})",
                        legend: "{{cell}} {{reason}}",
                    }],
                },
            ],
        },
    ],
};
