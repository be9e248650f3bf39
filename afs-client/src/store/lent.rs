//! Files that are lent to the kernel never change, whoever runs and whatever happens.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use super::model::{Server, copy, fast_dir, key, open, plain, read, served};
use super::*;
use crate::types::DataVersion;

const LEN: u64 = 3_000_000;
/// A quarter of it holds the file of these tests.
const ROOM: u64 = 64 << 20;

fn server() -> Server {
    Server {
        data: (0..LEN).map(|i| (i / 7) as u8).collect(),
        version: 3,
    }
}

fn filled(cache: &DataCache, server: &Server) -> Arc<CacheFile> {
    let file = open(cache);
    file.set_server(server.served());
    read(&file, server, 0..u64::MAX / 4);
    file
}

/// Lends a file: with the kernel's own way to it.
fn lend(file: &CacheFile, version: u64) -> Option<(Loan, File)> {
    let (loan, file) = file.lend(DataVersion(version))?;
    Some((loan, file.into()))
}

fn is_whole(file: &File, server: &Server) -> bool {
    let mut all = vec![1; LEN as usize + 1];
    let mut at = 0;
    while let count @ 1.. = file.read_at(&mut all[at..], at as u64).unwrap() {
        at += count;
    }
    all[..at] == server.data
}

/// Reads so much of other files that everything else must go.
fn flush(cache: &DataCache) {
    let other = Server {
        data: vec![9; 1 << 20],
        version: 1,
    };
    for vnode in 0..2 * (ROOM >> 20) as u32 {
        let fid = Fid {
            cell: crate::types::CellId(1),
            volume: VolumeId(7),
            vnode: VnodeId(2 * vnode + 2),
            unique: Uniquifier(1),
        };
        let file = cache.file(&CellName::new("lab.example").unwrap(), fid);
        file.set_server(other.served());
        read(&file, &other, 0..1 << 20);
    }
}

/// Another directory with what a program leaves there that dies now: the files themselves, as far as the kernel has them.
fn died(dir: &Path) -> tempfile::TempDir {
    let left = copy(dir);
    for shard in fs::read_dir(dir.join("data")).unwrap() {
        for entry in fs::read_dir(shard.unwrap().path()).unwrap() {
            let from = entry.unwrap().path();
            let to = left.path().join(from.strip_prefix(dir).unwrap());
            fs::remove_file(&to).unwrap();
            fs::hard_link(from, to).unwrap();
        }
    }
    left
}

#[test]
fn what_is_lent_stays_and_what_was_lent_goes_as_a_whole() {
    let (server, dir) = (server(), fast_dir());
    let cache = plain(dir.path(), ROOM).unwrap();
    let file = filled(&cache, &server);
    let (loan, kernel) = lend(&file, 3).unwrap();
    let here = || file.read(0..LEN, &mut Vec::new()).unwrap();
    flush(&cache);
    assert!(here() && is_whole(&kernel, &server));
    // Lent twice, given back twice.
    drop(lend(&file, 3).unwrap());
    flush(&cache);
    assert!(here());
    drop(loan);
    flush(&cache);
    assert!(!here(), "evicted");
    assert!(is_whole(&kernel, &server), "and not punched");
    assert_eq!(read(&file, &server, 0..u64::MAX / 4), server.data);
    assert!(is_whole(&kernel, &server));
}

#[test]
fn another_version_gets_another_file() {
    let (old, mut server, dir) = (server(), server(), fast_dir());
    let cache = plain(dir.path(), ROOM).unwrap();
    let file = filled(&cache, &server);
    let (loan, kernel) = lend(&file, 3).unwrap();
    let used = cache.used_bytes();
    server.version = 4;
    server.data.iter_mut().for_each(|byte| *byte ^= 1);
    file.set_server(server.served());
    assert_eq!(cache.used_bytes(), used, "the kernel has it still");
    assert!(lend(&file, 3).is_none());
    assert_eq!(read(&file, &server, 0..u64::MAX / 4), server.data);
    assert!(cache.used_bytes() >= 2 * used - 4096);
    let (_new, next) = lend(&file, 4).unwrap();
    assert!(is_whole(&next, &server) && is_whole(&kernel, &old));
    drop(loan);
    assert_eq!(cache.used_bytes(), used);
    // Local changes too.
    file.write(5, b"mine").unwrap();
    file.truncate(100);
    assert!(is_whole(&next, &server));
}

#[test]
fn the_mark_outlives_the_program() {
    let (server, dir) = (server(), fast_dir());
    let cache = plain(dir.path(), ROOM).unwrap();
    let file = filled(&cache, &server);
    let (loan, kernel) = lend(&file, 3).unwrap();
    let is_known = || plain(died(dir.path()).path(), ROOM).unwrap().used_bytes() > 0;
    let looks = (0..200).take_while(|_| !is_known());
    looks.for_each(|_| std::thread::sleep(Duration::from_millis(20)));
    let changes: [fn(&DataCache, &CacheFile); 4] = [
        |cache, _| flush(cache),
        |_, file| file.set_server(served(4, LEN + 5)),
        |_, file| file.set_server(served(3, LEN + 5)),
        |_, file| file.write(5, b"mine").unwrap(),
    ];
    for change in changes {
        let left = died(dir.path());
        let next = plain(left.path(), ROOM).unwrap();
        let file = open(&next);
        file.set_server(server.served());
        assert_eq!(read(&file, &server, 0..u64::MAX / 4), server.data);
        change(&next, &file);
        next.close();
        assert!(is_whole(&kernel, &server));
    }
    // One byte is not as it was: its chunk alone cannot go.
    let left = died(dir.path());
    let path = Place::open(left.path(), &Encryption::Off)
        .unwrap()
        .lying()
        .unwrap()
        .remove(0)
        .path;
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .write_all_at(b"!", 1_500_000)
        .unwrap();
    let next = plain(left.path(), ROOM).unwrap();
    let file = open(&next);
    file.set_server(server.served());
    assert_eq!(read(&file, &server, 0..u64::MAX / 4), server.data);
    let mut rest = vec![0; 1_000_000];
    kernel.read_exact_at(&mut rest, 1_000_000 + 500_001).unwrap();
    assert_eq!(rest, server.data[1_500_001..2_500_001]);
    drop(loan);
}

#[test]
fn only_what_is_whole_and_certain_is_lent_and_not_too_much() {
    let server = server();
    let no = |cache: &DataCache, why: &str| {
        let file = filled(cache, &server);
        assert!(lend(&file, 3).is_none(), "{why}");
    };
    no(&DataCache::in_memory(ROOM), "it is in memory");
    let dir = fast_dir();
    no(
        &DataCache::in_dir(dir.path(), ROOM, &key(7)).unwrap(),
        "it is encrypted",
    );
    let dir = fast_dir();
    no(
        &plain(dir.path(), 4 * (LEN - 4096)).unwrap(),
        "it is more than a quarter",
    );

    let dir = fast_dir();
    let cache = plain(dir.path(), ROOM).unwrap();
    let file = open(&cache);
    file.set_server(server.served());
    read(&file, &server, 0..LEN - 100_000);
    assert!(lend(&file, 3).is_none(), "it is not whole");
    read(&file, &server, 0..u64::MAX / 4);
    assert!(lend(&file, 2).is_none(), "it is another version");
    drop(file);
    cache.close();
    let cache = plain(dir.path(), ROOM).unwrap();
    let file = open(&cache);
    assert!(lend(&file, 3).is_none(), "nobody has said that it is so");
    file.set_server(server.served());
    assert!(lend(&file, 3).is_none(), "nobody has looked at it");
    read(&file, &server, 0..u64::MAX / 4);
    drop(lend(&file, 3).unwrap());
    file.write(0, b"x").unwrap();
    assert!(lend(&file, 3).is_none(), "it is modified");
}
