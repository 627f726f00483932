# SPDX-License-Identifier: Apache-2.0
"""The processes inside: servers that say when they are ready, and the command.

Whatever happens to this process, kill -9 included, the servers end with it. What the command leaves
behind is ended as well, as its devices are going.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from binderclient.preload import NOT_EXECUTABLE, RunError
from binderclient.private import namespace
from binderclient.private.namespace import PrivateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from binderclient.private.namespace import User

    _Mask = set[int | signal.Signals]

_READY_SECONDS: Final = 30.0
_END_SECONDS: Final = 10.0
_LEFTOVER_SECONDS: Final = 2.0  # between SIGTERM and SIGKILL
_GIVE_UP_SECONDS: Final = 10.0  # something in there makes processes faster than they end
_GLANCE_SECONDS: Final = 0.02
_PASSED_ON: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_OF_TERMINALS: Final = (signal.SIGINT, signal.SIGQUIT)  # sent to the command as well
_SAID_MAX: Final = 4096  # bytes of a server's last words


class Server:
    """``python -m MODULE ARGUMENT...``, which is ready when this is made.

    Args:
        arguments: the module and its arguments.

    Raises:
        PrivateError: it ended, with what it said, or takes too long.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.name = arguments[0]
        # Nobody has to read it meanwhile, and no place for files is needed.
        self._said = os.fdopen(os.memfd_create("said"), "w+b")
        # An abstract address: known only to the processes that are told, and gone with the socket.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.bind("")
            address = "@" + channel.getsockname()[1:].decode("ascii")
            # It finds what we find, and nothing in the directory that we happen to be in.
            places = os.pathsep.join(os.path.abspath(place) for place in sys.path if place)
            with _signals_held() as mask:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-m", *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._said,
                    env={**os.environ, "PYTHONPATH": places, "NOTIFY_SOCKET": address},
                    process_group=0,  # Ctrl-C is for the command
                    preexec_fn=partial(_before, os.getpid(), mask),
                )
            try:
                self._await_ready(channel)
            except BaseException:
                self.end()
                raise

    def _await_ready(self, channel: socket.socket) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        ended = os.pidfd_open(self.process.pid)
        try:
            while True:
                left = max(0.0, deadline - time.monotonic())
                ready, _, _ = select.select([channel.fileno(), ended], [], [], left)
                if channel.fileno() in ready:
                    if b"READY=1" in channel.recv(4096).split(b"\n"):
                        return
                elif ended in ready:
                    raise PrivateError(self.why_it_ended())
                elif not ready:
                    raise PrivateError(f"{self.name} is not ready after {_READY_SECONDS:g} s")
        finally:
            os.close(ended)

    def why_it_ended(self) -> str:
        """Return why a server has ended that was not told to."""
        status = self.process.wait()
        if status < 0:
            return f"{self.name} was killed by signal {-status}"
        size = self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, size - _SAID_MAX))
        said = self._said.read(_SAID_MAX).decode(errors="replace").strip()
        # Its last line says why; before that are warnings.
        return said.splitlines()[-1] if said else f"{self.name} ended with status {status}"

    def end(self) -> None:
        """End it; it is killed if it does not."""
        self.process.terminate()
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._said.close()


@contextmanager
def _signals_held() -> Iterator[_Mask]:
    """Have signals wait while a process is made; gives the mask that it is to have.

    Python runs functions of its own around a fork, and an exception that a handler raises in one of
    those is lost.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED_ON, *_OF_TERMINALS})
    try:
        yield mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _before(parent: int, mask: _Mask, user: User | None = None) -> None:
    """Prepare a process, between fork and exec.

    Args:
        parent: the process id of its parent, which it is not to outlive.
        mask: the signals that are to be blocked in it.
        user: the user that it is to run as; None: that of this process.
    """
    if user is not None:
        namespace.become(user)
    namespace.end_with_parent(signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)
    for number in (*_PASSED_ON, *_OF_TERMINALS):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class Ended(Exception):
    """A signal has ended this process before there was a command to pass it on to."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status = 128 + number


class Signals:
    """What becomes of signals to this process, in a ``with`` statement.

    While the command runs they are passed on to it, but for those that come from a terminal, as
    that sends them to the command as well. Before that they end this process, in order (``Ended``);
    once it is ending they change nothing. Those that are ignored remain so, in the command as well.
    """

    def __init__(self) -> None:
        self._command: subprocess.Popen[bytes] | None = None
        self._is_ending = False

    def __enter__(self) -> Self:
        for number in (*_PASSED_ON, *_OF_TERMINALS):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        self.are_over()

    def are_over(self) -> None:
        """From now on we are ending."""
        self._command, self._is_ending = None, True

    def are_for(self, command: subprocess.Popen[bytes]) -> None:
        """From now on they are for the command."""
        self._command = command

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if self._command is not None:
            if number in _PASSED_ON:
                self._command.send_signal(number)
        elif not self._is_ending:
            self._is_ending = True
            raise Ended(number)


def run(path: str, command: Sequence[str], user: User | None, signals: Signals) -> int:
    """Run a program to its end; it has all files that we were given.

    Args:
        path: of the program.
        command: its arguments, from argv[0] on.
        user: the user that it is to run as; None: that of this process.
        signals: what becomes of signals to this process: from now on they are passed on.

    Returns:
        Its exit status as a shell has it: 128 and the number of the signal that has killed it.

    Raises:
        RunError: it cannot be executed.
    """
    with _signals_held() as mask:
        try:
            child = subprocess.Popen(
                list(command),
                executable=path,
                close_fds=False,
                preexec_fn=partial(_before, os.getpid(), mask, user),
            )
        except OSError as error:
            raise RunError(f"{command[0]}: {error.strerror}", NOT_EXECUTABLE) from None
        signals.are_for(child)  # one that has come meanwhile as well
    status = child.wait()
    signals.are_over()
    return status if status >= 0 else 128 - status


def end_leftovers(servers: Sequence[Server] = ()) -> bool:
    """End what the command has left behind: all our children but the servers.

    Children of children that end become ours (``namespace.adopt_orphans``). Only what is our own
    child is sent a signal: its number is its own until we have waited for it.

    Returns:
        Whether all have ended.
    """
    spared = {server.process.pid for server in servers}
    began = time.monotonic()
    while True:
        passed = time.monotonic() - began
        children = [pid for pid in _children() if pid not in spared and not _has_ended(pid)]
        if not children:
            return True
        if passed > _GIVE_UP_SECONDS:
            return False
        for pid in children:
            os.kill(pid, signal.SIGKILL if passed > _LEFTOVER_SECONDS else signal.SIGTERM)
        time.sleep(_GLANCE_SECONDS)


def _has_ended(child: int) -> bool:
    try:
        return os.waitpid(child, os.WNOHANG) != (0, 0)
    except ChildProcessError:
        return True  # /proc is of another pid namespace, in which that number is another process


def _children() -> list[int]:
    own, found = os.getpid(), []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError):
                stat = Path(f"/proc/{entry}/stat").read_bytes()
                if int(stat.rpartition(b")")[2].split()[1]) == own:
                    found.append(int(entry))
    return found
