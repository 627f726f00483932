# SPDX-License-Identifier: Apache-2.0
"""A place where documents can be followed to the letter: a fresh working copy, a /dev of its own.

The devices of the documents are in /dev/binderfs, where others may have theirs. So what is pasted
runs in a mount namespace whose /dev is empty but for what every machine has, and that ends with
the test. Each block is one paste into a terminal: what it leaves in the background goes on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from documents.blocks import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PATIENCE: Final = 60.0  # seconds until a paste is considered stuck
GLANCE: Final = 0.05
_WAITS: Final = "request_wait_answer"  # where the kernel has those who wait for a FUSE daemon
_NEW_DEV: Final = r"""
mount -t tmpfs -o mode=755 none "$1"
for name in null zero full random urandom tty fuse; do
    touch "$1/$name"
    mount --bind "/dev/$name" "$1/$name"
done
mkdir "$1/shm" "$1/pts"
mount --bind /dev/shm "$1/shm"
mount --bind /dev/pts "$1/pts"
ln -s /proc/self/fd "$1/fd"
mount --move "$1" /dev
echo ready
exec cat
"""
_COPY_TIME: Final = 1_000_000_000  # older than any stamp of make: nothing is built again
_LEFT_OUT: Final = (".*", "build", "dist", "*.egg-info", "__pycache__", "*.so")


def working_copy(place: Path) -> Path:
    """Return a copy of this checkout as 'git clone' and 'make setup' leave it.

    The virtual environment is the one of this checkout, and the daemon is not compiled: both take
    minutes, and other tests have them.
    """
    copy = place / "binderd"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    for path in copy.rglob("*"):
        os.utime(path, (_COPY_TIME, _COPY_TIME))
    (copy / ".venv").symlink_to(ROOT / ".venv")
    (copy / "build" / "compiled").mkdir(parents=True)
    (copy / "build" / "compiled" / ".done").touch()
    return copy


class Paste:
    """Something that was pasted: a process group, and what it has said.

    Args:
        command: what runs it.
        log: where its output goes.
        environment, directory: of the command.
    """

    def __init__(
        self, command: Sequence[str], log: Path, environment: dict[str, str], directory: Path
    ) -> None:
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment,
                cwd=directory,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait(self) -> int:
        """Return its exit status; what it started in the background may go on."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end; it has said:\n{self.said}") from None

    def members(self) -> list[int]:
        """Return the processes that are left of it."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if os.getsid(int(entry.name)) == self.process.pid:
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                    found += [int(entry.name)] if state != "Z" else []
        return found

    def is_serving(self) -> bool:
        """Does one of its threads wait in a device, or is nothing left of it?"""
        members = self.members()
        return not members or any(_waits_for_a_device(pid) for pid in members)

    def signal(self, number: signal.Signals) -> None:
        """As a terminal does it: to all of them."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def end(self, number: signal.Signals) -> None:
        """End what is left of it, in the end by force."""
        self.signal(number)
        with contextlib.suppress(AssertionError):
            until(lambda: not self.members(), "it ended", seconds=10)
        self.signal(signal.SIGKILL)
        self.process.wait(PATIENCE)


class Desk:
    """Where pastes go.

    Args:
        place: an empty directory.
    """

    def __init__(self, place: Path) -> None:
        self.copy = working_copy(place)
        self._place = place
        self._pastes: list[Paste] = []
        new_dev = place / "dev"
        new_dev.mkdir()
        command = ["unshare", "--mount", "--propagation", "private", "bash", "-euc", _NEW_DEV]
        self._holder = subprocess.Popen(
            [*command, "desk", str(new_dev)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"
        names = ("HOME", "PATH", "LANG", "TERM")
        self._environment = {name: os.environ[name] for name in names if name in os.environ}
        # Nothing of the virtual environment may be on the path: it is not on a reader's.
        folders = self._environment["PATH"].split(":")
        own = str(ROOT / ".venv")
        self._environment["PATH"] = ":".join(f for f in folders if not f.startswith(own))
        self._environment["ARGS"] = "--seconds 2"  # a short 'make demo'

    def paste(self, *command: str) -> Paste:
        """Start something in the working copy."""
        # The directory is entered inside: one from outside would show the mounts of outside.
        enter = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--"]
        enter += ["env", f"--chdir={self.copy}"]
        log = self._place / f"log{len(self._pastes)}"
        paste = Paste([*enter, *command], log, self._environment, self.copy)
        self._pastes.append(paste)
        return paste

    def shell(self, text: str) -> Paste:
        """Paste into a shell; the first command that fails ends it."""
        return self.paste("bash", "-eu", "-o", "pipefail", "-c", text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for paste in reversed(self._pastes):
            paste.end(signal.SIGTERM)
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.stdout.close()
        self._holder.wait(PATIENCE)


def until(condition: Callable[[], bool], what: str, *, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so: {what}"
        time.sleep(GLANCE)


def _waits_for_a_device(pid: int) -> bool:
    for task in Path(f"/proc/{pid}/task").glob("*/wchan"):
        with contextlib.suppress(OSError):
            if task.read_text() == _WAITS:
                return True
    return False
