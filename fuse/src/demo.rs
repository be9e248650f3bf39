//! `afs demo`: a cell to play with.
//!
//! The machine: the servers of the embedded cell run in this process beside an ordinary mount of it, which ends as every
//! mount does. What is on disk stands in one folder, with a lock that the kernel takes away however the process ends: a
//! folder whose lock is free was left by a demo that was killed, and the next start removes it with its dead mount.

mod folder;
mod live;

use std::io::{IsTerminal as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use testcell::embedded::faults::{self, Faults};
use testcell::embedded::{Cell, CellError, Settings};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use self::folder::Folder;
use self::live::Live;
use crate::cli::{Cli, Demo, DemoCell, Mount};
use crate::daemon::Caller;
use crate::failure::{Failure, Kind};
use crate::mount::{check_fuse, check_mount_point};
use crate::program;

/// Runs until Ctrl-C or an unmount.
pub fn run(options: &Demo) -> Result<(), Failure> {
    match options.cell {
        DemoCell::Openafs => real(options),
        DemoCell::Embedded => embedded(options),
    }
}

fn embedded(options: &Demo) -> Result<(), Failure> {
    check_fuse(false)?;
    let faults = match &options.faults {
        Some(file) => read_faults(file)?,
        None => Faults::default(),
    };
    folder::sweep();
    let folder = Folder::make(options.mountpoint.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("afs-cell")
        .build()
        .map_err(|error| Failure::new(Kind::Other, format!("cannot start threads: {error}")))?;
    let (cell, address) = runtime.block_on(start(&folder, &faults))?;
    let served = serve(options, &folder, &cell, address, &runtime);
    runtime.block_on(cell.shutdown());
    runtime.shutdown_timeout(Duration::from_secs(1));
    folder.remove();
    served
}

/// Mounts the cell, and shows what can be done with it.
fn serve(
    options: &Demo,
    folder: &Folder,
    cell: &Arc<Cell>,
    address: Ipv4Addr,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let servers = folder.path("CellServDB");
    std::fs::write(&servers, cell.cellservdb())
        .map_err(|error| Failure::new(Kind::Other, format!("{}: {error}", servers.display())))?;
    let metrics = options
        .metrics
        .unwrap_or_else(|| SocketAddr::from((address, METRICS_PORT)));
    let log = folder.path("log");
    let mount = mount_options(&servers, &log, address, metrics, folder.mount_point())?;
    let mut caller = Caller::new(&mount.client, false)
        .map_err(|error| Failure::new(Kind::Other, format!("cannot start: {error}")))?;
    let told = Told::keep(&log);
    let mut live = None;
    let served = program::mount_and_serve(&mount, &mut caller, &mut |fs, counted| {
        let banner = banner(folder.mount_point(), metrics);
        // Without a terminal there is nobody to tell.
        let _ = std::io::stdout().write_all(banner.as_bytes());
        runtime.spawn(tell_the_time(Arc::clone(cell)));
        runtime.spawn(back_up(Arc::clone(cell)));
        if std::io::stdout().is_terminal() {
            live = Some(Live::start(fs.clone(), Arc::clone(counted)));
        }
    });
    drop(live);
    drop(told);
    served
}

/// The stderr of who started it, which is the log while the mount runs; given back when dropped.
struct Told<'a> {
    stderr: Option<OwnedFd>,
    log: &'a Path,
}

impl<'a> Told<'a> {
    fn keep(log: &'a Path) -> Self {
        // Without a stderr nobody is told.
        let stderr = std::io::stderr().as_fd().try_clone_to_owned().ok();
        Self { stderr, log }
    }
}

impl Drop for Told<'_> {
    /// The log goes away with the folder: what a panic wrote there is for who started it.
    fn drop(&mut self) {
        if let Some(stderr) = self.stderr.take() {
            let _ = rustix::stdio::dup2_stderr(stderr);
        }
        if std::thread::panicking()
            && let Ok(log) = std::fs::read(self.log)
        {
            let _ = std::io::stderr().write_all(&log);
        }
    }
}

/// The command line of the mount.
fn mount_options(
    servers: &Path,
    log: &Path,
    address: Ipv4Addr,
    metrics: SocketAddr,
    at: &Path,
) -> Result<Mount, Failure> {
    use clap::Parser as _;
    let (address, metrics) = (address.to_string(), metrics.to_string());
    let words: [&std::ffi::OsStr; 14] = [
        "afs".as_ref(),
        "mount".as_ref(),
        "--foreground".as_ref(),
        "--cell".as_ref(),
        CELL.as_ref(),
        "--cellservdb".as_ref(),
        servers.as_ref(),
        "--address".as_ref(),
        address.as_ref(),
        "--metrics".as_ref(),
        metrics.as_ref(),
        "--log-file".as_ref(),
        log.as_ref(),
        at.as_ref(),
    ];
    match Cli::try_parse_from(words).map(|cli| cli.command) {
        Ok(crate::cli::Command::Mount(mount)) => Ok(mount),
        Ok(_) => Err(Failure::new(Kind::Usage, "the demo is no mount")),
        Err(error) => Err(Failure::new(Kind::Usage, error.to_string())),
    }
}

/// Starts and fills a cell of two servers on addresses that nobody uses.
async fn start(folder: &Folder, faults: &Faults) -> Result<(Arc<Cell>, Ipv4Addr), Failure> {
    let first = Ipv4Addr::new(127, 71, 0, 0).to_bits() + std::process::id() % 0x8000 * 2;
    let mut tried = first;
    let cell = loop {
        let settings = Settings {
            addresses: [tried, tried + 1].map(Ipv4Addr::from_bits).to_vec(),
            spill: Some(folder.path("")),
            faults: faults.clone(),
            ..Settings::new(CELL, Ipv4Addr::LOCALHOST)
        };
        match Cell::start(settings).await {
            Ok(cell) => break cell,
            // Of the network that follows.
            Err(CellError::Bind(_)) if tried < first + (ADDRESS_TRIES << 16) => tried += 1 << 16,
            Err(error) => {
                return Err(Failure::new(
                    Kind::Address,
                    format!("cannot start a cell: {error}"),
                ));
            }
        }
    };
    let failed = |error: CellError| Failure::new(Kind::Other, format!("cannot fill the cell: {error}"));
    cell.furnish().await.map_err(failed)?;
    cell.write("work", CLOCK, b"").await.map_err(failed)?;
    Ok((Arc::new(cell), Ipv4Addr::from_bits(tried)))
}

/// Somebody else who works in the cell: writes a file anew each second, which breaks the promise of who has read it.
async fn tell_the_time(cell: Arc<Cell>) {
    let mut ticks = 0_u64;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        ticks += 1;
        let text = format!("changed {ticks} times by somebody else\n");
        if let Err(error) = cell.write("work", CLOCK, text.as_bytes()).await {
            tracing::warn!(%error, "the clock stands");
            return;
        }
    }
}

/// Makes the backup of the volume that anybody may write to, whenever SIGUSR1 asks for that.
async fn back_up(cell: Arc<Cell>) {
    let Ok(mut asked) = signal(SignalKind::user_defined1()) else {
        return;
    };
    while asked.recv().await.is_some() {
        if let Err(error) = cell.back_up("work").await {
            tracing::warn!(%error, "no backup");
        }
    }
}

fn banner(at: &Path, metrics: SocketAddr) -> String {
    let top = at.join(CELL);
    let top = top.display();
    let metrics = format!("http://{metrics}/metrics");
    format!(
        "An AFS cell of two file servers is mounted at {}. Try:

  ls -l {top}
  cat {top}/ro/hello
  cp -r /etc/skel {top}/work/
  watch -n 1 cat {top}/work/{CLOCK}
  curl -s {metrics} | grep -e callback_breaks -e connection_acquires

ro is on both servers; anybody may write to work. Somebody else changes work/{CLOCK} each second: the
server breaks the promise that your copy is good. Metrics: {metrics}
Ctrl-C ends it and leaves nothing behind.
",
        at.display()
    )
}

fn read_faults(file: &Path) -> Result<Faults, Failure> {
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::new(Kind::Usage, format!("fault file {shown} cannot be read: {error}")))?;
    let rules = faults::parse(&text)
        .map_err(|error| Failure::new(Kind::Usage, format!("fault file {shown}: {error}")))?;
    let faults = Faults::default();
    rules.into_iter().for_each(|rule| faults.add(rule));
    Ok(faults)
}

/// Becomes the script of the real cell.
fn real(options: &Demo) -> Result<(), Failure> {
    if options.faults.is_some() {
        return Err(Failure::new(Kind::Usage, "--faults is for the embedded cell"));
    }
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(Kind::Other, format!("cannot find myself: {error}")))?;
    let script = script_near(&program).ok_or_else(|| {
        Failure::new(Kind::Other, "the script testcell/demo is not near this program")
            .cure("run `make demo CELL=openafs' in the source tree, or leave --cell openafs out")
    })?;
    let mut tour = Command::new(&script);
    tour.env("AFS_BIN", &program);
    if let Some(at) = &options.mountpoint {
        tour.env("AFS_DEMO_MOUNTPOINT", check_mount_point(at)?);
    }
    if let Some(metrics) = &options.metrics {
        tour.env("AFS_DEMO_METRICS", metrics.to_string());
    }
    let error = tour.exec();
    Err(Failure::new(
        Kind::Other,
        format!("cannot run {}: {error}", script.display()),
    ))
}

fn script_near(program: &Path) -> Option<PathBuf> {
    let mut scripts = program.ancestors().map(|folder| folder.join("testcell/demo"));
    scripts.find(|script| script.is_file())
}

/// The name of the cell.
const CELL: &str = "demo.example";
/// The file that somebody else changes.
const CLOCK: &str = "clock";
const METRICS_PORT: u16 = 9465;
const ADDRESS_TRIES: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_file_is_refused_with_line_and_column() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("faults");
        std::fs::write(&file, "on 1 fs any: duplicate\non 1 fs any: explode\n").unwrap();
        let failure = read_faults(&file).unwrap_err();
        assert_eq!(failure.kind(), Kind::Usage);
        let text = failure.to_string();
        assert!(text.contains("line 2, column 14: `explode' is not"), "{text}");
        let missing = read_faults(&folder.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("cannot be read"), "{missing}");
    }

    #[test]
    fn the_script_of_the_real_cell_is_looked_for_above_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("target/release/afs");
        assert_eq!(script_near(&program), None);
        std::fs::create_dir(folder.path().join("testcell")).unwrap();
        let script = folder.path().join("testcell/demo");
        std::fs::write(&script, "").unwrap();
        assert_eq!(script_near(&program), Some(script));
    }

    #[test]
    fn the_mount_is_one_of_the_command_line() {
        let address = Ipv4Addr::new(127, 71, 0, 1);
        let paths = ["/d/CellServDB", "/d/log", "/d/mnt"].map(Path::new);
        let metrics = SocketAddr::from((address, 9465));
        let mount = mount_options(paths[0], paths[1], address, metrics, paths[2]).unwrap();
        assert!(
            mount.foreground
                && mount.client.address == Some(address)
                && mount.client.metrics == Some(metrics)
        );
        assert_eq!(mount.mount_point, paths[2]);
    }
}
