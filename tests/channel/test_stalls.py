# SPDX-License-Identifier: Apache-2.0
"""Whatever a client holds the daemon with ends in a second, and nobody else pays for it."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from binderd.linux import mount as linux_mount
from binderd.linux.mountinfo import read_mounts
from binderd.watchdog import fault
from binderd.watchdog.access import Access
from binderd.watchdog.connections import abort
from binderd.watchdog.culprit import Culprit
from binderwire import binder_abi as abi
from channel.helpers import SECONDS_MAX, client, needs_fuse, run_client, running
from channel.test_watchdog import FAULTED, HANDED_ON, SERVED, USE_IT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from channel.helpers import Daemon

pytestmark = needs_fuse

STALL_MAX = 3.0  # seconds: it should be 1, and a busy machine adds to that
USER = 65534
SETUP = f"from stalls import *\nfiles = SlowFiles(DIR + '-hostile', {USER})\n"
GO = "say('about to')\n"

# Several pages of a payload, each of which comes soon; all of them take longer than anybody waits.
SEND_PAGES = f"""
from stalls import *
start_manager(DIR + "/binder", {USER})
files = SlowFiles(DIR + '-hostile', {USER}, 0.25)
be_user({USER})
device = Device(DIR + "/binder")
fd = files.open()
address = map_file(fd, PAGES * PAGE)
advise_random(address, PAGES * PAGE)
os.close(fd)  # or its flush at our end would wait for ourselves
{GO}
for count in (4, PAGES):
    body = abi.binder_transaction_data.build(
        flags=abi.TF_ONE_WAY, data_size=count * PAGE, buffer=address
    )
    say(device.write_read(struct.pack("=I", abi.BC_TRANSACTION) + body, 256)[4:].hex())
"""
# The same, as many requests, each of which is in time.
AGAIN_AND_AGAIN = f"""
from stalls import *
files = SlowFiles(DIR + '-hostile', {USER}, 0.25)
be_user({USER})
device = Device(DIR + "/binder")
fd = files.open()
address = map_file(fd, PAGES * PAGE)
advise_random(address, PAGES * PAGE)
os.close(fd)  # or its flush at our end would wait for ourselves
{GO}
for page in range(8):
    say(outcome(device.fd, address + page * PAGE))
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
os.close(fd)  # or its flush at our end would wait for ourselves
{GO}
say(outcome(device.fd, address))
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
            linux_mount.unmount(mount.path, linux_mount.MNT_DETACH)


HOSTILE = {
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
def test_everybody_goes_on_soon(directory: Path, hostile: str) -> None:
    with running(directory) as daemon:
        with client(directory, VICTIM) as victim, client(directory, hostile) as process:
            assert victim.line() == "up"
            assert process.line() == "about to"
            assert f"client {process.process.pid}" in daemon.expect(": killed")
            assert process.process.wait(SECONDS_MAX) == -signal.SIGKILL
            victim.tell()
            assert float(victim.line()) < STALL_MAX
        assert daemon.end() == 0


WORDS = [
    struct.pack("=I", word).hex() for word in (abi.BR_TRANSACTION_COMPLETE, abi.BR_FAILED_REPLY)
]
SLOW = {
    "pages in a row": (SEND_PAGES, WORDS),
    "requests in a row": (AGAIN_AND_AGAIN, ["EINVAL"] * 8),
    "overlayfs": (BEHIND_OVERLAYFS, ["EFAULT"]),
}


@pytest.mark.parametrize(("slow", "seen"), SLOW.values(), ids=SLOW)
def test_who_has_slow_memory_waits_alone(directory: Path, slow: str, seen: list[str]) -> None:
    with running(directory, "--device", "binder", "--device", "hwbinder") as daemon:
        with client(directory, VICTIM) as victim, client(directory, slow) as process:
            assert victim.line() == "up"
            assert process.line() == "about to"
            assert [process.line() for _ in seen] == seen
            victim.tell()
            assert float(victim.line()) < STALL_MAX / 6
            assert process.process.wait(SECONDS_MAX) == 0
        daemon.wait_for_counts(processes=0, opens=0, fetching=0)
        assert daemon.end() == 0
        assert b"killed" not in daemon.said


# A program with a good reason for a userfaultfd of its own: it gets its page in the end. The page
# is where the hostile one has its own.
INNOCENT = f"""
import struct, fcntl, threading
libc = ctypes.CDLL(None, use_errno=True)
{FAULTED.split("area =")[0]}
area = anonymous(PAGE)
fcntl.ioctl(uffd, 0xC020AA00, struct.pack("=QQQQ", area, PAGE, 1, 0))
seen = []
thread = threading.Thread(target=lambda: seen.append(libc.strnlen(ctypes.c_void_p(area), 100)))
thread.start()
os.read(uffd, 32)  # somebody waits for it
say(area)
wait_for_line()
page = ctypes.create_string_buffer(b"right", PAGE)
copy = struct.pack("=QQQQq", area, ctypes.addressof(page), PAGE, 0, 0)
fcntl.ioctl(uffd, 0xC028AA03, bytearray(copy))  # UFFDIO_COPY
thread.join()
say(seen)
"""
HANDED_ON_AT = (
    HANDED_ON.replace("area = mmap.mmap(-1, 4096)\narea[0] = 0\n", "")
    .replace("ADDRESS = ctypes.addressof(ctypes.c_char.from_buffer(area))\n", "MAP_IT")
    .replace(
        "MAP_IT", "import stalls\nstalls.map_over(-1, ADDRESS)\nctypes.string_at(ADDRESS, 1)\n"
    )
    .replace("area.madvise(mmap.MADV_REMOVE)", "libc.madvise(ctypes.c_void_p(ADDRESS), 4096, 4)")
)


def test_who_has_a_userfault_of_his_own_keeps_it(directory: Path) -> None:
    """A hypervisor that migrates, a collector: others may be waited for at the same address."""
    with running(directory) as daemon, client(directory, INNOCENT) as innocent:
        code = f"import fcntl\nADDRESS = {innocent.line()}\n{HANDED_ON_AT}{USE_IT}"
        with client(directory, code) as process:
            assert process.line() == "about to"
            assert f"client {process.process.pid}" in daemon.expect(": killed")
            assert "has been told to let go" in daemon.expect("userfaultfd")
            assert run_client(directory, "print(Device(DIR + '/binder').version())") == ["8"]
        innocent.tell()
        assert innocent.line() == "[5]"
        assert daemon.end() == 0


def watchdog_of(daemon: Daemon) -> int:
    """Return the process id of a daemon's watchdog, once it looks."""
    deadline, pid = time.monotonic() + SECONDS_MAX, daemon.process.pid
    while time.monotonic() < deadline:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        for child in children:
            if Path(f"/proc/{child}/comm").read_text(encoding="ascii") == "binderd-watch\n":
                return int(child)
    raise AssertionError("the daemon has no watchdog")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_watchdog_that_is_gone_or_hangs_is_replaced(directory: Path, number: int) -> None:
    with running(directory) as daemon:
        first = watchdog_of(daemon)
        os.kill(first, number)
        daemon.expect("the watchdog has ended (SIGKILL): starting another one")
        assert not os.path.exists(f"/proc/{first}"), "it was not reaped"
        second = watchdog_of(daemon)
        assert second != first
        with client(directory, HOSTILE["lock"]) as process:
            assert process.line() == "about to"
            assert f"client {process.process.pid}" in daemon.expect(": killed")
        assert daemon.end() == 0
        assert not os.path.exists(f"/proc/{second}")


def test_memory_that_is_read_from_a_disk_is_nobodys_fault() -> None:
    """What can be slow and is no client's doing: the kernel has the pages, or will."""
    with subprocess.Popen(["sleep", "600"]) as sleeper:
        with open(f"/proc/{sleeper.pid}/maps", encoding="ascii") as table:
            spans = [line.split("-", 1)[0] for line in table if "[v" not in line]
        culprit = Culprit(os.getpid(), -sleeper.pid)
        try:
            for start in spans:
                access = Access(sleeper.pid, int(start, 16), 1)
                assert not fault.find(os.getpid(), access, culprit, b"fuse.binderd").is_clients
            assert fault.find(os.getpid(), Access(0, 0, 0), culprit, b"").is_clients
        finally:
            culprit.close()
            sleeper.kill()


HELPER = """
import subprocess, sys
from binderd.guard import Guard
read = "import os, sys; os.pread(os.open(sys.argv[1], 0), 16, int(sys.argv[2]))"
with Guard(1.0, "fuse.binderd"):
    subprocess.run([sys.executable, "-c", read, f"/proc/{sys.argv[1]}/mem", sys.argv[2]])
"""


def test_a_helper_is_watched_as_well(directory: Path) -> None:
    with client(
        directory, SERVED + "take_away()\nprint(ADDRESS, flush=True)\ninput()\n"
    ) as process:
        victim = str(process.process.pid)
        words = [sys.executable, "-c", HELPER, victim, process.line()]
        done = subprocess.run(
            words, stderr=subprocess.PIPE, text=True, timeout=SECONDS_MAX, check=True
        )
        assert f"client {victim} keeps its memory back" in done.stderr
        assert process.process.wait(SECONDS_MAX) == -signal.SIGKILL


def test_nobody_waits_twice_for_the_same_user(directory: Path) -> None:
    with running(directory) as daemon:
        with client(directory, LOCK_HELD) as process:
            daemon.expect(": killed")
            assert process.process.wait(SECONDS_MAX) == -signal.SIGKILL
        other = LOCK_HELD.replace("'-hostile'", "'-hostile-too'") + "say('through')\n"
        with client(directory, VICTIM) as victim, client(directory, other) as process:
            assert victim.line() == "up"
            assert process.line() == "about to"
            assert process.line() == "through"
            victim.tell()
            assert float(victim.line()) < STALL_MAX / 3
            with open("/proc/self/mountinfo", encoding="utf-8") as table:
                for words in map(str.split, table):
                    if words[4] == f"{directory}-hostile-too":
                        abort(int(words[2].partition(":")[2]))  # else it never ends
        assert daemon.end() == 0
        assert daemon.said.count(b": killed") == 1
