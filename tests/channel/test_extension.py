# SPDX-License-Identifier: Apache-2.0
"""The extension on a real mount, used as it should be and as it should not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from channel.helpers import Daemon, client, needs_fuse, run_client, running
from channel.test_device import CALLER, SERVER
from support.passthrough import HAS_PASSTHROUGH
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_fuse

START = """
from extension_client import *
import signal
"""
AREA = START + "device = Device(DIR + '/binder', size=0)\nfd = area(device)\n"


@pytest.fixture(scope="module", params=["auto", "off"])
def daemon(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("devices") / "mount"
    place.parent.chmod(0o755)
    daemon = Daemon(place, "--transport", "fuse", "--passthrough", request.param)
    daemon.has_mmap = HAS_PASSTHROUGH and request.param == "auto"
    daemon.expect("ready:")
    yield daemon
    daemon.end_clean(opens=0, processes=0, threads=0, parked=0, pages=0, nodes=0, buffers=0)
    daemon.clean_up()


@pytest.fixture
def place(daemon: Daemon) -> Path:
    return daemon.directory


def test_it_says_what_there_is(place: Path, daemon: Daemon) -> None:
    [said] = run_client(place, START + "say(*info(Device(DIR + '/binder', size=0)))")
    version, flags, size = (int(word) for word in said.split())
    assert (version, flags & 1, size) == (1, int(daemon.has_mmap), 4 << 20)


def test_a_plain_mapping_shows_transactions(place: Path) -> None:
    with client(place, SERVER) as server:
        assert server.line() == "up"
        [said] = run_client(place, CALLER + "say(word(abi.BR_REPLY) in call(one, b'hello'))")
        assert said == "True"


def test_without_passthrough_only_a_private_mapping_succeeds(place: Path, daemon: Daemon) -> None:
    code = "say(outcome(Device, DIR + '/binder', 1 << 20, 0, mmap.MAP_SHARED))\n"
    code += "say(os.stat(DIR + '/binder').st_size)"
    assert run_client(place, code) == ["ok" if daemon.has_mmap else "ENODEV", str(4 << 20)]


@pytest.mark.parametrize("which", ["server", "client", "both"])
def test_a_handed_over_area_is_as_good(place: Path, daemon: Daemon, which: str) -> None:
    if not daemon.has_mmap:
        which = "both"  # there is no other area here
    server_code, caller_code = START + SERVER, START + CALLER
    if which != "client":
        server_code = server_code.replace("Device(DIR", "mapped(DIR").replace("size=1", "1")
    if which != "server":
        caller_code = caller_code.replace("Device(DIR", "mapped(DIR")
    with client(place, server_code) as server:
        assert server.line() == "up"
        said = run_client(
            place,
            caller_code + "say(word(abi.BR_REPLY) in call(one, b'hello'))\n"
            "say(word(abi.BR_REPLY) in call(one, bytes(800000)))\n"
            "say(word(abi.BR_REPLY) in call(one, b'again'))",
        )
        assert said == ["True"] * 3
        assert server.line() == "5 0 b'hello'"
        assert server.line().startswith("800000 0 ")
        assert server.line() == "5 0 b'again'"
        daemon.wait_for_counts(pages=0)


def test_unmapping_is_noticed(place: Path, daemon: Daemon) -> None:
    server_code = (START + SERVER).replace("Device(DIR", "mapped(DIR").replace("size=1", "1")
    server_code = server_code.replace(
        "        commands = free",
        "        unmap(server.address, server.size)\n        commands = free",
    )
    with client(place, server_code) as server:
        assert server.line() == "up"
        code = (START + CALLER).replace("Device(DIR", "mapped(DIR")
        code += (
            "import time\n"
            "say(word(abi.BR_REPLY) in call(one, b'hello'))\n"
            "end = time.monotonic() + 20\n"
            "while word(abi.BR_DEAD_REPLY) not in call(one, b'more') and time.monotonic() < end:\n"
            "    time.sleep(0.1)\n"
            "say(time.monotonic() < end)"
        )
        assert run_client(place, code) == ["True", "True"]


def test_nobody_but_root_can_do_anything_to_the_area_but_read(place: Path) -> None:
    """And not even root can make it smaller, which would be a SIGBUS for the daemon."""
    code = AREA + (
        "def reopen(): return os.open(f'/proc/self/fd/{fd}', os.O_RDWR)\n"
        "def shared(fd): mmap.mmap(fd, 4096, mmap.MAP_SHARED)\n"
        "def seal(fd): fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)\n"
        "say(outcome(os.write, fd, b'x'), outcome(os.ftruncate, fd, 0), outcome(shared, fd))\n"
        "say(outcome(seal, fd), outcome(os.posix_fallocate, fd, 0, 8192))\n"
        "other = reopen()\n"
        "say(outcome(os.ftruncate, other, 0), outcome(os.ftruncate, other, 8 << 20))\n"
        "say(outcome(seal, other))\n"
        "os.close(other)\n"
        "os.setresuid(1000, 1000, 1000)\n"
        "say(outcome(reopen), outcome(os.fchmod, fd, 0o666))\n"
        "say(outcome(os.truncate, f'/proc/self/fd/{fd}', 0))\n"
        "say(device.version())"
    )
    assert run_client(place, code) == [
        "EBADF EINVAL EACCES",
        "EPERM EBADF",
        "EPERM EPERM",
        "EPERM",
        "EACCES EPERM",
        "EACCES",
        "8",
    ]


def test_a_child_does_not_get_its_parents_area(place: Path) -> None:
    code = START + (
        "device = mapped(DIR + '/binder')\n"
        "if not os.fork():\n"
        "    say(outcome(area, device), outcome(attach_new, device, 2))\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )
    assert run_client(place, code) == ["EINVAL ok"]


WRONG_ENDS = {
    "no descriptor": ("-1", "EBADF"),
    "no open descriptor": ("999", "EBADF"),
    "a file": ("os.open('/dev/null', os.O_RDWR)", "ENOTSOCK"),
    "a pipe": ("os.pipe()[1]", "ENOTSOCK"),
    "a path": ("os.open('/', os.O_PATH)", "ENOTSOCK"),
    "the device": ("device.fd", "ENOTSOCK"),
    "a stream": ("keep(socket.socketpair())", "EINVAL"),
    "datagrams": ("keep(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))", "EINVAL"),
    "network": ("keep([0, socket.socket()])", "EINVAL"),
    "not connected": ("keep([0, socket.socket(*DEAD)])", "ENOTCONN"),
    "listening": ("keep(listening())", "EINVAL"),
    "connected to a server": ("keep(connected())", "EINVAL"),
    "accepted by a server": ("keep(connected()[::-1])", "EINVAL"),
    "closed at the other end": ("closed()", "EPIPE"),
    "shut down": ("shut()", "EPIPE"),
    "full": ("full()", "EAGAIN"),
}


@pytest.mark.parametrize("case", WRONG_ENDS)
def test_wrong_sockets(place: Path, case: str) -> None:
    expression, errno = WRONG_ENDS[case]
    code = START + (
        "kept = []\n"
        "def keep(ends):\n"
        "    kept.append(ends)\n"
        "    return ends[1].fileno()\n"
        "def listening():\n"
        "    server = socket.socket(*DEAD)\n"
        "    server.bind(f'\\0binderd-test-{os.getpid()}')\n"
        "    server.listen()\n"
        "    return 0, server\n"
        "def connected():\n"
        "    _, server = listening()\n"
        "    end = socket.socket(*DEAD)\n"
        "    end.connect(server.getsockname())\n"
        "    kept.append(server)\n"
        "    return server.accept()[0], end\n"
        "def closed():\n"
        "    ends = pair()\n"
        "    ends[0].close()\n"
        "    return keep(ends)\n"
        "def shut():\n"
        "    ends = pair()\n"
        "    ends[0].shutdown(socket.SHUT_RDWR)\n"
        "    return keep(ends)\n"
        "def full():\n"
        "    ends = pair()\n"
        "    fill(ends[1])\n"
        "    ends[1].setblocking(True)\n"
        "    return keep(ends)\n"
        "device = Device(DIR + '/binder', size=0)\n"
        f"end = {expression}\n"
        "say(outcome(attach, device, end), device.version())\n"
    )
    assert run_client(place, code) == [f"{errno} 8"]


def test_wrong_arguments(place: Path) -> None:
    code = START + (
        "device = Device(DIR + '/binder', size=0)\n"
        "ours, theirs = pair()\n"
        "end = theirs.fileno()\n"
        "say(*(outcome(attach, device, end, flags) for flags in (0, 4, 7, 0x80000001)))\n"
        "say(outcome(device.ioctl, ext.BINDERD_GET_INFO + (1 << 16), bytes(32)))\n"
        "say(outcome(device.ioctl, ext.BINDERD_ATTACH - (4 << 16), bytes(32)))\n"
        "say(outcome(ours.recv, 1, socket.MSG_DONTWAIT))\n"
    )
    assert run_client(place, code) == [" ".join(["EINVAL"] * 4), "EINVAL", "EINVAL", "EAGAIN"]


def test_only_so_many_processes_can_attach(place: Path, daemon: Daemon) -> None:
    """Those that have ended do not count, and attaching again replaces what was there."""
    code = START + (
        "device = Device(DIR + '/binder', size=0)\n"
        "def child():\n"
        "    ours, theirs = pair()\n"
        "    ready, tell = os.pipe()\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        os.write(tell, outcome(attach, device, theirs.fileno(), 2).encode())\n"
        "        os.close(tell)\n"
        "        signal.pause()\n"
        "    os.close(tell)\n"
        "    theirs.close()\n"
        "    return pid, os.read(ready, 99).decode(), ours\n"
        "for _ in range(100):\n"
        "    attach_new(device, 2)\n"
        "children = [child() for _ in range(16)]\n"
        "say(*(result for _, result, _ in children))\n"
        "attach_new(device, 2)\n"
        "pid, _, end = children[0]\n"
        "os.kill(pid, 9)\n"
        "os.waitpid(pid, 0)\n"
        "say(end.recv(1))\n"
        "children.append(child())\n"
        "say(children[-1][1])\n"
        "for pid, _, _ in children[1:]:\n"
        "    os.kill(pid, 9)\n"
    )
    assert run_client(place, code) == [" ".join(["ok"] * 15 + ["ENOSPC"]), "b''", "ok"]


def test_a_liar_harms_only_himself(place: Path) -> None:
    """Unmapping, mapping elsewhere, closing ends: the others are served all the same."""
    server_code = (START + SERVER).replace("Device(DIR", "mapped(DIR").replace("size=1", "1")
    liar = AREA + (
        "import gc\n"
        "address = map_file(fd, 4 << 20)\n"
        "unmap(address + 8192, 1 << 20)\n"
        "protect(address, 4096, 0)\n"
        "one = device\n"
        "one.address, one.size = address, 4 << 20\n"
        + CALLER.replace("one = Device(DIR + '/binder')", "")
        + "say(any(end in call(one, b'hello') for end in ENDS))\n"
        "for _ in range(50):\n"
        "    ours, theirs = pair()\n"
        "    attach(device, theirs.fileno(), 3)\n"
        "    (ours if _ % 2 else theirs).close()\n"
        "say(any(end in call(one, b'hello') for end in ENDS))\n"
    )
    good = (START + CALLER).replace("Device(DIR", "mapped(DIR")
    with client(place, server_code) as server:
        assert server.line() == "up"
        assert run_client(place, liar) == ["True", "True"]
        said = run_client(place, good + "say(word(abi.BR_REPLY) in call(one, b'hello'))")
        assert said == ["True"]


def test_sockets_that_are_read_do_not_use_up_descriptors(place: Path, daemon: Daemon) -> None:
    """Each is kept until it is empty; see test_flights.py."""

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))

    code = START + (
        "device = Device(DIR + '/binder', size=0)\n"
        "ends = [pair() for _ in range(200)]\n"
        "for _, theirs in ends:\n"
        "    attach(device, theirs.fileno(), 1)\n"
        "for ours, _ in ends:\n"
        "    take(ours)\n"
        "say('taken')\n"
        "wait_for_line()\n"
    )
    before = descriptors()
    with client(place, code) as process:
        assert process.line() == "taken"
        eventually(lambda: descriptors() - before < 10, "the sockets are kept")
        process.tell()
        process.process.wait(30)
    daemon.wait_for_counts(opens=0)
    eventually(lambda: descriptors() <= before)


def test_the_share_of_attachments(tmp_path: Path) -> None:
    """A user who has attached as many sockets as he may leaves others theirs."""
    for place in (tmp_path, *tmp_path.parents[:3]):
        place.chmod(0o755)
    code = START + (
        "os.setresuid({0}, {0}, {0})\n"
        "devices = [Device(DIR + '/binder', size=0) for _ in range(3)]\n"
        "ends = [pair() for _ in devices]\n"
        "for device, (_, theirs) in zip(devices, ends):\n"
        "    say(outcome(attach, device, theirs.fileno(), 2))\n"
        "wait_for_line()\n"
    )
    with (
        running(tmp_path / "mount", "--limit", "attachments=8") as daemon,
        client(daemon.directory, code.format(4002)) as mallory,
        client(daemon.directory, code.format(4001)) as alice,
    ):
        for process in (mallory, alice):
            assert [process.line() for _ in range(3)] == ["ok", "ok", "ENOSPC"]
        assert run_client(daemon.directory, code.format(0).replace("wait_for_line()", "")) == [
            "ok",
            "ok",
            "ok",
        ]
        for process in (mallory, alice):
            process.tell()
            process.process.wait(30)
        daemon.wait_for_counts(opens=0, users=0)
