# SPDX-License-Identifier: Apache-2.0
"""What may happen while files are being installed, at each moment; and how many there may be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from binderd.engine.limits import Bound, Limits
from binderwire.binder_abi import (
    BR_DEAD_REPLY,
    BR_FAILED_REPLY,
    BR_NOOP,
    BR_REPLY,
    BR_TRANSACTION,
    BR_TRANSACTION_COMPLETE,
)
from conformance.test_descriptors import welcoming
from support import bc
from support.engine_world import EngineWorld
from support.scenes import answer, get_call
from support.transcript import assert_br

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.playbook import PendingRead
    from support.scenes import Scene

WAYS = 3  # in which the world installs by turns


@pytest.fixture(params=range(WAYS), ids=["reported late", "reported early", "by the client"])
def world(request: pytest.FixtureRequest) -> Iterator[EngineWorld]:
    world = EngineWorld()
    world.engine._roster.last_installation = request.param  # the next is the one after
    yield world
    let_go(world)
    world.close()
    world.assert_empty()


def let_go(world: EngineWorld) -> None:
    world.is_held = False
    world.drain()


def begun(world: EngineWorld) -> tuple[Scene, PendingRead, PendingRead]:
    """A call with a file that a sleeping reader is about to get; the caller, the reader."""
    scene = welcoming(world)
    fd = scene.client.proc.new_file()
    sleeping = scene.server.start()
    world.is_held = True
    started = scene.client.start(bc.call(0, bc.payload(bc.fd(fd))))
    assert len(world.installs) == len(world.engine._roster.installations) == 1
    assert started.parked
    return scene, started, sleeping


def test_others_are_served_meanwhile(world: EngineWorld) -> None:
    scene, started, sleeping = begun(world)
    second, other = scene.manager.looper(), world.open().seasoned()
    call = other.start(bc.call(0, b"plain"))
    answer(second, get_call(second, data=b"plain"))
    assert_br(call.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_REPLY)
    let_go(world)
    answer(scene.server, assert_br(sleeping.result(), BR_NOOP, BR_TRANSACTION)[0])
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_REPLY)


def test_the_reader_dies(world: EngineWorld) -> None:
    scene, started, _ = begun(world)
    scene.manager.kill()
    let_go(world)
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_DEAD_REPLY)


def test_the_sender_dies(world: EngineWorld) -> None:
    scene, _, sleeping = begun(world)
    scene.client.proc.kill()
    let_go(world)
    answer(scene.server, assert_br(sleeping.result(), BR_NOOP, BR_TRANSACTION)[0])


def test_a_close_elsewhere_does_not_disturb(world: EngineWorld) -> None:
    """It sends waiting threads home (I4), but not one whose read has begun to bring something."""
    scene, started, sleeping = begun(world)
    scene.manager.fork().close()
    let_go(world)
    answer(scene.server, assert_br(sleeping.result(), BR_NOOP, BR_TRANSACTION)[0])
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_REPLY)


def test_another_call_waits_behind(world: EngineWorld) -> None:
    scene, _, sleeping = begun(world)
    other = world.open().seasoned()
    other.write(bc.oneway(0, b"second"))
    let_go(world)
    answer(scene.server, assert_br(sleeping.result(), BR_NOOP, BR_TRANSACTION)[0])
    get_call(scene.server, data=b"second")


LIMITS = {
    "of all": Limits().replaced({"files": Bound.of(3)}),
    "of a process": Limits(files_per_process=3),
    "of a transaction": Limits(files_per_transaction=3),
}


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
def test_there_are_not_too_many_files_on_their_way(limits: Limits) -> None:
    world = EngineWorld(limits)
    scene = welcoming(world)
    fd = scene.client.proc.new_file()
    four = bc.oneway(0, bc.payload(*[bc.fd(fd)] * 4))
    assert_br(scene.client.write_read(four), BR_NOOP, BR_FAILED_REPLY)
    assert scene.client.extended_error()[2] == -12
    three = bc.oneway(0, bc.payload(*[bc.fd(fd)] * 3))
    assert_br(scene.client.write_read(three), BR_NOOP, BR_TRANSACTION_COMPLETE)
    one = bc.oneway(0, bc.payload(bc.fd(fd)))
    outcome = scene.client.write_read(one)
    if limits.files_per_transaction == 3:
        assert_br(outcome, BR_NOOP, BR_TRANSACTION_COMPLETE)
    else:
        assert_br(outcome, BR_NOOP, BR_FAILED_REPLY)
        scene.server.write(bc.free(get_call(scene.server).buffer))  # they have arrived
        assert_br(scene.client.write_read(one), BR_NOOP, BR_TRANSACTION_COMPLETE)
    world.close()
    world.assert_empty()
