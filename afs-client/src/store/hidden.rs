//! What an encrypted cache directory tells, and what becomes of it when somebody else changes it.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::model::{Server, copy, fast_dir, key, open, plain, read, served};
use super::*;

/// Long enough for several groups of pages, and told from anything else at each place.
fn server() -> Server {
    Server {
        data: (0..700_000u32)
            .flat_map(|i| (i | 0x5EC7_0000).to_be_bytes())
            .collect(),
        version: 3,
    }
}

fn sealed(dir: &Path) -> DataCache {
    DataCache::in_dir(dir, 0, &key(1)).unwrap()
}

/// A directory in which the server's file is cached, and a few bytes of it are changed.
fn written(server: &Server) -> tempfile::TempDir {
    let dir = fast_dir();
    let cache = sealed(dir.path());
    let file = open(&cache);
    file.set_server(server.served());
    read(&file, server, 0..u64::MAX / 4);
    file.write(1_000_000, WRITTEN).unwrap();
    // As if the program died here.
    let died = copy(dir.path());
    file.discard();
    died
}

/// The same, with nothing changed, and closed.
fn filled(server: &Server) -> tempfile::TempDir {
    let dir = fast_dir();
    let cache = sealed(dir.path());
    let file = open(&cache);
    file.set_server(server.served());
    read(&file, server, 0..u64::MAX / 4);
    drop(file);
    cache.close();
    dir
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push(path);
        }
    }
    all
}

fn data_file(dir: &Path) -> std::path::PathBuf {
    files(&dir.join("data")).pop().unwrap()
}

fn changed(path: &Path, at: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

fn part(path: &Path, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    File::open(path).unwrap().read_exact_at(&mut bytes, at).unwrap();
    bytes
}

/// Nobody's data may be anybody else's: everything is what the server has, or is fetched from it.
fn all_is_well(dir: &Path, server: &Server) {
    let cache = sealed(dir);
    assert!(cache.take_left().is_empty());
    let file = open(&cache);
    file.set_server(server.served());
    assert!(read(&file, server, 0..u64::MAX / 4) == server.data);
}

const WRITTEN: &[u8] = b"these words are only here";
const CELL: &[u8] = b"lab.example";
const PAGE: u64 = 4096;
/// Of a chunk: four pages of stamps, and the pages themselves.
const STAMPS: u64 = 4 * PAGE;

#[test]
fn nothing_of_it_is_on_the_disk() {
    let server = server();
    let dir = written(&server);
    let key = ObjectKey {
        cell: 1,
        volume: 2,
        vnode: 4,
        unique: 5,
    };
    let plain_name = key.to_string();
    let needles: [&[u8]; 4] = [WRITTEN, CELL, &server.data[400_000..400_016], &key.to_bytes()];
    for path in files(dir.path()) {
        let bytes = fs::read(&path).unwrap();
        for needle in needles {
            assert!(
                !bytes.windows(needle.len()).any(|window| window == needle),
                "{}",
                path.display()
            );
        }
        assert!(!path.to_string_lossy().contains(&plain_name));
    }
    // They would be found if they were there.
    let dir = fast_dir();
    let cache = plain(dir.path(), 0).unwrap();
    let file = open(&cache);
    file.set_server(server.served());
    read(&file, &server, 0..u64::MAX / 4);
    file.write(1_000_000, WRITTEN).unwrap();
    let bytes: Vec<u8> = files(dir.path())
        .iter()
        .flat_map(|path| fs::read(path).unwrap())
        .collect();
    for needle in needles {
        assert!(
            bytes.windows(needle.len()).any(|window| window == needle),
            "{needle:x?}"
        );
    }
    file.discard();
}

#[test]
fn with_its_key_it_is_there_after_a_restart() {
    let server = server();
    let dir = filled(&server);
    for _ in 0..2 {
        let cache = sealed(dir.path());
        let file = open(&cache);
        file.set_server(server.served());
        let mut out = Vec::new();
        assert!(file.read(0..u64::MAX / 4, &mut out).unwrap());
        assert!(out == server.data);
    }
}

/// What it takes of the disk is what it says.
#[test]
fn seals_are_accounted() {
    let dir = filled(&server());
    let cache = sealed(dir.path());
    let taken = fs::metadata(data_file(dir.path())).unwrap().blocks() * 512;
    assert_eq!(cache.used_bytes(), taken);
    let file = open(&cache);
    file.set_server(served(3, 2_800_000));
    let freed = file.evict_chunk(0).freed;
    cache.0.shared.freed(freed);
    assert_eq!(
        fs::metadata(data_file(dir.path())).unwrap().blocks() * 512,
        cache.used_bytes()
    );
    file.truncate(1_100_000);
    assert_eq!(
        fs::metadata(data_file(dir.path())).unwrap().blocks() * 512,
        cache.used_bytes()
    );
    file.discard();
}

#[test]
fn dirty_data_is_recovered_with_the_key() {
    let server = server();
    let dir = written(&server);
    let cache = sealed(dir.path());
    let left = cache.take_left();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].cell.as_str().as_bytes(), CELL);
    let mut out = Vec::new();
    assert!(
        left[0]
            .file
            .read(1_000_000..1_000_000 + WRITTEN.len() as u64, &mut out)
            .unwrap()
    );
    assert_eq!(out, WRITTEN);
    left[0].file.discard();
}

#[test]
fn another_key_or_none_is_refused_and_changes_nothing() {
    let dir = filled(&server());
    let before: Vec<_> = files(dir.path())
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .collect();
    for (encryption, words) in [
        (key(2), "with another key"),
        (Encryption::Passing, "with another key"),
        (Encryption::Off, "give its key"),
    ] {
        let error = DataCache::in_dir(dir.path(), 0, &encryption).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    let after: Vec<_> = files(dir.path())
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .collect();
    assert_eq!(before, after);
}

/// A bit of a page or of its stamps; a page in the place of another; a page as it was before; no stamps at all.
#[test]
fn pages_that_somebody_changed_are_fetched_again() {
    let server = server();
    let whole = filled(&server);
    let path = data_file(whole.path());
    let (page, stamps) = (part(&path, STAMPS, 4096), part(&path, 0, 64));
    for at in [STAMPS + 5000, 64 + 3, 64 + 20] {
        let dir = copy(whole.path());
        let byte = part(&path, at, 1)[0] ^ 4;
        changed(&data_file(dir.path()), at, &[byte]);
        all_is_well(dir.path(), &server);
    }
    let dir = copy(whole.path());
    changed(&data_file(dir.path()), STAMPS + PAGE, &page);
    changed(&data_file(dir.path()), 64, &stamps);
    all_is_well(dir.path(), &server);
    let dir = copy(whole.path());
    changed(&data_file(dir.path()), 0, &[0; 4096]);
    all_is_well(dir.path(), &server);
}

/// The same while the program runs: nothing that is read is anything but what the server has.
#[test]
fn pages_that_are_changed_under_it_are_fetched_again() {
    let server = server();
    let dir = filled(&server);
    let cache = sealed(dir.path());
    let file = open(&cache);
    file.set_server(server.served());
    assert!(read(&file, &server, 0..u64::MAX / 4) == server.data);
    file.write(0, WRITTEN).unwrap();
    changed(&data_file(dir.path()), STAMPS + 3 * PAGE, &[0; 4096]);
    changed(&data_file(dir.path()), 5 * 64, &[0; 64]);
    let mut expected = server.data.clone();
    expected[..WRITTEN.len()].copy_from_slice(WRITTEN);
    // It is the clean pages that are lost, not the dirty one beside them.
    assert!(!file.read(0..65_536, &mut Vec::new()).unwrap());
    assert!(read(&file, &server, 0..u64::MAX / 4) == expected);
    changed(&data_file(dir.path()), STAMPS, &[0; 4096]);
    let error = file.read(0..10, &mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    file.discard();
}

/// A file of another object, and the same object in another directory of the same key.
#[test]
fn files_are_not_taken_for_others() {
    let server = server();
    let dir = filled(&server);
    let other = Server {
        data: vec![7; server.data.len()],
        version: 3,
    };
    let elsewhere = filled(&other);
    fs::copy(data_file(elsewhere.path()), data_file(dir.path())).unwrap();
    all_is_well(dir.path(), &server);
    let dir = filled(&server);
    fs::copy(elsewhere.path().join("index.redb"), dir.path().join("index.redb")).unwrap();
    all_is_well(dir.path(), &server);
}

/// A page and its stamps as they were before: each opens, but the index knows which contents there were.
#[test]
fn an_older_page_is_not_taken_after_a_restart() {
    let dir = fast_dir();
    let cache = sealed(dir.path());
    let old = Server {
        data: vec![1; 8192],
        version: 1,
    };
    let file = open(&cache);
    file.set_server(old.served());
    read(&file, &old, 0..8192);
    let path = data_file(dir.path());
    let (page, stamps) = (part(&path, STAMPS, 4096), part(&path, 0, 64));
    let new = Server {
        data: vec![2; 8192],
        version: 2,
    };
    file.set_server(new.served());
    read(&file, &new, 0..8192);
    drop(file);
    cache.close();
    changed(&path, STAMPS, &page);
    changed(&path, 0, &stamps);
    all_is_well(dir.path(), &new);
}

/// The program died between the stamps of a page and the page itself, twice.
#[test]
fn a_page_is_what_it_was_or_what_it_is_to_be() {
    let first = fast_dir();
    let cache = sealed(first.path());
    let file = open(&cache);
    file.set_server(served(1, 0));
    file.write(0, &[1; 4096]).unwrap();
    let mut dir = copy(first.path());
    file.discard();
    for byte in 2..5 {
        let cache = sealed(dir.path());
        let left = cache.take_left().pop().unwrap();
        let mut out = Vec::new();
        assert!(left.file.read(0..4096, &mut out).unwrap());
        assert_eq!(out, [1; 4096], "{byte}");
        let page = part(&data_file(dir.path()), STAMPS, 4096);
        left.file.write(0, &[byte; 4096]).unwrap();
        let died = copy(dir.path());
        changed(&data_file(died.path()), STAMPS, &page);
        left.file.discard();
        drop(left);
        drop(cache);
        dir = died;
    }
}

/// A journal of records that were left out, put elsewhere, or never sealed is believed up to there.
#[test]
fn a_journal_is_not_composed_by_others() {
    let server = server();
    let dir = written(&server);
    let journal = fs::read(dir.path().join("journal")).unwrap();
    let head = journal.iter().position(|byte| *byte == b'\n').unwrap() + 17;
    let mut frames = Vec::new();
    let mut rest = &journal[head..];
    while let Some((len, _)) = rest.split_first_chunk::<4>() {
        let (frame, behind) = rest.split_at(u32::from_be_bytes(*len) as usize + 12);
        frames.push(frame);
        rest = behind;
    }
    assert!(frames.len() >= 2, "{}", frames.len());
    let last = frames.len() - 1;
    let without_first = frames[1..].concat();
    let mut swapped = frames.clone();
    swapped.swap(last - 1, last);
    let twice = [&frames[..], &[frames[last]]].concat();
    for (frames, is_left) in [(without_first, 0), (swapped.concat(), 0), (twice.concat(), 1)] {
        let dir = copy(dir.path());
        fs::write(dir.path().join("journal"), [&journal[..head], &frames].concat()).unwrap();
        let cache = sealed(dir.path());
        let left = cache.take_left();
        assert_eq!(left.len(), is_left);
        left.iter().for_each(|left| left.file.discard());
    }
    let other = fast_dir();
    let cache = plain(other.path(), 0).unwrap();
    let file = open(&cache);
    file.set_server(server.served());
    file.write(0, WRITTEN).unwrap();
    fs::copy(other.path().join("journal"), dir.path().join("journal")).unwrap();
    all_is_well(dir.path(), &server);
    file.discard();
}

#[test]
fn a_key_that_nobody_knows_leaves_nothing() {
    let server = server();
    let dir = fast_dir();
    for _ in 0..2 {
        let cache = DataCache::in_dir(dir.path(), 0, &Encryption::Passing).unwrap();
        assert_eq!(cache.used_bytes(), 0);
        let file = open(&cache);
        file.set_server(server.served());
        assert!(read(&file, &server, 0..u64::MAX / 4) == server.data);
        file.write(0, WRITTEN).unwrap();
        assert!(file.set_aside("a test").is_none());
        // Its contents are there when nobody has it, for as long as the program runs.
        file.discard();
        drop(file);
        let file = open(&cache);
        file.set_server(server.served());
        assert!(file.read(100_000..200_000, &mut Vec::new()).unwrap());
        let bytes = fs::read(data_file(dir.path())).unwrap();
        assert!(
            !bytes
                .windows(16)
                .any(|window| window == &server.data[400_000..400_016])
        );
    }
    assert!(!dir.path().join("journal").exists() && !dir.path().join("index.redb").exists());
    // Whoever comes next begins anew.
    assert_eq!(sealed(dir.path()).used_bytes(), 0);
}

#[test]
fn what_is_plain_and_not_stored_is_not_thrown_away() {
    let dir = fast_dir();
    let cache = plain(dir.path(), 0).unwrap();
    let file = open(&cache);
    file.set_server(served(1, 0));
    file.write(0, WRITTEN).unwrap();
    let died = copy(dir.path());
    file.discard();
    drop(file);
    drop(cache);
    let error = DataCache::in_dir(died.path(), 0, &key(1)).unwrap_err();
    assert!(matches!(error, CacheError::NotStored { .. }), "{error}");
    assert_eq!(plain(died.path(), 0).unwrap().take_left().len(), 1);
    // With nothing to lose it begins anew.
    assert_eq!(sealed(dir.path()).used_bytes(), 0);
}

#[test]
fn what_is_set_aside_is_sealed_and_can_be_revealed() {
    let server = server();
    let dir = written(&server);
    let cache = sealed(dir.path());
    let left = cache.take_left().pop().unwrap();
    let folder = left.file.set_aside("somebody else changed it").unwrap().unwrap();
    left.file.discard();
    drop(left);
    drop(cache);
    for path in files(&dir.path().join("set-aside")) {
        let bytes = fs::read(&path).unwrap();
        for needle in [WRITTEN, CELL, b"somebody"] {
            assert!(!bytes.windows(needle.len()).any(|window| window == needle));
        }
    }
    let asides = sealed(dir.path()).asides();
    assert!(asides[0].about.contains("somebody else changed it"));
    let Encryption::Key(right) = key(1) else {
        unreachable!()
    };
    let Encryption::Key(wrong) = key(2) else {
        unreachable!()
    };
    let mut out = Vec::new();
    let about = reveal(&folder, &right, &mut out).unwrap();
    assert!(
        about.contains("reason: somebody else changed it\ncell: lab.example\n"),
        "{about}"
    );
    assert_eq!(out.len(), server.data.len());
    assert_eq!(&out[1_000_000..1_000_000 + WRITTEN.len()], WRITTEN);
    reveal(&folder, &wrong, &mut Vec::new()).unwrap_err();
    // Taken away, it is damage.
    let data = folder.join("data");
    let file = File::options().write(true).open(&data).unwrap();
    punch_all(&file);
    let error = reveal(&folder, &right, &mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

fn punch_all(file: &File) {
    backing::punch_hole(file, &(0..file.metadata().unwrap().len())).unwrap();
}
