# SPDX-License-Identifier: Apache-2.0
"""What a device file answers to whatever else one can ask of a file, compared with the driver's.

One table for all: what a character device of Linux's own driver answers, and where ours, which is
a file of a FUSE mount, differs (README lists that). Where there is that driver it is asked as well,
so the table itself is checked.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from channel.helpers import SECONDS_MAX, WHY_NO_FUSE, running
from support.kernel_driver import has_driver
from support.passthrough import HAS_PASSTHROUGH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_size_t
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
MAP_FAILED: Final = (1 << 64) - 1
FLOCK: Final = "73" if os.uname().machine == "x86_64" else "32"  # its system call number
OK: Final = "ok"
SIZE: Final = 4096


# What reads past read(2) where nothing is mapped of ours; Linux 6.1 asks us as read(2) does.
ZEROS: Final = OK if HAS_PASSTHROUGH else "EINVAL"


class Kind(NamedTuple):
    """A device to ask."""

    name: str  # driver, mapped (with passthrough), unmapped (without)
    path: Path


class Case(NamedTuple):
    """A request."""

    name: str
    ask: Callable[[int, Path], object]  # with an open file, and its path
    driver: str  # OK or the name of an errno
    ours: str = ""  # where it differs
    unmapped: str = ""  # where it differs without passthrough


def call(name: str, *arguments: object) -> None:
    """Call a function of the C library that sets errno."""
    sizes = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    ctypes.set_errno(0)
    if getattr(libc, name)(*sizes) < 0:
        raise OSError(ctypes.get_errno(), name)


def ioctl(number: int) -> Callable[[int, Path], object]:
    return lambda fd, _: fcntl.ioctl(fd, number, bytearray(64))


def open_with(flags: int) -> Callable[[int, Path], object]:
    return lambda _, path: os.close(os.open(path, flags | os.O_CLOEXEC))


def reopen(fd: int, _: Path) -> None:
    os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC))


def with_pipe(use: Callable[[int, int], object]) -> None:
    out, into = os.pipe()
    try:
        os.write(into, b"hello")
        use(out, into)
    finally:
        os.close(out)
        os.close(into)


def to_pipe(fd: int, _: Path) -> None:
    with_pipe(lambda _, into: call("splice", fd, None, into, None, 5, 0))


def from_pipe(fd: int, _: Path) -> None:
    with_pipe(lambda out, _: call("splice", out, None, fd, None, 5, 0))


def send_to_pipe(fd: int, _: Path) -> None:
    with_pipe(lambda _, into: os.sendfile(into, fd, None, 5))


def send_from_memory(fd: int, _: Path) -> None:
    memory = os.memfd_create("test", os.MFD_CLOEXEC)
    try:
        os.write(memory, b"hello")
        os.sendfile(fd, memory, 0, 5)
    finally:
        os.close(memory)


def copy_to_another(fd: int, path: Path) -> None:
    other = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.copy_file_range(fd, other, 5, 0, 0)
    finally:
        os.close(other)


def set_times(_: int, path: Path) -> None:
    os.utime(path, ns=(1_000_000_007, 2_000_000_008))
    found = path.stat()
    assert (found.st_atime_ns, found.st_mtime_ns) == (1_000_000_007, 2_000_000_008)


def map_with(protection: int, flags: int) -> Callable[[int, Path], object]:
    def use(fd: int, _: Path) -> None:
        # Not the mmap module: it wants to know better how large the file is.
        address = libc.mmap(None, SIZE, protection, flags, fd, 0)
        if address == MAP_FAILED:
            raise OSError(ctypes.get_errno(), "mmap")
        libc.munmap(address, SIZE)

    return use


READ, WRITE, SHARED, PRIVATE = mmap.PROT_READ, mmap.PROT_WRITE, mmap.MAP_SHARED, mmap.MAP_PRIVATE

CASES: Final = (
    Case("ftruncate", lambda fd, _: os.ftruncate(fd, 0), "EINVAL"),
    Case("ftruncate longer", lambda fd, _: os.ftruncate(fd, 8 << 20), "EINVAL"),
    Case("truncate", lambda _, path: os.truncate(path, 0), "EINVAL"),
    Case("fsync", lambda fd, _: os.fsync(fd), "EINVAL"),
    Case("fdatasync", lambda fd, _: os.fdatasync(fd), "EINVAL"),
    Case("sync_file_range", lambda fd, _: call("sync_file_range", fd, 0, 9, 7), "ESPIPE", OK),
    Case("syncfs", lambda fd, _: call("syncfs", fd), OK),
    Case("fallocate", lambda fd, _: os.posix_fallocate(fd, 0, 9), "ENODEV"),
    Case("punch a hole", lambda fd, _: call("fallocate", fd, 3, 0, 9), "ENODEV"),
    Case("read", lambda fd, _: os.read(fd, 9), "EINVAL"),
    Case("read nothing", lambda fd, _: os.read(fd, 0), "EINVAL", OK),
    Case("pread", lambda fd, _: os.pread(fd, 9, 0), "EINVAL"),
    Case("readv", lambda fd, _: os.readv(fd, [bytearray(9)]), "EINVAL"),
    Case("write", lambda fd, _: os.write(fd, b"x"), "EINVAL"),
    Case("write nothing", lambda fd, _: os.write(fd, b""), "EINVAL", OK),
    Case("pwrite", lambda fd, _: os.pwrite(fd, b"x", 0), "EINVAL"),
    Case("lseek", lambda fd, _: os.lseek(fd, 0, os.SEEK_SET), "ESPIPE", OK),
    Case("lseek to the end", lambda fd, _: os.lseek(fd, 0, os.SEEK_END), "ESPIPE", OK),
    Case("lseek to data", lambda fd, _: os.lseek(fd, 0, os.SEEK_DATA), "ESPIPE", OK),
    Case("splice to a pipe", to_pipe, "EINVAL", "", ZEROS),
    Case("splice from a pipe", from_pipe, "EINVAL"),
    Case("sendfile to a pipe", send_to_pipe, "EINVAL", "", ZEROS),
    Case("sendfile from memory", send_from_memory, "EINVAL"),
    Case("copy_file_range", copy_to_another, "EINVAL"),
    Case("FS_IOC_GETFLAGS", ioctl(0x80086601), "EINVAL"),
    Case("FS_IOC_SETFLAGS", ioctl(0x40086602), "EINVAL"),
    Case("FS_IOC_FSGETXATTR", ioctl(0x801C581F), "EINVAL"),
    Case("FS_IOC_FSSETXATTR", ioctl(0x401C5820), "EINVAL"),
    Case("FS_IOC_GETVERSION", ioctl(0x80087601), "EINVAL"),
    Case("FIBMAP", ioctl(1), "EINVAL", OK),
    Case("FIONREAD", ioctl(0x541B), "EINVAL", OK),
    Case("FIOQSIZE", ioctl(0x5460), "ENOTTY", OK),
    Case("TCGETS", ioctl(0x5401), "EINVAL"),
    Case("FIONBIO", ioctl(0x5421), OK),
    Case("getxattr", lambda fd, _: os.getxattr(fd, "user.x"), "ENODATA", "ENOTSUP"),
    Case("setxattr", lambda fd, _: os.setxattr(fd, "user.x", b"x"), "EPERM", "ENOTSUP"),
    Case("removexattr", lambda fd, _: os.removexattr(fd, "user.x"), "EPERM", "ENOTSUP"),
    Case("open O_TRUNC", open_with(os.O_RDWR | os.O_TRUNC), OK),
    Case("open O_CREAT", open_with(os.O_RDWR | os.O_CREAT), OK),
    Case("open O_EXCL", open_with(os.O_RDWR | os.O_CREAT | os.O_EXCL), "EEXIST"),
    Case("open O_APPEND", open_with(os.O_RDWR | os.O_APPEND), OK),
    Case("open O_SYNC", open_with(os.O_RDWR | os.O_SYNC), OK),
    Case("open O_DIRECT", open_with(os.O_RDWR | os.O_DIRECT), "EINVAL"),
    Case("open O_PATH", open_with(os.O_PATH), OK),
    Case("open O_RDONLY", open_with(os.O_RDONLY), OK),
    Case("open O_WRONLY", open_with(os.O_WRONLY), OK),
    Case("open O_DIRECTORY", open_with(os.O_DIRECTORY), "ENOTDIR"),
    Case("open /proc/self/fd", reopen, OK),
    Case("utimes", set_times, OK),
    Case("futimes", lambda fd, _: os.utime(fd), OK),
    Case("mmap to write, shared", map_with(WRITE | READ, SHARED), "EPERM", OK, "ENODEV"),
    Case("mmap to write, private", map_with(WRITE | READ, PRIVATE), "EPERM", OK),
    Case("F_SETLEASE", lambda fd, _: fcntl.fcntl(fd, 1024, fcntl.F_RDLCK), "EINVAL", "EAGAIN"),
    Case("F_SETFL O_DIRECT", lambda fd, _: fcntl.fcntl(fd, 4, os.O_DIRECT), "EINVAL", OK),
    Case("readahead", lambda fd, _: call("readahead", fd, 0, 9), "EINVAL", OK),
    Case("posix_fadvise", lambda fd, _: os.posix_fadvise(fd, 0, 9, 3), OK),
)


KINDS: Final = ("mapped", "unmapped", *(["driver"] if has_driver() else []))


@pytest.fixture(scope="module", params=KINDS)
def kind(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kind]:
    name = request.param
    if name == "driver":
        yield Kind(name, Path("/dev/binder"))
        return
    if WHY_NO_FUSE is not None:
        pytest.skip(WHY_NO_FUSE)
    if name == "mapped" and not HAS_PASSTHROUGH:
        pytest.skip("needs FUSE passthrough")
    place = tmp_path_factory.mktemp(name) / "mount"
    passthrough = "auto" if name == "mapped" else "off"
    with running(place, "--transport", "fuse", "--passthrough", passthrough) as daemon:
        yield Kind(name, place / "binder")
        daemon.wait_for_counts(opens=0, processes=0)
        assert daemon.end() == 0
        assert daemon.process.stderr is not None
        assert b"bug" not in daemon._seen + daemon.process.stderr.read()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_device_answers_as_the_driver_s(kind: Kind, case: Case) -> None:
    expected = case.driver
    if kind.name != "driver":
        expected = case.ours or expected
    if kind.name == "unmapped":
        expected = case.unmapped or expected
    fd = os.open(kind.path, os.O_RDWR | os.O_CLOEXEC)
    try:
        case.ask(fd, kind.path)
        answer = OK
    except OSError as error:
        answer = errno.errorcode[error.errno or 0]
    finally:
        os.close(fd)
    assert answer.replace("EOPNOTSUPP", "ENOTSUP") == expected


# flock


@pytest.fixture
def files(kind: Kind) -> Iterator[list[int]]:
    fds = [os.open(kind.path, os.O_RDWR | os.O_CLOEXEC) for _ in range(3)]
    yield fds
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def lock(fd: int, operation: int) -> str:
    """Return OK or the errno of a flock that does not wait."""
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return OK


def test_flock_excludes_other_opens(files: list[int]) -> None:
    one, two, three = files
    assert lock(one, fcntl.LOCK_EX) == OK
    assert lock(two, fcntl.LOCK_SH) == lock(two, fcntl.LOCK_EX) == "EAGAIN"
    assert lock(one, fcntl.LOCK_SH) == lock(two, fcntl.LOCK_SH) == OK
    assert lock(three, fcntl.LOCK_EX) == "EAGAIN"
    assert lock(one, fcntl.LOCK_EX) == "EAGAIN"  # and has none any more
    assert lock(two, fcntl.LOCK_UN) == lock(three, fcntl.LOCK_EX) == OK


def test_a_copy_of_the_descriptor_has_the_same_lock(files: list[int]) -> None:
    copy = os.dup(files[0])
    assert lock(files[0], fcntl.LOCK_EX) == lock(copy, fcntl.LOCK_EX) == OK
    os.close(files[0])
    files[0] = -1
    assert lock(files[1], fcntl.LOCK_EX) == "EAGAIN"
    os.close(copy)
    wait_until(lambda: lock(files[1], fcntl.LOCK_EX) == OK)


WAITER: Final = """
import fcntl, os, signal, sys
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(7))
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(fd, fcntl.LOCK_EX)
print("locked", flush=True)
signal.pause()
"""


@pytest.fixture
def waiter(kind: Kind, files: list[int]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits for a lock, which the first file has."""
    assert lock(files[0], fcntl.LOCK_EX) == OK
    command = [sys.executable, "-c", WAITER, str(kind.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        wait_until(lambda: sleeps_in_flock(process.pid))
        yield process
        process.kill()


def sleeps_in_flock(pid: int) -> bool:
    return Path(f"/proc/{pid}/syscall").read_text(encoding="ascii").split()[0] == FLOCK


def wait_until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not check():
        assert time.monotonic() < deadline, "it never happens"
        select.select([], [], [], 0.01)


def test_who_waits_for_a_lock_gets_it(files: list[int], waiter: subprocess.Popen[bytes]) -> None:
    os.close(files[0])
    files[0] = -1
    assert waiter.stdout is not None
    assert waiter.stdout.readline() == b"locked\n"
    assert lock(files[1], fcntl.LOCK_SH) == "EAGAIN"
    waiter.kill()
    waiter.wait(SECONDS_MAX)
    wait_until(lambda: lock(files[1], fcntl.LOCK_EX) == OK)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGKILL])
def test_a_signal_ends_the_wait_for_a_lock(
    files: list[int], waiter: subprocess.Popen[bytes], number: int
) -> None:
    waiter.send_signal(number)
    assert waiter.wait(SECONDS_MAX) == (7 if number == signal.SIGUSR1 else -number)
    assert lock(files[0], fcntl.LOCK_UN) == OK
    wait_until(lambda: lock(files[1], fcntl.LOCK_EX) == OK)
