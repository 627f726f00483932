# SPDX-License-Identifier: Apache-2.0
"""Who may map a device file, and how (B8, O10)."""

from __future__ import annotations

from errno import EBUSY, EINVAL, EPERM
from typing import TYPE_CHECKING

from binderwire.binder_abi import BR_DEAD_REPLY, BR_NOOP
from support import bc
from support.playbook import statements
from support.scenes import manager_and_client, round_trip
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
