//! A program that writes on one client and one that reads on the other, for as long as something else goes on.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use testcell::{Cell, Mount, Random};

/// The programs.
pub(crate) struct Load<'c> {
    cell: &'c Cell,
    mounts: [&'c Mount<'c>; 2],
    name: &'static str,
    /// Where each of them has the files.
    folders: [PathBuf; 2],
    /// What was written last to each file, and closed.
    written: Mutex<BTreeMap<String, u64>>,
}

impl<'c> Load<'c> {
    pub(crate) fn new(
        cell: &'c Cell,
        writer: &'c Mount<'c>,
        reader: &'c Mount<'c>,
        name: &'static str,
    ) -> Self {
        let folder = writer.work(name).unwrap();
        for number in 0..FILES {
            fs::write(folder.join(number.to_string()), contents(0)).unwrap();
        }
        Self {
            cell,
            mounts: [writer, reader],
            name,
            folders: [folder, reader.path("work").join(name)],
            written: Mutex::default(),
        }
    }

    fn write(&self, done: &AtomicBool) -> u64 {
        for round in 1.. {
            if done.load(Ordering::Acquire) {
                return round;
            }
            let name = (round % FILES).to_string();
            fs::write(self.folders[0].join(&name), contents(round))
                .unwrap_or_else(|error| panic!("round {round}: {error}\n{}", self.mounts[0].said()));
            self.written.lock().unwrap().insert(name, round);
            thread::sleep(PAUSE);
        }
        0
    }

    fn read(&self, done: &AtomicBool) -> u64 {
        for round in 1.. {
            if done.load(Ordering::Acquire) {
                return round;
            }
            let said = |error| panic!("round {round}: {error}\n{}", self.mounts[1].said());
            let name = (round % FILES).to_string();
            let before = self.written.lock().unwrap().get(&name).copied().unwrap_or(0);
            let found = fs::read(self.folders[1].join(&name)).unwrap_or_else(said);
            // Between the two, who opens a file to write it anew cuts it.
            let number = found.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
            if let Some(number) = number {
                assert!(
                    found == contents(number),
                    "round {round}: {name} is torn: {}",
                    torn(&found, round + FILES)
                );
                assert!(
                    number >= before,
                    "round {round}: {name} is of {number}, {before} was closed"
                );
            }
            let hello = fs::read(self.mounts[1].path("ro/hello")).unwrap_or_else(|error| {
                panic!("round {round}: ro: {error}\n{}", self.mounts[1].said());
            });
            assert!(hello.starts_with(b"hello"), "{hello:?}");
            // Otherwise the caches answer.
            let names = fs::read_dir(self.mounts[1].path("ro/dir")).map(Iterator::count);
            assert!(names.is_ok_and(|names| names == 200), "round {round}");
            thread::sleep(PAUSE);
        }
        0
    }

    /// The server holds what was closed last, and the other client sees it.
    pub(crate) fn check(&self) {
        let held = self.cell.held("work").unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (name, round) in &*self.written.lock().unwrap() {
            let expected = folder.path().join(name);
            fs::write(&expected, contents(*round)).unwrap();
            let sum = testcell::sha256(&expected).unwrap();
            assert_eq!(held.get(&format!("{}/{name}", self.name)), Some(&sum), "{name}");
            assert!(
                fs::read(self.folders[1].join(name)).unwrap() == contents(*round),
                "{name}"
            );
        }
        fs::remove_dir_all(&self.folders[0]).unwrap();
    }
}

/// Has `disturb` go on while programs write and read, who must see no error, nothing torn and nothing old.
pub(crate) fn under_load(load: &Load<'_>, disturb: impl FnOnce()) {
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _ended = Done(&done);
        let writer = scope.spawn(|| load.write(&done));
        let reader = scope.spawn(|| load.read(&done));
        disturb();
        // Whatever it was, it must be got over.
        let mark = load.written.lock().unwrap().values().max().copied();
        let moved = || load.written.lock().unwrap().values().max().copied() > mark;
        assert!(testcell::eventually(LIMIT, moved), "the writer does not go on");
        done.store(true, Ordering::Release);
        for rounds in [writer.join().unwrap(), reader.join().unwrap()] {
            assert!(rounds > 20, "{rounds}");
        }
    });
}

/// What is written in a round: its number, and bytes that it decides.
fn contents(round: u64) -> Vec<u8> {
    let mut bytes = round.to_le_bytes().to_vec();
    let length = usize::try_from(round * 7919 % 150_000).unwrap();
    bytes.extend(Random::new(round + 1).bytes(length));
    bytes
}

/// Of which rounds the pages are that a file is made of.
fn torn(found: &[u8], newest: u64) -> String {
    let rounds: Vec<_> = (0..=newest).map(|round| (round, contents(round))).collect();
    let mut parts: Vec<(usize, Option<u64>)> = Vec::new();
    for (number, page) in found.chunks(4096).enumerate() {
        let at = number * 4096;
        let of = rounds
            .iter()
            .find(|(_, bytes)| bytes.get(at..at + page.len()) == Some(page));
        let of = of.map(|(round, _)| *round);
        if parts.last().is_none_or(|(_, last)| *last != of) {
            parts.push((at, of));
        }
    }
    format!("{} bytes, from where of which round: {parts:?}", found.len())
}

const FILES: u64 = 12;
const PAUSE: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(60);
