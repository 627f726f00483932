# SPDX-License-Identifier: Apache-2.0
"""Receive areas in pages of the client's own, and clients that play tricks with them.

Whatever a client does there harms itself at most: the daemon goes on, and nothing is written but
into a private mapping of the device file.
"""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from channel.helpers import SECONDS_MAX, Daemon, client, needs_fuse, run_client, running
from channel.test_device import CALLER, MANAGER, SERVER
from support.passthrough import HAS_PASSTHROUGH

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_fuse

GUEST = 4321  # a user
PATIENCE = 1.0  # seconds that the daemon gives who writes there
TRICKS = """
import ctypes, fcntl
MADV_REMOVE = 9
def word(number): return struct.pack("=I", number)
libc = ctypes.CDLL(None, use_errno=True)
libc.madvise.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
libc.mmap.argtypes = [ctypes.c_size_t, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mmap.restype = ctypes.c_size_t
libc.mremap.argtypes = [*[ctypes.c_size_t] * 3, ctypes.c_int, ctypes.c_size_t]
libc.mremap.restype = ctypes.c_size_t
def remap(old, size, to):
    assert libc.mremap(old, size, size, 3, to) == to, os.strerror(ctypes.get_errno())
def room(size, at=0):
    "Return an address, that or any, where nothing else comes; remap puts something there."
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | (0x10 if at else 0)
    return libc.mmap(at, size, 0, flags, -1, 0)
def put_there(fd, flags, protection=mmap.PROT_READ):
    at = libc.mmap(server.address, server.size, protection, flags | 0x10, fd, 0)
    assert at == server.address, os.strerror(ctypes.get_errno())
def receive():
    "Return what a read brings, and the buffer's content if it is a transaction."
    returns = server.write_read(b"", 256)
    if word(abi.BR_TRANSACTION) not in returns:
        return None
    call = find(returns, abi.BR_TRANSACTION, abi.binder_transaction_data)
    content = peek(call.buffer, call.data_size)
    answer = free_buffer(call.buffer)
    if not call.flags & abi.TF_ONE_WAY:
        answer += word(abi.BC_REPLY) + abi.binder_transaction_data.build()
    server.write_read(answer, 256)
    return content
server.write_read(word(abi.BC_ENTER_LOOPER))
"""
READY = """
say("ready")
while True:
    say(receive())
"""
CALL = CALLER + "say(word(abi.BR_REPLY) in call(one, wait_for_line().strip().encode()))\n" * 3


@pytest.fixture(scope="module", params=["auto", "off"])
def daemon(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("private") / "mount"
    arguments = ["--transport", "fuse", "--passthrough", request.param]
    arguments += ["--stall-limit", f"{PATIENCE / 10:g}"]
    with running(place, *arguments) as daemon:
        daemon.shares = HAS_PASSTHROUGH and request.param == "auto"
        yield daemon
        daemon.end_clean(opens=0, processes=0, threads=0, pages=0, nodes=0, buffers=0)


@pytest.fixture
def place(daemon: Daemon, tmp_path: Path) -> Iterator[Path]:
    """A folder in which the file ``binder`` is the device, mounted alone."""
    tmp_path.chmod(0o755)
    file = tmp_path / "binder"
    file.touch()
    subprocess.run(["mount", "--bind", daemon.directory / "binder", file], check=True)
    yield tmp_path
    daemon.wait_for_counts(opens=0, processes=0)  # also of children, which end a little later
    subprocess.run(["umount", file], check=True)


def test_the_file_looks_empty_and_cannot_be_read(place: Path, daemon: Daemon) -> None:
    code = """
device = Device(DIR + "/binder", size=4 << 20)
say(peek(device.address, 4 << 20) == bytes(4 << 20), os.fstat(device.fd).st_size)
say(outcome(os.read, device.fd, 8), outcome(os.pread, device.fd, 4096, 0))
say(outcome(os.sendfile, os.memfd_create("x"), device.fd, 0, 4096))
say(outcome(os.write, device.fd, b"x"), outcome(os.pwrite, device.fd, b"x", 4096))
say(peek(device.address, 4 << 20) == bytes(4 << 20))
"""
    assert run_client(place, code) == [
        f"True {4 << 20}",
        "EINVAL EINVAL",
        "EINVAL" if daemon.shares or not HAS_PASSTHROUGH else "ok",  # Linux 6.1 asks as read(2)
        "EINVAL EINVAL",
        "True",
    ]


def test_many_open_it_at_once_and_each_gets_its_own(place: Path) -> None:
    caller = (
        "wait_for_line()\n"
        + CALLER
        + "say(all(word(abi.BR_REPLY) in call(one, b'x') for _ in range(20)))\n"
    )
    echo = SERVER.replace("abi.binder_transaction_data.build()", "RETURN").replace(
        "commands = struct", "RETURN = abi.binder_transaction_data.build()\ncommands = struct", 1
    )
    with client(place, echo) as server:
        assert server.line() == "up"
        callers = [client(place, caller) for _ in range(8)]
        processes = [one.__enter__() for one in callers]
        try:
            for process in processes:
                process.tell()
            assert [process.line() for process in processes] == ["True"] * 8
        finally:
            for one in callers:
                one.__exit__(None, None, None)


def test_two_files_of_one_process_have_an_area_each(place: Path) -> None:
    both = SERVER.replace(
        "commands = struct", "other = Device(DIR + '/binder')\ncommands = struct", 1
    )
    code = CALLER + (
        "two = Device(DIR + '/binder')\n"
        "three = Device(f'/proc/self/fd/{one.fd}')\n"
        "for device in (three, one, two, one, three):\n"
        "    say(word(abi.BR_REPLY) in call(device, b'x'))\n"
    )
    with client(place, both) as server:
        assert server.line() == "up"
        assert run_client(place, code) == ["True"] * 5
        for _ in range(5):
            assert server.line() == f"1 0 {b'x'}"


# Tricks: what the server does before it receives; what its second receipt shows.
KEEPS = {
    "nothing": "",
    "a page without access": "protect(server.address + 4096, 4096, 0)",
    "writable": "protect(server.address, server.size, 3); poke(server.address, b'mine' * 64)",
    "dropped": "libc.madvise(server.address, server.size, mmap.MADV_DONTNEED)\n"
    "os.posix_fadvise(server.fd, 0, 0, os.POSIX_FADV_DONTNEED)",
    "in pieces": "for page in range(0, server.size, 8192): protect(server.address + page, 4096, 3)",
    "punched": "assert outcome(os.posix_fallocate, server.fd, 0, 4096) == 'ENODEV'\n"
    "assert libc.fallocate(server.fd, 3, ctypes.c_long(0), ctypes.c_long(1 << 20)) < 0\n"
    "libc.madvise(server.address, server.size, MADV_REMOVE)",
    "shared with a child": "ours, theirs = os.pipe()\n"
    "if os.fork() == 0:\n"
    "    os.close(theirs)\n"
    "    unmap(server.address, server.size)\n"
    "    os._exit(len(os.read(ours, 1)))",
    "moved and back": "away = room(server.size)\n"
    "remap(server.address, server.size, away)\n"
    "remap(away, server.size, server.address)",
}
LOSES = {
    "unmapped": "unmap(server.address, server.size)",
    "a hole": "unmap(server.address, 4096)",
    "anonymous memory": "put_there(-1, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 3)",
    "a file": "put_there(file, mmap.MAP_PRIVATE)",
    "a shared file": "put_there(file, mmap.MAP_SHARED, 3)",
    "moved away": "remap(server.address, server.size, room(server.size))",
    "a page moved away": "remap(server.address, 4096, room(4096))",
    "another device": "put_there(os.open(OTHER, os.O_RDWR), mmap.MAP_PRIVATE)",
    "the device shared": "put_there(server.fd, mmap.MAP_SHARED)",
}
HOLES = ("unmapped", "a hole", "moved away", "a page moved away")
VICTIM_FILE = "file = os.open(DIR + '/victim', os.O_RDWR)\n"


@pytest.mark.parametrize("trick", KEEPS)
@pytest.mark.parametrize("is_new", [False, True], ids=["after", "before"])
def test_a_mapping_that_is_still_the_devices_receives(
    place: Path, trick: str, *, is_new: bool
) -> None:
    """``is_new``: it is done before anything was delivered there."""
    code = MANAGER + TRICKS + ("" if is_new else "say(receive())\n") + KEEPS[trick]
    with client(place, code + READY) as server, client(place, CALL) as caller:
        assert server.line() == "up"
        if not is_new:
            caller.tell("one")
            assert server.line() == str(b"one")
            assert caller.line() == "True"
        assert server.line() == "ready"
        caller.tell("two")
        assert server.line() == str(b"two")
        assert caller.line() == "True"


@pytest.mark.parametrize("trick", LOSES)
def test_whatever_else_is_there_is_not_written_to(place: Path, daemon: Daemon, trick: str) -> None:
    if trick == "the device shared" and not daemon.shares:
        pytest.skip("this cannot be mapped so")
    content = os.urandom(1 << 20)
    (place / "victim").write_bytes(content)
    code = f"OTHER = {str(daemon.directory / 'hwbinder')!r}\n"
    code += MANAGER + TRICKS + VICTIM_FILE + "say(receive())\n" + LOSES[trick]
    look = "b''" if trick in HOLES else "peek(server.address, 1 << 16)"
    code += f"\nbefore = {look}\nsay('ready')\nserver.write_read(b'', 256)\nsay({look} == before)\n"
    with client(place, code) as server, client(place, CALL) as caller:
        assert server.line() == "up"
        caller.tell("one")
        assert server.line() == str(b"one")
        assert caller.line() == "True"
        assert server.line() == "ready"
        caller.tell("two")
        assert caller.line() == "False"
        assert server.line() == "True"
    assert (place / "victim").read_bytes() == content


# One thread receives, the other changes what is there all the while.
RESTLESS = """
import threading, time
end = time.monotonic() + 2
def change():
    while time.monotonic() < end:
        put_there(file, mmap.MAP_SHARED)
        put_there(server.fd, mmap.MAP_PRIVATE)
        protect(server.address, 65536, 0)
        unmap(server.address, 65536)
        put_there(-1, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        put_there(server.fd, mmap.MAP_PRIVATE)
        libc.madvise(server.address, server.size, mmap.MADV_DONTNEED)
        remap(server.address, server.size, away)
        remap(away, server.size, server.address)
        room(server.size, away)
        outcome(os.posix_fallocate, server.fd, 0, 4096)
        child = os.fork()
        if child == 0:
            protect(server.address, 4096, 3)
            poke(server.address, b"mine")
            os._exit(0)
        os.waitpid(child, 0)
away = room(server.size)
threading.Thread(target=change).start()
say("restless")
while time.monotonic() < end:
    server.write_read(b"", 256)
"""


def test_what_changes_meanwhile_harms_nobody_else(place: Path, daemon: Daemon) -> None:
    content = os.urandom(1 << 20)
    (place / "victim").write_bytes(content)
    flood = CALLER.replace("ENDS = ", "END = time.monotonic() + 2\nENDS = ", 1) + (
        "while time.monotonic() < END:\n    call(one, b'spoilt!!' * 9000, one_way=True)\n"
    )
    with client(place, MANAGER + TRICKS + VICTIM_FILE + RESTLESS) as server:
        assert server.line() == "up"
        assert server.line() == "restless"
        with client(place, "import time\n" + flood) as caller:
            for _ in range(10):
                code = "say(Device(DIR + '/hwbinder').version())"
                assert run_client(daemon.directory, code) == ["8"]
            assert caller.process.wait(SECONDS_MAX) == 0
    assert (place / "victim").read_bytes() == content
    assert "keeps its memory back" not in daemon.said.decode()


def test_a_mapping_of_another_process_is_not_found(place: Path) -> None:
    """Who has the file from somebody else, and maps it, receives nothing; nor does the opener."""
    code = """
device = Device(DIR + "/binder", size=0)
if os.fork() == 0:
    address = map_file(device.fd, 1 << 20)
    device.ioctl(abi.BINDER_SET_CONTEXT_MGR, bytes(4))
    say("up")
    wait_for_line()
    os._exit(0)
os.wait()
"""
    with client(place, code) as server, client(place, CALL) as caller:
        assert server.line() == "up"
        caller.tell("one")
        assert caller.line() == "False"
        server.tell()


USERFAULT = """
uffd = libc.syscall({"x86_64": 323, "aarch64": 282}[os.uname().machine], os.O_CLOEXEC)
assert uffd >= 0, os.strerror(ctypes.get_errno())
fcntl.ioctl(uffd, 0xC018AA3F, struct.pack("=QQQ", 0xAA, 0, 0))  # UFFDIO_API
try:
    MODE  # 1: missing, 2: write-protect
    fcntl.ioctl(uffd, 0xC020AA00, struct.pack("=QQQQ", server.address, server.size, mode, 0))
    PROTECT
except OSError as error:
    say("none", error)
    sys.exit()
say("ready")
server.write_read(b"", 256)
say("back")
"""


@pytest.mark.parametrize("mode", [1, 2])
def test_who_handles_its_own_page_faults_keeps_itself_waiting_only(
    place: Path, daemon: Daemon, mode: int
) -> None:
    protect = "fcntl.ioctl(uffd, 0xC018AA06, struct.pack('=QQQ', server.address, server.size, 1))"
    code = MANAGER + TRICKS + USERFAULT.replace("MODE", f"mode = {mode}")
    code = code.replace("PROTECT", protect if mode == 2 else "")
    code = code.replace("server.write_read(word(abi.BC_ENTER_LOOPER))", "", 1)
    with client(place, code) as server, client(place, CALL) as caller:
        assert server.line() == "up"
        said = server.line()
        if said.startswith("none"):
            pytest.skip(f"this mapping cannot be handled by its client: {said}")
        caller.tell("one")
        began = time.monotonic()
        while time.monotonic() < began + PATIENCE / 2:
            before = time.monotonic()
            assert run_client(daemon.directory, "print(Device(DIR + '/hwbinder').version())")
            assert time.monotonic() - before < SECONDS_MAX / 4
        assert caller.line() in ("True", "False")
        assert server.line() == "back"
    assert "keeps its memory back" not in daemon.said.decode()


# A command stream in a page of the device file, which is seen, then dropped, then used again.
DROPPED = """
import ctypes, fcntl, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.madvise.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
device = Device(DIR + "/binder", size=1 << 20)
say("up")
wait_for_line()
for _ in range(20):
    peek(device.address + 8192, 8)
    for _ in range(2):
        argument = abi.binder_write_read.pack(8, 0, device.address + 8192, 0, 0, 0)
        assert outcome(device.ioctl, abi.BINDER_WRITE_READ, argument) == "EINVAL"
        libc.madvise(device.address, device.size, mmap.MADV_DONTNEED)
        os.posix_fadvise(device.fd, 0, 0, os.POSIX_FADV_DONTNEED)
say("done")
"""


def test_a_user_cannot_have_the_daemon_wait_for_itself(place: Path, daemon: Daemon) -> None:
    for parent in daemon.directory.parents:
        if parent.name.startswith(("pytest", "private")):
            parent.chmod(0o755)
    with client(place, f"import os\nos.setgid({GUEST})\nos.setuid({GUEST})\n" + DROPPED) as guest:
        assert guest.line() == "up"
        guest.tell()
        for _ in range(20):
            assert run_client(daemon.directory, "say(Device(DIR + '/hwbinder').version())") == ["8"]
        assert guest.line() == "done"
    assert "keeps its memory back" not in daemon.said.decode()
