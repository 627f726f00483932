# SPDX-License-Identifier: Apache-2.0
"""``Binder``, a driver of a test's own, and ``Process``, what the test lets stand for a program."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
from functools import partial
from typing import TYPE_CHECKING, Final

from binderclient import aio, trio
from binderclient.arguments import check_number, check_type
from binderclient.blocking import DEFAULT_MAP_SIZE, DEFAULT_MAX_THREADS, Device
from binderclient.driver import OPENERS
from binderclient.testing.driver import EngineDriver
from binderclient.testing.ioctls import Ioctls
from binderclient.testing.process_state import ProcessState
from binderwire.binder_abi import BINDER_FREEZE, binder_freeze_info

if TYPE_CHECKING:
    import contextlib
    from types import TracebackType
    from typing import Self

    from binderclient.asynchronous import AsyncDevice

_FIRST_PID: Final = 1000
_SYSTEM: Final = 1  # the process that freezes others
_numbers = itertools.count(1)


class LeakError(AssertionError):
    """A test has left something behind."""


class Binder:
    """A driver in this process, with as many devices as are named.

    Use it in a ``with`` statement, at the end of which nothing may be left: every device closed,
    every process' files gone. Any thread may use it.

    Raises:
        LeakError: at the end, saying what was left. It is closed first.
    """

    def __init__(self) -> None:
        self.processes: list[Process] = []
        self._ioctls = Ioctls()
        self.place = f"binder-{next(_numbers)}"
        self._pids = itertools.count(_FIRST_PID)
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        left = self.close()
        if left and kind is None:
            raise LeakError(left)

    # Processes

    def process(self, *, uid: int = 0, pid: int | None = None) -> Process:
        """Return a new process, which has opened nothing.

        Args:
            uid: its effective user id.
            pid: its process id; None: one that no other has.

        Raises:
            ValueError: ``uid`` is below 0, or ``pid`` below 1.
        """
        check_number("process(): uid", uid, 0)
        number = next(self._pids) if pid is None else pid
        check_number("process(): pid", number, 1)
        process = Process(self, self._ioctls, number, uid)
        self.processes.append(process)
        return process

    def device(
        self,
        name: str = "binder",
        *,
        map_size: int = DEFAULT_MAP_SIZE,
        max_threads: int = DEFAULT_MAX_THREADS,
    ) -> Device:
        """Open a device in a process of its own; arguments as ``Process.device``."""
        return self.process().device(name, map_size=map_size, max_threads=max_threads)

    def async_device(
        self, name: str = "binder", *, map_size: int = DEFAULT_MAP_SIZE
    ) -> contextlib.AbstractAsyncContextManager[AsyncDevice]:
        """Open a device for trio in a process of its own; use it with ``async with``."""
        return self.process().async_device(name, map_size=map_size)

    def aio_device(
        self, name: str = "binder", *, map_size: int = DEFAULT_MAP_SIZE
    ) -> contextlib.AbstractAsyncContextManager[AsyncDevice]:
        """Open a device for asyncio in a process of its own; use it with ``async with``."""
        return self.process().aio_device(name, map_size=map_size)

    def path(self, name: str = "binder") -> str:
        """Return a path for code that opens a device itself; each open is by a new process."""

        def open_it(path: str, map_size: int) -> EngineDriver:
            return EngineDriver(self._ioctls, self.process(), name, path, map_size)

        check_type("path(): name", name, str)
        path = f"{self.place}/{name}"
        OPENERS[path] = open_it
        return path

    # Time, and what is left

    def advance(self, seconds: float) -> None:
        """Let time pass for the driver, whose clock stands still otherwise.

        The time limit of a freeze that waits for calls to end is all that goes by it.

        Args:
            seconds: how much passes.
        """
        check_type("advance(): seconds", seconds, int, float)
        self._ioctls.advance(seconds)

    def counts(self) -> dict[str, int]:
        """Return how many of each kind of object the driver keeps."""
        return self._ioctls.counts()

    def close(self) -> str:
        """End every process; return what was left open or kept, "" for nothing; idempotent."""
        if self._is_closed:
            return ""
        self._is_closed = True
        for path in [path for path in OPENERS if path.startswith(f"{self.place}/")]:
            del OPENERS[path]
        left = [
            f"device {device.context} of process {device.process.pid} is open"
            for device in self._ioctls.devices
        ]
        for process in self.processes:
            process.kill()
        left += [f"{count} {kind} are left" for kind, count in self.counts().items() if count]
        self._ioctls.close_thread()
        return "; ".join(left)


class Process(ProcessState):
    """What stands for a program: its devices have one process id and one user.

    Attributes:
        pid: what others see as ``sender_pid``.
        uid: what they see as ``sender_euid``.
        is_dead: was it killed?
        is_full: is it out of memory? Then whatever is sent to it fails: a caller gets
            FailedTransaction (BR_FAILED_REPLY, ENOMEM).
    """

    def __init__(self, binder: Binder, ioctls: Ioctls, pid: int, uid: int) -> None:
        super().__init__(pid, uid)
        self._binder = binder
        self._ioctls = ioctls

    def path(self, name: str = "binder") -> str:
        """Return a path for code that opens a device itself, as this process."""
        check_type("path(): name", name, str)
        path = f"{self._binder.place}/{self.pid}/{name}"
        OPENERS[path] = partial(EngineDriver, self._ioctls, self, name)
        return path

    def device(
        self,
        name: str = "binder",
        *,
        map_size: int = DEFAULT_MAP_SIZE,
        max_threads: int = DEFAULT_MAX_THREADS,
    ) -> Device:
        """Open a device.

        Args:
            name: of the device; equal names have one context manager.
            map_size, max_threads: see ``Device``.
        """
        return Device(self.path(name), map_size=map_size, max_threads=max_threads)

    def async_device(
        self, name: str = "binder", *, map_size: int = DEFAULT_MAP_SIZE
    ) -> contextlib.AbstractAsyncContextManager[AsyncDevice]:
        """Open a device for trio; use it with ``async with``."""
        return trio.open_device(self.path(name), map_size=map_size)

    def aio_device(
        self, name: str = "binder", *, map_size: int = DEFAULT_MAP_SIZE
    ) -> contextlib.AbstractAsyncContextManager[AsyncDevice]:
        """Open a device for asyncio; use it with ``async with``."""
        return aio.open_device(self.path(name), map_size=map_size)

    # Faults on demand

    def kill(self) -> None:
        """Kill it: replies to its calls go nowhere, links to its objects are told of their death.

        What the test still has of this process' devices raises DeviceGone.
        """
        self._ioctls.kill(self)

    def lose_reply(self, count: int = 1) -> None:
        """Lose the next replies that it sends: their callers get FailedTransaction."""
        check_number("lose_reply(): count", count, 0)
        self.replies_to_lose += count

    def freeze(self, timeout: float = 0.0) -> None:
        """Freeze it: calls fail with FrozenObject, one-way calls wait.

        Args:
            timeout: seconds of the driver's time in which calls under way may end; see
                ``Binder.advance``.

        Raises:
            OSError: EAGAIN, some did not; EINVAL, it has no device open.
        """
        check_type("freeze(): timeout", timeout, int, float)
        self._set_frozen(frozen=True, timeout=timeout)

    def thaw(self) -> None:
        """End what ``freeze`` began.

        Raises:
            OSError: EINVAL, it has no device open.
        """
        self._set_frozen(frozen=False, timeout=0.0)

    def _set_frozen(self, *, frozen: bool, timeout: float) -> None:
        system = Process(self._binder, self._ioctls, _SYSTEM, 0)
        device = self._ioctls.open(system, "binder", mmap.PAGESIZE)
        try:
            argument = bytearray(binder_freeze_info.pack(self.pid, frozen, int(timeout * 1000)))
            area = (ctypes.c_char * len(argument)).from_buffer(argument)
            number = self._ioctls.ioctl(device, BINDER_FREEZE, ctypes.addressof(area))
        finally:
            self._ioctls.close(device)
        if number:
            raise OSError(number, os.strerror(number))
