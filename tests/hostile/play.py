# SPDX-License-Identifier: Apache-2.0
"""One attack on a daemon of its own, with victims: how these were before it, and meanwhile."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from channel.helpers import ClientProcess, Daemon, running
from hostile.checks import CHECKS, Gauges
from hostile.table import END, LOAD, NONE, STALL, Attack
from hostile.victims import Latencies, Victims

HERE: Final = Path(__file__).parent
DEVICES: Final = ("hers", "his", "his1", "his2", "his3", "his4")

# Targets
MAX_MS: Final = 20.0
STALL_MS: Final = 1000.0  # the worst, and all together
END_SECONDS: Final = 0.5

_PREPARATION: Final = 120.0  # seconds at most
_HOLDING: Final = 2.0  # seconds that something stays stalled after the request is answered
_SETTLING: Final = 0.5  # seconds, during which a dead attacker is tidied up
_GLANCE: Final = 0.05  # seconds
_STUCK: Final = 40.0  # seconds that a daemon may take to end before we take that for never
_INTERVAL_US: Final = {"plain": 1000, "files": 10_000}


class Result(NamedTuple):
    """What came of it."""

    name: str
    quiet: Latencies
    under: Latencies
    done: bool  # did the attack come to its end?
    end_seconds: float | None  # how long the daemon took to end, where it was told to
    complaints: list[str]  # of the checks

    def failures(self, kind: str, scheduler: float = 0.0) -> list[str]:
        """Return what is worse than the target.

        Args:
            kind: of the attack.
            scheduler: milliseconds of p99 that so many processes cost without any device.
        """
        found = list(self.complaints)
        if kind == NONE:
            return found
        quiet, under = self.quiet, self.under
        if kind == END:
            if self.end_seconds is None or self.end_seconds > END_SECONDS:
                found.append(f"the end takes {_shown(self.end_seconds)} s")
            return found
        if under.failed:
            found.append(f"{under.failed} of the victims' calls failed")
        if kind == STALL:
            if max(under.max, under.held) > STALL_MS:
                found.append(f"held for {under.held:.0f} ms")
            return found
        if under.max > max(MAX_MS, 2 * quiet.max):
            found.append(f"max {under.max:.1f} ms")
        if under.p99 > 2 * quiet.p99 + 1 + scheduler and kind == LOAD:
            found.append(f"p99 {under.p99:.1f} ms")
        return found

    def as_data(self) -> dict[str, Any]:
        return {
            **self._asdict(),
            "quiet": self.quiet._asdict(),
            "under": self.under._asdict(),
        }

    @classmethod
    def of_data(cls, data: dict[str, Any]) -> Result:
        return cls(
            **{**data, "quiet": Latencies(**data["quiet"]), "under": Latencies(**data["under"])}
        )


def _shown(seconds: float | None) -> str:
    return f"more than {_STUCK:g}" if seconds is None else f"{seconds:.2f}"


class Attacker(ClientProcess):
    """A program of ``attacks``, with all that it forks."""

    def __init__(self, attack: Attack, folder: Path, size: int) -> None:
        self._seen = b""
        path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, HERE / attack.path(), folder, str(size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            process_group=0,
        )

    def says(self, word: str, seconds: float) -> bool:
        """Return whether it says that, as its next line, in some time."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._seen:
            if not select.select([self.process.stdout], [], [], _GLANCE)[0]:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    return False
                continue
            chunk = os.read(self.process.stdout.fileno(), 4096)
            if not chunk:
                return False
            self._seen += chunk
        return self.line() == word

    def clean_up(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        super().clean_up()


def play(attack: Attack, victims_program: Path, folder: Path, size: int, quiet: float) -> Result:
    """Play one.

    Args:
        victims_program: of ``victims.build``; everybody must get there.
        folder: is made.
        quiet: seconds without an attack before it.
    """
    prepare(folder)
    with ExitStack() as stack:
        arguments = [word for name in DEVICES for word in ("--device", name)]
        daemon = stack.enter_context(running(folder / "mount", "--transport", "fuse", *arguments))
        assert daemon.process.stderr is not None
        fcntl.fcntl(daemon.process.stderr, fcntl.F_SETPIPE_SZ, 1 << 20)  # nobody reads it meanwhile
        victims = Victims(
            victims_program,
            folder / "times",
            folder / "mount" / "hers",
            attack.victims,
            _INTERVAL_US[attack.victims],
        )
        stack.callback(victims.end)
        began = time.monotonic()
        time.sleep(quiet)
        calm = victims.between(began, time.monotonic())
        before = Gauges(daemon)
        seconds, complaints = None, []
        attacker = Attacker(attack, folder, size)
        try:
            assert attacker.says("now", _PREPARATION), f"{attack.name} cannot be prepared"
            began = time.monotonic()
            if attack.kind == END:
                time.sleep(_SETTLING)
                done, seconds = True, end(daemon)
            else:
                done = attacker.says("done", attack.seconds)
                if done and attack.kind == STALL:
                    time.sleep(_HOLDING)
                complaints = [
                    said for name in attack.checks if (said := CHECKS[name](daemon, before))
                ]
        finally:
            attacker.clean_up()
        time.sleep(_SETTLING)
        under = victims.between(began, time.monotonic())
        return Result(attack.name, calm, under, done, seconds, complaints)


def prepare(folder: Path) -> None:
    """Make the folder of an attack, to which everybody may write."""
    folder.mkdir()
    folder.chmod(0o1777)


def end(daemon: Daemon) -> float | None:
    """Tell the daemon to end; return how many seconds it takes, None for too many."""
    began = time.monotonic()
    daemon.process.send_signal(signal.SIGTERM)
    try:
        daemon.process.wait(_STUCK)
    except subprocess.TimeoutExpired:
        return None
    return time.monotonic() - began
