# SPDX-License-Identifier: Apache-2.0
"""Who may map a device file, and how (B8, O10)."""

from __future__ import annotations

from errno import EBUSY, EINVAL, EPERM, ESRCH
from typing import TYPE_CHECKING

from binderwire.binder_abi import BINDER_VERSION, BR_DEAD_REPLY, BR_NOOP
from support import bc
from support.playbook import statements
from support.scenes import answer, get_call, manager_and_client, round_trip
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.playbook import World

NOT_ASKED = "the kernel maps a file's pages without asking us"
NO_MAPPINGS = "it knows nothing of mapping"


def is_not_asked(world: World, *backends: str) -> bool:
    return world.differs("engine", reason=NO_MAPPINGS) or world.differs(*backends, reason=NOT_ASKED)


@statements("B8")
def test_nobody_may_write_to_a_receive_area(world: World) -> None:
    if world.differs("engine", reason=NO_MAPPINGS) or world.differs(
        "fuse", "cuse", reason=NOT_ASKED
    ):
        return
    proc = world.open(size=None)
    assert proc.try_mmap(writable=True) == EPERM
    assert proc.try_mmap() == 0


@statements("B8")
def test_a_file_is_mapped_once(world: World) -> None:
    if world.differs("engine", reason=NO_MAPPINGS) or world.differs(
        "fuse", "cuse", reason=NOT_ASKED
    ):
        return
    scene = manager_and_client(world)
    assert scene.manager.try_mmap() == EBUSY
    round_trip(scene)
    scene.manager.munmap()
    assert scene.manager.try_mmap() == EBUSY
    assert_br(scene.client.write_read(bc.call(0)), BR_NOOP, BR_DEAD_REPLY)


@statements("B8", "O10")
def test_only_the_opener_can_map(world: World) -> None:
    if is_not_asked(world, "fuse"):
        return
    opener = world.open(size=None)
    child = opener.fork()
    assert child.try_mmap() == EINVAL
    assert opener.try_mmap() == 0


@statements("B8")
def test_a_new_program_receives_nothing(world: World) -> None:
    scene = manager_and_client(world)
    round_trip(scene)
    scene.manager.exec()
    assert_br(scene.client.write_read(bc.call(0)), BR_NOOP, BR_DEAD_REPLY)
    assert scene.client.extended_error()[1:] == (BR_DEAD_REPLY, -ESRCH)
    assert_br(scene.client.write_read(bc.oneway(0)), BR_NOOP, BR_DEAD_REPLY)
    # It has the file nevertheless.
    errno, version = scene.manager.thread().ioctl(BINDER_VERSION, bytes(4))
    assert (errno, version) == (0, (8).to_bytes(4, "little"))
    assert_br(scene.client.write_read(bc.call(0)), BR_NOOP, BR_DEAD_REPLY)


@statements("B8")
def test_a_reply_never_reaches_a_new_program(world: World) -> None:
    scene = manager_and_client(world)
    asking = scene.client.proc
    scene.client.write(bc.call(0))
    call = get_call(scene.server)
    asking.exec()
    answer(scene.server, call)
    assert asking.seasoned().ioctl(BINDER_VERSION, bytes(4))[0] == 0


@statements("B8")
def test_a_new_program_cannot_map(world: World) -> None:
    if is_not_asked(world, "fuse", "cuse"):
        return
    scene = manager_and_client(world)
    mapped = scene.manager
    late = world.open("late", size=None)
    for proc in (mapped, late):
        proc.exec()
        assert proc.try_mmap() == EINVAL


@statements("B8", "O10")
def test_a_mapping_outlives_what_children_run(world: World) -> None:
    scene = manager_and_client(world)
    child = scene.manager.fork()
    assert child.seasoned().ioctl(BINDER_VERSION, bytes(4))[0] == 0
    round_trip(scene)
    child.exec()
    assert child.seasoned().ioctl(BINDER_VERSION, bytes(4))[0] == 0
    round_trip(scene)
    child.kill()
    round_trip(scene)
