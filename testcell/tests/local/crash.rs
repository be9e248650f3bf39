//! Clients with their cache on disk that are killed in the middle of writing, and cache directories that fail.
//!
//! The machine: a load of a fixed order of operations, from a seed, runs on a mount until that is killed at a random moment.
//! The next mount on the same directory brings what was not stored to the server. Then every file is there as the last
//! operation that had returned left it, or as the one that had not would have.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use testcell::{Mount, MountOptions, Random, afs_program, eventually, local_for, run};

use crate::shared;

/// What a file may be on the server.
#[derive(Clone, Debug, Default)]
struct Allowed {
    /// After the last operation that has returned; `None`: there is none.
    is: Option<Vec<u8>>,
    /// After the one that has not.
    may_be: Option<Option<Vec<u8>>>,
}

/// The load, and what it has done.
struct Load {
    random: Random,
    files: BTreeMap<String, Allowed>,
    operations: u64,
}

impl Load {
    /// Does one operation; false when the mount is gone.
    fn step(&mut self, dir: &Path, open: &mut BTreeMap<String, File>) -> bool {
        let name = format!("f{}", self.random.below(6));
        let path = dir.join(&name);
        let before = self.files.entry(name.clone()).or_default().is.clone();
        let at = self.random.below(40_000) as usize;
        let data = {
            let length = 1 + self.random.below(60_000) as usize;
            self.random.bytes(length)
        };
        let mut after = before.clone();
        let choice = self.random.below(10);
        if let Some(contents) = &mut after {
            match choice {
                0..=4 => {
                    if contents.len() < at + data.len() {
                        contents.resize(at + data.len(), 0);
                    }
                    contents[at..at + data.len()].copy_from_slice(&data);
                }
                5 => contents.resize(at, 0),
                _ => {}
            }
        } else {
            after = Some(Vec::new());
        }
        self.files.get_mut(&name).unwrap().may_be = Some(after.clone());
        let mut file = || -> std::io::Result<()> {
            if before.is_none() {
                let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
                open.insert(name.clone(), file);
                return Ok(());
            }
            if !open.contains_key(&name) {
                open.insert(name.clone(), OpenOptions::new().write(true).open(&path)?);
            }
            let file = &open[&name];
            match choice {
                0..=4 => file.write_all_at(&data, at as u64),
                5 => file.set_len(at as u64),
                6 => file.sync_all(),
                7 | 8 => {
                    open.remove(&name);
                    Ok(())
                }
                _ => fs::metadata(&path).map(drop),
            }
        };
        let done = file().is_ok();
        if done {
            let allowed = self.files.get_mut(&name).unwrap();
            allowed.is = after;
            allowed.may_be = None;
            self.operations += 1;
        }
        done
    }

    /// What does not fit, file by file. What a file is becomes what it was taken to be.
    fn compare(&mut self, held: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, allowed) in &mut self.files {
            let now = held.get(name).cloned();
            let fits = now == allowed.is || allowed.may_be.as_ref().is_some_and(|may_be| *may_be == now);
            // A write in pieces may have been cut between them.
            let fits = fits
                || allowed
                    .may_be
                    .as_ref()
                    .is_some_and(|may_be| is_between(&allowed.is, may_be, &now));
            if !fits {
                let length = |contents: &Option<Vec<u8>>| contents.as_ref().map(Vec::len);
                wrong.push(format!(
                    "{name}: {:?} bytes, not {:?} or {:?}",
                    length(&now),
                    length(&allowed.is),
                    allowed.may_be.as_ref().map(length)
                ));
            }
            allowed.is = now;
            allowed.may_be = None;
        }
        wrong
    }
}

/// Is every byte of `now` that of the one or of the other?
fn is_between(one: &Option<Vec<u8>>, other: &Option<Vec<u8>>, now: &Option<Vec<u8>>) -> bool {
    let (Some(one), Some(other), Some(now)) = (one, other, now) else {
        return false;
    };
    let fits = |at: usize| {
        [one, other]
            .iter()
            .any(|side| side.get(at).copied().unwrap_or(0) == now[at])
    };
    now.len() >= one.len().min(other.len())
        && now.len() <= one.len().max(other.len())
        && (0..now.len()).all(fits)
}

fn options(cache: &Path) -> MountOptions {
    let words = ["--cache-dir", cache.to_str().unwrap(), "--cache-size", "64M"];
    words
        .iter()
        .fold(MountOptions::default(), |options, word| options.argument(word))
}

fn unstored_of(mount: &Mount<'_>, state: &str) -> f64 {
    mount
        .metrics()
        .unwrap()
        .sum("afs_unstored_files", &[("state", state)])
}

/// `kill -9` at random moments of a load of writes, with a plain cache and an encrypted one by turns. AFS_KILLS asks for more
/// of them.
#[test]
fn nothing_that_was_written_is_lost_to_kill_9() {
    let kills = std::env::var("AFS_KILLS").map_or(4, |kills| kills.parse::<u64>().unwrap());
    let cell = local_for(Duration::from_secs(60 + 3 * kills));
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    fs::write(&key, [9; 32]).unwrap();
    let encrypted = options(&folder.path().join("encrypted"))
        .argument("--cache-key-file")
        .argument(key.to_str().unwrap());
    let caches = [options(&folder.path().join("plain")), encrypted];
    let mut load = Load {
        random: Random::new(2026),
        files: BTreeMap::new(),
        operations: 0,
    };
    let (mut recovered, mut restarts) = (0, 0);
    for (kill, options) in (0..kills).zip(caches.iter().cycle()) {
        let mount = cell.mount_with(1, options).unwrap();
        let dir = mount.path("work").join("killed");
        if kill == 0 {
            fs::create_dir(&dir).unwrap();
        }
        let moment = Duration::from_millis(5 + load.random.below(400));
        std::thread::scope(|scope| {
            let load = &mut load;
            scope.spawn(move || {
                let mut open = BTreeMap::new();
                while load.step(&dir, &mut open) {}
            });
            std::thread::sleep(moment);
            mount.kill().unwrap();
            // What waits for an answer fails.
            mount.detach();
        });
        drop(mount);

        let mount = cell.mount_with(1, options).unwrap();
        recovered += u64::from(mount.said().contains("not stored yet"));
        let is_done = || unstored_of(&mount, "waiting") == 0.0;
        if !eventually(Duration::from_secs(2), is_done) {
            // The server waits for the rest of a store of the client that died, and has nobody at the file meanwhile.
            cell.kill_server(1).unwrap();
            restarts += 1;
        }
        assert!(
            eventually(Duration::from_secs(40), is_done),
            "kill {kill}\n{}",
            mount.said()
        );
        assert_eq!(
            unstored_of(&mount, "set-aside"),
            0.0,
            "kill {kill}\n{}",
            mount.said()
        );
        let held = held(&cell);
        let wrong = load.compare(&held);
        assert!(wrong.is_empty(), "kill {kill} after {moment:?}: {wrong:#?}");
        // And it is seen.
        for (name, contents) in &held {
            assert!(
                fs::read(mount.path("work/killed").join(name)).unwrap() == *contents,
                "kill {kill}: {name}"
            );
        }
    }
    eprintln!(
        "{kills} kills, {} operations, {recovered} times something was left, {restarts} times for a server that was still at it",
        load.operations
    );
    let mount = cell.mount(1).unwrap();
    fs::remove_dir_all(mount.path("work/killed")).unwrap();
}

/// What an earlier program has left waits as long as its server does not take it, and is set aside if somebody else has changed
/// the file meanwhile: `afs status` says so, and does not say that all is on the servers.
#[test]
fn what_is_not_in_its_place_is_told() {
    let cell = shared();
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder.path().join("cache"));
    let mount = cell.mount_with(1, &options).unwrap();
    let work = mount.work("untold").unwrap();
    for name in ["mine", "ours"] {
        fs::write(work.join(name), "before").unwrap();
    }
    let open: Vec<_> = ["mine", "ours"]
        .map(|name| OpenOptions::new().write(true).open(work.join(name)).unwrap())
        .into_iter()
        .inspect(|file| file.write_all_at(b"behind", 0).unwrap())
        .collect();
    mount.kill().unwrap();
    mount.detach();
    drop((open, mount));
    let other = cell.mount(2).unwrap();
    fs::write(other.path("work/untold/ours"), "theirs").unwrap();
    drop(other);
    cell.fail("on 1-6 fs StoreData64: abort VBUSY").unwrap();

    let mount = cell.mount_with(1, &options).unwrap();
    let status = |json: &[&str]| {
        let mut command = cell.client_command(1, afs_program().unwrap());
        command.arg("status").args(json).arg(mount.point());
        run(Duration::from_secs(20), &mut command)
            .unwrap()
            .ok()
            .unwrap()
            .text()
    };
    let told = || serde_json::from_str::<Value>(&status(&["--json"])).unwrap()["unstored"].take();
    // Which is the first is by chance: what was changed may be set aside already.
    let unstored = told();
    let files = unstored["files"].as_array().unwrap();
    assert_eq!(files.len(), 2, "{unstored}");
    let waiting: Vec<_> = files.iter().filter(|file| file["state"] == "waiting").collect();
    assert!(!waiting.is_empty(), "{unstored}");
    assert_eq!(unstored["waiting"], waiting.len(), "{unstored}");
    for file in waiting {
        assert_eq!(file["cell"], "lab.example", "{file}");
        assert!(file["owner"].as_str().unwrap().starts_with("user "), "{file}");
    }
    let words = status(&[]);
    for part in [
        "of an earlier program wait to be stored",
        "waits for its server or a token: by user ",
    ] {
        assert!(words.contains(part), "{words}");
    }
    assert!(!words.contains("all is on the servers"), "{words}");

    let settled = eventually(Duration::from_secs(50), || {
        let unstored = told();
        unstored["waiting"] == 0 && unstored["set_aside"] == 1
    });
    assert!(settled, "{}", mount.said());
    let unstored = told();
    assert_eq!(
        (&unstored["set_aside"], &unstored["conflicts"]),
        (&1.into(), &1.into())
    );
    let aside = &unstored["files"][0];
    assert_eq!(aside["state"], "set-aside");
    let folder = Path::new(aside["folder"].as_str().unwrap());
    assert!(fs::read(folder.join("data")).unwrap().starts_with(b"behind"));
    let words = status(&[]);
    assert!(
        words.contains("SET ASIDE in ") && !words.contains("all is on the servers"),
        "{words}"
    );
    assert_eq!(fs::read(mount.path("work/untold/mine")).unwrap(), b"behind");
    assert_eq!(fs::read(mount.path("work/untold/ours")).unwrap(), b"theirs");
    // Whoever has looked at it removes it.
    fs::remove_dir_all(folder).unwrap();
    assert!(status(&[]).contains("dirty        nothing: all is on the servers"));
    assert_eq!(unstored_of(&mount, "set-aside"), 0.0);
}

/// What the server holds of the folder.
fn held(cell: &testcell::LocalShared) -> BTreeMap<String, Vec<u8>> {
    let all = cell.contents("work").unwrap();
    all.into_iter()
        .filter_map(|(path, contents)| Some((path.strip_prefix("killed/")?.to_owned(), contents)))
        .collect()
}

/// A file system of so many bytes. Gone when dropped.
struct Small(
    PathBuf,
    #[expect(dead_code, reason = "holds the mount point")] tempfile::TempDir,
);

impl Small {
    fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let point = folder.path().join("small");
        fs::create_dir(&point).unwrap();
        let options = std::ffi::CString::new(format!("size={size},mode=700")).unwrap();
        rustix::mount::mount(
            "tmpfs",
            &point,
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            options.as_c_str(),
        )
        .expect("a small file system: needs root, or a user namespace");
        Self(point, folder)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// The file system of the cache has a fifth of the room that the cache may take, and others fill the rest of it: data goes
/// past the cache, and nobody sees an error.
#[test]
fn a_full_cache_disk_is_nobodys_error() {
    let cell = shared();
    let small = Small::new("12m");
    let cache = small.0.join("cache");
    let mount = cell.mount_with(1, &options(&cache)).unwrap();
    let work = mount.work("full").unwrap();
    let contents: Vec<_> = (0..8).map(|seed| Random::new(seed).bytes(3 << 20)).collect();
    let path = |number: usize| work.join(format!("f{number}"));
    for round in 0..3 {
        if round == 1 {
            // Somebody else takes all that there is.
            let mut filler = File::create(small.0.join("filler")).unwrap();
            let _ = std::io::copy(&mut std::io::repeat(1), &mut filler);
        }
        for (number, contents) in contents.iter().enumerate() {
            fs::write(path(number), contents).unwrap();
        }
        for (number, contents) in contents.iter().enumerate() {
            assert!(
                fs::read(path(number)).unwrap() == *contents,
                "round {round}: f{number}"
            );
        }
    }
    let used = mount
        .metrics()
        .unwrap()
        .sum("afs_cache_size_bytes", &[("cache", "data")]);
    assert!(used < f64::from(12 << 20), "{used}");
    let said = mount
        .said()
        .matches("the cache cannot be used as it should")
        .count();
    assert!(said <= 1, "said {said} times");
    fs::remove_dir_all(&work).unwrap();
}

/// The cache may take more than the file system has: a fiftieth of that is left to others, and the rest is used.
#[test]
fn some_of_the_cache_disk_is_left_to_others() {
    let cell = shared();
    let small = Small::new("48m");
    let all = 48 << 20;
    let mount = cell.mount_with(1, &options(&small.0.join("cache"))).unwrap();
    let work = mount.work("reserve").unwrap();
    let mut least = all;
    for number in 0..16 {
        let path = work.join(format!("f{number}"));
        let contents = Random::new(number).bytes(5 << 20);
        fs::write(&path, &contents).unwrap();
        assert!(fs::read(&path).unwrap() == contents, "f{number}");
        let space = rustix::fs::statvfs(&small.0).unwrap();
        least = least.min(space.f_bavail * space.f_frsize);
    }
    // What the index grows by is made room for a moment later.
    assert!(least >= all / 50 - (256 << 10), "{least} bytes were left");
    assert!(least <= all / 10, "{least} bytes were not used");
    let bypasses = mount.metrics().unwrap().sum("afs_cache_bypasses_total", &[]);
    assert_eq!(bypasses, 0.0);
    fs::remove_dir_all(&work).unwrap();
}

/// Nothing can be opened in it any more.
#[test]
fn a_cache_disk_that_fails_is_nobodys_error() {
    let cell = shared();
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let mount = cell.mount_with(1, &options(&cache)).unwrap();
    let work = mount.work("failing").unwrap();
    let contents: Vec<_> = (0..4).map(|seed| Random::new(seed).bytes(1 << 20)).collect();
    let path = |number: usize| work.join(format!("f{number}"));
    fs::write(path(0), &contents[0]).unwrap();
    let other = cell.mount(2).unwrap();
    fs::write(other.path("work/failing/f1"), &contents[1]).unwrap();
    let mut open = OpenOptions::new();
    let failing = open
        .write(true)
        .create(true)
        .truncate(false)
        .open(path(2))
        .unwrap();
    fs::rename(cache.join("data"), cache.join("gone")).unwrap();
    fs::write(cache.join("data"), "").unwrap();
    failing.write_all_at(&contents[2], 0).unwrap();
    drop(failing);
    fs::write(path(3), &contents[3]).unwrap();
    for (number, contents) in contents.iter().enumerate() {
        assert!(fs::read(path(number)).unwrap() == *contents, "f{number}");
    }
    for number in 0..4 {
        let (here, there) = (
            path(number),
            other.path("work/failing").join(format!("f{number}")),
        );
        assert!(fs::read(here).unwrap() == fs::read(there).unwrap(), "f{number}");
    }
    let bypasses = mount
        .metrics()
        .unwrap()
        .sum("afs_cache_bypasses_total", &[("reason", "failed")]);
    assert!(bypasses > 0.0);
    fs::remove_dir_all(&work).unwrap();
}
