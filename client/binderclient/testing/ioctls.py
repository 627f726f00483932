# SPDX-License-Identifier: Apache-2.0
"""What Linux and the daemon's transports do around an ioctl: wait, interrupt, install, release.

One lock is around every call of the engine, which has one thread in the daemon. Who has to wait for
the end of an ioctl does so without it.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
from collections import deque
from contextlib import suppress
from errno import EBADF, ECONNABORTED, EINTR
from typing import TYPE_CHECKING, Final

from binderclient.testing.ports import Arena, OpenClient, TakenFile
from binderd.engine.engine import Engine
from binderwire.binder_abi import BINDER_WRITE_READ, binder_write_read
from binderwire.ioc import ioc_size

if TYPE_CHECKING:
    from binderclient.testing.world import Process
    from binderd.engine.completion import Completion

_NS_PER_MS: Final = 1_000_000


class OpenDevice:
    """One open device.

    Args:
        world: whose.
        process: that opened it.
        context: the device's name.
        size: of the receive area, bytes.
    """

    def __init__(self, world: Ioctls, process: Process, context: str, size: int) -> None:
        self.context = context
        self.process = process
        self.arena = Arena(size, process)
        self.requests: dict[int, Request] = {}  # that are open, by ticket
        self.is_closed = self.is_released = False
        self._world = world
        self.client = OpenClient(process, self.arena, self._install)
        self.inside = world.engine.open(context, process.pid, self.client)

    def _install(self, tid: int, number: int, files: list[TakenFile], closes: list[int]) -> None:
        [request] = [one for one in self.requests.values() if one.tid == tid]
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

    def end(self, completion: Completion) -> None:
        """The engine is through with it."""
        self.payload = completion.payload
        if self.is_repeated and completion.result == -EINTR:
            return
        self.result = -ECONNABORTED if self.device.process.is_dead else completion.result
        del self.device.requests[self.ticket]
        self.is_over.set()


class Install:
    """Files on their way into a process; see ``Client.install``."""

    def __init__(
        self, request: Request, number: int, files: list[TakenFile], closes: list[int]
    ) -> None:
        self.request = request
        self.number = number
        # The engine may let go of its own before.
        self.files = [TakenFile(file.dup()) for file in files]
        self.closes = closes


class Ioctls:
    """The engine and everybody who waits for it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.now_ns = 0  # virtual: it passes when the test says so
        self.engine = Engine(clock=lambda: self.now_ns)
        self.devices: list[OpenDevice] = []  # not released
        self.installs: deque[Install] = deque()
        self._timers: dict[int, int] = {}  # when they run out, ns
        self._numbers = itertools.count(1)

    def open(self, process: Process, context: str, size: int) -> OpenDevice:
        """Open a device.

        Raises:
            KernelErrno: as ``Engine.open``.
        """
        with self.lock:
            device = OpenDevice(self, process, context, size)
            self.devices.append(device)
        return device

    def ioctl(self, device: OpenDevice, request: int, address: int) -> int:
        """Do an ioctl; return its errno, 0 if it has none.

        Args:
            address: of the argument, in this process.
        """
        argument = ctypes.string_at(address, ioc_size(request))
        tid = threading.get_native_id()
        with self.lock:
            if device.process.is_dead:
                return ECONNABORTED
            if device.is_closed:
                return EBADF
            waiting = Request(device, tid, next(self._numbers))
            device.requests[waiting.ticket] = waiting
            self._issue(waiting, request, argument)
            self.drain()
        try:
            waiting.is_over.wait()
        finally:  # an exception of a signal handler, which ends the real one as well
            if not waiting.is_over.is_set():
                self._interrupt(waiting)
            ctypes.memmove(address, waiting.payload, len(waiting.payload))
            self._maybe_release(device)
        return -waiting.result

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

    def drain(self) -> None:
        """Hand out what the last call of the engine has brought about."""
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
        waiting = {
            ticket: one for device in self.devices for ticket, one in device.requests.items()
        }
        for completion in completions:
            if completion.ticket in waiting:
                waiting[completion.ticket].end(completion)
        for number, milliseconds in engine.timers:
            if milliseconds < 0:
                self._timers.pop(number, None)
            else:
                self._timers[number] = self.now_ns + milliseconds * _NS_PER_MS
        engine.timers.clear()
        engine.released.clear()
        engine.poll_wakes.clear()

    def _install(self, install: Install) -> None:
        """Stop the thread, give it the files, and issue its request once more."""
        engine, request = self.engine, install.request
        is_there = request.ticket in request.device.requests and not request.device.process.is_dead
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
        with self.lock:
            if waiting.ticket in waiting.device.requests:
                self.engine.interrupt(waiting.ticket)
                self.drain()

    def advance(self, seconds: float) -> None:
        """Let virtual time pass."""
        with self.lock:
            end = self.now_ns + round(seconds * 1e9)
            while self._timers:
                number = min(self._timers, key=lambda one: self._timers[one])
                if self._timers[number] > end:
                    break
                self.now_ns = max(self.now_ns, self._timers.pop(number))
                self.engine.expire(number)
                self.drain()
            self.now_ns = end

    def flush(self, device: OpenDevice) -> None:
        """Have every thread that waits in a device come back."""
        with self.lock:
            if not device.is_released:
                self.engine.flush(device.inside)
                self.drain()

    def close(self, device: OpenDevice) -> None:
        """Close a device; it is released when the last request has ended."""
        with self.lock:
            device.is_closed = True
            self.flush(device)
        self._maybe_release(device)

    def _maybe_release(self, device: OpenDevice) -> None:
        with self.lock:
            if device.is_closed and not device.is_released and not device.requests:
                self._release(device)

    def _release(self, device: OpenDevice) -> None:
        device.is_released = True
        self.engine.release(device.inside)
        self.drain()
        self.devices.remove(device)

    def kill(self, device: OpenDevice) -> None:
        """The process of a device is dead: nobody comes back to it, and nothing is left of it."""
        with self.lock:
            for ticket in list(device.requests):
                self.engine.interrupt(ticket)
            self.engine.flush(device.inside)
            self.drain()
            for request in list(device.requests.values()):
                del device.requests[request.ticket]
                request.is_over.set()
            if not device.is_released:
                self._release(device)
