# SPDX-License-Identifier: Apache-2.0
"""binderd as seen from outside: started, asked for its counts, ended, searched for leftovers."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from errno import ENOTCONN
from typing import TYPE_CHECKING, Final

import trio

from binderclient.demo.processes import Child

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

_START_SECONDS: Final = 15.0
_END_SECONDS: Final = 10.0
_COUNT_SECONDS: Final = 2.0
_LAST_WORDS_SECONDS: Final = 1.0
_PROBE_SECONDS: Final = 2.0
_FUSERMOUNT: Final = "fusermount3"  # mounts for ordinary users
_FSTYPE: Final = "fuse.binderd"
# Asks a file system whether it is served; one that is alive but stuck never answers.
_PROBE: Final = """\
import os, sys
try:
    os.statvfs(sys.argv[1])
except OSError as error:
    sys.exit(error.errno)
"""
_DESCRIPTORS_MIN: Final = 256  # three for each child, and what trio takes


class DaemonError(Exception):
    """The daemon does not do what it should; the text says what."""


class Daemon:
    """A running ``python -m binderd``; made by ``running_daemon``."""

    def __init__(self, mount: str, devices: Sequence[str]) -> None:
        self.mount = mount
        self.device = f"{mount}/{devices[0]}"
        self.said: list[str] = []  # what it wrote to stderr, its counts left out
        self.ended = trio.Event()
        self._made: tuple[str, ...] | None = None  # its mount
        self._is_ready = trio.Event()
        self._counts_in, self._counts_out = trio.open_memory_channel[dict[str, int]](16)
        arguments = ["binderd", "--mount", mount, *(f"--device={name}" for name in devices)]
        self._child = Child(arguments, listen_to="stderr")

    async def listen(self) -> None:
        """Take what it says, until it ends."""
        async for line in self._child.lines():
            if line.startswith("{"):
                self._counts_in.send_nowait(json.loads(line))
            else:
                self.said.append(line)
                if "ready" in line:
                    self._made = self._mounted()
                    self._is_ready.set()
        self.ended.set()
        self._is_ready.set()

    async def wait_ready(self) -> None:
        """Return when the device is there.

        Raises:
            DaemonError: it ended, or is not ready in time.
        """
        with trio.move_on_after(_START_SECONDS):
            await self._is_ready.wait()
        if self.ended.is_set() or not os.path.exists(self.device):  # noqa: ASYNC240
            raise DaemonError("\n".join(self.said) or "binderd did not get ready")

    async def counts(self) -> dict[str, int]:
        """Ask it what it keeps (SIGUSR1).

        Raises:
            DaemonError: it does not answer.
        """
        self._child.signal(signal.SIGUSR1)
        with trio.move_on_after(_COUNT_SECONDS):
            return await self._counts_out.receive()
        raise DaemonError("binderd does not tell its counts")

    async def wait_empty(self, seconds: float) -> dict[str, int]:
        """Return what it still keeps, when that is nothing or ``seconds`` are over."""
        deadline = trio.current_time() + seconds
        while True:
            left = {name: count for name, count in (await self.counts()).items() if count}
            if not left or trio.current_time() > deadline:
                return left
            await trio.sleep(0.1)

    async def end(self) -> int | None:
        """End it; returns its exit status, None if it had to be killed."""
        return await self._child.end(_END_SECONDS, signal.SIGTERM)

    def is_mounted(self) -> bool:
        """Is its mount still there?"""
        return self._made is not None and self._mounted() == self._made

    async def aclose(self) -> None:
        """End it whatever happened, and take its mount away if it could not itself."""
        with trio.CancelScope(shield=True):
            await self.end()
            with trio.move_on_after(_LAST_WORDS_SECONDS):
                await self.ended.wait()
            await self._child.aclose()
            # Only what it made itself, and nobody else can have mounted since.
            if self.is_mounted() and await _is_dead(self.mount) and self.is_mounted():
                print(f"{self.mount} is still mounted: taking it away", file=sys.stderr)
                command = ["umount", "-l"] if os.geteuid() == 0 else [_FUSERMOUNT, "-u", "-z"]
                await trio.run_process([*command, self.mount], check=False)

    def _mounted(self) -> tuple[str, ...] | None:
        """Return number and device of the mount of binderd's type at its place, if there is one."""
        place = os.path.realpath(os.path.dirname(self.mount))
        place = os.path.join(place, os.path.basename(self.mount))
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            here = [line.split() for line in mounts if line.split()[4] == place]
        if not here or _FSTYPE not in here[-1]:
            return None
        return tuple(here[-1][:3])


async def _is_dead(mount: str) -> bool:
    """Return whether nobody serves what is mounted there."""
    command = [sys.executable, "-c", _PROBE, mount]
    # Not trio's: it would wait for the end of what may never end.
    probe = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: ASYNC220
    exited = os.pidfd_open(probe.pid)
    try:
        with trio.move_on_after(_PROBE_SECONDS):
            await trio.lowlevel.wait_readable(exited)
            return probe.wait() == ENOTCONN
    finally:
        os.close(exited)
    probe.kill()  # not waited for: what keeps it may keep it for ever
    return False


@asynccontextmanager
async def running_daemon(mount: str, devices: Sequence[str] = ("binder",)) -> AsyncIterator[Daemon]:
    """Start a daemon, and end it when the ``async with`` block is left, whatever happens.

    Args:
        mount: the directory for the devices.
        devices: their names.
    """
    async with trio.open_nursery() as nursery:
        daemon = Daemon(mount, devices)
        nursery.start_soon(daemon.listen)
        try:
            yield daemon
        finally:
            await daemon.aclose()


def why_not() -> str | None:
    """Return what is missing for a demo, in one line that says what to do; None if nothing is."""
    if os.geteuid() != 0 and shutil.which(_FUSERMOUNT) is None:
        return (
            f"without root this needs {_FUSERMOUNT}, to mount: install it (Debian's package "
            "fuse3), or try it with sudo"
        )
    if not os.path.exists("/dev/fuse"):
        return "/dev/fuse is missing: modprobe fuse; in a container --device /dev/fuse"
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _DESCRIPTORS_MIN:
        return f"the limit of open files is {hard}: raise it to {_DESCRIPTORS_MIN} (ulimit -n)"
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return None
