"""Rows about the embedded cell: its servers beside OpenAFS's with the same client, and how soon it is there."""

import os
import re
import subprocess
import sys

import content
import work
from benchlib import AFS, HERE, IN_MEMORY, Demo, run
from rows import Row

ROWS = [
    Row("embedded_read", "cold read of 256 MiB from the embedded server, relative to OpenAFS's", "s", "openafs", 1 / 1.5),
    Row("embedded_start", "start and mount of the embedded cell", "s", limit=1.0),
    Row("scenarios", "1,000 fault scenarios", "s", limit=60),
]
READS = 2


def read_cold(demo, point):
    """Seconds for a cold read by a client in a process of its own."""
    folder = demo.mount(point, "127.99.0.1", *IN_MEMORY, "--log-file", demo.folder / "log")
    try:
        return work.read(folder)
    finally:
        run(AFS, "umount", str(point))


def scenarios():
    """Seconds for all fault scenarios, as tests run them."""
    done = subprocess.run([os.environ.get("CARGO", "cargo"), "test", "-q", "-p", "testcell", "--test", "embedded",
                           "storms", "--", "--nocapture"], cwd=HERE.parent, capture_output=True, text=True)
    found = re.search(r"(\d+) scenarios, \d+ faults, ([0-9.]+)s", done.stderr + done.stdout)
    if done.returncode or not found:
        sys.exit(f"bench: the scenarios fail: {done.stdout}{done.stderr}")
    return float(found[2])


def measure(board, folder):
    demo = Demo(folder / "demo")
    try:
        board.add("embedded_start", "afs", demo.start_seconds)
        content.write(demo.work / "big", content.BIG)
        for _ in range(READS):
            board.add("embedded_read", "afs", read_cold(demo, folder / "afs"))
        for seconds in board.figures.get(("read_cold", "afs"), []):
            board.add("embedded_read", "openafs", seconds)
    finally:
        demo.end()
    board.add("scenarios", "afs", scenarios())
