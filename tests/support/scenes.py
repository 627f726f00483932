# SPDX-License-Identifier: Apache-2.0
"""Beginnings that many scenarios share: a context manager, clients, a node that somebody holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from binderwire.binder_abi import (
    BINDER_SET_CONTEXT_MGR_EXT,
    BINDER_TYPE_BINDER,
    BR_ACQUIRE,
    BR_INCREFS,
    BR_NOOP,
    BR_REPLY,
    BR_TRANSACTION,
    BR_TRANSACTION_COMPLETE,
    FLAT_BINDER_FLAG_TXN_SECURITY_CTX,
    flat_binder_object,
)
from support import bc
from support.transcript import NON_ZERO, assert_br

if TYPE_CHECKING:
    from support.playbook import PendingRead, Proc, Thread, World
    from support.transcript import Received

NOBODY: Final = 65534  # a user without any privilege
CONTEXT: Final = b"u:r:shell:s0"  # what an engine's clients have; real systems give their own
LONG: Final = 100_000  # milliseconds: longer than any test waits


class Scene(NamedTuple):
    """A context manager that serves, and a client that may call it."""

    server: Thread
    client: Thread

    @property
    def manager(self) -> Proc:
        return self.server.proc


def manager_and_client(world: World) -> Scene:
    """A manager with one looper; a client with one thread that is past its first ioctl."""
    manager = world.open()
    manager.become_manager()
    return Scene(manager.looper(), world.open().seasoned())


def curious(world: World, context: bytes | None = CONTEXT) -> Scene:
    """A manager whose node wants security contexts, and a client with one."""
    manager = world.open()
    node = flat_binder_object.build(
        type=BINDER_TYPE_BINDER, binder=0x9000, flags=FLAT_BINDER_FLAG_TXN_SECURITY_CTX
    )
    assert manager.seasoned().ioctl(BINDER_SET_CONTEXT_MGR_EXT, node)[0] == 0
    return Scene(manager.looper(), world.open(context=context).seasoned())


def get_call(server: Thread, **wanted: object) -> Received:
    """Read one BR_TRANSACTION and nothing else."""
    return assert_br(server.read(), BR_NOOP, (BR_TRANSACTION, wanted))[0]


def answer(server: Thread, call: Received, content: bc.Payload = b"", **fields: int) -> None:
    """Free the call's buffer, reply and read the acknowledgement."""
    outcome = server.write_read(bc.free(call.buffer), bc.reply(content, **fields))
    assert_br(outcome, BR_NOOP, BR_TRANSACTION_COMPLETE)


def get_reply(call: PendingRead, **wanted: object) -> Received:
    """Take the end of a call that was started: COMPLETE and REPLY in one read."""
    return assert_br(call.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, (BR_REPLY, wanted))[1]


def round_trip(scene: Scene, content: bc.Payload = b"", back: bc.Payload = b"") -> None:
    """One call from the client to the manager, with everything freed."""
    started = scene.client.start(bc.call(0, content))
    answer(scene.server, get_call(scene.server), back)
    scene.client.write(bc.free(get_reply(started).buffer))


def give(
    scene: Scene, ptr: int, cookie: int = 0, flags: int = 0, *, owner: Thread | None = None
) -> int:
    """Let ``owner`` (or the scene's client) send its node to the manager, who acquires it.

    The owner's news is read and acknowledged; nothing but the manager's one strong reference is
    left.

    Returns:
        The manager's handle.
    """
    owner = owner or scene.client
    started = owner.start(bc.call(0, bc.payload(bc.binder(ptr, cookie, flags))))
    call = get_call(scene.server)
    number = call.objects[0][1]
    scene.server.write(bc.acquire(number))
    answer(scene.server, call)
    items = assert_br(
        started.result(),
        BR_NOOP,
        (BR_INCREFS, {"ptr": ptr, "cookie": cookie}),
        (BR_ACQUIRE, {"ptr": ptr, "cookie": cookie}),
        BR_TRANSACTION_COMPLETE,
        (BR_REPLY, {"buffer": NON_ZERO}),
    )
    owner.write(
        bc.increfs_done(ptr, cookie), bc.acquire_done(ptr, cookie), bc.free(items[-1].buffer)
    )
    return number


def take(scene: Scene, ptr: int, cookie: int = 0, flags: int = 0) -> int:
    """Let the client fetch a node of the manager, and acquire it.

    The manager's news is read and acknowledged.

    Returns:
        The client's handle.
    """
    server, client = scene
    started = client.start(bc.call(0))
    call = get_call(server)
    outcome = server.write_read(
        bc.free(call.buffer), bc.reply(bc.payload(bc.binder(ptr, cookie, flags)))
    )
    assert_br(outcome, BR_NOOP, BR_INCREFS, BR_ACQUIRE, BR_TRANSACTION_COMPLETE)
    server.write(bc.increfs_done(ptr, cookie), bc.acquire_done(ptr, cookie))
    replied = get_reply(started)
    number = replied.objects[0][1]
    client.write(bc.acquire(number), bc.free(replied.buffer))
    return number


def pass_on(scene: Scene, number: int, receiver: Thread) -> int:
    """Let the manager hand its handle ``number`` on to ``receiver``, who acquires it.

    Returns:
        The receiver's handle.
    """
    started = receiver.start(bc.call(0))
    answer(scene.server, get_call(scene.server), bc.payload(bc.handle(number)))
    replied = get_reply(started)
    theirs = replied.objects[0][1]
    receiver.write(bc.acquire(theirs), bc.free(replied.buffer))
    return theirs


def freezer(world: World) -> Thread:
    """A stranger to everybody, with no privilege, on a device of its own."""
    return world.open("freezer", uid=NOBODY, size=None).seasoned()


def frozen_scene(world: World) -> tuple[Scene, Thread]:
    """A manager that is frozen, and who did it."""
    scene = manager_and_client(world)
    hand = freezer(world)
    assert hand.freeze(scene.manager.pid) == 0
    return scene, hand
