"""What is read, listed, unpacked, cloned and built: the same bytes for all candidates, made from a seed."""

import hashlib
import os
import pathlib
import random
import subprocess

BIG = 256 << 20
PART = 32 << 20
PARTS = 4
SMALL = 4096
FILES = 1000
#: Folders of files whose names are asked for: what takes milliseconds is done several times, but can be cold once.
TURNS = 5
ENTRIES = 10_000
TREE_FOLDERS = 100
TREE_FILES = 50
NEEDLE = "a needle in the hay"

_BLOCKS = [random.Random(seed).randbytes(1 << 20) for seed in range(8)]


def block(number):
    return _BLOCKS[number % len(_BLOCKS)]


def small(number):
    """The bytes of a small file."""
    return b"%08d" % number + block(number)[:SMALL - 8]


def digest(blocks):
    """The digest of what was read."""
    total = hashlib.sha256()
    for one in blocks:
        total.update(one)
    return total.hexdigest()


def expected(size):
    """The digest of a file of `size` bytes as `write` makes it."""
    return digest(block(number) for number in range(size >> 20))


def write(path, size):
    with open(path, "wb", buffering=0) as file:
        for number in range(size >> 20):
            file.write(block(number))


def small_files(folder):
    folder.mkdir()
    for number in range(FILES):
        (folder / f"file-{number:04}").write_bytes(small(number))


def empty_files(folder, count):
    folder.mkdir()
    for number in range(count):
        os.close(os.open(f"{folder}/name-{number:05}", os.O_CREAT | os.O_WRONLY))


def tree(root):
    """Sources of about 2 kB in 100 folders of ten; in every hundredth file is a needle."""
    count = 0
    for folder in range(TREE_FOLDERS):
        inside = root / f"part{folder % 10}" / f"module{folder:03}"
        inside.mkdir(parents=True)
        for file in range(TREE_FILES):
            lines = [f"int value_{folder}_{file}_{line} = {line * 7919 % 1000};" for line in range(50 + count % 20)]
            if count % 100 == 0:
                lines.append(f"/* {NEEDLE} */")
            (inside / f"file{file:02}.c").write_text("\n".join(lines) + "\n")
            count += 1


def tree_digest(root):
    """Names and contents of a tree."""
    total = hashlib.sha256()
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name != ".git")
        for name in sorted(files):
            total.update(name.encode() + b"\0" + pathlib.Path(folder, name).read_bytes())
    return total.hexdigest()


def project(root):
    """A workspace of three crates, which needs nothing from elsewhere."""
    (root / "src").mkdir(parents=True)
    (root / "Cargo.toml").write_text(
        '[package]\nname = "top"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\nmembers = ["base", "middle"]\n'
        '[dependencies]\nmiddle = { path = "middle" }\n[profile.dev]\nincremental = false\n')
    (root / "src" / "main.rs").write_text('fn main() { println!("{}", middle::twice(20)); }\n')
    for name, body, needs in [("base", "pub fn one() -> u64 { 1 }", ""),
                              ("middle", "pub fn twice(n: u64) -> u64 { n * 2 + 2 * base::one() }",
                               'base = { path = "../base" }')]:
        (root / name / "src").mkdir(parents=True)
        (root / name / "Cargo.toml").write_text(
            f'[package]\nname = "{name}"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\n{needs}\n')
        (root / name / "src" / "lib.rs").write_text(
            body + "\n" + "".join(f"pub struct S{n}(pub u64);\nimpl S{n} {{ pub fn v(&self) -> u64 {{ self.0 + {n} }} }}\n"
                                  for n in range(100)))


GIT = ["git", "-c", "safe.directory=*", "-c", "user.name=bench", "-c", "user.email=bench@lab.example",
       "-c", "init.defaultBranch=main", "-c", "core.hooksPath=/dev/null"]
GIT_ENV = {**{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
           "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}


def git(folder, *words):
    return subprocess.run([*GIT, *words], cwd=folder, env=GIT_ENV, check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=300).stdout.decode()


class Origin:
    """What is unpacked and cloned, on the local file system."""

    def __init__(self, folder):
        self.repository = folder / "origin"
        tree(self.repository)
        git(self.repository, "init", "-q")
        git(self.repository, "add", ".")
        git(self.repository, "commit", "-q", "-m", "all")
        self.tree_digest = tree_digest(self.repository)
        unpacked = folder / "unpacked"
        small_files(unpacked)
        self.unpacked_digest = tree_digest(unpacked)
        self.archive = folder / "archive.tar"
        subprocess.run(["tar", "cf", self.archive, "-C", folder, "unpacked"], check=True)


def prepare(work):
    """What is there before anything is measured."""
    write(work / "big", BIG)
    write(work / "random", PART)
    for number in range(PARTS):
        write(work / f"part-{number}", PART)
    small_files(work / "small")
    for turn in range(TURNS):
        empty_files(work / f"names-{turn}", FILES)
    empty_files(work / "many", ENTRIES)
    tree(work / "tree")
