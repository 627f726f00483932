# SPDX-License-Identifier: Apache-2.0
"""Plays scripts on the engine, and writes down what the real driver's player must do and report.

A step that is not possible any more (other steps were left out of the script) is passed over.
"""

from __future__ import annotations

from errno import EFAULT
from typing import TYPE_CHECKING, Any, Final

from binderd.engine.buffers import Buffer, BufferArea, RangeAllocator
from binderd.engine.engine import Engine
from binderd.engine.kinds import AREAS
from binderd.engine.limits import Limits
from binderd.engine.ports import STOPPING
from binderd.engine.thread import POLL
from binderd.engine.transaction import Transaction
from binderwire import binder_abi as abi
from oracle import program, script
from oracle.installs import Install
from oracle.program import Ended
from oracle.script import Close, Ioctl, Kill, Open, Poll, Renice, Signal, Unmap, WriteRead
from support.fakes import Description, FakeArena, FakeClient, FakeMemory, FakeThread
from support.invariants import check

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.engine.completion import Completion
    from binderd.engine.process import Process
    from oracle.program import Result
    from oracle.script import Step
    from support.fakes import FakeFile

TID_FIRST: Final = 30000
_NICE_MAX: Final = 19
_PATTERN: Final = 0xEE
_PAYLOADS: Final = (abi.BR_TRANSACTION, abi.BR_REPLY, abi.BR_TRANSACTION_SEC_CTX)
_ACKNOWLEDGED: Final = {  # the command that acknowledges it, and how many bytes of it
    abi.BR_INCREFS: (abi.BC_INCREFS_DONE, 16),
    abi.BR_ACQUIRE: (abi.BC_ACQUIRE_DONE, 16),
    abi.BR_DEAD_BINDER: (abi.BC_DEAD_BINDER_DONE, 8),
    abi.BR_FROZEN_BINDER: (abi.BC_FREEZE_NOTIFICATION_DONE, 8),
}
_POINTER: Final = abi.BINDER_TYPE_PTR.to_bytes(4, "little")
_unpack_write_read: Final = abi.binder_write_read.unpack_from


class ActorThread(FakeThread):
    """A thread whose nice value takes what a kernel takes."""

    def set_nice(self, nice: int) -> None:
        if nice <= _NICE_MAX:
            super().set_nice(nice)


class Actor:
    """A process."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid = self.own_pid = script.FIRST_PID + number
        self.uid = self.nice = 0
        self.is_guest = False
        self.context: bytes | None = None
        self.alive = True
        self.memory = FakeMemory()
        self.heap = bytearray(script.HEAP_SIZE)
        self.memory.map(script.heap(number), self.heap, writable=True)
        self.fakes = [ActorThread(self.memory, self.pid, 0, None) for _ in range(script.THREADS)]


class Ranges(RangeAllocator):
    """Free ranges; tells when several are equally small, and it is open which the driver takes.

    The driver keeps them in a tree whose shape decides.  No client can rely on an address.
    """

    __slots__ = ("_give_up",)

    def __init__(self, capacity: int, give_up: Callable[[str], None]) -> None:
        super().__init__(capacity)
        self._give_up = give_up

    def allocate(self, size: int) -> int | None:
        sizes = sorted(free for _, free in self.free_ranges() if free >= size)
        if sizes[:1] == sizes[1:2] != []:
            self._give_up("several free ranges are equally small")
        return super().allocate(size)


class File:
    """An open file, and what its process has learned through it."""

    def __init__(self, player: Player, step: Open) -> None:
        self.number = step.file
        self.owner = player.actors[step.process]
        self.fd = self.owner.memory.open_file(Description())
        self.is_open = True
        self.is_mapped = bool(step.size)
        self.released = False
        self.calls: dict[int, Call] = {}  # by thread
        self.tid = 0  # of the thread that is calling right now
        arena = FakeArena(self.owner.memory, script.mapping(step.file))
        if step.size:
            arena.map(step.size)
        self.arena = arena
        fakes = self.owner.fakes
        for fake in fakes:
            fake.area = arena  # all of a process' areas last as long as it
        client = FakeClient(
            self.owner,  # type: ignore[arg-type]
            arena,
            lambda tid: fakes[tid % script.THREADS],
            lambda tid, number, files, closes, _: player.install(tid, number, files, closes),
        )
        self.process: Process = player.engine.open(
            f"binder{step.device}", self.owner.pid, client, nonblocking=step.nonblocking
        )
        mapping = arena.locate()
        if mapping is not None:
            self.process.mapping = mapping
            area = self.process._area = BufferArea(mapping, Limits().buffers_per_process)
            area._ranges = Ranges(mapping.size, player.give_up)
            self.process.user.of(AREAS).add(mapping.size)
        self.buffers: list[int] = []
        self.news: list[bytes] = []  # commands that acknowledge what was read


class Call:
    """An ioctl under way."""

    def __init__(
        self, thread: int, ticket: int, file: File, request: int, argument: bytes | None
    ) -> None:
        self.thread = thread
        self.ticket = ticket
        self.file = file
        self.request = request
        self.argument = argument or b""
        self.has_no_pointer = argument is None


class Player:
    """An engine and its clients.

    Attributes:
        operations: what the other player must do.
        expected: and what it should report.
        ended_early: why the script cannot be compared any further, if it cannot.
    """

    def __init__(self, *, checking: bool = False) -> None:
        self.engine = Engine()
        self.actors = [Actor(number) for number in range(script.PROCESSES)]
        self.files: dict[int, File] = {}
        self.calls: dict[int, Call] = {}  # by ticket
        self.busy: dict[int, int] = {}  # ticket by thread
        self.operations: list[bytes] = []
        self.expected: list[Result] = []
        self.ended_early: str | None = None
        self._gives_up: str | None = None  # because of the present step
        # A buffer that is zeroed if the latest command frees it (B6).
        self._cleared: tuple[File, Buffer] | None = None
        self._installs: list[Install] = []
        self._ended: list[tuple[Ended, File | None]] = []  # since the latest report
        self._last_ticket = 0
        self._checking = checking
        self._seen: dict[Process, int] = {}
        self._play: dict[type[Step], Callable[..., bool]] = {
            Open: self._open,
            Close: self._close,
            Unmap: self._unmap,
            Kill: self._kill,
            Signal: self._signal,
            Renice: self._renice,
            Poll: self._poll,
            Ioctl: self._ioctl,
            WriteRead: self._write_read,
        }

    def play(self, step: Step) -> bool:
        """Play a step; False if it was passed over."""
        before = len(self.operations), len(self.expected)
        if self.ended_early is not None or not self._play[type(step)](step):
            return False
        self._report()
        if self._gives_up is not None:
            self.ended_early = self._gives_up
            del self.operations[before[0] :], self.expected[before[1] :]
            return False
        if self._checking:
            self._check()
        return True

    def finish(self) -> None:
        """End everything; nothing may be left."""
        for actor in self.actors:
            self._end(actor)
        assert not any(self.engine.counts().values()), self.engine.counts()
        assert not self.calls
        taken = [file for actor in self.actors for file in actor.memory.taken]
        assert all(file.times_closed == 1 for file in taken), "a file was lost, or closed twice"

    def give_up(self, reason: str) -> None:
        """From the present step on, results cannot be compared."""
        self._gives_up = reason

    # Steps

    def _open(self, step: Open) -> bool:
        actor = self.actors[step.process]
        if not actor.alive or step.file in self.files:
            return False
        self.files[step.file] = File(self, step)
        self.operations.append(
            program.open_file(
                step.process, step.file, step.device, step.size, nonblocking=step.nonblocking
            )
        )
        self.expected.append(0)
        return True

    def _close(self, step: Close) -> bool:
        file = self.files.get(step.file)
        if file is None or not file.is_open:
            return False
        self.operations.append(program.plain(program.CLOSE, step.file))
        self._close_file(file)
        return True

    def _unmap(self, step: Unmap) -> bool:
        file = self.files.get(step.file)
        if file is None or not file.is_mapped:
            return False
        self.operations.append(program.plain(program.UNMAP, step.file))
        self._unmap_file(file)
        return True

    def _kill(self, step: Kill) -> bool:
        actor = self.actors[step.process]
        if not actor.alive:
            return False
        self.operations.append(program.plain(program.KILL, step.process))
        self._end(actor)
        self._ended = [
            (each, file)
            for each, file in self._ended
            if script.process_of(each.thread) != step.process
        ]
        return True

    def _signal(self, step: Signal) -> bool:
        if not self.actors[script.process_of(step.thread)].alive:
            return False
        self.operations.append(program.plain(program.SIGNAL, step.thread))
        ticket = self.busy.get(step.thread)
        if ticket is not None:
            self.engine.interrupt(ticket)
            self._drain()
        return True

    def _renice(self, step: Renice) -> bool:
        actor = self.actors[script.process_of(step.thread)]
        if not actor.alive or step.thread in self.busy:
            return False
        self.operations.append(program.renice(step.thread, step.nice))
        actor.fakes[step.thread % script.THREADS].set_nice(step.nice)
        return True

    def usable(self, thread: int, number: int) -> File | None:
        """Return the file if the thread can call something on it."""
        file = self.files.get(number)
        if file is None or not file.is_open or thread in self.busy:
            return None
        return file if file.owner.number == script.process_of(thread) else None

    def _poll(self, step: Poll) -> bool:
        file = self.usable(step.thread, step.file)
        if file is None:
            return False
        self.operations.append(program.poll(step.thread, step.file))
        revents = self.engine.poll(file.process, self.tid(step.thread), wake=False)
        self._drain()
        octets = revents.to_bytes(4, "little")
        ended = Ended(step.thread, 0, self._nice(step.thread), octets, b"")
        self._ended.append((ended, None))
        return True

    def _ioctl(self, step: Ioctl) -> bool:
        file = self.usable(step.thread, step.file)
        if file is None:
            return False
        thread = file.process.threads.get(self.tid(step.thread))
        lost = thread is not None and any(isinstance(work, Transaction) for work in thread.todo)
        self.operations.append(program.ioctl(step.thread, step.file, step.request, step.argument))
        self._call(step.thread, file, step.request, step.argument)
        if lost and step.request == abi.BINDER_THREAD_EXIT:
            self.give_up("the driver keeps the buffer of a call that its thread never read")
        return True

    def _write_read(self, step: WriteRead) -> bool:
        file = self.usable(step.thread, step.file)
        if file is None:
            return False
        stream = bytes(step.skip)
        for command in step.commands:
            for address, octets in command.fills:
                self._fill(file.owner, address, octets)
            stream += self._resolved(file, command)
        write_address = script.area(step.thread) if step.at is None else step.at
        if step.at is None and stream:
            self._fill(file.owner, write_address, stream)
        read_address = script.reads(step.thread) if step.into is None else step.into
        if step.read_size and step.into is None:
            size = min(step.read_size, script.STREAM_MAX)
            self._fill(file.owner, read_address, bytes([_PATTERN]) * size)
        argument = abi.binder_write_read.pack(
            max(0, len(stream) + step.more),
            step.skip,
            write_address,
            step.read_size,
            step.read_consumed,
            read_address,
        )
        request = abi.BINDER_WRITE_READ
        self.operations.append(
            program.ioctl(step.thread, step.file, request, argument, program.READS)
        )
        self._call(step.thread, file, request, argument)
        return True

    def _resolved(self, file: File, command: script.Command) -> bytes:
        self._cleared = None
        if command.free is None or not file.buffers:
            return command.octets
        address = file.buffers[command.free % len(file.buffers)]
        buffer = file.process.delivered_buffer(address)
        self._cleared = (file, buffer) if buffer is not None and buffer.clear else None
        return command.octets[:4] + address.to_bytes(8, "little")

    # What a kernel does around the driver

    def _fill(self, actor: Actor, address: int, octets: bytes) -> None:
        start = address - script.heap(actor.number)
        assert 0 <= start <= len(actor.heap) - len(octets)
        actor.heap[start : start + len(octets)] = octets
        self.operations.append(program.fill(address, octets))

    def tid(self, thread: int) -> int:
        return TID_FIRST + thread

    def _nice(self, thread: int) -> int:
        return self.actors[script.process_of(thread)].fakes[thread % script.THREADS].nice()

    def _call(self, thread: int, file: File, request: int, argument: bytes | None) -> None:
        self._last_ticket += 1
        ticket = self._last_ticket
        call = Call(thread, ticket, file, request, argument)
        self.calls[ticket] = file.calls[thread] = call
        self.busy[thread] = ticket
        self.engine.ioctl(file.process, self.tid(thread), 0, request, argument or b"", ticket)
        self._drain()

    def install(self, tid: int, number: int, files: list[FakeFile], closes: list[int]) -> int:
        """Begin to install files; goes on when the engine's call is through."""
        call = self.calls[self.busy[tid % TID_FIRST]]
        if files and self.engine._roster.runnable:
            self.give_up("who was woken looks for work while descriptors are being installed")
        self._installs.append(Install(call, number, files, closes))
        return STOPPING

    def _drain(self) -> None:
        while self._installs:
            self._installs.pop(0).carry_out(self)
        completions, self.engine.outbox[:] = list(self.engine.outbox), []
        assert not self.engine.timers, "no freeze of a script waits"
        self.engine.poll_wakes.clear()
        for completion in completions:
            self._complete(completion)

    def _complete(self, completion: Completion) -> None:
        call = self.calls.pop(completion.ticket)
        del self.busy[call.thread], call.file.calls[call.thread]
        payload = completion.payload
        argument = program.normal(call.request, payload + call.argument[len(payload) :])
        stream = b""
        if call.request == abi.BINDER_WRITE_READ:
            *_, consumed, address = _unpack_write_read(argument)
            if consumed <= script.STREAM_MAX:
                start = address - script.heap(call.file.owner.number)
                if 0 <= start <= script.HEAP_SIZE - consumed:
                    stream = call.file.owner.memory.read(address, consumed)
        errno, nice = -completion.result, self._nice(call.thread)
        if call.has_no_pointer and payload:
            errno, argument = EFAULT, b""  # what comes back has no place to go
        self._ended.append((Ended(call.thread, errno, nice, argument, stream), call.file))
        self._maybe_release(call.file)

    def _close_file(self, file: File) -> None:
        file.is_open = False
        file.owner.memory.close_file(file.fd)
        self.engine.flush(file.process)
        self._drain()
        self._maybe_release(file)

    def _unmap_file(self, file: File) -> None:
        file.is_mapped = False
        file.arena.unmap()
        self.engine.unmapped(file.process)
        self._drain()
        self._maybe_release(file)

    def _maybe_release(self, file: File) -> None:
        """A descriptor, a mapping and a call under way each hold the file."""
        if not (file.is_open or file.is_mapped or file.calls or file.released):
            file.released = True
            if self._releases_slowly(file):
                self.give_up("threads are let go while their process is still being released")
            self.engine.release(file.process)
            self._drain()

    def _releases_slowly(self, file: File) -> bool:
        """Whether others run in the middle of the release.

        The driver waits a moment for each thread that has used poll. Whoever it has let go by then
        sees the references of the process still in place.
        """
        threads = [thread for _, thread in sorted(file.process.threads.items())]
        polled = [index for index, thread in enumerate(threads) if thread.looper & POLL]
        return any(thread.stack or thread.todo for thread in threads[: max(polled, default=0)])

    def _end(self, actor: Actor) -> None:
        if not actor.alive:
            return
        actor.alive = False
        for thread, ticket in list(self.busy.items()):
            if script.process_of(thread) == actor.number:
                self.engine.interrupt(ticket)
                self._drain()
        for file in self.files.values():
            if file.owner is actor:
                if file.is_mapped:
                    self._unmap_file(file)
                if file.is_open:
                    self._close_file(file)

    # What is reported

    def _report(self) -> None:
        """Write down who has come back, and have the delivered payloads looked at."""
        if self.operations[-1][0] == program.OPEN:
            return
        ended, self._ended = sorted(self._ended, key=lambda each: each[0].thread), []
        self.expected.append(tuple(each for each, _ in ended))
        for each, file in ended:
            if file is not None and each.errno == 0:
                self._learn(each, file)
        if self._cleared is not None:
            file, buffer = self._cleared
            self._cleared = None
            is_freed = file.process.delivered_buffer(buffer.address) is not buffer
            if file.is_mapped and is_freed:
                self._peek(file, buffer.address, buffer.size)

    def _learn(self, ended: Ended, file: File) -> None:
        """Take in what a client has read."""
        for word, position in words(ended.stream):
            if word in _PAYLOADS:
                fields = abi.binder_transaction_data.read(ended.stream, position)
                file.buffers.append(fields.buffer)
                if file.is_mapped:
                    self._look_at(file, fields)
            elif word in _ACKNOWLEDGED:
                done, size = _ACKNOWLEDGED[word]
                file.news.append(done.to_bytes(4, "little") + ended.stream[position:][:size])

    def _look_at(self, file: File, fields: Any) -> None:  # noqa: ANN401
        """Compare the delivered data, its offsets and the pieces that its pointers point to."""
        read = file.owner.memory.read
        self._peek(file, fields.buffer, fields.data_size)
        self._peek(file, fields.offsets, fields.offsets_size)
        data = read(fields.buffer, fields.data_size)
        for start in range(0, fields.offsets_size, 8):
            offset = int.from_bytes(read(fields.offsets + start, 8), "little")
            if data[offset : offset + 4] == _POINTER:
                piece = abi.binder_buffer_object.read(data, offset)
                self._peek(file, piece.buffer, piece.length)

    def _peek(self, file: File, address: int, size: int) -> None:
        if size:
            self.operations.append(program.peek(file.owner.number, address, size))
            self.expected.append(file.owner.memory.read(address, size))

    def _check(self) -> None:
        alive = [file.process for file in self.files.values() if not file.released]
        for process in alive:
            self._seen[process] = max(self._seen.get(process, 0), len(process.threads))
        lost = {process for process in alive if self._seen[process] > len(process.threads)}
        check(self.engine, alive, lost_threads=lost)


def words(stream: bytes) -> list[tuple[int, int]]:
    """Return the BR_ words of a stream and where their payloads begin."""
    found, position = [], 0
    while position + 4 <= len(stream):
        word = int.from_bytes(stream[position : position + 4], "little")
        found.append((word, position + 4))
        position += 4 + (word >> 16 & 0x3FFF)
    return found
