//! A mount that `afs keeper` holds, with one `afs serve` after the other.

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::mount::UnmountFlags;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::command::{kill_group, tail};
use crate::harness::eventually;
use crate::harness::metrics::Metrics;
use crate::harness::mount::{MountOptions, afs_program, mounted};
use crate::harness::site::Site;
use crate::harness::watch::{Process, locked, status};

/// The mount, its keeper and its server. Its drop ends them and unmounts.
#[derive(Debug)]
pub struct Kept<'c> {
    cell: &'c dyn Site,
    k: u8,
    folder: TempDir,
    arguments: Vec<String>,
    options: MountOptions,
    keeper: RefCell<Process>,
    server: RefCell<Process>,
    started: Cell<u32>,
}

impl<'c> Kept<'c> {
    pub(crate) fn start(
        cell: &'c dyn Site,
        k: u8,
        arguments: &[&str],
        options: &MountOptions,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("afs-kept-").tempdir()?;
        fs::create_dir(folder.path().join("mnt"))?;
        // Others are to reach it.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let arguments: Vec<_> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let keeper = start_keeper(cell, k, folder.path(), &arguments)?;
        let server = start_server(cell, k, folder.path(), options, 1)?;
        let kept = Self {
            cell,
            k,
            folder,
            arguments,
            options: options.clone(),
            keeper: RefCell::new(keeper),
            server: RefCell::new(server),
            started: Cell::new(1),
        };
        kept.served()?;
        Ok(kept)
    }

    /// The mount point.
    pub fn point(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }

    /// `PATH` below the home cell.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.point().join(self.cell.name()).join(path)
    }

    /// A new folder in the volume that anyone may write.
    pub fn work(&self, name: &str) -> Result<PathBuf> {
        let folder = self.path("work").join(name);
        fs::create_dir(&folder).with_context(|| format!("mkdir {}\n{}", folder.display(), self.said()))?;
        Ok(folder)
    }

    /// Process id of the server.
    pub fn server_pid(&self) -> u32 {
        locked(&self.server.borrow()).id()
    }

    /// Kills the server with SIGKILL, as a crash would. A thread of it may stay in the kernel until the next server answers.
    pub fn kill_server(&self) -> Result<()> {
        let process = self.server.borrow();
        kill_group(&locked(&process), Signal::KILL);
        let ended = eventually(SOON, || !matches!(status(&process), Ok(None)));
        if !ended && !eventually(END, || is_dead(&process)) {
            bail!("it is not killed within {END:?}\n{}", self.said());
        }
        Ok(())
    }

    /// Has the server retire.
    pub fn terminate_server(&self) -> Result<ExitStatus> {
        self.end(&self.server, Signal::TERM, END)
    }

    /// Starts another server, and waits until it serves. One that runs still is told to retire by the keeper.
    pub fn serve(&self) -> Result<()> {
        let number = self.started.get() + 1;
        self.started.set(number);
        let next = start_server(self.cell, self.k, self.folder.path(), &self.options, number)?;
        let before = self.server.replace(next);
        if !eventually(END, || !matches!(status(&before), Ok(None))) {
            bail!("the server before does not end\n{}", self.said());
        }
        self.cell.clients().forget(&before);
        self.served()
    }

    /// Kills the keeper with SIGKILL, as a crash would.
    pub fn kill_keeper(&self) -> Result<()> {
        self.end(&self.keeper, Signal::KILL, END).map(drop)
    }

    /// Ends the keeper in order.
    pub fn terminate_keeper(&self) -> Result<ExitStatus> {
        self.end(&self.keeper, Signal::TERM, END)
    }

    /// How the keeper ended, when it has.
    pub fn keeper_ended(&self, limit: Duration) -> Result<ExitStatus> {
        self.ended(&self.keeper, limit)
    }

    /// Starts a keeper in the place of one that was killed, and waits until it has the mount.
    pub fn start_keeper(&self) -> Result<()> {
        let said = self.keeper_said();
        let next = start_keeper(self.cell, self.k, self.folder.path(), &self.arguments)?;
        self.cell.clients().forget(&self.keeper.replace(next));
        self.keeper_says("the mount answers", said)
    }

    /// Waits until the keeper has said something more often than it had.
    fn keeper_says(&self, what: &str, before: usize) -> Result<()> {
        if eventually(READY, || count(&self.log("keeper"), what) > before) {
            return Ok(());
        }
        bail!("the keeper does not say `{what}'\n{}", self.said())
    }

    fn keeper_said(&self) -> usize {
        count(&self.log("keeper"), "the mount answers")
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    /// Whether something is mounted at its mount point.
    pub fn mounted(&self) -> bool {
        mounted(&self.point())
    }

    /// The metrics of the server.
    pub fn metrics(&self) -> Result<Metrics> {
        self.cell.metrics_page(self.k)
    }

    /// The metrics of the keeper.
    pub fn keeper_metrics(&self) -> Result<Metrics> {
        Metrics::parse(
            &self
                .cell
                .page(self.k, keeper_address(self.cell, self.k), "/metrics")?,
        )
    }

    /// What its processes wrote.
    pub fn said(&self) -> String {
        let mut said = format!(
            "--- the keeper said\n{}",
            tail(&self.folder.path().join("keeper"), 40)
        );
        for number in 1..=self.started.get() {
            let log = tail(&self.folder.path().join(format!("server-{number}")), 20);
            said.push_str(&format!("\n--- server {number} said\n{log}"));
        }
        said
    }

    fn served(&self) -> Result<()> {
        let number = self.started.get();
        let answers = eventually(READY, || {
            let serving = self.log(&format!("server-{number}")).contains("serving /");
            let ended = !matches!(status(&self.server.borrow()), Ok(None));
            ended
                || serving
                    && self
                        .cell
                        .page(self.k, self.cell.metrics_address(self.k), "/readyz")
                        .is_ok()
        });
        match status(&self.server.borrow())? {
            Some(status) => bail!("afs serve ended with {status}\n{}", self.said()),
            None if !answers => bail!("afs serve is not ready\n{}", self.said()),
            None => Ok(()),
        }
    }

    fn end(&self, process: &RefCell<Process>, signal: Signal, limit: Duration) -> Result<ExitStatus> {
        kill_group(&locked(&process.borrow()), signal);
        self.ended(process, limit)
    }

    fn ended(&self, process: &RefCell<Process>, limit: Duration) -> Result<ExitStatus> {
        let process = process.borrow();
        if !eventually(limit, || !matches!(status(&process), Ok(None))) {
            bail!("it did not end within {limit:?}\n{}", self.said());
        }
        status(&process)?.context("an exit status")
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
        for process in [&self.keeper, &self.server] {
            if matches!(status(&process.borrow()), Ok(None)) && self.end(process, Signal::TERM, END).is_err()
            {
                let _ = self.end(process, Signal::KILL, END);
            }
            self.cell.clients().forget(&process.borrow());
        }
        if self.mounted() {
            let _ = rustix::mount::unmount(self.point(), UnmountFlags::DETACH);
        }
    }
}

/// Has it ended, or at least its first thread?
fn is_dead(process: &Process) -> bool {
    if !matches!(status(process), Ok(None)) {
        return true;
    }
    let stat = fs::read_to_string(format!("/proc/{}/stat", locked(process).id())).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, fields)| fields.starts_with('Z'))
}

fn count(log: &str, what: &str) -> usize {
    log.matches(what).count()
}

fn start_keeper(cell: &dyn Site, k: u8, folder: &Path, arguments: &[String]) -> Result<Process> {
    let said = File::options()
        .create(true)
        .append(true)
        .open(folder.join("keeper"))?;
    let mut command = cell.client(k, afs_program()?.as_os_str());
    command
        .arg("keeper")
        .arg("--socket")
        .arg(folder.join("socket"))
        .args(["--metrics", &keeper_address(cell, k).to_string()])
        .args(arguments)
        .arg(folder.join("mnt"));
    start(cell, &mut command, said).context("cannot start the keeper")
}

/// Where a keeper shows its metrics. There is one at a time at an address.
fn keeper_address(cell: &dyn Site, k: u8) -> SocketAddr {
    let server = cell.metrics_address(k);
    SocketAddr::from((server.ip(), server.port() + 1))
}

fn start_server(
    cell: &dyn Site,
    k: u8,
    folder: &Path,
    options: &MountOptions,
    number: u32,
) -> Result<Process> {
    let said = File::create(folder.join(format!("server-{number}")))?;
    let mut command = cell.client(k, afs_program()?.as_os_str());
    command
        .args(["serve", "--deadline", "10", "--fd-socket"])
        .arg(folder.join("socket"));
    options.give_to(&mut command, cell, k);
    start(cell, &mut command, said).context("cannot start a server")
}

fn start(cell: &dyn Site, command: &mut Command, said: File) -> Result<Process> {
    let child = command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said)
        .process_group(0)
        .spawn()?;
    Ok(cell.clients().add(child))
}

const SOON: Duration = Duration::from_secs(2);
const READY: Duration = Duration::from_secs(20);
const END: Duration = Duration::from_secs(20);
