# SPDX-License-Identifier: Apache-2.0
"""Child processes of the demo: started, listened to, killed, and never left behind.

Knows nothing of binder.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
from signal import SIGTERM
from typing import TYPE_CHECKING, Any, Final

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from signal import Signals

_PR_SET_PDEATHSIG: Final = 1
_prctl: Final = ctypes.CDLL(None).prctl


class Child:
    """A running ``python -m``.

    Args:
        arguments: behind ``python -m``.
        listen_to: "stdout" or "stderr": which of its outputs ``lines`` gives; the other one is
            ours.
        environment: added to ours.

    Must be made in the main thread: the kernel sends the child SIGTERM when the thread that made it
    dies, so that nothing survives a demo that is killed itself.  Ctrl-C reaches only the demo,
    which ends its children in the right order.
    """

    def __init__(
        self, arguments: Sequence[str], *, listen_to: str, environment: dict[str, str] | None = None
    ) -> None:
        outputs = {listen_to: subprocess.PIPE}
        self._popen = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.PIPE,
            stdout=outputs.get("stdout", 2),  # our own stdout is for the result only
            stderr=outputs.get("stderr"),
            env={**os.environ, **(environment or {})},
            preexec_fn=_end_with_parent,
            start_new_session=True,
        )
        self._exited = os.pidfd_open(self._popen.pid)
        output = self._popen.stdout or self._popen.stderr
        assert output is not None
        self._output = trio.lowlevel.FdStream(os.dup(output.fileno()))
        output.close()
        self.name = arguments[0]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    async def lines(self) -> AsyncIterator[str]:
        """Give the lines of its output, until it closes that or we do with ``aclose``.

        A child may have children of its own, which keep its output open for longer than it lives.
        """
        rest = b""
        while True:
            try:
                data = await self._output.receive_some()
            except trio.ClosedResourceError:
                return
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace")

    async def reports(self) -> AsyncIterator[dict[str, Any]]:
        """Give the lines of its output that are JSON objects."""
        async for line in self.lines():
            with contextlib.suppress(ValueError):
                report = json.loads(line)
                if isinstance(report, dict):
                    yield report

    def signal(self, number: Signals) -> None:
        """Send it a signal, if it is still there."""
        self._popen.send_signal(number)

    def ask_to_stop(self) -> None:
        """Close its stdin."""
        if self._popen.stdin is not None and not self._popen.stdin.closed:
            self._popen.stdin.close()

    async def wait(self) -> int:
        """Return its exit status when it has ended; minus the signal's number if one killed it."""
        await trio.lowlevel.wait_readable(self._exited)
        return self._popen.wait()

    async def end(self, seconds: float, number: Signals | None = None) -> int | None:
        """Have it end: by closing its stdin and with a signal, after ``seconds`` by force.

        Returns:
            Its exit status; None if force was needed.
        """
        self.ask_to_stop()
        if number is not None:
            self.signal(number)
        with trio.move_on_after(seconds):
            return await self.wait()
        self.kill()
        return None

    def kill(self) -> None:
        """Kill it, and collect it: nothing is left of it afterwards."""
        if self._popen.poll() is None:
            self._popen.kill()
            self._popen.wait()

    async def aclose(self) -> None:
        """Kill it if need be, and close what we have of it."""
        self.kill()
        self.ask_to_stop()
        with trio.CancelScope(shield=True):
            await self._output.aclose()
        os.close(self._exited)


def _end_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, SIGTERM)
