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

# Names the statements of the behaviour reference that a test proves.
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


class Pending(ABC):
    """An ioctl or poll that was started."""

    @property
    @abstractmethod
    def parked(self) -> bool:
        """Whether its thread sleeps in it, with nothing under way that would end the sleep."""

    @abstractmethod
    def wait(self) -> tuple[int, bytes]:
        """Return (errno, argument) or (0, revents as 4 bytes); fails if it does not end."""


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

    @abstractmethod
    def start_ioctl(self, request: int, argument: bytes | None) -> Pending:
        """Start any ioctl; None passes a NULL pointer."""

    @abstractmethod
    def start_poll(self) -> Pending:
        """Start a poll for input that waits."""

    @abstractmethod
    def poll(self) -> int:
        """Return what a poll that does not wait reports."""

    @abstractmethod
    def signal(self) -> None:
        """Send the thread a signal whose handler does nothing, without SA_RESTART."""

    @abstractmethod
    def end(self) -> None:
        """Let the thread end without a word to the driver."""

    def ioctl(self, request: int, argument: bytes | None) -> tuple[int, bytes]:
        return self.start_ioctl(request, argument).wait()

    def exit(self) -> None:
        """BINDER_THREAD_EXIT; the thread itself goes on."""
        assert self.ioctl(abi.BINDER_THREAD_EXIT, bytes(4))[0] == 0

    def argument(self, commands: Sequence[Command], read: int) -> bytes:
        """Return a binder_write_read with the commands in place and a fresh read buffer."""
        put = self.proc.put
        stream = b"".join(
            command.place(put) if isinstance(command, bc.Parcel) else command
            for command in commands
        )
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
    def pid(self) -> int: ...

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

    @abstractmethod
    def poke(self, address: int, data: bytes) -> None:
        """Store into the process' memory."""

    @abstractmethod
    def peek(self, address: int, size: int) -> bytes:
        """Read the process' memory, as the process itself would."""

    @abstractmethod
    def open_again(self, *, size: int | None = MAPPING_SIZE) -> Proc:
        """Open the same device once more in the same process."""

    @abstractmethod
    def fork(self, uid: int = 0) -> Proc:
        """Fork; the child's end of the same open file.  It may become another user."""

    @abstractmethod
    def munmap(self) -> None:
        """Unmap the receive area."""

    @abstractmethod
    def close(self) -> None:
        """Close the descriptor; the process lives on."""

    @abstractmethod
    def kill(self) -> None:
        """Kill the whole process; returns when the driver is done with it."""

    def try_mmap(self, size: int, *, writable: bool = False) -> int:
        """Map the file once more; return the errno.  Only where a kernel maps."""
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

    @abstractmethod
    def open(
        self,
        device: str = "binder",
        *,
        size: int | None = MAPPING_SIZE,
        nonblocking: bool = False,
        uid: int = 0,
        shared: bool = False,
    ) -> Proc:
        """Start a process that opens ``device`` and maps ``size`` bytes (None: maps nothing).

        Args:
            uid: the user that it runs as.
            shared: maps it MAP_SHARED, not MAP_PRIVATE.
        """

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
        """Whether this backend behaves differently here, on purpose; says so in the output."""
        if self.name in backends:
            print(f"{self.name} differs: {reason}")
            return True
        return False
