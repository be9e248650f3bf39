//! One cell: the script `testcell/cell/cell` under a name of its own.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::harness::command::{Finished, run, wait};
use crate::harness::kept::Kept;
use crate::harness::metrics::{Metrics, get};
use crate::harness::mount::{METRICS, Mount, MountOptions};
use crate::harness::site::Site;
use crate::harness::watch::Clients;
use crate::harness::{needs, netns};

/// The script that this crate drives.
pub(crate) const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cell/cell");

const UP: Duration = Duration::from_secs(150);
const DOWN: Duration = Duration::from_secs(90);
const ADMIN: Duration = Duration::from_secs(120);

/// A running cell. Its drop takes it down; so does the end of this process.
#[derive(Debug)]
pub struct Cell {
    name: String,
    env: BTreeMap<String, String>,
    pub(crate) clients: Arc<Clients>,
    /// Takes the cell down when its standard input closes.
    guardian: Child,
}

impl Cell {
    /// Starts a cell with 1 to 3 file servers.
    pub fn up(servers: u8) -> Result<Self> {
        Self::start(servers, None)
    }

    /// Starts one whose second file server has no more room than this (as `48m`).
    pub fn up_with_partition(servers: u8, size: &str) -> Result<Self> {
        Self::start(servers, Some(size))
    }

    fn start(servers: u8, partition: Option<&str>) -> Result<Self> {
        needs::check()?;
        let name = fresh_name();
        let guardian = guardian(&name)?;
        let mut cell = Self {
            name,
            env: BTreeMap::new(),
            clients: Arc::default(),
            guardian,
        };
        let servers = servers.to_string();
        let size = partition.iter().flat_map(|size| ["--partition", size]);
        cell.script(UP, ["up", "--servers", &servers].into_iter().chain(size))?
            .ok()?;
        let env = cell.script(ADMIN, ["env"])?.ok()?.text();
        cell.env = env
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Ok(cell)
    }

    /// The cell's AFS name.
    pub fn cell_name(&self) -> &str {
        self.get("CELL")
    }

    /// Folder with ThisCell, CellServDB and krb5.conf.
    pub fn conf_dir(&self) -> PathBuf {
        PathBuf::from(self.get("CONF_DIR"))
    }

    /// The key table of a principal: `admin`, `alice`, `bob`, or `afs` for the cell's service.
    pub fn keytab(&self, name: &str) -> PathBuf {
        PathBuf::from(self.get("KEYTAB_DIR")).join(format!("{name}.keytab"))
    }

    /// Address of the database servers.
    pub fn database_address(&self) -> Result<Ipv4Addr> {
        self.address("DB_ADDR", 1)
    }

    /// Address of client K, from 1.
    pub fn client_address(&self, k: u8) -> Result<Ipv4Addr> {
        self.address("CLIENT_ADDRS", k)
    }

    /// Address of file server I, from 1.
    pub fn server_address(&self, i: u8) -> Result<Ipv4Addr> {
        self.address("FS_ADDRS", i)
    }

    /// An address of the cell's subnet that nobody has.
    pub fn unused_address(&self) -> String {
        format!("{}.250", self.get("SUBNET"))
    }

    /// Runs `vos` with the servers' own identity.
    pub fn vos<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Finished> {
        run(ADMIN, self.command("vos").args(arguments))
    }

    /// Has the KDC's administrator do something (a line as `kadmin` takes it). What came of it is in its output.
    pub fn kadmin(&self, line: &str) -> Result<String> {
        let folder = self.conf_dir();
        let kdc = folder.with_file_name("kdc").join("kdc.conf");
        let mut command = Command::new("kadmin.local");
        command
            .args(["-r", self.get("REALM"), "-q", line])
            .env("KRB5_CONFIG", folder.join("krb5.conf"))
            .env("KRB5_KDC_PROFILE", kdc);
        let finished = run(ADMIN, &mut command)?.ok()?;
        Ok(finished.text() + &finished.stderr)
    }

    /// What the file server holds of a volume: SHA-256 of every plain file by its path, read from a dump of a
    /// clone, so without any cache manager.
    pub fn held(&self, volume: &str) -> Result<BTreeMap<String, String>> {
        let pipe = "set -o pipefail; \"$0\" --name \"$1\" vos dump -id \"$2\" -clone | python3 \"${0%cell}voldump.py\" sum -";
        let sums = run(
            ADMIN,
            Command::new("bash").args(["-c", pipe, SCRIPT, &self.name, volume]),
        )?
        .ok()?
        .text();
        let pair = |line: &str| {
            let (sum, path) = line.split_once(char::is_whitespace)?;
            Some((path.trim().trim_start_matches('/').to_owned(), sum.to_owned()))
        };
        Ok(sums.lines().filter_map(pair).collect())
    }

    /// Kills file server I with SIGKILL; returns when bosserver's new one serves.
    pub fn kill_server(&self, i: u8) -> Result<()> {
        self.script(ADMIN, ["fs-kill", &i.to_string()])?.ok().map(drop)
    }

    /// Takes file server I away until [`Cell::start_server`]: killed, not shut down.
    pub fn stop_server(&self, i: u8) -> Result<()> {
        self.script(ADMIN, ["fs-stop", &i.to_string(), "-9"])?
            .ok()
            .map(drop)
    }

    /// Starts file server I again; returns when it serves.
    pub fn start_server(&self, i: u8) -> Result<()> {
        self.script(ADMIN, ["fs-start", &i.to_string()])?.ok().map(drop)
    }

    /// Cuts machine I of the servers from the network, or joins it again. Every server there is gone at once.
    pub fn cut_server(&self, i: u8, cut: bool) -> Result<()> {
        let link = format!("{}-s{i}", self.name);
        let state = if cut { "down" } else { "up" };
        run(ADMIN, Command::new("ip").args(["link", "set", &link, state]))?
            .ok()
            .map(drop)
    }

    /// A command in the namespace of client K; add its arguments and [`run`] it.
    pub fn client_command(&self, k: u8, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.command("exec-client");
        command.arg(k.to_string()).arg(program);
        command
    }

    /// Runs a closure on a thread in the namespace of client K.
    pub fn in_client<T: Send>(&self, k: u8, closure: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        netns::inside(&format!("{}-c{k}", self.name), closure)
    }

    /// Mounts with default options as client K.
    pub fn mount(&self, k: u8) -> Result<Mount<'_>> {
        self.mount_with(k, &MountOptions::default())
    }

    /// Mounts as client K.
    pub fn mount_with(&self, k: u8, options: &MountOptions) -> Result<Mount<'_>> {
        Mount::start(self, k, options)
    }

    /// Mounts as client K with a keeper, and a server that is given these options.
    pub fn keep(&self, k: u8, server: &MountOptions) -> Result<Kept<'_>> {
        Kept::start(self, k, &[], server)
    }

    /// Reads the metrics page of the mount of client K.
    pub fn metrics(&self, k: u8) -> Result<Metrics> {
        self.in_client(k, || Metrics::fetch(METRICS))
    }

    /// The newest lines of the servers' logs.
    pub fn logs(&self) -> String {
        let said = self
            .script(ADMIN, ["logs"])
            .map(|finished| finished.text() + &finished.stderr);
        said.unwrap_or_else(|error| format!("(no logs: {error})"))
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(SCRIPT);
        command.args(["--name", &self.name, subcommand]);
        command
    }

    fn script<'a>(&self, limit: Duration, words: impl IntoIterator<Item = &'a str>) -> Result<Finished> {
        run(
            limit,
            Command::new(SCRIPT).args(["--name", &self.name]).args(words),
        )
    }

    fn get(&self, key: &str) -> &str {
        self.env.get(key).map_or("", String::as_str)
    }

    fn address(&self, key: &str, number: u8) -> Result<Ipv4Addr> {
        let index = usize::from(number).checked_sub(1).context("numbers start at 1")?;
        let text = self
            .get(key)
            .split(',')
            .nth(index)
            .with_context(|| format!("{key} has no {number}"))?;
        text.parse().with_context(|| format!("{key}: {text}"))
    }
}

impl Site for Cell {
    fn name(&self) -> &str {
        self.cell_name()
    }

    fn cellservdb(&self) -> PathBuf {
        self.conf_dir().join("CellServDB")
    }

    fn client(&self, k: u8, program: &OsStr) -> Command {
        self.client_command(k, program)
    }

    /// Its namespace is enough.
    fn mount_arguments(&self, _: u8) -> Vec<String> {
        Vec::new()
    }

    fn metrics_address(&self, _: u8) -> SocketAddr {
        METRICS
    }

    fn page(&self, k: u8, address: SocketAddr, path: &str) -> Result<String> {
        self.in_client(k, || get(address, path))
            .with_context(|| format!("client {k}"))
    }

    fn clients(&self) -> &Clients {
        &self.clients
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.clients.kill_all();
        drop(self.guardian.stdin.take());
        if !matches!(wait(&mut self.guardian, DOWN), Ok(Some(status)) if status.success()) {
            eprintln!(
                "testcell: cell {} could not be taken down: {SCRIPT} --name {0} down",
                self.name
            );
        }
    }
}

/// Named after this process, so that the sweep of `make test` can tell which cells have lost theirs.
fn fresh_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let letter =
        char::from(b'a'.saturating_add(u8::try_from(NEXT.fetch_add(1, Ordering::Relaxed) % 26).unwrap_or(0)));
    format!("t{letter}{}", std::process::id())
}

fn guardian(name: &str) -> Result<Child> {
    Command::new("sh")
        .args([
            "-c",
            "cat >/dev/null; exec \"$0\" --name \"$1\" down",
            SCRIPT,
            name,
        ])
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // Ctrl-C at the tests' terminal is not meant for it.
        .process_group(0)
        .spawn()
        .context("cannot start the guardian of the cell")
}
