# SPDX-License-Identifier: Apache-2.0
"""What the tests of this folder share: frames, a trivial engine, a running daemon, clients."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from binderd.channel.fuse_mount import remove_dead
from binderd.engine.errors import KernelErrno
from binderd.engine.limits import Limits
from binderd.engine.user import Users
from binderwire.fuse_abi import fuse_in_header
from support.patience import patience
from support.rights import confined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from binderd.engine.completion import Paused
    from binderd.engine.kinds import Kind
    from binderd.engine.ports import Charged, Mapping, NotYet, Share

SECONDS_MAX = patience(30.0)  # for anything that should take a fraction of a second, on any machine


def _why_no_fuse() -> str | None:
    if os.geteuid() != 0:
        return "needs root"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"needs /dev/fuse: {error.strerror}"
    return None


WHY_NO_FUSE = _why_no_fuse()
needs_fuse = pytest.mark.skipif(WHY_NO_FUSE is not None, reason=str(WHY_NO_FUSE))


def request(
    opcode: int, body: bytes = b"", *, unique: int = 2, nodeid: int = 1, uid: int = 0, tid: int = 9
) -> bytes:
    """Return a request frame as the kernel would send it."""
    size = fuse_in_header.size + len(body)
    return fuse_in_header.pack(size, opcode, unique, nodeid, uid, 0, tid, 0, 0) + body


class Done(NamedTuple):
    """Looks like the engine's Completion."""

    ticket: int
    result: int
    payload: bytes
    request: None = None


class FakeProcess:
    """What the trivial engine hands out for an open file."""

    def __init__(self, client: object) -> None:
        self.client = client
        self.mapping: Mapping | None = None
        self.memory: Callable[[], object] | None = None  # of every thread


class FakeEngine:
    """The facade of the engine with nothing behind it: it notes its calls and echoes ioctls."""

    def __init__(self) -> None:
        self._users = Users(Limits())
        self.outbox: list[Done] = []
        self.poll_wakes: list[object] = []
        self.timers: list[tuple[int, int]] = []
        self.paused: dict[int, Paused] = {}
        self.fetching: dict[int, Paused] = {}
        self.released: list[object] = []
        self.calls: list[tuple[object, ...]] = []
        self.parks = False  # does an ioctl stay open?
        self.fails: Exception | None = None  # raised by the next call

    def _note(self, *call: object) -> None:
        self.calls.append(call)
        if self.fails is not None:
            failure, self.fails = self.fails, None
            raise failure

    def open(
        self, context: str, pid: int, client: object, *, nonblocking: bool = False
    ) -> FakeProcess:
        self._note("open", context, pid, nonblocking)
        return FakeProcess(client)

    def ioctl(
        self, process: object, tid: int, uid: int, command: int, argument: bytes, ticket: int
    ) -> None:
        self._note("ioctl", tid, uid, command, bytes(argument), ticket)
        if not self.parks:
            self.outbox.append(Done(ticket, 0, argument))

    def poll(self, process: object, tid: int, *, wake: bool) -> int:
        self._note("poll", tid, wake)
        return 0

    def set_pace(self, pace: Callable[[], bool]) -> None:
        self.pace = pace

    def memory_of(self, file: FakeProcess, tid: int) -> object:
        if file.memory is None:
            raise KernelErrno(errno.ENOMEM)  # too many threads
        return file.memory()

    def mapping_of(self, file: FakeProcess) -> Mapping | None:
        return file.mapping

    def free_ranges(self, file: FakeProcess) -> Iterator[tuple[int, int]]:
        return iter([(0, 4 << 20)])

    def share_of(self, payer: int, kind: Kind) -> Share:
        return self._users.find(payer).of(kind)

    def await_fetch(self, paused: Paused, reason: NotYet) -> None:
        self.fetching[paused.ticket] = paused
        assert reason.fetch.begin(paused.ticket)

    def arrive(self, ticket: int) -> None:
        """A fetch is over."""
        self.paused[ticket] = self.fetching.pop(ticket)

    def go_on(self, ticket: int) -> None:
        self.paused.pop(ticket).go_on()

    def interrupt(self, ticket: int) -> None:
        if ticket in self.fetching:
            self.fetching[ticket].interrupt()
            return
        self._note("interrupt", ticket)
        self.outbox.append(Done(ticket, -4, bytes(48)))

    def flush(self, process: object) -> None:
        self._note("flush")

    def release(self, process: object) -> None:
        self._note("release")
        self.released.append(process)

    def thread_gone(self, process: object, tid: int) -> None:
        self._note("thread_gone", tid)

    def unmapped(self, process: object) -> None:
        self._note("unmapped")


class Daemon:
    """A running ``binderd``.

    Args:
        directory: where it is mounted.
        arguments: more of its command line.
        environment: more of its environment.
        descriptors: how many it may open; None: as many as we.
    """

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        environment: dict[str, str] | None = None,
        confinement: Sequence[str] | None = None,
        descriptors: int | None = None,
    ) -> None:
        """Start it.

        Args:
            confinement: the words before its command; default: those that leave it the rights that
                it is documented to need.
        """
        self.directory = directory
        command = [*(confined() if confinement is None else confinement), sys.executable]
        command += ["-m", "binderd", "--mount", str(directory), *arguments]
        if descriptors is not None:
            command = ["prlimit", f"--nofile={descriptors}:{descriptors}", *command]
        self.process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
        self._seen = b""
        self.said = b""  # all that was read of its stderr

    def expect(self, text: str) -> str:
        """Return the stderr line with ``text`` in it; waits for it."""
        assert self.process.stderr is not None
        deadline = time.monotonic() + SECONDS_MAX
        while True:
            for line in self._seen.decode().splitlines(keepends=True):
                if text in line and line.endswith("\n"):
                    self._seen = self._seen.split(line.encode(), 1)[1]
                    return line.rstrip("\n")
            ready, _, _ = select.select(
                [self.process.stderr], [], [], max(0.0, deadline - time.monotonic())
            )
            chunk = os.read(self.process.stderr.fileno(), 65536) if ready else b""
            if not chunk:
                pytest.fail(f"no {text!r} from binderd, only:\n{self._seen.decode()}")
            self._seen += chunk
            self.said += chunk

    def counts(self) -> dict[str, int]:
        """Return what SIGUSR1 shows."""
        self.process.send_signal(signal.SIGUSR1)
        return json.loads(self.expect('{"'))

    def wait_for_counts(self, **expected: int) -> dict[str, int]:
        """Ask until the counts are as expected."""
        deadline = time.monotonic() + SECONDS_MAX
        while True:
            counts = self.counts()
            if expected.items() <= counts.items():
                return counts
            assert time.monotonic() < deadline, f"{counts} instead of {expected}"
            time.sleep(0.02)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(SECONDS_MAX)

    def end_clean(self, **expected: int) -> None:
        """Wait until nothing is kept for clients any more, then end it; it has reported no bug.

        Args:
            expected: see ``wait_for_counts``.
        """
        self.wait_for_counts(**expected)
        assert self.end() == 0
        assert "bug" not in self._seen.decode()

    def clean_up(self) -> None:
        """End it, by force if need be; nothing of it stays mounted."""
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(SECONDS_MAX)
            self.process.kill()
            self.process.wait(SECONDS_MAX)
        # Not the whole path: what is mounted there may be somebody's who never answers.
        remove_dead(str(self.directory.parent.resolve() / self.directory.name))
        if self.process.stderr is not None:
            self.process.stderr.close()


def is_stale(directory: Path) -> bool:
    """Is there a mount that nobody serves?"""
    try:
        os.listdir(directory)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextmanager
def running(
    directory: Path,
    *arguments: str,
    environment: dict[str, str] | None = None,
    confinement: Sequence[str] | None = None,
    descriptors: int | None = None,
) -> Iterator[Daemon]:
    """A daemon that is ready, and gone afterwards."""
    daemon = Daemon(
        directory,
        *arguments,
        environment=environment,
        confinement=confinement,
        descriptors=descriptors,
    )
    try:
        daemon.expect("ready:")
        yield daemon
    finally:
        daemon.clean_up()


def _path_with_us() -> str:
    """Where clients look for modules: here first, then where we do."""
    inherited = os.environ.get("PYTHONPATH")
    return os.pathsep.join(filter(None, [str(Path(__file__).parent), inherited]))


class ClientProcess:
    """A client program: ``rawclient`` with some lines of its own."""

    def __init__(self, directory: Path, code: str) -> None:
        self._seen = b""
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"from rawclient import *\nDIR = {str(directory)!r}\n{code}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": _path_with_us()},
        )

    def line(self) -> str:
        """Return the next line that the client says."""
        assert self.process.stdout is not None
        while b"\n" not in self._seen:
            ready, _, _ = select.select([self.process.stdout], [], [], SECONDS_MAX)
            chunk = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            assert chunk, f"the client says nothing, only {self._seen!r}"
            self._seen += chunk
        line, _, self._seen = self._seen.partition(b"\n")
        return line.decode()

    def tell(self, text: str = "") -> None:
        """Let a client that waits for a line go on."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def clean_up(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(SECONDS_MAX)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@contextmanager
def client(directory: Path, code: str) -> Iterator[ClientProcess]:
    """A client that is gone afterwards."""
    process = ClientProcess(directory, code)
    try:
        yield process
    finally:
        process.clean_up()


def run_client(directory: Path, code: str) -> list[str]:
    """Run a client to its end; return the lines it said."""
    with client(directory, code) as process:
        said, _ = process.process.communicate(timeout=SECONDS_MAX)
        assert process.process.returncode == 0
        return said.decode().splitlines()


class Disposer:
    """Closes files at once; implements ``Disposal`` and ``Disposer``."""

    def has_room(self) -> bool:
        return True

    def dispose(
        self, fd: int, *, flushes: bool, owner: int = 0, payment: Charged | None = None
    ) -> None:
        os.close(fd)
        if payment is not None:
            payment.end()


class NoDelivery:
    """Where no file is to be delivered; implements ``Deliveries`` and ``Delivery``."""

    injects = False

    def __init__(self) -> None:
        self.disposer = Disposer()

    def of(self, client: object) -> NoDelivery:
        return self

    def is_own(self, tid: int) -> bool:
        return tid == os.getpid()

    def install(self, *arguments: object) -> int:
        raise AssertionError("no file is there to be delivered")

    def look(self) -> None: ...

    def close(self) -> None: ...
