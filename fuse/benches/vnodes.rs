//! A million objects that the kernel knows: what they take of memory, and that it is given back.
//!
//! The machine: an embedded cell in a process of its own holds the files. This process looks all of them up as the adapter does
//! for a kernel that lists directories, with node ids, names and retained vnodes, and then has the kernel forget them. What is
//! resident is asked of Linux.

#![allow(
    missing_docs,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::unwrap_used
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Instant;

use afs_client::cell::{CellName, Cells, CellsConfig};
use afs_client::fs::{AfsFs, CacheConfig, Config, Entry, Lookup, OpenFlags};
use afs_client::types::Fid;
use fuse::inode::{InodeTable, Names};
use rxrpc::events::NullSink;
use rxrpc::net::EndpointConfig;
use testcell::embedded::{Cell, Settings};
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let runtime = Runtime::new().unwrap();
    if std::env::args().nth(1).as_deref() == Some(SERVE) {
        runtime.block_on(serve());
        return ExitCode::SUCCESS;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let within = runtime.block_on(run(folder.path()));
    drop(server);
    ExitCode::from(u8::from(!within))
}

async fn run(folder: &Path) -> bool {
    let fs = start(folder).await;
    let table = Table {
        inodes: InodeTable::new(fs.root()),
        names: Names::default(),
    };
    let before = resident();
    let from = Instant::now();
    let mut known = 0;
    for dir in 0..DIRS {
        known += look_up_all(&fs, &table, dir).await;
    }
    let all = resident() - before;
    println!(
        "{known} objects looked up in {:.1} s; the kernel knows {}, and {} vnodes are kept",
        from.elapsed().as_secs_f64(),
        table.inodes.len(),
        fs.state().vnodes
    );
    assert_eq!(
        table.inodes.len(),
        known,
        "nothing that the kernel knows is dropped"
    );
    let mut within = at_most("a million known vnodes, MB resident", all / MB, 1000.0);
    within &= at_most("bytes resident for each", all / known as f64, 1000.0);

    for id in table.inodes.doubt_all() {
        table.inodes.forget(id, u64::MAX, |fid| fs.forget(fid));
        table.names.forget(id);
    }
    within &= at_most(
        "vnodes kept when the kernel has forgotten all",
        fs.state().vnodes as f64,
        Config::MAX_VNODES as f64,
    );
    // The memory is there for what comes next, whatever the allocator gives back.
    for dir in 0..DIRS {
        look_up_all(&fs, &table, dir).await;
    }
    let again = resident() - before;
    within &= at_most("the same once more, of what it took before", again / all, 1.1);
    fs.shutdown().await;
    within
}

/// What the adapter has of the kernel.
struct Table {
    inodes: InodeTable,
    names: Names,
}

impl Table {
    fn retain(&self, fs: &AfsFs, parent: Fid, name: &[u8], entry: &Entry) {
        self.names.remember(self.inodes.id(parent), name);
        self.inodes.retain(entry.fid, || fs.retain(entry.fid));
    }
}

/// Lists a directory with attributes, as the kernel does; gives how many objects it learned of.
async fn look_up_all(fs: &AfsFs, table: &Table, dir: usize) -> usize {
    let mut at = fs.root();
    for name in [CELL.to_owned(), "work".to_owned(), format!("d{dir}")] {
        let entry = found(fs.lookup(at, name.as_bytes()).await.unwrap());
        at = entry.fid;
    }
    let listing = fs.readdir(at).await.unwrap();
    let before = table.inodes.len();
    let mut cookie = 0;
    for entry in &listing.entries {
        if matches!(entry.name.as_ref(), b"." | b"..") {
            cookie = entry.cookie;
            continue;
        }
        let told = match fs.lookup_cached(at, &entry.name) {
            Some(told) => told.unwrap(),
            None => {
                fs.prefetch_status(at, cookie).await.unwrap();
                fs.lookup(at, &entry.name).await.unwrap()
            }
        };
        table.retain(fs, at, &entry.name, &found(told));
        cookie = entry.cookie;
    }
    let name = listing.entries.last().unwrap().name.clone();
    let file = found(fs.lookup(at, &name).await.unwrap());
    let flags = OpenFlags {
        read: true,
        ..OpenFlags::default()
    };
    let opened = fs.open(file.fid, flags).await.unwrap();
    assert_eq!(fs.read(opened.handle, 0, 100).await.unwrap(), DATA);
    fs.release(opened.handle).await;
    table.inodes.len() - before
}

fn found(lookup: Lookup) -> Entry {
    match lookup {
        Lookup::Found(entry) => entry,
        Lookup::Absent { .. } => panic!("it is there"),
    }
}

async fn start(folder: &Path) -> AfsFs {
    let cells = Cells::load(&CellsConfig {
        home: Some(CellName::new(CELL).unwrap()),
        cellservdb: Some(folder.join(SERVERS)),
    });
    let endpoint = EndpointConfig {
        bind: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
        ..EndpointConfig::default()
    };
    let cache = CacheConfig::Memory { max_bytes: 128 << 20 };
    let config = Config::new(Arc::new(cells.unwrap()), endpoint, cache);
    AfsFs::start(config, Arc::new(NullSink)).await.unwrap()
}

/// The process with the cell. Ends with this one.
struct Server(Child);

impl Server {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(SERVE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let servers: Vec<_> = (&mut lines)
            .map(Result::unwrap)
            .take_while(|line| line != READY)
            .collect();
        std::fs::write(folder.join(SERVERS), servers.join("\n")).unwrap();
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

async fn serve() {
    let cell = Cell::start(Settings::new(CELL, ADDRESS)).await.unwrap();
    cell.furnish().await.unwrap();
    cell.set_quota("work", 0).await.unwrap();
    for dir in 0..DIRS {
        cell.make_dir("work", &format!("d{dir}")).await.unwrap();
        for file in 0..FILES {
            cell.write("work", &format!("d{dir}/f{file}"), DATA)
                .await
                .unwrap();
        }
    }
    println!("{}\n{READY}", cell.cellservdb());
    std::io::stdout().flush().unwrap();
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()))
        .await
        .unwrap()
        .unwrap();
    cell.shutdown().await;
}

/// Bytes of memory of this process.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096.0
}

fn at_most(what: &str, is: f64, wanted: f64) -> bool {
    let verdict = if is <= wanted { "" } else { "  MISSED" };
    println!("{what}: {is:.2} (wanted: at most {wanted}){verdict}");
    is <= wanted
}

const SERVE: &str = "serve";
const READY: &str = "ready";
const SERVERS: &str = "CellServDB";
const CELL: &str = "lab.example";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 98, 0, 1);
const DIRS: usize = 1_000;
/// The embedded cell copies a directory for each name that is made in it.
const FILES: usize = 1_000;
const DATA: &[u8] = b"small";
const MB: f64 = 1e6;
