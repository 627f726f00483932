# SPDX-License-Identifier: Apache-2.0
"""Running ``files.c``: programs that exchange files and know only the kernel's ABI."""

from __future__ import annotations

import os
import select
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from channel.helpers import running
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from channel.helpers import Daemon

SOURCE: Final = Path(__file__).with_name("files.c")
PATIENCE: Final = 60.0  # seconds; a machine may be emulated


def build(directory: Path) -> Path:
    """Compile it, statically: nothing can be preloaded."""
    program = directory / "files"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread"]
    subprocess.run(["cc", *flags, "-o", program, SOURCE], check=True)
    return program


class Running:
    """One of the programs, under way."""

    def __init__(self, program: Path, *arguments: object) -> None:
        command = [str(program), *(str(argument) for argument in arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._seen = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    def expect(self, line: str) -> None:
        """Wait for a line of its output."""
        assert self.process.stdout is not None
        wanted = line.encode() + b"\n"
        while wanted not in self._seen:
            assert select.select([self.process.stdout], [], [], PATIENCE)[0], f"no {line!r}"
            chunk = os.read(self.process.stdout.fileno(), 4096)
            assert chunk, f"it ended: {self.errors()}"
            self._seen += chunk
        self._seen = self._seen.split(wanted, 1)[1]

    def errors(self) -> str:
        """Wait for its end; return what it complained of."""
        _, errors = self.process.communicate(timeout=PATIENCE)
        return errors.decode()

    def descriptors(self) -> list[str]:
        """Return what its descriptors are."""
        return descriptors(self.pid)

    def expect_descriptors(self, wanted: list[str]) -> None:
        """Wait until these are its descriptors: it closes what a call brought after its reply."""
        what = f"its descriptors never are {wanted}"
        eventually(lambda: self.descriptors() == wanted, what, seconds=PATIENCE)

    def kill(self) -> None:
        """Kill it and wait for its end."""
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)


@contextmanager
def daemon_at(directory: Path, *options: str) -> Iterator[Daemon]:
    """A daemon that is ready, and ends well."""
    with running(directory, *options) as daemon:
        yield daemon
        assert daemon.end() == 0


def descriptors(pid: int) -> list[str]:
    """Return what the descriptors of a process are, in order of their numbers."""
    folder, found = f"/proc/{pid}/fd", []
    for number in sorted(os.listdir(folder), key=int):
        with suppress(FileNotFoundError):
            # Each open of a device has an inode of its own, which the name leads to for a while.
            found.append(os.readlink(f"{folder}/{number}").removesuffix(" (deleted)"))
    return found


def helper_of(daemon: Daemon) -> int:
    """Return the process id of a daemon's helper."""
    pid = daemon.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    found = [
        int(child)
        for child in children
        if b"binderd.injector" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    assert len(found) == 1, "the daemon has no helper, or several"
    return found[0]


def at_rest(daemon: Daemon) -> tuple[list[str], list[str]]:
    """Return the descriptors of the daemon and of its helper, once nothing is under way."""
    daemon.wait_for_counts(files=0, installations=0, opens=0)
    deadline, quiet, last = time.monotonic() + PATIENCE, 0, None
    while quiet < 3:
        helper = helper_of(daemon)
        if Path(f"/proc/{helper}/comm").read_text(encoding="ascii") == "binderd-inject\n":
            now = descriptors(daemon.process.pid), descriptors(helper)
            last, quiet = now, quiet + 1 if now == last else 0
        assert time.monotonic() < deadline, "it does not come to rest"
        time.sleep(0.05)
    assert last is not None
    return last
