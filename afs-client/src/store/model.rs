//! The cache against a plain vector, with a server that stores for real.

use std::os::unix::fs::FileExt as _;

use proptest::prelude::*;

use super::content::StoreCall;
use super::*;
use crate::rpc::types::StoreStatus;
use crate::types::{CellId, DataVersion, Uniquifier, VnodeId, VolumeId};

/// A file on a server, by the rules of StoreData64.
#[derive(Default)]
pub(super) struct Server {
    pub(super) data: Vec<u8>,
    pub(super) version: u64,
}

pub(super) fn served(version: u64, len: u64) -> Served {
    Served {
        version: DataVersion(version),
        len,
        changed: 7,
    }
}

/// The one file of these tests.
pub(super) fn open(cache: &DataCache) -> Arc<CacheFile> {
    let fid = Fid {
        cell: CellId(1),
        volume: VolumeId(2),
        vnode: VnodeId(4),
        unique: Uniquifier(5),
    };
    cache.file(&CellName::new("lab.example").unwrap(), fid)
}

impl Server {
    pub(super) fn served(&self) -> Served {
        served(self.version, self.data.len() as u64)
    }

    fn version(&self) -> DataVersion {
        DataVersion(self.version)
    }

    fn store(&mut self, call: &StoreCall, data: &[u8]) {
        assert_eq!(call.range.end - call.range.start, data.len() as u64);
        let (start, end) = (call.range.start as usize, call.range.end as usize);
        self.data.truncate(call.file_length as usize);
        // Without data only a position behind the end extends.
        if end > self.data.len() {
            self.data.resize(end, 0);
        }
        self.data[start..end].copy_from_slice(data);
        self.version += 1;
    }
}

fn fetch(file: &CacheFile, server: &Server, fills: Vec<Fill>) {
    for fill in fills {
        fill.prepare().unwrap();
        let range = fill.range().clone();
        let end = (range.end as usize).min(server.data.len());
        let data = &server.data[(range.start as usize).min(end)..end];
        let parts: Vec<_> = data.chunks(1000).map(bytes::Bytes::copy_from_slice).collect();
        fill.put(range.start, &parts).unwrap();
        assert!(fill.commit(end as u64, server.version()));
    }
    let _ = file;
}

pub(super) fn read(file: &CacheFile, server: &Server, range: std::ops::Range<u64>) -> Vec<u8> {
    for _ in 0..3 {
        let mut out = Vec::new();
        if file.read(range.clone(), &mut out).unwrap() {
            return out;
        }
        agree(file, server);
        fetch(file, server, file.begin_fills(range.clone(), 8192));
    }
    panic!("never read {range:?}");
}

/// Nobody but us writes while something is modified: another version is what a call of ours has made.
fn agree(file: &CacheFile, server: &Server) {
    if file.is_modified() && file.version() != Some(server.version()) {
        assert!(file.attempt().is_some());
        file.rebase(server.served());
    }
}

/// How far a store gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stops {
    Never,
    /// The call cannot be made.
    Before(usize),
    /// The server executes the call, and we do not hear of it.
    After(usize),
}

/// Stores what is dirty, and with it the attributes that were set, if all goes well.
fn store(file: &CacheFile, server: &mut Server, set: &mut StoreStatus, stops: Stops) -> bool {
    agree(file, server);
    let plan = file.begin_store();
    let noted = file.noted();
    if plan.calls.is_empty() {
        *set = set.then(noted);
        file.status_stored(noted);
        return true;
    }
    for (number, call) in plan.calls.iter().enumerate() {
        file.sending(call, Mark { mtime: 7, sum: 8 });
        if stops == Stops::Before(number) {
            return false;
        }
        let len = (call.range.end - call.range.start) as usize;
        let data = file.read_for_store(call.range.start, len).unwrap();
        server.store(call, &data);
        let is_last = number + 1 == plan.calls.len();
        if is_last {
            *set = set.then(noted);
        }
        if stops == Stops::After(number) {
            return false;
        }
        if !is_last {
            file.part_stored(server.served());
        }
    }
    file.end_store(server.served(), true, noted);
    true
}

#[derive(Clone, Debug)]
enum Op {
    Write {
        at: u64,
        len: usize,
        byte: u8,
    },
    Truncate(u64),
    Read {
        at: u64,
        len: u64,
    },
    Store(Stops),
    /// Bits are set, if there is something that they can go with.
    SetMode(u32),
    /// Everything clean goes.
    Evict,
    /// Somebody else appends to the file while we have nothing dirty, or writes nothing.
    Foreign {
        at: u64,
        byte: u8,
    },
    /// A fetch of everything, overtaken by a truncation.
    Race(u64),
    /// The whole file is lent.
    Lend,
    /// What is lent is given back; whoever has mapped it has it still.
    Return,
    /// The program ends and starts again.
    Restart,
    /// It dies, maybe in a store, and starts again with what the directory held at that moment.
    Crash(Option<Stops>),
}

/// A copy of a cache directory as it is.
pub(super) fn copy(from: &Path) -> tempfile::TempDir {
    fn copy_into(from: &Path, to: &Path) {
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                std::fs::create_dir(&to).unwrap();
                copy_into(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let dir = fast_dir();
    copy_into(from, dir.path());
    dir
}

/// Another directory with what a program leaves there that dies now: the files themselves, as far as the kernel has them.
pub(super) fn died(dir: &Path) -> tempfile::TempDir {
    let left = copy(dir);
    for shard in std::fs::read_dir(dir.join("data")).unwrap() {
        for entry in std::fs::read_dir(shard.unwrap().path()).unwrap() {
            let from = entry.unwrap().path();
            let to = left.path().join(from.strip_prefix(dir).unwrap());
            std::fs::remove_file(&to).unwrap();
            std::fs::hard_link(from, to).unwrap();
        }
    }
    left
}

/// All that can be read of a file, which should be so long.
pub(super) fn contents(file: &File, len: u64) -> Vec<u8> {
    let mut all = vec![1; len as usize + 1];
    let mut at = 0;
    while let count @ 1.. = file.read_at(&mut all[at..], at as u64).unwrap() {
        at += count;
    }
    all.truncate(at);
    all
}

/// A cache in a directory that is not encrypted.
pub(super) fn plain(dir: &Path, max_bytes: u64) -> Result<DataCache, CacheError> {
    DataCache::in_dir(dir, max_bytes, &Encryption::Off)
}

/// A key made of one byte.
pub(super) fn key(byte: u8) -> Encryption {
    let dir = fast_dir();
    let path = dir.path().join("key");
    std::fs::write(&path, [byte; 32]).unwrap();
    Encryption::Key(CacheKey::read(&path).unwrap())
}

/// A directory that does not wait for a disk, where there is one.
pub(super) fn fast_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

const SPAN: u64 = 40_000;

fn stops() -> impl Strategy<Value = Stops> {
    prop_oneof![
        Just(Stops::Never),
        (0..3usize).prop_map(Stops::Before),
        (0..3usize).prop_map(Stops::After),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (0..SPAN, 1usize..9000, 1u8..255).prop_map(|(at, len, byte)| Op::Write { at, len, byte }),
        2 => (0..SPAN).prop_map(Op::Truncate),
        4 => (0..SPAN, 0..SPAN).prop_map(|(at, len)| Op::Read { at, len }),
        3 => stops().prop_map(Op::Store),
        2 => (0..0o1000u32).prop_map(Op::SetMode),
        1 => Just(Op::Evict),
        1 => (0..SPAN, 1u8..255).prop_map(|(at, byte)| Op::Foreign { at, byte }),
        1 => (0..SPAN).prop_map(Op::Race),
        2 => Just(Op::Lend),
        1 => Just(Op::Return),
        1 => Just(Op::Restart),
        2 => prop::option::of(stops()).prop_map(Op::Crash),
    ];
    prop::collection::vec(op, 1..40)
}

proptest! {
    #[test]
    fn file_behaves_like_a_vector(start in 0usize..30_000, ops in ops(), kind in 0..3) {
        let encryption = if kind == 2 { key(7) } else { Encryption::Off };
        let on_disk = kind > 0;
        let in_dir = |dir: &Path| DataCache::in_dir(dir, 0, &encryption).unwrap();
        let mut dir = fast_dir();
        let mut cache = if on_disk { in_dir(dir.path()) } else { DataCache::in_memory(0) };
        let mut server = Server { data: (0..start).map(|i| i as u8 | 1).collect(), version: 1 };
        let (mut set, mut held) = (StoreStatus::default(), StoreStatus::default());
        let mut model = server.data.clone();
        let mut file = open(&cache);
        file.set_server(server.served());
        let mut lent: Vec<(Option<Loan>, File, Vec<u8>)> = Vec::new();
        for op in ops {
            match op {
                Op::Write { at, len, byte } => {
                    file.write(at, &vec![byte; len]).unwrap();
                    let end = at as usize + len;
                    if model.len() < end {
                        model.resize(end, 0);
                    }
                    model[at as usize..end].fill(byte);
                }
                Op::Truncate(len) => {
                    file.truncate(len);
                    model.resize(len as usize, 0);
                }
                Op::Read { at, len } => {
                    let got = read(&file, &server, at..at + len);
                    let end = model.len().min((at + len) as usize);
                    prop_assert_eq!(&got, &model[(at as usize).min(end)..end]);
                }
                Op::Store(stops) => {
                    if store(&file, &mut server, &mut held, stops) {
                        prop_assert_eq!(&server.data, &model);
                        prop_assert_eq!(held, set);
                        prop_assert!(!file.is_unstored());
                    } else {
                        file.store_failed();
                    }
                }
                Op::SetMode(bits) => {
                    let bits = StoreStatus {
                        mask: StoreStatus::SET_MODE,
                        unix_mode_bits: bits,
                        ..StoreStatus::default()
                    };
                    if file.set_status(bits) {
                        set = set.then(bits);
                    }
                    prop_assert_eq!(file.noted().mask != 0, file.is_unstored());
                }
                Op::Evict => {
                    for chunk in 0..=SPAN / CHUNK {
                        let freed = file.evict_chunk(chunk).freed;
                        cache.0.shared.freed(freed);
                    }
                }
                Op::Foreign { at, byte } => {
                    if !file.is_modified() {
                        server.data.resize(at as usize, byte);
                        server.version += 1;
                        model = server.data.clone();
                        file.set_server(server.served());
                    }
                }
                Op::Lend => {
                    read(&file, &server, 0..u64::MAX / 4);
                    let loan = file.lend(server.version());
                    prop_assert!(loan.is_none() || kind == 1 && !file.is_modified());
                    prop_assert!(loan.is_some() || kind != 1 || file.is_modified() || model.is_empty());
                    lent.extend(loan.map(|(loan, open)| (Some(loan), open.into(), model.clone())));
                }
                Op::Return => lent.iter_mut().for_each(|(loan, ..)| *loan = None),
                Op::Restart | Op::Crash(_) if !on_disk => {}
                op @ (Op::Restart | Op::Crash(_)) => {
                    if let Op::Crash(stops) = op {
                        if let Some(stops) = stops {
                            store(&file, &mut server, &mut held, stops);
                        }
                        let copied = died(dir.path());
                        cache.close();
                        dir = copied;
                    } else {
                        cache.close();
                    }
                    drop(file);
                    cache = in_dir(dir.path());
                    let left = cache.take_left();
                    file = open(&cache);
                    prop_assert_eq!(!left.is_empty(), file.is_unstored());
                    file.set_server(server.served());
                }
                Op::Race(len) => {
                    let fills = file.begin_fills(0..SPAN, 8192);
                    for fill in &fills {
                        fill.prepare().unwrap();
                    }
                    let before = server.data.clone();
                    file.truncate(len);
                    model.resize(len as usize, 0);
                    for fill in fills {
                        let range = fill.range().clone();
                        let end = (range.end as usize).min(before.len());
                        let data = bytes::Bytes::copy_from_slice(&before[range.start as usize..end]);
                        fill.put(range.start, &[data]).unwrap();
                        fill.commit(end as u64, server.version());
                    }
                }
            }
            prop_assert_eq!(file.len(), model.len() as u64);
            for (_, open, expected) in &lent {
                prop_assert_eq!(&contents(open, expected.len() as u64), expected);
            }
        }
        let whole = read(&file, &server, 0..u64::MAX / 4);
        prop_assert_eq!(&whole, &model);
        store(&file, &mut server, &mut held, Stops::Never);
        prop_assert_eq!((&server.data, held), (&model, set));
        lent.iter_mut().for_each(|(loan, ..)| *loan = None);
        drop(file);
        prop_assert_eq!(cache.dirty_bytes(), 0);
        if on_disk {
            // After one more restart it is the same, and all of it can be evicted.
            drop(cache);
            cache = in_dir(dir.path());
            let file = open(&cache);
            file.set_server(server.served());
            prop_assert_eq!(read(&file, &server, 0..u64::MAX / 4), model);
            for chunk in 0..=2 * SPAN / CHUNK {
                cache.0.shared.freed(file.evict_chunk(chunk).freed);
            }
        }
        prop_assert_eq!(cache.used_bytes(), 0);
        prop_assert_eq!(cache.chunks(), 0);
        for (_, open, expected) in &lent {
            prop_assert_eq!(&contents(open, expected.len() as u64), expected);
        }
    }
}

#[test]
fn the_bound_is_hard_and_dirty_data_stays() {
    let cache = DataCache::in_memory(MIN_BYTES);
    let server = Server {
        data: vec![7; 32 << 20],
        version: 1,
    };
    let file = open(&cache);
    file.set_server(server.served());
    file.write(5_000_000, b"only here").unwrap();
    for at in (0..32u64 << 20).step_by(1 << 18) {
        assert_eq!(read(&file, &server, at..at + 10).len(), 10);
        assert!(cache.used_bytes() <= MIN_BYTES);
    }
    let mut out = Vec::new();
    assert!(file.read(5_000_000..5_000_009, &mut out).unwrap());
    assert_eq!(out, b"only here");
    assert_eq!(cache.dirty_bytes(), 4096);
}

/// Pages go in other ways than by eviction: the list of chunks must not keep what is left of them.
#[test]
fn a_file_that_lost_its_pages_leaves_no_chunk_behind() {
    let cache = DataCache::in_memory(0);
    let server = Server {
        data: vec![7; 3 << 20],
        version: 1,
    };
    let lose: [fn(&CacheFile); 3] = [
        |file| file.truncate(0),
        |file| file.set_server(served(2, 0)),
        |file| file.discard(),
    ];
    for lose in lose {
        let file = open(&cache);
        file.set_server(server.served());
        read(&file, &server, 0..3 << 20);
        file.write(5 << 20, b"only here").unwrap();
        assert_eq!(cache.chunks(), 4);
        lose(&file);
        drop(file);
        assert_eq!(
            (cache.chunks(), cache.used_bytes(), cache.dirty_bytes()),
            (0, 0, 0)
        );
    }
}

#[test]
fn all_dirty_is_storage_full() {
    let cache = DataCache::in_memory(MIN_BYTES);
    let file = open(&cache);
    file.set_server(served(1, 0));
    file.write(0, &vec![1; MIN_BYTES as usize]).unwrap();
    let error = file.write(MIN_BYTES, b"x").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

#[test]
fn a_range_is_fetched_once() {
    let cache = DataCache::in_memory(MIN_BYTES);
    let file = open(&cache);
    file.set_server(served(1, 1 << 20));
    let first = file.begin_fills(0..300_000, 1 << 18);
    assert_eq!(first.len(), 2);
    assert!(file.begin_fills(100..200, 1 << 18).is_empty());
    assert_eq!(file.filling(&(0..10)).len(), 1);
    drop(first);
    assert_eq!(file.begin_fills(100..200, 1 << 18).len(), 1);
}
