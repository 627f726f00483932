# SPDX-License-Identifier: Apache-2.0
"""Clients whose memory comes late, or never: they wait, and nobody else."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from binderd.linux import mount as linux_mount
from binderd.linux.mountinfo import read_mounts
from channel.helpers import SECONDS_MAX, client, needs_fuse, running
from channel.test_watchdog import FAULTED, SERVED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from channel.helpers import Daemon

pytestmark = needs_fuse

PATIENCE = 1.0  # seconds that the daemon gives them
QUICK = 0.3  # seconds; far less than that, and far more than a call takes on a busy machine

# What an attacker does with the page at ADDRESS, which never comes; it prints the outcome.
SETUP = """
take_away()
import errno, fcntl, struct, threading
device = Device(DIR + "/binder")
def write_read(write_size, write, read_size=0, read=0):
    argument = bytearray(struct.pack("=6Q", write_size, 0, write, read_size, 0, read))
    try:
        fcntl.ioctl(device.fd, 0xC0306201, argument)
    except OSError as error:
        return errno.errorcode[error.errno]
    return struct.unpack("=6Q", argument)
def place(octets):
    kept.append(ctypes.create_string_buffer(octets, len(octets)))
    return ctypes.addressof(kept[-1])
kept = []
print("about to", flush=True)
"""
STREAM = SETUP + "print(write_read(64, ADDRESS))\n"
READ_BUFFER = SETUP + "print(write_read(0, 0, 256, ADDRESS))\n"
PAYLOAD = (
    SETUP
    + """
from binderwire import binder_abi as abi
body = abi.binder_transaction_data.build(data_size=64, buffer=ADDRESS, flags=abi.TF_ONE_WAY)
stream = struct.pack("=I", abi.BC_TRANSACTION) + body
answer = ctypes.create_string_buffer(256)
result = write_read(len(stream), place(stream), 256, ctypes.addressof(answer))
failed = struct.pack("=2I", abi.BR_NOOP, abi.BR_FAILED_REPLY)
print(result[1] == len(stream), answer.raw[:8] == failed)
"""
)
# It has been sent from there before, so the daemon reads it along with the commands.
USUAL = (
    SETUP.replace("take_away()\n", "").replace('print("about to", flush=True)\n', "")
    + """
import time
from binderwire import binder_abi as binder
body = binder.binder_transaction_data.build(data_size=64, buffer=ADDRESS, flags=binder.TF_ONE_WAY)
stream = struct.pack("=I", binder.BC_TRANSACTION) + body
commands, answer = place(stream), ctypes.create_string_buffer(256)
def send():
    write_read(len(stream), commands, 256, ctypes.addressof(answer))
    return struct.unpack_from("=2I", answer)[1]
is_sent = [send() for _ in range(4)] == [binder.BR_TRANSACTION_COMPLETE] * 4
take_away()
time.sleep(1.2)  # for longer the daemon does not believe what it has seen
print("about to", flush=True)
print(is_sent, send() == binder.BR_FAILED_REPLY)
"""
)
MANAGER = """
import struct
device = Device(DIR + "/binder")
device.ioctl(abi.BINDER_SET_CONTEXT_MGR, bytes(4))
print("up", flush=True)
input()
"""
# A pair of others: how long does the longest of its requests take?
VICTIM = """
import time
device = Device(DIR + "/other")
print("up", flush=True)
input()
longest = 0.0
end = time.monotonic() + SECONDS
while time.monotonic() < end:
    began = time.monotonic()
    assert device.version() == 8
    longest = max(longest, time.monotonic() - began)
    time.sleep(0.001)
print(longest)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where to mount; what a client has mounted beside it goes, too."""
    yield tmp_path / "b"
    for mount in read_mounts():
        if mount.path.startswith(str(tmp_path)):
            linux_mount.unmount(mount.path, linux_mount.MNT_DETACH)


def serving(
    directory: Path, *more: str, patience: float = PATIENCE
) -> AbstractContextManager[Daemon]:
    for parent in directory.parents:
        if parent.name.startswith(("pytest", "test")):
            parent.chmod(0o755)  # other users get there
    names = ("--device", "binder", "--device", "other", "--stall-limit", f"{patience / 10:g}")
    return running(directory, *names, *more)


@pytest.mark.parametrize("memory", [FAULTED, SERVED], ids=["userfaultfd", "fuse"])
@pytest.mark.parametrize(
    ("use", "outcome"),
    [
        (STREAM, "EFAULT"),
        (PAYLOAD, "True True"),
        (USUAL, "True True"),
        (READ_BUFFER, "EFAULT"),
    ],
    ids=["stream", "payload", "payload in its usual place", "read buffer"],
)
def test_nobody_waits_for_the_memory_of_others(
    directory: Path, memory: str, use: str, outcome: str
) -> None:
    victim_code = f"SECONDS = {2 * PATIENCE}\n{VICTIM}"
    with serving(directory) as daemon:
        with client(directory, MANAGER) as manager, client(directory, victim_code) as victim:
            assert manager.line() == "up"
            assert victim.line() == "up"
            with client(directory, memory + use) as attacker:
                assert attacker.line() == "about to"
                victim.tell()
                assert float(victim.line()) < QUICK
                assert attacker.line() == outcome
                assert attacker.process.wait(SECONDS_MAX) == 0
            assert "keeps its memory back" not in daemon.said.decode()
            manager.tell()
        daemon.wait_for_counts(processes=0, opens=0, fetching=0)
        assert daemon.end() == 0


FILES = """
from stalls import *
files = SlowFiles(DIR + f"-{USER}", USER, DELAY)
be_user(USER)
device = Device(DIR + "/binder")
fd = files.open()
address = map_file(fd, PAGES * PAGE)
advise_random(address, PAGES * PAGE)
os.close(fd)  # or its flush at our end would wait for ourselves
say("about to")
"""
# Several threads, each with a page of its own.
THREADS = """
import threading
outcomes = []
def ask(page):
    outcomes.append(outcome(device.fd, address + page * PAGE))
threads = [threading.Thread(target=ask, args=[page]) for page in range(5)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
say(*outcomes)
"""
SEND = """
for count in (1, 4, 1):
    body = abi.binder_transaction_data.build(
        flags=abi.TF_ONE_WAY, data_size=count * PAGE, buffer=address
    )
    returned = device.write_read(struct.pack("=I", abi.BC_TRANSACTION) + body, 256)
    say(struct.unpack("=2I", returned)[1] == abi.BR_TRANSACTION_COMPLETE)
"""


def children_of(pid: int) -> list[int]:
    table = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in table.read_text(encoding="ascii").split()]


def fetchers_of(daemon: Daemon) -> list[int]:
    """Return who fetches for a daemon: the manager, and its workers."""
    for child in children_of(daemon.process.pid):
        if Path(f"/proc/{child}/comm").read_text(encoding="ascii") == "binderd-fetch\n":
            return [child, *children_of(child)]
    raise AssertionError("nobody fetches")


def workers_of(daemon: Daemon) -> int:
    """Return how many processes reach into memory for a daemon, or are ready to."""
    return len(fetchers_of(daemon)) - 1


def is_over(pid: int) -> bool:
    """Whether a process runs no more; whether somebody has waited for it is not ours to say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2][1] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_user_has_few_workers(directory: Path) -> None:
    greedy = f"USER, DELAY = 65534, -1\n{FILES}{THREADS}"
    other = f"USER, DELAY = 65533, 0.1\n{FILES}say(outcome(device.fd, address))\n"
    with serving(directory, "--limit", "workers=8", patience=4.0) as daemon:  # of one user: 2
        with client(directory, greedy) as attacker:
            assert attacker.line() == "about to"
            wait_until(lambda: workers_of(daemon) == 2)
            with client(directory, other) as somebody:
                assert somebody.line() == "about to"
                assert somebody.line() == "EINVAL"
                assert workers_of(daemon) <= 3
                assert somebody.process.wait(SECONDS_MAX) == 0
            assert attacker.line().split() == ["EFAULT"] * 5
            assert attacker.process.wait(SECONDS_MAX) == 0
        daemon.wait_for_counts(processes=0, opens=0, fetching=0, users=0)
        assert daemon.end() == 0


def test_what_was_fetched_is_charged_to_whose_it_is(directory: Path) -> None:
    manager = "from stalls import *\nstart_manager(DIR + '/binder', USER)\n"
    code = f"USER, DELAY = 65534, 0.01\n{manager}{FILES}{SEND}"
    with serving(directory, "--limit", "fetched-per-user=8192", patience=4.0) as daemon:
        with client(directory, code) as process:
            assert process.line() == "about to"
            assert [process.line() for _ in range(3)] == ["True", "False", "True"]
            assert process.process.wait(SECONDS_MAX) == 0
        daemon.wait_for_counts(processes=0, opens=0, fetching=0, users=0)
        assert daemon.end() == 0


@pytest.mark.parametrize("is_killed", [False, True], ids=["told to end", "killed"])
def test_nobody_fetches_for_a_daemon_that_has_ended(directory: Path, is_killed: bool) -> None:
    code = f"USER, DELAY = 65534, -1\n{FILES}{THREADS}"
    with serving(directory) as daemon, client(directory, code) as process:
        assert process.line() == "about to"
        wait_until(lambda: workers_of(daemon) == 5)
        fetchers = fetchers_of(daemon)
        if is_killed:
            daemon.process.kill()
            daemon.process.wait(SECONDS_MAX)
        else:
            assert daemon.end() == 0
        wait_until(lambda: all(is_over(pid) for pid in fetchers))


def test_a_manager_that_was_killed_is_replaced(directory: Path) -> None:
    silent = f"USER, DELAY = 65534, -1\n{FILES}say(outcome(device.fd, address))\n"
    slow = f"USER, DELAY = 65533, 0.01\n{FILES}say(outcome(device.fd, address))\n"
    with serving(directory, "--stall-limit", "5") as daemon:
        with client(directory, silent) as process:
            assert process.line() == "about to"
            wait_until(lambda: workers_of(daemon) == 1)
            os.kill(fetchers_of(daemon)[0], signal.SIGKILL)
            daemon.expect("the process that fetches slow memory has ended")
            assert process.line() == "EFAULT"
            with client(directory, slow) as other:
                assert other.line() == "about to"
                assert other.line() == "EINVAL"
                assert other.process.wait(SECONDS_MAX) == 0
            assert process.process.wait(SECONDS_MAX) == 0
        daemon.wait_for_counts(processes=0, opens=0, fetching=0, users=0)
        assert daemon.end() == 0
