# SPDX-License-Identifier: Apache-2.0
"""Senders in other pid and user namespaces than their readers (I1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from binderwire.binder_abi import BINDER_SET_CONTEXT_MGR, BR_NOOP, BR_TRANSACTION_COMPLETE
from support import bc
from support.playbook import GUEST_UID, GUEST_USERS, NO_UID, statements
from support.scenes import Scene, answer, get_call, get_reply, manager_and_client
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.playbook import Proc, World


# A device takes only managers with the user of its first one; these have user 0 of the guests.
GUESTS = f"user{GUEST_UID}"


def serve(manager: Proc) -> Scene:
    """Make ``manager`` the context manager; its client is yet to come."""
    manager.become_manager()
    server = manager.looper()
    return Scene(server, server)


def called_by(scene: Scene, caller: Proc) -> tuple[int, int]:
    """Let somebody call; return whom the server sees: (process id, user)."""
    started = caller.seasoned().start(bc.call(0))
    call = get_call(scene.server)
    answer(scene.server, call)
    get_reply(started)
    return call.sender_pid, call.sender_euid


@statements("I1")
def test_a_guest_is_seen_from_outside_as_the_outside_knows_it(world: World) -> None:
    scene = serve(world.open())
    guest = world.open(guest=True, uid=7)
    assert guest.own_pid != guest.pid
    assert called_by(scene, guest) == (guest.pid, GUEST_UID + 7)


@statements("I1")
def test_who_is_outside_has_no_number_for_a_guest(world: World) -> None:
    scene = serve(world.open(GUESTS, guest=True))
    assert called_by(scene, world.open(GUESTS)) == (0, NO_UID)


@statements("I1")
def test_users_are_told_apart_from_processes(world: World) -> None:
    scene = serve(world.open(GUESTS, guest=True))
    assert called_by(scene, world.open(GUESTS, uid=GUEST_UID)) == (0, 0)
    last = GUEST_UID + GUEST_USERS - 1
    assert called_by(scene, world.open(GUESTS, uid=last)) == (0, GUEST_USERS - 1)
    assert called_by(scene, world.open(GUESTS, uid=last + 1)) == (0, NO_UID)
    assert called_by(scene, world.open(GUESTS, uid=GUEST_UID - 1)) == (0, NO_UID)


@statements("I1")
def test_guests_see_each_other_as_they_know_themselves(world: World) -> None:
    scene = serve(world.open(GUESTS, guest=True))
    guest = world.open(GUESTS, guest=True, uid=5)
    assert guest.own_pid != guest.pid
    assert called_by(scene, guest) == (guest.own_pid, 5)


@statements("I1")
def test_a_guest_that_has_died_has_no_number_for_others(world: World) -> None:
    scene = serve(world.open(GUESTS, guest=True))
    guest = world.open(GUESTS, guest=True, uid=5)
    assert called_by(scene, guest) == (guest.own_pid, 5)
    child = guest.fork().seasoned()
    guest.kill()
    child.write(bc.call(0))
    answer(scene.server, get_call(scene.server, sender_pid=0, sender_euid=5))


@statements("I1")
def test_a_reply_names_the_user_as_its_reader_knows_it(world: World) -> None:
    device = f"user{GUEST_UID + 9}"
    server = serve(world.open(device, uid=GUEST_UID + 9)).server
    for caller, expected in (
        (world.open(device, guest=True), 9),
        (world.open(device), GUEST_UID + 9),
    ):
        started = caller.seasoned().start(bc.call(0))
        answer(server, get_call(server))
        get_reply(started, sender_pid=0, sender_euid=expected)


@statements("I1")
def test_a_oneway_s_user_is_translated_as_well(world: World) -> None:
    scene = serve(world.open(GUESTS, guest=True))
    world.open(GUESTS, guest=True, uid=2).seasoned().write(bc.oneway(0))
    call = get_call(scene.server, sender_pid=0, sender_euid=2)
    scene.server.write(bc.free(call.buffer))
    world.open(GUESTS).seasoned().write(bc.oneway(0))
    get_call(scene.server, sender_pid=0, sender_euid=NO_UID)


@statements("I1")
def test_a_user_is_who_it_was_when_it_sent(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(bc.oneway(0))
    scene.client.proc.become(4321)
    get_call(scene.server, sender_euid=0)
    other = world.open()
    other.become(99)
    other.seasoned().write(bc.call(0))
    get_call(scene.server, sender_euid=99, sender_pid=other.pid)


@statements("I1", "O10")
def test_a_file_in_other_hands_names_its_opener(world: World) -> None:
    scene = manager_and_client(world)
    child = scene.client.proc.fork()
    child.become(4321)
    stranger = child.seasoned()
    started = stranger.start(bc.call(0))
    call = get_call(scene.server, sender_pid=scene.client.proc.pid, sender_euid=0)
    answer(scene.server, call)
    get_reply(started)


@statements("I5", "O10", "BINDER_SET_CONTEXT_MGR")
def test_the_manager_s_user_is_the_caller_s(world: World) -> None:
    opener = world.open("user4321")
    child = opener.fork()
    child.become(4321)
    assert child.seasoned().ioctl(BINDER_SET_CONTEXT_MGR, bytes(4))[0] == 0
    child.kill()
    opener.kill()
    world.open("user4321", uid=4321).become_manager()
    outcome = world.open("user4321").seasoned().write_read(bc.oneway(0))
    assert_br(outcome, BR_NOOP, BR_TRANSACTION_COMPLETE)
