//! Connections: are they reused, how long do they live, what do they cost?

use crate::grafana::Look::{Heatmap, Lines, Number, Stacked};
use crate::grafana::{Dashboard, Panel, Query, Row, Unit};

pub(super) const DASHBOARD: Dashboard = Dashboard {
    uid: "afs-connections",
    title: "AFS / Connections",
    description: "RxRPC connections: whether calls find one that lives, how long they live, and what the network does.",
    rows: &[
        Row {
            title: "Reuse",
            panels: &[
                Panel {
                    title: "Reuse",
                    description: "Share of the calls that found a connection which lived. Near 1 is good: each new connection costs a handshake.",
                    look: Number,
                    unit: Unit::Share,
                    queries: &[Query {
                        query: r#"sum(rate(afs_rx_connection_acquires_total{@cell,outcome=~"reused|revived"}[$__rate_interval])) / sum(rate(afs_rx_connection_acquires_total{@cell}[$__rate_interval]))"#,
                        legend: "reuse",
                    }],
                },
                Panel {
                    title: "Refused while dying",
                    description: "Times that the connection in the tree was being torn down and a new one took its place in the same turn. Nothing is lost by it; many mean that the expiry is about as long as the pauses between calls.",
                    look: Number,
                    unit: Unit::Count,
                    queries: &[Query {
                        query: r#"sum(increase(afs_rx_connection_acquires_total{@cell,outcome="refused_dying"}[$__range])) or vector(0)"#,
                        legend: "refused",
                    }],
                },
                Panel {
                    title: "Back to life",
                    description: "Times that the reaper's compare-and-swap failed because somebody had taken the connection in the meantime.",
                    look: Number,
                    unit: Unit::Count,
                    queries: &[Query {
                        query: r"sum(increase(afs_rx_reaps_lost_total{@}[$__range]))",
                        legend: "lost reaps",
                    }],
                },
                Panel {
                    title: "Packets dropped",
                    description: "Received packets thrown away, whatever the reason. By a dying connection none ever is.",
                    look: Number,
                    unit: Unit::Count,
                    queries: &[Query {
                        query: r"sum(increase(afs_rx_dropped_packets_total{@}[$__range]))",
                        legend: "dropped",
                    }],
                },
                Panel {
                    title: "Reuse by service",
                    description: "fs: file servers, vl: location servers, cb: file servers that call us back.",
                    look: Lines,
                    unit: Unit::Share,
                    queries: &[Query {
                        query: r#"sum by (cell, service) (rate(afs_rx_connection_acquires_total{@cell,outcome=~"reused|revived"}[$__rate_interval])) / sum by (cell, service) (rate(afs_rx_connection_acquires_total{@cell}[$__rate_interval]))"#,
                        legend: "{{cell}} {{service}}",
                    }],
                },
                Panel {
                    title: "What calls got",
                    description: "One for each call: created, reused (in use, had room), revived (idle, taken back), replaced (could carry no more), refused_dying.",
                    look: Stacked,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (outcome) (rate(afs_rx_connection_acquires_total{@cell}[$__rate_interval]))",
                        legend: "{{outcome}}",
                    }],
                },
                Panel {
                    title: "By security class",
                    description: "none is anonymous.",
                    look: Stacked,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (security) (rate(afs_rx_connection_acquires_total{@cell}[$__rate_interval]))",
                        legend: "{{security}}",
                    }],
                },
            ],
        },
        Row {
            title: "Life",
            panels: &[
                Panel {
                    title: "Live now",
                    description: "idle ones wait on the list of the cache, with a reference of the list alone.",
                    look: Stacked,
                    unit: Unit::Count,
                    queries: &[Query {
                        query: r"sum by (service, state) (afs_rx_connections{@cell})",
                        legend: "{{service}} {{state}}",
                    }],
                },
                Panel {
                    title: "Opened and closed",
                    description: "In the long run they are equal.",
                    look: Lines,
                    unit: Unit::Rate,
                    queries: &[
                        Query {
                            query: r#"sum(rate(afs_rx_connection_acquires_total{@cell,outcome=~"created|replaced|refused_dying"}[$__rate_interval]))"#,
                            legend: "opened",
                        },
                        Query {
                            query: r"sum(rate(afs_rx_connections_closed_total{@cell}[$__rate_interval]))",
                            legend: "closed",
                        },
                    ],
                },
                Panel {
                    title: "Closed, by reason",
                    description: "idle_reaped is the ordinary end.",
                    look: Stacked,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (reason) (rate(afs_rx_connections_closed_total{@cell}[$__rate_interval]))",
                        legend: "{{reason}}",
                    }],
                },
                Panel {
                    title: "Calls that a connection carried",
                    description: "Counted when it ends: the honest figure of reuse.",
                    look: Lines,
                    unit: Unit::Count,
                    queries: &[
                        Query {
                            query: r"histogram_quantile(0.5, sum by (le, service) (rate(afs_rx_connection_calls_bucket{@}[$__rate_interval])))",
                            legend: "{{service}} p50",
                        },
                        Query {
                            query: r"histogram_quantile(0.95, sum by (le, service) (rate(afs_rx_connection_calls_bucket{@}[$__rate_interval])))",
                            legend: "{{service}} p95",
                        },
                    ],
                },
                Panel {
                    title: "How long they lived",
                    description: "Counted when they end.",
                    look: Heatmap,
                    unit: Unit::Seconds,
                    queries: &[Query {
                        query: r"sum by (le) (increase(afs_rx_connection_lifetime_seconds_bucket{@}[$__rate_interval]))",
                        legend: "{{le}}",
                    }],
                },
                Panel {
                    title: "Wait for a channel, p99",
                    description: "A connection carries four calls at a time, and there are four to each service: calls beyond that wait.",
                    look: Lines,
                    unit: Unit::Seconds,
                    queries: &[Query {
                        query: r"histogram_quantile(0.99, sum by (le, service) (rate(afs_rx_channel_wait_seconds_bucket{@}[$__rate_interval])))",
                        legend: "{{service}}",
                    }],
                },
            ],
        },
        Row {
            title: "Network",
            panels: &[
                Panel {
                    title: "Sent again",
                    description: "Share of the DATA packets. Some of a per mille is usual on a wide network.",
                    look: Lines,
                    unit: Unit::Share,
                    queries: &[Query {
                        query: r#"sum by (instance) (rate(afs_rx_retransmits_total{@}[$__rate_interval])) / sum by (instance) (rate(afs_rx_packets_total{@,direction="tx",type="data"}[$__rate_interval]))"#,
                        legend: "{{instance}}",
                    }],
                },
                Panel {
                    title: "Sent again, by cause",
                    description: "rack: overtaken by others. tlp: to have the end acknowledged. rto: nothing was heard for too long, which hurts.",
                    look: Stacked,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (reason) (rate(afs_rx_retransmits_total{@}[$__rate_interval]))",
                        legend: "{{reason}}",
                    }],
                },
                Panel {
                    title: "Calls made once more",
                    description: "By what had become of the first try; failovers went to another address. A replica that is left alone made no sense, or has another release.",
                    look: Lines,
                    unit: Unit::Rate,
                    queries: &[
                        Query {
                            query: r"sum by (reason) (rate(afs_rpc_retries_total{@}[$__rate_interval]))",
                            legend: "{{reason}}",
                        },
                        Query {
                            query: r"sum(rate(afs_failovers_total{@}[$__rate_interval]))",
                            legend: "to another address",
                        },
                        Query {
                            query: r"sum by (reason) (rate(afs_replicas_left_alone_total{@}[$__rate_interval]))",
                            legend: "a replica left alone: {{reason}}",
                        },
                    ],
                },
                Panel {
                    title: "Under way",
                    description: "Calls that were made and not answered yet, and calls that wait for a channel.",
                    look: Lines,
                    unit: Unit::Count,
                    queries: &[
                        Query {
                            query: r"sum by (service) (afs_rpc_in_flight{@})",
                            legend: "{{service}}",
                        },
                        Query {
                            query: r"sum(afs_rx_calls_waiting{@})",
                            legend: "waiting",
                        },
                    ],
                },
                Panel {
                    title: "Round trips",
                    description: "As measured by packets that were sent once and answered.",
                    look: Heatmap,
                    unit: Unit::Seconds,
                    queries: &[Query {
                        query: r"sum by (le) (increase(afs_rx_rtt_seconds_bucket{@}[$__rate_interval]))",
                        legend: "{{le}}",
                    }],
                },
                Panel {
                    title: "Handshakes",
                    description: "client: challenges of servers that we answered; service: ours. Failed ones have ended the connection.",
                    look: Lines,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (side, result) (rate(afs_rx_security_handshakes_total{@}[$__rate_interval]))",
                        legend: "{{side}} {{result}}",
                    }],
                },
                Panel {
                    title: "Waiting that reuse has saved",
                    description: "Calls that got a connection that was there, times the mean time of a handshake: seconds in each second.",
                    look: Lines,
                    unit: Unit::Seconds,
                    queries: &[Query {
                        query: r#"sum(rate(afs_rx_connection_acquires_total{@cell,security="rxkad",outcome=~"reused|revived"}[$__rate_interval])) * (sum(rate(afs_rx_security_handshake_seconds_sum{@}[$__range])) / (sum(rate(afs_rx_security_handshake_seconds_count{@}[$__range])) > 0)) or vector(0)"#,
                        legend: "saved",
                    }],
                },
                Panel {
                    title: "Windows",
                    description: "Packets that might be under way at the end of a call. Ten is where calls begin; losses keep it low.",
                    look: Heatmap,
                    unit: Unit::Count,
                    queries: &[Query {
                        query: r"sum by (le) (increase(afs_rx_cwnd_packets_bucket{@}[$__rate_interval]))",
                        legend: "{{le}}",
                    }],
                },
                Panel {
                    title: "Hosts",
                    description: "Those with connections, and those whose way back to us is kept open.",
                    look: Lines,
                    unit: Unit::Count,
                    queries: &[Query {
                        query: r"sum by (state) (afs_rx_peers{@})",
                        legend: "{{state}}",
                    }],
                },
                Panel {
                    title: "Size of datagrams changed",
                    description: "search: a larger one was proved to arrive. black_hole: large ones had vanished without a word, so smaller ones are sent.",
                    look: Stacked,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (reason) (rate(afs_rx_path_changes_total{@}[$__rate_interval]))",
                        legend: "{{reason}}",
                    }],
                },
                Panel {
                    title: "Asked for a newer service",
                    description: "upgraded: the server has it. kept: it has not, and goes on with the old one.",
                    look: Stacked,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (service, outcome) (rate(afs_rx_service_upgrades_total{@}[$__rate_interval]))",
                        legend: "{{service}} {{outcome}}",
                    }],
                },
                Panel {
                    title: "Dropped, by reason",
                    description: "What each means is in docs/hardening.md.",
                    look: Stacked,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (reason) (rate(afs_rx_dropped_packets_total{@}[$__rate_interval]))",
                        legend: "{{reason}}",
                    }],
                },
                Panel {
                    title: "ACKs",
                    description: "out_of_sequence and duplicate say that packets were lost or late; no_space and exceeds_window that somebody sends too much.",
                    look: Stacked,
                    unit: Unit::Rate,
                    queries: &[Query {
                        query: r"sum by (direction, reason) (rate(afs_rx_acks_total{@}[$__rate_interval]))",
                        legend: "{{direction}} {{reason}}",
                    }],
                },
            ],
        },
    ],
};
