"""What is measured: each function works in a folder and gives seconds, after the data was found right."""

import os
import pathlib
import random
import shutil
import subprocess
import threading
import time

import content

PIECE = 4096
RANDOM_READS = 1000
RANDOM_WRITES = 500
WRITTEN = 64 << 20


class Wrong(Exception):
    """A file system gave other data than it was given."""


def check(right, what):
    if not right:
        raise Wrong(what)


def timed(work):
    """A function that works and gives what is to be checked, as one that gives seconds."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def read_file(path):
    blocks = []
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 20):
            blocks.append(block)
    return blocks


def read(work):
    seconds, blocks = timed(lambda: read_file(work / "big"))
    check(content.digest(blocks) == content.expected(content.BIG), "a sequential read")
    return seconds


def read_parallel(work):
    results, failures = [None] * content.PARTS, []

    def reader(number):
        try:
            results[number] = read_file(work / f"part-{number}")
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=reader, args=(number,)) for number in range(content.PARTS)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    if failures:
        raise failures[0]
    expected = content.expected(content.PART)
    check(all(content.digest(blocks) == expected for blocks in results), "parallel reads")
    return seconds


def random_offsets(count, seed):
    chosen = random.Random(seed)
    return [chosen.randrange(content.PART // PIECE) * PIECE for _ in range(count)]


def read_random(work):
    offsets = random_offsets(RANDOM_READS, 5)
    file = os.open(work / "random", os.O_RDONLY)
    seconds, pieces = timed(lambda: [os.pread(file, PIECE, offset) for offset in offsets])
    os.close(file)
    for offset, piece in zip(offsets, pieces):
        at = offset & ((1 << 20) - 1)
        check(piece == content.block(offset >> 20)[at:at + PIECE], "a random read")
    return seconds


def write(work, sync=False):
    path = work / "written"
    start = time.perf_counter()
    with open(path, "wb", buffering=0) as file:
        for number in range(WRITTEN >> 20):
            file.write(content.block(number))
        if sync:
            os.fsync(file.fileno())
    seconds = time.perf_counter() - start
    check(content.digest(read_file(path)) == content.expected(WRITTEN), "what was written")
    path.unlink()
    return seconds


def sync(work):
    return write(work, sync=True)


def write_random(work):
    path = work / "patched"
    content.write(path, content.PART)
    model = bytearray(b"".join(content.block(number) for number in range(content.PART >> 20)))
    start = time.perf_counter()
    file = os.open(path, os.O_WRONLY)
    for number, offset in enumerate(random_offsets(RANDOM_WRITES, 6)):
        os.pwrite(file, content.small(number), offset)
    os.fsync(file)
    os.close(file)
    seconds = time.perf_counter() - start
    for number, offset in enumerate(random_offsets(RANDOM_WRITES, 6)):
        model[offset:offset + PIECE] = content.small(number)
    check(path.read_bytes() == model, "random writes")
    path.unlink()
    return seconds


def stat_all(work, turn=0):
    """Known by their names in the folder, as ls, find and git ask."""
    names = [f"name-{number:05}" for number in range(content.FILES)]
    folder = os.open(work / f"names-{turn}", os.O_RDONLY | os.O_DIRECTORY)
    seconds, sizes = timed(lambda: [os.stat(name, dir_fd=folder).st_size for name in names])
    os.close(folder)
    check(sizes == [0] * content.FILES, "stat")
    return seconds


def open_all(work):
    paths = [f"{work}/small/file-{number:04}" for number in range(content.FILES)]

    def all_of_them():
        found = []
        for path in paths:
            file = os.open(path, os.O_RDONLY)
            found.append(os.read(file, content.SMALL + 1))
            os.close(file)
        return found

    seconds, found = timed(all_of_them)
    check(all(data == content.small(number) for number, data in enumerate(found)), "small files")
    return seconds


def create(work):
    folder = work / "made"
    seconds, _ = timed(lambda: content.small_files(folder))
    check(len(os.listdir(folder)) == content.FILES, "files that were made")
    return seconds


def rename(work):
    folder = work / "made"

    def all_of_them():
        for number in range(content.FILES):
            os.rename(f"{folder}/file-{number:04}", f"{folder}/renamed-{number:04}")

    seconds, _ = timed(all_of_them)
    check((folder / "renamed-0007").read_bytes() == content.small(7), "a renamed file")
    return seconds


def unlink(work):
    folder = work / "made"

    def all_of_them():
        for number in range(content.FILES):
            os.unlink(f"{folder}/renamed-{number:04}")

    seconds, _ = timed(all_of_them)
    check(os.listdir(folder) == [], "files that were removed")
    folder.rmdir()
    return seconds


def said(*words, folder=None):
    done = subprocess.run([str(word) for word in words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=300)
    if done.returncode:
        raise OSError(f"{words[0]}: {done.stderr.decode(errors='replace')[:500]}")
    return done.stdout


def list_long(work):
    seconds, listed = timed(lambda: said("ls", "-l", work / "many"))
    check(listed.count(b"\n") == content.ENTRIES + 1 and b" name-09999\n" in listed, "ls -l")
    return seconds


def find(work):
    seconds, found = timed(lambda: said("find", work / "tree", "-size", "+0", "-type", "f"))
    check(found.count(b"\n") == content.TREE_FOLDERS * content.TREE_FILES, "find")
    return seconds


def grep(work):
    seconds, found = timed(lambda: said("grep", "-rl", content.NEEDLE, work / "tree"))
    check(found.count(b"\n") == content.TREE_FOLDERS * content.TREE_FILES // 100, "grep")
    return seconds


def unpack(work, origin):
    seconds, _ = timed(lambda: said("tar", "xf", origin.archive, "--no-same-owner", "-C", work))
    check(content.tree_digest(work / "unpacked") == origin.unpacked_digest, "what was unpacked")
    shutil.rmtree(work / "unpacked")
    return seconds


def clone(work, origin):
    seconds, _ = timed(lambda: content.git(work, "clone", "-q", "--no-local", f"file://{origin.repository}", "cloned"))
    check(content.tree_digest(work / "cloned") == origin.tree_digest, "what was cloned")
    return seconds


def git_status(work):
    seconds, found = timed(lambda: content.git(work / "cloned", "status", "--porcelain"))
    check(found == "", f"git status: {found}")
    return seconds


def remove_tree(work):
    seconds, _ = timed(lambda: said("rm", "-r", work / "cloned"))
    check(not (work / "cloned").exists(), "a removed tree")
    return seconds


def build(work):
    content.project(work / "project")
    command = [os.environ.get("CARGO", "cargo"), "build", "-q", "--offline"]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(work / "project" / "target")}
    start = time.perf_counter()
    done = subprocess.run(command, cwd=work / "project", env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=300)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise OSError(f"cargo: {done.stdout.decode(errors='replace')[-500:]}")
    check(said(work / "project" / "target" / "debug" / "top") == b"42\n", "what was built")
    shutil.rmtree(work / "project")
    return seconds
