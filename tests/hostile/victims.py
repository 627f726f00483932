# SPDX-License-Identifier: Apache-2.0
"""A server and a client who must not notice anything: started, and what they have seen."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
ALICE: Final = 4001  # their user

_AT_COUNT: Final = 4096  # as in victims.c
_RECORD: Final = struct.Struct("=QQQ")  # begin, end, status
_FAILED: Final = 2
_MOST: Final = 1 << 19  # calls; the file has holes
_PATIENCE: Final = 30.0
HELD_AT: Final = 50.0  # milliseconds; a call that takes longer was held by something


class Latencies(NamedTuple):
    """Of the calls that were under way in some time."""

    calls: int
    failed: int
    p50: float  # milliseconds
    p99: float
    max: float
    held: float  # how long altogether a call had taken more than HELD_AT, or was just doing so

    @classmethod
    def of(cls, spans: list[tuple[float, float]], failed: int) -> Latencies:
        """Return what calls add up to.

        Args:
            spans: when each was due and when it ended, milliseconds, in order.
        """
        found = sorted(end - due for due, end in spans) or [float("inf")]
        at = [found[min(int(len(found) * part), len(found) - 1)] for part in (0.5, 0.99)]
        held, until = 0.0, 0.0
        for due, end in spans:
            if end - due > HELD_AT and end > until:
                held += end - max(due, until)
                until = end
        return cls(len(found), failed, at[0], at[1], found[-1], held)


def build(folder: Path) -> Path:
    """Compile victims.c."""
    program, stress = folder / "victims", ROOT / "client" / "stress"
    words = ["cc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{stress}"]
    words += [f"-I{ROOT / 'client' / 'include'}", "-o", str(program)]
    words += [
        str(Path(__file__).with_suffix(".c")),
        str(stress / "port.c"),
        str(stress / "board.c"),
    ]
    subprocess.run(words, check=True)
    program.chmod(0o755)
    return program


class Victims:
    """A pair of processes, of a user of their own.

    Args:
        program: of ``build``.
        times: a file that does not exist yet.
        device: is theirs alone.
        kind: ``plain``, or ``files`` if each call brings one.
        interval_us: between two calls.
    """

    def __init__(
        self, program: Path, times: Path, device: Path, kind: str = "plain", interval_us: int = 1000
    ) -> None:
        self._interval_ns = interval_us * 1000
        size = _AT_COUNT + _MOST * _RECORD.size
        with times.open("w+b") as file:
            file.truncate(size)
            os.fchown(file.fileno(), ALICE, ALICE)
            self._times = mmap.mmap(file.fileno(), size)
        as_user = {"user": ALICE, "group": ALICE, "extra_groups": []}
        self._server = subprocess.Popen(
            [program, "serve", device],
            stdout=subprocess.PIPE,
            **as_user,  # type: ignore[call-overload]
        )
        assert self._server.stdout.readline() == b"ready\n"
        words = [program, "call", device, times, str(interval_us), kind]
        self._client = subprocess.Popen(words, **as_user)  # type: ignore[call-overload]
        deadline = time.monotonic() + _PATIENCE
        while not self._count():
            assert self._client.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def _count(self) -> int:
        return int(struct.unpack_from("=Q", self._times)[0])

    def between(self, start: float, end: float) -> Latencies:
        """Return the latencies of the calls that were under way then.

        A call that took longer than the interval has kept others from beginning. They count as if
        they had begun when they were due and ended with it.

        Args:
            start: by the monotonic clock, seconds.
            end: the same.
        """
        spans, failed, now = [], 0, time.monotonic_ns()
        for number in range(self._count()):
            at = _AT_COUNT + number * _RECORD.size
            began, ended, status = _RECORD.unpack_from(self._times, at)
            ended = ended or now
            if began < end * 1e9 and ended > start * 1e9:
                due = range(began, max(ended - self._interval_ns, began) + 1, self._interval_ns)
                spans += [(one / 1e6, ended / 1e6) for one in due]
                failed += status == _FAILED
        return Latencies.of(spans, failed)

    def end(self) -> None:
        """End both."""
        for process in (self._client, self._server):
            process.kill()
        for process in (self._client, self._server):
            with suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE)
        assert self._server.stdout is not None
        self._server.stdout.close()
        self._times.close()
