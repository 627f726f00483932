# SPDX-License-Identifier: Apache-2.0
"""The calls of the request path: what is written in C does what its Python does."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from binderd.edge import plain
from binderd.linux.maps import file_id
from support.extensions import compiled

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).resolve().parents[2] / "daemon" / "binderd" / "edge" / "native.c"
BUFFER_SIZE = 64
NO_DESCRIPTOR = -1
BEHIND_ALL = (1 << 64) - 8  # an address that nobody has


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Any:  # noqa: ANN401
    """The module of native.c, compiled for this session."""
    return compiled("binderd.edge.native", SOURCE, tmp_path_factory.mktemp("edge"))


@pytest.fixture(params=["plain", "native"])
def edge(request: pytest.FixtureRequest) -> Any:  # noqa: ANN401
    return plain if request.param == "plain" else request.getfixturevalue("native")


@pytest.fixture
def place(edge: Any) -> Iterator[memoryview]:  # noqa: ANN401
    """What the watchdog would see."""
    cells = memoryview(bytearray(BUFFER_SIZE)).cast("q")
    edge.show(cells)
    yield cells
    edge.show(memoryview(bytearray(BUFFER_SIZE)))


@contextmanager
def messages() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends, each of which reads what the other writes as one piece."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


@contextmanager
def other_process() -> Iterator[tuple[int, int, int]]:
    """A process: its number, its memory, and where that begins with PAYLOAD and can be written."""
    code = (
        "import ctypes, mmap, sys\n"
        "memory = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        f"memory[:16] = {PAYLOAD!r}\n"
        "print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)\n"
        "sys.stdin.read()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        address = int(process.stdout.readline())
        memory = os.open(f"/proc/{process.pid}/mem", os.O_RDWR)
        try:
            yield process.pid, memory, address
        finally:
            os.close(memory)
            process.kill()


@contextmanager
def here(size: int) -> Iterator[tuple[mmap.mmap, int]]:
    """So many bytes of ours, and their address."""
    with mmap.mmap(-1, mmap.PAGESIZE) as area:
        start = (ctypes.c_char * size).from_buffer(area)
        yield area, ctypes.addressof(start)
        del start


@contextmanager
def mapping_process(path: Path) -> Iterator[tuple[int, int, int, int]]:
    """A process, its memory, and where it has mapped a file of ours privately and shared."""
    code = (
        "import ctypes, mmap, sys\n"
        f"file = open({str(path)!r}, 'r+b')\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.mmap.restype = ctypes.c_void_p\n"
        "libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3\n"
        "libc.mmap.argtypes += [ctypes.c_long]\n"
        "for kind in (mmap.MAP_PRIVATE, mmap.MAP_SHARED):\n"
        "    print(libc.mmap(None, 4 * mmap.PAGESIZE, 1, kind, file.fileno(), 0), flush=True)\n"
        "sys.stdin.read()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        private, shared = int(process.stdout.readline()), int(process.stdout.readline())
        memory = os.open(f"/proc/{process.pid}/mem", os.O_RDWR)
        try:
            yield process.pid, memory, private, shared
        finally:
            os.close(memory)
            process.kill()


PAYLOAD = b"sixteen bytes..."


def test_both_have_the_same_functions(native: Any) -> None:  # noqa: ANN401
    ours = {name for name in dir(native) if not name.startswith("_")}
    assert ours == {
        name
        for name, value in vars(plain).items()
        if callable(value) and value.__module__ == plain.__name__
    }


def test_frames_come_one_by_one(edge: Any) -> None:  # noqa: ANN401
    buffer = bytearray(BUFFER_SIZE)
    with messages() as (ours, theirs):
        assert edge.read_frame(ours.fileno(), buffer) == plain.WOULD_BLOCK
        theirs.send(b"one")
        theirs.send(b"three")
        assert edge.read_frame(ours.fileno(), buffer) == 3
        assert edge.read_frame(ours.fileno(), buffer) == 5
        assert buffer[:6] == b"three\0"
        theirs.close()
        assert edge.read_frame(ours.fileno(), buffer) == plain.ENDED


def test_frames_go_out_whole(edge: Any) -> None:  # noqa: ANN401
    with messages() as (ours, theirs):
        edge.write_frame(ours.fileno(), b"one")
        edge.write_frame(ours.fileno(), b"two")
        assert [theirs.recv(9), theirs.recv(9)] == [b"one", b"two"]
        theirs.close()
        with pytest.raises(BrokenPipeError):
            edge.write_frame(ours.fileno(), b"three")


def test_what_no_channel_says_is_raised(edge: Any) -> None:  # noqa: ANN401
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        edge.read_frame(NO_DESCRIPTOR, bytearray(BUFFER_SIZE))
    assert caught.value.errno == errno.EBADF
    with pytest.raises(OSError, match="Bad file descriptor"):
        edge.write_frame(NO_DESCRIPTOR, b"x")


def test_nobody_waits_for_a_reply_without_a_connection(edge: Any) -> None:  # noqa: ANN401
    with socket.socket() as unconnected:  # ENOTCONN
        signal_before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        try:
            with pytest.raises(BrokenPipeError):
                edge.write_frame(unconnected.fileno(), b"x")
        finally:
            signal.signal(signal.SIGPIPE, signal_before)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unconnected:
        edge.write_frame(unconnected.fileno(), b"x")


def test_memory_is_read_whole_or_not_at_all(edge: Any, place: memoryview) -> None:  # noqa: ANN401
    with other_process() as (tid, memory, address):
        assert edge.read_memory(tid, memory, address, 16) == PAYLOAD
        assert place[plain._SUBJECT] == -tid
        assert edge.read_memory(tid, memory, address, 0) == b""
        assert edge.read_memory(tid, memory, 0, 16) == b""
        assert edge.read_memory(tid, memory, BEHIND_ALL, 16) == b""
        assert edge.read_memory(tid, memory, address, 1 << 40) == b""
        assert edge.read_memory(tid, NO_DESCRIPTOR, address, 16) == b""


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_memory_is_written_whole_or_not(edge: Any, place: memoryview, kind: Any) -> None:  # noqa: ANN401
    with other_process() as (tid, memory, address):
        assert edge.write_memory(tid, memory, address + 8, kind(b"other")) is True
        assert os.pread(memory, 16, address) == b"sixteen other..."
        assert place[plain._SUBJECT] == -tid
        assert edge.write_memory(tid, memory, 0, kind(b"x")) is False
        assert edge.write_memory(tid, memory, BEHIND_ALL, kind(b"x")) is False
        assert edge.write_memory(tid, NO_DESCRIPTOR, address, kind(b"x")) is False


def test_memory_is_copied_to_where_it_belongs(edge: Any, place: memoryview) -> None:  # noqa: ANN401
    with mmap.mmap(-1, mmap.PAGESIZE) as area, other_process() as (tid, _, address):
        start = ctypes.c_char.from_buffer(area)
        target = ctypes.addressof(start)
        del start
        assert edge.copy_memory(tid, address, 16, target + 8) is True
        assert area[:32] == bytes(8) + PAYLOAD + bytes(8)
        assert place[plain._SUBJECT] == -tid
        assert edge.copy_memory(tid, address, 0, target) is True
        assert edge.copy_memory(tid, 0, 16, target) is False
        assert edge.copy_memory(tid, BEHIND_ALL, 16, target) is False


def test_what_is_read_ahead_is_taken_once(edge: Any, place: memoryview) -> None:  # noqa: ANN401
    with here(32) as (area, target), other_process() as (tid, _, address):
        assert edge.read_ahead(tid, address + 8, 5, address, 16) == PAYLOAD[8:13]
        assert place[plain._SUBJECT] == -tid
        for wrong in ((tid + 1, address, 16), (tid, address + 1, 15), (tid, address, 17)):
            assert edge.take_ahead(*wrong, target) is False
        assert edge.take_ahead(tid, address, 0, target) is False
        assert area[:32] == bytes(32)
        assert edge.take_ahead(tid, address, 12, target + 8) is True
        assert area[:32] == bytes(8) + PAYLOAD[:12] + bytes(12)
        assert edge.take_ahead(tid, address, 12, target) is False


def test_what_cannot_be_read_ahead_is_not_missed(edge: Any) -> None:  # noqa: ANN401
    with here(32) as (area, target), other_process() as (tid, _, address):
        for start, count in ((0, 16), (BEHIND_ALL, 16), (address, 0)):
            assert edge.read_ahead(tid, address, 16, start, count) == PAYLOAD
            assert edge.take_ahead(tid, start, 16, target) is False
        assert edge.read_ahead(tid, address, 16, address, 16) == PAYLOAD
        assert edge.read_ahead(tid, 0, 16, address, 16) == b""
        assert edge.take_ahead(tid, address, 16, target) is False, "neither it nor what was before"
        assert edge.read_ahead(tid, address, 16, address, plain.AHEAD_MAX + 1) == b""
        assert edge.read_ahead(tid, address, 1 << 40, address, 16) == b""
        assert area[:32] == bytes(32)


def test_bytes_go_where_a_file_is_mapped_privately(edge: Any, tmp_path: Path) -> None:  # noqa: ANN401
    path = tmp_path / "file"
    path.write_bytes(bytes(4 * mmap.PAGESIZE))
    with path.open("rb") as file:
        page, own = mmap.PAGESIZE, file_id(file.fileno())
    key = plain.pack_file(own.inode, own.major, own.minor)
    others = plain.pack_file(own.inode + 1, own.major, own.minor)
    with here(32) as (area, source), mapping_process(path) as (pid, memory, private, shared):
        maps = os.open(f"/proc/{pid}/maps", os.O_RDONLY)
        area[:16] = PAYLOAD
        assert edge.store_over(maps, memory, key, private + page - 8, 16, source) is True
        assert os.pread(memory, 16, private + page - 8) == PAYLOAD
        for wrong in (
            (maps, memory, others, private, 16, source),
            (maps, memory, key, shared, 16, source),
            (maps, memory, key, private + 4 * page - 8, 16, source),
            (maps, memory, key, 0, 16, source),
            (maps, memory, key, BEHIND_ALL, 16, source),
            (maps, NO_DESCRIPTOR, key, private, 16, source),
        ):
            assert edge.store_over(*wrong) is False
        assert os.pread(memory, page - 8, private) == bytes(page - 8)
        assert path.read_bytes() == bytes(4 * page)
        os.close(maps)


def test_the_watchdog_sees_what_goes_on(edge: Any, place: memoryview) -> None:  # noqa: ANN401
    edge.enter(7)
    assert list(place[:2]) == [0, 7]
    edge.beat()
    edge.beat()
    edge.enter(-(1 << 40))
    assert list(place[:2]) == [2, -(1 << 40)]
    with pytest.raises(ValueError, match="room"):
        edge.show(memoryview(bytearray(8)))
    edge.enter(1)
    assert place[1] == 1, "the place has stayed the same"


def test_nice_values(edge: Any) -> None:  # noqa: ANN401
    with other_process() as (tid, _, _):
        os.setpriority(os.PRIO_PROCESS, tid, 7)
        assert edge.nice_of(tid) == 7
    assert edge.nice_of((1 << 22) + 1) == 0, "there is no such thread"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("read_frame", (0,)),
        ("read_frame", ("0", bytearray(8))),
        ("read_frame", (0, None)),
        ("write_frame", (0, None)),
        ("write_frame", (0, "text", 0)),
        ("read_memory", (1, 2, 3)),
        ("write_memory", (1, 2, 3, "text")),
        ("copy_memory", (1, 2, 3, None)),
        ("read_ahead", (1, 2, 3, 4, None)),
        ("take_ahead", (1, 2, 3)),
        ("store_over", (1, 2, b"short", 3, 4, 5)),
        ("store_over", (1, 2, None, 3, 4, 5)),
        ("enter", ("x",)),
        ("nice_of", (None,)),
        ("show", (None,)),
    ],
)
def test_what_makes_no_sense_is_refused(native: Any, name: str, arguments: Any) -> None:  # noqa: ANN401
    with pytest.raises((TypeError, ValueError)):
        getattr(native, name)(*arguments)


def test_a_signal_is_seen_to(edge: Any) -> None:  # noqa: ANN401
    """A read that a signal ends goes on behind its handler."""
    seen: list[int] = []
    with messages() as (ours, theirs):
        ours.setblocking(True)

        def answer(number: int, _: object) -> None:
            seen.append(number)
            theirs.send(struct.pack("=I", number))

        before = signal.signal(signal.SIGALRM, answer)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)  # one may come before the read
            assert edge.read_frame(ours.fileno(), bytearray(BUFFER_SIZE)) == 4
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    assert set(seen) == {signal.SIGALRM}
