# SPDX-License-Identifier: Apache-2.0
"""The engine's ports (``binderd.engine.ports``) to clients that are all in this very process.

Every client of a test has the same address space and the same descriptors, whatever process it
stands for. Memory is read and written by the kernel all the same (process_vm_readv), as a wrong
address must be EFAULT and no crash.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from binderclient.driver import buffer_address
from binderd.engine.ports import GONE, STOPPING, Mapping, NoAnswer, Room
from binderwire.binder_abi import BC_REPLY, BC_REPLY_SG, COMMANDS
from binderwire.commands import WORD_SIZE, StreamError, read_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from binderclient.testing.process_state import ProcessState
    from binderd.engine.ports import Client, File, ReceiverArena

_NOWHERE: Final = 8  # an address that nobody has
_ONE_BYTE: Final = 1  # more than none, so that there is something to copy
_iovec = struct.Struct("=QQ")
_libc = ctypes.CDLL(None, use_errno=True)


class TakenFile:
    """A file that was taken from its sender, under a descriptor of its own (``File``)."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        """Let go of it; a second call does nothing."""
        fd = self.hand_over()
        if fd >= 0:
            os.close(fd)

    def hand_over(self) -> int:
        """Return the descriptor, which is the caller's to close from now on."""
        fd, self.fd = self.fd, -1
        return fd

    def dup(self) -> int:
        """Return another descriptor of the file."""
        return fcntl.fcntl(self.fd, fcntl.F_DUPFD_CLOEXEC, 3)


class Arena:
    """The receive area of one open device (``ReceiverArena``).

    Args:
        size: bytes.
        process: the process that receives there.
    """

    is_private = False

    def __init__(self, size: int, process: ProcessState) -> None:
        self.pages = mmap.mmap(-1, size)
        self._mapping = Mapping(buffer_address(self.pages), size)
        self._process = process

    def locate(self) -> Mapping | None:
        """Return where it is."""
        self._ask()
        return self._mapping

    def is_alive(self) -> bool:
        """Return whether the process is there."""
        self._ask()
        return not self._process.is_dead

    def _ask(self) -> None:
        """Have whatever is sent to a process without memory fail."""
        if self._process.is_full:
            raise NoAnswer

    def write(self, offset: int, data: bytes | bytearray) -> None:
        """Put bytes there."""
        self.pages[offset : offset + len(data)] = bytes(data)

    def receive_at(self, offset: int, size: int) -> int:
        """Return the address where bytes may be put."""
        if size < 0 or not 0 <= offset <= self._mapping.size - size:
            raise IndexError(f"{size} bytes at {offset} in {self._mapping.size}")
        return self._mapping.address + offset

    def bring(self, offset: int, size: int) -> bool:
        """Return True: what was put there is there."""
        return True

    def forget(self, offset: int) -> None:
        """Do nothing: no access was begun."""

    def allocated_bytes(self) -> int:
        """Return 0: the pages are the test's."""
        return 0

    def touched(self) -> None:
        """Do nothing: pages are given back with the device only."""


class ThreadMemory:
    """The memory of one thread (``ClientMemory``).

    Args:
        process: the process whose thread this is.
    """

    is_openers = True
    sees_area = False  # so that the receive area is asked for each time; see ``Arena.is_alive``

    def __init__(self, process: ProcessState) -> None:
        self.pid = process.pid
        self.is_settled = False
        self._process = process
        self._nice = 0
        self.commands = range(0)  # where those of the current request are

    def missing(self, ranges: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
        """Return nothing, as all is in this process."""
        return ()

    def expect(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Do nothing: no memory of this process has to be waited for."""

    def is_there(self) -> bool:
        """Return True: the thread has a request open."""
        return True

    def be_present(self) -> None:
        """Do nothing: the thread has a request open."""

    def forget(self) -> None:
        """Do nothing: no memory was fetched."""

    def read(self, address: int, size: int) -> bytes:
        """Return up to ``size`` bytes."""
        local = ctypes.create_string_buffer(size)
        count = _move(_libc.process_vm_readv, ctypes.addressof(local), address, size)
        octets = local.raw[: max(count, 0)]
        if self._process.replies_to_lose and address in self.commands:
            return self._lose_reply(octets, self.commands.stop - address)
        return octets

    def write(self, address: int, data: bytes | bytearray) -> bool:
        """Store all of ``data``, or return False."""
        local = ctypes.create_string_buffer(bytes(data), len(data))
        size = len(data)
        return _move(_libc.process_vm_writev, ctypes.addressof(local), address, size) == size

    def copy(self, address: int, size: int, arena: ReceiverArena, offset: int) -> bool:
        """Copy into a receive area."""
        octets = self.read(address, size)
        arena.write(offset, octets)
        return len(octets) == size

    def scatter(
        self,
        address: int,
        size: int,
        arena: ReceiverArena,
        offset: int,
        holes: Sequence[tuple[int, int]],
    ) -> list[bytes] | None:
        """Copy into a receive area all but some holes, which are returned."""
        octets = self.read(address, size)
        kept = spread(octets, holes, arena, offset)
        return kept if len(octets) == size else None

    def file(self, fd: int) -> TakenFile | None:
        """Return an open file; None if there is none that can be sent."""
        try:
            if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH:
                return None
            return TakenFile(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3))
        except (OSError, OverflowError):
            return None

    def nice(self) -> int:
        """Return the nice value that the engine has given the thread; the real one stays."""
        return self._nice

    def set_nice(self, nice: int) -> None:
        """Note a nice value."""
        self._nice = nice

    def _lose_reply(self, octets: bytes, size: int) -> bytes:
        """Replace a reply among commands by one that fails.

        As binder_transaction has it for a payload that cannot be read, its caller gets
        BR_FAILED_REPLY; its sender is told as if it had arrived.
        """
        changed = bytearray(octets)
        with suppress(StreamError):
            for item in read_stream(COMMANDS, octets, end=min(size, len(octets))):
                record = item.message.payload
                if record is not None and item.message.word in (BC_REPLY, BC_REPLY_SG):
                    fields = item.fields._replace(
                        data_size=_ONE_BYTE, offsets_size=0, buffer=_NOWHERE, offsets=0
                    )
                    record.pack_into(changed, item.offset + WORD_SIZE, *fields)
                    self._process.replies_to_lose -= 1
                    break
        return bytes(changed)


class OpenClient:
    """The outside half of one open device (``Client``).

    Args:
        process: the process that opened it.
        arena: its receive area.
        install: begins to install files; see ``Client.install``.
    """

    nice = 0
    is_foreign = False

    def __init__(
        self,
        process: ProcessState,
        arena: Arena,
        install: Callable[[int, int, list[TakenFile], list[int]], None],
    ) -> None:
        self.process = process
        self.arena: ReceiverArena = arena
        self.payer = self.euid = process.uid
        self.threads: dict[int, ThreadMemory] = {}
        self._install = install

    def shares_opener(self, other: Client) -> bool:
        """Return whether both are of one process."""
        return isinstance(other, OpenClient) and other.process is self.process

    def pid_of(self, sender: Client) -> int:
        """Return the process id of another open device; all are in one pid namespace."""
        return sender.process.pid if isinstance(sender, OpenClient) else 0

    def uid_of(self, uid: int) -> int:
        """Return the user id as it is, as there is one user namespace."""
        return uid

    def user(self) -> int:
        """Return the process' user, or GONE."""
        return GONE if self.process.is_dead else self.process.uid

    def security_context(self) -> bytes | None:
        """Return what the daemon says where no security module has anything to say."""
        return b"kernel\0"

    def memory(self, tid: int) -> ThreadMemory:
        """Return the memory of a thread."""
        memory = self.threads[tid] = ThreadMemory(self.process)
        return memory

    def forget_thread(self, tid: int) -> None:
        """Drop the memory of a thread that is gone."""
        self.threads.pop(tid, None)

    def install(self, tid: int, number: int, files: Sequence[File], room: Room) -> int:
        """Begin to install files; always as if the thread were stopped for it."""
        taken = [file for file in files if isinstance(file, TakenFile)]
        self._install(tid, number, taken, [])
        return STOPPING

    def close_descriptors(self, tid: int, number: int, numbers: Sequence[int]) -> int:
        """Begin to close descriptors; always as if the thread were stopped for it."""
        self._install(tid, number, [], list(numbers))
        return STOPPING

    def cancel_install(self, number: int) -> None:
        """Do nothing: ``Ioctls`` sees that the request has ended."""


def spread(
    octets: bytes, holes: Sequence[tuple[int, int]], arena: ReceiverArena, offset: int
) -> list[bytes]:
    """Write all but some holes into a receive area; return what is in the holes.

    Args:
        octets: what to write.
        holes: as ``ClientMemory.scatter`` has them.
        arena: the receive area.
        offset: where in it the first byte goes.
    """
    position, kept = 0, []
    for start, length in holes:
        arena.write(offset + position, octets[position:start])
        kept.append(octets[start : start + length])
        position = start + length
    arena.write(offset + position, octets[position:])
    return kept


def _move(function: Callable[..., int], local: int, remote: int, size: int) -> int:
    """Move bytes between two places of this process; return how many, or -1."""
    here, there = _iovec.pack(local, size), _iovec.pack(remote, size)
    return function(os.getpid(), here, 1, there, 1, 0)
