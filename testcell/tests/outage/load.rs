//! A program that writes on one client and one that reads on the other, for as long as something else goes on.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    /// The last round whose writing was begun; which file it is of follows.
    begun: AtomicU64,
    /// The last round that was written, and closed.
    written: AtomicU64,
    /// The last round of the reader.
    read: AtomicU64,
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
            begun: AtomicU64::new(0),
            written: AtomicU64::new(0),
            read: AtomicU64::new(0),
        }
    }

    fn write(&self, done: &AtomicBool) {
        for round in 1.. {
            if done.load(Ordering::Acquire) {
                return;
            }
            let name = (round % FILES).to_string();
            self.begun.store(round, Ordering::Release);
            fs::write(self.folders[0].join(&name), contents(round))
                .unwrap_or_else(|error| panic!("round {round}: {error}\n{}", self.mounts[0].said()));
            self.written.store(round, Ordering::Release);
            thread::sleep(PAUSE);
        }
    }

    fn read(&self, done: &AtomicBool) {
        for round in 1.. {
            if done.load(Ordering::Acquire) {
                return;
            }
            let said = |error| panic!("round {round}: {error}\n{}", self.mounts[1].said());
            let name = (round % FILES).to_string();
            let before = last(round, &self.written);
            let found = fs::read(self.folders[1].join(&name)).unwrap_or_else(said);
            let begun = last(round, &self.begun);
            // Who opens a file to write it anew cuts it; and who reads meanwhile may have pages of two rounds.
            if before == begun {
                assert!(
                    found == contents(before),
                    "round {round}: {name} is not of {before} but {}",
                    described(&found, begun)
                );
            } else if let Some(number) = found.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) {
                assert!(
                    (before..=begun).contains(&number),
                    "round {round}: {name} is of {number}, {before} was closed and {begun} begun"
                );
            }
            let hello = fs::read(self.mounts[1].path("ro/hello")).unwrap_or_else(|error| {
                panic!("round {round}: ro: {error}\n{}", self.mounts[1].said());
            });
            assert!(hello.starts_with(b"hello"), "{hello:?}");
            // Otherwise the caches answer.
            let names = fs::read_dir(self.mounts[1].path("ro/dir")).map(Iterator::count);
            assert!(names.is_ok_and(|names| names == 200), "round {round}");
            self.read.store(round, Ordering::Release);
            thread::sleep(PAUSE);
        }
    }

    /// Of the writer, and of the reader.
    fn rounds(&self) -> [u64; 2] {
        [&self.written, &self.read].map(|rounds| rounds.load(Ordering::Acquire))
    }

    /// The server holds what was closed last, and the other client sees it.
    pub(crate) fn check(&self) {
        let held = self.cell.held("work").unwrap();
        let folder = tempfile::tempdir().unwrap();
        for number in 0..FILES {
            let (name, round) = (number.to_string(), last(number, &self.written));
            let expected = folder.path().join(&name);
            fs::write(&expected, contents(round)).unwrap();
            let sum = testcell::sha256(&expected).unwrap();
            assert_eq!(held.get(&format!("{}/{name}", self.name)), Some(&sum), "{name}");
            assert!(
                fs::read(self.folders[1].join(&name)).unwrap() == contents(round),
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
        // Whatever it was, both must get over it, and not by one last answer.
        let before = load.rounds();
        let both_go_on = || {
            let ended = writer.is_finished() || reader.is_finished();
            let [written, read] = load.rounds();
            ended || (written > before[0] + GOING_ON && read > before[1] + GOING_ON)
        };
        let went_on = testcell::eventually(LIMIT, both_go_on);
        done.store(true, Ordering::Release);
        for program in [writer, reader] {
            program.join().unwrap();
        }
        assert!(went_on, "{before:?} rounds before, {:?} now", load.rounds());
    });
}

/// The last round up to this one that is of the same file as another round; 0 is what each file had first.
fn last(same: u64, upto: &AtomicU64) -> u64 {
    let upto = upto.load(Ordering::Acquire);
    upto.saturating_sub((upto + FILES - same % FILES) % FILES)
}

/// What is written in a round: its number, and bytes that it decides.
fn contents(round: u64) -> Vec<u8> {
    let mut bytes = round.to_le_bytes().to_vec();
    let length = usize::try_from(round * 7919 % 150_000).unwrap();
    bytes.extend(Random::new(round + 1).bytes(length));
    bytes
}

/// Of which rounds the pages are that a file is made of.
fn described(found: &[u8], newest: u64) -> String {
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
/// Rounds that show that all is well again.
const GOING_ON: u64 = 20;
const LIMIT: Duration = Duration::from_secs(60);
