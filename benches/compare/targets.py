"""What is compared. Each keeps a volume of `size` bytes below `dir`, written in full, and can take a snapshot of it."""

import fcntl
import os
import shutil

from machine import Server, on_exit, run

FICLONE = 0x40049409
MIB = 1 << 20


class Target:
    """A plain file on the file system below: what the others are measured against."""

    name = "raw"
    title = "plain file"
    tools = ()
    root = False
    can_snapshot = False

    def __init__(self, base, size):
        self.dir = os.path.join(base, self.name)
        self.size = size
        os.makedirs(self.dir)

    @staticmethod
    def needed(size):
        """Bytes of disk."""
        return size

    def start(self):
        """A volume that is empty, open."""
        self.path = os.path.join(self.dir, "volume")
        _make(self.path, self.size)

    def target(self):
        """Where fio goes."""
        return {"path": self.path}

    def snapshot(self):
        """A snapshot that is there when it returns."""

    def forget(self):
        """Deletes that snapshot, and waits for its space."""

    def fresh(self):
        """Another volume, empty and thin; of the plain file what is written already."""
        return self.target()

    def drop_fresh(self):
        """Deletes that volume."""


def _make(path, size):
    with open(path, "wb") as file:
        file.truncate(size)


class Cowstore(Target):
    """`cowctl serve`, over a Unix socket."""

    name = "cowstore"
    title = "Cowstore over NBD"
    can_snapshot = True
    cowctl = None

    @staticmethod
    def needed(size):
        return size * 5 // 2 + 512 * MIB

    def start(self):
        self.env = {"COW_RUNTIME_DIR": os.path.join(self.dir, "run"),
                    "COWCTL_POOL": os.path.join(self.dir, "pool.cow")}
        os.environ.update(self.env)
        self._ctl("pool", "create", "--size", f"{self.needed(self.size) // MIB}M", "--preallocate")
        self._ctl("create", "volume", "--size", self.size)
        self.sock = os.path.join(self.dir, "sock")
        self.server = Server(self.sock, self.cowctl, "serve", "--nbd", f"unix:{self.sock}", env=self.env)

    def _ctl(self, *words):
        return run(self.cowctl, *words)

    def target(self, volume="volume"):
        return {"uri": f"nbd+unix:///{volume}?socket={self.sock}"}

    def snapshot(self):
        self._ctl("snapshot", "volume@compare")

    def forget(self):
        self._ctl("delete", "volume@compare", "--wait")

    def fresh(self):
        self._ctl("create", "fresh", "--size", self.size)
        return self.target("fresh")

    def drop_fresh(self):
        self._ctl("delete", "fresh", "--wait")


class Qcow2(Target):
    """qcow2 with its internal snapshots, served by qemu-nbd without the host's page cache. The program takes no
    snapshot of what it serves, so it is stopped for that."""

    name = "qcow2"
    title = "qcow2 by qemu-nbd"
    tools = ("qemu-img", "qemu-nbd")
    can_snapshot = True

    @staticmethod
    def needed(size):
        return size * 2

    def start(self):
        self.image = os.path.join(self.dir, "volume.qcow2")
        self.other = os.path.join(self.dir, "fresh.qcow2")
        self._create(self.image)
        self.server = self._serve(self.image)

    def _create(self, image):
        run("qemu-img", "create", "-q", "-f", "qcow2", image, self.size)

    def _serve(self, image):
        return Server(image + ".sock", "qemu-nbd", "-f", "qcow2", "--cache=none", "--aio=io_uring", "--discard=unmap",
                      "--persistent", "--shared=64", "--socket", image + ".sock", image)

    def target(self, image=None):
        return {"uri": f"nbd+unix:///?socket={image or self.image}.sock"}

    def _offline(self, *words):
        self.server.stop()
        run("qemu-img", "snapshot", *words, self.image)
        _sync(self.image)
        self.server = self._serve(self.image)

    def snapshot(self):
        self._offline("-c", "compare")

    def forget(self):
        self._offline("-d", "compare")

    def fresh(self):
        self._create(self.other)
        self.fresh_server = self._serve(self.other)
        return self.target(self.other)

    def drop_fresh(self):
        self.fresh_server.stop()
        os.unlink(self.other)


class Reflink(Target):
    """A file in a file system on a loop device (direct I/O) over an image that was written in full; a snapshot is a
    reflink of the file."""

    tools = ("losetup", "mount", "umount")
    root = True
    can_snapshot = True
    mkfs = ()

    @staticmethod
    def needed(size):
        return size * 9 // 4 + 512 * MIB

    def start(self):
        image = os.path.join(self.dir, "image")
        with open(image, "wb") as file:
            zeros = bytes(4 * MIB)
            for _ in range(self.needed(self.size) // len(zeros)):
                file.write(zeros)
            os.fsync(file.fileno())
        device = run("losetup", "--find", "--show", "--direct-io=on", image).strip()
        on_exit(lambda: run("losetup", "--detach", device))
        run(*self.mkfs, device)
        self.mount = os.path.join(self.dir, "mount")
        os.makedirs(self.mount)
        run("mount", "-o", "noatime,nodiscard", device, self.mount)
        on_exit(lambda: run("umount", self.mount))
        self.path = os.path.join(self.mount, "volume")
        self.copy = os.path.join(self.mount, "snapshot")
        self.other = os.path.join(self.mount, "fresh")
        _make(self.path, self.size)

    def snapshot(self):
        with open(self.path, "rb") as source, open(self.copy, "wb") as copy:
            fcntl.ioctl(copy, FICLONE, source.fileno())
            os.fsync(copy.fileno())

    def forget(self):
        os.unlink(self.copy)
        run("sync", "--file-system", self.mount)

    def fresh(self):
        _make(self.other, self.size)
        return {"path": self.other}

    def drop_fresh(self):
        os.unlink(self.other)
        run("sync", "--file-system", self.mount)


class Btrfs(Reflink):
    name = "btrfs"
    title = "btrfs reflink"
    tools = Reflink.tools + ("mkfs.btrfs",)
    mkfs = ("mkfs.btrfs", "--quiet", "--force", "--nodiscard")


class Xfs(Reflink):
    name = "xfs"
    title = "XFS reflink"
    tools = Reflink.tools + ("mkfs.xfs",)
    mkfs = ("mkfs.xfs", "-q", "-f", "-K", "-m", "reflink=1")


class Null(Target):
    """An NBD server that stores nothing: the bound of the protocol. Only if it is asked for."""

    name = "null"
    title = "null NBD server"
    tools = ("nbdkit",)

    @staticmethod
    def needed(_size):
        return 0

    def start(self):
        self.sock = os.path.join(self.dir, "sock")
        self.server = Server(self.sock, "nbdkit", "--foreground", "--unix", self.sock, "null", f"size={self.size}")

    def target(self):
        return {"uri": f"nbd+unix:///?socket={self.sock}"}


def _sync(path):
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


ALL = {target.name: target for target in (Target, Cowstore, Qcow2, Btrfs, Xfs, Null)}
DEFAULT = "raw,cowstore,qcow2,btrfs,xfs"


def scratch(parent):
    """A directory for all of it, which is removed at the end."""
    base = os.path.join(os.path.abspath(parent), f"cow-compare-{os.getpid()}")
    os.makedirs(base)
    on_exit(lambda: shutil.rmtree(base, ignore_errors=True))
    return base
