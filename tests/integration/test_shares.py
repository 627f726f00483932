# SPDX-License-Identifier: Apache-2.0
"""What one user can have of what is kept beside the engine; another user and root have theirs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from channel.helpers import client, needs_fuse, run_client, running

if TYPE_CHECKING:
    from pathlib import Path

    from channel.helpers import ClientProcess

pytestmark = needs_fuse

ALICE, MALLORY = 4001, 4002

# Nothing is open in the end, but the kernel keeps the inodes that were.
HOLD = """
os.setresuid({0}, {0}, {0})
fds = []
try:
    for _ in range({1}):
        fd = os.open(DIR + "/binder", os.O_RDWR)
        fds.append(os.open(f"/proc/self/fd/{{fd}}", os.O_PATH))
        os.close(fd)
except OSError as error:
    say(len(fds), errno.errorcode[error.errno])
else:
    say(len(fds))
wait_for_line()
"""

# Each thread waits for a lock that root has.
WAIT = """
import fcntl, threading
os.setresuid({0}, {0}, {0})
device = os.open(DIR + "/binder", os.O_RDWR)
said = threading.Lock()
def wait():
    fd = os.open(DIR + "/binder", os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError as error:
        with said:
            say(errno.errorcode[error.errno])
for _ in range({1}):
    threading.Thread(target=wait, daemon=True).start()
wait_for_line()
os._exit(0)
"""
LOCK = """
import fcntl
fd = os.open(DIR + "/binder", os.O_RDWR)
fcntl.flock(fd, fcntl.LOCK_EX)
say("locked")
wait_for_line()
"""


def reach(tmp_path: Path) -> Path:
    for place in (tmp_path, *tmp_path.parents[:3]):
        os.chmod(place, 0o755)
    return tmp_path / "mount"


def end(process: ClientProcess) -> None:
    process.tell()
    process.process.wait(30)


def test_inodes_that_are_held_without_an_open_file(tmp_path: Path) -> None:
    place = reach(tmp_path)
    with running(place, "--device", "binder", "--limit", "inodes=64") as daemon:
        with client(place, HOLD.format(MALLORY, 1000)) as mallory:
            assert mallory.line() == "15 ENOMEM", "whose was the first look-up of all, too"
            assert run_client(place, "say(Device(DIR + '/binder').version())") == ["8"]
            with client(place, HOLD.format(ALICE, 8)) as alice:
                assert alice.line() == "8"
            end(mallory)
        daemon.wait_for_counts(users=0)
        assert daemon.end() == 0


def test_locks_that_are_waited_for(tmp_path: Path) -> None:
    place = reach(tmp_path)
    with running(place, "--device", "binder", "--limit", "lock-waits=16") as daemon:
        with client(place, LOCK) as owner:
            assert owner.line() == "locked"
            with client(place, WAIT.format(MALLORY, 7)) as mallory:
                assert [mallory.line() for _ in range(3)] == ["ENOLCK"] * 3, "four can wait"
                with client(place, WAIT.format(ALICE, 5)) as alice:
                    assert alice.line() == "ENOLCK"
                    end(alice)
                end(mallory)
            end(owner)
        daemon.wait_for_counts(users=0)
        assert daemon.end() == 0
