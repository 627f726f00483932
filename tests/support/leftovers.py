# SPDX-License-Identifier: Apache-2.0
"""A test session leaves nothing behind, or it fails: a pytest plugin.

Looked for, and what counts as ours though other sessions run on the same machine:

- mounts: those below this session's folder, and dead ones of our type outside /tmp
- processes: those that carry this session's mark in their environment; orphans, too
- device nodes: CUSE's, and whatever is called like one of ours in /dev
- the limit of descriptors of this very process, and its descriptors
- files: what is left in this session's own folder for temporary files

After each test a look at most of it (some 1 ms) notes when each was there first, so
that the report can name a test. Fixtures of a session may have them until its end.
"""

from __future__ import annotations

import gc
import os
import resource
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from binderd.channel.mounts import hold
from support.patience import patience

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

MARK: Final = "BINDERD_TEST_SESSION"  # the variable by which processes are recognised
OUR_TYPE: Final = "fuse.binderd"
CUSE_CLASS: Final = Path("/sys/class/cuse")
PATIENCE: Final = patience(
    10.0
)  # seconds for what is ending by itself: helpers, the closing of files
LOOK_SECONDS: Final = patience(2.0)  # that one look at a process may take


def mounts_below(folder: Path) -> set[str]:
    """Return what is mounted below a folder."""
    return {shown for shown, path, _ in _mounts() if path.is_relative_to(folder)}


def lost_mounts() -> set[str]:
    """Return the dead mounts of our type where no session has its temporary files."""
    return {
        shown
        for shown, path, fstype in _mounts()
        if fstype == OUR_TYPE and not path.is_relative_to("/tmp") and is_dead(path)
    }


def _mounts() -> Iterator[tuple[str, Path, str]]:
    for line in Path("/proc/self/mountinfo").read_bytes().split(b"\n")[:-1]:
        fields = line.split(b" ")
        path = Path(os.fsdecode(fields[4].decode("unicode_escape").encode("latin-1")))
        fstype = fields[fields.index(b"-") + 1].decode()
        yield f"mount {path} ({fstype})", path, fstype


def is_dead(path: Path) -> bool:
    """Whether nobody serves the file system that is mounted there; never hangs."""
    with suppress(OSError), hold(str(path)) as mount:
        return mount is not None and mount.is_dead()
    return False


def _read_in_time(path: Path) -> bytes:
    """Return what a file of /proc says; ``b"?"`` if its process lets nobody look for a while.

    It reads the process' memory, and so waits for whatever holds that process up.
    """
    answers: list[bytes] = []

    def read() -> None:
        with suppress(OSError):
            answers.append(path.read_bytes())

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(LOOK_SECONDS)
    if thread.is_alive():
        return b"?"
    if not answers:
        raise FileNotFoundError(path)
    return answers[0]


def processes_of(mark: bytes, strangers: set[str]) -> set[str]:
    """Return the processes, but this one, whose environment has that entry.

    Args:
        strangers: numbers of those that need not be looked at; more are added.
    """
    found = set()
    numbers = {name for name in os.listdir("/proc") if name.isdecimal()} - {str(os.getpid())}
    for name in numbers - strangers:
        with suppress(OSError):  # it has ended, or is none of our user's
            environment = _read_in_time(Path(f"/proc/{name}/environ"))
            if mark not in environment.split(b"\0"):
                if environment:  # it has none for a moment while it becomes another program
                    strangers.add(name)
            else:
                command = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ")
                found.add(f"process {name}: {os.fsdecode(command)[:200]}")
    return found


def zombies() -> set[str]:
    """Return this process' children that have ended and were not waited for."""
    found = set()
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
    for name in children.split():
        with suppress(OSError):
            state = Path(f"/proc/{name}/stat").read_text(encoding="utf-8", errors="replace")
            if state.rpartition(") ")[2].startswith("Z"):
                found.add(f"process {name}, which has ended and was not waited for")
    return found


def device_nodes() -> set[str]:
    """Return CUSE's devices, and nodes in /dev that are called like ours."""
    found = {f"CUSE device {path.name}" for path in _listed(CUSE_CLASS)}
    return found | {f"node {path}" for path in _listed(Path("/dev")) if "binderd" in path.name}


def _listed(folder: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from folder.iterdir()


def descriptors() -> dict[int, str]:
    """Return this process' open descriptors and what each stands for."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one that lists them
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def _key(what: str) -> str:
    """Return what stays the same of something: a process may become another program."""
    return what.partition(": ")[0]


class Guard:
    """The plugin. Made before any test is collected.

    Attributes:
        folder: this session's own, for everything temporary; ``tempfile`` uses it as well.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pytest-binderd-")).resolve()
        self.folder.chmod(0o711)  # clients of other users must get through
        self._files = self.folder / "files"
        self._files.mkdir()
        self._files.chmod(0o1777)
        os.environ["TMPDIR"] = tempfile.tempdir = str(self._files)
        self._mark = f"{MARK}={self.folder}".encode()
        os.environ[MARK] = str(self.folder)
        self._first_seen: dict[str, str] = {}  # what -> after which test
        self._strangers: set[str] = set()  # process ids; one that is used again is seen at the end
        self._before = device_nodes() | lost_mounts()
        self._limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._descriptors: dict[int, str] | None = None

    def pytest_collection_finish(self) -> None:
        self._descriptors = descriptors()  # pytest has opened its own by now

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        for what in self._now(self._strangers) | zombies():
            self._first_seen.setdefault(_key(what), nodeid)
        for what in self._changed():
            self._first_seen.setdefault(_key(what), nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        left = self.leftovers()
        if left:
            session.exitstatus = 1
            since = [self._first_seen.get(_key(what), "the last test") for what in left]
            lines = [
                f"  {what}\n    first seen after {test}"
                for what, test in zip(left, since, strict=True)
            ]
            self._report = "\n".join(["This session has left behind:", *lines])
        if not session.exitstatus:  # otherwise it may tell why
            shutil.rmtree(self.folder, ignore_errors=True)

    _report = ""

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._report:
            terminalreporter.section("leftovers", red=True)
            terminalreporter.write_line(self._report)

    def leftovers(self) -> list[str]:
        """Return what is there and was not before; waits for what is just ending."""
        deadline = time.monotonic() + PATIENCE
        gc.collect()
        while True:
            lost = (device_nodes() | lost_mounts()) - self._before
            left = sorted(self._now(set()) | zombies() | lost) + self._changed()
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.05)

    def _now(self, strangers: set[str]) -> set[str]:
        return mounts_below(self.folder) | processes_of(self._mark, strangers)

    def _changed(self) -> list[str]:
        found = [f"file {path}" for path in sorted(self._files.iterdir())]
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit != self._limit:
            found.append(f"limit of descriptors {limit}, it was {self._limit}")
        if self._descriptors is not None:
            new = {fd: to for fd, to in descriptors().items() if self._descriptors.get(fd) != to}
            found += [f"descriptor {fd}: {to}" for fd, to in sorted(new.items())]
        return found
