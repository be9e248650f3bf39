//! One `afs mount` in the foreground, where a client of the cell lives.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::mount::UnmountFlags;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::command::{kill_group, run, tail};
use crate::harness::eventually;
use crate::harness::metrics::Metrics;
use crate::harness::site::Site;
use crate::harness::watch::{Process, locked, status};

/// Where the mounts of this crate show their metrics, each in its own namespace.
pub(crate) const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9465);

const READY: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(20);

/// How to mount.
#[derive(Clone, Debug, Default)]
pub struct MountOptions {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl MountOptions {
    /// An operation that no server answers ends after so many seconds.
    #[must_use]
    pub fn deadline(self, seconds: u32) -> Self {
        self.argument("--deadline").argument(&seconds.to_string())
    }

    /// Refuse every change.
    #[must_use]
    pub fn read_only(self) -> Self {
        self.argument("--read-only")
    }

    /// Where it keeps its cache.
    #[must_use]
    pub fn cache_dir(self, dir: &Path) -> Self {
        self.argument("--cache-dir").argument(&dir.display().to_string())
    }

    /// A variable of its environment.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Completes the command line of client K, as far as it is the same for all clients of a cell.
    pub(crate) fn give_to<'a>(&self, command: &'a mut Command, cell: &dyn Site, k: u8) -> &'a mut Command {
        command
            .args(["--cell", cell.name()])
            .args(cell.mount_arguments(k))
            .arg("--cellservdb")
            .arg(cell.cellservdb())
            .args(["--metrics", &cell.metrics_address(k).to_string()])
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
    }

    /// Any other word of the command line.
    #[must_use]
    pub fn argument(mut self, word: &str) -> Self {
        self.arguments.push(word.to_owned());
        self
    }
}

/// A mounted client. Its drop unmounts, and shows the client's log if the test fails.
#[derive(Debug)]
pub struct Mount<'c> {
    cell: &'c dyn Site,
    k: u8,
    process: Process,
    folder: TempDir,
}

impl<'c> Mount<'c> {
    pub(crate) fn start(cell: &'c dyn Site, k: u8, options: &MountOptions) -> Result<Self> {
        let program = afs_program()?;
        let folder = tempfile::Builder::new().prefix("afs-mount-").tempdir()?;
        let point = folder.path().join("mnt");
        fs::create_dir(&point)?;
        let said = File::create(folder.path().join("said"))?;
        let mut command = cell.client(k, program.as_os_str());
        command
            .args(["mount", "--foreground", "--log-file"])
            .arg(folder.path().join("log"));
        options
            .give_to(&mut command, cell, k)
            .arg(&point)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .process_group(0);
        let child = command.spawn().context("cannot start afs")?;
        let mount = Self {
            cell,
            k,
            process: cell.clients().add(child),
            folder,
        };
        let settled = eventually(READY, || {
            mounted(&point) || !matches!(status(&mount.process), Ok(None))
        });
        if let Some(status) = status(&mount.process)? {
            bail!("afs mount ended with {status}\n{}", mount.said());
        }
        if !settled {
            bail!("afs mount is not ready after {READY:?}\n{}", mount.said());
        }
        fs::metadata(&point).with_context(|| format!("the root of the mount\n{}", mount.said()))?;
        Ok(mount)
    }

    /// The mount point.
    pub fn point(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }

    /// `PATH` below the home cell, read-only where it is replicated.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.point().join(self.cell.name()).join(path)
    }

    /// `PATH` below the read-write path of the home cell.
    pub fn rw_path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.point().join(format!(".{}", self.cell.name())).join(path)
    }

    /// A new folder in the volume that anyone may write.
    pub fn work(&self, name: &str) -> Result<PathBuf> {
        let folder = self.path("work").join(name);
        fs::create_dir(&folder).with_context(|| format!("mkdir {}", folder.display()))?;
        Ok(folder)
    }

    /// Process id of the client.
    pub fn pid(&self) -> u32 {
        locked(&self.process).id()
    }

    /// Resident memory of the client in KiB.
    pub fn resident_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Its metrics page.
    pub fn metrics(&self) -> Result<Metrics> {
        self.cell.metrics_page(self.k)
    }

    /// A page beside its metrics.
    pub fn page(&self, path: &str) -> Result<String> {
        self.cell.page(self.k, self.cell.metrics_address(self.k), path)
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(&self, limit: Duration) -> Result<ExitStatus> {
        kill_group(&locked(&self.process), Signal::TERM);
        self.ended(limit)
    }

    /// Runs `afs umount` and waits for the end of the client.
    pub fn umount(&self, limit: Duration) -> Result<ExitStatus> {
        let mut command = self.cell.client(self.k, afs_program()?.as_os_str());
        run(limit, command.arg("umount").arg(self.point()))?.ok()?;
        self.ended(limit)
    }

    /// Kills it with SIGKILL, as a crash would.
    pub fn kill(&self) -> Result<ExitStatus> {
        kill_group(&locked(&self.process), Signal::KILL);
        self.ended(END)
    }

    /// Takes what a client that died has left of its mount away: whoever waits for it fails.
    pub fn detach(&self) {
        let _ = rustix::mount::unmount(self.point(), UnmountFlags::FORCE | UnmountFlags::DETACH);
    }

    /// Whether something is mounted at its mount point.
    pub fn mounted(&self) -> bool {
        mounted(&self.point())
    }

    /// What the client wrote: the end of its log and of its messages.
    pub fn said(&self) -> String {
        let part = |name| tail(&self.folder.path().join(name), 40);
        format!(
            "--- client {} said\n{}\n--- its log\n{}",
            self.k,
            part("said"),
            part("log")
        )
    }

    fn ended(&self, limit: Duration) -> Result<ExitStatus> {
        if !eventually(limit, || !matches!(status(&self.process), Ok(None))) {
            bail!("the client did not end within {limit:?}\n{}", self.said());
        }
        status(&self.process)?.context("the client's exit status")
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
        if matches!(status(&self.process), Ok(None)) && self.terminate(END).is_err() {
            eprintln!(
                "testcell: client {} did not end by SIGTERM and is killed\n{}",
                self.k,
                self.said()
            );
            let _ = self.kill();
        }
        if self.mounted() {
            let _ = rustix::mount::unmount(self.point(), UnmountFlags::DETACH);
        }
        self.cell.clients().forget(&self.process);
    }
}

/// The program under test: $AFS_BIN, else the one beside this test's own folder in the target directory.
pub fn afs_program() -> Result<PathBuf> {
    let program = match std::env::var_os("AFS_BIN") {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()?
            .ancestors()
            .nth(2)
            .context("no target directory")?
            .join("afs"),
    };
    if !program.is_file() {
        bail!(
            "{} does not exist: build it with `cargo build -p fuse', or set AFS_BIN",
            program.display()
        );
    }
    Ok(program)
}

pub(crate) fn mounted(point: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().any(|line| {
        let mut fields = line.split(' ');
        fields.nth(4).map(Path::new) == Some(point) && fields.any(|field| field.starts_with("fuse"))
    })
}
