# SPDX-License-Identifier: Apache-2.0
"""Hostile FUSE frames: a reply or an errno for each, never an exception, never two replies.

The session, the device and the engine are the real ones; only the kernel and the clients' memory
are not.
"""

from __future__ import annotations

import itertools
from errno import EACCES
from random import Random
from typing import TYPE_CHECKING

import pytest

from binderd.device.fuse_device import FuseDevice
from binderd.device.open_files import OpenFiles
from binderd.device.pace import Pace
from binderd.engine.engine import Engine
from binderd.engine.ports import REFUSED
from binderd.engine.process import Process
from binderd.fuse.directory import Directory
from binderd.fuse.entrance import Entrance
from binderd.fuse.pages import Choice
from binderd.fuse.session import READ_BUFFER_SIZE, Session
from binderd.fuse.tree import Tree
from binderd.fuse.turns import LONG_NS, TOO_LONG_NS, Turns
from binderwire import binder_abi as abi
from binderwire import fuse_abi as fuse
from binderwire.commands import message
from binderwire.ioc import ioc_size
from support.fakes import FakeArena, FakeMemory, FakeThread
from support.invariants import check

if TYPE_CHECKING:
    from binderd.engine.ports import Client, Facade, OpenFile, ReceiverArena

CASES = 120
DEVICES_MAX = 5
FRAMES = 300  # in each case
HEAP = 0x5000_0000_0000
MAPPING = 0x7000_0000_0000
VALUES = (0, 1, 2, 8, 48, 4096, HEAP, HEAP + 4090, MAPPING, 1 << 31, (1 << 64) - 1)
LOCKS = (fuse.FUSE_SETLK, fuse.FUSE_SETLKW)
MAY_WAIT = {None, fuse.FUSE_IOCTL, fuse.FUSE_OPEN, fuse.FUSE_SETLKW}
UNANSWERED = {fuse.FUSE_FORGET, fuse.FUSE_BATCH_FORGET, fuse.FUSE_INTERRUPT}
HEADER = fuse.fuse_in_header.size


class FuzzedClient:
    """A client whose threads all share one memory; implements ``OpenedClient``."""

    nice = euid = 0
    is_foreign = False

    def __init__(self, number: int, memory: FakeMemory) -> None:
        arena = FakeArena(memory, MAPPING + (number << 32))
        arena.map(4096)
        self._area = arena
        self.arena: ReceiverArena = arena
        self.pid = 1000 + number
        self.payer = number % 3
        self.backing_id = number
        self.process: Process | None = None
        self.closed = False
        self._memory = memory

    def memory(self, tid: int) -> FakeThread:
        return FakeThread(self._memory, tid, 0, self._area)

    def forget_thread(self, tid: int) -> None:
        assert tid

    def install(self, tid: int, number: int, files: object, room: object) -> int:
        return REFUSED

    def close_descriptors(self, tid: int, number: int, numbers: object) -> int:
        return REFUSED

    def cancel_install(self, number: int) -> None:
        raise AssertionError("none was begun")

    def user(self) -> int:
        return 0

    def shares_opener(self, other: Client) -> bool:
        return other is self

    def pid_of(self, sender: Client) -> int:
        raise AssertionError(f"asked of a client that is not foreign: {sender}")

    def uid_of(self, uid: int) -> int:
        raise AssertionError(f"asked of a client that is not foreign: {uid}")

    def security_context(self) -> bytes | None:
        return None

    def adopt(self, engine: Facade, file: OpenFile) -> None:
        assert isinstance(file, Process)
        self.process = file

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True


class Opener:
    """Makes clients."""

    def __init__(self, memory: FakeMemory) -> None:
        self.memory = memory
        self.clients: list[FuzzedClient] = []

    def open(self, tid: int, nodeid: int, *, is_private: bool) -> FuzzedClient:
        assert tid
        assert nodeid
        self.clients.append(FuzzedClient(len(self.clients), self.memory))
        return self.clients[-1]

    def refuse_foreign_pid(self) -> int:
        return EACCES

    def payer(self, tid: int, uid: int) -> int:
        return tid % 2

    def is_own(self, tid: int) -> bool:
        return False

    def note_stalls(self) -> None:
        pass


class Kernel:
    """Sends frames that a generator makes up, and keeps account of the replies."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.memory = FakeMemory()
        calls = b"".join(self.command() for _ in range(20))
        self.memory.map(HEAP, bytearray(calls.ljust(4096, b"\xff")), writable=True)
        self.opener = Opener(self.memory)
        self.engine = Engine()
        self.now = self.had_to_wait = self.opens_waited = 0
        self.is_timed = False  # does a timer run for opens that wait?
        self.turns = Turns(self.clock, self.clock)
        directory = Directory(["binder", "hwbinder"], DEVICES_MAX, self.engine.forget_context)
        tree = Tree(directory, Choice(self.clock))
        pace = Pace(itertools.count().__next__, slice_ns=1)  # each slice is over with a step
        files = OpenFiles(
            self.engine,
            directory,
            self.opener,
            self.turns,
            pace,
            self.start_timer,
            lambda: None,
            self.bug,
        )
        self.entrance = Entrance(self.clock, self.start_entrance_timer)
        self.device = FuseDevice(files, tree, directory, self.opener, self.entrance)
        self.outgoing = self.device.outgoing
        self.session = Session(tree, self.device, lambda _: None, self.bug, self.turns)
        self.frame = bytearray(READ_BUFFER_SIZE)
        self.unique = 0
        self.waiting: dict[int, int] = {}  # opcodes of requests without a reply, by unique
        self.handles = [0]
        self.nodes = [1]
        for name in (b"binder", b"binder", b"hwbinder"):
            self.receive(self.request(fuse.FUSE_LOOKUP, name + b"\0"))
            self.take_turns()
            self.receive(self.open_request())
            self.take_turns()
        self.receive(self.request(fuse.FUSE_IOCTL, self.manager_request()))
        self.take_turns()

    def start_timer(self, number: int, milliseconds: int) -> None:
        """No time passes here; a wait ends with the interruption that will come."""

    def start_entrance_timer(self, milliseconds: int) -> None:
        assert not self.is_timed
        self.is_timed = True

    def clock(self) -> int:
        """Return a time; some of what is timed takes long enough to be paid for."""
        self.now += self.random.choice([1000] * 50 + [LONG_NS + 1, 2 * TOO_LONG_NS])
        return self.now

    def bug(self, about: int | str, error: Exception) -> None:
        name = fuse.OPCODES.get(about, about) if isinstance(about, int) else about
        raise AssertionError(f"{name} failed") from error

    def number(self) -> int:
        random = self.random
        known = [*self.handles, *self.nodes, *self.waiting]
        return random.choice([*VALUES, random.getrandbits(64), *known])

    def command(self) -> bytes:
        """Return a command for the clients' memory: calls to the context manager, and replies."""
        flags = self.random.choice([0, abi.TF_ONE_WAY])
        word = self.random.choice([abi.BC_TRANSACTION, abi.BC_TRANSACTION, abi.BC_REPLY])
        return message(abi.COMMANDS, word, flags=flags, data_size=16, buffer=HEAP)

    def argument(self, size: int) -> bytes:
        """Return an ioctl's argument: a sensible binder_write_read, or bytes."""
        random = self.random
        if size != abi.binder_write_read.size or random.random() < 0.1:
            return random.randbytes(size)
        return abi.binder_write_read.build(
            write_size=random.choice([0, 68, 68, 136, random.randrange(500)]),
            write_consumed=random.choice([0, 0, 0, 0, 4]),
            write_buffer=HEAP + random.randrange(8) * 68,
            read_size=random.choice([0, 80, 256]),
            read_buffer=HEAP + 2048,
        )

    def body(self, opcode: int) -> bytes:
        random = self.random
        handle = random.choice(self.handles[-4:])
        if opcode == fuse.FUSE_LOOKUP:
            return random.choice([b"binder", b"hwbinder", b"", b"x" * 300, b"\xff"]) + b"\0"
        if opcode == fuse.FUSE_OPEN:
            return fuse.fuse_open_in.build(flags=random.choice([0, 2, 2050]))
        if opcode == fuse.FUSE_IOCTL:
            request = random.choice([abi.BINDER_WRITE_READ] * 8 + [*abi.IOCTLS])
            size = ioc_size(request)
            if random.random() < 0.05:
                request, size = random.getrandbits(32), random.randrange(2000)
            head = fuse.fuse_ioctl_in.build(fh=handle, cmd=request, in_size=size, out_size=size)
            return head + self.argument(size)
        if opcode == fuse.FUSE_INTERRUPT:
            return fuse.fuse_interrupt_in.build(unique=random.choice([*self.waiting, 0, 1 << 63]))
        if opcode == fuse.FUSE_POLL:
            return fuse.fuse_poll_in.build(fh=handle, kh=handle + 70, flags=random.randrange(2))
        if opcode in LOCKS:
            return fuse.fuse_lk_in.build(
                fh=handle,
                owner=random.randrange(3),
                type=random.choice([fuse.F_RDLCK, fuse.F_WRLCK, fuse.F_WRLCK, fuse.F_UNLCK, 3]),
                lk_flags=random.choice([fuse.FUSE_LK_FLOCK] * 9 + [0]),
            )
        if opcode == fuse.FUSE_RELEASE:
            flags = random.choice([0, fuse.FUSE_RELEASE_FLOCK_UNLOCK])
            owner = random.randrange(3)
            return fuse.fuse_release_in.build(fh=handle, release_flags=flags, lock_owner=owner)
        if opcode == fuse.FUSE_FLUSH:
            return handle.to_bytes(8, "little") + bytes(16)
        words = [self.number() & 0xFFFF_FFFF_FFFF_FFFF for _ in range(random.randrange(12))]
        return b"".join(word.to_bytes(8, "little") for word in words)

    def make_frame(self) -> tuple[int, bytes]:
        """Return an opcode and its frame, which may be damaged behind the header."""
        random = self.random
        likely = [fuse.FUSE_LOOKUP, fuse.FUSE_OPEN, fuse.FUSE_INTERRUPT, fuse.FUSE_POLL] * 6
        likely += [fuse.FUSE_IOCTL] * 120 + [*LOCKS] * 3
        opcode = random.choice([*likely, *fuse.OPCODES, random.getrandbits(32)])
        body = bytearray(self.body(opcode))
        if body and random.random() < 0.1:
            body[random.randrange(len(body))] = random.randrange(256)
        if random.random() < 0.05:
            del body[random.randrange(len(body) + 1) :]
        self.unique += 2
        header = fuse.fuse_in_header.build(
            len=HEADER + len(body) + (random.random() < 0.02),
            opcode=opcode,
            unique=self.unique,
            nodeid=random.choice([1, 1, *self.nodes[-1:] * 3, self.number()]),
            pid=random.choice([0, *range(9, 30), *[9, 10] * 20]),
        )
        return opcode, header + body

    def send(self) -> None:
        if self.random.random() < 0.2:
            self.take_turns()
        if self.is_timed and self.random.random() < 0.2:
            self.is_timed = False
            self.entrance.expire()
            self.collect()
        self.opens_waited += len(self.entrance) > 0
        opcode, frame = self.make_frame()
        self.waiting[self.unique] = opcode
        self.receive(frame)
        if opcode in UNANSWERED:
            assert self.unique in self.waiting, "answered what the kernel awaits no answer to"
            del self.waiting[self.unique]
        if self.turns.waiting:
            self.had_to_wait += 1
        else:
            assert self.waiting.get(self.unique) in MAY_WAIT, "it must be answered at once"
        processes = [client.process for client in self.opener.clients if client.process]
        check(self.engine, [process for process in processes if not process.is_dead])

    def receive(self, frame: bytes) -> None:
        self.frame[: len(frame)] = frame
        self.turns.begin()
        self.session.receive(self.frame, len(frame))
        self.turns.charge()
        self.collect()

    def collect(self) -> None:
        """Look at what goes to the kernel."""
        for reply in self.outgoing:
            length, error, unique = fuse.fuse_out_header.unpack_from(reply)
            assert length == len(reply)
            if not unique:
                assert error == fuse.FUSE_NOTIFY_POLL
                continue
            assert -4096 < error <= 0
            self.learn(self.waiting.pop(unique), error, reply[fuse.fuse_out_header.size :])
        self.outgoing.clear()

    def learn(self, opcode: int, error: int, body: bytes) -> None:
        if error:
            assert not body
        elif opcode == fuse.FUSE_OPEN:
            self.handles.append(fuse.fuse_open_out.read(body).fh)
        elif opcode == fuse.FUSE_LOOKUP:
            self.nodes.append(fuse.fuse_entry_out.read(body).nodeid)

    def finish(self) -> None:
        """Interrupt what waits, release every file: all is answered, nothing is left."""
        for number in [*self.waiting]:
            body = fuse.fuse_interrupt_in.build(unique=number)
            self.receive(self.request(fuse.FUSE_INTERRUPT, body))
            del self.waiting[self.unique]
        self.take_turns()
        assert not self.waiting
        for handle in self.handles:
            self.receive(self.request(fuse.FUSE_RELEASE, fuse.fuse_release_in.build(fh=handle)))
        assert not self.waiting
        self.take_turns()
        assert all(client.closed for client in self.opener.clients)
        assert not any(self.engine.counts().values())

    def take_turns(self) -> None:
        """Let pass the time until nobody waits."""
        while self.turns.waiting:
            self.now += self.turns.delay()
            self.turns.run_next(self.turns.begin())
            self.turns.charge()
        self.collect()

    def request(self, opcode: int, body: bytes, nodeid: int = fuse.FUSE_ROOT_ID) -> bytes:
        """Return a flawless frame and expect its reply."""
        self.unique += 2
        self.waiting[self.unique] = opcode
        values = {"len": HEADER + len(body), "opcode": opcode, "unique": self.unique, "pid": 9}
        return fuse.fuse_in_header.build(nodeid=nodeid, **values) + body

    def open_request(self) -> bytes:
        """Return one of the inode that was looked up last."""
        body = fuse.fuse_open_in.build(flags=fuse.O_NONBLOCK)
        return self.request(fuse.FUSE_OPEN, body, self.nodes[-1])

    def manager_request(self) -> bytes:
        """Return the body of an ioctl that makes the first file the context manager's."""
        fields = {"fh": self.handles[1], "cmd": abi.BINDER_SET_CONTEXT_MGR, "in_size": 4}
        return fuse.fuse_ioctl_in.build(**fields, out_size=4) + bytes(4)


@pytest.mark.parametrize("first_seed", range(0, CASES, 40))
def test_every_frame_is_answered_once(first_seed: int) -> None:
    for seed in range(first_seed, first_seed + 40):
        kernel = Kernel(seed)
        for _ in range(FRAMES):
            kernel.send()
        kernel.finish()


def test_the_frames_get_everywhere() -> None:
    kernels = [Kernel(seed) for seed in range(40)]
    for kernel in kernels:
        for _ in range(FRAMES):
            kernel.send()
    assert sum(len(kernel.handles) - 2 for kernel in kernels) > 5
    waiting = [opcode for kernel in kernels for opcode in kernel.waiting.values()]
    assert waiting.count(fuse.FUSE_IOCTL) > 5
    assert waiting.count(fuse.FUSE_SETLKW) > 5
    assert sum(kernel.opens_waited for kernel in kernels) > 100
    assert sum(kernel.had_to_wait for kernel in kernels) > 500
    assert sum(kernel.engine.counts()["buffers"] for kernel in kernels) > 5
