//! Why a path is slow or refused: the report behind `afs why`.
//!
//! The machine: the path is walked as whoever asks, from the root of the mount and without the kernel, so that a walk that
//! hangs hangs nobody else; it has a time limit. Then everything known of what it leads to (or of the last directory that
//! was reached) is put together, and [`Why::verdict`] says in one sentence what of it matters.

mod judged;

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt;
use std::net::SocketAddrV4;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use afs_client::error::Error;
use afs_client::fs::{Access, AfsFs, Inspection, Kind, Known, Lookup};
use afs_client::history::CallRecord;
use afs_client::types::Fid;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Reports;
use super::status::{RoundTrips, ServerStatus, VolumeStatus};
use super::text::{bytes, seconds, span};

/// Why a path is as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// The path.
    pub path: String,
    /// Who asks, by the rules of identity.
    pub identity: String,
    /// Every change is refused in this mount.
    pub read_only: bool,
    /// The links that were followed.
    pub links: Vec<String>,
    /// Where the walk ended early.
    pub stopped: Option<Stopped>,
    /// What the path leads to; the last directory that was reached, if the walk ended early.
    pub object: Option<Object>,
    /// What of all that matters, in one sentence.
    pub verdict: String,
}

/// A step that could not be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stopped {
    /// The name that was looked up.
    pub name: String,
    /// In this directory.
    pub directory: String,
    /// What came of it.
    pub how: How,
}

/// Why a step could not be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// There is no such name.
    Missing,
    /// It took longer than `afs why` waits.
    Slow,
    /// The link leads out of the mount.
    Outside(String),
    /// It failed.
    Failed {
        /// The errno.
        errno: i32,
        /// In words.
        error: String,
    },
}

/// An object, as far as it may be told to whoever asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Its path below the mount.
    pub path: String,
    /// cell:volume.vnode.uniquifier, as this program numbers cells.
    pub fid: String,
    /// Its volume.
    pub volume: VolumeStatus,
    /// The servers of the volume.
    pub servers: Vec<ServerStatus>,
    /// Whose token calls about it are made with.
    pub principal: Option<String>,
    /// Why no calls about it are made for whoever asks.
    pub no_calls: Option<String>,
    /// Its status, if that is known and may be told.
    pub status: Option<ObjectStatus>,
    /// Who has promised to tell of changes.
    pub promise: Option<PromiseStatus>,
    /// Bytes of its data in the cache.
    pub cached: u64,
    /// Bytes that only we have.
    pub dirty: u64,
    /// The kernel reads its data by itself.
    #[serde(default)]
    pub lent: bool,
    /// The last calls about it, the oldest first.
    pub calls: Vec<Call>,
}

/// The status of an object, and the rights to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectStatus {
    /// `file`, `directory` or `link`.
    pub kind: String,
    /// Its length.
    pub size: u64,
    /// The server's change counter.
    pub data_version: u64,
    /// Permission bits.
    pub mode: u16,
    /// What whoever asks may do, of `rlidwka`.
    pub rights: String,
    /// What anybody may do.
    pub anybody: String,
    /// Whoever asks may read it, or list it.
    pub readable: bool,
    /// Whoever asks may write it, or make entries in it.
    pub writable: bool,
}

/// A promise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromiseStatus {
    /// Who gave it.
    pub server: Option<SocketAddrV4>,
    /// For how long it stands.
    pub left_seconds: f64,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The procedure.
    pub procedure: String,
    /// Whom it was made to.
    pub server: SocketAddrV4,
    /// When it was begun.
    pub ago_seconds: f64,
    /// How long it took; nothing while it is under way.
    pub took_seconds: Option<f64>,
    /// Why it failed.
    pub error: Option<String>,
}

impl Reports {
    /// Why `path`, which begins at the root of the mount, is as it is for whoever `fs` stands for. `identity` is what they
    /// are called, `all` says that they may hear of the calls of others. Bounded in time.
    pub async fn why(&self, fs: &AfsFs, path: &Path, identity: String, all: bool) -> Why {
        let end = Instant::now() + PATIENCE;
        let mut walk = Walk::new(fs, &self.served.at, path, end);
        let stopped = walk.go().await;
        let (fid, at) = walk.reached();
        if stopped.is_none() {
            // What is known of it is to be what is so now. A mount point is crossed for that.
            let _ = tokio::time::timeout_at(end, fs.access(fid, Access::default())).await;
        }
        let trips = RoundTrips::now(self);
        let object = fs.inspect(fid, all).ok();
        let object = object.map(|found| Object::new(at, fid, found, &trips));
        let mut why = Why {
            path: shown(path.as_os_str().as_bytes()),
            identity,
            read_only: self.served.read_only,
            links: walk.links,
            stopped,
            object,
            verdict: String::new(),
        };
        why.verdict = why.judged();
        why
    }
}

/// A walk from the root of the mount.
struct Walk<'a> {
    fs: &'a AfsFs,
    at: &'a Path,
    end: Instant,
    /// The directories on the way, and what was reached; with the names that led there.
    way: Vec<(Fid, Vec<u8>)>,
    left: VecDeque<Vec<u8>>,
    links: Vec<String>,
}

impl<'a> Walk<'a> {
    fn new(fs: &'a AfsFs, at: &'a Path, path: &Path, end: Instant) -> Self {
        let mut walk = Self {
            fs,
            at,
            end,
            way: vec![(fs.root(), Vec::new())],
            left: VecDeque::new(),
            links: Vec::new(),
        };
        walk.ahead(path);
        walk
    }

    /// Goes along `path` next.
    fn ahead(&mut self, path: &Path) {
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => self.left.push_front(name.as_bytes().to_vec()),
                Component::ParentDir => self.left.push_front(b"..".to_vec()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
    }

    fn reached(&self) -> (Fid, String) {
        let names: Vec<_> = self.way.iter().skip(1).map(|(_, name)| shown(name)).collect();
        let fid = self.way.last().map_or_else(|| self.fs.root(), |(fid, _)| *fid);
        (fid, names.join("/"))
    }

    /// To the end; or where and why not.
    async fn go(&mut self) -> Option<Stopped> {
        while let Some(name) = self.left.pop_front() {
            if name == b".." {
                if self.way.len() > 1 {
                    self.way.pop();
                }
                continue;
            }
            if let Err(how) = self.step(&name).await {
                return Some(Stopped {
                    name: shown(&name),
                    directory: self.reached().1,
                    how,
                });
            }
        }
        None
    }

    async fn step(&mut self, name: &[u8]) -> Result<(), How> {
        let (dir, _) = self.reached();
        let found = match self.fs.lookup_cached(dir, name) {
            Some(found) => found,
            None => self.limited(self.fs.lookup(dir, name)).await?,
        };
        let entry = match found.map_err(How::from)? {
            Lookup::Found(entry) => entry,
            Lookup::Absent { .. } => return Err(How::Missing),
        };
        if entry.attr.kind != Kind::Symlink {
            self.way.push((entry.fid, name.to_vec()));
            return Ok(());
        }
        let text = self
            .limited(self.fs.readlink(entry.fid))
            .await?
            .map_err(How::from)?;
        let target = PathBuf::from(OsStr::from_bytes(&text));
        self.links.push(format!(
            "{}/{} -> {}",
            self.reached().1,
            shown(name),
            shown(&text)
        ));
        if self.links.len() > MAX_LINKS {
            return Err(Error::from(Errno::LOOP).into());
        }
        if target.is_absolute() {
            let Ok(inside) = target.strip_prefix(self.at) else {
                return Err(How::Outside(shown(&text)));
            };
            self.way.truncate(1);
            self.ahead(inside);
        } else {
            self.ahead(&target);
        }
        Ok(())
    }

    async fn limited<T>(&self, work: impl Future<Output = T>) -> Result<T, How> {
        tokio::time::timeout_at(self.end, work)
            .await
            .map_err(|_| How::Slow)
    }
}

impl From<Error> for How {
    fn from(error: Error) -> Self {
        Self::Failed {
            errno: error.errno(),
            error: error.to_string(),
        }
    }
}

impl Object {
    fn new(path: String, fid: Fid, found: Inspection, trips: &RoundTrips) -> Self {
        Self {
            path,
            fid: fid.to_string(),
            servers: found
                .volume
                .servers
                .iter()
                .map(|server| trips.server(server))
                .collect(),
            volume: VolumeStatus::from(&found.volume),
            principal: found.client,
            no_calls: found.no_proof.map(|error| error.to_string()),
            status: found.status.map(ObjectStatus::from),
            promise: found.promise.map(|(server, left)| PromiseStatus {
                server,
                left_seconds: left.as_secs_f64(),
            }),
            cached: found.cached,
            lent: found.lent,
            dirty: found.dirty,
            calls: found.calls.into_iter().map(Call::from).collect(),
        }
    }

    fn is_unreachable(&self) -> bool {
        !self.servers.is_empty() && self.servers.iter().all(|server| !server.up)
    }

    /// What might help whoever has no token.
    fn cure(&self) -> &'static str {
        if self.principal.is_some() {
            ""
        } else {
            "; you have no token for this cell: run afs aklog"
        }
    }

    fn is_directory(&self) -> bool {
        self.status.as_ref().is_none_or(|status| status.kind == DIRECTORY)
    }

    fn called(&self) -> &str {
        if self.path.is_empty() {
            "the root"
        } else {
            &self.path
        }
    }
}

impl From<Known> for ObjectStatus {
    fn from(known: Known) -> Self {
        let kind = match known.kind {
            Kind::File => "file",
            Kind::Directory => DIRECTORY,
            Kind::Symlink => "link",
        };
        Self {
            kind: kind.to_owned(),
            size: known.size,
            data_version: known.version.0,
            mode: known.mode,
            rights: letters(known.rights),
            anybody: letters(known.public),
            readable: known.readable,
            writable: known.writable,
        }
    }
}

impl From<CallRecord> for Call {
    fn from(record: CallRecord) -> Self {
        Self {
            procedure: record.procedure.to_owned(),
            server: record.server,
            ago_seconds: record.ago.as_secs_f64(),
            took_seconds: record.took.map(|took| took.as_secs_f64()),
            error: record.error,
        }
    }
}

/// Rights as `fs listacl` writes them.
fn letters(rights: u32) -> String {
    let known = [
        ('r', 1),
        ('l', 8),
        ('i', 4),
        ('d', 16),
        ('w', 2),
        ('k', 32),
        ('a', 64),
    ];
    let letters: String = known
        .iter()
        .filter(|(_, bit)| rights & bit != 0)
        .map(|(letter, _)| *letter)
        .collect();
    if letters.is_empty() {
        "none".to_owned()
    } else {
        letters
    }
}

/// A name or path, as it can be shown.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.path)?;
        for link in &self.links {
            writeln!(f, "  link         {link}")?;
        }
        if let Some(object) = &self.object {
            if self.stopped.is_some() {
                writeln!(f, "  reached      {}", object.called())?;
            }
            write!(f, "{object}")?;
        }
        let principal = self
            .object
            .as_ref()
            .and_then(|object| object.principal.as_deref());
        writeln!(
            f,
            "  you          {}, as {}",
            self.identity,
            principal.unwrap_or("nobody: no token")
        )?;
        writeln!(f, "{}", self.verdict)
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  object       {}", self.fid)?;
        if let Some(status) = &self.status {
            write!(
                f,
                ", a {} of {}, mode {:04o}, data version {}",
                status.kind,
                bytes(status.size),
                status.mode,
                status.data_version
            )?;
        }
        writeln!(f, "\n  volume       {}", self.volume)?;
        for server in &self.servers {
            writeln!(f, "  server       {server}")?;
        }
        if let Some(status) = &self.status {
            writeln!(
                f,
                "  rights       you {}, anybody {}",
                status.rights, status.anybody
            )?;
        }
        match &self.promise {
            Some(promise) => {
                let by = promise.server.map(|server| format!(" of {server}"));
                let left = seconds(promise.left_seconds);
                writeln!(f, "  promise     {} stands for {left}", by.unwrap_or_default())?;
            }
            None => writeln!(f, "  promise      none: the server is asked at the next use")?,
        }
        let (cached, dirty) = (bytes(self.cached), bytes(self.dirty));
        let lent = if self.lent {
            ", and read by the kernel itself"
        } else {
            ""
        };
        writeln!(f, "  cache        {cached} here, {dirty} of that here only{lent}")?;
        for call in &self.calls {
            writeln!(f, "  call         {call}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ago, {} to {}: ",
            seconds(self.ago_seconds),
            self.procedure,
            self.server
        )?;
        match (self.took_seconds, &self.error) {
            (None, _) => f.write_str("UNDER WAY"),
            (Some(took), None) => f.write_str(&seconds(took)),
            (Some(took), Some(error)) => write!(f, "{}, {error}", seconds(took)),
        }
    }
}

/// How long `afs why` waits for servers: less than a command waits for its answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// As the kernel.
const MAX_LINKS: usize = 40;
/// An answer that takes so many seconds is slow.
const SLOW: f64 = 1.0;
/// What was so many seconds ago is worth a word.
const LATE: f64 = 600.0;
const DIRECTORY: &str = "directory";
