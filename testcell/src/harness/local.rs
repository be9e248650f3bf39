//! The embedded cell in the place of the real one: servers in this process, clients as programs on addresses of their own.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use afs_client::rpc::fs::{FETCH_DATA, FETCH_DATA_NAME, PROCEDURES, STORE_DATA, STORE_DATA_NAME};
use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::content::Sum;
use super::kept::Kept;
use super::metrics::get;
use super::mount::{METRICS, Mount, MountOptions};
use super::site::Site;
use super::watch::{Clients, Watch, locked};
use crate::embedded::faults::{self, Memory};
use crate::embedded::{Cell, Settings};

/// An embedded cell with clients.
#[derive(Debug)]
pub struct LocalCell {
    cell: Cell,
    runtime: Runtime,
    folder: TempDir,
    clients: Arc<Clients>,
    base: u32,
}

impl LocalCell {
    /// Starts a furnished cell of one file server.
    pub fn up() -> Result<Self> {
        let base = Ipv4Addr::new(127, 96, 0, 0).to_bits() + std::process::id() % 0x1000 * 16;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let folder = tempfile::tempdir()?;
        let spill = folder.path().join(SPILL);
        fs::create_dir(&spill)?;
        let cell = runtime.block_on(async {
            let settings = Settings {
                spill: Some(spill),
                ..Settings::new(CELL, Ipv4Addr::from_bits(base))
            };
            let cell = Cell::start(settings).await?;
            cell.furnish().await?;
            anyhow::Ok(cell)
        })?;
        fs::write(folder.path().join(DB), cell.cellservdb())?;
        Ok(Self {
            cell,
            runtime,
            folder,
            clients: Arc::default(),
            base,
        })
    }

    /// What the file server holds of a volume: SHA-256 of every plain file by its path.
    pub fn held(&self, volume: &str) -> Result<BTreeMap<String, String>> {
        let mut held = BTreeMap::new();
        for path in self.cell.paths(volume)? {
            let mut sum = Sum::start()?;
            sum.write_all(&self.cell.read(volume, &path)?)?;
            held.insert(path, sum.end()?);
        }
        Ok(held)
    }

    /// What the file server holds of a volume, by path.
    pub fn contents(&self, volume: &str) -> Result<BTreeMap<String, Vec<u8>>> {
        let paths = self.cell.paths(volume)?;
        let read = |path: String| Ok((path.clone(), self.cell.read(volume, &path)?));
        paths.into_iter().map(read).collect()
    }

    /// Writes a file of a volume as somebody else would, who then releases the volume.
    pub fn release_with(&self, volume: &str, path: &str, bytes: &[u8]) -> Result<()> {
        self.runtime.block_on(async {
            self.cell.write(volume, path, bytes).await?;
            Ok(self.cell.release(volume, &[1]).await?)
        })
    }

    /// Makes a mount point in a volume, as an administrator would.
    pub fn mount_volume(&self, volume: &str, path: &str, target: &str) -> Result<()> {
        Ok(self.runtime.block_on(self.cell.mount(volume, path, target))?)
    }

    /// Has file server I die, with all that it knows of its clients, and start again.
    pub fn kill_server(&self, i: u8) -> Result<()> {
        Ok(self.runtime.block_on(self.cell.restart(i.into(), Memory::Lost))?)
    }

    /// Stops file server I.
    pub fn stop_server(&self, i: u8) -> Result<()> {
        Ok(self.runtime.block_on(self.cell.stop(i.into()))?)
    }

    /// Starts file server I again.
    pub fn start_server(&self, i: u8) -> Result<()> {
        Ok(self.runtime.block_on(self.cell.restart(i.into(), Memory::Lost))?)
    }

    /// Mounts with default options as client K.
    pub fn mount(&self, k: u8) -> Result<Mount<'_>> {
        self.mount_with(k, &MountOptions::default())
    }

    /// Mounts as client K.
    pub fn mount_with(&self, k: u8, options: &MountOptions) -> Result<Mount<'_>> {
        Mount::start(self, k, options)
    }

    /// Calls to file server I are taken and not answered, or answered again.
    pub fn freeze(&self, i: u8, frozen: bool) -> Result<()> {
        Ok(self.cell.freeze(i.into(), frozen)?)
    }

    /// A program where client K lives.
    pub fn client_command(&self, _: u8, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        // Who may not use the directory of root has the control sockets here.
        command.env("XDG_RUNTIME_DIR", self.folder.path());
        command
    }

    /// Mounts as client K with a keeper, which is given these arguments, and a server.
    pub fn keep(&self, k: u8, keeper: &[&str]) -> Result<Kept<'_>> {
        Kept::start(self, k, keeper, &MountOptions::default())
    }

    /// The same with a server that is given these arguments.
    pub fn keep_with(&self, k: u8, options: &MountOptions) -> Result<Kept<'_>> {
        Kept::start(self, k, &[], options)
    }

    /// Has the servers fail as a script says (`testcell/src/embedded/faults/script.rs`).
    pub fn fail(&self, script: &str) -> Result<()> {
        faults::parse(script)?
            .into_iter()
            .for_each(|rule| self.cell.faults().add(rule));
        Ok(())
    }

    /// How often each procedure of file server 1 was called.
    pub fn all_calls(&self) -> BTreeMap<&'static str, u64> {
        let data = [(FETCH_DATA, FETCH_DATA_NAME), (STORE_DATA, STORE_DATA_NAME)];
        let all = PROCEDURES.iter().copied().chain(data);
        all.map(|(opcode, name)| (name, self.cell.calls(1, opcode).unwrap_or(0)))
            .collect()
    }

    /// How often a procedure of file server 1 was called.
    ///
    /// # Panics
    /// If there is no such procedure.
    pub fn calls(&self, procedure: &str) -> u64 {
        let all = self.all_calls();
        *all.get(procedure)
            .unwrap_or_else(|| panic!("{procedure} is no procedure"))
    }

    /// The address that client K has.
    pub fn address(&self, k: u8) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base + u32::from(k))
    }

    /// The file that tells where its location servers are.
    pub fn servers_file(&self) -> PathBuf {
        self.folder.path().join(DB)
    }
}

impl Site for LocalCell {
    fn name(&self) -> &str {
        CELL
    }

    fn cellservdb(&self) -> PathBuf {
        self.servers_file()
    }

    fn client(&self, k: u8, program: &OsStr) -> Command {
        self.client_command(k, program)
    }

    fn mount_arguments(&self, k: u8) -> Vec<String> {
        vec!["--address".to_owned(), self.address(k).to_string()]
    }

    fn metrics_address(&self, k: u8) -> SocketAddr {
        SocketAddr::from((self.address(k), METRICS.port()))
    }

    fn page(&self, k: u8, address: SocketAddr, path: &str) -> Result<String> {
        get(address, path).with_context(|| format!("client {k}"))
    }

    fn clients(&self) -> &Clients {
        &self.clients
    }
}

impl Drop for LocalCell {
    fn drop(&mut self) {
        self.clients.kill_all();
        self.runtime.block_on(self.cell.shutdown());
    }
}

/// An embedded cell for one test.
#[derive(Debug)]
pub struct LocalShared {
    cell: LocalCell,
    _watch: Watch,
    _turn: MutexGuard<'static, ()>,
}

/// Starts an embedded cell when those before it are gone.
///
/// # Panics
/// If the cell does not start.
pub fn local() -> LocalShared {
    local_for(LIMIT)
}

/// The same, for a test that may take so long before its clients are killed.
///
/// # Panics
/// If the cell does not start.
pub fn local_for(limit: Duration) -> LocalShared {
    let turn = locked(&TURN);
    let cell = LocalCell::up().unwrap_or_else(|error| panic!("{error:?}"));
    LocalShared {
        _watch: Watch::start(Arc::clone(&cell.clients), limit),
        _turn: turn,
        cell,
    }
}

impl Deref for LocalShared {
    type Target = LocalCell;

    fn deref(&self) -> &LocalCell {
        &self.cell
    }
}

/// One at a time: they have the same addresses.
static TURN: Mutex<()> = Mutex::new(());
/// A test may take so long before its clients are killed.
const LIMIT: Duration = Duration::from_secs(60);
const CELL: &str = "lab.example";
const DB: &str = "CellServDB";
const SPILL: &str = "spill";
