//! Cache and callbacks: what is answered here, and is it still true?

use crate::grafana::Look::{Lines, Number, Stacked};
use crate::grafana::{Dashboard, Panel, Query, Row, Unit};

pub(super) const DASHBOARD: Dashboard = Dashboard {
    uid: "afs-cache",
    title: "AFS / Cache and callbacks",
    description: "What the caches answer, and the promises of the servers that make it true.",
    rows: &[
        Row {
            title: "Cache",
            panels: &[
                Panel {
                    title: "Answered from the cache",
                    description: "Share of the questions to each cache.",
                    look: Lines,
                    unit: Unit::Share,
                    queries: &[Query {
                        query: r#"sum by (cache) (rate(afs_cache_requests_total{@,outcome="hit"}[$__rate_interval])) / sum by (cache) (rate(afs_cache_requests_total{@}[$__rate_interval]))"#,
                        legend: "{{cache}}",
                    }],
                },
                Panel {
                    title: "Questions",
                    description: "To each cache, by outcome.",
                    look: Stacked,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (cache, outcome) (rate(afs_cache_requests_total{@}[$__rate_interval]))",
                        legend: "{{cache}} {{outcome}}",
                    }],
                },
                Panel {
                    title: "Room",
                    description: "What file data and directories in memory take, what they may take, and what of it no server has.",
                    look: Lines,
                    unit: Unit::Bytes,
                    queries: &[
                        Query {
                            query: r"sum by (cache) (afs_cache_size_bytes{@})",
                            legend: "{{cache}}",
                        },
                        Query {
                            query: r"sum by (cache) (afs_cache_limit_bytes{@})",
                            legend: "{{cache}} limit",
                        },
                        Query {
                            query: r"sum(afs_dirty_bytes{@})",
                            legend: "dirty",
                        },
                    ],
                },
                Panel {
                    title: "Bytes of file data",
                    description: "served_hit was read without waiting; fetched and stored went over the network; evicted made room.",
                    look: Lines,
                    unit: Unit::ByteRate,
                    queries: &[Query {
                        query: r"sum by (flow) (rate(afs_cache_bytes_total{@}[$__rate_interval]))",
                        legend: "{{flow}}",
                    }],
                },
                Panel {
                    title: "Evicted, by reason",
                    description: "room: others needed the space (--cache-size, --cache-memory); descriptors: others needed the file.",
                    look: Lines,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (reason) (rate(afs_cache_evictions_total{@}[$__rate_interval]))",
                        legend: "{{reason}}",
                    }],
                },
                Panel {
                    title: "Stores that failed",
                    description: "By error. What could not be stored is here only.",
                    look: Lines,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (errno) (rate(afs_store_errors_total{@}[$__rate_interval]))",
                        legend: "{{errno}}",
                    }],
                },
                Panel {
                    title: "Where volumes are",
                    description: "hit was known; miss, stale and negative asked a location server.",
                    look: Lines,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (outcome) (rate(afs_vldb_lookups_total{@}[$__rate_interval]))",
                        legend: "{{outcome}}",
                    }],
                },
                Panel {
                    title: "Known",
                    description: "status: files, directories and links. directory: directories in memory. volume: volumes entered.",
                    look: Lines,
                    unit: Unit::Count,
                    queries: &[Query {
                        query: r"sum by (cache) (afs_cache_entries{@})",
                        legend: "{{cache}}",
                    }],
                },
            ],
        },
        Row {
            title: "Written, and not where it belongs",
            panels: &[
                Panel {
                    title: "Left by an earlier program",
                    description: "Files. waiting: for their server, or for a token of who wrote them. set-aside: they could not be stored in their place; afs status says where they are.",
                    look: Stacked,
                    unit: Unit::Count,
                    queries: &[Query {
                        query: r"sum by (state) (afs_unstored_files{@})",
                        legend: "{{state}}",
                    }],
                },
                Panel {
                    title: "Files not stored yet",
                    description: "Of this program. close and fsync store them.",
                    look: Lines,
                    unit: Unit::Count,
                    queries: &[Query {
                        query: r"sum by (instance) (afs_dirty_files{@})",
                        legend: "{{instance}}",
                    }],
                },
                Panel {
                    title: "The oldest of them",
                    description: "For how long it has had what no server has.",
                    look: Lines,
                    unit: Unit::Seconds,
                    queries: &[Query {
                        query: r"max by (instance) ((time() - afs_oldest_dirty_timestamp_seconds{@}) * (afs_oldest_dirty_timestamp_seconds{@} > bool 0))",
                        legend: "{{instance}}",
                    }],
                },
                Panel {
                    title: "Changed by others at the same time",
                    description: "Files that were written here while somebody else wrote them. Use locks, or do not share them.",
                    look: Lines,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (instance) (rate(afs_write_conflicts_total{@}[$__rate_interval]))",
                        legend: "{{instance}}",
                    }],
                },
                Panel {
                    title: "Past the cache",
                    description: "full: its file system has no room. failed: it cannot be used otherwise. Nobody sees an error; it is slower.",
                    look: Stacked,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (reason) (rate(afs_cache_bypasses_total{@}[$__rate_interval]))",
                        legend: "{{reason}}",
                    }],
                },
                Panel {
                    title: "Damaged",
                    description: "What was in the cache directory was not as it had been written, or could not be read: it is fetched again. More than a few after a crash: look at the disk.",
                    look: Lines,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (instance) (rate(afs_cache_damaged_total{@}[$__rate_interval]))",
                        legend: "{{instance}}",
                    }],
                },
                Panel {
                    title: "Locks",
                    description: "Held by programs now, and lost: a file server has forgotten them, and others may have taken them.",
                    look: Lines,
                    unit: Unit::Count,
                    queries: &[
                        Query {
                            query: r"sum(afs_locks{@})",
                            legend: "held",
                        },
                        Query {
                            query: r"sum(increase(afs_locks_lost_total{@}[$__rate_interval]))",
                            legend: "lost",
                        },
                    ],
                },
            ],
        },
        Row {
            title: "Callbacks",
            panels: &[
                Panel {
                    title: "Since a server last called",
                    description: "While servers hold promises and the files change, this is short. If it only grows, their packets do not reach us: a firewall or NAT.",
                    look: Number,
                    unit: Unit::Seconds,
                    queries: &[Query {
                        query: r"time() - max by (cell) (afs_callback_path_last_seen_timestamp_seconds{@cell} > 0)",
                        legend: "{{cell}}",
                    }],
                },
                Panel {
                    title: "Servers that have promised",
                    description: "They call when something changes that is known here.",
                    look: Number,
                    unit: Unit::Count,
                    queries: &[Query {
                        query: r"sum(afs_callback_servers{@cell})",
                        legend: "servers",
                    }],
                },
                Panel {
                    title: "Promises",
                    description: "Of file servers, on objects that are known. expiring: asked for anew when somebody looks after that.",
                    look: Stacked,
                    unit: Unit::Count,
                    queries: &[Query {
                        query: r"sum by (state) (afs_callbacks{@})",
                        legend: "{{state}}",
                    }],
                },
                Panel {
                    title: "Promises given back",
                    description: "Of objects that have left the cache; fifty to a call.",
                    look: Lines,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (result) (rate(afs_callback_giveups_total{@}[$__rate_interval]))",
                        legend: "{{result}}",
                    }],
                },
                Panel {
                    title: "Breaks, by what became of them",
                    description: "applied: a promise ended. unknown: of a file that is not known here. stranger: of no server that is known; it is applied all the same.",
                    look: Stacked,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (outcome) (rate(afs_callback_breaks_total{@}[$__rate_interval]))",
                        legend: "{{outcome}}",
                    }],
                },
                Panel {
                    title: "Breaks received",
                    description: "One for each object named.",
                    look: Lines,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (scope) (rate(afs_callback_breaks_received_total{@}[$__rate_interval]))",
                        legend: "{{scope}}",
                    }],
                },
                Panel {
                    title: "What servers ask of us",
                    description: "Any of it proves that the way back is open.",
                    look: Stacked,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (rpc) (rate(afs_callback_requests_total{@}[$__rate_interval]))",
                        legend: "{{rpc}}",
                    }],
                },
                Panel {
                    title: "Until the kernel knows, p99",
                    description: "From a break to the kernel having forgotten what it kept.",
                    look: Lines,
                    unit: Unit::Seconds,
                    queries: &[Query {
                        query: r"histogram_quantile(0.99, sum by (le) (rate(afs_callback_apply_seconds_bucket{@}[$__rate_interval])))",
                        legend: "p99",
                    }],
                },
                Panel {
                    title: "Packets that keep the way open",
                    description: "Through NATs, to servers that hold promises.",
                    look: Lines,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (instance) (rate(afs_rx_keep_alives_total{@}[$__rate_interval]))",
                        legend: "{{instance}}",
                    }],
                },
            ],
        },
    ],
};
