# SPDX-License-Identifier: Apache-2.0
"""The FUSE session and the device behind it, byte by byte, without a kernel."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binderd.engine.errors import KernelErrno
from binderd.fuse.session import READ_BUFFER_SIZE, TOO_OLD
from binderd.fuse.tree import DEVICE_SIZE
from binderwire import fuse_abi as abi
from binderwire.binder_abi import BINDER_SET_MAX_THREADS, BINDER_VERSION, BINDER_WRITE_READ
from channel.helpers import Done, FakeProcess, request
from channel.session_world import (
    DEVICES,
    ROOT,
    World,
    init_request,
    ioctl_request,
    open_request,
    poll_request,
)

if TYPE_CHECKING:
    from binderwire.codec import Record

LINUX_6_18_FLAGS = 0x73FFFFFB | abi.FUSE_INIT_EXT


@pytest.fixture
def world() -> World:
    return World()


# INIT


def test_init_takes_passthrough(world: World) -> None:
    flags = LINUX_6_18_FLAGS | abi.FUSE_PASSTHROUGH | abi.FUSE_DIRECT_IO_ALLOW_MMAP
    error, body = world.answer(init_request(flags))
    reply = abi.fuse_init_out.read(body)
    assert (error, len(body), world.negotiated) == (0, 64, [None])
    assert (reply.major, reply.minor, reply.max_stack_depth) == (7, 40, 1)
    assert reply.flags2 << 32 == abi.FUSE_PASSTHROUGH | abi.FUSE_DIRECT_IO_ALLOW_MMAP
    ours = abi.FUSE_PARALLEL_DIROPS | abi.FUSE_ATOMIC_O_TRUNC | abi.FUSE_FLOCK_LOCKS
    assert reply.flags == abi.FUSE_INIT_EXT | ours
    assert abi.fuse_in_header.size + 40 + reply.max_write <= READ_BUFFER_SIZE


@pytest.mark.parametrize(
    "frame",
    [
        init_request(LINUX_6_18_FLAGS),
        init_request(abi.FUSE_PASSTHROUGH),  # without INIT_EXT the second word means nothing
        request(abi.FUSE_INIT, abi.fuse_init_in.build(major=7, minor=31)[:16], tid=0),
    ],
)
def test_init_goes_on_without_passthrough(world: World, frame: bytes) -> None:
    error, body = world.answer(frame)
    reply = abi.fuse_init_out.read(body)
    assert (error, reply.flags2, reply.max_stack_depth) == (0, 0, 0)
    assert (world.negotiated, world.session.has_passthrough) == ([None], False)


def test_init_refuses_an_older_protocol(world: World) -> None:
    frame = init_request(LINUX_6_18_FLAGS | abi.FUSE_PASSTHROUGH, major=6)
    assert world.answer(frame) == (-errno.EPROTO, b"")
    assert world.negotiated == [TOO_OLD.format(6)]


def test_init_steps_down_from_a_newer_major(world: World) -> None:
    error, body = world.answer(init_request(LINUX_6_18_FLAGS, major=8))
    assert (error, abi.fuse_init_out.read(body).major, world.negotiated) == (0, 7, [])


# The tree


def test_lookups_give_an_inode_that_is_valid_for_no_time(world: World) -> None:
    _, body = world.answer(request(abi.FUSE_LOOKUP, b"binder\0"))
    entry = abi.fuse_entry_out.read(body)
    assert (entry.entry_valid, entry.entry_valid_nsec) == (0, 0)
    assert (entry.nodeid, entry.size, entry.mode) == (entry.ino, DEVICE_SIZE, 0o100666)
    assert world.lookup(tid=8) == entry.nodeid
    assert world.lookup(b"hwbinder") != entry.nodeid
    assert len(world.tree) == 2


def test_each_lookup_that_begins_an_open_anew_gives_a_new_inode(world: World) -> None:
    first = world.begin_open()
    assert world.lookup() != first, "it has not opened that yet"
    assert world.answer(open_request(first))[0] == 0
    assert len({first, world.lookup(), world.begin_open(tid=8)}) == 3


@pytest.mark.parametrize(
    ("name", "nodeid", "expected"),
    [
        (b"nothing\0", ROOT, errno.ENOENT),
        (b"binder", ROOT, errno.ENOENT),  # no terminator
        (b"", ROOT, errno.ENOENT),
        (b"\0", ROOT, errno.ENOENT),
        (b"binder\0", 99, errno.ENOTDIR),
    ],
)
def test_lookup_fails(world: World, name: bytes, nodeid: int, expected: int) -> None:
    assert world.answer(request(abi.FUSE_LOOKUP, name, nodeid=nodeid)) == (-expected, b"")


def test_forget_drops_what_was_looked_up(world: World) -> None:
    first, second, third = world.lookup(), world.lookup(b"hwbinder"), world.begin_open()
    world.send(request(abi.FUSE_FORGET, abi.fuse_forget_in.pack(1), nodeid=first))
    assert world.tree.node(first) is not None, "two look-ups gave it"
    assert world.send(request(abi.FUSE_FORGET, abi.fuse_forget_in.pack(1), nodeid=first)) == []
    assert (world.tree.node(first), len(world.tree)) == (None, 2)
    pairs = abi.fuse_forget_one.pack(second, 1) + abi.fuse_forget_one.pack(third, 1)
    cut_off = abi.fuse_batch_forget_in.pack(1000, 0) + pairs + b"1234"
    assert world.send(request(abi.FUSE_BATCH_FORGET, cut_off, nodeid=0)) == []
    assert len(world.tree) == 0
    assert world.lookup(tid=8) > third, "numbers are not used again"


def test_an_open_inode_outlives_its_forget(world: World) -> None:
    handle = world.open()
    nodeid = max(world.tree._nodes)
    forgotten = request(abi.FUSE_FORGET, abi.fuse_forget_in.pack(1), nodeid=min(world.tree._nodes))
    world.send(forgotten)
    world.send(request(abi.FUSE_FORGET, abi.fuse_forget_in.pack(1), nodeid=nodeid))
    assert len(world.tree) == 1
    world.answer(request(abi.FUSE_RELEASE, abi.fuse_release_in.pack(handle, 2, 0, 0)))
    assert len(world.tree) == 0


def test_readdir_goes_on_where_it_stopped(world: World) -> None:
    names, offset = [], 0
    while True:
        body = abi.fuse_read_in.pack(0, offset, 64, 0, 0, 0, 0)
        error, listing = world.answer(request(abi.FUSE_READDIR, body))
        assert error == 0
        if not listing:
            break
        at = 0
        while at < len(listing):
            entry = abi.fuse_dirent.read(listing, at)
            start = at + abi.fuse_dirent.size
            names.append(listing[start : start + entry.namelen].decode())
            offset = entry.off
            at = start + entry.namelen + -entry.namelen % 8
    assert names == [".", "..", "binder-control", "features", "binder_logs", *DEVICES]


@pytest.mark.parametrize(
    ("opcode", "expected"),
    [
        (abi.FUSE_READ, errno.EINVAL),
        (abi.FUSE_WRITE, errno.EINVAL),
        (abi.FUSE_CREATE, errno.EACCES),
        (abi.FUSE_MKDIR, errno.EPERM),
        (abi.FUSE_UNLINK, errno.ENOENT),
        (22, errno.ENOSYS),  # FUSE_GETXATTR, which is not in the table
        (0, errno.ENOSYS),
        (0xFFFFFFFF, errno.ENOSYS),
    ],
)
def test_what_a_device_does_not_do(world: World, opcode: int, expected: int) -> None:
    assert world.answer(request(opcode, bytes(64))) == (-expected, b"")


# Open files


def test_open_names_the_backing_file(world: World) -> None:
    nodeid = world.begin_open(b"hwbinder", tid=31)
    error, body = world.answer(open_request(nodeid, 2 | abi.O_NONBLOCK, tid=31))
    reply = abi.fuse_open_out.read(body)
    assert (error, reply.backing_id) == (0, 70)
    assert reply.open_flags == abi.FOPEN_PASSTHROUGH | abi.FOPEN_DIRECT_IO
    assert world.engine.calls == [("open", "hwbinder", 31, True)]
    assert world.opener.clients[0].process is not None


def test_open_fails_with_the_errno_of_whoever_refused(world: World) -> None:
    assert world.answer(open_request(999)) == (-errno.ENOENT, b"")
    assert world.answer(open_request(world.lookup(), tid=0)) == (-errno.EACCES, b"")
    world.opener.fails = OSError(errno.EMFILE, "no more")
    assert world.answer(open_request(world.begin_open())) == (-errno.ENFILE, b"")
    world.opener.fails = None
    world.engine.fails = KernelErrno(errno.ENOMEM)
    assert world.answer(open_request(world.begin_open())) == (-errno.ENOMEM, b"")
    assert world.opener.clients[0].is_closed
    nodeid = world.begin_open()
    assert world.answer(open_request(nodeid))[0] == 0, "the failures have left nothing behind"


def test_ioctl_goes_through_whole(world: World) -> None:
    handle = world.open()
    argument = bytes(range(48))
    error, body = world.answer(ioctl_request(handle, BINDER_WRITE_READ, argument, 48, tid=44))
    result = abi.fuse_ioctl_out.read(body)
    assert (error, result.result, body[16:]) == (0, 0, argument)
    assert world.engine.calls[-1] == ("ioctl", 44, 1000, BINDER_WRITE_READ, argument, 2)


@pytest.mark.parametrize(
    ("command", "argument", "out_size", "returned"),
    [
        (BINDER_VERSION, b"abcd", 4, b"abcd"),
        (BINDER_SET_MAX_THREADS, b"abcd", 0, b""),  # more than was asked for would be an error
        (0x6201, b"", 0, b""),
        (0xFFFF6250, bytes(16383), 16383, bytes(16383)),
        (0x80306250, b"", 48, b""),
        (0x40306250, bytes(48), 0, b""),
    ],
)
def test_ioctl_of_any_size(
    world: World, command: int, argument: bytes, out_size: int, returned: bytes
) -> None:
    handle = world.open()
    error, body = world.answer(ioctl_request(handle, command, argument, out_size))
    assert (error, body[16:]) == (0, returned)
    assert world.engine.calls[-1][4] == argument
    assert not world.device._room


def test_an_errno_takes_the_argument_along(world: World) -> None:
    handle = world.open()
    world.engine.parks = True
    assert world.send(ioctl_request(handle, BINDER_WRITE_READ, bytes(48), 48, unique=10)) == []
    world.engine.outbox.append(Done(10, -errno.EAGAIN, b"x" * 48))
    world.files.drain()
    [frame] = world.outgoing
    assert abi.fuse_out_header.unpack_from(frame) == (80, 0, 10)
    assert abi.fuse_ioctl_out.read(frame, 16).result == -errno.EAGAIN
    assert frame[32:] == b"x" * 48


def test_an_interrupt_answers_the_interrupted_request_only(world: World) -> None:
    handle = world.open()
    world.engine.parks = True
    world.send(ioctl_request(handle, BINDER_WRITE_READ, bytes(48), 48, unique=10))
    body = abi.fuse_interrupt_in.pack(10)
    [(unique, error, reply)] = world.send(request(abi.FUSE_INTERRUPT, body, unique=11))
    assert (unique, error, abi.fuse_ioctl_out.read(reply).result) == (10, 0, -errno.EINTR)


@pytest.mark.parametrize("in_size", [1, 48, 0xFFFFFFFF])
def test_an_argument_that_is_not_there(world: World, in_size: int) -> None:
    handle = world.open()
    body = abi.fuse_ioctl_in.pack(handle, 0, BINDER_WRITE_READ, 0, in_size, 48)
    assert world.answer(request(abi.FUSE_IOCTL, body)) == (-errno.EINVAL, b"")
    assert not world.device._room


def test_handles_that_do_not_exist(world: World) -> None:
    assert world.answer(ioctl_request(5, BINDER_VERSION, bytes(4), 4)) == (-errno.ENOTTY, b"")
    assert world.answer(poll_request(5, 1, schedule=True)) == (-errno.EBADF, b"")
    flush = abi.fuse_flush_in.pack(5, 0, 0, 0)
    assert world.answer(request(abi.FUSE_FLUSH, flush)) == (-errno.EBADF, b"")
    release = abi.fuse_release_in.pack(5, 0, 0, 0)
    assert world.answer(request(abi.FUSE_RELEASE, release)) == (-errno.EBADF, b"")


def test_a_poller_is_woken_once(world: World) -> None:
    handle = world.open()
    process = world.opener.clients[0].process
    error, body = world.answer(poll_request(handle, 77, schedule=False))
    assert (error, abi.fuse_poll_out.read(body).revents) == (0, 0)
    world.engine.poll_wakes.append(process)
    world.files.drain()
    assert world.outgoing == [], "nobody waits"
    world.answer(poll_request(handle, 77, schedule=True))
    world.engine.poll_wakes.extend([process, process, FakeProcess(None)])
    world.files.drain()
    [frame] = world.outgoing
    assert abi.fuse_out_header.unpack_from(frame) == (24, abi.FUSE_NOTIFY_POLL, 0)
    assert abi.fuse_notify_poll_wakeup_out.read(frame, 16).kh == 77
    assert world.engine.poll_wakes == []


def test_the_outside_is_heard_only_about_open_files(world: World) -> None:
    handle = world.open()
    process = world.opener.clients[0].process
    world.files.thread_gone(process, 9)
    world.files.unmapped(process)
    assert world.engine.calls[1:] == [("thread_gone", 9), ("unmapped",)]
    world.answer(request(abi.FUSE_RELEASE, abi.fuse_release_in.pack(handle, 2, 0, 0)))
    world.files.thread_gone(process, 9)
    world.files.unmapped(process)
    assert world.engine.calls[-1] == ("release",)


# What must not happen


def test_our_bug_ends_one_request_only(world: World) -> None:
    handle = world.open()
    world.engine.outbox.append(Done(8, 0, bytes(48)))  # somebody else's, finished before
    world.engine.fails = ZeroDivisionError("a bug")
    replies = world.send(ioctl_request(handle, BINDER_VERSION, bytes(4), 4))
    assert [(unique, error) for unique, error, _ in replies] == [(8, 0), (2, -errno.EIO)]
    assert world.session.bugs == 1
    assert [opcode for opcode, _ in world.reported] == [abi.FUSE_IOCTL]
    assert not world.device._room
    assert world.answer(ioctl_request(handle, BINDER_VERSION, b"abcd", 4))[1][16:] == b"abcd"


def test_a_bug_in_release_still_frees_the_pages(world: World) -> None:
    handle = world.open()
    world.engine.fails = AssertionError("not empty")
    release = request(abi.FUSE_RELEASE, abi.fuse_release_in.pack(handle, 2, 0, 0))
    assert world.answer(release) == (-errno.EIO, b"")
    assert world.opener.clients[0].is_closed
    assert len(world.files) == 0


def test_a_client_that_cannot_be_closed_is_closed_once(world: World) -> None:
    handle = world.open()
    client = world.opener.clients[0]
    client.fails = OSError(errno.EIO, "no")
    release = request(abi.FUSE_RELEASE, abi.fuse_release_in.pack(handle, 2, 0, 0))
    assert world.answer(release) == (-errno.EIO, b"")
    handle = world.open()
    assert world.answer(ioctl_request(handle, BINDER_VERSION, b"abcd", 4))[1][16:] == b"abcd"
    assert world.session.bugs == 1


def _bodies() -> list[tuple[int, Record | None]]:
    return [
        (abi.FUSE_INIT, abi.fuse_init_in),
        (abi.FUSE_OPEN, abi.fuse_open_in),
        (abi.FUSE_IOCTL, abi.fuse_ioctl_in),
        (abi.FUSE_POLL, abi.fuse_poll_in),
        (abi.FUSE_FLUSH, abi.fuse_flush_in),
        (abi.FUSE_RELEASE, abi.fuse_release_in),
        (abi.FUSE_SETATTR, abi.fuse_setattr_in),
        (abi.FUSE_RENAME, abi.fuse_rename_in),
        (abi.FUSE_RENAME2, abi.fuse_rename2_in),
        (abi.FUSE_READDIR, abi.fuse_read_in),
        (abi.FUSE_FORGET, abi.fuse_forget_in),
        (abi.FUSE_BATCH_FORGET, abi.fuse_batch_forget_in),
        (abi.FUSE_INTERRUPT, abi.fuse_interrupt_in),
    ]


@pytest.mark.parametrize(("opcode", "body"), _bodies())
def test_a_frame_cut_off_anywhere_is_refused(opcode: int, body: Record) -> None:
    world = World()
    whole = request(opcode, bytes(body.size))
    least = 56 if opcode == abi.FUSE_INIT else len(whole)
    for size in range(least):
        replies = world.send(whole[:size])  # its header says more than there is
        assert all(error in {-errno.EINVAL, -errno.EIO} for _, error, _ in replies)
        if size >= abi.fuse_in_header.size:
            replies = world.send(request(opcode, bytes(size - abi.fuse_in_header.size)))
            assert all(error in {-errno.EINVAL, -errno.EIO} for _, error, _ in replies)
    assert world.reported == []
    assert world.engine.calls == []


@given(
    st.lists(
        st.tuples(
            st.one_of(st.sampled_from([opcode for opcode, _ in _bodies()]), st.integers(0, 60)),
            st.integers(0, 4),
            st.integers(0, 8),
            st.binary(max_size=160),
        ),
        max_size=30,
    )
)
def test_no_frame_raises(frames: list[tuple[int, int, int, bytes]]) -> None:
    world = World()
    handle = world.open()
    for opcode, unique, nodeid, tail in frames:
        for body in (tail, handle.to_bytes(8, "little") + tail):
            for reply_unique, error, _ in world.send(
                request(opcode, body, unique=unique, nodeid=nodeid)
            ):
                assert reply_unique in {0, unique} or opcode == abi.FUSE_INTERRUPT
                assert -512 < error <= 0
    assert world.reported == []
