//! What is counted, and how it is exposed.

use std::net::{Ipv4Addr, SocketAddrV4};

use afs_client::events::{Eviction, Flow, GivenUp, Kind, Located, Misfit, Retry, Scope};
use afs_client::fs::{
    CacheState, CountState, DirectoriesState, LeftAloneState, ServerState, State, UnstoredState,
};
use afs_client::server::ServerId;
use rxrpc::events::{Acquire, CallResult, CloseReason, Event, Sink};
use rxrpc::proto::{AbortCode, AckReason, Malformed, PacketType, Proof, SecurityIndex, ServiceId, Side};

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
            window: Some(10),
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
    for (given, millis) in [(true, 20), (false, 4000)] {
        metrics.event(&Event::Secured {
            side: Side::Client,
            security: SecurityIndex(2),
            proof: Proof {
                given,
                took: Duration::from_millis(millis),
            },
        });
    }
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
        (r#"afs_rx_cwnd_packets_sum{service="fs"}"#, 40.0),
        (
            r#"afs_rx_security_handshakes_total{result="failed",security="rxkad",side="client"}"#,
            1.0,
        ),
        (r#"afs_rx_security_handshake_seconds_sum{side="client"}"#, 4.02),
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
    let other =
        r#"afs_rx_connection_acquires_total{cell="other",outcome="created",security="none",service="vl"}"#;
    assert_eq!(value(&text, other), Some(24.0), "{text}");
}

/// Everything that a mount with four cells can count, at once.
#[test]
fn a_loaded_mount_keeps_to_its_budget() {
    use afs_client::rpc::{cb, fs, pt, vl};
    let metrics = Metrics::new().unwrap();
    type Served = (Side, u16, &'static [(u32, &'static str)]);
    let services: [Served; 4] = [
        (Side::Client, 1, fs::PROCEDURES),
        (Side::Client, 52, vl::PROCEDURES),
        (Side::Client, 73, pt::PROCEDURES),
        (Side::Service, 1, cb::PROCEDURES),
    ];
    for cell in CELLS {
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
                        window: Some(10),
                    });
                }
            }
            for given in [true, false] {
                metrics.event(&Event::Secured {
                    side,
                    security: SecurityIndex(2),
                    proof: Proof {
                        given,
                        took: Duration::from_millis(20),
                    },
                });
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
    for sent in [true, false] {
        for number in 0..=u8::MAX {
            if let Some(packet_type) = PacketType::from_number(number) {
                metrics.event(&Event::Packet {
                    sent,
                    packet_type,
                    packets: 1,
                    bytes: 60,
                });
            }
            metrics.event(&Event::Acks {
                sent,
                reason: AckReason::from_number(number),
                packets: 1,
            });
        }
    }
    metrics.show(&loaded());
    metrics.show_counts(&loaded().counts);
    for cell in CELLS {
        let families = &metrics.families;
        families.callback_path_last_seen.with_label_values(&[cell]);
        for state in ["active", "idle"] {
            for service in ["fs", "vl", "pr", "cb"] {
                families.connections.with_label_values(&[cell, service, state]);
            }
        }
        for state in ["valid", "expired"] {
            families.tokens.with_label_values(&[cell, "rxkad", state]);
        }
        families.token_expiry.with_label_values(&[cell, "rxkad"]);
        for result in ["ok", "failed"] {
            families.token_renewals.with_label_values(&[cell, result]);
        }
    }
    let text = metrics.render().unwrap();
    for family in [
        "afs_servers",
        "afs_servers_avoided",
        "afs_rx_acks_total",
        "afs_unstored_files",
    ] {
        assert!(text.contains(&format!("{family}{{")), "{family}");
    }
    assert!(series(&text) < LOADED, "{} series", series(&text));
}

/// A file system with servers in each cell, of which some are down and some left alone, that has counted all there is to count.
fn loaded() -> State {
    let server = |cell: &str, misfit| ServerState {
        cell: cell.into(),
        id: ServerId::Address(Ipv4Addr::LOCALHOST),
        peer: None,
        addresses: Vec::new(),
        up: misfit != Misfit::Nonsense,
        down_for: None,
        rtt: None,
        promised: true,
        failing: 0.5,
        fails_often: true,
        left_alone: Some(LeftAloneState {
            volume: String::new(),
            misfit,
            why: "".into(),
            left: Duration::ZERO,
        }),
    };
    let servers = CELLS
        .iter()
        .flat_map(|cell| Misfit::ALL.iter().map(move |misfit| server(cell, *misfit)));
    let location_servers = CELLS
        .iter()
        .flat_map(|cell| [true, false].map(|up| ((*cell).into(), up)));
    State {
        servers: servers.collect(),
        location_servers: location_servers.collect(),
        volumes: 100,
        vnodes: 50_000,
        directories: DirectoriesState {
            count: 100,
            bytes: 1 << 20,
            limit: 1 << 27,
        },
        cache: CacheState {
            used: 1 << 30,
            limit: 1 << 30,
            dirty: 1 << 20,
            dirty_files: 3,
            dirty_for: Some(Duration::from_secs(3)),
            bypassed: [1, 1],
            damaged: 1,
        },
        counts: CountState {
            retries: each::<Retry>(),
            failovers: each::<Retry>(),
            misfits: each::<Misfit>(),
            lookups: each::<Located>(),
            breaks: each::<Scope>(),
            given_up: each::<GivenUp>(),
            flows: each::<Flow>(),
            evictions: each::<Eviction>(),
            store_errors: (1..=133).map(|errno| (errno, 1)).collect(),
        },
        unstored: UnstoredState {
            waiting: 1,
            set_aside: 1,
            conflicts: 1,
        },
    }
}

/// One of each kind.
fn each<K: Kind>() -> Vec<(&'static str, u64)> {
    K::ALL.iter().map(|kind| (kind.name(), 1)).collect()
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

const CELLS: [&str; 4] = ["a.example", "b.example", "c.example", "d.example"];
const IDLE: usize = 1500;
const LOADED: usize = 3000;
