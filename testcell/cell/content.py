#!/usr/bin/env python3
"""content.py SERVERS FOLDER: dumps of all volumes of the test cell, FOLDER/VOLUME.dump."""

import pathlib
import sys

import voldump

CELL = "lab.example"
EVERYTHING = "rlidwka"
ADMINS = {"system:administrators": EVERYTHING}
READABLE = {**ADMINS, "system:anyuser": "rl"}
WRITABLE = {**ADMINS, "system:anyuser": EVERYTHING}


def volumes(servers):
    top = {
        "README": {"file": "The top of the test cell %s.\n" % CELL},
        "work": {"mount": "#work."},
        "tiny": {"mount": "#tiny."},
        "ro": {"mount": "#ro.data."},
        "home": {"dir": {"alice": {"mount": "#home.alice."}}},
        "public": {"dir": {"README": {"file": "Anyone may read this.\n"}}},
    }
    if servers >= 2:
        top["work2"] = {"mount": "#work2."}
        yield {"name": "work2", "quota": 4000000, "acl": WRITABLE}
    yield {
        "name": "root.afs",
        "quota": 5000,
        "acl": READABLE,
        "entries": {CELL: {"mount": "#root.cell."}, "." + CELL: {"mount": "%root.cell."}},
    }
    yield {"name": "root.cell", "quota": 5000, "acl": READABLE, "entries": top}
    yield {"name": "work", "quota": 4000000, "acl": WRITABLE}
    yield {"name": "tiny", "quota": 1000, "acl": WRITABLE}
    yield {
        "name": "home.alice",
        "quota": 100000,
        "owner": 1001,
        "acl": {**ADMINS, "alice": EVERYTHING},
        "entries": {"diary": {"file": "Dear diary, only alice reads this.\n"}},
    }
    yield {
        "name": "ro.data",
        "quota": 5000,
        "acl": READABLE,
        "entries": {
            "hello": {"file": "hello, world\n"},
            "empty": {"file": ""},
            "link": {"symlink": "hello"},
            "run": {"file": "#!/bin/sh\necho from a read-only volume\n", "mode": "0755"},
            "dir": {"dir": {"file%03d" % n: {"file": "%d\n" % n} for n in range(200)}},
        },
    }


def main(servers, folder):
    for spec in volumes(servers):
        with open(pathlib.Path(folder, spec["name"] + ".dump"), "wb") as out:
            voldump.build(spec, out)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
