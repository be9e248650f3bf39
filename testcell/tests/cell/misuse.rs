//! More system calls with arguments that no program should give: ioctls, locks, mappings, places of directories, pointers.
//!
//! The machine: Python does each case in a child of its own, in a folder of a local file system and in one of the mount. The
//! errno must be the same; where docs/semantics.md says otherwise it stands beside the case.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::Errno;

use crate::shared;

type Said = Result<(), Errno>;

/// What the mount is to say.
enum Wanted {
    /// What a local file system says.
    AsLocal,
    /// Something else than that.
    But(Said),
    /// Local file systems differ.
    Always(Said),
}
use Wanted::{Always, AsLocal, But};

/// In the folder: `file` is open both ways, `dir` is a directory. Each line is done, and its errno told.
const PROGRAM: &str = "
import ctypes, fcntl, mmap, os, resource, struct, sys, traceback
os.chdir(sys.argv[1])
c = ctypes.CDLL(None, use_errno=True)
c.mmap.restype = ctypes.c_long
file, dir = os.open('file', os.O_RDWR), os.open('dir', os.O_RDONLY)
def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), '')
def lock(start, length, kind=fcntl.F_WRLCK, whence=0, of=file, command=fcntl.F_SETLK):
    fcntl.fcntl(of, command, struct.pack('hhqqi4x', kind, whence, start, length, 0))
# FS_IOC_RESVSP is 0x40305828, FS_IOC_UNRESVSP 0x4030582a (xfs_fs.h).
def reserve(command, start, length, whence=0):
    fcntl.ioctl(file, command, struct.pack('hhxxxxqqiI16x', 0, whence, start, length, 0, 0))
# FICLONERANGE is 0x4020940d, FICLONE 0x40049409 (linux/fs.h).
def clone(*words):
    fcntl.ioctl(file, 0x4020940d, struct.pack('qQQQ', *words))
def limited(does):
    resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))
    does()
def removed():
    os.mkdir('gone')
    os.chdir('gone')
    os.rmdir('../gone')
def does(line):
    try:
        exec(line)
        return 0
    except OSError as error:
        return error.errno
    except BaseException:
        traceback.print_exc()
        return 255
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os._exit(does(line))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
";

const CALLS: &[(&str, &str, Wanted)] = &[
    ("an ioctl that nobody knows", "fcntl.ioctl(file, 0x5afe)", AsLocal),
    (
        "an ioctl that nobody knows, of a directory",
        "fcntl.ioctl(dir, 0x5afe)",
        AsLocal,
    ),
    (
        "an ioctl with a large argument",
        "fcntl.ioctl(file, 0xffff5afe, bytearray(65536))",
        AsLocal,
    ),
    (
        "an ioctl of a terminal",
        "fcntl.ioctl(file, 0x5413, bytes(8))",
        AsLocal,
    ),
    (
        "room of a negative length by ioctl",
        "reserve(0x40305828, 0, -1)",
        AsLocal,
    ),
    (
        "room at a negative offset by ioctl",
        "reserve(0x40305828, -9, 9)",
        AsLocal,
    ),
    (
        "room from nowhere by ioctl",
        "reserve(0x40305828, 0, 9, whence=7)",
        AsLocal,
    ),
    (
        "a hole of a negative length by ioctl",
        "reserve(0x4030582a, 0, -1)",
        AsLocal,
    ),
    (
        "room by ioctl",
        "reserve(0x40305828, 0, 9)",
        But(Err(Errno::OPNOTSUPP)),
    ),
    (
        "a block before the first",
        "fcntl.ioctl(file, 1, struct.pack('i', -1))",
        AsLocal,
    ),
    (
        "a clone of nothing",
        "clone(-1, 0, 0, 0)",
        Always(Err(Errno::BADF)),
    ),
    (
        "a clone of a part",
        "clone(os.open('other', os.O_RDONLY), 0, 1, 0)",
        Always(Err(Errno::OPNOTSUPP)),
    ),
    (
        "a clone",
        "fcntl.ioctl(file, 0x40049409, os.open('other', os.O_RDONLY))",
        Always(Err(Errno::OPNOTSUPP)),
    ),
    ("a lock that ends before the start", "lock(5, -9)", AsLocal),
    ("a lock before the start", "lock(-5, 9)", AsLocal),
    ("a lock backwards", "lock(9, -5)", AsLocal),
    (
        "a lock beyond the last offset",
        "lock(0x7fffffffffffffff, 9)",
        AsLocal,
    ),
    ("a lock of the last byte", "lock(0x7fffffffffffffff, 1)", AsLocal),
    ("a lock from nowhere", "lock(0, 0, whence=7)", AsLocal),
    ("a lock of no kind", "lock(0, 0, kind=7)", AsLocal),
    (
        "a lock for writing of what is read only",
        "lock(0, 0, of=os.open('file', os.O_RDONLY))",
        AsLocal,
    ),
    (
        "a lock for reading of a directory",
        "lock(0, 0, kind=fcntl.F_RDLCK, of=dir)",
        AsLocal,
    ),
    (
        "a look for a lock of no kind",
        "lock(0, 0, kind=7, command=fcntl.F_GETLK)",
        AsLocal,
    ),
    (
        "a lock of what is but a path",
        "fcntl.flock(os.open('file', os.O_PATH), fcntl.LOCK_SH)",
        AsLocal,
    ),
    ("flock of no kind", "call(c.flock(file, 0))", AsLocal),
    (
        "a directory sought before its start",
        "os.lseek(dir, -1, 0)",
        AsLocal,
    ),
    ("a directory sought from nowhere", "os.lseek(dir, 0, 77)", AsLocal),
    (
        "a directory listed from the middle of nowhere",
        "os.lseek(dir, 123456789, 0); os.listdir(dir)",
        AsLocal,
    ),
    (
        "a directory listed into too little",
        "call(c.syscall(217, dir, ctypes.create_string_buffer(9), 9))",
        AsLocal,
    ),
    (
        "a directory mapped",
        "mmap.mmap(dir, 4096, prot=mmap.PROT_READ)",
        AsLocal,
    ),
    (
        "a mapping for writing of what is read only",
        "mmap.mmap(os.open('file', os.O_RDONLY), 4)",
        AsLocal,
    ),
    (
        "a mapping from within a page",
        "call(c.mmap(0, 4096, 1, 1, file, 9))",
        AsLocal,
    ),
    (
        "a mapping of nothing",
        "call(c.mmap(0, 0, 1, 1, file, 0))",
        AsLocal,
    ),
    (
        "a read to nowhere",
        "call(c.read(file, ctypes.c_void_p(8), 4))",
        AsLocal,
    ),
    (
        "a write from nowhere",
        "call(c.write(file, ctypes.c_void_p(8), 4))",
        AsLocal,
    ),
    (
        "a listing to nowhere",
        "call(c.syscall(217, dir, ctypes.c_void_p(8), 4096))",
        AsLocal,
    ),
    (
        "a path from nowhere",
        "call(c.mkdir(ctypes.c_void_p(8), 0o755))",
        AsLocal,
    ),
    (
        "a write beyond what the process may",
        "limited(lambda: os.pwrite(file, bytes(9), 9))",
        AsLocal,
    ),
    (
        "a length beyond what the process may",
        "limited(lambda: os.ftruncate(file, 99))",
        AsLocal,
    ),
    ("a negative length by name", "os.truncate('file', -1)", AsLocal),
    (
        "the length of a directory by name",
        "os.truncate('dir', 1)",
        AsLocal,
    ),
    (
        "advice for a negative length",
        "os.posix_fadvise(file, 0, -9, os.POSIX_FADV_DONTNEED)",
        AsLocal,
    ),
    (
        "advice that nobody knows",
        "os.posix_fadvise(file, 0, 9, 77)",
        AsLocal,
    ),
    (
        "a file in a directory that is removed",
        "removed(); os.open('new', os.O_CREAT | os.O_WRONLY)",
        AsLocal,
    ),
    (
        "a directory in one that is removed",
        "removed(); os.mkdir('new')",
        AsLocal,
    ),
    (
        "the name of a directory that is removed",
        "removed(); os.getcwd()",
        AsLocal,
    ),
    (
        "a direct read from between sectors",
        "os.pread(os.open('file', os.O_RDWR | os.O_DIRECT), 3, 1)",
        Always(Ok(())),
    ),
    (
        "a direct write to between sectors",
        "os.pwrite(os.open('file', os.O_RDWR | os.O_DIRECT), b'abc', 1)",
        Always(Ok(())),
    ),
];

fn furnish(folder: &Path) {
    fs::write(folder.join("file"), "content").unwrap();
    fs::write(folder.join("other"), "other").unwrap();
    fs::create_dir_all(folder.join("dir/sub")).unwrap();
}

fn all_in(folder: &Path) -> Vec<Said> {
    furnish(folder);
    let mut program = Command::new("python3")
        .args(["-c", PROGRAM])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: String = CALLS.iter().map(|(_, does, _)| format!("{does}\n")).collect();
    program.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let said = program.wait_with_output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let codes = said.lines().map(|line| line.parse().unwrap());
    let all: Vec<_> = codes
        .map(|code| match code {
            0 => Ok(()),
            1..255 => Err(Errno::from_raw_os_error(code)),
            _ => panic!("{said}"),
        })
        .collect();
    assert_eq!(all.len(), CALLS.len());
    all
}

#[test]
fn calls_that_cannot_be() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("misuse").unwrap();
    let local = tempfile::tempdir().unwrap();
    let (here, there) = (all_in(local.path()), all_in(&work));
    let mut wrong = Vec::new();
    for ((what, does, wanted), (here, there)) in CALLS.iter().zip(here.into_iter().zip(there)) {
        let right = match wanted {
            AsLocal => there == here,
            But(said) => there == *said && there != here,
            Always(said) => there == *said,
        };
        if !right {
            wrong.push(format!("{what}: {there:?}, a local file system {here:?}: {does}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(fs::read_dir(&work).unwrap().count(), 3, "the mount still serves");
    fs::remove_dir_all(&work).unwrap();
}
