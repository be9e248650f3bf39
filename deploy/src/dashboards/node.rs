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
                    title: "Files opened",
                    description: "By who reads their data: served, this program; lent, the kernel by itself, which no other figure here shows; stale, nobody, it was told to look again.",
                    look: Stacked,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (kind) (rate(afs_fuse_opens_total{@}[$__rate_interval]))",
                        legend: "{{kind}}",
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
            title: "Taking over",
            panels: &[
                Panel {
                    title: "Mounts that a keeper holds",
                    description: "orphaned: no process serves them, programs wait.",
                    look: Lines,
                    unit: Unit::Count,
                    queries: &[
                        Query {
                            query: r"sum(afs_keeper_mounts{@})",
                            legend: "held",
                        },
                        Query {
                            query: r"sum(afs_keeper_orphaned_mounts{@})",
                            legend: "orphaned",
                        },
                    ],
                },
                Panel {
                    title: "Without a process",
                    description: "How long mounts were.",
                    look: Heatmap,
                    unit: Unit::Seconds,
                    queries: &[Query {
                        query: r"sum by (le) (increase(afs_keeper_orphan_seconds_bucket{@}[$__rate_interval]))",
                        legend: "{{le}}",
                    }],
                },
                Panel {
                    title: "Processes that came, mounts given up",
                    description: "given: they serve now. hopeless: they could not go on with the mount.",
                    look: Lines,
                    unit: Unit::Rate,
                    queries: &[
                        Query {
                            query: r"sum by (result) (rate(afs_keeper_servers_total{@}[$__rate_interval]))",
                            legend: "{{result}}",
                        },
                        Query {
                            query: r"sum(rate(afs_keeper_aborts_total{@}[$__rate_interval]))",
                            legend: "given up",
                        },
                    ],
                },
                Panel {
                    title: "Sent again by the kernel",
                    description: "After a process has died. failed: it could not be known whether a change had been made.",
                    look: Stacked,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (outcome) (rate(afs_fuse_resent_requests_total{@}[$__rate_interval]))",
                        legend: "{{outcome}}",
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
                    description: "Resident; address space, most of which is no memory; and what the control group may take, 0: it has no limit.",
                    look: Lines,
                    unit: Unit::Bytes,
                    queries: &[
                        Query {
                            query: r"sum by (instance) (process_resident_memory_bytes{@})",
                            legend: "{{instance}}",
                        },
                        Query {
                            query: r"sum by (instance) (process_virtual_memory_bytes{@})",
                            legend: "{{instance}} address space",
                        },
                        Query {
                            query: r"max(afs_memory_limit_bytes{@})",
                            legend: "limit",
                        },
                    ],
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
                    title: "No room in the socket",
                    description: "Datagrams that Linux threw away because we did not take them in time, or net.core.rmem_max is small.",
                    look: Lines,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (instance) (rate(afs_rx_socket_drops_total{@}[$__rate_interval]))",
                        legend: "{{instance}}",
                    }],
                },
                Panel {
                    title: "Given back by the network",
                    description: "ICMP errors for what we sent.",
                    look: Stacked,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (reason) (rate(afs_rx_network_errors_total{@}[$__rate_interval]))",
                        legend: "{{reason}}",
                    }],
                },
            ],
        },
    ],
};
