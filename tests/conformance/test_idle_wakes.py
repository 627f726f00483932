# SPDX-License-Identifier: Apache-2.0
"""Threads that are woken, or need not sleep, though there is nothing to tell them (N5, R5, R8).

Who has looked a node up by its owner and pointer lets go of it in a way that looks to the driver
like the end of a weak reference. A node that nobody refers to, but whose owner has not acknowledged
all news of it, is queued then, and whoever reads it learns nothing. What shows it is a read that
has no room for any item (R2): it fails with EAGAIN only if nothing is queued.

Random scripts that were compared with the driver have found all of this.
"""

from __future__ import annotations

from errno import EAGAIN
from typing import TYPE_CHECKING

from binderwire.binder_abi import (
    BR_ACQUIRE,
    BR_FAILED_REPLY,
    BR_INCREFS,
    BR_NOOP,
    BR_SPAWN_LOOPER,
    BR_TRANSACTION,
    BR_TRANSACTION_COMPLETE,
)
from support import bc
from support.playbook import statements
from support.scenes import Scene, get_call, manager_and_client
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.playbook import Thread, World

NO_ROOM = 79  # bytes; a read takes an item only where the largest has room
NODE = (0x1000, 0x1001)  # ptr and cookie


def eager_client(world: World) -> Scene:
    """A manager and a client that does not want to sleep, which has sent its node to nobody's use.

    The manager does not refer to the node any more; the client has not acknowledged BR_ACQUIRE.
    """
    scene = manager_and_client(world)
    client = world.open(nonblocking=True).seasoned()
    outcome = client.write_read(bc.oneway(0, bc.payload(bc.binder(*NODE))))
    assert_br(outcome, BR_NOOP, BR_INCREFS, BR_ACQUIRE, BR_TRANSACTION_COMPLETE)
    scene.server.write(bc.free(get_call(scene.server).buffer))
    return Scene(scene.server, client)


def has_idle_news(client: Thread, *commands: bc.Command) -> bool:
    """Whether something is queued behind the commands; takes it, and finds that it was nothing."""
    outcome = client.write_read(*commands, read=NO_ROOM)
    if outcome.errno == EAGAIN:
        return False
    assert_br(outcome, BR_NOOP)
    assert client.read().errno == EAGAIN
    return True


@statements("N5", "R2", "R5", "R8", "E7", "BC_INCREFS_DONE")
def test_an_acknowledgement_queues_a_node_that_nobody_needs(world: World) -> None:
    client = eager_client(world).client
    assert not has_idle_news(client)
    for _ in range(3):
        assert has_idle_news(client, bc.increfs_done(*NODE))
    assert has_idle_news(client, bc.increfs_done(NODE[0], 5))
    assert not has_idle_news(client, bc.increfs_done(0x2000, 5))
    assert not has_idle_news(client)


@statements("N5", "R8", "E7", "BC_ACQUIRE_DONE")
def test_so_does_one_of_the_other_kind(world: World) -> None:
    client = eager_client(world).client
    assert not has_idle_news(client, bc.acquire_done(NODE[0], 5))  # the weak one is missing still
    assert has_idle_news(client, bc.increfs_done(*NODE))
    assert has_idle_news(client, bc.acquire_done(NODE[0], 5))


@statements("N5", "N7", "R8")
def test_so_does_an_object_with_another_cookie(world: World) -> None:
    client = eager_client(world).client
    assert has_idle_news(client, bc.increfs_done(*NODE))
    refused = bc.oneway(0, bc.payload(bc.binder(NODE[0], 5)))
    assert_br(client.write_read(refused), BR_NOOP, BR_FAILED_REPLY)
    assert has_idle_news(client)
    assert not has_idle_news(client)


@statements("N5", "N9", "R8", "BC_FREE_BUFFER")
def test_so_does_a_buffer_that_an_object_came_home_in(world: World) -> None:
    scene = manager_and_client(world)
    client = world.open(nonblocking=True).seasoned()
    client.write_read(bc.oneway(0, bc.payload(bc.binder(*NODE))), bc.increfs_done(*NODE))
    call = get_call(scene.server)
    number = call.objects[0][1]
    scene.server.write(bc.oneway(number, bc.payload(bc.handle(number))))
    home = assert_br(client.read(), BR_NOOP, BR_TRANSACTION)[0]
    assert not has_idle_news(client, bc.increfs_done(*NODE))
    scene.server.write(bc.free(call.buffer))
    assert has_idle_news(client)
    assert has_idle_news(client, bc.free(home.buffer))
    assert not has_idle_news(client)


@statements("F1", "N5", "R8", "BINDER_FREEZE")
def test_so_does_freezing_the_owner_and_thawing_it(world: World) -> None:
    client = eager_client(world).client
    assert has_idle_news(client, bc.increfs_done(*NODE))
    assert client.freeze(client.proc.pid) == 0
    assert has_idle_news(client)
    client.thaw(client.proc.pid)
    assert has_idle_news(client)
    assert not has_idle_news(client)


@statements("I4", "R11", "BR_SPAWN_LOOPER")
def test_a_flush_wakes_threads_in_the_order_of_their_ids(world: World) -> None:
    if world.is_kernel:
        world.excuse("who of the woken threads runs first is the scheduler's business")
        return
    if world.differs("cuse", reason="CUSE does not tell us when a descriptor is closed"):
        return
    proc = world.open()
    proc.set_max_threads(1)
    first, looper = proc.thread(), proc.thread()
    looper.write(bc.enter_looper())
    sleeping = looper.start()
    first.write()
    plain = first.start()
    child = proc.fork()
    child.kill()
    assert_br(plain.result(), BR_NOOP)
    assert_br(sleeping.result(), BR_SPAWN_LOOPER)  # nobody else was waiting any more
