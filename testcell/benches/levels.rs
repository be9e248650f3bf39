//! What the levels of rxkad cost: a file read from a real file server as alice, at each level, in turns of one run.
//!
//! The machine: the file is stored once. Each round reads all of it at every level, by as many calls at a time as a mount
//! reads ahead with; the rounds go through the levels in another order each time, and the median of the rounds counts.
//! What is read is compared with what was stored. Beside the time stands what both ends have worked for it: where their
//! sum is all that the machine has, the file server's own cipher decides. Needs root; nothing is cached, nor written anywhere.

#![allow(missing_docs, clippy::cast_precision_loss, clippy::disallowed_methods)]

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

use afs_client::auth::kdc::KdcClient;
use afs_client::auth::keytab::Keytab;
use afs_client::auth::krb5_conf::Krb5Conf;
use afs_client::auth::{Principal, Token};
use afs_client::cell::CellName;
use afs_client::rpc::client::{RpcError, call, fetch_data, store_data};
use afs_client::rpc::fs::{CreateFile, FetchDataArgs, StoreDataArgs};
use afs_client::rpc::types::AfsFid;
use afs_client::rpc::vl::GetEntryByName;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rxrpc::events::NullSink;
use rxrpc::net::{Endpoint, Target};
use rxrpc::proto::{Level, ServiceId};
use rxrpc::security::Security;
use testcell::Cell;
use tokio::task::JoinSet;

use self::peer::Peer;
use self::work::{TICK, conclude, median, they_worked, we_worked};

/// Alice's file on the server, and how it is called.
#[derive(Clone)]
struct File {
    endpoint: Endpoint,
    target: Target,
    fid: AfsFid,
}

impl File {
    fn at(&self, level: Level) -> Self {
        let mut other = self.clone();
        if let Security::Rxkad { level: its, .. } = &mut other.target.security {
            *its = level;
        }
        other
    }

    /// Stores the file part by part.
    async fn store(&self) -> Result<(), RpcError> {
        for part in 0..PARTS {
            let args = StoreDataArgs {
                fid: self.fid,
                position: part * PART,
                length: PART,
                file_length: SIZE,
                ..StoreDataArgs::default()
            };
            let mut source = |at: u64, len: usize| Ok(content(at, len));
            store_data(&self.endpoint, &self.target, &args, &mut source).await?;
        }
        Ok(())
    }

    /// Reads one part and compares it.
    async fn read(&self, part: u64) -> Result<()> {
        let args = FetchDataArgs {
            fid: self.fid,
            position: part * PART,
            length: PART,
        };
        let mut differs = false;
        let mut sink = |at: u64, parts: &[Bytes]| {
            let mut at = at;
            for part in parts {
                differs |= *part != content(at, part.len());
                at += part.len() as u64;
            }
            Ok(())
        };
        let (len, _) = fetch_data(&self.endpoint, &self.target, &args, &mut sink).await?;
        ensure!(len == PART && !differs, "part {part} is another");
        Ok(())
    }

    /// Reads the whole file.
    async fn read_all(&self) -> Result<Duration> {
        let from = Instant::now();
        let mut reads = JoinSet::new();
        for part in 0..PARTS {
            if reads.len() == AT_ONCE {
                reads.join_next().await.context("a read")???;
            }
            let file = self.clone();
            reads.spawn(async move { file.read(part).await });
        }
        while let Some(read) = reads.join_next().await {
            read??;
        }
        Ok(from.elapsed())
    }
}

/// The bytes of the file: a slice of a pattern whose length is no power of two.
fn content(at: u64, len: usize) -> Bytes {
    static PATTERN: std::sync::OnceLock<Bytes> = std::sync::OnceLock::new();
    let pattern = PATTERN.get_or_init(|| {
        let bytes = (0..PERIOD + PART).map(|at| (at % PERIOD * 31 % 251).to_le_bytes()[0]);
        bytes.collect()
    });
    let at = usize::try_from(at % PERIOD).unwrap_or(0);
    pattern.slice(at..at + len)
}

/// Alice's token, from the KDC.
async fn token(cell: &Cell) -> Result<Token> {
    let conf = Krb5Conf::load(cell.conf_dir().join("krb5.conf").to_str())?;
    let alice = Principal::new(&["alice"], "LAB.EXAMPLE");
    let keys = Keytab::read(&cell.keytab("alice"))?.keys_of(&alice)?;
    let kdc = KdcClient::new(&conf);
    let granting = kdc.initial(&alice, &keys).await?;
    let service = Principal::new(&["afs", cell.cell_name()], "LAB.EXAMPLE");
    let ticket = kdc.service(&granting, &service).await?;
    Ok(Token::from_credential(CellName::new(cell.cell_name())?, &ticket))
}

async fn file(cell: &Cell) -> Result<File> {
    let server = SocketAddrV4::new(cell.server_address(1)?, 7000);
    let anywhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
    let peer = Peer::at(anywhere, server, 2, Arc::new(NullSink)).await;
    let endpoint = peer.endpoint.clone();
    let locations = SocketAddrV4::new(cell.database_address()?, 7003);
    let asked = GetEntryByName {
        name: b"home.alice"[..].into(),
    };
    let entry = call(&endpoint, &Target::new(locations, ServiceId(52)), &asked)
        .await?
        .entry;
    let [volume, ..] = entry.ids;
    let target = Target {
        security: Security::Rxkad {
            token: Arc::new(token(cell).await?.rxkad()?),
            level: Level::Clear,
        },
        ..peer.target()
    };
    let create = CreateFile {
        dir: AfsFid {
            volume,
            vnode: 1,
            unique: 1,
        },
        name: b"levels"[..].into(),
        ..CreateFile::default()
    };
    let fid = call(&endpoint, &target, &create).await?.fid;
    Ok(File {
        endpoint,
        target,
        fid,
    })
}

/// What a level has cost.
#[derive(Default)]
struct Cost {
    /// Of each round.
    seconds: Vec<f64>,
    /// Processor time of this process and of the file server, in all, in ticks.
    ours: u64,
    theirs: u64,
}

impl Cost {
    fn median(&self) -> f64 {
        median(&self.seconds)
    }

    /// Milliseconds of work for each MiB.
    fn work(&self, ticks: u64) -> f64 {
        let mib = SIZE as f64 / f64::from(1 << 20) * self.seconds.len() as f64;
        ticks as f64 * TICK.as_secs_f64() * 1000.0 / mib
    }
}

async fn measure(cell: &Cell) -> Result<[Cost; 3]> {
    let file = file(cell).await?;
    file.store().await?;
    let mut costs: [Cost; 3] = Default::default();
    for round in 0..ROUNDS {
        for turn in 0..Level::ALL.len() {
            let which = (round + turn) % Level::ALL.len();
            if let (Some(level), Some(cost)) = (Level::ALL.get(which), costs.get_mut(which)) {
                let before = (we_worked()?, they_worked()?);
                cost.seconds.push(file.at(*level).read_all().await?.as_secs_f64());
                cost.ours += we_worked()? - before.0;
                cost.theirs += they_worked()? - before.1;
            }
        }
    }
    file.endpoint.shutdown().await;
    Ok(costs)
}

fn run() -> Result<bool> {
    let cell = Cell::up(1)?;
    cell.vos(["setfields", "home.alice", "-maxquota", "0"])?.ok()?;
    let costs = cell.in_client(1, || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.enable_all().build()?.block_on(measure(&cell))
    })?;
    let [clear, _, crypt] = costs.each_ref().map(Cost::median);
    let mib = SIZE as f64 / f64::from(1 << 20);
    println!("{mib} MiB, {AT_ONCE} calls at a time, medians of {ROUNDS} rounds; ms of work for each MiB");
    println!(
        "{:<6}{:>12}{:>10}{:>8}{:>13}",
        "", "MiB/s", "of clear", "ours", "the server's"
    );
    for (level, cost) in Level::ALL.iter().zip(&costs) {
        let (time, name) = (cost.median(), format!("{level:?}").to_lowercase());
        let (ours, theirs) = (cost.work(cost.ours), cost.work(cost.theirs));
        let (speed, ratio) = (mib / time, clear / time);
        println!("{name:<6}{speed:>12.0}{ratio:>10.2}{ours:>8.1}{theirs:>13.1}");
    }
    let met = clear / crypt >= WANTED;
    let verdict = if met { "met" } else { "MISSED" };
    println!("crypt relative to clear, wanted >= {WANTED}: {verdict}");
    Ok(met)
}

fn main() -> ExitCode {
    conclude("levels", run())
}

const SIZE: u64 = PARTS * PART;
const PART: u64 = 1 << 20;
const PARTS: u64 = 256;
const AT_ONCE: usize = 4;
const PERIOD: u64 = 1_000_003;
const ROUNDS: usize = 5;
const WANTED: f64 = 0.75;
