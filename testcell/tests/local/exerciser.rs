//! Random things done to files, one after the other, and what is in them after each: as fsx does it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use testcell::{MountOptions, local};

/// Does STEPS things to the file PATH, which SEED decides on, and compares all that it reads with what it wrote.
const PROGRAM: &str = "
import mmap, os, random, sys
path, seed, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
LONGEST = 1 << 20
chance, good, done = random.Random(seed), bytearray(), []
file = os.open(path, os.O_RDWR | os.O_CREAT)

def span(limit):
    start = chance.randrange(limit)
    return start, start + chance.randrange(min(1 << 16, limit - start)) + 1

def put(start, data):
    good.extend(bytes(max(0, start + len(data) - len(good))))
    good[start:start + len(data)] = data

def same(what, start, data):
    want = good[start:start + len(data)]
    bad = next((at for at in range(len(data)) if data[at] != want[at]), None)
    assert bad is None, '%s: %d is wrong' % (what, start + bad)

def read():
    start, end = span(LONGEST)
    data = os.pread(file, end - start, start)
    assert len(data) == max(0, min(end, len(good)) - start), 'read: %d bytes' % len(data)
    same('read', start, data)

def write():
    start, end = span(LONGEST)
    data = chance.randbytes(end - start)
    assert os.pwrite(file, data, start) == len(data)
    put(start, data)

def cut():
    length = chance.randrange(LONGEST + 1)
    os.ftruncate(file, length)
    del good[length:]
    good.extend(bytes(length - len(good)))

def map_read():
    if good:
        start, end = span(len(good))
        with mmap.mmap(file, 0, prot=mmap.PROT_READ) as map:
            same('map_read', start, map[start:end])

def map_write():
    start, end = span(LONGEST)
    if end > len(good):
        os.ftruncate(file, end)
    data = chance.randbytes(end - start)
    with mmap.mmap(file, 0) as map:
        map[start:end] = data
        map.flush()
    put(start, data)

def copy():
    if good:
        start, end = span(len(good))
        to = chance.randrange(LONGEST - (end - start))
        if to + end - start <= start or to >= end:
            data, left = bytes(good[start:end]), end - start
            while left:
                left -= os.copy_file_range(file, file, left, end - left, to + end - start - left)
            put(to, data)

def sync():
    os.fsync(file)

def forget():
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)

def again():
    global file
    os.close(file)
    file = os.open(path, os.O_RDWR)

def beside():
    # Whoever relies on what is known of the directory has to ask again.
    open(path + '.beside', 'w').close()
    os.remove(path + '.beside')

does = [read, write, map_read, map_write] * 5 + [cut, copy] * 2 + [sync, forget, again, beside]
try:
    for step in range(steps):
        what = chance.choice(does)
        done = done[-30:] + ['%d %s' % (step, what.__name__)]
        what()
        for length in os.fstat(file).st_size, os.lseek(file, 0, os.SEEK_END):
            assert length == len(good), '%d bytes long in place of %d' % (length, len(good))
    os.close(file)
    assert open(path, 'rb').read() == good, 'not what was written'
except BaseException as error:
    sys.exit('seed %d: %s: %s; ' % (seed, what.__name__, error) + ', '.join(done))
";

fn exercise(folder: &Path, seed: u32, steps: u32) -> Child {
    let arguments = [seed, steps].map(|number| number.to_string());
    Command::new("python3")
        .args(["-c", PROGRAM])
        .arg(folder.join(&arguments[0]))
        .args(arguments)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Several files in one directory at a time, so that what is asked for one is answered about the others too, by two clients
/// whose caches are smaller than the files. `EXERCISER_SEED` begins with another seed, `EXERCISER_STEPS` does more with each.
#[test]
fn files_are_what_was_done_to_them() {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (first, steps) = (number("EXERCISER_SEED", 1), number("EXERCISER_STEPS", 600));
    let cell = local();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let caches = [
        &["--cache-memory", "1M"][..],
        &["--cache-size", "1M", "--cache-dir", path],
    ];
    let mounts = [1, 2].map(|client| {
        let words = caches[client - 1].iter();
        let options = words.fold(MountOptions::default(), |options, word| options.argument(word));
        cell.mount_with(client as u8, &options).unwrap()
    });
    let work = mounts[0].work("exercised").unwrap();
    let mut programs = Vec::new();
    for seed in first..first + 6 {
        let folder = mounts[seed as usize % 2].path("work/exercised");
        programs.push(exercise(&folder, seed, steps));
    }
    for program in programs {
        let ended = program.wait_with_output().unwrap();
        assert!(
            ended.status.success(),
            "{}",
            String::from_utf8_lossy(&ended.stderr)
        );
    }
    fs::remove_dir_all(work).unwrap();
}
