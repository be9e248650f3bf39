//! Small calls to the servers of the embedded cell and to those of OpenAFS, from the same client in turns of one run.
//!
//! The machine: each caller has a directory of its own and calls without pause; the rounds go through the candidates in
//! another order each time, and the median of the rounds counts. `changes` makes and removes files, `status` asks for the
//! status of one. Beside the rate stands what both ends have worked for a call, and what raw UDP makes of the same
//! exchange, one at a time: no server can answer more often than that. Needs root.

#![allow(
    missing_docs,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::unwrap_used
)]

#[path = "../tests/common/peer.rs"]
#[allow(
    dead_code,
    clippy::unwrap_used,
    reason = "written for tests, which ask it for more"
)]
mod peer;
#[path = "common/work.rs"]
mod work;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use afs_client::rpc::Procedure;
use afs_client::rpc::client::{RpcError, call};
use afs_client::rpc::fs::{CreateFile, FetchStatusOf, MakeDir, RemoveFile};
use afs_client::rpc::types::AfsFid;
use afs_client::rpc::vl::GetEntryByName;
use anyhow::{Context, Result};
use rxrpc::events::NullSink;
use rxrpc::net::{Endpoint, Target};
use rxrpc::proto::{AbortCode, ServiceId};
use testcell::{Cell, embedded};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use self::peer::Peer;
use self::work::{TICK, conclude, median, they_worked, we_worked};

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mix {
    Status,
    Changes,
}

/// A server with directories, one for each caller.
struct Stand {
    peer: Peer,
    folders: Vec<AfsFid>,
}

impl Stand {
    async fn new(bind: Ipv4Addr, server: SocketAddrV4, volume: u32) -> Self {
        let peer = Peer::at(SocketAddrV4::new(bind, 0), server, 2, Arc::new(NullSink)).await;
        let mut folders = Vec::new();
        for number in 0..CALLERS {
            let make = MakeDir {
                dir: AfsFid {
                    volume,
                    vnode: 1,
                    unique: 1,
                },
                name: format!("calls-{number}").as_bytes().into(),
                ..MakeDir::default()
            };
            folders.push(peer.call(make).await.unwrap().fid);
        }
        Self { peer, folders }
    }

    /// Calls for a while, with so many callers at once; gives the calls a second.
    async fn run(&self, mix: Mix, callers: usize) -> f64 {
        let from = Instant::now();
        let mut all = JoinSet::new();
        for (number, folder) in self.folders.iter().copied().enumerate().take(callers) {
            let endpoint = self.peer.endpoint.clone();
            // As many connections as it takes for each to have a channel.
            let target = Target {
                scope: Arc::from(format!("calls-{}", number / CHANNELS)),
                ..self.peer.target()
            };
            all.spawn(async move {
                let mut count = 0_u32;
                while from.elapsed() < LENGTH {
                    let name = format!("file-{count}");
                    let name = name.as_bytes();
                    match mix {
                        Mix::Status => {
                            patiently(&endpoint, &target, &FetchStatusOf { fid: folder }).await;
                            count += 1;
                        }
                        Mix::Changes => {
                            let create = CreateFile {
                                dir: folder,
                                name: name.into(),
                                ..CreateFile::default()
                            };
                            patiently(&endpoint, &target, &create).await;
                            let remove = RemoveFile {
                                dir: folder,
                                name: name.into(),
                            };
                            patiently(&endpoint, &target, &remove).await;
                            count += 2;
                        }
                    }
                }
                count
            });
        }
        let count: u32 = all.join_all().await.into_iter().sum();
        f64::from(count) / from.elapsed().as_secs_f64()
    }
}

/// Calls until the server is not too busy, as OpenAFS's is with a few callers.
async fn patiently<P: Procedure>(endpoint: &Endpoint, target: &Target, request: &P) {
    loop {
        match call(endpoint, target, request).await {
            Err(RpcError::Aborted(BUSY)) => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            answer => break drop(answer.unwrap()),
        }
    }
}

/// Datagrams of the size of a status call to and fro between two sockets, one at a time; gives exchanges a second.
async fn raw() -> Result<f64> {
    let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    let (asks, answers) = (bind().await?, bind().await?);
    asks.connect(answers.local_addr()?).await?;
    answers.connect(asks.local_addr()?).await?;
    let answering = tokio::spawn(async move {
        let mut buffer = [0; REPLY];
        while answers.recv(&mut buffer).await.is_ok() && answers.send(&buffer).await.is_ok() {}
    });
    let (from, mut count, mut buffer) = (Instant::now(), 0_u32, [0; REPLY]);
    while from.elapsed() < LENGTH {
        asks.send(&buffer[..REQUEST]).await?;
        tokio::time::timeout(Duration::from_secs(1), asks.recv(&mut buffer)).await??;
        count += 1;
    }
    answering.abort();
    Ok(f64::from(count) / from.elapsed().as_secs_f64())
}

async fn stands(cell: &Cell) -> Result<([Stand; 2], embedded::Cell)> {
    let here = cell.client_address(1)?;
    let server = SocketAddrV4::new(cell.server_address(1)?, 7000);
    let asking = Peer::at(
        SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
        server,
        2,
        Arc::new(NullSink),
    )
    .await;
    let locations = Target::new(SocketAddrV4::new(cell.database_address()?, 7003), ServiceId(52));
    let asked = GetEntryByName {
        name: b"work"[..].into(),
    };
    let [volume, ..] = call(&asking.endpoint, &locations, &asked).await?.entry.ids;
    asking.endpoint.shutdown().await;
    let openafs = Stand::new(Ipv4Addr::UNSPECIFIED, server, volume).await;

    let embedded = embedded::Cell::start(embedded::Settings::new("calls.example", here)).await?;
    embedded.make_volume("work", 1, "rlidwka")?;
    let [volume, ..] = embedded.volume_ids("work")?;
    let ours = Stand::new(here, SocketAddrV4::new(here, 7000), volume.0).await;
    Ok(([openafs, ours], embedded))
}

/// What a candidate has made of a mix: the rate of each round, and ticks of processor time.
#[derive(Default)]
struct Cost {
    rates: Vec<f64>,
    calls: f64,
    ticks: u64,
}

impl Cost {
    fn median(&self) -> f64 {
        median(&self.rates)
    }

    /// Microseconds of work of both ends for a call.
    fn work(&self) -> f64 {
        self.ticks as f64 * TICK.as_secs_f64() * 1e6 / self.calls
    }
}

/// What is measured: a mix, by how many callers.
const RUNS: [(Mix, usize); 4] = [
    (Mix::Status, 1),
    (Mix::Status, CALLERS),
    (Mix::Changes, 1),
    (Mix::Changes, CALLERS),
];

async fn measure(cell: &Cell) -> Result<bool> {
    let (stands, embedded) = stands(cell).await?;
    let mut costs: [[Cost; 2]; RUNS.len()] = Default::default();
    let mut raws = Cost::default();
    for round in 0..ROUNDS {
        raws.rates.push(raw().await?);
        for ((mix, callers), costs) in RUNS.into_iter().zip(&mut costs) {
            let mut pairs: Vec<_> = stands.iter().zip(costs).collect();
            if round % 2 == 1 {
                pairs.reverse();
            }
            for (stand, cost) in pairs {
                let before = we_worked()? + they_worked()?;
                let from = Instant::now();
                let rate = stand.run(mix, callers).await;
                cost.calls += rate * from.elapsed().as_secs_f64();
                cost.ticks += we_worked()? + they_worked()? - before;
                cost.rates.push(rate);
            }
        }
    }
    for stand in &stands {
        stand.peer.endpoint.shutdown().await;
    }
    embedded.shutdown().await;
    println!(
        "medians of {ROUNDS} rounds; work of both ends for a call; raw UDP to and fro {:.0} a second",
        raws.median()
    );
    println!(
        "{:<9}{:>8}{:>12}{:>8}{:>12}{:>8}{:>8}",
        "", "callers", "OpenAFS /s", "us", "embedded /s", "us", "ratio"
    );
    let mut least = f64::INFINITY;
    for ((mix, callers), [theirs, ours]) in RUNS.into_iter().zip(&costs) {
        let ratio = ours.median() / theirs.median();
        let name = format!("{mix:?}").to_lowercase();
        println!(
            "{name:<9}{callers:>8}{:>12.0}{:>8.1}{:>12.0}{:>8.1}{ratio:>8.2}",
            theirs.median(),
            theirs.work(),
            ours.median(),
            ours.work()
        );
        // Of many at once both ends together take all that two processors have, and the client's part is the same.
        if callers == 1 {
            least = least.min(ratio);
        }
    }
    let met = least >= WANTED;
    let verdict = if met { "met" } else { "MISSED" };
    println!("calls of one caller relative to OpenAFS, wanted >= {WANTED}: {verdict}");
    Ok(met)
}

fn run() -> Result<bool> {
    let cell = Cell::up(1)?;
    cell.in_client(1, || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder
            .enable_all()
            .build()?
            .block_on(measure(&cell))
            .context("measuring")
    })
}

fn main() -> ExitCode {
    conclude("calls", run())
}

const CALLERS: usize = 8;
/// Of a connection.
const CHANNELS: usize = 4;
const LENGTH: Duration = Duration::from_secs(2);
/// VBUSY.
const BUSY: AbortCode = AbortCode(110);
const ROUNDS: usize = 5;
const WANTED: f64 = 3.0;
/// Bytes of the packets of a status call, with their headers.
const REQUEST: usize = 44;
const REPLY: usize = 180;
