"""The file systems that are compared: each has a folder `work` with the same content, and in it one of its own to change, at
the same depth."""

import os
import pathlib
import re
import time

import process
from benchlib import AFS, IN_MEMORY, run

METRICS = "127.0.0.1:9465"
INSIDE = pathlib.Path("lab.example", "work")


class Candidate:
    """What is common to all."""

    def __init__(self, point):
        self.point, self.work = point, point / INSIDE
        self.own = self.work / f"by-{self.name}"
        point.mkdir()


class Ours(Candidate):
    """afs-fuse on the real cell."""

    name = "afs"
    client = 1

    def __init__(self, cell, folder):
        super().__init__(folder / self.name)
        self.cell, self.log = cell, str(folder / f"{self.name}.log")
        self.options = [*IN_MEMORY, "--metrics", METRICS]

    def mount(self):
        self.cell.mount(self.client, self.point, self.log, *self.options)
        self.pid = process.serving(self.point, b"mount")

    def umount(self, check=True):
        """`check`: that it is mounted."""
        run(AFS, "umount", str(self.point), check=check)

    def fresh(self):
        """Nothing is cached, by the client or by the kernel."""
        self.umount(check=False)
        self.mount()
        os.listdir(self.work)

    def calls(self):
        """Calls to servers so far."""
        fetch = f"import urllib.request as r; print(r.urlopen('http://{METRICS}/metrics').read().decode())"
        page = run(*self.cell.in_client(1, "python3", "-c", fetch))
        return sum(float(value) for value in re.findall(r"^afs_rpc_calls_total\{[^}]*\} (\S+)$", page, re.M))


class Behind(Ours):
    """The same, whose `close` waits for no server, as OpenAFS's does not. Its cache directory is in memory, as the partitions of
    the server are: ext4 takes several times as long to make a file for minutes after many were removed."""

    name = "behind"
    client = 2

    def __init__(self, cell, folder, in_memory):
        super().__init__(cell, folder)
        self.options = ["--cache-dir", str(in_memory), "--store-behind"]


class Reference(Candidate):
    """OpenAFS's own FUSE client on the same cell."""

    name = "afsd.fuse"

    def __init__(self, cell, folder):
        super().__init__(folder / "afsd")
        self.cell = cell

    def umount(self, check=True):
        self.cell.umount_afsd()

    def fresh(self):
        self.umount(check=False)
        self.cell.mount_afsd(self.point)
        self.pid = process.serving(self.point, b"afsd.fuse")
        os.listdir(self.work)


class Local(Candidate):
    """The file system of the folder of temporary files: what a warm client is held against."""

    name = "local"

    def __init__(self, folder):
        super().__init__(folder / "local")
        self.work.mkdir(parents=True)

    def umount(self, check=True):
        pass

    def fresh(self):
        pass


class Passthrough(Candidate):
    """Local files through a FUSE server that has nothing to do but to pass requests on."""

    name = "bindfs"

    def __init__(self, folder):
        super().__init__(folder / "bind")
        self.below = folder / "below"
        (self.below / INSIDE).mkdir(parents=True)

    def umount(self, check=True):
        run("umount", str(self.point), check=check)

    def fresh(self):
        self.umount(check=False)
        run("bindfs", "--multithreaded", str(self.below), str(self.point))
        limit = time.monotonic() + 10
        while not self.work.is_dir():
            if time.monotonic() > limit:
                raise TimeoutError("bindfs does not mount")
            time.sleep(0.01)
