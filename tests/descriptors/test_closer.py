# SPDX-License-Identifier: Apache-2.0
"""Closes that get stuck, as one user's may for ever: others' go on, and there is an end to them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from binderd.closer import Closer
from channel.helpers import SECONDS_MAX, needs_fuse, run_client
from channel.test_flights import ALICE, MALLORY, daemon_with
from support.waiting import eventually

if TYPE_CHECKING:
    import pytest

HOSTILE = Path(__file__).parents[1] / "hostile"
STUCK = 200
HONEST = f"""
import sys
sys.path.insert(0, {str(HOSTILE.parent)!r})
from hostile.means import *
from hostile.attacks.closes import errors_of
os.setresuid({ALICE}, {ALICE}, {ALICE})
device = Device(DIR + "/his")
say(*errors_of(device, os.open("/dev/null", os.O_RDONLY), 4))
"""


def test_one_users_closes_do_not_hold_up_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    closer, may_go_on = Closer(), threading.Event()
    closed: list[int] = []
    before = threading.active_count()
    real_close = os.close

    def close(fd: int) -> None:
        if fd < 0:
            assert may_go_on.wait(SECONDS_MAX)
            return
        real_close(fd)
        closed.append(fd)

    monkeypatch.setattr("binderd.closer.os.close", close)
    over = []
    for _ in range(STUCK):
        closer.close([-1], MALLORY, lambda: over.append(MALLORY))
    file = os.memfd_create("hers")
    closer.close([file], ALICE, lambda: over.append(ALICE))
    eventually(lambda: over == [ALICE], "hers waits for his")
    assert closed == [file]
    assert threading.active_count() - before < 40, "one user has a few threads at most"
    may_go_on.set()
    eventually(lambda: len(over) == STUCK + 1)
    eventually(lambda: threading.active_count() == before, "idle threads stay")


@needs_fuse
def test_who_sends_what_cannot_be_closed_pays_for_it(tmp_path: Path) -> None:
    with daemon_with(tmp_path, "--device", "his", "--limit", "closes=16") as daemon:
        command = [sys.executable, HOSTILE / "attacks" / "closes.py", tmp_path, "9"]
        path = os.pathsep.join([str(HOSTILE.parent), str(HOSTILE.parents[1] / "protocol")])
        with subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        ) as attacker:
            try:
                assert attacker.stdout is not None
                assert attacker.stdout.readline() == b"now\n"
                errors = [int(word) for word in attacker.stdout.readline().split()]
                assert errors == [-errno.EINVAL] * 4 + [-errno.ENOMEM] * 5
                said = run_client(daemon.directory, HONEST)
                assert said == [" ".join([f"{-errno.EINVAL}"] * 4)]
            finally:
                os.killpg(attacker.pid, signal.SIGKILL)
