//! System calls with arguments that no program should give: what a local file system says, beside what the mount says.
//!
//! The machine: each case is done in a folder of a local file system and in one of the mount, both with the same things in
//! them. The errno must be the same; where docs/semantics.md says otherwise it stands beside the case.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::shared;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Gid, Mode, OFlags, RenameFlags, Timespec,
    Timestamps, UTIME_OMIT, Uid, XattrFlags, chownat, copy_file_range, fallocate, flock, fsync, ftruncate,
    getxattr, linkat, lstat, mkdirat, mknodat, open, readlinkat, removexattr, renameat_with, rmdir, seek,
    setxattr, stat, symlinkat, unlink, utimensat,
};
use rustix::io::{Errno, pread, pwrite, read, write};

type Said = Result<(), Errno>;

/// What a case does in a folder, and what it must say if not what a local file system says.
struct Case {
    what: &'static str,
    does: fn(&Path) -> Said,
    contract: Option<Said>,
    /// Local file systems say something else.
    differs: bool,
    /// What is said to others depends on their number.
    by_root: bool,
}

const fn case(what: &'static str, does: fn(&Path) -> Said) -> Case {
    Case {
        what,
        does,
        contract: None,
        differs: false,
        by_root: false,
    }
}

const fn but(what: &'static str, does: fn(&Path) -> Said, contract: Said) -> Case {
    Case {
        contract: Some(contract),
        differs: true,
        ..case(what, does)
    }
}

/// Owners are of the cell: who is the owner here is not there.
const fn by_root(case: Case) -> Case {
    Case {
        by_root: true,
        ..case
    }
}

/// What some local file systems say, and others, which know larger files, do not.
const fn always(what: &'static str, does: fn(&Path) -> Said, contract: Said) -> Case {
    Case {
        differs: false,
        ..but(what, does, contract)
    }
}

fn furnish(folder: &Path) {
    fs::write(folder.join("file"), "content").unwrap();
    fs::hard_link(folder.join("file"), folder.join("second")).unwrap();
    fs::write(folder.join("other"), "other").unwrap();
    fs::create_dir_all(folder.join("dir/sub")).unwrap();
    fs::write(folder.join("dir/inner"), "inner").unwrap();
    fs::create_dir(folder.join("empty")).unwrap();
    symlink("file", folder.join("link")).unwrap();
    symlink("loop", folder.join("loop")).unwrap();
    symlink("nowhere", folder.join("dangling")).unwrap();
    symlink("ping", folder.join("pong")).unwrap();
    symlink("pong", folder.join("ping")).unwrap();
}

fn with(folder: &Path, name: &str, flags: OFlags) -> Result<rustix::fd::OwnedFd, Errno> {
    open(folder.join(name), flags, Mode::RUSR | Mode::WUSR)
}

fn done<T>(result: Result<T, Errno>) -> Said {
    result.map(drop)
}

fn long(length: usize) -> String {
    "n".repeat(length)
}

fn rename(folder: &Path, from: &str, to: &str, flags: RenameFlags) -> Said {
    renameat_with(CWD, folder.join(from), CWD, folder.join(to), flags)
}

fn make(folder: &Path, name: &[u8]) -> Said {
    let path = folder.join(OsStr::from_bytes(name));
    done(open(
        path,
        OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY,
        Mode::RUSR | Mode::WUSR,
    ))
}

fn node(folder: &Path, kind: FileType) -> Said {
    mknodat(CWD, folder.join("node"), kind, Mode::RUSR, 0)
}

const PLAIN: RenameFlags = RenameFlags::empty();

const NAMES: &[Case] = &[
    case("a name with a line end", |at| make(at, b"two\nlines")),
    case("a name that is not UTF-8", |at| make(at, b"\xff\xfe\x80")),
    case("a name of control characters", |at| make(at, b"\x01\x7f\t")),
    case("a name of 255 bytes", |at| make(at, long(255).as_bytes())),
    case("a name of 256 bytes", |at| make(at, long(256).as_bytes())),
    case("stat of 256 bytes", |at| done(stat(at.join(long(256))))),
    case("mkdir of 256 bytes", |at| {
        mkdirat(CWD, at.join(long(256)), Mode::RWXU)
    }),
    case("symlink of 256 bytes", |at| {
        symlinkat("x", CWD, at.join(long(256)))
    }),
    case("rename to 256 bytes", |at| rename(at, "file", &long(256), PLAIN)),
    case("link to 256 bytes", |at| {
        linkat(CWD, at.join("file"), CWD, at.join(long(256)), AtFlags::empty())
    }),
    case("unlink of 256 bytes", |at| unlink(at.join(long(256)))),
    case("rmdir of 256 bytes", |at| rmdir(at.join(long(256)))),
    case("a path of 5,000 bytes", |at| {
        done(stat(at.join("./".repeat(2500) + "file")))
    }),
    case("a path of nothing", |_| done(stat(""))),
    case("through a file", |at| done(stat(at.join("file/x")))),
    case("create below a file", |at| make(at, b"file/x")),
    case("mkdir below a file", |at| {
        mkdirat(CWD, at.join("file/x"), Mode::RWXU)
    }),
    case("a file with a slash", |at| done(stat(at.join("file/")))),
    case("a file and up", |at| done(stat(at.join("file/..")))),
    case("create with a slash", |at| make(at, b"new/")),
    case("mkdir with a slash", |at| {
        mkdirat(CWD, at.join("new/"), Mode::RWXU)
    }),
    case("through nothing", |at| done(stat(at.join("nowhere/x")))),
    case("create below nothing", |at| make(at, b"nowhere/x")),
    case("mkdir over a file", |at| {
        mkdirat(CWD, at.join("file"), Mode::RWXU)
    }),
    case("mkdir of .", |at| mkdirat(CWD, at.join("."), Mode::RWXU)),
    case("mkdir of ..", |at| mkdirat(CWD, at.join(".."), Mode::RWXU)),
    case("through a loop", |at| done(stat(at.join("loop/x")))),
    case("a loop", |at| done(stat(at.join("loop")))),
    case("a loop of two", |at| done(stat(at.join("ping")))),
    case("lstat of a loop", |at| done(lstat(at.join("loop")))),
    case("a link to nothing", |at| done(stat(at.join("dangling")))),
];

const REMOVALS: &[Case] = &[
    case("unlink of a directory", |at| unlink(at.join("dir"))),
    case("unlink of nothing", |at| unlink(at.join("nowhere"))),
    case("unlink with a slash", |at| unlink(at.join("file/"))),
    case("unlink of .", |at| unlink(at.join("dir/."))),
    case("unlink of a link to nothing", |at| unlink(at.join("dangling"))),
    case("rmdir of a file", |at| rmdir(at.join("file"))),
    case("rmdir of a link", |at| rmdir(at.join("link"))),
    case("rmdir of what is not empty", |at| rmdir(at.join("dir"))),
    case("rmdir of .", |at| rmdir(at.join("empty/."))),
    case("rmdir of ..", |at| rmdir(at.join("empty/.."))),
    case("rmdir of nothing", |at| rmdir(at.join("nowhere"))),
    case("rename onto itself", |at| rename(at, "file", "file", PLAIN)),
    case("rename to another name of the same", |at| {
        rename(at, "file", "second", PLAIN)
    }),
    case("rename into its own child", |at| {
        rename(at, "dir", "dir/sub/new", PLAIN)
    }),
    case("rename of a directory to what is in it", |at| {
        rename(at, "dir", "dir/sub", PLAIN)
    }),
    case("rename of what is in it over a directory", |at| {
        rename(at, "dir/sub", "dir", PLAIN)
    }),
    case("rename over what is not empty", |at| {
        rename(at, "empty", "dir", PLAIN)
    }),
    case("rename of a directory over an empty one", |at| {
        rename(at, "dir", "empty", PLAIN)
    }),
    case("rename of a file over a directory", |at| {
        rename(at, "file", "empty", PLAIN)
    }),
    case("rename of a directory over a file", |at| {
        rename(at, "empty", "file", PLAIN)
    }),
    case("rename of nothing", |at| rename(at, "nowhere", "new", PLAIN)),
    case("rename to below nothing", |at| {
        rename(at, "file", "nowhere/new", PLAIN)
    }),
    case("rename to below a file", |at| {
        rename(at, "other", "file/new", PLAIN)
    }),
    case("rename of .", |at| rename(at, "dir/.", "new", PLAIN)),
    case("rename to ..", |at| rename(at, "empty", "dir/..", PLAIN)),
    case("rename of a file with a slash", |at| {
        rename(at, "file", "new/", PLAIN)
    }),
    case("rename not over what is there", |at| {
        rename(at, "other", "file", RenameFlags::NOREPLACE)
    }),
    case("rename with flags that exclude each other", |at| {
        rename(
            at,
            "file",
            "other",
            RenameFlags::NOREPLACE | RenameFlags::EXCHANGE,
        )
    }),
    case("rename with flags that nobody knows", |at| {
        rename(at, "file", "other", RenameFlags::from_bits_retain(1 << 20))
    }),
    but(
        "an exchange",
        |at| rename(at, "file", "other", RenameFlags::EXCHANGE),
        Err(Errno::INVAL),
    ),
    always(
        "rename that leaves something else",
        |at| rename(at, "file", "new", RenameFlags::WHITEOUT),
        Err(Errno::INVAL),
    ),
    case("link to a directory", |at| {
        linkat(CWD, at.join("dir"), CWD, at.join("new"), AtFlags::empty())
    }),
    case("link over a file", |at| {
        linkat(CWD, at.join("file"), CWD, at.join("other"), AtFlags::empty())
    }),
    case("link to nothing", |at| {
        linkat(CWD, at.join("nowhere"), CWD, at.join("new"), AtFlags::empty())
    }),
    case("link below a file", |at| {
        linkat(CWD, at.join("file"), CWD, at.join("file/x"), AtFlags::empty())
    }),
    but(
        "link to a link",
        |at| linkat(CWD, at.join("link"), CWD, at.join("new"), AtFlags::empty()),
        Err(Errno::PERM),
    ),
    but(
        "link into another directory",
        |at| linkat(CWD, at.join("file"), CWD, at.join("empty/x"), AtFlags::empty()),
        Err(Errno::XDEV),
    ),
    case("symlink of nothing", |at| symlinkat("", CWD, at.join("new"))),
    case("symlink over a file", |at| symlinkat("x", CWD, at.join("file"))),
    case("symlink of 5,000 bytes", |at| {
        symlinkat(long(5000), CWD, at.join("new"))
    }),
    but(
        "symlink of 2,000 bytes",
        |at| symlinkat(long(2000), CWD, at.join("new")),
        Err(Errno::NAMETOOLONG),
    ),
    case("readlink of a file", |at| {
        done(readlinkat(CWD, at.join("file"), Vec::new()))
    }),
    case("readlink of a directory", |at| {
        done(readlinkat(CWD, at.join("dir"), Vec::new()))
    }),
    case("a node that is a file", |at| node(at, FileType::RegularFile)),
    case("a node that is a directory", |at| node(at, FileType::Directory)),
    but("a pipe", |at| node(at, FileType::Fifo), Err(Errno::PERM)),
    but("a socket", |at| node(at, FileType::Socket), Err(Errno::PERM)),
    but(
        "a device",
        |at| node(at, FileType::CharacterDevice),
        Err(Errno::PERM),
    ),
];

const OPENING: &[Case] = &[
    case("a directory for writing", |at| {
        done(with(at, "dir", OFlags::WRONLY))
    }),
    case("a directory to be cut", |at| {
        done(with(at, "dir", OFlags::RDONLY | OFlags::TRUNC))
    }),
    case("a directory to be made", |at| {
        done(with(at, "dir", OFlags::RDONLY | OFlags::CREATE))
    }),
    case("a file as a directory", |at| {
        done(with(at, "file", OFlags::DIRECTORY))
    }),
    case("to be made as a directory", |at| {
        done(with(at, "new", OFlags::DIRECTORY | OFlags::CREATE))
    }),
    case("a file anew", |at| {
        done(with(at, "file", OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL))
    }),
    case("a link to nothing anew", |at| {
        done(with(
            at,
            "dangling",
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL,
        ))
    }),
    case("through a link to nothing", |at| {
        done(with(at, "dangling", OFlags::WRONLY | OFlags::CREATE))
    }),
    case("a link itself", |at| done(with(at, "link", OFlags::NOFOLLOW))),
    case("a loop", |at| done(with(at, "loop", OFlags::RDONLY))),
    case("a loop to be made", |at| {
        done(with(at, "loop", OFlags::WRONLY | OFlags::CREATE))
    }),
    case("both ways at once", |at| {
        done(with(at, "file", OFlags::from_bits_retain(3)))
    }),
    by_root(case("without the time of access", |at| {
        done(with(at, "file", OFlags::NOATIME))
    })),
    but(
        "without a name",
        |at| done(open(at, OFlags::TMPFILE | OFlags::RDWR, Mode::RWXU)),
        Err(Errno::OPNOTSUPP),
    ),
];

const DATA: &[Case] = &[
    case("read of a directory", |at| {
        done(read(with(at, "dir", OFlags::RDONLY)?, &mut [0; 9]))
    }),
    case("read of what is written only", |at| {
        done(read(with(at, "file", OFlags::WRONLY)?, &mut [0; 9]))
    }),
    case("write of what is read only", |at| {
        done(write(with(at, "file", OFlags::RDONLY)?, b"x"))
    }),
    case("read at the last offset", |at| {
        done(pread(
            with(at, "file", OFlags::RDONLY)?,
            &mut [0; 9],
            i64::MAX as u64,
        ))
    }),
    case("read at a negative offset", |at| {
        done(pread(
            with(at, "file", OFlags::RDONLY)?,
            &mut [0; 9],
            u64::MAX - 4,
        ))
    }),
    case("write at a negative offset", |at| {
        done(pwrite(with(at, "file", OFlags::WRONLY)?, b"x", u64::MAX - 4))
    }),
    case("write beyond the last offset", |at| {
        done(pwrite(with(at, "file", OFlags::WRONLY)?, b"xy", i64::MAX as u64))
    }),
    always(
        "write behind the longest file",
        |at| done(pwrite(with(at, "file", OFlags::WRONLY)?, b"x", 1 << 50)),
        Err(Errno::FBIG),
    ),
    case("write of nothing", |at| {
        done(write(with(at, "file", OFlags::WRONLY)?, b""))
    }),
    case("seek before the start", |at| {
        done(seek(
            with(at, "file", OFlags::RDONLY)?,
            rustix::fs::SeekFrom::Current(-1),
        ))
    }),
    case("seek beyond the last offset", |at| {
        done(seek(
            with(at, "file", OFlags::RDONLY)?,
            rustix::fs::SeekFrom::Start(1 << 63),
        ))
    }),
    case("seek to data behind the end", |at| {
        done(seek(
            with(at, "file", OFlags::RDONLY)?,
            rustix::fs::SeekFrom::Data(100),
        ))
    }),
    case("seek to a hole behind the end", |at| {
        done(seek(
            with(at, "file", OFlags::RDONLY)?,
            rustix::fs::SeekFrom::Hole(100),
        ))
    }),
    case("a length of 2^63", |at| {
        ftruncate(with(at, "file", OFlags::WRONLY)?, 1 << 63)
    }),
    case("a negative length", |at| {
        ftruncate(with(at, "file", OFlags::WRONLY)?, u64::MAX)
    }),
    always(
        "the longest length",
        |at| ftruncate(with(at, "file", OFlags::WRONLY)?, i64::MAX as u64),
        Err(Errno::FBIG),
    ),
    always(
        "a length of 2^62",
        |at| ftruncate(with(at, "file", OFlags::WRONLY)?, 1 << 62),
        Err(Errno::FBIG),
    ),
    case("the length of what is read only", |at| {
        ftruncate(with(at, "file", OFlags::RDONLY)?, 1)
    }),
    case("the length of a directory", |at| {
        ftruncate(with(at, "dir", OFlags::RDONLY)?, 1)
    }),
    case("room of no length", |at| {
        fallocate(with(at, "file", OFlags::WRONLY)?, FallocateFlags::empty(), 0, 0)
    }),
    case("room of a negative length", |at| {
        fallocate(
            with(at, "file", OFlags::WRONLY)?,
            FallocateFlags::empty(),
            0,
            u64::MAX,
        )
    }),
    case("room at a negative offset", |at| {
        fallocate(
            with(at, "file", OFlags::WRONLY)?,
            FallocateFlags::empty(),
            u64::MAX,
            1,
        )
    }),
    case("room beyond the last offset", |at| {
        fallocate(
            with(at, "file", OFlags::WRONLY)?,
            FallocateFlags::empty(),
            i64::MAX as u64,
            9,
        )
    }),
    case("room in what is read only", |at| {
        fallocate(with(at, "file", OFlags::RDONLY)?, FallocateFlags::empty(), 0, 9)
    }),
    case("a hole that changes the length", |at| {
        fallocate(
            with(at, "file", OFlags::WRONLY)?,
            FallocateFlags::PUNCH_HOLE,
            0,
            9,
        )
    }),
    case("room", |at| {
        fallocate(with(at, "file", OFlags::WRONLY)?, FallocateFlags::empty(), 0, 9)
    }),
    case("a copy onto itself", |at| {
        let file = with(at, "file", OFlags::RDWR)?;
        done(copy_file_range(&file, Some(&mut 0), &file, Some(&mut 1), 4))
    }),
    case("a copy of a directory", |at| {
        done(copy_file_range(
            with(at, "dir", OFlags::RDONLY)?,
            None,
            with(at, "file", OFlags::WRONLY)?,
            None,
            4,
        ))
    }),
    case("fsync of a directory", |at| {
        fsync(with(at, "dir", OFlags::RDONLY)?)
    }),
    case("a lock of a directory", |at| {
        flock(
            with(at, "dir", OFlags::RDONLY)?,
            FlockOperation::NonBlockingLockShared,
        )
    }),
];

const ATTRIBUTES: &[Case] = &[
    case("an attribute with a name of 64 KiB", |at| {
        done(getxattr(
            at.join("file"),
            format!("user.{}", long(1 << 16)),
            &mut [0; 9],
        ))
    }),
    case("an attribute with a name of 256 bytes", |at| {
        setxattr(
            at.join("file"),
            format!("user.{}", long(251)),
            b"x",
            XattrFlags::empty(),
        )
    }),
    case("an attribute with no name", |at| {
        setxattr(at.join("file"), "", b"x", XattrFlags::empty())
    }),
    case("an attribute longer than 64 KiB", |at| {
        setxattr(
            at.join("file"),
            "user.x",
            &vec![0; (1 << 16) + 1],
            XattrFlags::empty(),
        )
    }),
    case("an attribute of no kind", |at| {
        setxattr(at.join("file"), "nonsense", b"x", XattrFlags::empty())
    }),
    case("an attribute with flags that nobody knows", |at| {
        setxattr(
            at.join("file"),
            "user.x",
            b"x",
            XattrFlags::from_bits_retain(1 << 10),
        )
    }),
    case("an attribute of nothing", |at| {
        done(getxattr(at.join("nowhere"), "user.x", &mut [0; 9]))
    }),
    but(
        "an attribute of the user",
        |at| setxattr(at.join("file"), "user.x", b"x", XattrFlags::empty()),
        Err(Errno::OPNOTSUPP),
    ),
    but(
        "an attribute that is not there",
        |at| removexattr(at.join("file"), "user.x"),
        Err(Errno::OPNOTSUPP),
    ),
    always(
        "a list of rights of 64 KiB",
        |at| rights(at, &vec![b'1'; 1 << 16]),
        Err(Errno::INVAL),
    ),
    always(
        "a list of rights with a NUL in it",
        |at| rights(at, b"1\n0\n\0\n"),
        Err(Errno::INVAL),
    ),
    always(
        "a list of rights of nothing",
        |at| rights(at, b""),
        Err(Errno::INVAL),
    ),
    case("a time with too many nanoseconds", |at| {
        times(at, 0, 1_000_000_000)
    }),
    case("a time after 2106", |at| times(at, 1 << 33, 0)),
    case("a time before 1970", |at| times(at, -1, 0)),
    case("an owner that stays", |at| {
        chownat(CWD, at.join("file"), None, None, AtFlags::empty())
    }),
    by_root(but(
        "another owner",
        |at| {
            chownat(
                CWD,
                at.join("file"),
                Some(Uid::ROOT),
                Some(Gid::ROOT),
                AtFlags::empty(),
            )
        },
        Err(Errno::PERM),
    )),
    case("the owner of nothing", |at| {
        chownat(
            CWD,
            at.join("nowhere"),
            Some(Uid::from_raw(1)),
            None,
            AtFlags::empty(),
        )
    }),
];

fn rights(folder: &Path, text: &[u8]) -> Said {
    setxattr(folder.join("dir"), "afs.acl", text, XattrFlags::empty())
}

fn times(folder: &Path, tv_sec: i64, tv_nsec: i64) -> Said {
    let last_access = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT,
    };
    let last_modification = Timespec { tv_sec, tv_nsec };
    let times = Timestamps {
        last_access,
        last_modification,
    };
    utimensat(CWD, folder.join("file"), &times, AtFlags::empty())
}

/// All cases of a kind, each in folders of its own.
fn sweep(kind: &str, cases: &[Case]) {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let work = mount.work(&format!("arguments-{kind}")).unwrap();
    let here = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    let is_root = rustix::process::geteuid().is_root();
    let cases = cases.iter().filter(|case| is_root || !case.by_root);
    for (number, case) in cases.enumerate() {
        let [there, here] = [work.as_path(), here.path()].map(|above| {
            let folder: PathBuf = above.join(number.to_string());
            fs::create_dir(&folder).unwrap();
            furnish(&folder);
            (case.does)(&folder)
        });
        let wanted = case.contract.unwrap_or(here);
        if there != wanted {
            wrong.push(format!("{}: {there:?}, not {wanted:?}", case.what));
        } else if case.differs && there == here {
            wrong.push(format!(
                "{}: {there:?} is what a local file system says too",
                case.what
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(File::open(work.join("0/file")).is_ok(), "the mount still serves");
    fs::remove_dir_all(&work).unwrap();
}

#[test]
fn names_that_cannot_be() {
    sweep("names", NAMES);
}

#[test]
fn names_that_cannot_go() {
    sweep("removals", REMOVALS);
}

#[test]
fn files_that_cannot_be_opened() {
    sweep("opening", OPENING);
}

#[test]
fn data_that_cannot_be() {
    sweep("data", DATA);
}

#[test]
fn attributes_that_cannot_be() {
    sweep("attributes", ATTRIBUTES);
}

#[test]
fn the_top_stays_as_it_is() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let point = mount.point();
    let up = |path: &Path| (stat(path).unwrap().st_dev, stat(path).unwrap().st_ino);
    assert_eq!(
        up(&point.join("..")),
        up(point.parent().unwrap()),
        "the way up leaves the mount"
    );
    let read_only = Err(Errno::ROFS);
    assert_eq!(mkdirat(CWD, point.join("new"), Mode::RWXU), read_only);
    assert_eq!(make(&point, b"new"), read_only);
    assert_eq!(symlinkat("x", CWD, point.join("new")), read_only);
    assert_eq!(node(&point, FileType::RegularFile), read_only);
    let cell_name = mount.path("").file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(rename(&point, &cell_name, "new", PLAIN), read_only);
    assert_eq!(rmdir(point.join(&cell_name)), read_only);
    assert_eq!(rmdir(&point), Err(Errno::BUSY));
}
