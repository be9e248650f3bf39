//! The program: from the command line to a mount that ends in order.
//!
//! The machine: check everything that can be checked, start the file system, see that the home cell answers, mount, say
//! that it is ready, and wait for the unmount or a signal. Then the way back: store, give up, unmount, end.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use afs_client::cell::{CellName, Cells, CellsConfig};
use afs_client::fs::{AfsFs, CacheConfig, CacheKey, Config, Encryption, StartError};
use clap::Parser;
use rxrpc::net::EndpointConfig;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::adapter::Shared;
use crate::cli::{Cli, Client, Command, Mount, Passthrough, Reveal};
use crate::ctl::server::{Policy, Socket};
use crate::daemon::{self, Caller};
use crate::demo;
use crate::environment;
use crate::failure::{Failure, Kind};
use crate::fstab;
use crate::identity::Identities;
use crate::keeper;
use crate::mount::{
    FS_TYPE, Unmounted, answers, check_fuse, check_mount_point, lexical, mounted_at, unmount,
};
use crate::pagsh;
use crate::read_ahead;
use crate::report::{Reports, Served};
use crate::secret;
use crate::serve;
use crate::service;
use crate::session::{Ended, Options, Session};
use crate::telemetry::http::{self, Pages};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::page::Shown;
use crate::telemetry::trace;
use crate::token;
use crate::{status, top, why};

/// Does what the command line says.
pub fn run() -> ExitCode {
    let mut arguments = std::env::args_os();
    if fstab::is_asked(arguments.next().as_deref()) {
        return fstab::run(arguments);
    }
    let command = Cli::parse().command;
    let is_checked = match &command {
        // The one that was started as a daemon was looked at by who started it.
        Command::Mount(options) => !options.report_on_stdout,
        Command::Keeper(_) | Command::Serve(_) => true,
        _ => false,
    };
    if is_checked && let Err(failure) = environment::check() {
        return failure.show();
    }
    match command {
        Command::Mount(options) if options.fd_store => serve::run_stored(&options),
        Command::Mount(options) if !options.foreground && !options.report_on_stdout => daemon::start(),
        Command::Mount(options) => mount(&options),
        Command::Keeper(options) => keeper::run(&options),
        Command::Serve(options) => serve::run(&options),
        Command::Aklog(options) => token::aklog(&options),
        Command::Tokens(options) => token::tokens(&options),
        Command::Unlog(options) => token::unlog(&options),
        Command::Pagsh(options) => pagsh::pagsh(&options),
        Command::Status(options) => ended(status::status(&options)),
        Command::Why(options) => ended(why::why(&options)),
        Command::Reveal(options) => ended(reveal(&options)),
        Command::Top(options) => ended(top::top(&options)),
        Command::Trace(options) => ended(crate::trace::trace(&options)),
        Command::Umount(options) => ended(umount(&options.mount_point)),
        Command::Demo(options) => ended(demo::run(&options)),
    }
}

fn ended(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.show(),
    }
}

/// Called when a mount answers.
pub(crate) type Ready<'a> = &'a mut dyn FnMut(&AfsFs, &Arc<Metrics>);

fn mount(options: &Mount) -> ExitCode {
    let mut caller = match Caller::new(&options.client, options.report_on_stdout) {
        Ok(caller) => caller,
        Err(error) => return Failure::new(Kind::Other, format!("cannot start: {error}")).show(),
    };
    match mount_and_serve(options, &mut caller, &mut |_, _| {}) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!("{failure}");
            caller.failed(&failure)
        }
    }
}

/// From the checks to the end of the mount.
pub(crate) fn mount_and_serve(options: &Mount, caller: &mut Caller, ready: Ready<'_>) -> Result<(), Failure> {
    let at = check_mount_point(&options.mount_point)?;
    check_fuse(allows_others(options))?;
    let setup = Setup::read(&options.client)?;
    secret::keep()?;
    caller.leave(&at)?;
    on_runtime(|runtime| serve_on(runtime, options, caller, ready, &at, setup))
}

/// What the options name, checked.
pub(crate) struct Setup {
    cells: Arc<Cells>,
    cache: CacheConfig,
    notes: Option<PathBuf>,
}

impl Setup {
    pub(crate) fn read(options: &Client) -> Result<Self, Failure> {
        let cells = Arc::new(load_cells(options)?);
        let cache = match (&options.cache_dir, options.cache_memory) {
            (Some(dir), _) => CacheConfig::Dir {
                path: absolute(dir)?,
                max_bytes: options.cache_size.0,
                encryption: encryption(options)?,
            },
            (None, size) => CacheConfig::Memory {
                max_bytes: size.map_or(CACHE_MEMORY, |size| size.0),
            },
        };
        Ok(Self {
            cells,
            cache,
            notes: None,
        })
    }

    /// For a mount at this place, which nobody keeps. What a cache directory has to hide is nowhere else.
    fn at(self, at: &Path) -> Self {
        let is_memory = matches!(self.cache, CacheConfig::Memory { .. });
        let notes = is_memory.then(|| daemon::notes_of(at)).flatten();
        Self { notes, ..self }
    }
}

/// Runs with threads and tracing.
pub(crate) fn on_runtime<T>(serve: impl FnOnce(&Runtime) -> Result<T, Failure>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .enable_all()
        .thread_name("afs")
        .build()
        .map_err(|error| Failure::new(Kind::Other, format!("cannot start threads: {error}")))?;
    let tracing = runtime.block_on(async { trace::start() });
    let result = serve(&runtime);
    tracing.flush();
    // Tasks that wait for nothing but time are not waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// How many threads wait for servers: one for two processors. The kernel's requests have theirs, and two of these on two
/// processors wake each other for every datagram (docs/testing.md).
fn workers() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).max(1)
}

/// Others may use the mount too: root asks for that by itself.
fn allows_others(options: &Mount) -> bool {
    options.allow_other || rustix::process::geteuid().is_root()
}

fn serve_on(
    runtime: &Runtime,
    options: &Mount,
    caller: &mut Caller,
    ready: Ready<'_>,
    at: &Path,
    setup: Setup,
) -> Result<(), Failure> {
    let started = Started::start(runtime, &options.client, setup.at(at))?;
    started.check_home(runtime)?;
    let Started {
        fs,
        metrics,
        pages,
        page,
        signals,
        identities,
        shared,
    } = started;
    serve::log_in(runtime, &fs, &options.client)?;
    let session = Session::mount(
        shared,
        at,
        Options {
            read_only: options.client.read_only,
            allow_other: allows_others(options),
        },
    )?;
    let broken = |error: std::io::Error| {
        let _ = unmount(at, Duration::ZERO);
        Failure::new(
            Kind::Fuse,
            format!("the mount at {} does not answer: {error}", at.display()),
        )
    };
    let ended = session
        .start(fs.take_invalidations(), Arc::clone(&metrics))
        .map_err(broken)?;
    answers(at).map_err(broken)?;
    read_ahead::widen(at);
    let served = Served::new(at, options.client.read_only, allows_others(options), page);
    let reports = Reports::new(served, &fs, &metrics);
    pages.show(reports.clone());
    let _socket = runtime.block_on(async { listen(reports, identities) });
    tracing::info!(port = fs.local_addr().port(), "mounted at {}", at.display());
    service::ready(&format!("mounted at {}", at.display()));
    // Nobody waits for the report any more: the mount is good all the same.
    let _ = caller.ready();
    metrics.attached(false);
    ready(&fs, &metrics);
    fs.remove_hidden();

    runtime.block_on(wait(ended, signals, at, &fs));
    pages.end();
    runtime.block_on(fs.shutdown());
    tracing::info!("ended");
    Ok(())
}

/// A file system whose home cell answers, and what serves it; no session with the kernel yet.
pub(crate) struct Started {
    pub(crate) fs: AfsFs,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) pages: Pages,
    pub(crate) page: Option<Shown>,
    pub(crate) signals: Signals,
    pub(crate) identities: Arc<Identities>,
    pub(crate) shared: Arc<Shared>,
}

impl Started {
    pub(crate) fn start(runtime: &Runtime, options: &Client, setup: Setup) -> Result<Self, Failure> {
        let metrics = Arc::new(
            Metrics::new()
                .map_err(|error| Failure::new(Kind::Other, format!("cannot make metrics: {error}")))?,
        );
        let pages = Pages::new(Arc::clone(&metrics));
        let page = options
            .metrics
            .map(|address| Shown::at(runtime.handle(), address, http::of_mount(pages.clone())));
        let fs = runtime.block_on(start(options, setup, &metrics))?;
        metrics.watch(fs.clone());
        let signals = runtime.block_on(async { Signals::new() });
        let signals =
            signals.map_err(|error| Failure::new(Kind::Other, format!("cannot take signals: {error}")))?;

        let identities = Arc::new(Identities::new(options.identity));
        let shared = Shared::new(
            fs.clone(),
            runtime.handle().clone(),
            options.deadline(),
            Arc::clone(&metrics),
            Arc::clone(&identities),
        );
        shared
            .passthrough()
            .want(options.passthrough == Passthrough::Auto);
        Ok(Self {
            fs,
            metrics,
            pages,
            page,
            signals,
            identities,
            shared,
        })
    }

    /// Does the home cell answer?
    pub(crate) fn check_home(&self, runtime: &Runtime) -> Result<(), Failure> {
        let Err(error) = runtime.block_on(self.fs.check_home()) else {
            return Ok(());
        };
        runtime.block_on(self.fs.shutdown());
        Err(if error.errno() == rustix::io::Errno::TIMEDOUT.raw_os_error() {
            Failure::new(Kind::NoServer, format!("{error}"))
                .cure("check that the servers run and that UDP 7000 to 7003 reaches them")
        } else {
            Failure::new(Kind::Cell, format!("{error}"))
        })
    }
}

/// Opens the control socket. Without it the mount works, as nobody.
pub(crate) fn listen(reports: Reports, identities: Arc<Identities>) -> Option<Socket> {
    let served = Arc::clone(&reports.served);
    let name = daemon::name_of(&served.at);
    let socket = Socket::listen(&name, reports, Policy { served, identities });
    socket
        .inspect_err(|error| tracing::warn!(%error, "no control socket: commands do not find the mount"))
        .ok()
}

async fn start(options: &Client, setup: Setup, metrics: &Arc<Metrics>) -> Result<AfsFs, Failure> {
    let tokens = options.protection.rules()?;
    let (client_idle, service_idle) = options.connection_idle();
    let address = options.address.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let wanted = options.port.unwrap_or(CALLBACK_PORT);
    let ports = if options.port.is_some() {
        vec![wanted]
    } else {
        vec![wanted, 0]
    };
    let mut last = None;
    for port in ports {
        let config = Config {
            cells: Arc::clone(&setup.cells),
            endpoint: EndpointConfig {
                bind: SocketAddrV4::new(address, port),
                version: concat!("afs-fuse ", env!("CARGO_PKG_VERSION")).to_owned(),
                client_idle,
                service_idle,
                ..EndpointConfig::default()
            },
            cache: setup.cache.clone(),
            notes: setup.notes.clone(),
            store_behind: options.store_behind,
            read_only: options.read_only,
            deadline: options.deadline(),
            max_vnodes: Config::MAX_VNODES,
            tokens: tokens.clone(),
            locks: options.locks.into(),
            sysnames: options.sysname.clone().unwrap_or_default(),
            fakestat: options.fakestat.into(),
        };
        match AfsFs::start(config, Arc::clone(metrics) as Arc<dyn rxrpc::events::Sink>).await {
            Ok(fs) => return Ok(fs),
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(error @ StartError::Bind(_)) => {
            Failure::new(Kind::Address, error.to_string()).cure("choose another with --port or --address")
        }
        Some(error @ StartError::Cache(_)) => {
            Failure::new(Kind::Cache, error.to_string()).cure("choose another directory with --cache-dir")
        }
        Some(error) => Failure::new(Kind::Other, error.to_string()),
        None => Failure::new(Kind::Other, "no port to try"),
    })
}

/// How the cache is encrypted. A key is read here, before the process leaves its terminal and its descriptors.
fn encryption(options: &Client) -> Result<Encryption, Failure> {
    match &options.cache_key_file {
        Some(file) => Ok(Encryption::Key(cache_key(file)?)),
        None if options.cache_encrypt => Ok(Encryption::Passing),
        None => Ok(Encryption::Off),
    }
}

fn cache_key(file: &Path) -> Result<CacheKey, Failure> {
    CacheKey::read(file).map_err(|error| Failure::new(Kind::Cache, error.to_string()))
}

/// Shows what an encrypted cache has set aside.
fn reveal(options: &Reveal) -> Result<(), Failure> {
    let key = cache_key(&options.cache_key_file)?;
    let about = afs_client::fs::reveal(&options.folder, &key, &mut std::io::stdout().lock())
        .map_err(|error| Failure::new(Kind::Cache, format!("{}: {error}", options.folder.display())))?;
    eprint!("{about}");
    Ok(())
}

fn load_cells(options: &Client) -> Result<Cells, Failure> {
    let home = match &options.cell {
        Some(name) => Some(CellName::new(name).map_err(|_| {
            Failure::new(Kind::Cell, format!("{name:?} is not the name of a cell"))
                .cure("give one like example.org with --cell")
        })?),
        None => None,
    };
    Cells::load(&CellsConfig {
        home,
        cellservdb: options.cellservdb.clone(),
    })
    .map_err(|error| Failure::new(Kind::Cell, error.to_string()).cure("give --cell and --cellservdb"))
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::new(Kind::Cache, format!("{}: {error}", path.display())))
}

/// Waits until the mount is gone, or a signal asks for that.
async fn wait(mut ended: Ended, mut signals: Signals, at: &Path, fs: &AfsFs) {
    tokio::select! {
        _ = &mut ended => return,
        _ = signals.one() => {}
    }
    service::stopping();
    unmount_in_order(ended, signals, at, fs).await;
}

/// Stores what is dirty, unmounts, and waits until the session has ended.
pub(crate) async fn unmount_in_order(ended: Ended, mut signals: Signals, at: &Path, fs: &AfsFs) {
    tracing::info!("ending: storing what is dirty");
    let _second = tokio::spawn(async move {
        signals.one().await;
        tracing::error!("a second signal: ending at once");
        std::process::exit(1);
    });
    // What was written so far is stored while the mount still answers.
    fs.store_all().await;
    let path = at.to_owned();
    match tokio::task::spawn_blocking(move || unmount(&path, UNMOUNT_PATIENCE)).await {
        Ok(Ok(Unmounted::Detached)) => tracing::warn!("the mount is in use: detached"),
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::error!(%error, "cannot unmount"),
        Err(error) => tracing::error!(%error, "cannot unmount"),
    }
    // A detached mount ends when its last user does: it is not waited for.
    let _ = tokio::time::timeout(UNMOUNT_PATIENCE, ended).await;
}

/// SIGTERM, SIGINT and SIGHUP.
pub(crate) struct Signals([tokio::signal::unix::Signal; 3]);

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// To end: SIGTERM, SIGINT.
    End,
    /// To begin again, where that is possible: SIGHUP.
    Again,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self([
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    pub(crate) async fn one(&mut self) -> Signal {
        let [terminate, interrupt, hang_up] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => Signal::End,
            _ = interrupt.recv() => Signal::End,
            _ = hang_up.recv() => Signal::Again,
        }
    }
}

fn umount(path: &Path) -> Result<(), Failure> {
    let at = std::path::absolute(path).map_or_else(|_| path.to_owned(), |path| lexical(&path));
    let shown = at.display();
    match mounted_at(&at) {
        Some(mounted) if mounted.fs_type == FS_TYPE => {}
        Some(mounted) => {
            let what = format!(
                "{shown} is a mount of {} ({}), not of afs",
                mounted.source, mounted.fs_type
            );
            return Err(Failure::new(Kind::MountPoint, what).cure(format!("use `umount {shown}'")));
        }
        None => {
            return Err(Failure::new(Kind::MountPoint, format!("{shown} is not mounted"))
                .cure("see what is with `findmnt -t fuse.afs'"));
        }
    }
    match unmount(&at, UNMOUNT_PATIENCE) {
        Ok(Unmounted::Detached) => {
            eprintln!("afs: {shown} is in use: it is detached, and ends when its last user does");
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new(
            Kind::MountPoint,
            format!("{shown} cannot be unmounted: {error}"),
        )),
    }
}

/// The port that servers and tools expect.
const CALLBACK_PORT: u16 = 7001;
const CACHE_MEMORY: u64 = 128 << 20;
/// How long a mount may be in use before it is detached.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(2);
