#!/usr/bin/env python3
"""Builds and reads OpenAFS volume dumps (the format of `vos dump` and `vos restore`).

  voldump.py build SPEC.json OUT   make a full dump of a small volume
  voldump.py ls DUMP               kind, mode, length, fid, path of everything in it
  voldump.py sum DUMP              sha256 and path of every plain file
  voldump.py cat DUMP PATH         one file's (or link's) bytes to standard output

DUMP and OUT may be `-`. Reading is one pass; a file is never held in memory.

SPEC: {"name", "quota" (KB, 0 = none), "owner", "acl": {"name or id": "rlidwka"}, "entries": {NAME: NODE}}
NODE: {"file": "text"} | {"symlink": "target"} | {"mount": "#volume."} | {"dir": {NAME: NODE}, "acl": {..}},
each with optional "mode" and "owner". A directory without "acl" has its parent's.
"""

import hashlib
import json
import signal
import struct
import sys
import time

DUMP_BEGIN = 0xB3A11322
DUMP_END = 0x3A214B6E
TAG_DUMP, TAG_VOLUME, TAG_VNODE, TAG_END = 1, 2, 3, 4
# Tags from here on are attributes; smaller ones open the next section.
FIRST_ATTRIBUTE = 21

FILE, DIRECTORY, SYMLINK = 1, 2, 3
KINDS = {FILE: "file", DIRECTORY: "dir", SYMLINK: "link"}

ACL_BYTES = 192
ACL_ENTRIES = 20
RIGHTS = {"r": 1, "w": 2, "i": 4, "l": 8, "d": 16, "k": 32, "a": 64}
IDENTITIES = {
    "system:administrators": -204,
    "system:anyuser": -101,
    "system:authuser": -102,
    "admin": 1000,
    "alice": 1001,
    "bob": 1002,
}

PAGE = 2048
SLOT = 32
SLOTS = PAGE // SLOT
PAGE_TAG = 1234
HEAD_SLOTS = 13
BUCKETS = 128
MAPPED_PAGES = 128


# --- directory blobs


def bucket_of(name):
    h = 0
    for c in name:
        h = (h * 173 + c) & 0xFFFFFFFF
    b = h % BUCKETS
    return BUCKETS - b if b and h >= 1 << 31 else b


def slots_for(name):
    return 1 + (len(name) + 16) // SLOT


class Directory:
    """A directory blob under construction."""

    def __init__(self, own, parent):
        self.pages = []
        self.free = [SLOTS] * MAPPED_PAGES
        self.heads = [0] * BUCKETS
        self.add(b".", own)
        self.add(b"..", parent)

    def add(self, name, fid):
        need = slots_for(name)
        page, slot = self._room(need)
        self.free[page] -= need
        for s in range(slot, slot + need):
            self._take(page, s)
        bucket = bucket_of(name)
        entry = struct.pack(">BBHII", 1, 0, self.heads[bucket], *fid) + name
        self.pages[page][slot * SLOT : slot * SLOT + len(entry)] = entry
        self.heads[bucket] = page * SLOTS + slot

    def blob(self):
        first = self.pages[0]
        struct.pack_into(">H", first, 0, len(self.pages))
        first[32:160] = bytes(self.free)
        struct.pack_into(">128H", first, 160, *self.heads)
        return b"".join(self.pages)

    def _room(self, need):
        for page in range(MAPPED_PAGES):
            if page == len(self.pages):
                self._append()
            if self.free[page] < need:
                continue
            run = 0
            for slot in range(SLOTS):
                run = 0 if self._taken(page, slot) else run + 1
                if run == need:
                    return page, slot - need + 1
        raise SystemExit("voldump: directory is full")

    def _append(self):
        head = 1 if self.pages else HEAD_SLOTS
        page = bytearray(PAGE)
        struct.pack_into(">HHB", page, 0, 0, PAGE_TAG, SLOTS - head)
        self.pages.append(page)
        self.free[len(self.pages) - 1] = SLOTS - head
        for slot in range(head):
            self._take(len(self.pages) - 1, slot)

    def _taken(self, page, slot):
        return self.pages[page][5 + slot // 8] >> (slot % 8) & 1

    def _take(self, page, slot):
        self.pages[page][5 + slot // 8] |= 1 << (slot % 8)


def parse_directory(blob):
    """Yields (name, vnode, unique) for all entries but `.` and `..`."""
    for at in range(0, len(blob), PAGE):
        page = blob[at : at + PAGE]
        slot = 1 if at else HEAD_SLOTS
        while slot < SLOTS:
            if not page[5 + slot // 8] >> (slot % 8) & 1:
                slot += 1
                continue
            vnode, unique = struct.unpack_from(">II", page, slot * SLOT + 4)
            name = page[slot * SLOT + 12 :].split(b"\0", 1)[0]
            slot += slots_for(name)
            if name not in (b".", b".."):
                yield name, vnode, unique


# --- building


def disk_acl(spec):
    entries = []
    for name, letters in spec.items():
        who = IDENTITIES[name] if name in IDENTITIES else int(name)
        entries.append((who, sum(RIGHTS[c] for c in letters)))
    blob = struct.pack(">5i", 20 + 8 * ACL_ENTRIES, 1, len(entries), len(entries), 0)
    for who, rights in entries:
        blob += struct.pack(">iI", who, rights)
    return blob.ljust(ACL_BYTES, b"\0")


class Builder:
    """Numbers the nodes of a spec: odd vnodes for directories, even ones for the rest."""

    def __init__(self, spec):
        self.spec = spec
        self.now = int(time.time())
        self.vnodes = {}
        self.unique = 0
        self.next_vnode = {DIRECTORY: 1, FILE: 2}
        root = dict(spec, dir=spec.get("entries", {}))
        self.directory(root, None, spec["acl"])

    def number(self, is_dir):
        kind = DIRECTORY if is_dir else FILE
        vnode = self.next_vnode[kind]
        self.next_vnode[kind] += 2
        self.unique += 1
        return vnode, self.unique

    def directory(self, node, parent, acl):
        fid = self.number(True)
        acl = node.get("acl", acl)
        content = Directory(fid, parent or fid)
        links = 2
        for name, child in node["dir"].items():
            if "dir" in child:
                links += 1
                made = self.directory(child, fid, acl)
            else:
                made = self.leaf(child, fid)
            content.add(name.encode(), made)
        self.put(fid, parent, DIRECTORY, node, 0o755, links, content.blob(), disk_acl(acl))
        return fid

    def leaf(self, node, parent):
        fid = self.number(False)
        if "mount" in node:
            self.put(fid, parent, SYMLINK, node, 0o644, 1, node["mount"].encode())
        elif "symlink" in node:
            self.put(fid, parent, SYMLINK, node, 0o755, 1, node["symlink"].encode())
        else:
            self.put(fid, parent, FILE, node, 0o644, 1, node["file"].encode())
        return fid

    def put(self, fid, parent, kind, node, mode, links, data, acl=b""):
        owner = node.get("owner", self.spec.get("owner", 0))
        mode = int(node["mode"], 8) if "mode" in node else mode
        head = struct.pack(">BII", TAG_VNODE, *fid)
        head += b"t" + bytes([kind]) + b"l" + struct.pack(">H", links)
        for tag, value in (
            (b"v", 1),
            (b"m", self.now),
            (b"a", owner),
            (b"o", owner),
        ):
            head += tag + struct.pack(">I", value)
        head += b"b" + struct.pack(">H", mode)
        head += b"p" + struct.pack(">I", parent[0] if parent else 0)
        head += b"s" + struct.pack(">I", self.now)
        if acl:
            head += b"A" + acl
        self.vnodes[fid[0]] = (head + b"f" + struct.pack(">I", len(data)), data)

    def write(self, out):
        # The server gives the volume its true id; a dump only must not have 0.
        volume, name = 1, self.spec["name"].encode() + b"\0"
        blocks = sum(max(1, (len(data) + 1023) // 1024) for _, data in self.vnodes.values())
        out.write(struct.pack(">BII", TAG_DUMP, DUMP_BEGIN, 1))
        out.write(b"v" + struct.pack(">I", volume) + b"n" + name)
        out.write(b"t" + struct.pack(">HII", 2, 0, self.now))
        out.write(bytes([TAG_VOLUME]) + b"i" + struct.pack(">I", volume))
        out.write(b"v" + struct.pack(">I", 1) + b"n" + name)
        out.write(b"s\1b\1" + b"u" + struct.pack(">I", self.unique + 1) + b"t\0")
        for tag, value in (
            (b"p", volume),
            (b"c", 0),
            (b"q", self.spec.get("quota", 0)),
            (b"m", 0),
            (b"d", blocks),
            (b"f", len(self.vnodes)),
            (b"a", 0),
            (b"o", self.spec.get("owner", 0)),
            (b"C", self.now),
            (b"A", 0),
            (b"U", self.now),
            (b"E", 0),
            (b"B", 0),
        ):
            out.write(tag + struct.pack(">I", value))
        out.write(b"O\0M\0" + b"W" + struct.pack(">H7I", 7, *[0] * 7))
        out.write(b"D" + struct.pack(">I", 0) + b"Z" + struct.pack(">I", 0))
        # Directories first, as the volume server does: a reader then knows every path before any data.
        for vnode in sorted(self.vnodes, key=lambda n: (n % 2 == 0, n)):
            for part in self.vnodes[vnode]:
                out.write(part)
        out.write(struct.pack(">BI", TAG_END, DUMP_END))


def build(spec, out):
    Builder(spec).write(out)


# --- reading


class Vnode:
    def __init__(self, number, unique):
        self.number, self.unique = number, unique
        self.kind = self.mode = self.length = 0


class Reader:
    """One pass over a dump. A vnode's data must be consumed before the next vnode is asked for."""

    def __init__(self, stream):
        self.stream = stream
        self.left = 0
        if self.exactly(1)[0] != TAG_DUMP or self.u32() != DUMP_BEGIN:
            raise SystemExit("voldump: not a volume dump")
        self.u32()
        self.tag = self.header(strings=b"n", arrays={ord("t"): 4})
        if self.tag == TAG_VOLUME:
            self.tag = self.header(strings=b"nOM", single=b"sbt", arrays={ord("W"): 4})

    def exactly(self, n):
        data = self.stream.read(n)
        if len(data) != n:
            raise SystemExit("voldump: the dump ends too early")
        return data

    def u16(self):
        return struct.unpack(">H", self.exactly(2))[0]

    def u32(self):
        return struct.unpack(">I", self.exactly(4))[0]

    def header(self, strings, arrays, single=b""):
        while (tag := self.exactly(1)[0]) >= FIRST_ATTRIBUTE:
            if tag in strings:
                while self.exactly(1) != b"\0":
                    pass
            elif tag in single:
                self.exactly(1)
            elif tag in arrays:
                self.exactly(self.u16() * arrays[tag])
            else:
                self.u32()
        return tag

    def vnodes(self):
        """Yields each Vnode that carries attributes; then data() gives its contents."""
        while self.tag == TAG_VNODE:
            vnode = Vnode(self.u32(), self.u32())
            self.left = 0
            while (tag := self.exactly(1)[0]) >= FIRST_ATTRIBUTE:
                if tag == ord("t"):
                    vnode.kind = self.exactly(1)[0]
                elif tag == ord("b"):
                    vnode.mode = self.u16()
                elif tag == ord("l"):
                    self.u16()
                elif tag == ord("A"):
                    self.exactly(ACL_BYTES)
                elif tag in b"fh":
                    high = self.u32() if tag == ord("h") else 0
                    vnode.length = self.left = high << 32 | self.u32()
                    yield vnode
                    for _ in self.data():
                        pass
                else:
                    self.u32()
            self.tag = tag
        if self.tag != TAG_END or self.u32() != DUMP_END:
            raise SystemExit("voldump: the dump has no proper end")

    def data(self):
        while self.left:
            chunk = self.exactly(min(self.left, 1 << 20))
            self.left -= len(chunk)
            yield chunk


class Tree:
    """Paths of all vnodes; complete once the directories have passed by."""

    def __init__(self):
        self.names = {}

    def learn(self, vnode, blob):
        for name, child, _ in parse_directory(blob):
            # A file with several hard links keeps them all.
            self.names.setdefault(child, []).append((vnode.number, name))

    def paths(self, number):
        if number == 1:
            return [b"/"]
        found = []
        for parent, name in self.names.get(number, []):
            for above in self.paths(parent):
                found.append(above.rstrip(b"/") + b"/" + name)
        return found or [b"(no name)"]


def walk(stream):
    """Yields (reader, vnode, tree) for every vnode, with directories learned on the way."""
    reader, tree, directories, pending = Reader(stream), Tree(), [], True
    for vnode in reader.vnodes():
        if vnode.kind == DIRECTORY:
            tree.learn(vnode, b"".join(reader.data()))
            directories.append(vnode)
            continue
        if pending:
            yield from ((reader, d, tree) for d in directories)
            pending = False
        yield reader, vnode, tree
    if pending:
        yield from ((reader, d, tree) for d in directories)


def kind_of(vnode):
    if vnode.kind == SYMLINK and not vnode.mode & 0o111:
        return "mount"
    return KINDS.get(vnode.kind, "?")


def list_all(stream, out):
    for reader, vnode, tree in walk(stream):
        target = b""
        if vnode.kind == SYMLINK:
            target = b" -> " + b"".join(reader.data())
        for path in tree.paths(vnode.number):
            head = "%-5s %04o %12d %d.%d " % (
                kind_of(vnode), vnode.mode, vnode.length, vnode.number, vnode.unique)
            out.write(head.encode() + path + target + b"\n")


def checksums(stream, out):
    for reader, vnode, tree in walk(stream):
        if vnode.kind == FILE:
            digest = hashlib.sha256()
            for chunk in reader.data():
                digest.update(chunk)
            for path in tree.paths(vnode.number):
                out.write(digest.hexdigest().encode() + b"  " + path + b"\n")


def cat(stream, path, out):
    wanted = b"/" + path.encode().strip(b"/")
    for reader, vnode, tree in walk(stream):
        if vnode.kind != DIRECTORY and wanted in tree.paths(vnode.number):
            for chunk in reader.data():
                out.write(chunk)
            return
    raise SystemExit("voldump: no file %s in the dump" % path)


def main(arguments):
    # A reader such as head may close early.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    commands = {"build": 2, "ls": 1, "sum": 1, "cat": 2}
    if not arguments or commands.get(arguments[0]) != len(arguments) - 1:
        raise SystemExit(__doc__)
    command, first = arguments[0], arguments[1]
    out = sys.stdout.buffer
    if command == "build":
        with open(first) as spec, (out if arguments[2] == "-" else open(arguments[2], "wb")) as made:
            build(json.load(spec), made)
        return
    with sys.stdin.buffer if first == "-" else open(first, "rb") as stream:
        if command == "ls":
            list_all(stream, out)
        elif command == "sum":
            checksums(stream, out)
        else:
            cat(stream, arguments[2], out)
    out.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
