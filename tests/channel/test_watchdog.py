# SPDX-License-Identifier: Apache-2.0
"""Clients whose memory never answers: they go, everybody else goes on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from binderd.linux import mount as linux_mount
from binderd.linux.mountinfo import read_mounts
from channel.helpers import SECONDS_MAX, client, needs_fuse, run_client, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_fuse

LIMIT = 1.0  # seconds

# Each makes ADDRESS, a page that nobody will ever provide again once it was taken away.
FAULTED = """
import ctypes, os, struct, fcntl, mmap
libc = ctypes.CDLL(None, use_errno=True)
uffd = libc.syscall({"x86_64": 323, "aarch64": 282}[os.uname().machine], os.O_CLOEXEC)
assert uffd >= 0, os.strerror(ctypes.get_errno())
fcntl.ioctl(uffd, 0xC018AA3F, struct.pack("=QQQ", 0xAA, 0, 0))  # UFFDIO_API
area = mmap.mmap(-1, 4096)
area[0] = 0
ADDRESS = ctypes.addressof(ctypes.c_char.from_buffer(area))
fcntl.ioctl(uffd, 0xC020AA00, struct.pack("=QQQQ", ADDRESS, 4096, 1, 0))  # UFFDIO_REGISTER
def take_away():
    area.madvise(mmap.MADV_REMOVE)
"""
HANDED_ON = (
    FAULTED
    + """
if os.fork() == 0:
    import time
    libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG: it goes when its parent is gone, not before
    time.sleep(600)
    os._exit(0)
os.close(uffd)
"""
)
SERVED = """
import ctypes, mmap, os, sys, threading
from binderwire import fuse_abi as abi
PLACE = DIR + "-hostile"
os.mkdir(PLACE)
libc = ctypes.CDLL(None, use_errno=True)
channel = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={channel},rootmode=40000,user_id=0,group_id=0".encode()
assert libc.mount(b"hostile", PLACE.encode(), b"fuse.hostile", 0, options) == 0
def serve():
    while True:
        frame = os.read(channel, 1 << 17)
        _, opcode, unique, nodeid, *_ = abi.fuse_in_header.unpack_from(frame)
        error, body = 0, b""
        if opcode == abi.FUSE_INIT:
            body = abi.fuse_init_out.build(major=7, minor=31, max_write=4096)
        elif opcode == abi.FUSE_LOOKUP:
            body = abi.fuse_entry_out.build(nodeid=2, ino=2, mode=0o100644, size=4096, nlink=1)
        elif opcode == abi.FUSE_GETATTR:
            mode = 0o100644 if nodeid == 2 else 0o40755
            body = abi.fuse_attr_out.build(ino=nodeid, mode=mode, size=4096, nlink=1)
        elif opcode == abi.FUSE_OPEN:
            body = abi.fuse_open_out.pack(1, 0, 0)
        elif opcode == abi.FUSE_READ:
            continue  # for ever
        elif opcode != abi.FUSE_FLUSH:
            error = -38
        os.write(channel, abi.fuse_out_header.pack(16 + len(body), error, unique) + body)
threading.Thread(target=serve, daemon=True).start()
file = os.open(PLACE + "/x", os.O_RDONLY)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
ADDRESS = libc.mmap(None, 4096, 3, 0x22, -1, 0)
assert ADDRESS != 2**64 - 1
ctypes.memset(ADDRESS, 0, 1)
def take_away():
    assert libc.mmap(ADDRESS, 4096, 1, 0x12, file, 0) == ADDRESS
    os.close(file)  # or its flush at our end would wait for ourselves
"""
# The daemon has seen it before: what is not there it does not touch.
USE_IT = """
device = Device(DIR + "/binder")
bwr = bytearray(struct.pack("=6Q", 4, 0, ADDRESS, 0, 0, 0))
try:
    fcntl.ioctl(device.fd, 0xC0306201, bwr)
except OSError:
    pass  # there is no command
take_away()
print("about to", flush=True)
bwr = bytearray(struct.pack("=6Q", 64, 0, ADDRESS, 0, 0, 0))
fcntl.ioctl(device.fd, 0xC0306201, bwr)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where to mount; what a client that was killed has mounted beside it goes, too."""
    yield tmp_path / "b"
    for mount in read_mounts():
        if mount.path.startswith(str(tmp_path)):
            linux_mount.unmount(mount.path, linux_mount.MNT_DETACH)


@pytest.mark.parametrize("hostile", [FAULTED, HANDED_ON, SERVED], ids=["own", "passed on", "fuse"])
def test_memory_that_never_answers(directory: Path, hostile: str) -> None:
    with running(directory, "--stall-limit", f"{LIMIT:g}") as daemon:
        with client(directory, "import fcntl, struct\n" + hostile + USE_IT) as process:
            assert process.line() == "about to"
            began = time.monotonic()
            said = daemon.expect("keeps its memory back")
            assert str(process.process.pid) in said
            assert run_client(directory, "print(Device(DIR + '/binder').version())") == ["8"]
            assert LIMIT <= time.monotonic() - began < SECONDS_MAX
            assert process.process.wait(SECONDS_MAX) == -9
        daemon.wait_for_counts(processes=0, opens=0)
        # What is said is what the memory came from.
        assert (b"FUSE connection" in daemon.said) == (hostile == SERVED)
        assert (b"userfaultfd" in daemon.said) == (hostile != SERVED)
        assert daemon.end() == 0


MANAGER = """
device = Device(DIR + "/binder")
flags = abi.FLAT_BINDER_FLAG_ACCEPTS_FDS
node = abi.flat_binder_object.build(type=abi.BINDER_TYPE_BINDER, flags=flags)
device.ioctl(abi.BINDER_SET_CONTEXT_MGR_EXT, node)
say("up")
wait_for_line()
"""
# The daemon is the only one who has it.
IN_TRANSIT = (
    FAULTED
    + """
device = Device(DIR + "/binder")
data = abi.binder_fd_object.build(type=abi.BINDER_TYPE_FD, fd=uffd)
payload = ctypes.create_string_buffer(data, len(data))
offsets = ctypes.create_string_buffer(bytes(8), 8)
body = abi.binder_transaction_data.build(
    flags=abi.TF_ONE_WAY, data_size=len(data), buffer=ctypes.addressof(payload),
    offsets_size=8, offsets=ctypes.addressof(offsets))
returns = device.write_read(struct.pack("=I", abi.BC_TRANSACTION) + body, 256)
assert struct.pack("=I", abi.BR_TRANSACTION_COMPLETE) in returns
os.close(uffd)
"""
)


def test_a_userfaultfd_that_we_hold_is_no_reason_to_kill_us(directory: Path) -> None:
    """A client can have any file of its own in our hands: in a transaction that nobody reads."""
    with running(directory, "--stall-limit", f"{LIMIT:g}") as daemon:
        with client(directory, MANAGER) as manager:
            assert manager.line() == "up"
            with client(directory, "import fcntl, struct\n" + IN_TRANSIT + USE_IT) as process:
                assert process.line() == "about to"
                daemon.expect("keeps its memory back")
                assert process.process.wait(SECONDS_MAX) == -9
            assert run_client(directory, "print(Device(DIR + '/binder').version())") == ["8"]
        assert daemon.end() == 0


def test_slow_is_not_stalled(directory: Path) -> None:
    """A daemon that waits for clients, for long, and not for their memory, kills nobody."""
    code = "device = Device(DIR + '/binder')\nprint('here', flush=True)\ninput()\nprint('alive')"
    with (
        running(directory, "--stall-limit", f"{LIMIT:g}") as daemon,
        client(directory, code) as one,
    ):
        assert one.line() == "here"
        time.sleep(2 * LIMIT)
        one.tell()
        assert one.line() == "alive"
        assert daemon.end() == 0
        assert daemon.process.stderr is not None
        assert b"keeps its memory back" not in daemon.process.stderr.read()
