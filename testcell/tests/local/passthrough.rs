//! Files that the kernel reads by itself: which, and that they are what they were, whatever happens meanwhile.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use testcell::{Kept, Mount, MountOptions, afs_program, eventually, local, run};

/// What a place shows of itself.
pub(crate) trait Counted {
    fn sum(&self, family: &str, labels: &[(&str, &str)]) -> f64;

    fn opens(&self, kind: &str) -> f64 {
        self.sum("afs_fuse_opens_total", &[("kind", kind)])
    }
}

impl Counted for Mount<'_> {
    fn sum(&self, family: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics().unwrap().sum(family, labels)
    }
}

impl Counted for Kept<'_> {
    fn sum(&self, family: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics().unwrap().sum(family, labels)
    }
}

/// Does this kernel lend, and to us? Root of a namespace is not asked.
pub(crate) fn is_allowed() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next(), numbers.next());
    let is_root = rustix::process::geteuid().is_root();
    let is_initial = fs::read_to_string("/proc/self/uid_map")
        .unwrap()
        .contains("4294967295");
    is_root && is_initial && version >= (Some(6), Some(9))
}

pub(crate) fn with_cache(dir: &TempDir) -> MountOptions {
    MountOptions::default().cache_dir(&dir.path().join("cache"))
}

pub(crate) fn data(seed: u32) -> Vec<u8> {
    (0..3_000_001_u32).map(|at| (at / 7 + seed) as u8).collect()
}

/// Opens a file as soon as the kernel may read it by itself: the release of who had it open before may be on its way.
pub(crate) fn lent(place: &impl Counted, path: &Path) -> File {
    let mut open = None;
    let is_lent = || {
        drop(open.take());
        let before = place.opens("lent");
        open = Some(File::open(path).unwrap());
        place.opens("lent") > before
    };
    assert!(eventually(Duration::from_secs(10), is_lent));
    open.unwrap()
}

pub(crate) fn holds(file: &File, expected: &[u8]) -> bool {
    let mut all = vec![1; expected.len() + 1];
    let mut at = 0;
    while let count @ 1.. = file.read_at(&mut all[at..], at as u64).unwrap() {
        at += count;
    }
    all[..at] == *expected
}

/// The file that is open, by its link in /proc.
pub(crate) fn again(file: &File) -> std::io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[test]
fn the_kernel_reads_what_is_wholly_cached() {
    if !is_allowed() {
        return;
    }
    let (cell, dir) = (local(), tempfile::tempdir().unwrap());
    let old = data(1);
    cell.release_with("ro.data", "big", &old).unwrap();
    let mount = cell.mount_with(1, &with_cache(&dir)).unwrap();
    let path = mount.path("ro/big");
    let first = File::open(&path).unwrap();
    assert!(holds(&first, &old));
    // It is all here; but who has it open asks us.
    let second = File::open(&path).unwrap();
    assert!(holds(&second, &old));
    assert_eq!((mount.opens("served"), mount.opens("lent")), (2.0, 0.0));
    drop((first, second));

    let held = lent(&mount, &path);
    let reads = || mount.sum("afs_fuse_requests_total", &[("op", "read")]);
    let before = reads();
    assert!(holds(&held, &old));
    let direct = OpenOptions::new()
        .read(true)
        .custom_flags(O_DIRECT)
        .open(&path)
        .unwrap();
    let mapped = Command::new("python3")
        .args(["-c", MAPPED, &path.display().to_string()])
        .output()
        .unwrap();
    assert_eq!(mapped.stdout, old, "{}", String::from_utf8_lossy(&mapped.stderr));
    assert!(holds(&File::open(&path).unwrap(), &old));
    assert_eq!((reads(), mount.opens("served")), (before, 2.0));
    let mut why = cell.client_command(1, afs_program().unwrap());
    let said = run(Duration::from_secs(30), why.arg("why").arg(&path))
        .unwrap()
        .ok()
        .unwrap();
    assert!(
        said.text().contains(", and read by the kernel itself"),
        "{}",
        said.text()
    );
    assert_eq!(held.metadata().unwrap().len(), old.len() as u64);
    drop((held, direct));

    // A program that runs is not changed under itself.
    let program = fs::read("/bin/sleep").unwrap();
    cell.release_with("ro.data", "run", &program).unwrap();
    let path = mount.path("ro/run");
    assert!(eventually(Duration::from_secs(10), || fs::read(&path).unwrap() == program));
    assert_eq!(mount.opens("stale"), 0.0);
}

#[test]
fn a_release_is_for_who_opens_it_next() {
    if !is_allowed() {
        return;
    }
    let (cell, dir) = (local(), tempfile::tempdir().unwrap());
    let versions = [1, 2, 3].map(data);
    cell.release_with("ro.data", "big", &versions[0]).unwrap();
    let mount = cell.mount_with(1, &with_cache(&dir)).unwrap();
    let path = mount.path("ro/big");
    assert_eq!(fs::read(&path).unwrap(), versions[0]);
    let mut held = vec![lent(&mount, &path)];
    for new in &versions[1..] {
        cell.release_with("ro.data", "big", new).unwrap();
        assert!(eventually(Duration::from_secs(10), || fs::read(&path).unwrap() == *new));
        held.push(lent(&mount, &path));
    }
    // All at once: each has what it has opened, and so has who opens that.
    for (file, expected) in held.iter().zip(&versions) {
        assert!(holds(file, expected));
        let somebody_else = || assert!(holds(&again(file).unwrap(), expected));
        std::thread::scope(|scope| scope.spawn(somebody_else).join()).unwrap();
    }
    let numbers: HashSet<_> = held.iter().map(|file| file.metadata().unwrap().ino()).collect();
    assert_eq!(numbers.len(), held.len(), "they are told apart");
    assert_eq!(
        mount.opens("stale"),
        4.0,
        "once for each release, once for each link to an old one"
    );
    drop(held);
    assert!(holds(&lent(&mount, &path), &versions[2]));
}

#[test]
fn what_is_lent_is_not_evicted() {
    if !is_allowed() {
        return;
    }
    let (cell, dir) = (local(), tempfile::tempdir().unwrap());
    let big = data(1);
    cell.release_with("ro.data", "big", &big).unwrap();
    let options = with_cache(&dir).argument("--cache-size").argument("16M");
    let mount = cell.mount_with(1, &options).unwrap();
    let path = mount.path("ro/big");
    assert_eq!(fs::read(&path).unwrap(), big);
    let held = lent(&mount, &path);
    let folder = mount.work("others").unwrap();
    let flush = || {
        for number in 0..20 {
            fs::write(folder.join(number.to_string()), vec![7; 1 << 20]).unwrap();
        }
    };
    flush();
    assert!(holds(&held, &big));
    let calls = cell.calls("FetchData64");
    assert!(holds(&File::open(&path).unwrap(), &big));
    assert_eq!(cell.calls("FetchData64"), calls, "it is here still");
    // A mapping is there longer than what it was made of is open.
    let mut reader = Command::new("python3");
    let mut reader = reader
        .args(["-c", MAPPED_LONG, &path.display().to_string()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0];
    std::io::Read::read_exact(reader.stdout.as_mut().unwrap(), &mut ready).unwrap();
    drop(held);
    assert!(eventually(Duration::from_secs(10), || {
        flush();
        let calls = cell.calls("FetchData64");
        assert_eq!(fs::read(&path).unwrap(), big);
        cell.calls("FetchData64") > calls
    }));
    let mapped = reader.wait_with_output().unwrap();
    assert_eq!(mapped.stdout, big);
}

#[test]
fn what_may_change_or_is_hidden_is_not_lent() {
    let (cell, dir) = (local(), tempfile::tempdir().unwrap());
    let big = data(1);
    cell.release_with("ro.data", "big", &big).unwrap();
    let read = |options: &MountOptions, path: &str| {
        let mount = cell.mount_with(1, options).unwrap();
        let path = mount.point().join(path);
        if path.ends_with("work/big") {
            fs::write(&path, &big).unwrap();
        }
        for _ in 0..5 {
            assert_eq!(fs::read(&path).unwrap(), big);
        }
        assert_eq!(mount.opens("lent"), 0.0);
    };
    read(&with_cache(&dir), "lab.example/work/big");
    read(&with_cache(&dir), ".lab.example/ro/big");
    read(
        &with_cache(&dir).argument("--passthrough").argument("off"),
        "lab.example/ro/big",
    );
    read(&MountOptions::default(), "lab.example/ro/big");
    if !is_allowed() {
        read(&with_cache(&dir), "lab.example/ro/big");
    }
    let dir = tempfile::tempdir().unwrap();
    read(
        &with_cache(&dir).argument("--cache-encrypt"),
        "lab.example/ro/big",
    );
}

const MAPPED: &str = "
import mmap, sys
file = open(sys.argv[1], 'rb')
sys.stdout.buffer.write(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
";
const MAPPED_LONG: &str = "
import ctypes, mmap, os, sys
file, size = os.open(sys.argv[1], os.O_RDONLY), os.stat(sys.argv[1]).st_size
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
at = libc.mmap(None, ctypes.c_size_t(size), mmap.PROT_READ, mmap.MAP_PRIVATE, file, ctypes.c_long(0))
os.close(file)
sys.stdout.buffer.write(b'!')
sys.stdout.buffer.flush()
sys.stdin.buffer.read()
sys.stdout.buffer.write(ctypes.string_at(at, size))
";
const O_DIRECT: i32 = 0o40000;
