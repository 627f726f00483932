# SPDX-License-Identifier: Apache-2.0
"""What the loop tells the watchdog about itself, as another process sees it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from binderd import heartbeat
from binderd.memory.client_process import ClientProcess
from channel.helpers import SECONDS_MAX, client, needs_fuse, run_client, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from channel.helpers import Daemon


def cells_of(daemon: Daemon) -> Iterator[int]:
    """Yield the numbers in a daemon's heartbeat."""
    for place in Path(f"/proc/{daemon.process.pid}/fd").iterdir():
        if "memfd:binderd-heartbeat" in os.readlink(place):
            with place.open("rb", buffering=0) as file:
                file.seek(0)
                yield from memoryview(file.read(8 * 8)).cast("q")
            return


@needs_fuse
def test_each_request_is_a_beat(tmp_path: Path) -> None:
    with running(tmp_path / "b") as daemon:
        before = list(cells_of(daemon))[heartbeat.BEATS]
        assert run_client(tmp_path / "b", "print(Device(DIR + '/binder').version())") == ["8"]
        assert list(cells_of(daemon))[heartbeat.BEATS] >= before + 4  # lookup, open, ioctl, close
        assert daemon.end() == 0


# Again and again, as the kernel may have something to say in between (FUSE_FORGET).
COMMANDS = """
device = Device(DIR + "/binder")
while True:
    device.write_read(struct.pack("=I", abi.BC_ENTER_LOOPER))
"""


@needs_fuse
def test_whose_memory_we_are_in_is_told(tmp_path: Path) -> None:
    with running(tmp_path / "b") as daemon:
        with client(tmp_path / "b", COMMANDS) as process:
            deadline = time.monotonic() + SECONDS_MAX
            while list(cells_of(daemon))[heartbeat.SUBJECT] != -process.process.pid:
                assert time.monotonic() < deadline
        assert daemon.end() == 0


def test_a_subject_takes_signals_and_is_never_somebody_else() -> None:
    """A descriptor of /proc/PID does what a pidfd does."""
    with subprocess.Popen(["sleep", "600"]) as sleeper:
        process = ClientProcess(sleeper.pid, sleeper.pid)
        assert process.space.is_alive()
        assert heartbeat.read(heartbeat.SUBJECT) == process.space.subject > 0
        signal.pidfd_send_signal(process.space.subject, signal.SIGKILL)
        assert sleeper.wait(SECONDS_MAX) == -signal.SIGKILL
        try:
            signal.pidfd_send_signal(process.space.subject, signal.SIGKILL)
        except ProcessLookupError:
            pass
        else:
            raise AssertionError("it is still somebody")
        process.close()
