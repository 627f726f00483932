# SPDX-License-Identifier: Apache-2.0
"""The ioctls other than BINDER_WRITE_READ, and arguments that cannot be used."""

from __future__ import annotations

from errno import EBUSY, EFAULT, EINVAL
from typing import TYPE_CHECKING

import pytest

from binderwire.binder_abi import (
    BINDER_ENABLE_ONEWAY_SPAM_DETECTION,
    BINDER_FREEZE,
    BINDER_GET_EXTENDED_ERROR,
    BINDER_GET_FROZEN_INFO,
    BINDER_GET_NODE_DEBUG_INFO,
    BINDER_GET_NODE_INFO_FOR_REF,
    BINDER_SET_CONTEXT_MGR,
    BINDER_SET_CONTEXT_MGR_EXT,
    BINDER_SET_IDLE_PRIORITY,
    BINDER_SET_IDLE_TIMEOUT,
    BINDER_SET_MAX_THREADS,
    BINDER_THREAD_EXIT,
    BINDER_TYPE_BINDER,
    BINDER_VERSION,
    BINDER_WRITE_READ,
    binder_freeze_info,
    binder_version,
    binder_write_read,
    flat_binder_object,
)
from binderwire.ioc import ioc_size
from support import bc
from support.playbook import statements
from support.scenes import manager_and_client, round_trip

if TYPE_CHECKING:
    from support.playbook import World


@statements("BINDER_VERSION")
def test_version(world: World) -> None:
    argument = binder_version.build(protocol_version=-1)
    errno, argument = world.open().thread().ioctl(BINDER_VERSION, argument)
    assert (errno, binder_version.read(argument).protocol_version) == (0, 8)


@statements("BINDER_WRITE_READ")
def test_a_write_read_of_nothing_changes_nothing(world: World) -> None:
    argument = binder_write_read.build(write_consumed=3, read_consumed=5, read_buffer=9)
    assert world.open().thread().ioctl(BINDER_WRITE_READ, argument) == (0, argument)


@statements("BINDER_SET_MAX_THREADS")
@pytest.mark.parametrize("count", [0, 1, 15, 0xFFFF_FFFF])
def test_set_max_threads_takes_any_number(world: World, count: int) -> None:
    world.open().set_max_threads(count)


@statements("BINDER_SET_CONTEXT_MGR", "BINDER_SET_CONTEXT_MGR_EXT")
def test_there_is_one_manager_at_a_time(world: World) -> None:
    manager = world.open().seasoned()
    other = world.open().seasoned()
    assert manager.ioctl(BINDER_SET_CONTEXT_MGR, b"\xff\xff\xff\xff")[0] == 0
    own = flat_binder_object.build(type=BINDER_TYPE_BINDER, binder=0x1000)
    for thread in (manager, other):
        assert thread.ioctl(BINDER_SET_CONTEXT_MGR, bytes(4))[0] == EBUSY
        assert thread.ioctl(BINDER_SET_CONTEXT_MGR_EXT, own)[0] == EBUSY


@statements("BINDER_SET_CONTEXT_MGR_EXT")
def test_the_object_s_type_does_not_matter(world: World) -> None:
    manager = world.open().looper()
    argument = flat_binder_object.build(type=0x1234, binder=0x1000)
    assert manager.ioctl(BINDER_SET_CONTEXT_MGR_EXT, argument)[0] == 0
    client = world.open().seasoned()
    client.write(bc.oneway(0))
    assert manager.read().items[-1].target == 0x1000


@statements("BINDER_THREAD_EXIT")
def test_thread_exit_can_be_repeated(world: World) -> None:
    scene = manager_and_client(world)
    for _ in range(3):
        scene.client.exit()
    scene.client.ioctl(BINDER_VERSION, bytes(4))
    round_trip(scene)


@statements("BINDER_SET_IDLE_TIMEOUT", "BINDER_SET_IDLE_PRIORITY")
def test_ioctls_that_were_never_implemented(world: World) -> None:
    thread = world.open().thread()
    for request_ in (BINDER_SET_IDLE_TIMEOUT, BINDER_SET_IDLE_PRIORITY):
        argument = b"\x5a" * ioc_size(request_)
        assert thread.ioctl(request_, argument) == (EINVAL, argument)


UNKNOWN = {
    "no such number": 0xC0046263,
    "no argument": 0x6263,
    "another type": 0xC0046309,
    "BINDER_VERSION of another size": 0xC0086209,
    "BINDER_VERSION, only to be read": 0x80046209,
    "BINDER_WRITE_READ, only to be written": 0x40306201,
    "largest argument": 0xFFFF6263,
}


@statements("unknown ioctl")
@pytest.mark.parametrize("request_", UNKNOWN.values(), ids=UNKNOWN)
def test_whatever_else_is_invalid(world: World, request_: int) -> None:
    thread = world.open().thread()
    argument = b"\x5a" * ioc_size(request_)
    assert thread.ioctl(request_, argument) == (EINVAL, argument)
    assert thread.start().parked


# The errno for an argument that the driver cannot use.
BAD_POINTER = {
    "BINDER_WRITE_READ": (BINDER_WRITE_READ, EFAULT),
    "BINDER_SET_MAX_THREADS": (BINDER_SET_MAX_THREADS, EINVAL),
    "BINDER_VERSION": (BINDER_VERSION, EINVAL),
    "BINDER_SET_CONTEXT_MGR_EXT": (BINDER_SET_CONTEXT_MGR_EXT, EINVAL),
    "BINDER_GET_NODE_DEBUG_INFO": (BINDER_GET_NODE_DEBUG_INFO, EFAULT),
    "BINDER_GET_NODE_INFO_FOR_REF": (BINDER_GET_NODE_INFO_FOR_REF, EFAULT),
    "BINDER_FREEZE": (BINDER_FREEZE, EFAULT),
    "BINDER_GET_FROZEN_INFO": (BINDER_GET_FROZEN_INFO, EFAULT),
    "BINDER_ENABLE_ONEWAY_SPAM_DETECTION": (BINDER_ENABLE_ONEWAY_SPAM_DETECTION, EFAULT),
    "BINDER_GET_EXTENDED_ERROR": (BINDER_GET_EXTENDED_ERROR, EFAULT),
}


@statements(
    "BINDER_WRITE_READ",
    "BINDER_SET_MAX_THREADS",
    "BINDER_VERSION",
    "BINDER_SET_CONTEXT_MGR_EXT",
    "BINDER_GET_NODE_DEBUG_INFO",
    "BINDER_GET_NODE_INFO_FOR_REF",
    "BINDER_FREEZE",
    "BINDER_GET_FROZEN_INFO",
    "BINDER_ENABLE_ONEWAY_SPAM_DETECTION",
    "BINDER_GET_EXTENDED_ERROR",
)
@pytest.mark.parametrize(("request_", "errno"), BAD_POINTER.values(), ids=BAD_POINTER)
def test_a_null_argument(world: World, request_: int, errno: int) -> None:
    if world.differs("engine", reason="the kernel looks at the argument before we are asked"):
        return
    if world.differs("fuse", reason="the kernel reports EFAULT before we are asked"):
        errno = EFAULT
    assert world.open().thread().ioctl(request_, None)[0] == errno


@statements("BINDER_SET_CONTEXT_MGR", "BINDER_THREAD_EXIT")
@pytest.mark.parametrize("request_", [BINDER_SET_CONTEXT_MGR, BINDER_THREAD_EXIT])
def test_a_null_argument_that_is_ignored(world: World, request_: int) -> None:
    if world.differs("engine", reason="the kernel looks at the argument before we are asked"):
        return
    expected = 0
    if world.differs("fuse", reason="the kernel reports EFAULT before we are asked"):
        expected = EFAULT
    assert world.open().thread().ioctl(request_, None)[0] == expected


@statements("BINDER_ENABLE_ONEWAY_SPAM_DETECTION", "BINDER_SET_MAX_THREADS", "BINDER_FREEZE")
def test_an_argument_that_is_only_read_stays_as_it_is(world: World) -> None:
    proc = world.open()
    argument = b"\x5a" * 4
    thread = proc.seasoned()
    for request_ in (BINDER_ENABLE_ONEWAY_SPAM_DETECTION, BINDER_SET_MAX_THREADS):
        assert thread.ioctl(request_, argument) == (0, argument)
    freeze = binder_freeze_info.build(pid=proc.pid, enable=0, timeout_ms=7)
    assert thread.ioctl(BINDER_FREEZE, freeze) == (0, freeze)
