//! Node and FUSE: what the program costs, and how full it is.

use super::WAITING;
use crate::grafana::Look::{Heatmap, Lines, Stacked};
use crate::grafana::{Dashboard, Panel, Query, Row, Unit};

pub(super) const DASHBOARD: Dashboard = Dashboard {
    uid: "afs-node",
    title: "AFS / Node and FUSE",
    description: "The process and its connection to the kernel.",
    rows: &[
        Row {
            title: "FUSE",
            panels: &[
                Panel {
                    title: "Time to answer",
                    description: "All operations.",
                    look: Heatmap,
                    unit: Unit::Seconds,
                    queries: &[Query {
                        query: r"sum by (le) (increase(afs_fuse_request_duration_seconds_bucket{@}[$__rate_interval]))",
                        legend: "{{le}}",
                    }],
                },
                WAITING,
                Panel {
                    title: "Objects that the kernel knows",
                    description: "Each keeps a node number and its vnode.",
                    look: Lines,
                    unit: Unit::Count,
                    queries: &[Query {
                        query: r"sum by (instance) (afs_fuse_inodes{@})",
                        legend: "{{instance}}",
                    }],
                },
                Panel {
                    title: "Notices to the kernel",
                    description: "To forget an object or a name. error: it had forgotten already, which is as good.",
                    look: Stacked,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (kind, result) (rate(afs_fuse_invalidations_total{@}[$__rate_interval]))",
                        legend: "{{kind}} {{result}}",
                    }],
                },
            ],
        },
        Row {
            title: "Process",
            panels: &[
                Panel {
                    title: "Processor",
                    description: "Cores in use.",
                    look: Lines,
                    unit: Unit::Cores,
                    queries: &[Query {
                        query: r"sum by (instance) (rate(process_cpu_seconds_total{@}[$__rate_interval]))",
                        legend: "{{instance}}",
                    }],
                },
                Panel {
                    title: "Memory",
                    description: "Resident.",
                    look: Lines,
                    unit: Unit::Bytes,
                    queries: &[Query {
                        query: r"sum by (instance) (process_resident_memory_bytes{@})",
                        legend: "{{instance}}",
                    }],
                },
                Panel {
                    title: "Descriptors",
                    description: "Open, as a share of the limit.",
                    look: Lines,
                    unit: Unit::Share,
                    queries: &[Query {
                        query: r"sum by (instance) (process_open_fds{@}) / sum by (instance) (process_max_fds{@})",
                        legend: "{{instance}}",
                    }],
                },
                Panel {
                    title: "Threads",
                    description: "Of the process.",
                    look: Lines,
                    unit: Unit::Count,
                    queries: &[Query {
                        query: r"sum by (instance) (process_threads{@})",
                        legend: "{{instance}}",
                    }],
                },
                Panel {
                    title: "Up for",
                    description: "A fall is a restart.",
                    look: Lines,
                    unit: Unit::Seconds,
                    queries: &[Query {
                        query: r"time() - process_start_time_seconds{@}",
                        legend: "{{instance}}",
                    }],
                },
                Panel {
                    title: "Given back by the network",
                    description: "ICMP errors for what we sent.",
                    look: Stacked,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (reason) (rate(afs_rx_network_errors_total{@}[$__rate_interval])) or vector(0)",
                        legend: "{{reason}}",
                    }],
                },
            ],
        },
    ],
};
