"""What the benches on mounts share: a real cell of their own, clients on it, checked reads, and the table of what was wanted."""

import hashlib
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
AFS = os.environ.get("AFS_BIN", str(HERE.parent / "target" / "release" / "afs"))
#: As much as the caches of OpenAFS's client in these benches.
IN_MEMORY = ("--cache-memory", "512M")


def fail(why):
    sys.exit(f"{pathlib.Path(sys.argv[0]).name}: {why}")


def run(*words, check=True, limit=300):
    """What a program says, at its end."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit)
    if check and done.returncode:
        fail(f"{' '.join(words)}: {done.stdout}")
    return done.stdout


class Cell:
    """A real cell under a name of its own (`testcell/cell/cell`), and mounts of it in the namespaces of its clients."""

    def __init__(self, name):
        self.script = [str(HERE / "cell" / "cell"), "--name", name]
        self.name = name

    def __call__(self, *words, **how):
        return run(*self.script, *words, **how)

    def env(self, key):
        for line in self("env").splitlines():
            if line.startswith(key + "="):
                return line.split("=", 1)[1]
        fail(f"the cell has no {key}")

    def in_client(self, client, *words):
        """A command in the namespace of a client."""
        return [*self.script, "exec-client", str(client), *map(str, words)]

    def mount(self, client, point, log, *options):
        servers = self.env("CONF_DIR") + "/CellServDB"
        words = ["mount", "--cell", "lab.example", "--cellservdb", servers, "--log-file", log]
        run(*self.in_client(client, AFS, *words, *options, point))

    def mount_afsd(self, point, client=3):
        self("afsd-fuse", "up", str(point), str(client))

    def umount_afsd(self):
        self("afsd-fuse", "down", check=False)


class Demo:
    """`afs demo` in a folder: an embedded cell, a mount of its own, and others on request."""

    def __init__(self, folder, environment=None):
        self.folder, self.point = folder, folder / "own"
        self.point.mkdir(parents=True)
        said = folder / "said"
        start = time.perf_counter()
        self.program = subprocess.Popen([AFS, "demo", "--mountpoint", str(self.point)], stdout=open(said, "w"),
                                        env={**(os.environ if environment is None else environment), "TMPDIR": str(folder)})
        while "leaves nothing behind" not in said.read_text():
            if self.program.poll() is not None or time.perf_counter() > start + 30:
                fail("the embedded cell does not start")
            time.sleep(0.005)
        self.start_seconds = time.perf_counter() - start
        self.work = self.point / "demo.example" / "work"

    def mount(self, point, address, *options):
        """Another client, in a process of its own."""
        (servers,) = self.folder.glob("afs-demo-*/CellServDB")
        run(AFS, "mount", "--cell", "demo.example", "--cellservdb", str(servers), "--address", address,
            *map(str, options), str(point))
        return point / "demo.example" / "work"

    def end(self):
        self.program.send_signal(signal.SIGINT)
        self.program.wait(30)


def read(path):
    """Seconds for one sequential read, and the digest of what was read."""
    digest = hashlib.sha256()
    blocks = []
    start = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 20):
            blocks.append(block)
    seconds = time.perf_counter() - start
    for block in blocks:
        digest.update(block)
    return seconds, digest.hexdigest()


class Rows:
    """What was measured, beside what is wanted of it."""

    def __init__(self):
        self.rows = []

    def ratio(self, what, ours, theirs, limit, faster):
        """Of the medians of two lists of seconds: how much faster we are, or how much longer we take."""
        ours, theirs = statistics.median(ours), statistics.median(theirs)
        ratio = theirs / ours if faster else ours / theirs
        self.add(what, f"{ratio:.2f}", f"{'>=' if faster else '<='} {limit}", ratio >= limit if faster else ratio <= limit)

    def add(self, what, value, wanted, met):
        self.rows.append((what, value, wanted, "met" if met else "MISSED"))

    def end(self, note=""):
        """Prints all of it; the exit status says whether something was missed."""
        width = max(len(row[0]) for row in self.rows)
        for what, value, wanted, met in self.rows:
            print(f"{what:<{width}}  {value:>7}  {wanted:>7}  {met}")
        if note:
            print(f"({note})")
        if any(row[3] != "met" for row in self.rows):
            sys.exit(1)
