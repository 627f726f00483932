# SPDX-License-Identifier: Apache-2.0
"""Lanes on a real mount, used as they should be and as they should not."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import pytest

from channel.helpers import Daemon, client, needs_fuse, run_client, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    needs_fuse,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="lanes are offered on x86-64"),
]

START = """
from lane_client import *
import errno, random, signal, threading
"""
# Says the size, the user and the beginning of each call that it gets, through a lane.
SERVER = (
    START
    + """
server = Device(DIR + "/binder")
server.ioctl(abi.BINDER_SET_CONTEXT_MGR, bytes(4))
lane = Lane(server, ext.BINDERD_LANE_QUIET)
say("up")
commands = struct.pack("=I", abi.BC_ENTER_LOOPER)
while True:
    returns = lane.write_read(commands, 256)
    commands = b""
    if struct.pack("=I", abi.BR_TRANSACTION) in returns:
        call = find(returns, abi.BR_TRANSACTION, abi.binder_transaction_data)
        say(call.data_size, call.sender_euid, peek(call.buffer, min(call.data_size, 9)))
        commands = free_buffer(call.buffer)
        commands += struct.pack("=I", abi.BC_REPLY) + abi.binder_transaction_data.build()
"""
)
CALLER = (
    START
    + """
device = Device(DIR + "/binder")
lane = Lane(device)
def finish(returns):
    "Return whether a call was answered, which has read that."
    while True:
        if struct.pack("=I", abi.BR_REPLY) in returns:
            found = find(returns, abi.BR_REPLY, abi.binder_transaction_data)
            lane.write_read(free_buffer(found.buffer))
            return True
        for word in (abi.BR_FAILED_REPLY, abi.BR_DEAD_REPLY):
            if struct.pack("=I", word) in returns:
                return False
        returns = lane.write_read(b"", 256)
def ask(data):
    return finish(lane.write_read(in_lane(lane, data), 256))
"""
)


def _reachable(place: Path) -> Path:
    """Let other users get to a place; return where to mount there."""
    for parent in (place, *place.parents):
        if parent.owner() == place.owner() and parent.name.startswith(("pytest", place.name)):
            parent.chmod(0o755)
    return place / "mount"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = _reachable(tmp_path_factory.mktemp("devices"))
    daemon = Daemon(place, "--transport", "fuse", "--spin", "1000")
    daemon.expect("ready:")
    yield daemon
    daemon.end_clean(opens=0, processes=0, threads=0, parked=0, nodes=0, buffers=0, users=0)
    daemon.clean_up()


@pytest.fixture
def place(daemon: Daemon) -> Path:
    return daemon.directory


def test_it_says_that_there_are_lanes(place: Path) -> None:
    code = "from extension_client import *\nsay(info(Device(DIR + '/binder', size=0))[1] & 4)"
    assert run_client(place, code) == ["4"]


def test_without_looking_there_are_none(tmp_path: Path) -> None:
    with running(_reachable(tmp_path), "--spin", "0") as daemon:
        code = "from extension_client import *\nsay(info(Device(DIR + '/binder', size=0))[1] & 4)"
        code += START + "say(outcome(Lane, Device(DIR + '/binder')))"
        assert run_client(daemon.directory, code) == ["0", "ENOTSUP"]


def test_calls_come_and_go(place: Path) -> None:
    with client(place, SERVER) as server:
        assert server.line() == "up"
        said = run_client(
            place, CALLER + "say([ask(b'hello') for _ in range(200)] == [True] * 200)"
        )
        assert said == ["True"]
        assert [server.line() for _ in range(200)] == ["5 0 b'hello'"] * 200


def test_an_answer_comes_without_a_system_call(place: Path) -> None:
    """At least one of many: who looks is not stopped, and neither is the daemon."""
    with client(place, SERVER) as server:
        assert server.line() == "up"
        code = """
seen = 0
for _ in range(300):
    number = lane.ask(in_lane(lane, b"x"), 256)
    if lane.look(number, 1.0) and lane.result == 0:
        seen += 1
        assert finish(lane.returned())
    else:
        if not lane.is_answered(number):
            enter(device)
        assert finish(lane.returned() if not lane.result else b"")
say(seen > 0)
"""
        assert run_client(place, CALLER + code) == ["True"]


# Answers with nothing, with an object of its own, and with what is none; says what it read.
QUIET_SERVER = (
    START
    + """
from binderwire.commands import read_stream
server = Device(DIR + "/binder")
server.ioctl(abi.BINDER_SET_CONTEXT_MGR, bytes(4))
lane = Lane(server, ext.BINDERD_LANE_QUIET)
commands = struct.pack("=I", abi.BC_ENTER_LOOPER)
def read(last):
    global commands
    words, returns = [], b""
    while last not in words:
        returns = lane.write_read(commands, 256)
        commands = b""
        words += [item.message.name for item in read_stream(abi.RETURNS, returns)]
    say(*[word for word in words if word != "BR_NOOP"])
    return returns
say("up")
place = lane.address + DATA
body = abi.flat_binder_object.pack(abi.BINDER_TYPE_BINDER, 0, 0x100, 0x200)
lane.octets[DATA : DATA + len(body)] = body
for offset in (None, 0, 4):
    call = find(read("BR_TRANSACTION"), abi.BR_TRANSACTION, abi.binder_transaction_data)
    reply = abi.binder_transaction_data.build()
    if offset is not None:
        lane.octets[DATA + 64 : DATA + 72] = offset.to_bytes(8, "little")
        reply = abi.binder_transaction_data.build(
            data_size=len(body), offsets_size=8, buffer=place, offsets=place + 64
        )
    commands = free_buffer(call.buffer) + struct.pack("=I", abi.BC_REPLY) + reply
read("BR_TRANSACTION_COMPLETE")
"""
)


def test_a_quiet_lane_hears_of_replies_with_objects_only(place: Path) -> None:
    with client(place, QUIET_SERVER) as server:
        assert server.line() == "up"
        assert run_client(place, CALLER + "say(*[ask(b'') for _ in range(3)])") == [
            "True True False"
        ]
        assert [server.line() for _ in range(4)] == [
            "BR_TRANSACTION",
            "BR_TRANSACTION",
            "BR_INCREFS BR_ACQUIRE BR_TRANSACTION_COMPLETE BR_TRANSACTION",
            "BR_TRANSACTION_COMPLETE",
        ]


def test_what_lies_elsewhere_arrives_as_well(place: Path) -> None:
    """The thread has to enter for that, as it does where it asks too late."""
    with client(place, SERVER) as server:
        assert server.line() == "up"
        code = "command, keep = transaction(0, bytes(300000))\n"
        code += "say(finish(lane.write_read(command, 256)))\n"
        code += "number = lane.ask(command, 256)\n"
        code += "say(lane.look(number, 0.2))\nenter(device)\nsay(finish(lane.returned()))"
        assert run_client(place, CALLER + code) == ["True", "False", "True"]
        assert [server.line().split()[0] for _ in range(2)] == ["300000"] * 2


def test_what_is_no_lane_is_refused(place: Path) -> None:
    code = START + (
        "device = Device(DIR + '/binder')\n"
        "read_only = os.open(f'/proc/self/fd/{memory()}', os.O_RDONLY)\n"
        "written = memory(seals=fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE)\n"
        "say(outcome(make, device, 99), outcome(make, device, device.fd),\n"
        "    outcome(make, device, os.open('/dev/null', os.O_RDWR)),\n"
        "    outcome(make, device, memory(seals=0)), outcome(make, device, memory(4096)),\n"
        "    outcome(make, device, read_only), outcome(make, device, written))\n"
        "say(*[outcome(make, device, memory(1 << 20), size) for size in (0, 1, 4097, 1 << 20)])\n"
        "say(outcome(make, device, memory(), SIZE, 0, 2), outcome(make, device, memory()))\n"
        "say(outcome(enter, Device(DIR + '/binder')))\n"
    )
    assert run_client(place, code) == [
        "EBADF EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL",
        "EINVAL EINVAL EINVAL EINVAL",
        "EINVAL ok",
        "EINVAL",
    ]


def test_a_signal_ends_what_waits(place: Path) -> None:
    code = CALLER + (
        "signal.signal(signal.SIGALRM, lambda *_: None)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.3)\n"
        "say(outcome(lane.write_read, b'', 256))\n"  # the first comes back: need_return
        "say(outcome(lane.write_read, b'', 256))\n"
        "number = lane.ask(b'', 256)\n"
        "enter(device, ext.BINDERD_LEAVE)\n"
        "say(lane.is_answered(number), errno.errorcode[-lane.result])\n"
    )
    assert run_client(place, code) == ["ok", "EINTR", "True EINTR"]


def test_who_has_become_somebody_else_speaks_for_himself(place: Path) -> None:
    with client(place, SERVER) as server:
        assert server.line() == "up"
        code = "ask(b'1')\nos.setresuid(65534, 65534, 65534)\n"
        code += "number = lane.ask(in_lane(lane, b'2'), 256)\nsay(lane.look(number, 0.2))\n"
        code += "enter(device)\nsay(finish(lane.returned()))\nask(b'3')"
        assert run_client(place, CALLER + code) == ["False", "True"]
        lines = [server.line() for _ in range(3)]
        assert lines == ["1 0 b'1'", "1 65534 b'2'", "1 65534 b'3'"]


def test_another_process_gets_nothing_but_the_lane(place: Path) -> None:
    """Who has its memory can ask in it, in the name of its user, but cannot have it reach further.

    The thread's own requests go on, which do not go through it.
    """
    with client(place, SERVER) as server:
        assert server.line() == "up"
        code = """
secret = ctypes.create_string_buffer(b"secret", 16)
go, came = os.pipe()
if not os.fork():
    os.setresuid(65534, 65534, 65534)
    body = abi.binder_transaction_data.build(data_size=6, buffer=ctypes.addressof(secret))
    number = lane.ask(struct.pack("=I", abi.BC_TRANSACTION) + body, 256)
    say(lane.look(number, 0.3))
    os.write(came, b"x")
    os._exit(0)
os.read(go, 1)
say(call(device))
"""
        assert run_client(place, CALLER + code) == ["False", "True"]
        assert server.line().startswith("0 0 ")


def test_garbage_harms_itself_only(place: Path) -> None:
    with client(place, SERVER) as server:
        assert server.line() == "up"
        code = """
others = random.Random(7)
bad = Device(DIR + "/binder")
slot = Lane(bad)
ends = time.monotonic() + 5
def harass():
    mine = Lane(bad)
    for _ in range(2000):
        mine.octets[16:200] = others.randbytes(184)
        if others.random() < 0.5:
            values = [others.choice((0, 4, 64, 4096, 1 << 40, (1 << 64) - 1)) for _ in range(4)]
            places = [mine.address + others.choice((0, 16, 64, 8192, SIZE - 4, SIZE)), 0]
            abi.binder_write_read.pack_into(
                mine.octets, 16, values[0], values[1] & 4, others.choice(places),
                values[2], values[3] & 4, others.choice(places))
        mine.cells[0] = others.randrange(1 << 32)
        mine.cells[1] = mine.cells[2] = others.randrange(1 << 32)
        if others.random() < 0.3:
            outcome(enter, bad, ext.BINDERD_LEAVE)
        if others.random() < 0.05:
            outcome(bad.ioctl, abi.BINDER_VERSION, bytes(4))
            mine = Lane(bad)
        if others.random() < 0.02:
            mine.mapping.madvise(mmap.MADV_REMOVE)
thread = threading.Thread(target=harass)
thread.start()
count = 0
while thread.is_alive():
    assert ask(b"hello")
    count += 1
say(count > 0)
"""
        assert run_client(place, CALLER + code) == ["True"]


def test_kicks_without_end(place: Path) -> None:
    """Many who ask all the time, and look at no answer, do not keep others from theirs."""
    with client(place, SERVER) as server:
        assert server.line() == "up"
        busy = START + (
            "os.setresuid(65534, 65534, 65534)\n"
            "lanes = [Lane(Device(DIR + '/binder', size=0)) for _ in range(100)]\n"
            "for lane in lanes:\n    lane.ask(b'', 0)\n"
            "say('busy')\n"
            "while True:\n    for lane in lanes:\n"
            "        lane.cells[0] = (lane.cells[0] + 1) % 2**32\n"
        )
        with client(place, busy) as other:
            assert other.line() == "busy"
            said = run_client(place, CALLER + "say(all(ask(b'hello') for _ in range(100)))")
            assert said == ["True"]


def test_a_killed_thread_is_gone(place: Path, daemon: Daemon) -> None:
    with client(place, SERVER) as server:
        assert server.line() == "up"
        before = daemon.counts()["threads"]
        code = CALLER + (
            "def one():\n    mine = Lane(device)\n    mine.ask(b'', 256)\n    mine.look(1, 0.01)\n"
            "for _ in range(50):\n"
            "    thread = threading.Thread(target=one)\n    thread.start()\n    thread.join()\n"
            "say('ended')\nwait_for_line()\n"
        )
        with client(place, code) as other:
            assert other.line() == "ended"
            daemon.wait_for_counts(threads=before + 1, parked=1)
        killed = CALLER + "lane.ask(in_lane(lane, b'late'), 256)\nos.kill(os.getpid(), 9)"
        with client(place, killed):
            daemon.wait_for_counts(threads=before, opens=1)


def test_thousands_of_lanes(tmp_path: Path) -> None:
    limits = ["--limit", "lanes=3000", "--limit", "lanes-per-user=200"]
    with running(_reachable(tmp_path), *limits) as daemon:
        code = START + (
            "import resource\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))\n"
            "def many(number):\n"
            "    devices = [Device(DIR + '/binder', size=0) for _ in range(number)]\n"
            "    fd = memory()\n"
            "    return [outcome(make, device, fd) for device in devices], devices\n"
            "if not os.fork():\n"
            "    os.setresuid(65534, 65534, 65534)\n"
            "    made, _ = many(300)\n"
            "    say(made.count('ok'), sorted(set(made)))\n"
            "    os._exit(0)\n"
            "os.wait()\n"
            "made, kept = many(1000)\n"
            "fd = memory()\n"
            "def more():\n"
            "    for device in kept:\n"
            "        made.append(outcome(make, device, fd))\n"
            "    done.set()\n    end.wait()\n"
            "end = threading.Event()\n"
            "for _ in range(5):\n"
            "    done = threading.Event()\n"
            "    threading.Thread(target=more, daemon=True).start()\n    done.wait()\n"
            "say(made.count('ok'), sorted(set(made)))\n"
            "end.set()\n"
        )
        said = run_client(daemon.directory, code)
        assert said == ["200 ['ENOSPC', 'ok']", "3000 ['ENOSPC', 'ok']"]
        daemon.wait_for_counts(opens=0, users=0)
