//! A cell with clients: paths instead of FIDs, and a limit on everything.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use afs_client::cell::{CellName, Cells, CellsConfig};
use afs_client::codes;
use afs_client::error::Error;
use afs_client::fs::{
    AfsFs, Attr, CacheConfig, CacheKey, Config, Encryption, Entry, Fakestat, HandleId, Lookup, OpenFlags,
};
use afs_client::types::Fid;
use bytes::Bytes;
use rustix::io::Errno;
use rxrpc::events::{NullSink, Sink};
use rxrpc::net::EndpointConfig;
use testcell::embedded::faults::{Action, Calls, Rule, When};
use testcell::embedded::{Cell, Settings};

/// The name of every cell here: they differ in their addresses.
pub(crate) const CELL: &str = "lab.example";
/// Open for reading and writing.
pub(crate) const FLAGS: OpenFlags = OpenFlags {
    read: true,
    write: true,
    truncate: false,
    append: false,
};
/// Nothing may take longer.
const LIMIT: Duration = Duration::from_secs(30);

/// An address of our own in 127/8: the ports of AFS are fixed.
pub(crate) fn address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = std::process::id() % 0x800 * 0x1000 + NEXT.fetch_add(1, Ordering::Relaxed) % 0x1000;
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 128, 0, 0).to_bits() + number)
}

/// The settings of a cell with so many servers, which waits for a dead client for a second.
pub(crate) fn settings(servers: usize) -> Settings {
    Settings {
        addresses: (0..servers).map(|_| address()).collect(),
        patience: Duration::from_secs(1),
        ..Settings::new(CELL, address())
    }
}

/// A furnished cell.
pub(crate) async fn cell(servers: usize) -> Cell {
    cell_with(settings(servers)).await
}

pub(crate) async fn cell_with(settings: Settings) -> Cell {
    let cell = Cell::start(settings).await.unwrap();
    cell.furnish().await.unwrap();
    cell
}

/// A client of a cell.
pub(crate) struct Client {
    pub(crate) fs: AfsFs,
}

/// Is this process all the test's own? Otherwise it is run in one that is, and must succeed there.
pub(crate) fn alone(test: &str) -> bool {
    const ALONE: &str = "AFS_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
    let done = alone
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, "1")
        .output();
    let done = done.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    false
}

/// Calls a test within the limit, on a runtime of its own.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let done = runtime.block_on(async { tokio::time::timeout(LIMIT, test).await });
    runtime.shutdown_timeout(Duration::from_millis(100));
    done.expect("the test hangs")
}

impl Client {
    pub(crate) async fn new(cell: &Cell) -> Self {
        Self::with_deadline(cell, Duration::from_secs(10)).await
    }

    pub(crate) async fn with_deadline(cell: &Cell, deadline: Duration) -> Self {
        Self::with_cache(cell, deadline, in_memory(), Arc::new(NullSink)).await
    }

    /// A client that crosses mount points when it sees them, but for these.
    pub(crate) async fn faking(cell: &Cell, fakestat: Fakestat) -> Self {
        let usual = config(cell, Duration::from_secs(10), in_memory());
        Self::start(Config { fakestat, ..usual }, Arc::new(NullSink)).await
    }

    /// A client with its cache in a directory.
    pub(crate) async fn on_disk(cell: &Cell, dir: &Path, sink: Arc<dyn Sink>) -> Self {
        let cache = in_dir(dir, Encryption::Off);
        Self::with_cache(cell, Duration::from_secs(10), cache, sink).await
    }

    /// The same, encrypted with the key in a file.
    pub(crate) async fn on_encrypted_disk(cell: &Cell, dir: &Path, key: &Path) -> Self {
        let cache = in_dir(dir, Encryption::Key(CacheKey::read(key).unwrap()));
        Self::with_cache(cell, Duration::from_secs(10), cache, Arc::new(NullSink)).await
    }

    /// The same, with a limit on each operation.
    pub(crate) async fn on_disk_within(cell: &Cell, dir: &Path, deadline: Duration) -> Self {
        let cache = in_dir(dir, Encryption::Off);
        Self::with_cache(cell, deadline, cache, Arc::new(NullSink)).await
    }

    /// A client with its cache in memory that writes down in a file what it has hidden.
    pub(crate) async fn noting(cell: &Cell, notes: &Path) -> Self {
        let config = Config {
            notes: Some(notes.to_owned()),
            ..config(cell, Duration::from_secs(10), in_memory())
        };
        Self::start(config, Arc::new(NullSink)).await
    }

    /// A client with its cache in a directory whose `close` does not wait for servers.
    pub(crate) async fn behind(cell: &Cell, dir: &Path) -> Self {
        let config = Config {
            store_behind: true,
            ..config(cell, Duration::from_secs(10), in_dir(dir, Encryption::Off))
        };
        Self::start(config, Arc::new(NullSink)).await
    }

    async fn with_cache(cell: &Cell, deadline: Duration, cache: CacheConfig, sink: Arc<dyn Sink>) -> Self {
        Self::start(config(cell, deadline, cache), sink).await
    }

    async fn start(config: Config, sink: Arc<dyn Sink>) -> Self {
        Self {
            fs: AfsFs::start(config, sink).await.unwrap(),
        }
    }

    /// What a path below the root of all cells leads to.
    pub(crate) async fn entry(&self, path: &str) -> Result<Entry, Error> {
        let mut fid = self.fs.root();
        let mut found = None;
        for name in path.split('/') {
            match self.fs.lookup(fid, name.as_bytes()).await? {
                Lookup::Found(entry) => {
                    fid = entry.fid;
                    found = Some(entry);
                }
                Lookup::Absent { .. } => return Err(Errno::NOENT.into()),
            }
        }
        found.ok_or_else(|| Errno::INVAL.into())
    }

    pub(crate) async fn fid(&self, path: &str) -> Result<Fid, Error> {
        Ok(self.entry(path).await?.fid)
    }

    pub(crate) async fn attr(&self, path: &str) -> Result<Attr, Error> {
        let fid = self.fid(path).await?;
        Ok(self.fs.getattr(fid).await?.0)
    }

    /// All of a file.
    pub(crate) async fn read(&self, path: &str) -> Result<Bytes, Error> {
        self.read_fid(self.fid(path).await?).await
    }

    pub(crate) async fn read_fid(&self, fid: Fid) -> Result<Bytes, Error> {
        let flags = OpenFlags {
            read: true,
            ..OpenFlags::default()
        };
        let handle = self.fs.open(fid, flags).await?.handle;
        let mut all = Vec::new();
        let read = loop {
            match self.fs.read(handle, all.len() as u64, 128 << 10).await {
                Ok(part) if part.is_empty() => break Ok(all.into()),
                Ok(part) => all.extend_from_slice(&part),
                Err(error) => break Err(error),
            }
        };
        self.fs.release(handle).await;
        read
    }

    /// Writes a file anew, as `open(O_CREAT | O_TRUNC)`, `write`, `close` do.
    pub(crate) async fn write(&self, path: &str, data: &[u8]) -> Result<(), Error> {
        let (dir, name) = path.rsplit_once('/').unwrap();
        let dir = self.fid(dir).await?;
        let flags = OpenFlags {
            write: true,
            truncate: true,
            ..OpenFlags::default()
        };
        let handle = match self.fs.lookup(dir, name.as_bytes()).await? {
            Lookup::Found(entry) => self.fs.open(entry.fid, flags).await?.handle,
            Lookup::Absent { .. } => {
                let made = self.fs.create(dir, name.as_bytes(), 0o644, flags).await?;
                made.1.handle
            }
        };
        let mut done = self.fs.write(handle, 0, data).await;
        if done.is_ok() {
            done = self.fs.flush(handle).await;
        }
        self.fs.release(handle).await;
        done
    }

    /// The names in a directory, but for `.` and `..`.
    pub(crate) async fn names(&self, path: &str) -> Result<Vec<String>, Error> {
        let fid = self.fid(path).await?;
        let listing = self.fs.readdir(fid).await?;
        let mut names: Vec<_> = listing
            .entries
            .iter()
            .map(|entry| String::from_utf8_lossy(&entry.name).into_owned())
            .filter(|name| !matches!(name.as_str(), "." | ".."))
            .collect();
        names.sort();
        Ok(names)
    }

    /// `close` that stores behind, and the store.
    pub(crate) async fn close_behind(&self, handle: HandleId) {
        self.fs.flush_cached(handle).unwrap().unwrap();
        self.fs.release(handle).await;
    }

    pub(crate) async fn shutdown(&self) {
        self.fs.shutdown().await;
    }
}

/// The server answers with this code.
pub(crate) fn abort(code: &str) -> [Action; 1] {
    [Action::Abort(codes::named(code).unwrap())]
}

/// Calls of a procedure are answered with this code.
pub(crate) fn refusing(when: When, opcode: u32, code: &str) -> Rule {
    Rule::new(when, Calls::to(opcode), abort(code))
}

fn in_memory() -> CacheConfig {
    CacheConfig::Memory { max_bytes: 64 << 20 }
}

fn config(cell: &Cell, deadline: Duration, cache: CacheConfig) -> Config {
    // As many as the program keeps, where it is about what is kept.
    let is_kept = matches!(cache, CacheConfig::Dir { .. });
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("CellServDB");
    std::fs::write(&db, cell.cellservdb()).unwrap();
    let cells = Cells::load(&CellsConfig {
        home: Some(CellName::new(CELL).unwrap()),
        cellservdb: Some(db),
    });
    let endpoint = EndpointConfig {
        bind: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
        ..EndpointConfig::default()
    };
    let as_mounted = Config::new(Arc::new(cells.unwrap()), endpoint, cache);
    Config {
        deadline,
        max_vnodes: if is_kept { as_mounted.max_vnodes } else { 1000 },
        ..as_mounted
    }
}

fn in_dir(dir: &Path, encryption: Encryption) -> CacheConfig {
    CacheConfig::Dir {
        path: dir.to_owned(),
        max_bytes: 64 << 20,
        encryption,
    }
}

/// The errno of what must fail.
pub(crate) fn errno<T: std::fmt::Debug>(result: Result<T, Error>) -> i32 {
    result.unwrap_err().errno()
}
