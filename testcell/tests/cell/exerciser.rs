//! Random things done to files, one after the other, and what is in them after each: as fsx does it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use testcell::MountOptions;

use crate::{EXERCISER_STEPS, shared};

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

def map_private():
    if good:
        start, end = span(len(good))
        with mmap.mmap(file, 0, access=mmap.ACCESS_COPY) as map:
            map[start:end] = chance.randbytes(end - start)

def map_alone():
    # The mapping outlives what it was made of, and nothing is synchronised.
    if good:
        start, end = span(len(good))
        data = chance.randbytes(end - start)
        other = os.open(path, os.O_RDWR)
        map = mmap.mmap(other, 0)
        os.close(other)
        map[start:end] = data
        map.close()
        put(start, data)

def direct():
    # As such reads and writes are to be, from page to page into a page, and as they are not to be.
    start, end = span(LONGEST)
    if chance.random() < 0.5:
        start, end = start & ~4095, (start & ~4095) + 4096 * chance.randrange(1, 9)
    buffer = mmap.mmap(-1, end - start)
    other = os.open(path, os.O_RDWR | os.O_DIRECT)
    if chance.random() < 0.5:
        count = os.preadv(other, [buffer], start)
        assert count == max(0, min(end, len(good)) - start), 'direct: %d bytes' % count
        same('direct', start, buffer[:count])
    else:
        buffer[:] = data = chance.randbytes(end - start)
        assert os.pwritev(other, [buffer], start) == len(data)
        put(start, data)
    os.close(other)

def append():
    data = chance.randbytes(chance.randrange(1, 1 << 14))
    other = os.open(path, os.O_WRONLY | os.O_APPEND)
    assert os.write(other, data) == len(data)
    os.close(other)
    put(len(good), data)

def empty():
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    good.clear()

def run():
    code = chance.randrange(100)
    with open(path + '.run', 'w', opener=lambda name, flags: os.open(name, flags, 0o755)) as script:
        script.write('#!/bin/sh\\nexit %d\\n' % code)
    assert os.spawnl(os.P_WAIT, path + '.run', 'run') == code
    os.remove(path + '.run')

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

does = [read, write, map_read, map_write] * 5 + [cut, copy, direct, append, map_alone] * 2
does += [sync, forget, again, beside, map_private, empty, run]
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
    let (first, steps) = (
        number("EXERCISER_SEED", 1),
        number("EXERCISER_STEPS", EXERCISER_STEPS),
    );
    let cell = shared();
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
