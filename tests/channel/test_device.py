# SPDX-License-Identifier: Apache-2.0
"""Clients on a real mount: what the kernel, the session, the engine and the pages do together."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from channel.helpers import SECONDS_MAX, ClientProcess, Daemon, client, needs_fuse, run_client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_fuse

# A context manager that says what it gets and answers it. It is a program of its own, because a
# process cannot call handle 0 where it is the manager itself.
MANAGER = """
server = Device(DIR + "/binder", size=1 << 20)
server.ioctl(abi.BINDER_SET_CONTEXT_MGR, bytes(4))
say("up")
"""
SERVER = (
    MANAGER
    + """
commands = struct.pack("=I", abi.BC_ENTER_LOOPER)
while True:
    returns = server.write_read(commands, 256)
    commands = b""
    if struct.pack("=I", abi.BR_TRANSACTION) in returns:
        call = find(returns, abi.BR_TRANSACTION, abi.binder_transaction_data)
        say(call.data_size, call.buffer - server.address, peek(call.buffer, min(call.data_size, 9)))
        commands = free_buffer(call.buffer)
        if not call.flags & abi.TF_ONE_WAY:
            commands += struct.pack("=I", abi.BC_REPLY) + abi.binder_transaction_data.build()
"""
)
CALLER = """
def word(number): return struct.pack("=I", number)
ENDS = [word(number) for number in (abi.BR_REPLY, abi.BR_DEAD_REPLY, abi.BR_FAILED_REPLY)]
def call(device, data, one_way=False):
    command, keep = transaction(0, data, one_way=one_way)
    ends = [*ENDS, word(abi.BR_TRANSACTION_COMPLETE)] if one_way else ENDS
    returns = device.write_read(command, 256)
    while not any(end in returns for end in ends):
        returns += device.write_read(b"", 256)
    if ENDS[0] in returns:
        reply = find(returns, abi.BR_REPLY, abi.binder_transaction_data)
        device.write_read(free_buffer(reply.buffer))
    return returns
one = Device(DIR + "/binder")
"""


@contextmanager
def serving(place: Path, code: str = SERVER) -> Iterator[ClientProcess]:
    """A context manager that is up."""
    with client(place, code) as process:
        assert process.line() == "up"
        yield process


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("devices") / "mount")
    daemon.expect("ready:")
    yield daemon
    daemon.end_clean(opens=0, processes=0, threads=0, parked=0, pages=0, nodes=0, buffers=0)
    daemon.clean_up()


@pytest.fixture
def place(daemon: Daemon) -> Path:
    return daemon.directory


def test_what_a_device_file_does_and_does_not(place: Path) -> None:
    said = run_client(
        place,
        "device = Device(DIR + '/binder')\n"
        "say(device.version(), os.fstat(device.fd).st_size)\n"
        "say(outcome(device.ioctl, 0xc0046250, bytes(4)))\n"
        "say(outcome(device.ioctl, 0xffff6250, bytes(16383)))\n"
        "say(outcome(os.read, device.fd, 8), outcome(os.write, device.fd, b'x'))\n"
        "say(outcome(os.pread, device.fd, 8, 0), outcome(os.ftruncate, device.fd, 0))\n"
        "say(outcome(os.mkdir, DIR + '/x'), outcome(os.rmdir, DIR + '/features'))\n"
        "say(outcome(os.open, DIR + '/x', os.O_RDWR | os.O_CREAT))\n"
        "say(outcome(os.open, DIR + '/binder', os.O_RDWR | os.O_CREAT | os.O_TRUNC))\n"
        "say(outcome(os.open, f'/proc/self/fd/{device.fd}', os.O_RDWR))\n",
    )
    assert said == [
        f"8 {4 << 20}",
        "EINVAL",
        "EINVAL",
        "EINVAL EINVAL",
        "EINVAL EINVAL",
        "EPERM EBUSY",
        "EACCES",
        "ok",
        "ok",
    ]


@pytest.mark.parametrize("sharing", ["mmap.MAP_PRIVATE", "mmap.MAP_SHARED"])
def test_every_open_has_pages_of_its_own(place: Path, daemon: Daemon, sharing: str) -> None:
    code = CALLER + (
        "two = Device(DIR + '/binder')\n"
        "say(word(abi.BR_REPLY) in call(one, b'from one'))\n"
        "say(word(abi.BR_REPLY) in call(two, b'from two, later'))\n"
        "say(peek(one.address, 8), peek(two.address, 8))\n"
        "wait_for_line()"
    )
    server_code = SERVER.replace("size=1 << 20", f"sharing={sharing}")
    with serving(place, server_code) as server, client(place, code) as process:
        assert [process.line() for _ in range(3)] == ["True", "True", f"{bytes(8)} {bytes(8)}"]
        assert server.line() == f"8 0 {b'from one'}"
        assert server.line() == f"15 0 {b'from two,'}"
        counts = daemon.counts()
        assert (counts["opens"], counts["processes"]) == (3, 3)


def test_pages_return_within_about_a_second(place: Path, daemon: Daemon) -> None:
    code = CALLER + "call(one, bytes(500000))\nsay('done')\nwait_for_line()"
    with serving(place), client(place, code) as process:
        assert process.line() == "done"
        assert daemon.counts()["pages"] >= 500000 // 4096
        start = time.monotonic()
        daemon.wait_for_counts(pages=0, buffers=0)
        assert time.monotonic() - start < 5


def test_a_mapping_that_is_gone_is_noticed(place: Path) -> None:
    code = MANAGER + (
        "returns = b''\n"
        "while word(abi.BR_TRANSACTION) not in returns: returns = server.write_read(b'', 256)\n"
        "unmap(server.address, server.size); say('unmapped'); wait_for_line()"
    )
    sender = CALLER + (
        "import time\n"
        "call(one, b'x', one_way=True); say('sent'); wait_for_line()\n"
        "for attempt in range(100):\n"
        "    if word(abi.BR_DEAD_REPLY) in call(one, b'x', one_way=True): break\n"
        "    time.sleep(0.02)\n"
        "say(attempt < 99)"
    )
    with (
        serving(place, code.replace("word(", "struct.pack('=I', ")) as server,
        client(place, sender) as process,
    ):
        assert (process.line(), server.line()) == ("sent", "unmapped")
        process.tell()
        assert process.line() == "True"


def test_a_receiver_without_a_mapping_is_dead(place: Path) -> None:
    code = CALLER + "say(word(abi.BR_DEAD_REPLY) in call(one, b'x'))"
    with serving(place, SERVER.replace("size=1 << 20", "size=0")):
        assert run_client(place, code) == ["True"]


def test_bad_pointers_are_faults(place: Path) -> None:
    code = CALLER + (
        "page = anonymous(2 * PAGE); protect(page + PAGE, PAGE, 0)\n"
        "def bwr(*fields): return outcome(one.ioctl, abi.BINDER_WRITE_READ,"
        " abi.binder_write_read.pack(*fields))\n"
        "say(bwr(4, 0, 0, 0, 0, 0), bwr(4, 0, 1 << 63, 0, 0, 0), bwr(4, 0, page + PAGE, 0, 0, 0))\n"
        "poke(page + PAGE - 4, word(abi.BC_ENTER_LOOPER))\n"
        "say(bwr(4, 0, page + PAGE - 4, 0, 0, 0), bwr(8, 0, page + PAGE - 4, 0, 0, 0))\n"
        "say(bwr(0, 0, 0, 256, 0, page + PAGE), bwr(0, 0, 0, 256, 0, one.address))\n"
        "body = abi.binder_transaction_data.build(data_size=PAGE, buffer=page + 8)\n"
        "bad = word(abi.BC_TRANSACTION) + body\n"
        "say(word(abi.BR_FAILED_REPLY) in one.write_read(bad, 256))\n"
        "say(word(abi.BR_REPLY) in call(one, b'still fine'))"
    )
    with serving(place):
        said = run_client(place, code)
    assert said == ["EFAULT EFAULT EFAULT", "ok EFAULT", "EFAULT EFAULT", "True", "True"]


def test_a_blocked_client_can_be_killed(place: Path, daemon: Daemon) -> None:
    code = "device = Device(DIR + '/binder'); device.write_read(b'', 256); say('up')\n"
    with client(place, code + "device.write_read(b'', 256)") as process:
        process.line()
        daemon.wait_for_counts(parked=1)
        start = time.monotonic()
        process.process.kill()
        process.process.wait(SECONDS_MAX)
        assert time.monotonic() - start < 2
        daemon.wait_for_counts(opens=0)


def test_a_signal_interrupts_a_blocked_read(place: Path) -> None:
    code = (
        "import signal\n"
        "device = Device(DIR + '/binder'); device.write_read(b'', 256)\n"
        "class Alarm(Exception): pass\n"
        "def ring(*_): raise Alarm\n"
        "signal.signal(signal.SIGALRM, ring); signal.setitimer(signal.ITIMER_REAL, 0.05)\n"
        "try: device.write_read(b'', 256)\n"
        "except Alarm: say('interrupted')\n"
        "say(device.version())"
    )
    assert run_client(place, code) == ["interrupted", "8"]


def test_the_end_of_a_thread_is_noticed(place: Path, daemon: Daemon) -> None:
    code = (
        "import threading\n"
        "device = Device(DIR + '/binder'); device.version()\n"
        "def work(): device.version(); say('in'); wait_for_line()\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()\n"
        "say('out'); wait_for_line()"
    )
    with client(place, code) as process:
        assert process.line() == "in"
        daemon.wait_for_counts(threads=2)
        process.tell()
        assert process.line() == "out"
        daemon.wait_for_counts(threads=1)


def test_a_fork_keeps_the_file_open(place: Path, daemon: Daemon) -> None:
    code = (
        "device = Device(DIR + '/binder'); device.version()\n"
        "if os.fork() == 0:\n"
        "    wait_for_line(); say('child', device.write_read(b'', 256).hex())\n"
        "    wait_for_line(); os._exit(0)\n"
        "os._exit(0)"
    )
    with client(place, code) as process:
        process.process.wait(SECONDS_MAX)
        assert daemon.wait_for_counts(threads=0)["opens"] == 1
        process.tell()
        assert process.line() == "child 0c720000", "its own memory was written, not the parent's"
        assert daemon.counts()["threads"] == 1
        process.tell()
        daemon.wait_for_counts(opens=0)


def test_a_poller_is_woken(place: Path) -> None:
    code = MANAGER + (
        "import select\n"
        "server.write_read(struct.pack('=I', abi.BC_ENTER_LOOPER))\n"
        "epoll = select.epoll(); epoll.register(server.fd, select.EPOLLIN)\n"
        "say(epoll.poll(0.05))\n"
        "events = epoll.poll(5)\n"
        "say(events == [(server.fd, select.EPOLLIN)])\n"
        "poller = select.poll(); poller.register(server.fd, select.POLLIN)\n"
        "say(len(poller.poll(5000)))\n"
        "server.write_read(b'', 256)\n"
        "say(epoll.poll(0.05), len(poller.poll(0)))\n"
        "wait_for_line()"
    )
    with serving(place, code) as server:
        assert server.line() == "[]"
        run_client(place, CALLER + "call(one, b'x', one_way=True)")
        assert [server.line() for _ in range(3)] == ["True", "1", "[] 0"]


def test_many_open_at_once(place: Path, daemon: Daemon) -> None:
    code = (
        "import threading\n"
        "devices, failures = [], []\n"
        "def work():\n"
        "    for _ in range(25):\n"
        "        try: devices.append(Device(DIR + '/binder', size=PAGE))\n"
        "        except OSError as error: failures.append(error)\n"
        "threads = [threading.Thread(target=work) for _ in range(8)]\n"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
        "say(len(devices), failures, len({os.fstat(device.fd).st_ino for device in devices}))\n"
        "wait_for_line()"
    )
    with client(place, code) as process:
        assert process.line() == "200 [] 200"
        assert daemon.counts()["opens"] == 200
