# SPDX-License-Identifier: Apache-2.0
"""The engine in this process as a backend: fake processes, fake memory, no kernel.

What a kernel would do around the engine is spelled out here: who holds which open file, which
requests a dying process interrupts, when the last close releases.
"""

from __future__ import annotations

import itertools
from errno import EINTR
from typing import TYPE_CHECKING, Any

from binderd.engine.engine import Engine
from binderd.engine.ports import SENT, STOPPING
from binderwire.ioc import ioc_size
from support.engine_install import Install
from support.engine_watch import EnginePoll, EngineWatch
from support.fakes import Description, FakeArena, FakeClient, FakeFile, FakeMemory, FakeThread
from support.invariants import check
from support.playbook import (
    GUEST_UID,
    MAPPING_SIZE,
    FileState,
    Pending,
    Proc,
    Thread,
    World,
)

if TYPE_CHECKING:
    from binderd.engine.completion import Completion
    from binderd.engine.limits import Limits
    from binderd.engine.ports import Room
    from binderd.engine.process import Process
    from support.playbook import Watch

HEAP_ADDRESS = 0x5000_0000_0000
MAPPING_ADDRESS = 0x7000_0000_0000
SPACING = 1 << 32  # between the address ranges of two processes: a mix-up must not go unseen
TICKET_FIRST = 1000


class EngineWorld(World):
    """An engine and its clients.

    Args:
        limits: of the engine; None: the usual ones.
    """

    name = "engine"
    is_kernel = False
    heap_size = 16 << 20  # bytes a process; taken from the machine only where it is touched

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__()
        self.engine = Engine(limits)
        self.timers: dict[int, int] = {}  # those that run, and their milliseconds
        self.guests = 0
        self.programs: list[Program] = []
        self.files: list[OpenFile] = []
        self.requests: dict[int, EnginePending] = {}  # open ones, by ticket
        self.pollers: list[EnginePoll | EngineWatch] = []
        self.installs: list[Install] = []  # begun
        self.is_held = False  # are they to wait?
        self.lets_pause = False  # is whatever has paused to stay so?
        self.pauses = 0  # that there were so far
        self.fetching: dict[int, Any] = {}  # see ``fetching.py``
        self._tids_seen: dict[Process, set[int]] = {}
        self._lost_threads: set[Process] = set()
        self._numbers = itertools.count(TICKET_FIRST)

    def pause_unnoticed(self) -> None:
        """Have the engine pause wherever nobody was woken, so that no client can tell."""
        hub, roster = self.engine._hub, self.engine._roster
        hub.pace = lambda: not (roster.runnable or hub.drained or roster.poll_wakes)

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
        nice: int = 0,
        nice_limit: int = 0,
        guest: bool = False,
        context: bytes | None = None,
    ) -> EngineProc:
        assert not nice_limit, "who may change a nice value is not the engine's business"
        program = Program(self, uid, nice=nice, guest=guest)
        program.context = context
        return program.open(device, size=size, nonblocking=nonblocking)

    def drain(self) -> None:
        """Hand out what the last engine call produced, as a transport does."""
        self.hand_out()
        self.check()
        while self.engine.paused and not self.lets_pause:
            self.go_on()
        while self.installs and not self.is_held:
            self.installs.pop(0).carry_out()
            self.hand_out()
            self.check()

    def go_on(self, ticket: int = 0) -> None:
        """Go on with something that is paused, of itself what has waited longest."""
        self.pauses += 1
        self.engine.go_on(ticket or next(iter(self.engine.paused)))
        self.hand_out()
        self.check()

    def hand_out(self) -> None:
        completions, self.engine.outbox[:] = list(self.engine.outbox), []
        for completion in completions:
            self.requests.pop(completion.ticket).end(completion)
        for number, milliseconds in self.engine.timers:
            if milliseconds < 0:
                del self.timers[number]
            else:
                self.timers[number] = milliseconds
        self.engine.timers.clear()
        self.engine.released.clear()
        wakes, self.engine.poll_wakes[:] = list(self.engine.poll_wakes), []
        for process in wakes:
            for poller in [p for p in self.pollers if p.process is process and not process.is_dead]:
                poller.look()

    def hired(self, thread: EngineThread) -> None:
        """A thread has started."""

    def end_fetch(self, ticket: int) -> None:
        """Somebody has done what a request waits for."""

    def let_time_pass(self) -> None:
        """Let the timer that is due first run out."""
        number = min(self.timers, key=lambda timer: (self.timers[timer], timer))
        del self.timers[number]
        self.engine.expire(number)
        self.drain()

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
        assert not self.timers
        taken = [file for program in self.programs for file in program.memory.taken]
        assert all(file.times_closed == 1 for file in taken), "a file was lost, or closed twice"

    def close(self) -> None:
        for program in self.programs:
            program.die()
        while self.engine.paused:
            self.go_on()


class Program:
    """A process: an address space, descriptors, threads."""

    def __init__(
        self,
        world: EngineWorld,
        uid: int,
        parent: Program | None = None,
        *,
        nice: int = 0,
        guest: bool = False,
    ) -> None:
        self.world = world
        self.pid = self.own_pid = world.next_number()
        self.is_guest = guest
        if guest:
            world.guests += 1
            self.own_pid = world.guests
            uid += GUEST_UID
        self.uid = uid
        self.nice = nice
        self.context: bytes | None = None  # security context
        self.files: list[OpenFile] = []
        self.tids: dict[int, OpenFile] = {}  # threads, and the file each works with
        self.fakes: dict[int, FakeThread] = {}  # threads as the engine gets to see them
        self.alive = True
        if parent is None:
            self.memory = FakeMemory()
            self._heap = HEAP_ADDRESS + self.pid * SPACING
            self.memory.map(self._heap, bytearray(world.heap_size), writable=True)
            self.heap_end = self._heap + world.heap_size
        else:
            self.memory = parent.memory.fork()
            self._heap, self.heap_end = parent._heap, parent.heap_end
        world.programs.append(self)

    def open(self, device: str, *, size: int | None, nonblocking: bool) -> EngineProc:
        file = OpenFile(self, device, nonblocking=nonblocking)
        if size is not None:
            file.arena.map(size)
        return EngineProc(self, file)

    def room(self, size: int) -> int:
        address = self._heap
        self._heap += (size + 7) & ~7
        assert self._heap <= self.heap_end, "the heap is full"
        return address

    def close_file(self, file: OpenFile) -> None:
        self.files.remove(file)
        self.world.engine.flush(file.process)
        self.world.drain()
        file.maybe_release()

    def interrupt(self) -> None:
        """Wait for the end of all requests, which a fatal signal interrupts."""
        for ticket in [t for t, r in self.world.requests.items() if r.program is self]:
            self.world.engine.interrupt(ticket)
            self.world.drain()
            while ticket in self.world.engine.paused or ticket in self.world.fetching:
                if ticket in self.world.fetching:
                    self.world.end_fetch(ticket)
                else:
                    self.world.go_on()

    def die(self) -> None:
        if not self.alive:
            return
        self.alive = False
        self.interrupt()
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
        self.opener = program
        self.device = device
        self.released = False
        self.calling: dict[int, Program] = {}  # threads with an open request, and whose they are
        self.arena = FakeArena(program.memory, MAPPING_ADDRESS + self.world.next_number() * SPACING)
        client = FakeClient(program, self.arena, self._thread, self._install)
        engine = self.world.engine
        self.process: Process = engine.open(device, program.pid, client, nonblocking=nonblocking)
        program.files.append(self)
        self.world.files.append(self)

    def _thread(self, tid: int) -> FakeThread:
        """Return the fake of a thread whose request is open right now."""
        return self.calling[tid].fakes[tid]

    def _install(
        self, tid: int, number: int, files: list[FakeFile], closes: list[int], room: Room
    ) -> int:
        install = Install(self, self.calling[tid], tid, number, files, closes, room)
        self.world.installs.append(install)
        return SENT if install.by_client else STOPPING

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
        self.ticket = ticket
        self.interim = 0  # if it ends with this, it is to be issued again
        self.payload = b""
        self._completion: Completion | None = None

    def end(self, completion: Completion) -> None:
        if self.interim and completion.result == self.interim:
            self.interim, self.payload = 0, completion.payload
            self._file.world.requests[self.ticket] = self
            del self._file.calling[self._tid]  # until it asks again
            return
        self.interim = 0
        self._completion = completion
        del self._file.calling[self._tid]
        self._file.maybe_release()

    @property
    def parked(self) -> bool:
        return self._completion is None

    def wait(self) -> tuple[int, bytes]:
        world = self.program.world
        while self._completion is None and (world.engine.paused or world.fetching):
            if world.fetching:
                world.end_fetch(next(iter(world.fetching)))
            else:
                world.go_on()
        while self._completion is None and world.timers:
            world.let_time_pass()
        assert self._completion is not None, "the ioctl sleeps"
        return -self._completion.result, self._completion.payload


class EngineThread(Thread):
    """A thread id and the file it works with."""

    proc: EngineProc

    def __init__(self, proc: EngineProc) -> None:
        super().__init__(proc)
        self.program = proc.program
        self.file = proc.file
        self._tid = proc.world.next_number()
        self.program.tids[self._tid] = self.file
        program = proc.program
        area = self.file.arena if program is self.file.opener else None
        self._fake = FakeThread(program.memory, program.pid, program.nice, area)
        program.fakes[self._tid] = self._fake
        proc.world.hired(self)

    @property
    def tid(self) -> int:
        return self._tid

    @property
    def nice(self) -> int:
        return self._fake.nice()

    @nice.setter
    def nice(self, nice: int) -> None:
        self._fake.set_nice(nice)

    def begin_ioctl(self, request: int, argument: bytes | None) -> Pending:
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

    def watch(self, *, edges: bool = False) -> Watch:
        return EngineWatch(self, edges=edges)

    def signal(self) -> None:
        world = self.proc.world
        for ticket, request in list(world.requests.items()):
            if request._tid == self.tid and request.program is self.program:
                engine = world.engine
                sleeps = ticket not in engine.paused and ticket not in engine.fetching
                world.engine.interrupt(ticket)
                world.drain()
                assert not sleeps or request.wait()[0] == EINTR

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
    def own_pid(self) -> int:
        return self.program.own_pid

    @property
    def mapping(self) -> tuple[int, int]:
        mapping = self.file.arena.locate()
        assert mapping is not None
        return mapping

    def thread(self) -> EngineThread:
        return EngineThread(self)

    def room(self, size: int) -> int:
        return self.program.room(size)

    @property
    def heap_end(self) -> int:
        return self.program.heap_end

    def poke(self, address: int, data: bytes) -> None:
        assert self.program.memory.write(address, data), "a scenario pokes where nothing is mapped"

    def peek(self, address: int, size: int) -> bytes:
        octets = self.program.memory.read(address, size)
        assert len(octets) == size, f"nothing is mapped at {address:#x}"
        return octets

    def open_again(
        self, device: str | None = None, *, size: int | None = MAPPING_SIZE
    ) -> EngineProc:
        return self.program.open(device or self.file.device, size=size, nonblocking=False)

    def new_file(self, kind: str = "null", *, nonblocking: bool = False) -> int:
        description = Description(usable=kind != "path", nonblocking=nonblocking)
        return self.program.memory.open_file(description)

    def file_state(self, fd: int) -> FileState | None:
        memory = self.program.memory
        description = memory.descriptors.get(fd)
        if description is None:
            return None
        return FileState(fd in memory.close_on_exec, description.nonblocking)

    def has_same_file(self, fd: int, other: Proc, other_fd: int) -> bool:
        assert isinstance(other, EngineProc)
        theirs = other.program.memory.descriptors.get(other_fd)
        return self.program.memory.descriptors.get(fd) is theirs is not None

    def descriptors(self) -> set[int]:
        return set(self.program.memory.descriptors)

    def close_file(self, fd: int) -> None:
        self.program.memory.close_file(fd)

    def run_out_of_files(self) -> None:
        self.program.memory.run_out()

    def become(self, uid: int) -> None:
        self.program.uid = uid

    def security_context(self) -> bytes | None:
        return self.program.context

    def fork(self, uid: int = 0) -> EngineProc:
        child = Program(self.world, uid or self.program.uid, self.program)
        child.files = list(self.program.files)
        return EngineProc(child, self.file)

    def exec(self) -> None:
        program = self.program
        program.interrupt()
        for file in list(program.files):
            if file.opener is program:
                file.arena.lose()
            if file is not self.file:
                program.close_file(file)
        for tid, file in program.tids.items():
            if not file.released:
                self.world.engine.thread_gone(file.process, tid)
                self.world.drain()
        program.tids.clear()

    def munmap(self) -> None:
        self.file.arena.unmap()
        self.world.engine.unmapped(self.file.process)
        self.world.drain()

    def close(self) -> None:
        self.program.close_file(self.file)

    def kill(self) -> None:
        self.program.die()
