"""The loads: the rows of the table."""

from collections import namedtuple

# fields: unit is what fio reports; fresh: on another volume, empty and thin, and once over it instead of for some time;
# snapshot: right after one was taken.
Row = namedtuple("Row", "key title unit options snapshot fresh", defaults=(False, False))

_WRITE = {"rw": "randwrite", "bs": "4k", "iodepth": 32}
_QD1 = {"rw": "randwrite", "bs": "4k", "iodepth": 1}
_SYNC = {**_QD1, "syncs": True}

ROWS = [
    Row("randwrite", "random write, 4 KiB, depth 32", "iops", _WRITE),
    Row("randwrite-snapshot", "the same right after a snapshot", "iops", _WRITE, snapshot=True),
    Row("randwrite-qd1", "random write, 4 KiB, depth 1, no flush", "iops", _QD1),
    Row("sync-qd1", "random write and fdatasync, 4 KiB, depth 1", "iops", _SYNC),
    Row("sync-qd1-snapshot", "the same right after a snapshot", "iops", _SYNC, snapshot=True),
    Row("sync-32", "32 writers, each 4 KiB and fdatasync", "iops", {**_SYNC, "numjobs": 32}),
    Row("randread", "random read, 4 KiB, depth 32", "iops", {"rw": "randread", "bs": "4k", "iodepth": 32}),
    Row("write", "sequential write, 1 MiB, fresh thin volume", "mib_s", {"rw": "write", "bs": "1m", "iodepth": 16},
        fresh=True),
    Row("read", "sequential read, 1 MiB, written in order", "mib_s", {"rw": "read", "bs": "1m", "iodepth": 16}),
    Row("mixed", "mixed, 70 % reads, random 4 KiB, depth 32", "iops",
        {"rw": "randrw", "rwmixread": 70, "bs": "4k", "iodepth": 32}),
]
# The volume is read in order before anything is written to it at random.
ORDER = ["read", "write", "randread", "randwrite", "randwrite-snapshot", "randwrite-qd1", "sync-qd1",
         "sync-qd1-snapshot", "sync-32", "mixed"]
BY_KEY = {row.key: row for row in ROWS}
assert sorted(ORDER) == sorted(BY_KEY)
