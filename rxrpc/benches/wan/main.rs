//! What calls carry over wide networks, in virtual time: the protocol machine on an emulated link, from seeds.
//!
//! One call is measured against `min(255, sqrt(3/2) / sqrt(p)) / RTT` packets a second, or the rate of the link if that
//! is less: the window that an ACK can advertise, or what a sender that halves its window at a loss reaches on a
//! path that loses a share `p` of the packets (Mathis, Semke, Mahdavi and Ott, 1997), whichever is the limit. Many calls
//! are measured against the rate of a bottleneck that they share, whose queue drops what it has no room for. Each line must
//! reach the share that is wanted of it, else the exit status is 1. (The constant is that of losses at even distances;
//! those of the emulated link come by chance, which is worth a few percent more.)

#![allow(missing_docs, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod link;
mod transfer;

use std::process::ExitCode;
use std::time::Duration;

use link::Link;
use transfer::Way;

/// One line of the first table.
struct Path {
    name: &'static str,
    round_trip_us: u64,
    loss_ppm: u64,
    late_ppm: u64,
    seconds: u64,
}

/// One line of the second table.
struct Bottleneck {
    name: &'static str,
    calls: usize,
    round_trip_ms: u64,
    /// Of the bandwidth-delay product.
    queue_percent: u64,
    wanted: f64,
}

fn main() -> ExitCode {
    let mut met = true;
    println!("one call                  way    MB/s  of formula  wanted  sent again  of it needless");
    for path in PATHS {
        for (way, name) in [(Way::Fetch, "fetch"), (Way::Store, "store")] {
            met &= single(&path, way, name);
        }
    }
    println!();
    println!(
        "100 Mbit/s                way    MB/s  of link     wanted  fairness  sent again  of it needless"
    );
    for bottleneck in BOTTLENECKS {
        for (way, name) in [(Way::Fetch, "fetch"), (Way::Store, "store")] {
            met &= shared(&bottleneck, way, name);
        }
    }
    if met {
        ExitCode::SUCCESS
    } else {
        println!("\na share is less than wanted");
        ExitCode::FAILURE
    }
}

fn single(path: &Path, way: Way, name: &str) -> bool {
    let link = Link {
        round_trip: Duration::from_micros(path.round_trip_us),
        loss_ppm: path.loss_ppm,
        late_ppm: path.late_ppm,
        bits_per_second: 1_000_000_000,
        queue_bytes: 1 << 20,
    };
    let until = Duration::from_secs(path.seconds);
    let report = transfer::run(link, way, 1, SEED, Duration::ZERO, until);
    let delivered = report.delivered.iter().sum::<u64>() as f64 / until.as_secs_f64();
    let window = (1.5 / (path.loss_ppm as f64 / 1e6)).sqrt().min(255.0);
    let formula = (window / link.round_trip.as_secs_f64() * PAYLOAD as f64)
        .min(link.payload_per_second(PAYLOAD, DATAGRAM));
    let share = delivered / formula;
    println!(
        "{:24}  {name}  {:6.2}  {share:10.3}  {SHARE_OF_FORMULA:6}  {:8.3} %  {:12.1} %",
        path.name,
        delivered / 1e6,
        percent(report.resent, report.data),
        percent(report.spurious, report.resent),
    );
    share >= SHARE_OF_FORMULA
}

fn shared(bottleneck: &Bottleneck, way: Way, name: &str) -> bool {
    let bits_per_second = 100_000_000;
    let product = bits_per_second / 8 * bottleneck.round_trip_ms / 1000;
    let link = Link {
        round_trip: Duration::from_millis(bottleneck.round_trip_ms),
        loss_ppm: 0,
        late_ppm: 0,
        bits_per_second,
        queue_bytes: product * bottleneck.queue_percent / 100,
    };
    let (from, until) = (Duration::from_secs(5), Duration::from_secs(65));
    let report = transfer::run(link, way, bottleneck.calls, SEED, from, until);
    let rates: Vec<f64> = report.delivered.iter().map(|bytes| *bytes as f64).collect();
    let delivered = rates.iter().sum::<f64>() / (until - from).as_secs_f64();
    let share = delivered / link.payload_per_second(PAYLOAD, DATAGRAM);
    // Jain's index: 1 if all have the same, one divided by their number if one has everything.
    let squares = rates.iter().map(|rate| rate * rate).sum::<f64>();
    let fairness = rates.iter().sum::<f64>().powi(2) / (squares * rates.len() as f64);
    println!(
        "{:24}  {name}  {:6.2}  {share:7.3}     {:6}  {fairness:8.3}  {:8.3} %  {:12.1} %",
        bottleneck.name,
        delivered / 1e6,
        bottleneck.wanted,
        percent(report.resent, report.data),
        percent(report.spurious, report.resent),
    );
    share >= bottleneck.wanted
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

const PATHS: [Path; 4] = [
    Path {
        name: "20 ms, 0.1 % lost",
        round_trip_us: 20_000,
        loss_ppm: 1_000,
        late_ppm: 0,
        seconds: 300,
    },
    Path {
        name: "100 ms, 1 % lost",
        round_trip_us: 100_000,
        loss_ppm: 10_000,
        late_ppm: 0,
        seconds: 1_800,
    },
    Path {
        name: "20 ms, 0.1 %, 2 % late",
        round_trip_us: 20_000,
        loss_ppm: 1_000,
        late_ppm: 20_000,
        seconds: 300,
    },
    Path {
        name: "0.2 ms, 1 Gbit/s",
        round_trip_us: 200,
        loss_ppm: 0,
        late_ppm: 0,
        seconds: 5,
    },
];
const SHARE_OF_FORMULA: f64 = 0.8;
const BOTTLENECKS: [Bottleneck; 3] = [
    Bottleneck {
        name: "16 calls, 40 ms, 1 BDP",
        calls: 16,
        round_trip_ms: 40,
        queue_percent: 100,
        wanted: 0.9,
    },
    Bottleneck {
        name: "16 calls, 20 ms, 1/8 BDP",
        calls: 16,
        round_trip_ms: 20,
        queue_percent: 12,
        wanted: 0.9,
    },
    // A window that is halved at full queue and grows by one leaves gaps: about 0.8 of the link, if it is sent evenly.
    Bottleneck {
        name: "1 call, 20 ms, 1/8 BDP",
        calls: 1,
        round_trip_ms: 20,
        queue_percent: 12,
        wanted: 0.75,
    },
];
const SEED: u64 = 3;
/// Of a full packet.
const PAYLOAD: u64 = 1416;
const DATAGRAM: u64 = 1444;
