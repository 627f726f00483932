# SPDX-License-Identifier: Apache-2.0
"""A FUSE session with its device and a trivial engine, and the frames that go into it."""

from __future__ import annotations

from errno import EACCES, ESTALE

from binderd.device.fuse_device import FuseDevice
from binderd.device.open_files import OpenFiles
from binderd.device.pace import Pace
from binderd.fuse.directory import Directory
from binderd.fuse.entrance import Entrance
from binderd.fuse.pages import Choice
from binderd.fuse.session import READ_BUFFER_SIZE, Session
from binderd.fuse.tree import Tree
from binderd.fuse.turns import Turns
from binderwire import fuse_abi as abi
from channel.helpers import FakeEngine, FakeProcess, request

DEVICES = ("binder", "hwbinder")
DEVICES_MAX = 4
ROOT = abi.FUSE_ROOT_ID


class FakeClient:
    """The outside half of an open file."""

    arena = None
    payer = 1000

    def __init__(self, pid: int, backing_id: int, *, is_private: bool) -> None:
        self.pid = pid
        self.backing_id = backing_id
        self.is_private = is_private
        self.process: FakeProcess | None = None
        self.is_closed = False
        self.fails: OSError | None = None  # raised by ``close``

    def memory(self, tid: int) -> None:
        raise NotImplementedError

    def adopt(self, engine: FakeEngine, file: FakeProcess) -> None:
        self.process = file

    def close(self) -> None:
        self.is_closed = True
        if self.fails is not None:
            raise self.fails


class FakeOpener:
    def __init__(self) -> None:
        self.clients: list[FakeClient] = []
        self.fails: OSError | None = None
        self.has_backing = True

    def open(self, tid: int, nodeid: int, *, is_private: bool) -> FakeClient:
        if self.fails is not None:
            raise self.fails
        backing_id = 70 + len(self.clients) if self.has_backing else 0
        self.clients.append(FakeClient(tid, backing_id, is_private=is_private))
        return self.clients[-1]

    def refuse_foreign_pid(self) -> int:
        return EACCES

    def can_back(self) -> bool:
        return self.has_backing

    def lack_passthrough(self) -> None:
        assert not self.has_backing

    def payer(self, tid: int, uid: int) -> int:
        return uid

    def is_own(self, tid: int) -> bool:
        return False

    def note_stalls(self) -> None:
        pass


class World:
    """A session, its device and everything around them."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.opener = FakeOpener()
        self.gone: list[str] = []
        self.directory = Directory(DEVICES, DEVICES_MAX, self.gone.append)
        self.tree = Tree(self.directory, Choice(lambda: self.clock))
        self.negotiated: list[str | None] = []
        self.reported: list[tuple[int, Exception]] = []
        self.failed: list[tuple[str, Exception]] = []
        self.timers: list[tuple[int, int]] = []
        self.clock = 0
        self.turns = Turns(lambda: self.clock, lambda: self.clock)
        self.files = OpenFiles(
            self.engine,
            self.directory,
            self.opener,
            self.turns,
            Pace(lambda: 0),
            lambda number, milliseconds: self.timers.append((number, milliseconds)),
            lambda: None,
            lambda about, error: self.failed.append((about, error)),
        )
        self.entrance_timers: list[int] = []
        self.entrance = Entrance(lambda: self.clock, self.entrance_timers.append)
        self.device = FuseDevice(self.files, self.tree, self.directory, self.opener, self.entrance)
        self.outgoing = self.device.outgoing
        self.session = Session(
            self.tree,
            self.device,
            self.negotiated.append,
            lambda opcode, error: self.reported.append((opcode, error)),
            self.turns,
        )
        self.buffer = bytearray(READ_BUFFER_SIZE)

    def send(self, frame: bytes) -> list[tuple[int, int, bytes]]:
        """Handle one frame; return (unique, error, body) of each frame that goes out."""
        self.buffer[:] = b"\xaa" * READ_BUFFER_SIZE  # what is behind the frame must not matter
        self.buffer[: len(frame)] = frame
        self.session.receive(self.buffer, len(frame))
        return self.collect()

    def collect(self) -> list[tuple[int, int, bytes]]:
        """Return (unique, error, body) of each frame that goes out."""
        replies = []
        for reply in self.outgoing:
            length, error, unique = abi.fuse_out_header.unpack_from(reply)
            assert length == len(reply)
            replies.append((unique, error, reply[abi.fuse_out_header.size :]))
        self.outgoing.clear()
        return replies

    def answer(self, frame: bytes) -> tuple[int, bytes]:
        """Handle a frame with exactly one reply; return its error and body."""
        [(unique, error, body)] = self.send(frame)
        assert unique == abi.fuse_in_header.read(frame).unique
        return error, body

    def lookup(self, name: bytes = b"binder", tid: int = 9) -> int:
        error, body = self.answer(request(abi.FUSE_LOOKUP, name + b"\0", nodeid=ROOT, tid=tid))
        assert error == 0
        return abi.fuse_entry_out.read(body).nodeid

    def begin_open(self, name: bytes = b"binder", tid: int = 9) -> int:
        """Do what comes before the OPEN that opens a path; return the inode."""
        assert self.answer(open_request(self.lookup(name, tid), tid=tid)) == (-ESTALE, b"")
        return self.lookup(name, tid)

    def open(self, name: bytes = b"binder", flags: int = 2) -> int:
        nodeid = self.begin_open(name)
        error, body = self.answer(open_request(nodeid, flags))
        assert error == 0
        return abi.fuse_open_out.read(body).fh


def open_request(nodeid: int, flags: int = 2, tid: int = 9) -> bytes:
    return request(abi.FUSE_OPEN, abi.fuse_open_in.pack(flags, 0), nodeid=nodeid, tid=tid)


def ioctl_request(
    handle: int, command: int, argument: bytes, out_size: int, unique: int = 2, tid: int = 9
) -> bytes:
    body = abi.fuse_ioctl_in.pack(handle, 0, command, 0xABC, len(argument), out_size)
    return request(abi.FUSE_IOCTL, body + argument, unique=unique, uid=1000, tid=tid)


def poll_request(handle: int, kernel_handle: int, *, schedule: bool) -> bytes:
    flags = abi.FUSE_POLL_SCHEDULE_NOTIFY if schedule else 0
    return request(abi.FUSE_POLL, abi.fuse_poll_in.pack(handle, kernel_handle, flags, 0xFFFF))


def init_request(flags: int, *, major: int = 7, minor: int = 45) -> bytes:
    body = abi.fuse_init_in.build(
        major=major,
        minor=minor,
        max_readahead=131072,
        flags=flags & 0xFFFFFFFF,
        flags2=flags >> 32,
    )
    return request(abi.FUSE_INIT, body, nodeid=0, tid=0)
