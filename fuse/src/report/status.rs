//! How a mount is: the report behind `afs status`.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddrV4;
use std::time::Duration;

use afs_client::fs::{ServerState, VolumeState};
use rxrpc::proto::Side;
use serde::{Deserialize, Serialize};

use super::Reports;
use super::text::{bytes, seconds};
use super::unstored::{Told, UnstoredStatus};
use crate::ctl::Held;
use crate::mount_table::Device;
use crate::telemetry::page::{MetricsPage, Shown};
use crate::telemetry::trace::{self, Traced};
use crate::token::day_and_time;

/// How a mount is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The mount itself.
    pub mount: MountStatus,
    /// The page of metrics, if it was asked for.
    pub metrics: Option<MetricsPage>,
    /// The cells that were entered.
    pub cells: Vec<CellStatus>,
    /// The file servers of the volumes in use.
    pub servers: Vec<ServerStatus>,
    /// The volumes in use, as many as are shown.
    pub volumes: Vec<VolumeStatus>,
    /// How many there are.
    pub volumes_in_use: usize,
    /// Connections to servers.
    pub to_servers: ConnectionStatus,
    /// Connections of servers to us.
    pub from_servers: ConnectionStatus,
    /// The cache.
    pub cache: CacheStatus,
    /// What only we have.
    pub dirty: DirtyStatus,
    /// What was written and is not in its place; versions before this one say nothing of it.
    #[serde(default)]
    pub unstored: UnstoredStatus,
    /// What is traced.
    pub traces: Traced,
    /// Tokens of whoever asks; all of them for root.
    pub tokens: Vec<Held>,
}

/// The mount itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MountStatus {
    /// Where it is, as its process sees it.
    pub at: std::path::PathBuf,
    /// Its number.
    pub device: Option<Device>,
    /// The version of the program that serves it.
    pub version: String,
    /// Its process.
    pub process: u32,
    /// For how long it has been served.
    pub uptime_seconds: f64,
    /// The UDP port of both directions.
    pub port: u16,
    /// Whose it is.
    pub owner: u32,
    /// Others may use it too.
    pub allow_other: bool,
    /// Every change is refused.
    pub read_only: bool,
}

/// A cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellStatus {
    /// Its name.
    pub name: String,
    /// It is the home cell.
    pub home: bool,
    /// Its location servers.
    pub location_servers: Vec<AddressStatus>,
}

/// A file server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// A cell that it has volumes of.
    pub cell: String,
    /// What makes it itself: a UUID.
    pub id: String,
    /// It answers.
    pub up: bool,
    /// For how long it has not.
    pub down_seconds: Option<f64>,
    /// It has promised to call us when something changes.
    pub promised: bool,
    /// Its addresses.
    pub addresses: Vec<AddressStatus>,
    /// The share of the calls to it that have failed of late, of 1.
    pub failing: f64,
    /// Why others are asked in its place for a while.
    pub left_alone: Option<LeftAlone>,
}

/// Why a replica is left alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeftAlone {
    /// The volume that it is no good for.
    pub volume: String,
    /// What was wrong.
    pub reason: String,
    /// For how long still.
    pub left_seconds: f64,
}

/// An address of a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AddressStatus {
    /// The address.
    pub address: SocketAddrV4,
    /// It answers, or was never asked.
    pub up: bool,
    /// The time to it and back, if it was measured.
    pub rtt_seconds: Option<f64>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// Its cell.
    pub cell: String,
    /// Its name, without suffix.
    pub name: String,
    /// Its number.
    pub id: u32,
    /// `rw`, `ro` or `bk`.
    pub kind: String,
    /// The servers that have it: where each is called, or would be.
    pub servers: Vec<SocketAddrV4>,
}

/// Connections of one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// With a call.
    pub active: usize,
    /// Waiting for the next call.
    pub idle: usize,
}

/// The cache of file data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheStatus {
    /// Bytes in use.
    pub used: u64,
    /// The most that may be.
    pub limit: u64,
    /// Files, directories and links that are known.
    pub objects: usize,
}

/// What only we have.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirtyStatus {
    /// Bytes not stored on a server yet.
    pub bytes: u64,
    /// Files with such bytes.
    pub files: usize,
    /// For how long the first of them has had some.
    pub oldest_seconds: Option<f64>,
}

/// The times to servers and back that were measured.
pub(super) struct RoundTrips(HashMap<SocketAddrV4, Duration>);

impl Reports {
    /// How the mount is; `tokens` are those that may be told, and `told` are the files.
    pub fn status(&self, tokens: Vec<Held>, told: Told) -> Status {
        let (served, fs) = (&self.served, &self.fs);
        let state = fs.state();
        let trips = RoundTrips::now(self);
        let volumes = fs.volumes();
        let mut sides = [ConnectionStatus::default(); 2];
        for counted in fs.census() {
            let [to, from] = &mut sides;
            let side = match counted.side {
                Side::Client => to,
                Side::Service => from,
            };
            if counted.idle {
                side.idle += 1;
            } else {
                side.active += 1;
            }
        }
        let [to_servers, from_servers] = sides;
        let mut servers: Vec<_> = state.servers.iter().map(|server| trips.server(server)).collect();
        servers.sort_by_key(|server| {
            (
                server.cell.clone(),
                server.addresses.first().map(|first| first.address),
            )
        });
        Status {
            mount: MountStatus {
                at: served.at.clone(),
                device: served.device,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                process: std::process::id(),
                uptime_seconds: served.started.0.elapsed().as_secs_f64(),
                port: fs.local_addr().port(),
                owner: served.owner,
                allow_other: served.allow_other,
                read_only: served.read_only,
            },
            metrics: served.metrics.as_ref().map(Shown::now),
            cells: fs
                .cells()
                .iter()
                .map(|cell| CellStatus {
                    name: cell.name.to_string(),
                    home: cell.name == *fs.home(),
                    location_servers: cell
                        .location_servers()
                        .map(|(address, up)| trips.address(address, up))
                        .collect(),
                })
                .collect(),
            servers: servers.into_iter().take(SERVERS_SHOWN).collect(),
            volumes_in_use: volumes.len(),
            volumes: volumes
                .iter()
                .take(VOLUMES_SHOWN)
                .map(VolumeStatus::from)
                .collect(),
            to_servers,
            from_servers,
            cache: CacheStatus {
                used: state.cache.used,
                limit: state.cache.limit,
                objects: state.vnodes,
            },
            dirty: DirtyStatus {
                bytes: state.cache.dirty,
                files: state.cache.dirty_files,
                oldest_seconds: state.cache.dirty_for.map(|age| age.as_secs_f64()),
            },
            unstored: self.unstored(state.unstored, told),
            traces: trace::traced(),
            tokens,
        }
    }
}

impl RoundTrips {
    pub(super) fn now(reports: &Reports) -> Self {
        let peers = reports.fs.peers().into_iter();
        Self(
            peers
                .filter_map(|peer| Some((peer.address, peer.rtt?.smoothed)))
                .collect(),
        )
    }

    fn address(&self, address: SocketAddrV4, up: bool) -> AddressStatus {
        AddressStatus {
            address,
            up,
            rtt_seconds: self.0.get(&address).map(Duration::as_secs_f64),
        }
    }

    pub(super) fn server(&self, server: &ServerState) -> ServerStatus {
        let addresses = server
            .addresses
            .iter()
            .map(|&(address, up)| self.address(address, up));
        ServerStatus {
            cell: server.cell.to_string(),
            id: server.id.to_string(),
            up: server.up,
            down_seconds: server.down_for.map(|time| time.as_secs_f64()),
            promised: server.promised,
            addresses: addresses.collect(),
            failing: server.failing,
            left_alone: server.left_alone.as_ref().map(|left| LeftAlone {
                volume: left.volume.clone(),
                reason: left.why.to_string(),
                left_seconds: left.left.as_secs_f64(),
            }),
        }
    }
}

impl From<&VolumeState> for VolumeStatus {
    fn from(volume: &VolumeState) -> Self {
        let first = |server: &ServerState| server.addresses.first().map(|(address, _)| *address);
        let called = |server: &ServerState| server.peer.or_else(|| first(server));
        Self {
            cell: volume.cell.to_string(),
            name: volume.name.clone(),
            id: volume.id.0,
            kind: volume.kind.to_string(),
            servers: volume.servers.iter().filter_map(called).collect(),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.mount)?;
        match &self.metrics {
            None => {}
            Some(MetricsPage { address, error: None }) => {
                writeln!(f, "  metrics      http://{address}/metrics")?;
            }
            Some(MetricsPage {
                address,
                error: Some(error),
            }) => writeln!(f, "  metrics      NOT SHOWN: {address}: {error}")?,
        }
        for cell in &self.cells {
            let home = if cell.home { " (home)" } else { "" };
            let servers: Vec<_> = cell.location_servers.iter().map(ToString::to_string).collect();
            let servers = servers.join(", ");
            writeln!(
                f,
                "  cell         {}{home}, location servers {servers}",
                cell.name
            )?;
        }
        for server in &self.servers {
            writeln!(f, "  server       {server}")?;
        }
        for volume in &self.volumes {
            writeln!(f, "  volume       {volume}")?;
        }
        let hidden = self.volumes_in_use.saturating_sub(self.volumes.len());
        if hidden > 0 {
            writeln!(f, "  volume       and {hidden} more")?;
        }
        let (to, from) = (&self.to_servers, &self.from_servers);
        writeln!(
            f,
            "  connections  to servers {} active, {} idle; from servers {} active, {} idle",
            to.active, to.idle, from.active, from.idle
        )?;
        let cache = &self.cache;
        writeln!(
            f,
            "  cache        {} of {}, {} objects known",
            bytes(cache.used),
            bytes(cache.limit),
            cache.objects
        )?;
        let is_all = self.dirty.bytes == 0 && self.unstored.files() == 0;
        let all = if is_all { ": all is on the servers" } else { "" };
        writeln!(f, "  dirty        {}{all}", self.dirty)?;
        write!(f, "{}", self.unstored)?;
        if self.traces.exports {
            writeln!(f, "  traces       {}", self.traces)?;
        }
        for token in &self.tokens {
            writeln!(f, "  token        {}", shown(token))?;
        }
        if self.tokens.is_empty() {
            writeln!(f, "  token        none of yours")?;
        }
        Ok(())
    }
}

impl fmt::Display for MountStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: afs {}, up {}, process {}, UDP port {}{}{}",
            self.at.display(),
            self.version,
            seconds(self.uptime_seconds),
            self.process,
            self.port,
            if self.read_only { ", read-only" } else { "" },
            if self.allow_other {
                ""
            } else {
                ", for its owner alone"
            },
        )
    }
}

impl fmt::Display for AddressStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        match self.rtt_seconds {
            _ if !self.up => f.write_str(" (down)"),
            Some(rtt) => write!(f, " ({})", seconds(rtt)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ServerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, address) in self.addresses.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{address}")?;
        }
        write!(f, " of {}: ", self.cell)?;
        match self.down_seconds {
            Some(down) => write!(f, "DOWN for {}", seconds(down))?,
            None if self.up => write!(f, "up")?,
            None => write!(f, "DOWN")?,
        }
        if self.promised {
            write!(f, ", will tell of changes")?;
        }
        if self.failing >= FAILING_SHOWN {
            write!(f, ", fails {:.0} % of calls", self.failing * 100.0)?;
        }
        if let Some(left) = &self.left_alone {
            let time = seconds(left.left_seconds);
            write!(f, ", LEFT ALONE for {time}: {} ({})", left.reason, left.volume)?;
        }
        Ok(())
    }
}

impl fmt::Display for VolumeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({} {}) of {} at {}",
            self.name,
            self.id,
            self.kind,
            self.cell,
            listed(&self.servers)
        )
    }
}

impl fmt::Display for Traced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.exports {
            return f.write_str("none: started without OTEL_EXPORTER_OTLP_ENDPOINT");
        }
        write!(f, "{} % of the requests", self.ratio * 100.0)?;
        if self.slow_ms > 0 {
            write!(f, ", and those that fail or take {} ms", self.slow_ms)?;
        }
        write!(f, "; {} spans were lost", self.dropped)
    }
}

impl fmt::Display for DirtyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bytes {
            0 => f.write_str("nothing"),
            count => {
                let oldest = self
                    .oldest_seconds
                    .map(|age| format!(", the first for {}", seconds(age)));
                write!(
                    f,
                    "{} of {} files not stored yet{}",
                    bytes(count),
                    self.files,
                    oldest.unwrap_or_default()
                )
            }
        }
    }
}

fn shown(token: &Held) -> String {
    let renewed = if token.renews { ", is renewed" } else { "" };
    format!(
        "{} for {} until {} UTC{renewed} ({})",
        token.client,
        token.cell,
        day_and_time(token.expires),
        token.owner
    )
}

fn listed(addresses: &[SocketAddrV4]) -> String {
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    addresses.join(" ")
}

/// Less is an accident that is long over.
const FAILING_SHOWN: f64 = 0.01;
/// What is listed of more.
const SERVERS_SHOWN: usize = 256;
const VOLUMES_SHOWN: usize = 256;
