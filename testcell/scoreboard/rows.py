"""The rows of the scoreboard: what is measured, against whom, and what is wanted of it."""

import dataclasses
import statistics


@dataclasses.dataclass(frozen=True)
class Row:
    """A time in seconds, or another figure of which less is better, for each candidate."""

    key: str
    what: str
    unit: str = "s"
    #: The candidate that ours is divided by; none if the figure itself is to be `limit` at most.
    against: str | None = None
    limit: float | None = None


#: Where servers must be asked: ahead of OpenAFS's own client. Where the kernel knows all of it: the local file system, and
#: a tenth. Where a process has to answer, if only the `open`: a FUSE server that just passes on, and a third.
COLD = {"against": "afsd.fuse", "limit": 1.0}
KNOWN = {"against": "local", "limit": 1.1}
ASKED = {"against": "bindfs", "limit": 1.3}
#: `close` of OpenAFS's FUSE client waits for no server, ours for all that was written and its error. What is left of such a row is
#: that; the same work by the same rules is the row of --store-behind.
TOLD = {"against": "afsd.fuse"}

ROWS = [
    Row("read_cold", "sequential read of 256 MiB, cold", **COLD),
    Row("read_warm", "the same, warm", **KNOWN),
    Row("parallel_cold", "4 readers of 32 MiB each, cold", **COLD),
    Row("parallel_warm", "the same, warm", **KNOWN),
    Row("random_cold", "1,000 random reads of 4 KiB, cold", **COLD),
    Row("random_warm", "the same, warm", "s", "local", 1.3),
    Row("write", "write of 64 MiB, close", **TOLD),
    Row("write_behind", "the same with --store-behind", **COLD),
    # OpenAFS's client leaves fsync out; ours waits until it is on the disk of the server.
    Row("sync", "write of 64 MiB, fsync, close", "s", "bindfs"),
    Row("write_random", "500 random writes of 4 KiB, fsync, close", **COLD),
    Row("list_cold", "ls -l of 10,000 entries, cold", **COLD),
    Row("list_calls", "calls to servers for that", "calls", limit=210),
    Row("list_warm", "ls -l, warm", **ASKED),
    Row("stat_cold", "stat of 1,000 files, cold", **COLD),
    Row("stat_warm", "the same, warm", **KNOWN),
    Row("open_cold", "open, read and close of 1,000 files of 4 KiB, cold", **COLD),
    Row("open_warm", "the same, warm", **ASKED),
    Row("find_cold", "find in a tree of 5,000 files, cold", **COLD),
    Row("find_warm", "the same, warm", **ASKED),
    Row("grep_cold", "grep -r in it, cold", **COLD),
    Row("grep_warm", "the same, warm", **ASKED),
    Row("create", "1,000 files of 4 KiB: create", **TOLD),
    Row("create_behind", "the same with --store-behind", **COLD),
    # CreateFile and StoreData64, and what the folder takes.
    Row("create_calls", "calls to servers for each of them", "calls", limit=2.05),
    Row("rename", "rename", **COLD),
    Row("unlink", "unlink", **COLD),
    Row("unpack", "tar: 1,000 files unpacked", **TOLD),
    Row("unpack_behind", "the same with --store-behind", **COLD),
    Row("clone", "git clone of 5,000 files", **TOLD),
    Row("clone_behind", "the same with --store-behind", **COLD),
    Row("status", "git status, warm", "s", "local", 1.3),
    Row("remove", "rm -r of the clone", **COLD),
    Row("build", "cargo build of three crates", **COLD),
    Row("cpu", "processor time of the client for each GiB read cold", **COLD),
    Row("peak", "peak memory of the client", "MiB", **COLD),
    Row("idle_memory", "memory of an idle mount", "MiB", limit=40),
    Row("idle_wakes", "wake-ups of an idle mount each second", "/s", limit=1.0),
]


class Board:
    """The figures of all rounds."""

    def __init__(self):
        self.figures = {}
        self.failures = {}

    def add(self, key, candidate, figure):
        self.figures.setdefault((key, candidate), []).append(figure)

    def failed(self, key, candidate, why):
        self.failures[key, candidate] = why

    def median(self, key, candidate):
        figures = self.figures.get((key, candidate))
        return statistics.median(figures) if figures else None

    def ratio(self, row):
        """Ours relative to what it is held against: the median over the rounds, which each had both."""
        if row.against is None:
            return self.median(row.key, "afs")
        ours, theirs = (self.figures.get((row.key, name), []) for name in ("afs", row.against))
        return statistics.median(a / b for a, b in zip(ours, theirs)) if ours and theirs else None

    def verdict(self, row):
        """met, MISSED, or what else there is to say."""
        if (row.key, "afs") in self.failures:
            return "FAILED"
        if row.limit is None:
            return ""
        ratio = self.ratio(row)
        if ratio is None:
            return "alone" if (row.key, row.against) in self.failures else "-"
        return "met" if ratio <= row.limit else "MISSED"
