//! A gibibyte each way, and servers that restart while data is on its way.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use testcell::{Mount, MountOptions, Random, Shared, Sum, eventually, shared, shared_for};

/// More than the client's cache holds, through StoreData64 and FetchData64.
#[test]
fn a_gibibyte_goes_each_way() {
    let cell = shared_for(Duration::from_secs(300));
    let writer = cell.mount(1).unwrap();
    let work = writer.work("gibibyte").unwrap();
    let began = Instant::now();
    let written = write(&work.join("file"), 1 << 30, &AtomicU64::new(0)).unwrap();
    println!("written after {:.1?}", began.elapsed());
    let reader = cell.mount(2).unwrap();
    let read = read(&reader.path("work/gibibyte/file"), &AtomicU64::new(0)).unwrap();
    println!("read after {:.1?}", began.elapsed());
    assert_eq!(read, written);
    for mount in [&writer, &reader] {
        let resident = mount.resident_kib().unwrap();
        assert!(resident < 512 << 10, "{resident} KiB");
    }
    fs::remove_dir_all(&work).unwrap();
}

/// Reads are repeated: one that is under way when the server is killed goes on when it is back. A request that the server
/// had not acknowledged is simply sent again, so it is killed until a call was lost.
#[test]
fn a_server_restarts_while_it_is_read() {
    let cell = shared();
    let writer = cell.mount(2).unwrap();
    let work = writer.work("read-restart").unwrap();
    let written = write(&work.join("file"), SIZE, &AtomicU64::new(0)).unwrap();
    let lost = (0..ATTEMPTS).any(|_| {
        let mount = cell.mount_with(1, &MountOptions::default().deadline(60)).unwrap();
        let progress = AtomicU64::new(0);
        let read = thread::scope(|scope| {
            let read = scope.spawn(|| read(&mount.path("work/read-restart/file"), &progress));
            wait_for(&progress, UNDER_WAY);
            cell.kill_server(1).unwrap();
            read.join().unwrap()
        });
        assert_eq!(read.unwrap(), written);
        failed_calls(&mount) > 0.0
    });
    assert!(lost, "no call was under way");
    fs::remove_dir_all(&work).unwrap();
}

/// Stores are repeated too: what close reports as written is what the server holds. The server may be killed between two of
/// them, so it is killed until one was under way.
#[test]
fn a_server_restarts_while_it_is_written() {
    let cell = shared();
    let mount = cell.mount_with(1, &MountOptions::default().deadline(60)).unwrap();
    let work = mount.work("write-restart").unwrap();
    let lost = (0..ATTEMPTS).any(|_| {
        write_while_killed(&cell, &work);
        failed_calls(&mount) > 0.0
    });
    assert!(lost, "no call was under way");
    fs::remove_dir_all(&work).unwrap();
}

fn write_while_killed(cell: &Shared, work: &Path) {
    let progress = AtomicU64::new(0);
    let written = thread::scope(|scope| {
        let file = work.join("file");
        let progress = &progress;
        let written = scope.spawn(move || write(&file, SIZE, progress));
        wait_for(progress, BEYOND_CACHE);
        cell.kill_server(1).unwrap();
        written.join().unwrap()
    });
    let written = written.unwrap();
    let reader = cell.mount(2).unwrap();
    let read = read(&reader.path("work/write-restart/file"), &AtomicU64::new(0)).unwrap();
    assert_eq!(read, written);
}

/// Writes bytes that the length decides and closes the file; gives their sum.
fn write(path: &Path, length: u64, progress: &AtomicU64) -> io::Result<String> {
    let mut random = Random::new(length);
    let mut file = File::create(path)?;
    let mut sum = Sum::start()?;
    while progress.load(Ordering::Relaxed) < length {
        let piece = random.bytes(PIECE);
        file.write_all(&piece)?;
        sum.write_all(&piece)?;
        progress.fetch_add(PIECE as u64, Ordering::Relaxed);
    }
    file.sync_all()?;
    sum.end()
}

/// Reads a file to its end; gives the sum of its bytes.
fn read(path: &Path, progress: &AtomicU64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut sum = Sum::start()?;
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => return sum.end(),
            len => {
                sum.write_all(&piece[..len])?;
                progress.fetch_add(len as u64, Ordering::Relaxed);
            }
        }
    }
}

fn wait_for(progress: &AtomicU64, bytes: u64) {
    let begun = || progress.load(Ordering::Relaxed) > bytes;
    assert!(eventually(Duration::from_secs(30), begun), "nothing moves");
}

/// Calls to the file server that ended without its answer.
fn failed_calls(mount: &Mount<'_>) -> f64 {
    let metrics = mount.metrics().unwrap();
    let ended = |result| metrics.sum("afs_rpc_calls_total", &[("service", "fs"), ("result", result)]);
    ended("net") + ended("timeout")
}

const PIECE: usize = 1 << 20;
const SIZE: u64 = 256 << 20;
const UNDER_WAY: u64 = 16 << 20;
/// A writer who is here waits for stores.
const BEYOND_CACHE: u64 = 160 << 20;
const ATTEMPTS: usize = 8;
