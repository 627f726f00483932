# SPDX-License-Identifier: Apache-2.0
"""A client's means to keep whoever reaches into it: a FUSE file system of its own.

What is here runs in the clients: ``from stalls import *`` after ``from rawclient import *``.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from rawclient import Device, map_file

from binderwire import binder_abi, fuse_abi

if TYPE_CHECKING:
    from collections.abc import Callable

_libc = ctypes.CDLL(None, use_errno=True)
PAGES = 64  # of the file


class SlowFiles:
    """A mounted file system with one file, whose pages come when they like.

    Args:
        place: where; made.
        user: whose it is.
        delay: seconds for each page; below 0: for ever.
    """

    def __init__(self, place: str, user: int = 0, delay: float = -1.0) -> None:
        self.place = place
        self.opens_direct = False  # is the next open one that passes the page cache by?
        self._delay = delay
        self._channel = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        os.mkdir(place)
        options = f"fd={self._channel},rootmode=40000,user_id={user},group_id=0,allow_other"
        done = _libc.mount(b"hostile", place.encode(), b"fuse.hostile", 0, options.encode())
        assert done == 0, os.strerror(ctypes.get_errno())
        threading.Thread(target=self._serve, daemon=True).start()

    def open(self) -> int:
        return os.open(self.place + "/x", os.O_RDONLY)

    def _serve(self) -> None:
        while True:
            try:
                frame = os.read(self._channel, 1 << 17)
            except OSError:
                return  # aborted
            self._answer(frame)

    def _answer(self, frame: bytes) -> None:
        _, opcode, unique, nodeid, *_ = fuse_abi.fuse_in_header.unpack_from(frame)
        error, body = 0, b""
        size = PAGES * mmap.PAGESIZE
        if opcode == fuse_abi.FUSE_INIT:
            # FUSE_ASYNC_READ: else the one who faults sends the reads one after the other.
            body = fuse_abi.fuse_init_out.build(major=7, minor=31, max_write=4096, flags=1)
        elif opcode == fuse_abi.FUSE_LOOKUP:
            body = fuse_abi.fuse_entry_out.build(
                nodeid=2, ino=2, mode=0o100755, size=size, nlink=1, entry_valid=999, attr_valid=999
            )
        elif opcode == fuse_abi.FUSE_GETATTR:
            mode = 0o100755 if nodeid == 2 else 0o40755
            body = fuse_abi.fuse_attr_out.build(
                ino=nodeid, mode=mode, size=size, nlink=1, attr_valid=999
            )
        elif opcode == fuse_abi.FUSE_OPEN:
            body = fuse_abi.fuse_open_out.pack(1, fuse_abi.FOPEN_DIRECT_IO * self.opens_direct, 0)
        elif opcode == fuse_abi.FUSE_READ:
            if self._delay < 0:
                return
            time.sleep(self._delay)
            body = bytes(fuse_abi.fuse_read_in.unpack_from(frame, 40)[2])
        elif opcode == fuse_abi.FUSE_STATFS:  # overlayfs wants to know the length of names
            body = fuse_abi.fuse_kstatfs.build(bsize=4096, namelen=255)
        elif opcode != fuse_abi.FUSE_FLUSH:
            error = -38
        header = fuse_abi.fuse_out_header.pack(16 + len(body), error, unique)
        with suppress(OSError):  # aborted
            os.write(self._channel, header + body)


def advise_random(address: int, size: int) -> None:
    """No page is read before it is asked for."""
    _libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), mmap.MADV_RANDOM)


def use(fd: int, address: int, size: int = 64) -> None:
    """Have the driver read commands from an address."""
    outcome(fd, address, size)  # EINVAL: the pages hold no commands


def outcome(fd: int, address: int, size: int = 64) -> str:
    """Return the name of the errno with which the driver ends that."""
    argument = bytearray(binder_abi.binder_write_read.pack(size, 0, address, 0, 0, 0))
    try:
        fcntl.ioctl(fd, binder_abi.BINDER_WRITE_READ, argument)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def start_manager(path: str, user: int) -> None:
    """Have a child of ours be the context manager of a device; it goes with us."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        be_user(user)  # as we shall be: others could not signal our end to it
        _libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG
        device = Device(path)
        device.ioctl(binder_abi.BINDER_SET_CONTEXT_MGR, bytes(4))
        os.write(writing, b"x")
        time.sleep(600)
        os._exit(0)
    os.read(reading, 1)


def hold_own_mappings(files: SlowFiles) -> None:
    """Have the lock of our mapping table held for as long as the file system does not answer.

    A page of the file is on its way, and stays locked; a mapping that passes the page cache by
    wants to drop that page first, with the lock in hand.
    """
    files.opens_direct = True
    direct = files.open()
    files.opens_direct = False
    fault = map_file(files.open(), mmap.PAGESIZE)
    _in_thread(lambda: _libc.strnlen(ctypes.c_void_p(fault), 1))
    _wait_for_sleep(_threads[0], -1)
    _in_thread(lambda: map_file(direct, mmap.PAGESIZE))
    _wait_for_sleep(_threads[1], {"x86_64": 9, "aarch64": 222}[os.uname().machine])


_threads: list[int] = []


def _in_thread(function: Callable[[], object]) -> None:
    started = threading.Event()

    def run() -> None:
        _threads.append(threading.get_native_id())
        started.set()
        function()

    threading.Thread(target=run, daemon=True).start()
    started.wait()


def _wait_for_sleep(tid: int, call: int) -> None:
    """Wait until one of our threads sleeps in a call for good; -1: in none, for a page."""
    asleep = 0
    while asleep < 20:
        with open(f"/proc/self/task/{tid}/syscall", encoding="ascii") as file:
            asleep = asleep + 1 if file.read().split()[0] == str(call) else 0
        time.sleep(0.005)


def be_user(uid: int) -> None:
    os.setgroups([])
    os.setresuid(uid, uid, uid)
    _libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: as a program that this user has started


def start(function: Callable[[], object]) -> None:
    threading.Thread(target=function).start()


def end_thread() -> None:
    """End the calling thread alone."""
    _libc.syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)


def wait_until_leader_is_gone() -> None:
    path = f"/proc/self/task/{os.getpid()}/stat"
    state = ""
    while state != "Z":
        with open(path, encoding="ascii") as file:
            state = file.read().rpartition(")")[2].split()[0]
        time.sleep(0.001)


def wait_until_others_are_gone() -> None:
    """Of those that Python has started, but for who serves the file system and who asks."""
    while len(os.listdir("/proc/self/task")) > 3:
        time.sleep(0.001)


def map_over(fd: int, address: int) -> None:
    """Map a file's first page at an address, -1: a page of no file."""
    _libc.mmap.argtypes = [ctypes.c_size_t, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    _libc.mmap.restype = ctypes.c_size_t
    flags = mmap.MAP_PRIVATE | 0x10 | (mmap.MAP_ANONYMOUS if fd < 0 else 0)  # MAP_FIXED
    assert _libc.mmap(address, mmap.PAGESIZE, mmap.PROT_READ, flags, fd, 0) == address
