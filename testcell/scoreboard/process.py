"""What the kernel says of a process."""

import os
import pathlib
import time


def serving(point, word):
    """The process that serves a mount: `word` and the mount point are on its command line."""
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = pathlib.Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(str(point)) in words and any(part.endswith(word) for part in words[:3]):
            return int(entry)
    raise ProcessLookupError(f"nobody serves {point}")


def status(pid, field):
    """A field of its status, in kB."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith(field + ":")).split()[1])


def cpu_seconds(pid):
    """What all its threads have used."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wake_ups(pid):
    """How often its threads have slept and were woken so far."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        text = (task / "status").read_text()
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("voluntary_ctxt"))
    return total


def idle_wake_ups(pid, seconds):
    """Wake-ups each second of a process that nobody asks for anything."""
    before = wake_ups(pid)
    time.sleep(seconds)
    return (wake_ups(pid) - before) / seconds


def rest(pids, patience=30):
    """Waits until processes use no processor time."""
    pids, limit, before = list(pids), time.monotonic() + patience, None
    while time.monotonic() < limit:
        used = [cpu_seconds(pid) for pid in pids if pathlib.Path(f"/proc/{pid}").exists()]
        if used == before:
            return
        before = used
        time.sleep(0.2)
