# SPDX-License-Identifier: Apache-2.0
"""Whatever a client holds the daemon with ends in a second, and nobody else pays for it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from binderd.channel import syscalls
from binderd.channel.fuse_mount import read_mounts
from binderd.watchdog.connections import abort
from channel.helpers import SECONDS_MAX, client, needs_fuse, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_fuse

STALL_MAX = 1.0  # seconds, from begin to end
USER = 65534
SETUP = f"from stalls import *\nfiles = SlowFiles(DIR + '-hostile', {USER})\n"
GO = "say('about to')\n"

# Several pages, each of which comes in time.
ONE_AFTER_THE_OTHER = f"""
from stalls import *
files = SlowFiles(DIR + '-hostile', {USER}, 0.25)
be_user({USER})
device = Device(DIR + "/binder")
address = map_file(files.open(), PAGES * PAGE)
advise_random(address, PAGES * PAGE)
{GO}
use(device.fd, address, PAGES * PAGE)
"""
# The same, as many requests.
AGAIN_AND_AGAIN = f"""
from stalls import *
files = SlowFiles(DIR + '-hostile', {USER}, 0.25)
be_user({USER})
device = Device(DIR + "/binder")
address = map_file(files.open(), PAGES * PAGE)
advise_random(address, PAGES * PAGE)
{GO}
for page in range(PAGES):
    use(device.fd, address + page * PAGE)
"""
BEHIND_OVERLAYFS = f"""
{SETUP}
UPPER = DIR + '-upper'
os.mkdir(UPPER)
options = f"lowerdir={{files.place}}:{{UPPER}}".encode()
assert stalls._libc.mount(b"overlay", UPPER.encode(), b"overlay", 1, options) == 0
fd = os.open(UPPER + "/x", os.O_RDONLY)
be_user({USER})
device = Device(DIR + "/binder")
address = map_file(fd, PAGE)
{GO}
use(device.fd, address)
""".replace("from stalls import *", "import stalls\nfrom stalls import *")
LOCK_HELD = f"""
{SETUP}
be_user({USER})
device = Device(DIR + "/binder")
address = anonymous(PAGE)
hold_own_mappings(files)
{GO}
use(device.fd, address)
"""
# What the daemon has open is the memory of a thread that is gone, and of nobody by name.
ENDED_THREAD = f"""
{SETUP}
be_user({USER})
import signal
def first():
    stalls.wait_until_leader_is_gone()
    global device, address
    device = Device(DIR + "/binder")
    address = anonymous(PAGE)
    use(device.fd, address)
    stalls.start(second)
def second():
    stalls.wait_until_others_are_gone()
    use(device.fd, address, 4)
    stalls.map_over(files.open(), address)
    {GO}
    use(device.fd, address)
stalls.start(first)
stalls.end_thread()
""".replace("from stalls import *", "import stalls\nfrom stalls import *")


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where to mount; everybody gets there, and what clients mounted beside it goes."""
    for parent in (tmp_path, *tmp_path.parents):
        if parent.name.startswith(("pytest", "test")):
            parent.chmod(0o755)
    yield tmp_path / "b"
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        for words in map(str.split, table):
            if words[4].startswith(str(tmp_path)):
                abort(int(words[2].partition(":")[2]))  # else its processes never end
    for mount in reversed(list(read_mounts())):
        if mount.path.startswith(str(tmp_path)):
            syscalls.unmount(mount.path, syscalls.MNT_DETACH)


HOSTILE = {
    "pages in a row": ONE_AFTER_THE_OTHER,
    "requests in a row": AGAIN_AND_AGAIN,
    "overlayfs": BEHIND_OVERLAYFS,
    "lock": LOCK_HELD,
    "ended thread": ENDED_THREAD,
}
VICTIM = """
device = Device(DIR + "/hwbinder")
say("up")
longest = 0.0
import time, select
while not select.select([sys.stdin], [], [], 0.001)[0]:
    began = time.monotonic()
    device.version()
    longest = max(longest, time.monotonic() - began)
say(longest)
"""


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_nobody_waits_for_longer_than_a_second(directory: Path, hostile: str) -> None:
    with running(directory) as daemon:
        with client(directory, VICTIM) as victim, client(directory, hostile) as process:
            assert victim.line() == "up"
            assert process.line() == "about to"
            assert f"client {process.process.pid}" in daemon.expect(": killed")
            assert process.process.wait(SECONDS_MAX) == -signal.SIGKILL
            victim.tell()
            assert float(victim.line()) < STALL_MAX
        assert daemon.end() == 0
