# SPDX-License-Identifier: Apache-2.0
"""The channel and the pump over a SOCK_SEQPACKET pair, which keeps frames apart, too."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from binderd.channel import kernel_fd
from binderd.channel.kernel_fd import KernelFd
from binderd.channel.pump import CHECKPOINT_NS, Pump
from binderd.channel.transfer import MOMENT_NS
from binderd.edge.plain import ENDED, WOULD_BLOCK
from binderd.fuse.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Iterator

BUFFER_SIZE = 4096


class Echo:
    """A session that sends each request back, and b"two" twice.

    Time is counted: each request takes as long as it says.
    """

    def __init__(self) -> None:
        self.outgoing: list[bytes] = []
        self.handled = 0
        self.takes_ns = 0
        self.now = 0

    def receive(self, frame: bytearray, size: int) -> None:
        self.handled += 1
        self.now += self.takes_ns
        request = bytes(frame[:size])
        self.outgoing += [request, request] if request == b"two" else [request]


class Wire:
    """Both ends of a channel."""

    def __init__(self) -> None:
        self.kernel, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.kernel, ours):  # so that some hundred frames fit
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.channel = KernelFd(ours.detach(), BUFFER_SIZE)
        self.kernel.settimeout(1)
        self.session = Echo()
        self.refused: list[OSError] = []
        turns = Turns(lambda: self.session.now, lambda: self.session.now)
        self.pump = Pump(self.channel, self.session, turns, self.refused.append)


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.kernel.close()
    if wire.channel.fileno() >= 0:
        os.close(wire.channel.fileno())


def test_read_never_waits(wire: Wire) -> None:
    assert wire.channel.read() == WOULD_BLOCK
    wire.kernel.send(b"abc")
    wire.kernel.send(b"defg")
    assert (wire.channel.read(), wire.channel.buffer[:3]) == (3, b"abc")
    assert (wire.channel.read(), wire.channel.buffer[:4]) == (4, b"defg")
    wire.kernel.close()
    assert wire.channel.read() == ENDED


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        ([errno.ENOENT, errno.ENOENT], WOULD_BLOCK),  # given up while it was being copied
        ([errno.ENODEV], ENDED),  # unmounted
        ([errno.ECONNABORTED], ENDED),
    ],
)
def test_what_a_read_may_fail_with(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, failures: list[int], expected: int
) -> None:
    def readv(fd: int, buffers: list[bytearray]) -> int:
        if failures:
            raise OSError(failures.pop(0), "as the kernel says")
        raise BlockingIOError

    monkeypatch.setattr(kernel_fd.os, "readv", readv)
    assert wire.channel.read() == expected
    assert failures == []


def test_another_write_error_is_raised(wire: Wire) -> None:
    wire.kernel.close()
    with pytest.raises(BrokenPipeError):  # /dev/fuse has no such error
        wire.channel.write(b"abc")


async def test_waiting_ends_with_a_request(wire: Wire) -> None:
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.channel.wait)
            await trio.testing.wait_all_tasks_blocked()
            wire.kernel.send(b"abc")
        with trio.testing.assert_checkpoints():
            await wire.channel.wait()


TAKES_NS = MOMENT_NS // 5  # a request
BETWEEN_CHECKPOINTS = CHECKPOINT_NS // TAKES_NS  # requests


async def test_closing_wakes_the_waiting(wire: Wire) -> None:
    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await wire.channel.wait()

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            wire.channel.close()
        assert wire.channel.fileno() == -1
        wire.channel.close()
        await wait()


async def test_the_pump_answers_until_the_end(wire: Wire) -> None:
    for frame in (b"one", b"two", b"three"):
        wire.kernel.send(frame)
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.pump.run)
            await trio.testing.wait_all_tasks_blocked()
            assert [wire.kernel.recv(99) for _ in range(4)] == [b"one", b"two", b"two", b"three"]
            wire.kernel.send(b"later")
            await trio.testing.wait_all_tasks_blocked()
            assert wire.kernel.recv(99) == b"later"
            wire.kernel.close()
    assert wire.refused == []


async def test_a_busy_channel_lets_others_run(wire: Wire) -> None:
    wire.session.takes_ns = TAKES_NS
    for _ in range(2 * BETWEEN_CHECKPOINTS + 5):
        wire.kernel.send(b"x")
    seen = [0]

    async def look_on() -> None:
        while seen[-1] < 2 * BETWEEN_CHECKPOINTS:
            await trio.lowlevel.checkpoint()
            seen.append(wire.session.handled)

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.pump.run)
            await look_on()
            nursery.cancel_scope.cancel()
    assert any(0 < handled <= 2 * BETWEEN_CHECKPOINTS for handled in seen)


async def test_however_long_requests_take_others_run(wire: Wire) -> None:
    """A checkpoint is due by time: a signal waits for one request, not for so many."""
    wire.session.takes_ns = 200_000_000
    for _ in range(5):
        wire.kernel.send(b"x")
    with trio.CancelScope() as scope:
        scope.cancel()
        await wire.pump.run()
    assert wire.session.handled == 1


async def test_cancelling_loses_no_request(wire: Wire) -> None:
    wire.session.takes_ns = TAKES_NS
    for _ in range(BETWEEN_CHECKPOINTS + 5):
        wire.kernel.send(b"x")
    with trio.CancelScope() as scope:
        scope.cancel()
        await wire.pump.run()
    assert wire.session.handled == BETWEEN_CHECKPOINTS
    assert [wire.kernel.recv(9) for _ in range(BETWEEN_CHECKPOINTS)] == [b"x"] * BETWEEN_CHECKPOINTS
    assert wire.channel.read() == 1, "the others are still there"


def test_a_refused_reply_does_not_stop_the_others(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def write(fd: int, frame: bytes) -> int:
        if frame == b"bad":
            raise OSError(errno.EINVAL, "what is that?")
        if frame == b"late":
            raise OSError(errno.ENOENT, "nobody waits")
        written.append(frame)
        return len(frame)

    monkeypatch.setattr(kernel_fd.os, "write", write)
    wire.session.outgoing += [b"one", b"bad", b"late", b"two"]
    wire.pump.flush()
    assert written == [b"one", b"two"]
    assert [error.errno for error in wire.refused] == [errno.EINVAL]
    assert wire.session.outgoing == []
