"""A round: each row is measured for all candidates right after each other, so that whatever else the machine does meets all."""

import functools
import os
import shutil
import subprocess

import content
import process
import work
from work import Wrong

REPEATS = 5
#: What is done a second time by a client whose `close` does not wait.
BEHIND = ["write", "create", "unpack", "clone"]
#: A turn of a few milliseconds meets whatever else the machine does.
SHORT = 0.1
SHORT_REPEATS = 20


class Round:
    """All candidates mounted afresh; what they do is entered on the board."""

    def __init__(self, board, candidates, behind, origin, turned):
        self.board, self.behind, self.origin = board, behind, origin
        self.candidates = list(reversed(candidates)) if turned else candidates
        self.clients = [candidate for candidate in self.candidates if candidate.name in ("afs", "afsd.fuse")]
        (self.ours,) = (candidate for candidate in candidates if candidate.name == "afs")
        for candidate in [*self.candidates, behind]:
            candidate.fresh()
            candidate.own.mkdir(exist_ok=True)

    def once(self, candidate, folder, function, *more):
        """Seconds; none if a candidate that is not ours cannot do it, which is then mounted again."""
        try:
            return function(folder, *more)
        except Wrong:
            raise
        except (OSError, subprocess.SubprocessError) as error:
            if candidate in (self.ours, self.behind):
                raise
            candidate.failure = str(error).strip()[-200:]
            candidate.fresh()
            return None

    def change(self, key, function, *more, repeats=1):
        """The best of so many turns of what changes something: each in a folder of its own, as two of them share a volume."""

        def turn(one):
            # `close` of OpenAFS's client leaves stores behind, and writing the disk: neither is the next one's to wait for.
            process.rest(client.pid for client in [*self.clients, self.behind])
            os.sync()
            return self.once(one, one.own, function, *more)

        candidates = list(self.candidates)
        if key in BEHIND:
            candidates.insert(candidates.index(self.ours) + 1, self.behind)
        self.enter(key, candidates, [[turn(one) for one in candidates] for _ in range(repeats)])

    def enter(self, key, candidates, turns):
        for candidate, seconds in zip(candidates, zip(*turns)):
            if None in seconds:
                self.board.failed(key, candidate.name, candidate.failure)
            elif candidate is self.behind:
                self.board.add(key + "_behind", self.ours.name, min(seconds))
            else:
                self.board.add(key, candidate.name, min(seconds))
                if self.behind in candidates and candidate is not self.ours:
                    self.board.add(key + "_behind", candidate.name, min(seconds))

    def cold(self, key, *functions):
        """Only those that have servers to ask are ever cold here; the others get warm. The best of several functions, each of
        which asks for what the others leave alone."""
        turns = [[self.once(one, one.work, function) for one in self.clients] for function in functions]
        self.enter(key, self.clients, turns)
        for candidate in self.candidates:
            if candidate not in self.clients:
                for function in functions:
                    function(candidate.work)

    def warm(self, key, function):
        """The best of several turns of all candidates, and of more if they are short."""

        def turn():
            return [self.once(one, one.work, function) for one in self.candidates]

        turns = [turn() for _ in range(REPEATS)]
        while len(turns) < SHORT_REPEATS and None not in turns[0] and max(turns[0]) < SHORT:
            turns.append(turn())
        self.enter(key, self.candidates, turns)

    def reads(self):
        used = {client.name: process.cpu_seconds(client.pid) for client in self.clients}
        self.cold("read_cold", work.read)
        for client in self.clients:
            seconds = process.cpu_seconds(client.pid) - used[client.name]
            self.board.add("cpu", client.name, seconds * (1 << 30) / content.BIG)
        self.warm("read_warm", work.read)
        self.cold("random_cold", work.read_random)
        self.warm("random_warm", work.read_random)
        self.cold("stat_cold", *(functools.partial(work.stat_all, turn=turn) for turn in range(content.TURNS)))
        self.warm("stat_warm", work.stat_all)
        self.cold("open_cold", work.open_all)
        self.warm("open_warm", work.open_all)
        calls = self.ours.calls()
        self.cold("list_cold", work.list_long)
        self.board.add("list_calls", self.ours.name, self.ours.calls() - calls)
        self.warm("list_warm", work.list_long)
        for name, function in [("find", work.find), ("grep", work.grep), ("parallel", work.read_parallel)]:
            self.cold(name + "_cold", function)
            self.warm(name + "_warm", function)

    def changes(self):
        for _ in range(2):
            for name in ["write", "sync", "write_random", "create", "rename", "unlink", "build"]:
                calls = self.ours.calls()
                self.change(name, getattr(work, name))
                if name == "create":
                    shutil.rmtree(self.behind.own / "made")
                    self.board.add("create_calls", self.ours.name, (self.ours.calls() - calls) / content.FILES)
            self.change("unpack", work.unpack, self.origin)

    def programs(self):
        self.change("clone", work.clone, self.origin)
        work.remove_tree(self.behind.own)
        # The first one writes down what it has seen.
        self.change("status", work.git_status, repeats=REPEATS)
        self.change("remove", work.remove_tree)

    def end(self):
        for client in self.clients:
            try:
                self.board.add("peak", client.name, process.status(client.pid, "VmHWM") / 1024)
            except FileNotFoundError:
                self.board.failed("peak", client.name, "it has ended")
        for candidate in [*self.candidates, self.behind]:
            candidate.umount()
