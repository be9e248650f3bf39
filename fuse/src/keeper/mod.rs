//! `afs keeper`: holds a mount while the processes that serve it come and go.
//!
//! The machine: it opens the device, mounts, and keeps a duplicate of the descriptor beside the state that servers write. It
//! speaks to nobody but servers, over a socket, and knows no AFS. Who connects is asked for by the kernel (SO_PEERCRED). One
//! server is given the mount; when a second asks, the first is told to retire. Without a server programs wait; if that
//! lasts too long the connection with the kernel is aborted, and they get errors instead.

mod message;
mod ward;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgAction, Args};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::failure::{Failure, Kind};
use crate::kept::Log;
use crate::mount::{FS_TYPE, check_fuse, check_mount_point, lexical, mounted_at, unmount};
use crate::process::is_zombie;
use crate::read_ahead;
use crate::session::{Options, mount_direct, refused};
use crate::telemetry::http;
use crate::telemetry::keeper::{Came, KeeperMetrics};
use crate::telemetry::page::Shown;
use message::{receive, send};

pub use message::{Held, Message, Place};
pub use ward::Ward;

/// Options of `afs keeper`.
#[derive(Args, Clone, Debug)]
pub struct Keeper {
    /// Where servers ask for the mount (`afs serve --fd-socket SOCKET')
    #[arg(long, env = "AFS_FD_SOCKET", value_name = "SOCKET")]
    pub socket: PathBuf,

    /// The user that servers are; root is always let in
    #[arg(long, env = "AFS_SERVER_UID", value_name = "UID", default_value = "65534")]
    pub server_uid: u32,

    /// After so many seconds without a server, programs that wait get errors
    #[arg(long, env = "AFS_ORPHAN_DEADLINE", value_name = "SECS", default_value = "60",
          value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub orphan_deadline: u64,

    /// Mount afresh after that, rather than end
    #[arg(long, env = "AFS_REMOUNT", action = ArgAction::SetTrue)]
    pub remount: bool,

    /// Refuse every change
    #[arg(long, env = "AFS_READ_ONLY", action = ArgAction::SetTrue)]
    pub read_only: bool,

    /// Serve Prometheus metrics of the keeper itself at http://ADDR:PORT/metrics, and /healthz
    #[arg(long, env = "AFS_KEEPER_METRICS", value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,

    /// An empty directory
    #[arg(value_name = "MOUNTPOINT")]
    pub mount_point: PathBuf,
}

/// Runs `afs keeper`.
pub fn run(options: &Keeper) -> ExitCode {
    match keep(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.show(),
    }
}

fn keep(options: &Keeper) -> Result<(), Failure> {
    let other = |error: io::Error| Failure::new(Kind::Other, format!("cannot keep a mount: {error}"));
    check_fuse(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(other)?;
    let metrics = KeeperMetrics::new()
        .map(Arc::new)
        .map_err(|error| Failure::new(Kind::Other, format!("cannot make metrics: {error}")))?;
    runtime.block_on(async { crate::telemetry::trace::start() });
    if let Some(address) = options.metrics {
        Shown::at(runtime.handle(), address, http::of_keeper(Arc::clone(&metrics)));
    }
    runtime.block_on(async {
        let listener = listen_at(&options.socket)?;
        let (tell, events) = mpsc::channel(EVENTS);
        let state = Keeping {
            options: options.clone(),
            held: adopt_or_mount(options)?,
            serving: None,
            waiting: None,
            given: 0,
            orphaned: Instant::now(),
            metrics,
        };
        let ended = state.run(listener, tell, events).await;
        let _ = std::fs::remove_file(&options.socket);
        ended
    })
}

/// A fresh mount; none if there is one already that its server may give us.
fn adopt_or_mount(options: &Keeper) -> Result<Option<Mounted>, Failure> {
    let at = std::path::absolute(&options.mount_point)
        .map_or_else(|_| options.mount_point.clone(), |at| lexical(&at));
    let there = mounted_at(&at).is_some_and(|there| there.fs_type == FS_TYPE);
    if there && is_alive(&at) {
        tracing::info!("there is a mount already: waiting for its server");
        return Ok(None);
    }
    Mounted::fresh(options).map(Some)
}

/// Is there a process that has the other end of a mount? The mount itself is not asked: that might wait for ever.
fn is_alive(at: &Path) -> bool {
    let at = at.to_owned();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let found = std::fs::metadata(&at);
        let _ = tell.send(found.err().and_then(|error| error.raw_os_error()));
    });
    match told.recv_timeout(GLANCE) {
        Ok(errno) => errno != Some(libc::ENOTCONN),
        // Somebody holds it, or nobody would wait.
        Err(_) => true,
    }
}

fn orphan_deadline(options: &Keeper) -> Duration {
    Duration::from_secs(options.orphan_deadline)
}

/// A mount that is held.
#[derive(Debug)]
struct Mounted {
    held: Held,
    place: Place,
}

impl Mounted {
    fn fresh(options: &Keeper) -> Result<Self, Failure> {
        let at = check_mount_point(&options.mount_point)?;
        let how = Options {
            read_only: options.read_only,
            allow_other: true,
        };
        let device = mount_direct(&at, how).map_err(|error| refused(&at, &error.into()))?;
        let state = Log::in_memory()
            .and_then(|log| log.as_fd().try_clone_to_owned())
            .map_err(|error| {
                Failure::new(
                    Kind::Other,
                    format!("no memory for the state of a mount: {error}"),
                )
            })?;
        tracing::info!("mounted at {}", at.display());
        Ok(Self {
            held: Held { device, state },
            place: Place {
                at,
                read_only: options.read_only,
            },
        })
    }

    /// Has all who wait get errors, and takes the mount down.
    fn abort(self) {
        let connection = connection_of(&self.place.at);
        if let Some(connection) = &connection
            && let Err(error) = std::fs::write(connection, "1")
        {
            // Nobody else has the descriptor, as far as we know: its end is the end of the connection.
            tracing::debug!(%error, "{} cannot be written", connection.display());
        }
        drop(self.held);
    }
}

/// The file by which the connection of a mount is aborted.
fn connection_of(at: &Path) -> Option<PathBuf> {
    let minor = mounted_at(at)?.device.minor;
    Some(PathBuf::from(format!("/sys/fs/fuse/connections/{minor}/abort")))
}

/// The state of a keeper.
struct Keeping {
    options: Keeper,
    /// None: a server of a keeper before us may have it.
    held: Option<Mounted>,
    serving: Option<Peer>,
    waiting: Option<Peer>,
    /// How many servers were given the mount.
    given: u64,
    /// Since when there has been no server, if there is none.
    orphaned: Instant,
    metrics: Arc<KeeperMetrics>,
}

/// A server.
#[derive(Clone, Debug)]
struct Peer {
    number: u64,
    connection: Arc<UnixStream>,
}

impl Peer {
    fn tell(&self, message: &Message, along: Option<&Held>) -> io::Result<()> {
        send(self.connection.as_fd(), message, along)
    }
}

/// What a server says, or that it is gone.
enum Event {
    Said(Peer, Message, Option<Held>),
    Gone(u64),
}

impl Keeping {
    async fn run(
        mut self,
        listener: UnixListener,
        tell: mpsc::Sender<Event>,
        mut events: mpsc::Receiver<Event>,
    ) -> Result<(), Failure> {
        let other = |error: io::Error| Failure::new(Kind::Other, format!("cannot take signals: {error}"));
        let mut terminate = signal(SignalKind::terminate()).map_err(other)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(other)?;
        let mut connected = 0;
        loop {
            self.metrics.holds(self.held.is_some(), self.serving.is_some());
            tokio::select! {
                accepted = listener.accept() => match accepted.and_then(|(connection, _)| self.admit(connection)) {
                    Ok(connection) => {
                        connected += 1;
                        let peer = Peer { number: connected, connection: Arc::new(connection) };
                        tokio::spawn(hear(peer, tell.clone()));
                    }
                    Err(error) => tracing::warn!(%error, "somebody is not let in"),
                },
                Some(event) = events.recv() => self.on(event)?,
                () = sleep_until(self.orphaned + orphan_deadline(&self.options)), if self.serving.is_none() => self.give_up("no server came")?,
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        self.end(&mut events).await;
        Ok(())
    }

    /// Lets the users in that may serve.
    fn admit(&self, connection: UnixStream) -> io::Result<UnixStream> {
        let user = connection.peer_cred()?.uid();
        if user == ROOT || user == self.options.server_uid {
            Ok(connection)
        } else {
            Err(io::Error::other(format!("user {user} may not serve")))
        }
    }

    fn on(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Said(peer, Message::Take, _) => self.take(peer),
            Event::Said(peer, Message::Keep(place), Some(held)) => self.keep(peer, place, held),
            Event::Said(peer, Message::Serving, _) => {
                tracing::info!(server = peer.number, "the mount answers");
                if let Some(mounted) = &self.held {
                    read_ahead::widen(&mounted.place.at);
                }
            }
            Event::Said(peer, Message::Hopeless(why), _) if self.serves(peer.number) => {
                self.serving = None;
                self.metrics.came(Came::Hopeless);
                self.give_up(&why)?;
            }
            Event::Said(peer, message, _) => {
                tracing::warn!(server = peer.number, ?message, "it makes no sense here");
            }
            Event::Gone(number) => self.gone(number),
        }
        Ok(())
    }

    fn serves(&self, number: u64) -> bool {
        self.serving.as_ref().is_some_and(|peer| peer.number == number)
    }

    fn take(&mut self, peer: Peer) {
        if let Some(serving) = &self.serving {
            tracing::info!(
                server = peer.number,
                "another server comes: this one is told to retire"
            );
            // If it has gone, we are about to hear of that.
            let _ = serving.tell(&Message::Retire, None);
        }
        if let Some(before) = self.waiting.replace(peer) {
            let _ = before.tell(&Message::Refused("another one has asked since".to_owned()), None);
        }
        self.give();
    }

    /// Gives the mount to who waits for it.
    fn give(&mut self) {
        let (None, Some(mounted)) = (&self.serving, &self.held) else {
            return;
        };
        let Some(peer) = self.waiting.take() else {
            return;
        };
        match peer.tell(&Message::Given(mounted.place.clone()), Some(&mounted.held)) {
            Ok(()) => {
                self.given += 1;
                self.metrics.came(Came::Given);
                if self.given > 1 {
                    self.metrics.orphaned(self.orphaned.elapsed());
                }
                tracing::info!(
                    server = peer.number,
                    given = self.given,
                    "the mount was given to a server"
                );
                self.serving = Some(peer);
            }
            Err(error) => tracing::warn!(%error, "a server cannot be reached"),
        }
    }

    /// Takes a mount that a server has, because the keeper before us is gone.
    fn keep(&mut self, peer: Peer, place: Place, held: Held) {
        if self.held.is_some() {
            let why = "another mount is kept already";
            let _ = peer.tell(&Message::Refused(why.to_owned()), None);
            return;
        }
        tracing::info!(server = peer.number, "a server brings its mount");
        self.held = Some(Mounted { held, place });
        self.given += 1;
        let comes_next = self.waiting.is_some();
        if comes_next {
            let _ = peer.tell(&Message::Retire, None);
        }
        self.serving = Some(peer);
    }

    fn gone(&mut self, number: u64) {
        if self.waiting.as_ref().is_some_and(|peer| peer.number == number) {
            self.waiting = None;
        }
        if self.serves(number) {
            self.serving = None;
            self.orphaned = Instant::now();
            tracing::warn!(
                server = number,
                "the server has gone: programs wait for the next one"
            );
            self.give();
        }
    }

    /// Nobody comes: those who wait get errors.
    fn give_up(&mut self, why: &str) -> Result<(), Failure> {
        tracing::error!(why, "the mount is given up");
        if let Some(mounted) = self.held.take() {
            let at = mounted.place.at.clone();
            mounted.abort();
            self.metrics.aborted();
            if !self.options.remount {
                // It stays where it is: an error is better than an empty directory.
                return Err(Failure::new(
                    Kind::Fuse,
                    format!("the mount at {} is given up: {why}", at.display()),
                ));
            }
        }
        self.held = Some(Mounted::fresh(&self.options)?);
        self.orphaned = Instant::now();
        self.give();
        Ok(())
    }

    /// Unmounts; a server has time to store what is dirty.
    async fn end(mut self, events: &mut mpsc::Receiver<Event>) {
        if let Some(serving) = &self.serving {
            let number = serving.number;
            let _ = serving.tell(&Message::Retire, None);
            let gone = async {
                while let Some(event) = events.recv().await {
                    if matches!(event, Event::Gone(gone) if gone == number) {
                        return;
                    }
                }
            };
            if tokio::time::timeout(RETIREMENT, gone).await.is_err() {
                tracing::warn!("the server does not end");
            }
        }
        let Some(mounted) = self.held.take() else {
            return;
        };
        let at = mounted.place.at.clone();
        // Out of the tree first: nobody is to begin to wait.
        match unmount(&at, Duration::ZERO) {
            Ok(how) => tracing::info!(?how, "unmounted"),
            Err(error) => tracing::error!(%error, "{} cannot be unmounted", at.display()),
        }
        mounted.abort();
    }
}

async fn hear(peer: Peer, tell: mpsc::Sender<Event>) {
    let connection = &peer.connection;
    let process = connection.peer_cred().ok().and_then(|peer| peer.pid());
    loop {
        tokio::select! {
            readable = connection.readable() => if readable.is_err() { break },
            () = killed(process) => break,
        }
        match connection.try_io(Interest::READABLE, || receive(connection.as_fd())) {
            Ok(Some((message, held))) => {
                if tell.send(Event::Said(peer.clone(), message, held)).await.is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(None) | Err(_) => break,
        }
    }
    // A keeper that ends does not care.
    let _ = tell.send(Event::Gone(peer.number)).await;
}

/// Returns when the process is killed, although a thread of it may be left in the kernel with all that it has open: one
/// that was about to have it forget a name waits there for the directory, which somebody holds who waits for the mount to
/// answer, so for the next server. Never, if the process cannot be seen from here.
async fn killed(process: Option<i32>) {
    let Some(pid) = process.and_then(|pid| u32::try_from(pid).ok()) else {
        return std::future::pending().await;
    };
    // Most have ended wholly a moment later, and are heard of so.
    let mut looks = 0;
    while looks < 3 {
        tokio::time::sleep(LOOKED_AT).await;
        looks = if is_zombie(pid) { looks + 1 } else { 0 };
    }
}

fn listen_at(path: &Path) -> Result<UnixListener, Failure> {
    let listening = || {
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        // What a keeper before us has left.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        // Who connects is looked at.
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
        listen(&socket, BACKLOG)?;
        UnixListener::from_std(socket.into())
    };
    listening().map_err(|error: io::Error| {
        Failure::new(
            Kind::Address,
            format!("socket {} cannot be used: {error}", path.display()),
        )
        .cure("choose another with --socket, in a directory that exists; a path of less than 108 bytes")
    })
}

/// How often a server is looked at.
const LOOKED_AT: Duration = Duration::from_millis(500);
const ROOT: u32 = 0;
const EVENTS: usize = 16;
const BACKLOG: i32 = 8;
/// How long a mount may take to tell whether it is dead.
const GLANCE: Duration = Duration::from_millis(500);
/// How long a server may take to store what is dirty.
const RETIREMENT: Duration = Duration::from_secs(75);
