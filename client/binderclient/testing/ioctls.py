# SPDX-License-Identifier: Apache-2.0
"""What Linux and the daemon's transports do around an ioctl: wait, interrupt, install, release.

The driver's clock is here as well: it stands still until a test advances it.

The engine has a thread of its own, as it has in the daemon: in the test's threads a signal handler
or a finalizer could call the engine while it is in a call already. A finalizer could in the
engine's own thread as well, so no garbage is collected there meanwhile.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from errno import EBADF, ECONNABORTED, EINTR
from typing import TYPE_CHECKING, Final, TypeVar

from binderclient.testing.ports import Arena, OpenClient, TakenFile
from binderd.engine.engine import Engine
from binderwire.binder_abi import BINDER_WRITE_READ, binder_write_read
from binderwire.ioc import ioc_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderclient.testing.process_state import ProcessState
    from binderd.engine.completion import Completion

_NS_PER_MS: Final = 1_000_000
_Result = TypeVar("_Result")


class OpenDevice:
    """One open device.

    Args:
        world: the engine that is its driver.
        process: the process that opens it.
        context: the device's name.
        size: of the receive area, bytes.

    Raises:
        KernelErrno: as ``Engine.open``.
    """

    def __init__(self, world: Ioctls, process: ProcessState, context: str, size: int) -> None:
        self.context = context
        self.process = process
        self.arena = Arena(size, process)
        self.is_closed = self.is_released = False
        self._world = world
        self.client = OpenClient(process, self.arena, self._install)
        self.inside = world.engine.open(context, process.pid, self.client)

    def _install(self, tid: int, number: int, files: list[TakenFile], closes: list[int]) -> None:
        [request] = [one for one in self._world.requests_of(self) if one.tid == tid]
        self._world.installs.append(Install(request, number, files, closes))


class Request:
    """An ioctl under way."""

    def __init__(self, device: OpenDevice, tid: int, ticket: int) -> None:
        self.device = device
        self.tid = tid
        self.ticket = ticket
        self.is_over = threading.Event()
        self.result = -ECONNABORTED
        self.payload = b""
        self.is_repeated = False  # is it issued once more if it ends with EINTR?

    def end(self, result: int) -> None:
        """Wake the caller with its result: 0 or a negative errno; the dead get ECONNABORTED."""
        self.result = -ECONNABORTED if self.device.process.is_dead else result
        self.is_over.set()


class Install:
    """Files to be installed in a process, or descriptors to be closed; see ``Client``."""

    def __init__(
        self, request: Request, number: int, files: list[TakenFile], closes: list[int]
    ) -> None:
        self.request = request
        self.number = number
        # Duplicates: the engine may close its own before these are installed.
        self.files = [TakenFile(file.dup()) for file in files]
        self.closes = closes


class Ioctls:
    """The engine, its clock, and the threads that wait in ioctls."""

    def __init__(self) -> None:
        self.now_ns = 0  # virtual: it passes when the test says so
        self.engine = Engine(clock=lambda: self.now_ns)
        self.devices: list[OpenDevice] = []  # those that are not released
        self._requests: dict[int, Request] = {}  # those that are open, by ticket
        self.installs: deque[Install] = deque()
        self._timers: dict[int, int] = {}  # when they run out, ns
        self._numbers = itertools.count(1)
        self._thread = ThreadPoolExecutor(1, "binder-engine")
        self._is_closed = False

    def close_thread(self) -> None:
        """End the engine's thread, once every process has been killed."""
        self._is_closed = True
        self._thread.shutdown()

    def _do(self, function: Callable[[], _Result]) -> _Result:
        """Have the engine's thread do something; it is done also if a signal handler raises."""
        future = self._thread.submit(_without_collecting, function)
        try:
            return future.result()
        except BaseException:
            wait([future])
            raise

    def counts(self) -> dict[str, int]:
        """Return how many of each kind of object there are."""
        return self._do(self.engine.counts)

    def open(self, process: ProcessState, context: str, size: int) -> OpenDevice:
        """Open a device.

        Raises:
            KernelErrno: as ``Engine.open``.
        """

        def open_it() -> OpenDevice:
            device = OpenDevice(self, process, context, size)
            self.devices.append(device)
            return device

        return self._do(open_it)

    def ioctl(self, device: OpenDevice, request: int, address: int) -> int:
        """Do an ioctl; return its errno, 0 if it has none.

        Args:
            device: the open device.
            request: the ioctl's number.
            address: of the argument, in this process; it is written to also where there is an
                errno.
        """
        if device.is_released:  # maybe by a finalizer, long after the test
            return ECONNABORTED if device.process.is_dead else EBADF
        argument = ctypes.string_at(address, ioc_size(request))
        waiting = Request(device, threading.get_native_id(), next(self._numbers))
        try:
            self._do(lambda: self._begin(waiting, request, argument))
            waiting.is_over.wait()
        finally:  # an exception of a signal handler, which ends the real one as well
            if not waiting.is_over.is_set():
                self._do(lambda: self._interrupt(waiting))
            ctypes.memmove(address, waiting.payload, len(waiting.payload))
            if device.is_closed:
                self._do(lambda: self._maybe_release(device))
        return -waiting.result

    def _begin(self, waiting: Request, request: int, argument: bytes) -> None:
        device = waiting.device
        if device.process.is_dead or device.is_closed:
            waiting.result = -ECONNABORTED if device.process.is_dead else -EBADF
            waiting.is_over.set()
            return
        self._requests[waiting.ticket] = waiting
        self._issue(waiting, request, argument)
        self._drain()

    def _issue(self, waiting: Request, request: int, argument: bytes) -> None:
        device = waiting.device
        inside, uid = device.inside, device.process.uid
        if request == BINDER_WRITE_READ:
            self._note_commands(device, waiting.tid, argument)
        self.engine.ioctl(inside, waiting.tid, uid, request, argument, waiting.ticket)

    @staticmethod
    def _note_commands(device: OpenDevice, tid: int, argument: bytes) -> None:
        """Note where the commands of a request are, should something have to happen to them."""
        memory = device.client.threads.get(tid)
        if memory is not None:
            size, consumed, start, *_ = binder_write_read.unpack_from(argument)
            memory.commands = range(start + consumed, start + size)

    def _drain(self) -> None:
        """Hand out completions after a call of the engine; go on with what has paused."""
        engine = self.engine
        self._hand_out()
        while engine.paused or self.installs:
            if engine.paused:
                engine.go_on(next(iter(engine.paused)))
            else:
                self._install(self.installs.popleft())
            self._hand_out()

    def _hand_out(self) -> None:
        engine = self.engine
        completions = list(engine.outbox)
        engine.outbox.clear()
        for completion in completions:
            self._complete(completion)
        for number, milliseconds in engine.timers:
            if milliseconds < 0:
                self._timers.pop(number, None)
            else:
                self._timers[number] = self.now_ns + milliseconds * _NS_PER_MS
        engine.timers.clear()
        engine.released.clear()
        engine.poll_wakes.clear()

    def _complete(self, completion: Completion) -> None:
        request = self._requests[completion.ticket]
        request.payload = completion.payload
        if not (request.is_repeated and completion.result == -EINTR):
            self._end(request, completion.result)

    def _end(self, request: Request, result: int) -> None:
        del self._requests[request.ticket]
        request.end(result)

    def requests_of(self, device: OpenDevice) -> list[Request]:
        """Return the open requests of a device."""
        return [request for request in self._requests.values() if request.device is device]

    def _install(self, install: Install) -> None:
        """Stop the thread, give it the files, and issue its request once more."""
        engine, request = self.engine, install.request
        is_there = request.ticket in self._requests and not request.device.process.is_dead
        request.is_repeated = is_there and bool(install.files)
        engine.stopped(install.number)
        self._hand_out()
        request.is_repeated = False
        for number in install.closes:
            with suppress(OSError):  # closed already
                os.close(number)
        numbers = [file.hand_over() for file in install.files] if is_there else None
        for file in install.files:
            file.close()
        engine.installed(install.number, numbers)
        if is_there and install.files:
            self._issue(request, BINDER_WRITE_READ, request.payload)

    def _interrupt(self, waiting: Request) -> None:
        if waiting.ticket in self._requests:
            self.engine.interrupt(waiting.ticket)
            self._drain()

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` of the driver's time pass; timers that run out expire in order."""
        self._do(lambda: self._advance(self.now_ns + round(seconds * 1e9)))

    def _advance(self, end: int) -> None:
        while self._timers:
            number = min(self._timers, key=lambda one: self._timers[one])
            if self._timers[number] > end:
                break
            self.now_ns = max(self.now_ns, self._timers.pop(number))
            self.engine.expire(number)
            self._drain()
        self.now_ns = end

    def flush(self, device: OpenDevice) -> None:
        """Have every thread that waits in a device come back."""
        if not device.is_released:
            self._do(lambda: self._flush(device))

    def _flush(self, device: OpenDevice) -> None:
        if not device.is_released:
            self.engine.flush(device.inside)
            self._drain()

    def close(self, device: OpenDevice) -> None:
        """Close a device; it is released when the last request has ended."""

        def close_it() -> None:
            device.is_closed = True
            self._flush(device)
            self._maybe_release(device)

        if not device.is_released:
            self._do(close_it)

    def _maybe_release(self, device: OpenDevice) -> None:
        if not device.is_released and not self.requests_of(device):
            self._release(device)

    def _release(self, device: OpenDevice) -> None:
        device.is_released = True
        self.engine.release(device.inside)
        self._drain()
        self.devices.remove(device)

    def kill(self, process: ProcessState) -> None:
        """Kill a process: its ioctls end with ECONNABORTED, its devices are released."""

        def kill_it() -> None:
            process.is_dead = True
            for device in [one for one in self.devices if one.process is process]:
                self._kill(device)

        if not self._is_closed:
            self._do(kill_it)

    def _kill(self, device: OpenDevice) -> None:
        for request in self.requests_of(device):
            self.engine.interrupt(request.ticket)
        self.engine.flush(device.inside)
        self._drain()
        if not device.is_released:
            self._release(device)
        for request in self.requests_of(device):
            self._end(request, -ECONNABORTED)


def _without_collecting(function: Callable[[], _Result]) -> _Result:
    """Call a function, in which no finalizer is called."""
    collects = gc.isenabled()
    gc.disable()
    try:
        return function()
    finally:
        if collects:
            gc.enable()
