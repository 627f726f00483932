# SPDX-License-Identifier: Apache-2.0
"""One user who takes all he can get, and others on another device who must not notice.

The daemon may open few descriptors, as a service manager may have set it.
"""

from __future__ import annotations

import os
import resource
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from binderd.engine.kinds import OPEN_FILES
from binderd.engine.limits import Limits
from channel.helpers import SECONDS_MAX, client, needs_fuse, run_client, running
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from channel.helpers import ClientProcess, Daemon

pytestmark = needs_fuse

ALICE, MALLORY = 4001, 4002
FILES, THREADS = 64, 320

SERVER = f"""
os.setresuid({ALICE}, {ALICE}, {ALICE})
d = Device(DIR + '/hers')
d.ioctl(abi.BINDER_SET_CONTEXT_MGR, bytes(4))
say('serving')
serve(d)
"""

# Calls until it is told to end, and says how often that did not work.
CALLER = f"""
import select
os.setresuid({ALICE}, {ALICE}, {ALICE})
d = Device(DIR + '/hers')
say('calling')
calls = failures = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    calls += 1
    failures += not call(d)
say(calls, failures)
"""

# A new client for each call.
NEWCOMER = f"""
os.setresuid({ALICE}, {ALICE}, {ALICE})
for _ in range(10):
    d = Device(DIR + '/hers')
    say(call(d))
    os.close(d.fd)
    unmap(d.address, d.size)
"""

ATTACK = f"""
import resource, threading
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
threading.stack_size(1 << 16)
os.setresuid({MALLORY}, {MALLORY}, {MALLORY})
files, why = [], set()
for _ in range({FILES}):
    try:
        files.append(Device(DIR + '/his', 1 << 20))
        files[-1].version()
    except OSError as error:
        why.add(errno.errorcode[error.errno])
end = threading.Event()
started = threading.Semaphore(0)
def use():
    for file in files:
        try:
            file.version()
        except OSError as error:
            why.add(errno.errorcode[error.errno])
    started.release()
    end.wait()
for _ in range({THREADS}):
    threading.Thread(target=use, daemon=True).start()
for _ in range({THREADS}):
    started.acquire()
say(len(files), *sorted(why))
# Sends itself what it does not read.
files[0].ioctl(abi.BINDER_SET_CONTEXT_MGR, bytes(4))
for file in files[1:8]:
    for _ in range(64):
        file.write_read(transaction(0, bytes(1000), one_way=True)[0])
say('done')
wait_for_line()
os._exit(0)
"""


def is_open_in(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def memory_of(daemon: Daemon) -> int:
    """Return how much memory the daemon has to itself, in bytes; not the receive areas."""
    for line in Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no RssAnon")


@pytest.mark.parametrize("count", [1024, 4096])
def test_whoever_takes_all_he_can_get_harms_nobody(tmp_path: Path, count: int) -> None:
    os.chmod(tmp_path, 0o755)
    for parent in tmp_path.parents[:3]:
        os.chmod(parent, 0o755)
    place = tmp_path / "mount"
    limits = Limits.for_machine(count, os.sysconf("SC_PHYS_PAGES") * resource.getpagesize())
    arguments = ("--transport", "fuse", "--device", "hers", "--device", "his")
    with running(place, *arguments, descriptors=count) as daemon, ended(daemon):
        at_rest, memory = is_open_in(daemon), memory_of(daemon)
        with client(place, SERVER) as server:
            assert server.line() == "serving"
            with client(place, CALLER) as caller:
                assert caller.line() == "calling"
                take_everything(daemon, place, limits, memory)
                caller.tell()
                calls, failures = caller.line().split()
            assert int(calls) > 0
            assert failures == "0"
        daemon.wait_for_counts(processes=0, threads=0, nodes=0, buffers=0, users=0)
        # What it opens for its start alone may have been there at rest, and be gone by now.
        what = f"it keeps more than {at_rest} descriptors"
        eventually(lambda: is_open_in(daemon) <= at_rest, what, seconds=SECONDS_MAX)
        assert daemon.end() == 0


def take_everything(daemon: Daemon, place: Path, limits: Limits, memory: int) -> None:
    """Have one user do so while two processes of another call each other."""
    before, promised = is_open_in(daemon), limits.cost_of_user()
    with client(place, ATTACK) as attack:
        opened, *errors = attack.line().split()
        assert 0 < int(opened) <= limits.of(OPEN_FILES).user
        assert errors == ["ENOMEM"]
        assert attack.line() == "done"
        assert is_open_in(daemon) - before <= promised.descriptors
        assert memory_of(daemon) - memory < promised.memory
        assert run_client(place, NEWCOMER) == ["True"] * 10
        end_of(attack)
    daemon.wait_for_counts(processes=2)
    assert run_client(place, NEWCOMER) == ["True"] * 10


@contextmanager
def ended(daemon: Daemon) -> Iterator[None]:
    """Have the daemon take its mount away, also if the test fails."""
    try:
        yield
    finally:
        if daemon.process.poll() is None:
            daemon.end()


def end_of(process: ClientProcess) -> None:
    process.tell()
    process.process.wait(30)


LEADERLESS = """
import threading
def is_over():
    return 'State:\tZ' in open(f'/proc/{os.getpid()}/status').read()
def go_on():
    while not is_over():
        os.sched_yield()
    d = early or Device(DIR + '/binder')
    d.ioctl(abi.BINDER_SET_CONTEXT_MGR, bytes(4))
    say('serving')
    serve(d)
threading.Thread(target=go_on).start()
ctypes.CDLL(None).syscall(60 if os.uname().machine == 'x86_64' else 93, 0)
"""
CALL = "d = Device(DIR + '/binder')\nsay(call(d))"


@pytest.mark.parametrize("early", ["Device(DIR + '/binder')", "None"], ids=["before", "then"])
def test_a_program_whose_main_thread_has_ended_is_served(tmp_path: Path, early: str) -> None:
    """It receives through a file that it opened before that, and through one that it opens then."""
    code = f"early = {early}\n{LEADERLESS}"
    with running(tmp_path) as daemon, ended(daemon), client(tmp_path, code) as server:
        assert server.line() == "serving"
        for _ in range(2):
            assert run_client(tmp_path, CALL) == ["True"]
        server.clean_up()
        daemon.wait_for_counts(processes=0, threads=0, users=0)
