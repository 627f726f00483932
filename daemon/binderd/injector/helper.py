# SPDX-License-Identifier: Apache-2.0
"""The helper process: takes jobs from the daemon and carries them out, several at a time.

A thread that a job waits for may be slow to stop, or be kept from running altogether; so the stops
of all of them are awaited together, and each job is a generator that goes on when its thread does.

The helper must not die while a thread is stopped in the middle of something: it ignores signals and
ends when the daemon's end of the socket is closed, after the jobs.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from errno import ECANCELED, EPERM
from functools import partial
from typing import TYPE_CHECKING, Final

from binderd.closer import Closer
from binderd.injector import messages
from binderd.injector.architecture import Architecture, own_architecture
from binderd.injector.injection import Job
from binderd.linux import prctl, scm_rights, signalfd
from binderd.linux.proc import place_of, set_memory_score, tracer_of

if TYPE_CHECKING:
    from collections.abc import Generator

_WALL: Final = 0x40000000  # __WALL: also threads
_MESSAGE_SIZE_MAX: Final = 256 << 10  # bytes
_SWEEP_MS: Final = 1000  # between looks for threads that have gone without a word
_FAREWELL_SECONDS: Final = 5.0  # for the jobs when the daemon has gone
_HELD_SECONDS: Final = 0.2  # a thread is taken hold of in microseconds
_LATE_SECONDS: Final = 600.0
_LATE_MAX: Final = 4096
# Of what the kernel kills for memory we come late. The unit gives it to all of us; elsewhere it
# takes CAP_SYS_RESOURCE, and without that the helper stays where the daemon is.
_SCORE: Final = -900


def main() -> None:
    """Serve the socket that is our standard input."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    prctl.set_name("binderd-inject")
    with suppress(OSError):
        set_memory_score(_SCORE)
    Helper(socket.socket(fileno=sys.stdin.fileno()), own_architecture()).run()


class Helper:
    """The jobs under way.

    Args:
        channel: to the daemon.
        machine: None: no job can be done here.
    """

    def __init__(self, channel: socket.socket, machine: Architecture | None) -> None:
        self._channel = channel
        self._machine = machine
        self._closer = Closer()
        self._gathering: dict[int, Job] = {}  # by number: parts are still to come
        self._running: dict[int, tuple[Job, Generator[None, int, None]]] = {}  # by thread
        # user -> until when we stop none of its threads
        self._late: dict[int, float] = {}
        self._is_over = False
        self._signals = signalfd.open_signal(signal.SIGCHLD)

    def run(self) -> None:
        """Serve until the daemon has gone."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._signals, select.POLLIN)
        deadline = 0.0
        while not self._is_over or (self._running and time.monotonic() < deadline):
            ready = poll.poll(_SWEEP_MS if self._running else None)
            for fd, _ in ready:
                if fd == self._signals:
                    os.read(fd, signalfd.INFO_SIZE)
                    self._continue_jobs()
                elif not self._receive_all():
                    self._is_over = True
                    deadline = time.monotonic() + _FAREWELL_SECONDS
                    poll.unregister(self._channel)
            if not ready:
                self._sweep()

    # What the daemon says

    def _receive_all(self) -> bool:
        """Take in every message that is there; False if there will be no more."""
        while True:
            try:
                message, files = scm_rights.receive(
                    self._channel, _MESSAGE_SIZE_MAX, messages.FILES_MAX, socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not message:
                return False
            self._take(message, files)

    def _take(self, message: bytes, files: list[int]) -> None:
        kind, number = messages.head.unpack_from(message)
        if kind == messages.BEGIN:
            tid, count, closes, *rest = messages.job.unpack_from(message, messages.head.size)
            address, size, at_once, owner = rest
            if self._machine is None:
                self._closer.close(files)
                self._report(messages.FAILED, number, EPERM)
                return
            room = (address, size)
            job = Job(number, tid, (count, closes), room, at_once, self._machine, owner)
            self._gathering[number] = job
            self._add(job, files, message, messages.head.size + messages.job.size)
        elif kind == messages.PART and number in self._gathering:
            self._add(self._gathering[number], files, message, messages.head.size)
        elif kind == messages.CANCEL:
            self._cancel(number)
        elif kind == messages.DISPOSE:
            (owner,) = messages.account.unpack_from(message, messages.head.size)
            done = partial(self._report, messages.CLOSED, number, 0)
            self._closer.close(files, owner, done)
        elif files:
            self._closer.close(files)

    def _add(self, job: Job, files: list[int], message: bytes, start: int) -> None:
        job.files += files
        job.closes += messages.unpack_numbers(message, start)
        if job.is_whole:
            del self._gathering[job.number]
            self._begin(job)

    def _cancel(self, number: int) -> None:
        half = self._gathering.pop(number, None)
        if half is not None:
            self._put_away(half)
        for job, _ in self._running.values():
            if job.number == number:
                job.is_cancelled = True
                return
        self._report(messages.FAILED, number, ECANCELED)

    # Jobs

    def _begin(self, job: Job) -> None:
        try:
            self._seize(job)
        except OSError as error:
            self._report(messages.FAILED, job.number, error.errno or EPERM)
            self._put_away(job)
            return

        def report(error: int, numbers: list[int]) -> None:
            self._report(messages.FAILED if error else messages.DONE, job.number, error, numbers)

        steps = job.steps(report)
        next(steps)
        self._running[job.tid] = (job, steps)
        self._report(messages.SEIZED, job.number, 0)

    def _seize(self, job: Job) -> None:
        """Take hold of the thread of a job, unless its user has kept us waiting with that.

        It takes a lock of the process, which the process holds during execve: as long as the
        program's file system likes, or until the watchdog kills it. Meanwhile no client gets
        files. Root's processes are not counted together so, as they have nothing else in common.

        Raises:
            OSError: that cannot be.
        """
        began = time.monotonic()
        if self._late.get(job.owner, began) > began:
            raise OSError(EPERM, "others would have to wait for it")
        try:
            job.seize()
        finally:
            now = time.monotonic()
            if job.owner > 0 and now - began > _HELD_SECONDS:
                if len(self._late) >= _LATE_MAX:
                    del self._late[next(iter(self._late))]
                self._late[job.owner] = now + _LATE_SECONDS

    def _continue_jobs(self) -> None:
        """Let each job whose thread has stopped, or ended, go on."""
        while True:
            try:
                tid, status = os.waitpid(-1, os.WNOHANG | _WALL)
            except ChildProcessError:
                return
            if not tid:
                return
            self._go_on(tid, status)

    def _go_on(self, tid: int, status: int) -> None:
        if tid not in self._running:
            return
        job, steps = self._running[tid]
        try:
            steps.send(status)
        except StopIteration:
            del self._running[tid]
            self._put_away(job)

    def _sweep(self) -> None:
        """Give up on threads that are not ours any more: the kernel need not say so (execve)."""
        for tid in list(self._running):
            if not _is_traced(tid):
                self._go_on(tid, 0)

    def _put_away(self, job: Job) -> None:
        files = job.close()
        if files:
            self._closer.close(files)

    def _report(self, kind: int, number: int, error: int, numbers: list[int] | None = None) -> None:
        message = messages.report.pack(kind, number, error) + messages.pack_numbers(numbers or [])
        with suppress(OSError):
            self._channel.send(message)


def _is_traced(tid: int) -> bool:
    """Whether a thread is ours still; where that cannot be asked now it is until the next look."""
    try:
        return tracer_of(place_of(tid)) == os.getpid()
    except ProcessLookupError:
        return False
    except OSError:
        return True
