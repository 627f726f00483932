# SPDX-License-Identifier: Apache-2.0
"""Clients of the extension that lie, do not answer, or cannot take what they are sent.

A manager attaches and misbehaves; a plain program calls it. Whatever it does, the caller gets an
answer once the liar is gone, others are served, and the daemon keeps nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from channel.helpers import Daemon, client, needs_fuse, run_client
from descriptors.programs import PATIENCE, Running, at_rest, build, daemon_at, helper_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_fuse

HEAD = """
import array, errno, os, socket, struct
from rawclient import *
from extension_client import attach, fill, pair, send_fd
from binderwire import binder_abi as abi, extension_abi as ext
"""
MANAGER = (
    HEAD
    + """
device = Device(DIR + "/one")
node = abi.flat_binder_object.build(
    type=abi.BINDER_TYPE_BINDER, flags=abi.FLAT_BINDER_FLAG_ACCEPTS_FDS
)
device.ioctl(abi.BINDER_SET_CONTEXT_MGR_EXT, node)
device.write_read(struct.pack("=I", abi.BC_ENTER_LOOPER))
ours, theirs = pair()

def attach_files():
    attach(device, theirs.fileno(), ext.BINDERD_ATTACH_FILES)
    theirs.close()

def message():
    octets, ancillary, _, _ = ours.recvmsg(4096, 4096, socket.MSG_DONTWAIT)
    numbers = array.array("i")
    for _, _, data in ancillary:
        numbers.frombytes(data)
    return ext.binderd_message.unpack_from(octets), numbers.tolist()

def report(number, numbers, error=0, count=None):
    area = (ctypes.c_int32 * len(numbers))(*numbers)
    count = len(numbers) if count is None else count
    packed = ext.binderd_installed.pack(number, error, count, ctypes.addressof(area))
    return outcome(device.ioctl, ext.BINDERD_INSTALLED, packed)

def read():
    "Read until there is a transaction; None if files are to be taken first."
    while True:
        try:
            returns = device.write_read(read_size=256)
        except OSError as error:
            if error.errno == errno.EINTR:
                continue
            assert error.errno == ext.BINDERD_ERRNO, error
            return None
        if struct.pack("=I", abi.BR_TRANSACTION) in returns:
            return find(returns, abi.BR_TRANSACTION, abi.binder_transaction_data)

def answer(call):
    command, kept = transaction(0, peek(call.buffer, 8))
    device.write_read(struct.pack("=I", abi.BC_REPLY) + command[4:])

say("ready")
"""
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("mount") / "m"
    with daemon_at(directory, "--device", "one", "--device", "two") as daemon:
        before = at_rest(daemon)
        yield daemon
        assert at_rest(daemon) == before


def call(program: Path, device: Path, files: int = 1) -> str:
    """Return what a caller complains of, nothing if all went well."""
    command = [str(program), "call", str(device), "1", str(files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return done.stderr


# What the manager does before it reads; then every call with a file must fail, and no other.
UNREACHABLE = {
    "a full socket": "fill(theirs)\nattach_files()",
    "a closed socket": "attach_files()\nours.close()",
    "no more reading": "attach_files()\nours.shutdown(socket.SHUT_RD)",
}


@pytest.mark.parametrize("code", UNREACHABLE.values(), ids=UNREACHABLE)
def test_a_socket_that_takes_nothing(daemon: Daemon, program: Path, code: str) -> None:
    code = MANAGER.replace('say("ready")', code + '\nsay("ready")')
    device = daemon.directory / "one"
    with client(daemon.directory, code + "answer(read())\nsay('done')\nwait_for_line()") as server:
        assert server.line() == "ready"
        assert "no reply" in call(program, device)
        assert call(program, device, files=0) == ""
        assert server.line() == "done"


WRONG_REPORTS = """
attach_files()
assert read() is None
(kind, count, number, left), numbers = message()
assert (kind, count, left, len(numbers)) == (ext.BINDERD_FILES, 2, 0, 2)
say(report(number + 1, numbers), report(0, numbers), report(1 << 63, numbers))
say(report(number, numbers, count=1), report(number, numbers, count=3))
say(report(number, [], count=2**32 - 1))
packed = ext.binderd_installed.pack(number, 0, 2, 16)
say(outcome(device.ioctl, ext.BINDERD_INSTALLED, packed))
other = Device(DIR + "/two")
packed = ext.binderd_installed.pack(number, 0, 2, 16)
say(outcome(other.ioctl, ext.BINDERD_INSTALLED, packed))
pid = os.fork()
if not pid:
    say(report(number, numbers))
    os._exit(0)
os.waitpid(pid, 0)
say(report(number, [77, -1]), report(number, [77, -1]))
call = read()
say(*(struct.unpack_from("=i", peek(call.buffer + at + 8, 4))[0] for at in (8, 32)))
for number in numbers:
    os.close(number)
answer(call)
say("done")
wait_for_line()
"""


def test_wrong_reports(daemon: Daemon, program: Path) -> None:
    with client(daemon.directory, MANAGER + WRONG_REPORTS) as server:
        assert server.line() == "ready"
        caller = Running(program, "call", daemon.directory / "one", 1, 2)
        expected = [
            "EINVAL EINVAL EINVAL",
            "EINVAL EINVAL",
            "EINVAL",
            "EFAULT",
            "EINVAL",  # through another open file
            "EINVAL",  # by another process
            "ok EINVAL",
            "77 -1",  # as it was said
            "done",
        ]
        assert [server.line() for _ in expected] == expected
        assert caller.errors() == ""


def test_who_never_reports_keeps_nobody_but_its_caller(daemon: Daemon, program: Path) -> None:
    code = MANAGER + "attach_files()\nassert read() is None\nsay('taken')\nread()\n"
    with client(daemon.directory, code) as server:
        assert server.line() == "ready"
        caller = Running(program, "call", daemon.directory / "one", 1, 1)
        assert server.line() == "taken"
        other = Running(program, "serve", daemon.directory / "two")
        other.expect("ready")
        assert call(program, daemon.directory / "two") == ""
        other.kill()
        daemon.wait_for_counts(installations=1, parked=2)
        assert caller.process.poll() is None
    assert "no reply" in caller.errors()
    daemon.wait_for_counts(installations=0, files=0)


SIGNALLED = """
import signal, threading
attach_files()
assert read() is None
signal.signal(signal.SIGALRM, lambda *_: say("alarm"))
signal.siginterrupt(signal.SIGALRM, True)
(_, _, number, _), numbers = message()
signal.setitimer(signal.ITIMER_REAL, 0.05)
threading.Timer(0.3, lambda: say(report(number, numbers))).start()
answer(read())
os.close(numbers[0])
say("done")
wait_for_line()
"""


def test_a_signal_ends_the_wait_for_a_report(daemon: Daemon, program: Path) -> None:
    with client(daemon.directory, MANAGER + SIGNALLED) as server:
        assert server.line() == "ready"
        assert call(program, daemon.directory / "one") == ""
        assert server.line() == "alarm"
        # The report is what lets the read go on; which of the two threads says so first is open.
        assert {server.line(), server.line()} == {"ok", "done"}


def test_a_socket_that_fills_up_half_way(daemon: Daemon, program: Path) -> None:
    """One message of a delivery came, the other cannot: the end of the socket says so."""
    code = MANAGER + (
        "fill(theirs)\n"
        "ours.recv(64)\n"
        "attach_files()\n"
        "say('attached')\n"
        "answer(read())\n"
        "say('answered')\n"
        "while True:\n"
        "    octets, ancillary, _, _ = ours.recvmsg(4096, 4096, socket.MSG_DONTWAIT)\n"
        "    if not octets:\n"
        "        break\n"
        "    last = octets, ancillary\n"
        "kind, count, _, left = ext.binderd_message.unpack_from(last[0])\n"
        "say(kind, count, left, len(last[1][0][2]) // 4)\n"
        "wait_for_line()\n"
    )
    with client(daemon.directory, code) as server:
        assert [server.line() for _ in range(2)] == ["ready", "attached"]
        assert "no reply" in call(program, daemon.directory / "one", 290)
        assert call(program, daemon.directory / "one", 0) == ""
        assert [server.line() for _ in range(2)] == ["answered", "2 253 37 253"]


STALLING = """
def take_away():
    wait_for_line()
    libc.madvise(ctypes.c_void_p(ADDRESS), 4096, 4)
    say("gone")

poke(ADDRESS, bytes(4096))
threading.Thread(target=take_away, daemon=True).start()
while True:
    argument = abi.binder_write_read.pack(0, 0, 0, 256, 0, ADDRESS)
    bwr = ctypes.create_string_buffer(argument, len(argument))
    libc.ioctl(device.fd, ctypes.c_ulong(abi.BINDER_WRITE_READ), bwr)
"""
FAULTING = """
import fcntl, threading
libc = ctypes.CDLL(None, use_errno=True)
uffd = libc.syscall({"x86_64": 323, "aarch64": 282}[os.uname().machine], os.O_CLOEXEC)
fcntl.ioctl(uffd, 0xC018AA3F, struct.pack("=QQQ", 0xAA, 0, 0))
ADDRESS = anonymous(4096)
poke(ADDRESS, bytes(4096))
fcntl.ioctl(uffd, 0xC020AA00, struct.pack("=QQQQ", ADDRESS, 4096, 1, 0))
"""


def test_a_read_buffer_that_stops_answering(program: Path, tmp_path: Path) -> None:
    """Its pages are gone, and are userfaultfd's to fill: the helper does not wait for that."""
    options = ["--device", "one", "--device", "two"]
    with (
        daemon_at(tmp_path / "m", *options) as daemon,
        client(daemon.directory, HEAD + FAULTING + MANAGER + STALLING) as server,
    ):
        assert server.line() == "ready"
        other = Running(program, "serve", daemon.directory / "two")
        other.expect("ready")
        helper = helper_of(daemon)
        os.kill(helper, signal.SIGSTOP)
        caller = Running(program, "call", daemon.directory / "one", 1, 1)
        daemon.wait_for_counts(installations=1)
        server.tell()
        assert server.line() == "gone"
        os.kill(helper, signal.SIGCONT)
        assert "no reply" in caller.errors()
        assert call(program, daemon.directory / "two") == ""
        other.kill()


def test_what_a_client_sends_us_is_let_go(daemon: Daemon) -> None:
    """Nobody reads our end; files in it go with the socket."""
    code = MANAGER + (
        "ends = []\n"
        "for _ in range(20):\n"
        "    ours, theirs = pair()\n"
        "    attach_files()\n"
        "    send_fd(ours, device.fd)\n"
        "    ends.append(ours)\n"
        "say('sent')\n"
        "wait_for_line()\n"
    )
    with client(daemon.directory, code) as server:
        assert [server.line() for _ in range(2)] == ["ready", "sent"]


def test_files_that_nobody_reads_are_limited(daemon: Daemon) -> None:
    """One sender's files, or one receiver's, never use up the daemon's descriptors."""
    sender = """
import os, struct
from rawclient import *
from binderwire import binder_abi as abi

device = Device(DIR + "/one")
COUNT = 250
fd = os.open("/dev/null", os.O_RDWR)
one = abi.binder_fd_object.build(type=abi.BINDER_TYPE_FD, fd=fd)
data = ctypes.create_string_buffer(one * COUNT, len(one) * COUNT)
offsets = (ctypes.c_uint64 * COUNT)(*(len(one) * i for i in range(COUNT)))
body = abi.binder_transaction_data.build(
    flags=abi.TF_ONE_WAY, data_size=len(one) * COUNT, buffer=ctypes.addressof(data),
    offsets_size=8 * COUNT, offsets=ctypes.addressof(offsets),
)
sent = 0
while True:
    device.write_read(struct.pack("=I", abi.BC_TRANSACTION) + body)
    returns = device.write_read(read_size=256)
    if struct.pack("=I", abi.BR_FAILED_REPLY) in returns:
        break
    assert struct.pack("=I", abi.BR_TRANSACTION_COMPLETE) in returns
    sent += COUNT
error = abi.binder_extended_error.read(device.ioctl(abi.BINDER_GET_EXTENDED_ERROR, bytes(12)))
say(sent, error.param)
"""
    with client(daemon.directory, MANAGER + "wait_for_line()") as server:
        assert server.line() == "ready"
        assert run_client(daemon.directory, sender) == ["2000 -12"]
        daemon.wait_for_counts(files=2000)
