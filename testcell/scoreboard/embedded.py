"""Rows about the embedded cell: its servers beside OpenAFS's with the same client, and how soon it is there."""

import os
import re
import signal
import subprocess
import sys
import time

import content
import work
from benchlib import AFS, HERE, run
from rows import Row

ROWS = [
    Row("embedded_read", "cold read of 256 MiB from the embedded server, relative to OpenAFS's", "s", "openafs", 1 / 1.5),
    Row("embedded_start", "start and mount of the embedded cell", "s", limit=1.0),
    Row("scenarios", "1,000 fault scenarios", "s", limit=60),
]
READS = 2


class Demo:
    """`afs demo`: its servers, and a mount of its own."""

    def __init__(self, folder):
        self.folder = folder / "demo"
        self.own = self.folder / "own"
        self.own.mkdir(parents=True)
        said = self.folder / "said"
        start = time.perf_counter()
        self.program = subprocess.Popen([AFS, "demo", "--mountpoint", str(self.own)], stdout=open(said, "w"),
                                        env={**os.environ, "TMPDIR": str(self.folder)})
        while "leaves nothing behind" not in said.read_text():
            if self.program.poll() is not None or time.perf_counter() > start + 30:
                sys.exit("bench: the embedded cell does not start")
            time.sleep(0.005)
        self.start_seconds = time.perf_counter() - start
        self.work = self.own / "demo.example" / "work"

    def read(self, point):
        """Seconds for a cold read by a client in a process of its own."""
        (servers,) = self.folder.glob("afs-demo-*/CellServDB")
        run(AFS, "mount", "--cell", "demo.example", "--cellservdb", str(servers), "--address", "127.99.0.1",
            "--cache-memory", "512M", "--log-file", str(self.folder / "log"), str(point))
        try:
            return work.read(point / "demo.example" / "work")
        finally:
            run(AFS, "umount", str(point))

    def end(self):
        self.program.send_signal(signal.SIGINT)
        self.program.wait(30)


def scenarios():
    """Seconds for all fault scenarios, as tests run them."""
    done = subprocess.run([os.environ.get("CARGO", "cargo"), "test", "-q", "-p", "testcell", "--test", "embedded",
                           "storms", "--", "--nocapture"], cwd=HERE.parent, capture_output=True, text=True)
    found = re.search(r"(\d+) scenarios, \d+ faults, ([0-9.]+)s", done.stderr + done.stdout)
    if done.returncode or not found:
        sys.exit(f"bench: the scenarios fail: {done.stdout}{done.stderr}")
    return float(found[2])


def measure(board, folder):
    demo = Demo(folder)
    try:
        board.add("embedded_start", "afs", demo.start_seconds)
        content.write(demo.work / "big", content.BIG)
        for _ in range(READS):
            board.add("embedded_read", "afs", demo.read(folder / "afs"))
        for seconds in board.figures.get(("read_cold", "afs"), []):
            board.add("embedded_read", "openafs", seconds)
    finally:
        demo.end()
    board.add("scenarios", "afs", scenarios())
