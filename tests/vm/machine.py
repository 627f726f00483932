# SPDX-License-Identifier: Apache-2.0
"""A machine that is started once and runs any number of commands, one after another or at once.

    with Machine() as machine:
        status = machine.run("uname -a", output=sys.stdout.buffer, errors=sys.stderr.buffer)
        worker = machine.start(".venv/bin/python -m something")   # long-lived
        worker.write(b"script\n")
        answer = worker.output.readline()

One thread reads the channel and hands each command its output; everything else happens in the
caller's threads. When the channel closes, the machine is gone and every wait ends with a
MachineError that has the kernel's last words.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from vm import frames, initramfs, kernel, qemu
from vm.errors import CommandTimeoutError, MachineError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

REPOSITORY: Final = initramfs.HERE.parents[1]
ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "USER": "root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",  # progress is worth more here than the few writes
    "BINDERD_VM": "1",  # how a test knows that it runs inside
}
PIECE: Final = 1 << 20
LAST_WORDS: Final = 20  # lines of the kernel's console in an error message
ALARM: Final = re.compile(r"\bBUG\b|Oops|panic|binderd-vm:")
KILL_PATIENCE: Final = 30.0  # seconds from SIGKILL to the command's end


class Sink(Protocol):
    """Takes what a command writes, in the channel's thread."""

    def write(self, data: bytes, /) -> object: ...

    def flush(self) -> object: ...


class Buffer:
    """A sink to read from: what a command has written so far. Unbounded."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ended = False
        self._changed = threading.Condition()

    def write(self, data: bytes) -> None:
        with self._changed:
            self._data += data
            self._changed.notify_all()

    def flush(self) -> None:
        """Nothing to do: part of being a sink."""

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def read(self, size: int, timeout: float | None = None) -> bytes:
        """Return exactly size bytes, or fewer when the command has ended.

        Raises:
            TimeoutError: they did not come in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._data) >= size or self._ended, timeout):
                raise TimeoutError(f"{len(self._data)} of {size} bytes came in {timeout} s")
            return self._take(size)

    def readline(self, timeout: float | None = None) -> bytes:
        """Return a line with its end, or what is left when the command has ended.

        Raises:
            TimeoutError: the line did not end in time.
        """
        searched, position = 0, -1

        def complete() -> bool:
            nonlocal searched, position
            position = self._data.find(b"\n", searched)
            searched = len(self._data)
            return position >= 0 or self._ended

        with self._changed:
            if not self._changed.wait_for(complete, timeout):
                raise TimeoutError(f"no line came in {timeout} s")
            return self._take(position + 1 if position >= 0 else len(self._data))

    def read_all(self) -> bytes:
        """Return everything that is there now."""
        with self._changed:
            return self._take(len(self._data))

    def _take(self, size: int) -> bytes:
        taken = bytes(self._data[:size])
        del self._data[:size]
        return taken


class Command:
    """A command in the machine. Made by ``Machine.start``."""

    def __init__(
        self, machine: Machine, number: int, output: Sink | None, errors: Sink | None
    ) -> None:
        self._machine = machine
        self._number = number
        self.output = Buffer()
        self.errors = Buffer()
        self._sinks: tuple[Sink, Sink] = (output or self.output, errors or self.errors)
        self._ended = threading.Event()
        self._status: int | None = None

    def write(self, data: bytes) -> None:
        """Add to the command's standard input.

        Raises:
            MachineError: the machine is gone.
        """
        for start in range(0, len(data), PIECE):
            self._machine.send(frames.INPUT, self._number, data[start : start + PIECE])

    def end_input(self) -> None:
        """End of file on its standard input, once it has read what was written."""
        self._machine.send(frames.INPUT, self._number)

    def kill(self) -> None:
        """SIGKILL to its process group; returns at once."""
        self._machine.send(frames.KILL, self._number)

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit status (128 + signal where one ended it); its output is complete then.

        Raises:
            TimeoutError: it still runs.
            MachineError: the machine is gone.
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"the command still runs after {timeout} s")
        if self._status is None:
            raise self._machine.death()
        return self._status

    def deliver(self, kind: int, content: bytes) -> None:
        """Take a frame; called by the channel's thread."""
        if kind == frames.EXIT:
            self.end(int(content))
        else:
            sink = self._sinks[kind == frames.ERRORS]
            sink.write(content)
            sink.flush()

    def end(self, status: int | None) -> None:
        """No more frames will come; None = because the machine is gone."""
        self._status = status
        for buffer in (self.output, self.errors):
            buffer.end()
        self._ended.set()


class Machine:
    """A running machine.

    Args:
        settings: default: from the environment.

    Raises:
        MachineError: it could not be started, in text for a person.
    """

    def __init__(self, settings: qemu.Settings | None = None) -> None:
        self.settings = settings or qemu.Settings()
        self.boot_seconds = 0.0
        self._commands: dict[int, Command] = {}
        self._last_number = 0
        self._lock = threading.Lock()  # of the two above
        self._sending = threading.Lock()
        self._ready = threading.Event()
        self._broken = ""
        self._death: MachineError | None = None
        self._resources = contextlib.ExitStack()
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Switch it off, without ado: nothing in it is worth writing back. Can be repeated."""
        self._death = self._death or MachineError("the machine was switched off")
        self._resources.close()

    def start(
        self,
        command: str,
        *,
        directory: Path | str = REPOSITORY,
        environment: dict[str, str] | None = None,
        output: Sink | None = None,
        errors: Sink | None = None,
    ) -> Command:
        """Start a command, as root, for ``bash -c``.

        Args:
            environment: variables to add to ENVIRONMENT.
            output, errors: what takes its standard output and error; default: its own buffers.

        Raises:
            MachineError: the machine is gone.
        """
        variables = {**ENVIRONMENT, **(environment or {})}
        content = frames.pack_command(command, str(directory), variables)
        with self._lock:
            self._last_number += 1
            started = Command(self, self._last_number, output, errors)
            self._commands[self._last_number] = started
            number = self._last_number
        self.send(frames.RUN, number, content)
        return started

    def run(
        self,
        command: str,
        *,
        timeout: float | None = None,
        directory: Path | str = REPOSITORY,
        output: Sink | None = None,
        errors: Sink | None = None,
    ) -> int:
        """Run a command with an empty standard input and return its exit status.

        Args:
            timeout: seconds; default: that of the settings.

        Raises:
            CommandTimeoutError: it took longer, and was killed.
            MachineError: the machine is gone.
        """
        timeout = timeout or self.settings.timeout
        started = self.start(command, directory=directory, output=output, errors=errors)
        started.end_input()
        try:
            return started.wait(timeout)
        except TimeoutError:
            started.kill()
        try:
            started.wait(KILL_PATIENCE)
        except TimeoutError:
            self.close()
            raise CommandTimeoutError(
                f"no end after {timeout:g} s (VM_TIMEOUT), and SIGKILL did not help:"
                f" the machine has been switched off{self._last_words()}"
            ) from None
        raise CommandTimeoutError(f"no end after {timeout:g} s (VM_TIMEOUT): killed")

    def send(self, kind: int, number: int, content: bytes = b"") -> None:
        """Send a frame.

        Raises:
            MachineError: the machine is gone.
        """
        try:
            with self._sending:
                self._channel.sendall(frames.pack(kind, number, content))
        except OSError:
            raise self.death() from None

    def death(self) -> MachineError:
        """Return why the machine is gone."""
        return self._death or MachineError(f"the machine died{self._last_words()}")

    def _start(self) -> None:
        start = time.monotonic()
        unpacked = kernel.obtain()
        results = self.settings.results
        if results:
            Path(results).mkdir(parents=True, exist_ok=True)
        settings = {"results": os.path.realpath(results) if results else ""}
        archive, self._console, self._qemu_log = (
            self._resources.enter_context(_file_without_name()) for _ in range(3)
        )
        archive.write(initramfs.build(unpacked, settings, is_system=bool(self.settings.root)))
        archive.flush()
        self._channel, theirs = socket.socketpair()
        self._resources.callback(self._channel.close)
        with theirs:
            descriptors = [file.fileno() for file in (archive, self._console, theirs)]
            self._start_qemu(qemu.command_line(self.settings, unpacked, *descriptors), descriptors)
        self._await_ready()
        self.boot_seconds = time.monotonic() - start

    def _start_qemu(self, command: list[str], descriptors: list[int]) -> None:
        """Start QEMU and the thread; both end when the resources are closed."""
        self._qemu = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._qemu_log,
            stderr=self._qemu_log,
            pass_fds=descriptors,
            start_new_session=True,  # Ctrl-C is for us to act on
            env={**os.environ, "PATH": kernel.search_path()},
        )
        thread = threading.Thread(target=self._receive, name="binderd-vm channel", daemon=True)
        self._resources.callback(thread.join)
        self._resources.callback(self._qemu.wait)
        self._resources.callback(self._qemu.kill)
        thread.start()

    def _await_ready(self) -> None:
        if not self._ready.wait(self.settings.boot_timeout):
            raise MachineError(
                f"the machine was not ready after {self.settings.boot_timeout:g} s"
                f" (VM_BOOT_TIMEOUT){self._last_words()}"
            )
        if self._broken:
            raise MachineError(f"the machine is of no use: {self._broken}{self._last_words()}")
        if self._death:
            raise self._death

    def _receive(self) -> None:
        """The channel's thread: until the channel closes, which it does when QEMU ends."""
        parser = frames.Parser()
        with contextlib.suppress(OSError):
            while piece := self._channel.recv(PIECE):
                for kind, number, content in parser.feed(piece):
                    self._deliver(kind, number, content)
        with self._lock:
            self._death = self._death or MachineError(f"the machine died{self._last_words()}")
            commands = tuple(self._commands.values())
            self._commands.clear()
        for command in commands:
            command.end(None)
        self._ready.set()

    def _deliver(self, kind: int, number: int, content: bytes) -> None:
        if kind in {frames.READY, frames.BROKEN}:
            self._broken = content.decode() if kind == frames.BROKEN else ""
            self._ready.set()
            return
        with self._lock:
            command = self._commands.get(number)
            if kind == frames.EXIT:
                self._commands.pop(number, None)
        if command:
            command.deliver(kind, content)

    def _last_words(self) -> str:
        """Return what QEMU and the kernel said last, to be appended to a message."""
        words = ""
        for title, file in (("QEMU", self._qemu_log), ("its console", self._console)):
            with contextlib.suppress(OSError, ValueError):  # not there yet, or closed
                text = os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)
                if lines := _essence(text.decode(errors="replace")):
                    words += "\n".join((f"\n{title} said last:", *lines))
        memory = self.settings.memory
        return words or f"\nwithout a word; is VM_MEMORY={memory} too little, or is it loaded?"


def _file_without_name() -> BinaryIO:
    return os.fdopen(os.memfd_create("binderd-vm"), "w+b")


def _essence(text: str) -> list[str]:
    """Return the lines to show: from the first alarm on, or else the last ones."""
    lines = [f"  {line.rstrip()}" for line in text.splitlines() if line.strip()]
    for position, line in enumerate(lines):
        if ALARM.search(line):
            return lines[position:][:LAST_WORDS]
    return lines[-LAST_WORDS:]
