//! The bound of the cache under load: what its files really take of the disk.
//!
//! The machine: threads fetch, write, store and forget, all at once and much more than fits, with fetches that are kept under way
//! over many steps. Every few milliseconds all of them stop between two steps, and the blocks of all files are added up.

use std::os::unix::fs::MetadataExt;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;

use super::model::{fast_dir, key, served};
use super::*;
use crate::types::{CellId, DataVersion};

const LIMIT: u64 = 64 << 20;
const THREADS: u64 = 6;
const STEPS: u64 = 300;

/// Bytes of the blocks of all files below.
fn taken(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap();
    entries
        .filter_map(|entry| {
            let entry = entry.unwrap();
            // It may go while it is looked at.
            let metadata = entry.metadata().ok()?;
            Some(if metadata.is_dir() {
                taken(&entry.path())
            } else {
                metadata.blocks() * 512
            })
        })
        .sum()
}

fn fid(vnode: u64) -> Fid {
    Fid {
        cell: CellId(1),
        volume: VolumeId(2),
        vnode: VnodeId(vnode as u32 * 2),
        unique: Uniquifier(1),
    }
}

/// One of the threads: what it does follows from its number.
fn work(cache: &DataCache, thread: u64, gate: &RwLock<()>) -> u64 {
    let cell = CellName::new("lab.example").unwrap();
    let mut state = thread + 1;
    let mut below = move |bound: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    let mut under_way: Vec<Fill> = Vec::new();
    let mut moved = 0;
    for _ in 0..STEPS {
        let _step = gate.read();
        // Small files, large ones, and one that is larger than a quarter of the cache.
        let (vnode, len) = match below(10) {
            0..=4 => (1000 + below(2000), 1 + below(20_000)),
            5..=8 => (100 + below(60), 3 << 20),
            _ => (1, 200 << 20),
        };
        let file = cache.file(&cell, fid(vnode));
        if !file.is_modified() {
            file.set_server(served(1, len));
        }
        let at = below(file.len().max(1));
        match below(8) {
            0 => {
                let data = vec![7; 1 + below(300_000) as usize];
                if !cache.is_too_dirty(1) {
                    let _ = file.write(at, &data);
                    moved += data.len() as u64;
                }
            }
            1 if file.is_modified() => {
                // It is in the hands of one thread at a time, as a vnode sees to.
                file.discard();
            }
            _ => under_way.extend(file.begin_fills(at..at + (1 << 20), 1 << 20)),
        }
        // Fetches end in any order, some of them never.
        while under_way.len() > 6 {
            let fill = under_way.swap_remove(below(under_way.len() as u64) as usize);
            let range = fill.range().clone();
            let data = Bytes::from(vec![9; (range.end - range.start) as usize]);
            if below(8) > 0 && fill.prepare().is_ok() && fill.put(range.start, &[data]).is_ok() {
                moved += range.end - range.start;
                fill.commit(range.end, DataVersion(1));
            }
        }
    }
    moved
}

fn stays_within(encryption: &Encryption) {
    let dir = fast_dir();
    let cache = DataCache::in_dir(dir.path(), LIMIT, encryption).unwrap();
    let (gate, ended) = (RwLock::new(()), AtomicBool::new(false));
    let (mut most, mut looks, mut moved) = (0, 0, 0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (cache, gate) = (&cache, &gate);
                scope.spawn(move || work(cache, thread, gate))
            })
            .collect();
        let look = scope.spawn(|| {
            let (mut most, mut looks) = (0, 0);
            while !ended.load(Ordering::Relaxed) {
                let stopped = gate.write();
                most = most.max(taken(dir.path()));
                looks += 1;
                drop(stopped);
                std::thread::sleep(Duration::from_millis(5));
            }
            (most, looks)
        });
        for worker in workers {
            moved += worker.join().unwrap();
        }
        ended.store(true, Ordering::Relaxed);
        (most, looks) = look.join().unwrap();
    });
    assert!(moved > 8 * LIMIT, "only {moved} bytes were moved");
    assert!(looks > 20, "looked {looks} times");
    assert!(most > LIMIT / 2, "at most {most} bytes were used");
    assert!(most <= LIMIT + LIMIT / 50, "{most} bytes of {LIMIT}");
    // What it believes is what there is, but for index and journal.
    let data = taken(&dir.path().join("data"));
    let used = cache.used_bytes();
    assert!(
        data <= used && used - data <= LIMIT / 50,
        "{data} bytes, not {used}"
    );
}

#[test]
fn a_cache_stays_within_its_size_under_load() {
    stays_within(&Encryption::Off);
}

#[test]
fn an_encrypted_cache_stays_within_its_size_under_load() {
    stays_within(&key(3));
}
