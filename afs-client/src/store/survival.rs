//! What a cache directory is after a restart, and what it is not.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::model::{Server, fast_dir, open, plain, read, served};
use super::*;
use crate::types::{CellId, DataVersion, Uniquifier, VnodeId, VolumeId};

fn server() -> Server {
    Server {
        data: (0..3_000_000u32).map(|i| (i / 7) as u8).collect(),
        version: 3,
    }
}

/// A directory in which all of the server's file is cached.
fn filled(server: &Server) -> tempfile::TempDir {
    let dir = fast_dir();
    let cache = plain(dir.path(), 0).unwrap();
    let file = open(&cache);
    file.set_server(server.served());
    read(&file, server, 0..u64::MAX / 4);
    drop(file);
    cache.close();
    dir
}

fn data_file(dir: &Path) -> std::path::PathBuf {
    let shards = fs::read_dir(dir.join("data")).unwrap();
    let mut files = shards.flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap());
    files.next().unwrap().unwrap().path()
}

/// What is served of the file without asking anybody.
fn cached(cache: &DataCache, said: Served) -> Option<Vec<u8>> {
    let file = open(cache);
    file.set_server(said);
    let mut out = Vec::new();
    file.read(0..u64::MAX / 4, &mut out).unwrap().then_some(out)
}

/// One of many files.
fn fid(vnode: u32) -> Fid {
    Fid {
        cell: CellId(1),
        volume: VolumeId(2),
        vnode: VnodeId(vnode),
        unique: Uniquifier(1),
    }
}

#[test]
fn contents_survive_while_the_server_says_the_same() {
    let server = server();
    let dir = filled(&server);
    let cache = plain(dir.path(), 0).unwrap();
    assert_eq!(cache.used_bytes(), 3_002_368);
    assert_eq!(cached(&cache, server.served()), Some(server.data.clone()));
    // And again, without having been open in between.
    drop(cache);
    let cache = plain(dir.path(), 0).unwrap();
    drop(cache);
    let cache = plain(dir.path(), 0).unwrap();
    assert_eq!(cached(&cache, server.served()), Some(server.data.clone()));
}

/// Another version, another length, another time of the last change: of another file, or of another cell of that name.
#[test]
fn contents_of_anything_else_are_not_used() {
    let server = server();
    let dir = filled(&server);
    let said = server.served();
    let others = [
        served(4, said.len),
        served(3, said.len - 1),
        Served { changed: 8, ..said },
    ];
    for other in others {
        let copied = model::copy(dir.path());
        let cache = plain(copied.path(), 0).unwrap();
        assert_eq!(cached(&cache, other), None, "{other:?}");
        assert_eq!(cache.used_bytes(), 0);
    }
    let cache = plain(dir.path(), 0).unwrap();
    let fid = Fid {
        cell: CellId(1),
        volume: VolumeId(2),
        vnode: VnodeId(4),
        unique: Uniquifier(5),
    };
    let file = cache.file(&CellName::new("other.example").unwrap(), fid);
    file.set_server(said);
    assert!(!file.read(0..10, &mut Vec::new()).unwrap());
}

/// Nothing is shown of a file before a server has said what it is now.
#[test]
fn hearsay_is_no_contents() {
    let server = server();
    let dir = filled(&server);
    let cache = plain(dir.path(), 0).unwrap();
    assert_eq!(open(&cache).whole(DataVersion(3)), None);
}

#[test]
fn a_changed_byte_costs_its_chunk() {
    let server = server();
    let dir = filled(&server);
    let file = File::options().write(true).open(data_file(dir.path())).unwrap();
    file.write_all_at(b"!", 1_500_000).unwrap();
    let cache = plain(dir.path(), 0).unwrap();
    let file = open(&cache);
    file.set_server(server.served());
    assert!(file.read(0..1000, &mut Vec::new()).unwrap());
    assert_eq!(cache.damaged(), 0);
    assert!(!file.read(1_100_000..1_100_010, &mut Vec::new()).unwrap());
    assert_eq!(cache.damaged(), 1);
    assert!(file.read(2_500_000..2_500_010, &mut Vec::new()).unwrap());
    assert_eq!(read(&file, &server, 0..u64::MAX / 4), server.data);
}

#[test]
fn a_file_that_was_cut_or_removed_is_fetched_again() {
    let server = server();
    let whole = filled(&server);
    for cut in [true, false] {
        let dir = model::copy(whole.path());
        if cut {
            File::options()
                .write(true)
                .open(data_file(dir.path()))
                .unwrap()
                .set_len(5)
                .unwrap();
        } else {
            fs::remove_file(data_file(dir.path())).unwrap();
        }
        let cache = plain(dir.path(), 0).unwrap();
        let file = open(&cache);
        file.set_server(server.served());
        assert_eq!(read(&file, &server, 0..u64::MAX / 4), server.data);
        // And while it is in use.
        fs::remove_file(data_file(dir.path())).unwrap();
        file.drop_backing().unwrap();
        assert_eq!(read(&file, &server, 0..u64::MAX / 4), server.data);
    }
}

#[test]
fn what_the_index_does_not_know_is_removed() {
    let server = server();
    let dir = filled(&server);
    fs::remove_file(dir.path().join("index.redb")).unwrap();
    fs::write(dir.path().join("data/stray"), "x").unwrap();
    let cache = plain(dir.path(), 0).unwrap();
    assert_eq!(cache.used_bytes(), 0);
    assert_eq!(cached(&cache, server.served()), None);
    drop(cache);
    let left = fs::read_dir(dir.path().join("data")).unwrap();
    let files = left.map(|shard| fs::read_dir(shard.unwrap().path()).unwrap().count());
    assert_eq!(files.sum::<usize>(), 0);
}

/// The program died with pages in a file that its record does not speak of.
#[test]
fn pages_without_a_record_are_given_back() {
    let server = server();
    let dir = filled(&server);
    let cache = plain(dir.path(), 0).unwrap();
    let died = model::copy(dir.path());
    drop(cache);
    let path = data_file(died.path());
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[1; 100_000], 8_000_000).unwrap();
    let cache = plain(died.path(), 0).unwrap();
    assert!(fs::metadata(&path).unwrap().blocks() * 512 <= cache.used_bytes() + 4096);
    assert_eq!(cached(&cache, server.served()), Some(server.data.clone()));
}

#[test]
fn a_smaller_cache_evicts_what_was_used_first() {
    let dir = fast_dir();
    let cache = plain(dir.path(), 64 << 20).unwrap();
    let name = CellName::new("lab.example").unwrap();
    let server = Server {
        data: vec![9; 1 << 20],
        version: 1,
    };
    for vnode in (2..42).step_by(2) {
        let file = cache.file(&name, fid(vnode));
        file.set_server(server.served());
        read(&file, &server, 0..1 << 20);
    }
    drop(cache);
    let cache = plain(dir.path(), 8 << 20).unwrap();
    assert!(cache.used_bytes() <= 8 << 20);
    assert!(cache.used_bytes() >= 7 << 20);
    let taken: u64 = cache
        .0
        .shared
        .place
        .as_ref()
        .unwrap()
        .lying()
        .unwrap()
        .iter()
        .map(|file| file.taken)
        .sum();
    assert!(taken <= (8 << 20) + (8 << 20) / 50, "{taken}");
}

/// A file as large as the cache is read once: most of what was there before stays.
#[test]
fn one_large_file_does_not_flush_the_rest() {
    let cache = DataCache::in_memory(32 << 20);
    let name = CellName::new("lab.example").unwrap();
    let small = Server {
        data: vec![9; 1 << 20],
        version: 1,
    };
    let files: Vec<_> = (2..50)
        .step_by(2)
        .map(|vnode| cache.file(&name, fid(vnode)))
        .collect();
    for file in &files {
        file.set_server(small.served());
        read(file, &small, 0..1 << 20);
    }
    let large = Server {
        data: vec![8; 64 << 20],
        version: 1,
    };
    let file = cache.file(&name, fid(1000));
    file.set_server(large.served());
    for at in (0..64u64 << 20).step_by(1 << 20) {
        assert_eq!(read(&file, &large, at..at + (1 << 20)).len(), 1 << 20);
    }
    let here = |file: &Arc<CacheFile>| file.read(0..1 << 20, &mut Vec::new()).unwrap();
    let kept = files.iter().filter(|file| here(file)).count();
    assert!(kept >= 22, "{kept} of 24");
}

#[test]
fn directories_that_are_not_ours_are_left_alone() {
    let dir = fast_dir();
    fs::write(dir.path().join("thesis.tex"), "x").unwrap();
    let error = plain(dir.path(), 0).unwrap_err();
    assert!(matches!(error, CacheError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("\"thesis.tex\""), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

    let dir = fast_dir();
    drop(plain(dir.path(), 0).unwrap());
    fs::write(dir.path().join("format"), "afs-fuse cache, format 99\n").unwrap();
    let error = plain(dir.path(), 0).unwrap_err();
    assert!(matches!(error, CacheError::Newer { found: 99, .. }), "{error}");
    fs::write(dir.path().join("format"), "another program\n").unwrap();
    let error = plain(dir.path(), 0).unwrap_err();
    assert!(matches!(error, CacheError::Foreign { .. }), "{error}");
}

#[test]
fn an_older_format_begins_anew() {
    let server = server();
    let dir = filled(&server);
    fs::write(dir.path().join("format"), "afs-fuse cache, format 0\n").unwrap();
    let cache = plain(dir.path(), 0).unwrap();
    assert_eq!(cache.used_bytes(), 0);
    assert_eq!(cached(&cache, server.served()), None);
}

#[test]
fn one_program_uses_a_directory() {
    let dir = fast_dir();
    let cache = plain(dir.path(), 0).unwrap();
    let error = plain(dir.path(), 0).unwrap_err();
    let pid = std::process::id();
    assert!(
        error.to_string().contains(&format!("in use by process {pid}")),
        "{error}"
    );
    drop(cache);
    plain(dir.path(), 0).unwrap();
}
