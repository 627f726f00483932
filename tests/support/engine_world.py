# SPDX-License-Identifier: Apache-2.0
"""The engine in this process as a backend: fake processes, fake memory, no kernel.

What a kernel would do around the engine is spelled out here: who holds which open file, which
requests a dying process interrupts, when the last close releases.
"""

from __future__ import annotations

import itertools
from errno import EINTR
from typing import TYPE_CHECKING

from binderd.engine.engine import Engine
from binderwire.ioc import ioc_size
from support.fakes import FakeArena, FakeClient, FakeMemory
from support.invariants import check
from support.playbook import MAPPING_SIZE, Pending, Proc, Thread, World

if TYPE_CHECKING:
    from binderd.engine.completion import Completion
    from binderd.engine.process import Process

HEAP_ADDRESS = 0x5000_0000_0000
MAPPING_ADDRESS = 0x7000_0000_0000
SPACING = 1 << 32  # between the address ranges of two processes: a mix-up must not go unseen
TICKET_FIRST = 1000


class EngineWorld(World):
    """An engine and its clients."""

    name = "engine"
    is_kernel = False

    def __init__(self) -> None:
        self.engine = Engine()
        self.programs: list[Program] = []
        self.files: list[OpenFile] = []
        self.requests: dict[int, EnginePending] = {}  # open ones, by ticket
        self.pollers: list[EnginePoll] = []
        self._tids_seen: dict[Process, set[int]] = {}
        self._lost_threads: set[Process] = set()
        self._numbers = itertools.count(TICKET_FIRST)

    def next_number(self) -> int:
        return next(self._numbers)

    def open(
        self,
        device: str = "binder",
        *,
        size: int | None = MAPPING_SIZE,
        nonblocking: bool = False,
        uid: int = 0,
        shared: bool = False,  # fake memory has but one kind
    ) -> EngineProc:
        program = Program(self, uid)
        return program.open(device, size=size, nonblocking=nonblocking)

    def drain(self) -> None:
        """Hand out what the last engine call produced, as a transport does."""
        completions, self.engine.outbox[:] = list(self.engine.outbox), []
        for completion in completions:
            self.requests.pop(completion.ticket).end(completion)
        wakes, self.engine.poll_wakes[:] = list(self.engine.poll_wakes), []
        for process in wakes:
            for poller in [p for p in self.pollers if p.process is process]:
                poller.look()
        self.check()

    def check(self) -> None:
        """Assert the engine's invariants."""
        processes = [file.process for file in self.files if not file.released]
        for process in processes:
            seen = self._tids_seen.setdefault(process, set())
            seen.update(process.threads)
            if len(seen) > len(process.threads):
                self._lost_threads.add(process)
        check(self.engine, processes, lost_threads=self._lost_threads)

    def assert_empty(self) -> None:
        assert not any(self.engine.counts().values()), self.engine.counts()

    def close(self) -> None:
        for program in self.programs:
            program.die()


class Program:
    """A process: an address space, descriptors, threads."""

    def __init__(self, world: EngineWorld, uid: int, parent: Program | None = None) -> None:
        self.world = world
        self.pid = world.next_number()
        self.uid = uid
        self.files: list[OpenFile] = []
        self.tids: dict[int, OpenFile] = {}  # threads, and the file each works with
        self.alive = True
        if parent is None:
            self.memory = FakeMemory()
            self.memory.map(HEAP_ADDRESS + self.pid * SPACING, bytearray(), writable=True)
        else:
            self.memory = parent.memory.fork()
        world.programs.append(self)

    def open(self, device: str, *, size: int | None, nonblocking: bool) -> EngineProc:
        file = OpenFile(self, device, nonblocking=nonblocking)
        if size is not None:
            file.arena.map(size)
        return EngineProc(self, file)

    def room(self, size: int) -> int:
        heap = self.memory.regions[0]  # grows with what is asked for
        address = heap.address + len(heap.octets)
        heap.octets += bytes((size + 7) & ~7)
        return address

    def close_file(self, file: OpenFile) -> None:
        self.files.remove(file)
        self.world.engine.flush(file.process)
        self.world.drain()
        file.maybe_release()

    def die(self) -> None:
        if not self.alive:
            return
        self.alive = False
        for ticket in [t for t, r in self.world.requests.items() if r.program is self]:
            self.world.engine.interrupt(ticket)
            self.world.drain()
        for file in list(self.files):
            self.close_file(file)
        for tid, file in self.tids.items():
            if not file.released:
                self.world.engine.thread_gone(file.process, tid)
                self.world.drain()


class OpenFile:
    """An open file description, which several processes may hold."""

    def __init__(self, program: Program, device: str, *, nonblocking: bool) -> None:
        self.world = program.world
        self.device = device
        self.released = False
        self.calling: dict[int, Program] = {}  # threads with an open request, and whose they are
        self.arena = FakeArena(program.memory, MAPPING_ADDRESS + self.world.next_number() * SPACING)
        client = FakeClient(self.arena, lambda tid: self.calling[tid].memory)
        engine = self.world.engine
        self.process: Process = engine.open(device, program.pid, client, nonblocking=nonblocking)
        program.files.append(self)
        self.world.files.append(self)

    def maybe_release(self) -> None:
        """Release if nobody holds the file any more; an open request holds it, too."""
        held = any(self in program.files for program in self.world.programs)
        if not held and not self.calling and not self.released:
            self.released = True
            self.world.engine.release(self.process)
            self.world.drain()


class EnginePending(Pending):
    """An ioctl under way."""

    def __init__(self, thread: EngineThread, ticket: int) -> None:
        self.program = thread.program
        self._file = thread.file
        self._tid = thread.tid
        self._ticket = ticket
        self._completion: Completion | None = None

    def end(self, completion: Completion) -> None:
        self._completion = completion
        del self._file.calling[self._tid]
        self._file.maybe_release()

    @property
    def parked(self) -> bool:
        return self._completion is None

    def wait(self) -> tuple[int, bytes]:
        assert self._completion is not None, "the ioctl sleeps"
        return -self._completion.result, self._completion.payload


class EnginePoll(Pending):
    """A poll that waits, as the kernel does it: ask, sleep until woken, ask again."""

    def __init__(self, thread: EngineThread) -> None:
        self._thread = thread
        self.process = thread.file.process
        self._revents = 0
        thread.proc.world.pollers.append(self)
        self.look()

    def look(self) -> None:
        if not self._revents:
            self._revents = self._thread.ask_poll(wake=True)
        if self._revents and self in self._thread.proc.world.pollers:
            self._thread.proc.world.pollers.remove(self)

    @property
    def parked(self) -> bool:
        return not self._revents

    def wait(self) -> tuple[int, bytes]:
        assert self._revents, "the poll sleeps"
        return 0, self._revents.to_bytes(4, "little")


class EngineThread(Thread):
    """A thread id and the file it works with."""

    proc: EngineProc

    def __init__(self, proc: EngineProc) -> None:
        super().__init__(proc)
        self.program = proc.program
        self.file = proc.file
        self._tid = proc.world.next_number()
        self.program.tids[self._tid] = self.file

    @property
    def tid(self) -> int:
        return self._tid

    def start_ioctl(self, request: int, argument: bytes | None) -> Pending:
        assert argument is not None, "FUSE never brings us a NULL argument"
        assert self.tid in self.program.tids, "the thread has ended"
        assert self.tid not in self.file.calling, "the thread sleeps in another ioctl"
        world = self.proc.world
        ticket = world.next_number()
        pending = world.requests[ticket] = EnginePending(self, ticket)
        self.file.calling[self.tid] = self.program
        octets = argument.ljust(ioc_size(request), b"\0")[: ioc_size(request)]
        uid = self.program.uid
        world.engine.ioctl(self.file.process, self.tid, uid, request, octets, ticket)
        world.drain()
        return pending

    def ioctl(self, request: int, argument: bytes | None) -> tuple[int, bytes]:
        errno, payload = super().ioctl(request, argument)
        return errno, payload + (argument or b"")[len(payload) :]

    def ask_poll(self, *, wake: bool) -> int:
        self.file.calling[self.tid] = self.program
        revents = self.proc.world.engine.poll(self.file.process, self.tid, wake=wake)
        del self.file.calling[self.tid]
        self.proc.world.drain()
        return revents

    def poll(self) -> int:
        return self.ask_poll(wake=False)

    def start_poll(self) -> Pending:
        return EnginePoll(self)

    def signal(self) -> None:
        world = self.proc.world
        for ticket, request in list(world.requests.items()):
            if request._tid == self.tid and request.program is self.program:
                world.engine.interrupt(ticket)
                world.drain()
                assert request.wait()[0] == EINTR

    def end(self) -> None:
        assert self.tid not in self.file.calling, "the thread sleeps in an ioctl"
        del self.program.tids[self.tid]
        self.proc.world.engine.thread_gone(self.file.process, self.tid)
        self.proc.world.drain()


class EngineProc(Proc):
    """One open file as one program sees it."""

    def __init__(self, program: Program, file: OpenFile) -> None:
        self.program = program
        self.file = file
        self.world: EngineWorld = program.world

    @property
    def pid(self) -> int:
        return self.program.pid

    @property
    def mapping(self) -> tuple[int, int]:
        mapping = self.file.arena.locate()
        assert mapping is not None
        return mapping

    def thread(self) -> EngineThread:
        return EngineThread(self)

    def room(self, size: int) -> int:
        return self.program.room(size)

    def poke(self, address: int, data: bytes) -> None:
        assert self.program.memory.write(address, data), "a scenario pokes where nothing is mapped"

    def peek(self, address: int, size: int) -> bytes:
        octets = self.program.memory.read(address, size)
        assert len(octets) == size, f"nothing is mapped at {address:#x}"
        return octets

    def open_again(self, *, size: int | None = MAPPING_SIZE) -> EngineProc:
        return self.program.open(self.file.device, size=size, nonblocking=False)

    def fork(self, uid: int = 0) -> EngineProc:
        child = Program(self.world, uid or self.program.uid, self.program)
        child.files = list(self.program.files)
        return EngineProc(child, self.file)

    def munmap(self) -> None:
        self.file.arena.unmap()
        self.world.engine.unmapped(self.file.process)
        self.world.drain()

    def close(self) -> None:
        self.program.close_file(self.file)

    def kill(self) -> None:
        self.program.die()
