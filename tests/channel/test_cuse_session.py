# SPDX-License-Identifier: Apache-2.0
"""CUSE on byte frames: arguments are read from the client and written back, channels are apart."""

from __future__ import annotations

import errno

import pytest

from binderd.device.cuse_device import CuseDevice
from binderd.device.replies import TICKET_SHIFT
from binderd.engine.ports import NotYet
from binderd.fuse.cuse import CuseSession
from binderwire import fuse_abi as abi
from binderwire.binder_abi import (
    BINDER_SET_CONTEXT_MGR,
    BINDER_SET_MAX_THREADS,
    BINDER_VERSION,
    BINDER_WRITE_READ,
)
from binderwire.extension_abi import BINDERD_FLUSH, BINDERD_GET_INFO
from channel.helpers import Done, request
from channel.session_world import World, ioctl_request

ADDRESS = 0xABC  # where ``ioctl_request`` says that the argument is


class FakeMemory:
    """A thread's memory: an argument of some size at ADDRESS."""

    def __init__(self, data: bytes = b"", *, is_writable: bool = True) -> None:
        self.data = data
        self.is_writable = is_writable
        self.written: list[tuple[int, bytes]] = []

    def read(self, address: int, size: int) -> bytes:
        return self.data[:size] if address == ADDRESS else b""

    def write(self, address: int, data: bytes) -> bool:
        self.written.append((address, bytes(data)))
        return self.is_writable


class LateMemory(FakeMemory):
    """One whose argument is read and written by somebody else, each once ``arrive`` was called."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.has_arrived = False
        self.forgotten = 0

    def read(self, address: int, size: int) -> bytes:
        self._wait()
        return super().read(address, size)

    def write(self, address: int, data: bytes) -> bool:
        self._wait()
        return super().write(address, data)

    def forget(self) -> None:
        self.forgotten += 1

    def _wait(self) -> None:
        if not self.has_arrived:
            raise NotYet(self)
        self.has_arrived = False

    def begin(self, ticket: int) -> bool:
        return True


class CuseWorld(World):
    """A world with two CUSE channels beside the file system."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = FakeMemory(bytes(range(64)))
        self.written: list[tuple[int, bytes]] = []  # (channel, frame), as the kernel gets them
        self.agreed: list[str | None] = []
        self.device.written_by(lambda: self._write(0, self.outgoing))
        self.sessions = [self._channel(number) for number in (1, 2)]

    def _channel(self, number: int) -> CuseSession:
        device = CuseDevice(self.files, "binder")
        device.written_by(lambda: self._write(number, device.outgoing))
        return CuseSession(
            f"dir/binder{number}",
            device,
            self.agreed.append,
            lambda opcode, error: self.reported.append((opcode, error)),
            self.turns,
        )

    def _write(self, channel: int, outgoing: list[bytes]) -> None:
        self.written += [(channel, frame) for frame in outgoing]
        outgoing.clear()

    def receive(self, channel: int, frame: bytes) -> list[tuple[int, int, int, bytes]]:
        """Return (channel, unique, error, body) of all that is written because of a frame."""
        self.buffer[: len(frame)] = frame
        session = self.session if channel == 0 else self.sessions[channel - 1]
        session.receive(self.buffer, len(frame))
        self._write(channel, session.outgoing)
        replies = []
        for number, reply in self.written:
            length, error, unique = abi.fuse_out_header.unpack_from(reply)
            assert length == len(reply)
            replies.append((number, unique, error, reply[abi.fuse_out_header.size :]))
        self.written.clear()
        return replies

    def open_node(self, channel: int = 1, flags: int = 2) -> int:
        frame = request(abi.FUSE_OPEN, abi.fuse_open_in.pack(flags, 0), nodeid=0)
        [(_, _, error, body)] = self.receive(channel, frame)
        assert error == 0
        handle = abi.fuse_open_out.read(body).fh
        self.files.find(handle).process.memory = lambda: self.memory
        return handle

    def ioctl(self, handle: int, command: int, unique: int = 2, channel: int = 1) -> int:
        """Return the result of an ioctl that ends at once."""
        [(number, answered, error, body)] = self.receive(
            channel, ioctl_request(handle, command, b"", 0, unique)
        )
        assert (number, answered, error) == (channel, unique, 0)
        assert len(body) == abi.fuse_ioctl_out.size
        return abi.fuse_ioctl_out.read(body).result


@pytest.fixture
def world() -> CuseWorld:
    return CuseWorld()


def init(major: int = 7, flags: int = abi.CUSE_UNRESTRICTED_IOCTL) -> bytes:
    return request(abi.CUSE_INIT, abi.cuse_init_in.pack(major, 45, 0, flags), nodeid=0)


def test_init_names_the_device(world: CuseWorld) -> None:
    [(_, _, error, body)] = world.receive(2, init())
    reply = abi.cuse_init_out.read(body)
    assert (error, reply.major, reply.minor, reply.flags) == (0, 7, 40, 1)
    assert body[abi.cuse_init_out.size :] == b"DEVNAME=dir/binder2\0"
    assert world.agreed == [None]


@pytest.mark.parametrize("frame", [init(major=6), init(flags=0)])
def test_init_refuses_what_it_cannot_serve(world: CuseWorld, frame: bytes) -> None:
    assert world.receive(1, frame) == [(1, 2, -errno.EPROTO, b"")]
    [reason] = world.agreed
    assert reason is not None
    assert "too old" in reason


def test_an_argument_is_read_and_written_back_before_the_reply(world: CuseWorld) -> None:
    handle = world.open_node()
    assert world.ioctl(handle, BINDER_WRITE_READ) == 0
    assert world.engine.calls[-1][3:5] == (BINDER_WRITE_READ, bytes(range(48)))
    assert world.memory.written == [(ADDRESS, bytes(range(48)))]


@pytest.mark.parametrize(
    ("command", "size"),
    [(BINDER_SET_MAX_THREADS, 4), (BINDER_SET_CONTEXT_MGR, 0), (0xC0406250, 0)],
)
def test_only_what_the_driver_reads_is_read(world: CuseWorld, command: int, size: int) -> None:
    handle = world.open_node()
    assert world.ioctl(handle, command) == 0
    assert world.engine.calls[-1][4] == bytes(range(size))


def test_a_bad_pointer_reaches_the_engine_as_a_short_argument(world: CuseWorld) -> None:
    handle = world.open_node()
    world.memory.data = b"abc"
    world.ioctl(handle, BINDER_SET_MAX_THREADS)
    assert world.engine.calls[-1][4] == b"abc"


@pytest.mark.parametrize(
    ("command", "expected"), [(BINDER_WRITE_READ, errno.EFAULT), (BINDER_VERSION, errno.EINVAL)]
)
def test_an_argument_that_cannot_be_written_back(
    world: CuseWorld, command: int, expected: int
) -> None:
    handle = world.open_node()
    world.memory.is_writable = False
    assert world.ioctl(handle, command) == -expected


def test_beside_an_errno_only_a_write_read_goes_back(world: CuseWorld) -> None:
    handle = world.open_node()
    world.engine.parks = True
    for command, written in ((BINDER_WRITE_READ, [(ADDRESS, b"x" * 48)]), (BINDER_VERSION, [])):
        assert world.receive(1, ioctl_request(handle, command, b"", 0, 6)) == []
        ticket = world.engine.calls[-1][5]
        world.memory.written.clear()
        world.engine.outbox.append(Done(ticket, -errno.EINTR, b"x" * 48))
        world.files.drain()
        [(channel, frame)] = world.written
        assert (channel, abi.fuse_out_header.read(frame).unique) == (1, 6)
        assert world.memory.written == written
        world.written.clear()


@pytest.mark.parametrize("command", [BINDER_WRITE_READ, BINDER_VERSION, BINDERD_GET_INFO])
def test_an_argument_that_comes_late(world: CuseWorld, command: int) -> None:
    handle = world.open_node()
    client = world.opener.clients[-1]
    client.has_mmap, client.injects = False, False
    world.memory = memory = LateMemory(bytes(range(64)))
    frame = ioctl_request(handle, command, b"", 0, 6)
    assert world.receive(1, frame) == []
    rounds = 1 if command == BINDERD_GET_INFO else 2  # that one has nothing to read
    for number in range(rounds):
        assert world.written == [], number
        [ticket] = world.engine.fetching
        assert ticket == 6 | 1 << TICKET_SHIFT
        memory.has_arrived = True
        world.engine.arrive(ticket)
        world.files.go_on(ticket)
    [(channel, reply)] = world.written
    assert (channel, abi.fuse_out_header.read(reply).unique) == (1, 6)
    [(address, written)] = memory.written
    assert address == ADDRESS
    assert command == BINDERD_GET_INFO or written == bytes(range(len(written)))
    assert memory.forgotten > 0, "it would be taken for what comes next"
    assert not world.engine.paused


def test_a_signal_while_the_argument_is_awaited_ends_what_sleeps_then(world: CuseWorld) -> None:
    handle = world.open_node()
    world.memory = memory = LateMemory(bytes(64))
    world.engine.parks = True
    assert world.receive(1, ioctl_request(handle, BINDER_WRITE_READ, b"", 0, 6)) == []
    [ticket] = world.engine.fetching
    frame = request(abi.FUSE_INTERRUPT, abi.fuse_interrupt_in.pack(6), unique=9, nodeid=0)
    assert world.receive(1, frame) == []
    memory.has_arrived = True
    world.engine.arrive(ticket)
    world.files.go_on(ticket)
    assert world.engine.calls[-1] == ("interrupt", ticket)


def test_equal_uniques_of_channels_are_different_requests(world: CuseWorld) -> None:
    handles = [world.open(), world.open_node(1), world.open_node(2)]
    world.engine.parks = True
    world.receive(0, ioctl_request(handles[0], BINDER_WRITE_READ, bytes(48), 48, 8))
    for channel in (1, 2):
        world.receive(channel, ioctl_request(handles[channel], BINDER_WRITE_READ, b"", 0, 8))
    tickets = [call[5] for call in world.engine.calls if call[0] == "ioctl"]
    assert tickets == [8, 8 | 1 << TICKET_SHIFT, 8 | 2 << TICKET_SHIFT]
    assert max(tickets) < 1 << 62


def test_a_request_of_one_channel_ends_those_of_all_others(world: CuseWorld) -> None:
    """Nothing is left unwritten, whichever channel the request came through."""
    handles = [world.open(), world.open_node(1), world.open_node(2)]
    for acting in (0, 1, 2):
        world.engine.parks = True
        world.receive(0, ioctl_request(handles[0], BINDER_WRITE_READ, bytes(48), 48, 8))
        world.receive(1, ioctl_request(handles[1], BINDER_WRITE_READ, b"", 0, 8))
        world.receive(2, ioctl_request(handles[2], BINDER_WRITE_READ, b"", 0, 8))
        world.engine.parks = False
        for channel in (0, 1, 2):
            world.engine.outbox.append(Done(8 | channel << TICKET_SHIFT, 0, bytes(48)))
        size = 48 if acting == 0 else 0
        frame = ioctl_request(handles[acting], BINDER_WRITE_READ, bytes(size), size, 10)
        replies = world.receive(acting, frame)
        assert sorted(reply[:2] for reply in replies) == sorted(
            [(0, 8), (1, 8), (2, 8), (acting, 10)]
        )


def test_an_interrupt_names_a_request_of_its_own_channel(world: CuseWorld) -> None:
    handle = world.open_node(2)
    world.engine.parks = True
    world.receive(2, ioctl_request(handle, BINDER_WRITE_READ, b"", 0, 8))
    frame = request(abi.FUSE_INTERRUPT, abi.fuse_interrupt_in.pack(8), unique=9, nodeid=0)
    [(channel, unique, error, body)] = world.receive(2, frame)
    assert (channel, unique, error) == (2, 8, 0)
    assert abi.fuse_ioctl_out.read(body).result == -errno.EINTR
    assert world.engine.calls[-1] == ("interrupt", 8 | 2 << TICKET_SHIFT)


def test_pollers_are_woken_through_their_channel(world: CuseWorld) -> None:
    handle = world.open_node(1)
    flags = abi.FUSE_POLL_SCHEDULE_NOTIFY
    body = abi.fuse_poll_in.pack(handle, 77, flags, 0xFFFF)
    [(_, _, error, _)] = world.receive(1, request(abi.FUSE_POLL, body, nodeid=0))
    assert error == 0
    world.engine.poll_wakes.append(world.files.find(handle).process)
    world.files.drain()
    [(channel, frame)] = world.written
    assert channel == 1
    assert abi.fuse_notify_poll_wakeup_out.unpack_from(frame, abi.fuse_out_header.size) == (77,)


def test_release_forgets_the_file(world: CuseWorld) -> None:
    handle = world.open_node()
    frame = request(abi.FUSE_RELEASE, abi.fuse_release_in.pack(handle, 2, 0, 0), nodeid=0)
    assert world.receive(1, frame) == [(1, 2, 0, b"")]
    assert world.engine.calls[-1] == ("release",)
    assert world.opener.clients[-1].is_closed
    assert len(world.files) == 0
    assert world.receive(1, frame) == [(1, 2, -errno.EBADF, b"")]


def test_the_extension(world: CuseWorld) -> None:
    handle = world.open_node()
    client = world.opener.clients[-1]
    client.has_mmap, client.injects = False, False
    assert world.ioctl(handle, BINDERD_GET_INFO) == 0
    [(address, info)] = world.memory.written
    assert (address, info[:4], info[4] & 1) == (ADDRESS, b"\1\0\0\0", 0)
    assert world.ioctl(handle, BINDERD_FLUSH) == 0
    assert world.engine.calls[-1] == ("flush",)
    world.memory.is_writable = False
    assert world.ioctl(handle, BINDERD_GET_INFO) == -errno.EFAULT


def test_what_an_extension_ioctl_ends_is_answered_at_once(world: CuseWorld) -> None:
    """A client that attaches anew ends deliveries, and with them reads of its other threads."""
    handle = world.open_node()
    client = world.opener.clients[-1]
    client.has_mmap, client.injects = False, False
    world.engine.outbox.append(Done(40, 0, bytes(48)))  # a request of the file system
    frames = world.receive(1, ioctl_request(handle, BINDERD_GET_INFO, b"", 0))
    assert {(channel, unique) for channel, unique, *_ in frames} == {(0, 40), (1, 2)}


def test_too_many_threads(world: CuseWorld) -> None:
    handle = world.open_node()
    world.files.find(handle).process.memory = None  # nothing can be had of a thread
    frame = ioctl_request(handle, BINDER_VERSION, b"", 0)
    assert world.receive(1, frame) == [(1, 2, -errno.ENOMEM, b"")]


@pytest.mark.parametrize("opcode", [abi.FUSE_READ, abi.FUSE_WRITE, abi.FUSE_OPEN, abi.FUSE_IOCTL])
def test_cut_off_and_unwanted_frames(world: CuseWorld, opcode: int) -> None:
    assert world.receive(1, request(opcode, b"\0\0", nodeid=0)) == [(1, 2, -errno.EINVAL, b"")]


def test_a_client_of_another_pid_namespace(world: CuseWorld) -> None:
    frame = request(abi.FUSE_OPEN, abi.fuse_open_in.pack(2, 0), nodeid=0, tid=0)
    assert world.receive(1, frame) == [(1, 2, -errno.EACCES, b"")]
