# SPDX-License-Identifier: Apache-2.0
"""Devices that come and go: the directory, binder-control, and the requests that change names."""

from __future__ import annotations

from errno import (
    EACCES,
    EBUSY,
    EEXIST,
    EINVAL,
    EISDIR,
    ENOENT,
    ENOSPC,
    ENOTTY,
    EPERM,
    EXDEV,
)

import pytest

from binderd.fuse.directory import RENAME_EXCHANGE, RENAME_NOREPLACE, Directory
from binderd.fuse.tree import CONTROL_ID
from binderwire import fuse_abi as abi
from binderwire.binder_abi import BINDER_CTL_ADD, BINDER_VERSION, binderfs_device
from channel.helpers import request
from channel.session_world import (
    DEVICES,
    ROOT,
    World,
    ioctl_request,
    open_request,
    poll_request,
)

FEATURES_ID = CONTROL_ID + 1


@pytest.fixture
def world() -> World:
    return World()


# The directory


def test_minor_numbers_are_used_again() -> None:
    gone: list[str] = []
    directory = Directory(["a", "b", "c"], 8, gone.append)
    assert [device.minor for device in directory.listed_after(0)] == [1, 2, 3]
    assert directory.remove(b"b") == directory.remove(b"a") == 0
    assert gone == ["b", "a"]
    assert [directory.add(name) for name in (b"x", b"y", b"z")] == [(0, 1), (0, 2), (0, 4)]
    assert [device.name for device in directory.listed_after(0)] == [b"c", b"x", b"y", b"z"]


def test_a_device_in_use_outlives_its_name() -> None:
    gone: list[str] = []
    directory = Directory(["a"], 2, gone.append)
    device = directory.find(b"a")
    assert device is not None
    directory.opened(device)
    directory.opened(device)
    assert directory.remove(b"a") == 0
    assert directory.remove(b"a") == ENOENT
    assert (directory.find(b"a"), device.is_listed, gone) == (None, False, [])
    assert directory.add(b"a") == (0, 2), "its number and its place are still taken"
    later = directory.find(b"a")
    assert later is not None
    assert (device.context, later.context) == ("a", "a#2"), "a context of its own"
    assert directory.add(b"b") == (ENOSPC, None)
    directory.closed(device)
    assert gone == []
    directory.closed(device)
    assert gone == ["a"]
    assert directory.add(b"b") == (0, 1)


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/"])
def test_names_that_nothing_can_have(name: bytes) -> None:
    directory = Directory([], 1)
    assert directory.add(name) == (EACCES, 1)
    assert directory.add(b"...") == (0, 1), "the number was given back"


@pytest.mark.parametrize("name", [b"a", b"binder-control", b"features", b"binder_logs"])
def test_names_that_are_taken(name: bytes) -> None:
    assert Directory(["a"], 2).add(name) == (EEXIST, 2)


def test_a_name_need_not_be_text() -> None:
    directory = Directory([])
    assert directory.add(b"\xff") == (0, 1)
    device = directory.find(b"\xff")
    assert device is not None
    assert device.context == "\\377"


def test_a_name_is_shown_in_one_line() -> None:
    names = [b"a\nb", b"a\\012b", "\u2028ä".encode(), b"x#4", b"x", b"x"]
    directory = Directory([])
    minors = [directory.add(name)[1] for name in names[:-1]]
    devices = [directory.find(name) for name in names[:-1]]
    for device in devices[3:]:
        assert device is not None
        directory.opened(device)
        assert directory.remove(device.name) == 0
    shown = [device.context for device in devices if device is not None]
    assert shown == ["a\\012b", "a\\012b#2", "\\342\\200\\250ä", "x#4", "x"]
    assert minors == [1, 2, 3, 4, 5]


def test_no_two_devices_are_called_the_same() -> None:
    directory = Directory(["x", "x#3"])
    for name in (b"x", b"x#3"):
        device = directory.find(name)
        assert device is not None
        directory.opened(device)
        assert directory.remove(name) == 0
    directory.add(b"x")
    device = directory.find(b"x")
    assert device is not None
    assert (device.minor, device.context) == (3, "x#3#3")


def test_renaming() -> None:
    gone: list[str] = []
    directory = Directory(["a", "b"], 9, gone.append)
    a, b = directory.listed_after(0)
    assert directory.rename(b"a", b"c", 0) == 0
    assert (directory.find(b"a"), directory.find(b"c"), a.name) == (None, a, b"c")
    assert directory.rename(b"a", b"x", 0) == ENOENT
    assert directory.rename(b"c", b"b", RENAME_NOREPLACE) == EEXIST
    assert directory.rename(b"c", b"x", RENAME_EXCHANGE) == ENOENT
    assert directory.rename(b"c", b"x", 4) == EINVAL
    assert directory.rename(b"c", b"b", RENAME_EXCHANGE) == 0
    assert (directory.find(b"b"), directory.find(b"c"), b.name) == (a, b, b"c")
    assert directory.rename(b"b", b"b", 0) == 0
    assert (len(directory), gone) == (2, [])
    assert directory.rename(b"b", b"c", 0) == 0
    assert (directory.find(b"c"), b.is_listed, gone) == (a, False, ["b"])
    assert a.context == "a", "who has it open goes on in the same context"


# binder-control


def control(world: World, name: bytes, major: int = 9, minor: int = 9) -> tuple[int, bytes]:
    """Add a device; return the result and the argument as it comes back."""
    nodeid = CONTROL_ID
    error, body = world.answer(open_request(nodeid))
    reply = abi.fuse_open_out.read(body)
    assert (error, reply.backing_id) == (0, 0)
    assert reply.open_flags == abi.FOPEN_NONSEEKABLE | abi.FOPEN_DIRECT_IO
    argument = binderfs_device.pack(name, major, minor)
    size = len(argument)
    error, body = world.answer(ioctl_request(reply.fh, BINDER_CTL_ADD, argument, size, tid=0))
    assert error == 0
    handle = abi.fuse_release_in.pack(reply.fh, 2, 0, 0)
    assert world.answer(request(abi.FUSE_RELEASE, handle, nodeid=nodeid)) == (0, b"")
    return abi.fuse_ioctl_out.read(body).result, body[16:]


def test_adding_a_device(world: World) -> None:
    result, argument = control(world, b"new")
    assert result == 0
    fields = binderfs_device.read(argument)
    assert (fields.name.rstrip(b"\0"), fields.major, fields.minor) == (b"new", 0, 3)
    world.open(b"new")
    assert world.engine.calls == [("open", "new", 9, False)]
    error, body = world.answer(request(abi.FUSE_LOOKUP, b"new\0"))
    assert (error, abi.fuse_entry_out.read(body).mode) == (0, 0o100600)


def test_a_device_that_cannot_be_added(world: World) -> None:
    result, argument = control(world, b"binder")
    assert result == -EEXIST
    assert binderfs_device.read(argument)[1:] == (0, 3), "numbers are told before the name is seen"
    assert control(world, b"a/b")[0] == -EACCES
    assert control(world, b"one")[0] == control(world, b"two")[0] == 0
    assert control(world, b"three") == (-ENOSPC, b"")


def test_a_name_ends_with_its_first_nul_or_where_it_must(world: World) -> None:
    assert control(world, b"one\0two")[0] == 0
    assert world.directory.find(b"one") is not None
    result, argument = control(world, b"x" * 256)
    assert (result, argument[255]) == (0, 0)
    assert world.directory.find(b"x" * 255) is not None


def test_what_binder_control_does_and_does_not(world: World) -> None:
    error, body = world.answer(request(abi.FUSE_LOOKUP, b"binder-control\0"))
    entry = abi.fuse_entry_out.read(body)
    assert (error, entry.nodeid, entry.mode, entry.size) == (0, CONTROL_ID, 0o100600, 0)
    _, body = world.answer(open_request(CONTROL_ID))
    handle = abi.fuse_open_out.read(body).fh
    for command, argument in ((BINDER_VERSION, bytes(4)), (0xC0306201, bytes(48)), (0, b"")):
        error, body = world.answer(ioctl_request(handle, command, argument, len(argument)))
        assert (error, abi.fuse_ioctl_out.read(body).result) == (0, -EINVAL)
    cut_off = ioctl_request(handle, BINDER_CTL_ADD, bytes(200), 264)
    error, body = world.answer(cut_off)
    assert (error, abi.fuse_ioctl_out.read(body).result) == (0, -14)
    error, body = world.answer(poll_request(handle, 1, schedule=True))
    assert (error, abi.fuse_poll_out.read(body).revents) == (0, 0x145)
    flush = abi.fuse_flush_in.pack(handle, 0, 0, 0)
    assert world.answer(request(abi.FUSE_FLUSH, flush)) == (0, b"")
    assert world.answer(ioctl_request(0, BINDER_CTL_ADD, bytes(264), 264)) == (-ENOTTY, b"")
    assert world.engine.calls == []


# Requests that change names and attributes


def unlink(world: World, name: bytes, nodeid: int = ROOT) -> int:
    return world.answer(request(abi.FUSE_UNLINK, name + b"\0", nodeid=nodeid))[0]


def rename(world: World, old: bytes, new: bytes, target: int = ROOT) -> int:
    body = abi.fuse_rename_in.pack(target) + old + b"\0" + new + b"\0"
    return world.answer(request(abi.FUSE_RENAME, body))[0]


def test_unlinking_a_device(world: World) -> None:
    handle, unopened = world.open(), world.lookup()
    assert unlink(world, b"binder") == 0
    assert world.answer(request(abi.FUSE_LOOKUP, b"binder\0")) == (-ENOENT, b"")
    assert world.answer(open_request(unopened)) == (-ENOENT, b"")
    assert world.answer(ioctl_request(handle, BINDER_VERSION, b"abcd", 4))[1][16:] == b"abcd"
    _, body = world.answer(request(abi.FUSE_GETATTR, nodeid=unopened))
    assert abi.fuse_attr_out.read(body).nlink == 0
    assert control(world, b"binder")[0] == 0
    world.open(b"binder")
    assert [call[1] for call in world.engine.calls if call[0] == "open"] == ["binder", "binder#3"]
    world.answer(request(abi.FUSE_RELEASE, abi.fuse_release_in.pack(handle, 2, 0, 0)))
    assert world.gone == ["binder"]


def test_what_cannot_be_unlinked(world: World) -> None:
    assert unlink(world, b"binder-control") == -EPERM
    assert unlink(world, b"features") == -EISDIR
    assert unlink(world, b"nothing") == -ENOENT
    assert unlink(world, b"") == -ENOENT
    assert unlink(world, b"binder", FEATURES_ID) == -ENOENT


def test_renaming_a_device(world: World) -> None:
    handle = world.open()
    assert rename(world, b"binder", b"other") == 0
    assert world.answer(request(abi.FUSE_LOOKUP, b"binder\0")) == (-ENOENT, b"")
    world.open(b"other")
    assert [call[1] for call in world.engine.calls] == ["binder", "binder"]
    assert world.answer(ioctl_request(handle, BINDER_VERSION, b"abcd", 4))[1][16:] == b"abcd"
    flags = abi.fuse_rename2_in.pack(ROOT, RENAME_NOREPLACE, 0)
    body = flags + b"other\0hwbinder\0"
    assert world.answer(request(abi.FUSE_RENAME2, body)) == (-EEXIST, b"")


def test_what_cannot_be_renamed(world: World) -> None:
    assert rename(world, b"binder-control", b"x") == -EPERM
    assert rename(world, b"binder", b"binder-control") == -EPERM
    assert rename(world, b"binder", b"features") == -EBUSY
    assert rename(world, b"binder_logs", b"x") == -EBUSY
    assert rename(world, b"binder", b"x", FEATURES_ID) == -EXDEV
    assert rename(world, b"nothing", b"x") == -ENOENT
    assert world.answer(request(abi.FUSE_RENAME, abi.fuse_rename_in.pack(ROOT))) == (-ENOENT, b"")


def set_attributes(world: World, nodeid: int, valid: int, **values: int) -> tuple[int, bytes]:
    body = abi.fuse_setattr_in.build(valid=valid, **values)
    return world.answer(request(abi.FUSE_SETATTR, body, nodeid=nodeid))


def test_mode_and_owner_belong_to_the_device(world: World) -> None:
    first, second = world.lookup(), world.begin_open()
    everything = abi.FATTR_MODE | abi.FATTR_UID | abi.FATTR_GID
    values = {"mode": 0o100640, "uid": 10, "gid": 20}
    error, body = set_attributes(world, first, everything, **values)
    changed = abi.fuse_attr_out.read(body)
    assert (error, changed.mode, changed.uid, changed.gid) == (0, 0o100640, 10, 20)
    assert set_attributes(world, first, abi.FATTR_SIZE | abi.FATTR_MODE)[0] == -EINVAL
    _, body = world.answer(request(abi.FUSE_GETATTR, nodeid=second))
    assert abi.fuse_attr_out.read(body)[-8:-3] == changed[-8:-3]
    assert set_attributes(world, CONTROL_ID, abi.FATTR_MODE, mode=0o666)[0] == 0
    for refused in (ROOT, FEATURES_ID, 99):
        assert set_attributes(world, refused, abi.FATTR_MODE, mode=0)[0] == -EPERM


def test_times_can_be_set(world: World) -> None:
    first, second = world.lookup(), world.begin_open()
    assert set_attributes(world, first, abi.FATTR_ATIME, atime=5, atimensec=6)[0] == 0
    assert set_attributes(world, second, abi.FATTR_MTIME, mtime=7, mtimensec=8)[0] == 0
    _, body = world.answer(request(abi.FUSE_GETATTR, nodeid=first))
    times = abi.fuse_attr_out.read(body)
    assert (times.atime, times.atimensec, times.mtime, times.mtimensec) == (5, 6, 7, 8)


def test_places_are_empty_directories_with_numbers_for_good(world: World) -> None:
    for number, name in ((FEATURES_ID, b"features"), (FEATURES_ID + 1, b"binder_logs")):
        for _ in range(2):
            _, body = world.answer(request(abi.FUSE_LOOKUP, name + b"\0"))
            entry = abi.fuse_entry_out.read(body)
            assert (entry.nodeid, entry.mode, entry.nlink) == (number, 0o040755, 2)
            assert entry.entry_valid == entry.attr_valid > 1_000_000
        body = abi.fuse_read_in.pack(0, 0, 4096, 0, 0, 0, 0)
        error, listing = world.answer(request(abi.FUSE_READDIR, body, nodeid=number))
        assert (error, len(listing)) == (0, 64)
        body = abi.fuse_read_in.pack(0, 2, 4096, 0, 0, 0, 0)
        assert world.answer(request(abi.FUSE_READDIR, body, nodeid=number)) == (0, b"")
        assert world.answer(request(abi.FUSE_LOOKUP, b"x\0", nodeid=number)) == (-ENOENT, b"")


def test_a_listing_survives_names_that_come_and_go(world: World) -> None:
    names, offset = [], 0
    while True:
        body = abi.fuse_read_in.pack(0, offset, 48, 0, 0, 0, 0)
        _, listing = world.answer(request(abi.FUSE_READDIR, body))
        if not listing:
            break
        entry = abi.fuse_dirent.read(listing)
        names.append(listing[24 : 24 + entry.namelen])
        offset = entry.off
        if names[-1] == b"binder":
            assert unlink(world, b"binder") == 0
            assert control(world, b"late")[0] == 0
    assert names[-3:] == [b"binder", b"hwbinder", b"late"]
    assert sorted(names) == sorted(set(names))
    assert set(DEVICES) <= {name.decode() for name in names}
