# SPDX-License-Identifier: Apache-2.0
"""The scenario language: clients of a binder device, moved step by step.

A scenario gets a ``World`` and drives its actors::

    server = world.open("binder").looper()
    call = client.start(bc.call(0, b"hello"))
    assert call.parked
    assert_br(server.read(), BR_NOOP, (BR_TRANSACTION, {"data": b"hello"}))

The same scenario runs against the engine in this process and against real devices with real
processes and threads.  Every step returns when the world is settled: a started ioctl has either
ended or its thread sleeps in it, and nothing else is under way.  So a scenario needs no sleeps,
and ``parked`` is a fact.

Rules: no backend specifics here; where backends differ on purpose, the scenario asks
``world.differs`` and gives the reason.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

from binderwire import binder_abi as abi
from binderwire.describe import describe_returns
from support import bc
from support.transcript import Received, received

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from support.bc import Command

MAPPING_SIZE: Final = 128 << 10  # bytes; small, so that it can be filled
READ_SIZE: Final = 256  # bytes, as libbinder's
SPARE_ADDRESS: Final = 0x10  # never mapped
# Backends that are another in all but where the receiver's pages come from.
_FAMILIES: Final = {"private": "fuse", "bare": "fuse", "lane": "fuse"}

# Guests are processes in a pid and a user namespace of their own, all in the same ones. Their users
# 0 to GUEST_USERS - 1 are GUEST_UID and the following outside; they have no other users.
GUEST_UID: Final = 4000
GUEST_USERS: Final = 100
NO_UID: Final = 0xFFFFFFFF  # a user that a namespace has no number for

# Names the statements of docs/STATEMENTS.md that a test proves.
statements = pytest.mark.statements


class Outcome(NamedTuple):
    """The end of one BINDER_WRITE_READ."""

    proc: Proc
    errno: int
    bwr: Any  # binder_write_read as it came back
    stream: bytes  # the read buffer up to read_consumed

    @property
    def items(self) -> list[Received]:
        return received(self.proc, self.stream)

    @property
    def write_consumed(self) -> int:
        return int(self.bwr.write_consumed)

    @property
    def read_consumed(self) -> int:
        return int(self.bwr.read_consumed)

    def __str__(self) -> str:
        return f"errno {self.errno}, {self.bwr}, read: {describe_returns(self.stream)}"


class FileState(NamedTuple):
    """What a descriptor is like."""

    close_on_exec: bool
    nonblocking: bool  # of the open file, whatever descriptor it is set through


class Pending(ABC):
    """An ioctl or poll that was started."""

    @property
    @abstractmethod
    def parked(self) -> bool:
        """Whether its thread sleeps in it, with nothing under way that would end the sleep."""

    @abstractmethod
    def wait(self) -> tuple[int, bytes]:
        """Return (errno, argument) or (0, revents as 4 bytes); fails if it does not end."""


class Watch(ABC):
    """An epoll set with one file, for input."""

    @abstractmethod
    def start(self, thread: Thread) -> Pending:
        """Let a thread wait until the set has something to report."""


class PendingRead:
    """A BINDER_WRITE_READ that was started."""

    def __init__(self, thread: Thread, pending: Pending) -> None:
        self._thread = thread
        self._pending = pending

    @property
    def parked(self) -> bool:
        return self._pending.parked

    def result(self) -> Outcome:
        errno, argument = self._pending.wait()
        return self._thread.outcome(errno, argument)


class Thread(ABC):
    """A thread of a client process, and one of its open files."""

    def __init__(self, proc: Proc) -> None:
        self.proc = proc

    @property
    @abstractmethod
    def tid(self) -> int: ...

    @property
    @abstractmethod
    def nice(self) -> int:
        """The thread's nice value."""

    @nice.setter
    @abstractmethod
    def nice(self, nice: int) -> None: ...

    @abstractmethod
    def begin_ioctl(self, request: int, argument: bytes | None) -> Pending:
        """What ``start_ioctl`` does on this backend."""

    @abstractmethod
    def start_poll(self) -> Pending:
        """Start a poll for input that waits."""

    @abstractmethod
    def watch(self, *, edges: bool = False) -> Watch:
        """Let the thread make an epoll set and put the file into it.

        Args:
            edges: with EPOLLET.
        """

    @abstractmethod
    def poll(self) -> int:
        """Return what a poll that does not wait reports."""

    @abstractmethod
    def signal(self) -> None:
        """Send the thread a signal whose handler does nothing, without SA_RESTART."""

    @abstractmethod
    def end(self) -> None:
        """Let the thread end without a word to the driver."""

    def start_ioctl(self, request: int, argument: bytes | None) -> Pending:
        """Start any ioctl; None passes a NULL pointer."""
        row = abi.IOCTLS.get(request)
        self.proc.world.seen.add(row.name if row else "unknown ioctl")
        return self.begin_ioctl(request, argument)

    def start_late_ioctl(self, request: int, argument: bytes) -> Pending:
        """Start one whose argument is in untouched memory.  Only where a kernel maps."""
        raise NotImplementedError

    def ioctl(self, request: int, argument: bytes | None) -> tuple[int, bytes]:
        return self.start_ioctl(request, argument).wait()

    def exit(self) -> None:
        """BINDER_THREAD_EXIT; the thread itself goes on."""
        assert self.ioctl(abi.BINDER_THREAD_EXIT, bytes(4))[0] == 0

    def extended_error(self) -> tuple[int, int, int]:
        """BINDER_GET_EXTENDED_ERROR: (id, BR_ code, negative errno); resets it."""
        errno, argument = self.ioctl(abi.BINDER_GET_EXTENDED_ERROR, b"\xa5" * 12)
        assert errno == 0
        number, word, param = abi.binder_extended_error.unpack(argument)
        self.proc.world.seen.add(abi.RETURNS[word].name)
        return number, word, param

    def start_freeze(self, pid: int, *, enable: int = 1, timeout_ms: int = 0) -> Pending:
        """Start a BINDER_FREEZE of the process ``pid``."""
        argument = abi.binder_freeze_info.build(pid=pid, enable=enable, timeout_ms=timeout_ms)
        return self.start_ioctl(abi.BINDER_FREEZE, argument)

    def freeze(self, pid: int, *, timeout_ms: int = 0) -> int:
        """Freeze a process; return the errno."""
        return self.start_freeze(pid, timeout_ms=timeout_ms).wait()[0]

    def thaw(self, pid: int) -> None:
        assert self.start_freeze(pid, enable=0).wait()[0] == 0

    def frozen_info(self, pid: int) -> tuple[int, int]:
        """BINDER_GET_FROZEN_INFO: (sync_recv, async_recv)."""
        argument = abi.binder_frozen_status_info.build(pid=pid, sync_recv=77, async_recv=77)
        errno, argument = self.ioctl(abi.BINDER_GET_FROZEN_INFO, argument)
        info = abi.binder_frozen_status_info.read(argument)
        assert (errno, info.pid) == (0, pid)
        return info.sync_recv, info.async_recv

    def argument(self, commands: Sequence[Command], read: int) -> bytes:
        """Return a binder_write_read with the commands in place and a fresh read buffer."""
        put = self.proc.put
        stream = b"".join(
            command.place(put) if isinstance(command, bc.Parcel) else command
            for command in commands
        )
        self.proc.world.seen |= bc.names(stream)
        return abi.binder_write_read.build(
            write_size=len(stream),
            write_buffer=put(stream) if stream else 0,
            read_size=read,
            read_buffer=self.proc.room(read) if read else 0,
        )

    def outcome(self, errno: int, argument: bytes) -> Outcome:
        bwr = abi.binder_write_read.read(argument)
        stream = b""
        if errno == 0 and 0 < bwr.read_consumed <= bwr.read_size:
            stream = self.proc.peek(bwr.read_buffer, bwr.read_consumed)
        return Outcome(self.proc, errno, bwr, stream)

    def start(self, *commands: Command, read: int = READ_SIZE) -> PendingRead:
        """Start a BINDER_WRITE_READ; returns when it has ended or sleeps."""
        argument = self.argument(commands, read)
        return PendingRead(self, self.start_ioctl(abi.BINDER_WRITE_READ, argument))

    def write_read(self, *commands: Command, read: int = READ_SIZE) -> Outcome:
        """A BINDER_WRITE_READ that ends by itself, well or badly."""
        return self.start(*commands, read=read).result()

    def read(self, size: int = READ_SIZE) -> Outcome:
        """A read that ends by itself."""
        return self.write_read(read=size)

    def write(self, *commands: Command) -> Outcome:
        """A write whose commands are all taken."""
        outcome = self.write_read(*commands, read=0)
        assert outcome.errno == 0, outcome
        assert outcome.write_consumed == outcome.bwr.write_size, outcome
        return outcome


class Proc(ABC):
    """One open file of a device, in a client process."""

    world: World

    @property
    @abstractmethod
    def pid(self) -> int:
        """The process id, as the world outside knows it."""

    @property
    @abstractmethod
    def own_pid(self) -> int:
        """The process id, as the process itself knows it."""

    @property
    @abstractmethod
    def mapping(self) -> tuple[int, int]:
        """Where the file is mapped: (address, bytes)."""

    @abstractmethod
    def thread(self) -> Thread:
        """Return a new thread, which has called nothing yet."""

    @abstractmethod
    def room(self, size: int) -> int:
        """Return the address of ``size`` fresh bytes in the process' own memory."""

    @property
    @abstractmethod
    def heap_end(self) -> int:
        """Where the process' own memory ends; nothing can be read behind it."""

    @abstractmethod
    def poke(self, address: int, data: bytes) -> None:
        """Store into the process' memory."""

    @abstractmethod
    def peek(self, address: int, size: int) -> bytes:
        """Read the process' memory, as the process itself would."""

    @abstractmethod
    def open_again(self, device: str | None = None, *, size: int | None = MAPPING_SIZE) -> Proc:
        """Open the same device, or another, once more in the same process."""

    @abstractmethod
    def new_file(self, kind: str = "null", *, nonblocking: bool = False) -> int:
        """Open a file; return its descriptor, the lowest that is free.

        Args:
            kind: null, path (that is O_PATH), regular, pipe, socket, memory, uring (an io_uring)
                or device (the very file that the process talks binder through).
        """

    @abstractmethod
    def file_state(self, fd: int) -> FileState | None:
        """Return what a descriptor is like, None if it is not open."""

    @abstractmethod
    def has_same_file(self, fd: int, other: Proc, other_fd: int) -> bool:
        """Whether two descriptors stand for the same open file (description)."""

    @abstractmethod
    def descriptors(self) -> set[int]:
        """Return all that are open."""

    @abstractmethod
    def close_file(self, fd: int) -> None:
        """Close what ``new_file`` returned."""

    @abstractmethod
    def run_out_of_files(self) -> None:
        """See to it that the process can have no further descriptor."""

    @abstractmethod
    def become(self, uid: int) -> None:
        """Change the user of the process' first thread, which stands for the process."""

    @abstractmethod
    def security_context(self) -> bytes | None:
        """Return the process' security context, None where the system gives it none."""

    @abstractmethod
    def fork(self, uid: int = 0) -> Proc:
        """Fork; the child's end of the same open file.  It may become another user."""

    @abstractmethod
    def exec(self) -> None:
        """Run another program, which inherits the open file and nothing else; its threads end."""

    @abstractmethod
    def munmap(self) -> None:
        """Unmap the receive area."""

    @abstractmethod
    def close(self) -> None:
        """Close the descriptor; the process lives on."""

    @abstractmethod
    def kill(self) -> None:
        """Kill the whole process; returns when the driver is done with it."""

    def try_mmap(
        self, size: int = MAPPING_SIZE, *, writable: bool = False, shared: bool = False
    ) -> int:
        """Map the file once more; return the errno.  Only where a kernel maps."""
        raise NotImplementedError

    def unusual_memory(self, kind: str, data: bytes) -> int:
        """Return the address of memory with ``data`` in it.  Only where a kernel maps.

        Args:
            kind: secret (memfd_secret), execute (PROT_EXEC alone), untouched (in no page table
                before its first use) or kernel (a page that the kernel maps by itself; ``data`` is
                not in it).

        Raises:
            OSError: this machine has no such memory.
        """
        raise NotImplementedError

    def set_nonblocking(self) -> None:
        """Set O_NONBLOCK on the open file.  Only where a kernel keeps the flag."""
        raise NotImplementedError

    def put(self, data: bytes) -> int:
        """Store ``data`` somewhere in the process' own memory."""
        address = self.room(len(data))
        self.poke(address, data)
        return address

    def seasoned(self) -> Thread:
        """Return a thread that is past its first ioctl, so that its reads may sleep (R6)."""
        thread = self.thread()
        errno, _ = thread.ioctl(abi.BINDER_VERSION, bytes(4))
        assert errno == 0
        return thread

    def looper(self) -> Thread:
        """Return a thread that has entered the loop and is ready to serve."""
        thread = self.thread()
        thread.write(bc.enter_looper())
        return thread

    def become_manager(self) -> None:
        """Let a thread of the process make it the context manager."""
        errno, _ = self.seasoned().ioctl(abi.BINDER_SET_CONTEXT_MGR, bytes(4))
        assert errno == 0

    def set_max_threads(self, count: int) -> None:
        argument = abi.u32_value.build(value=count)
        assert self.seasoned().ioctl(abi.BINDER_SET_MAX_THREADS, argument)[0] == 0


class World(ABC):
    """A backend, with no clients yet."""

    name: str
    is_kernel: bool  # the real driver

    def __init__(self) -> None:
        self.seen: set[str] = set()  # names of ioctls, BC_ and BR_ that the scenario has used
        self.excuses: list[str] = []  # why the scenario was not played, or not as elsewhere

    @abstractmethod
    def open(
        self,
        device: str = "binder",
        *,
        size: int | None = MAPPING_SIZE,
        nonblocking: bool = False,
        uid: int = 0,
        shared: bool = False,
        nice: int = 0,
        nice_limit: int = 0,
        guest: bool = False,
        context: bytes | None = None,
    ) -> Proc:
        """Start a process that opens ``device`` and maps ``size`` bytes (None: maps nothing).

        Args:
            uid: the user that it runs as; of a guest, as the guest knows it.
            shared: maps it MAP_SHARED, not MAP_PRIVATE.
            nice: its nice value, and that of its threads at first.
            nice_limit: its RLIMIT_NICE; 0: that of the tests.
            guest: it is in namespaces of its own.
            context: its security context, where the backend can choose; else the system does.

        Raises:
            PermissionError: it cannot have that ``nice_limit`` here.
        """

    def control(self, request: int, argument: bytes) -> tuple[int, bytes] | None:
        """Call ioctl on the file that devices are made with; None where there is none."""
        return None

    @abstractmethod
    def assert_empty(self) -> None:
        """Fail if the driver still keeps anything after all clients have gone, where it tells."""

    @abstractmethod
    def close(self) -> None:
        """End every client."""

    def eventually(self, check: Callable[[], bool]) -> None:
        """Repeat ``check`` until it holds; for what a backend notices with a delay."""
        assert check()

    def differs(self, *backends: str, reason: str) -> bool:
        """Whether this backend behaves differently here, on purpose; says so in the output.

        Args:
            backends: which do; "fuse" stands for all that are behind FUSE.
        """
        if self.name in backends or _FAMILIES.get(self.name) in backends:
            self.excuse(f"differs: {reason}")
            return True
        return False

    def excuse(self, reason: str) -> None:
        """Say why the scenario cannot be played here."""
        print(f"{self.name}: {reason}")
        self.excuses.append(reason)
