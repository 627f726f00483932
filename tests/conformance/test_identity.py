# SPDX-License-Identifier: Apache-2.0
"""Who is calling, who is manager, and what closing does (I1, I4-I6)."""

from __future__ import annotations

from errno import EPERM
from typing import TYPE_CHECKING

from binderwire.binder_abi import BINDER_SET_CONTEXT_MGR, BR_NOOP, BR_TRANSACTION_COMPLETE
from support import bc
from support.playbook import statements
from support.scenes import (
    Scene,
    answer,
    get_call,
    get_reply,
    give,
    manager_and_client,
    pass_on,
    round_trip,
)
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.playbook import World

UID = 4321


NO_FLUSH = "CUSE does not tell us when one descriptor of several is closed"


@statements("I1")
def test_a_call_names_its_sender(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0, code=7, flags=0x10))
    sender = {"sender_pid": scene.client.proc.pid, "sender_euid": 0}
    call = get_call(scene.server, code=7, flags=0x10, **sender)
    answer(scene.server, call, code=8, flags=0x08)
    nobody = {"target": 0, "cookie": 0, "sender_pid": 0, "sender_euid": 0}
    get_reply(started, code=8, flags=0x08, **nobody)


@statements("I1")
def test_the_sender_s_user_is_named_both_ways(world: World) -> None:
    manager = world.open()
    manager.become_manager()
    server, client = manager.looper(), world.open(uid=UID).seasoned()
    started = client.start(bc.call(0))
    answer(server, get_call(server, sender_euid=UID, sender_pid=client.proc.pid))
    get_reply(started, sender_euid=0)
    number = give(Scene(server, client), 0x1000)
    called = server.start(bc.call(number))
    answer(client, get_call(client, sender_euid=0, sender_pid=manager.pid))
    get_reply(called, sender_euid=UID)


@statements("I1")
def test_a_oneway_names_no_process(world: World) -> None:
    manager = world.open()
    manager.become_manager()
    server, client = manager.looper(), world.open(uid=UID).seasoned()
    client.write(bc.oneway(0, flags=0x20))
    get_call(server, sender_pid=0, sender_euid=UID, flags=0x21)  # its user is named all the same


@statements("I1", "I7")
def test_a_sender_that_left_is_not_named(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(bc.call(0))
    scene.client.exit()
    answer(scene.server, get_call(scene.server, sender_pid=0))
    round_trip(scene._replace(client=scene.client.proc.seasoned()))


@statements("I1", "I6")
def test_a_child_calls_in_its_opener_s_name(world: World) -> None:
    scene = manager_and_client(world)
    opener = scene.client.proc
    child = opener.fork(uid=UID).seasoned()
    started = child.start(bc.call(0, b"from the child"))
    sender = {"sender_pid": opener.pid, "sender_euid": 0}
    answer(scene.server, get_call(scene.server, data=b"from the child", **sender), b"reply")
    replied = get_reply(started, sender_euid=0)
    assert opener.peek(replied.buffer, 5) == b"reply"


@statements("I1")
def test_a_child_whose_opener_is_dead_calls_in_nobody_s_name(world: World) -> None:
    scene = manager_and_client(world)
    opener = scene.client.proc
    child = opener.fork().seasoned()
    opener.kill()
    child.write(bc.call(0))
    answer(scene.server, get_call(scene.server, sender_pid=0, sender_euid=0))


@statements("I1")
def test_a_call_of_who_has_died_meanwhile_names_no_process(world: World) -> None:
    """Also while its file lives on: a child has that."""
    scene = manager_and_client(world)
    caller = scene.client.proc
    caller.fork()
    scene.client.write(bc.call(0))
    caller.kill()
    call = get_call(scene.server, sender_pid=0, sender_euid=0)
    answer(scene.server, call)


OWN_NAME = "a file whose opener is dead, or is another user now, is used in its user's own name"


@statements("I1")
def test_a_child_whose_opener_is_dead_is_its_own_user(world: World) -> None:
    scene = manager_and_client(world)
    opener = scene.client.proc
    child = opener.fork(uid=UID).seasoned()
    opener.kill()
    child.write(bc.call(0))
    differs = world.differs("engine", "fuse", "cuse", reason=OWN_NAME)
    euid = UID if differs else 0
    answer(scene.server, get_call(scene.server, sender_pid=0, sender_euid=euid))


@statements("I1", "O10")
def test_a_child_does_not_speak_for_what_its_opener_has_become(world: World) -> None:
    scene = manager_and_client(world)
    opener = scene.client.proc
    child = opener.fork(uid=UID).seasoned()
    opener.become(UID + 1)
    child.write(bc.call(0))
    differs = world.differs("engine", "fuse", "cuse", reason=OWN_NAME)
    shown = (0, UID) if differs else (opener.pid, UID + 1)
    call = get_call(scene.server, sender_pid=shown[0], sender_euid=shown[1])
    answer(scene.server, call)


@statements("I4")
def test_closing_a_copy_sends_every_waiting_thread_home(world: World) -> None:
    if world.differs("cuse", reason=NO_FLUSH):
        return
    scene = manager_and_client(world)
    waiting = scene.client.start(bc.call(0))
    idle = [scene.client.proc.looper().start() for _ in range(3)]
    child = scene.client.proc.fork()
    assert all(sleeping.parked for sleeping in idle)
    child.close()
    for sleeping in idle:
        assert_br(sleeping.result(), BR_NOOP)
    assert_br(waiting.result(), BR_NOOP, BR_TRANSACTION_COMPLETE)
    assert scene.client.proc.looper().start().parked


@statements("I4", "R6")
def test_the_end_of_a_child_is_a_close(world: World) -> None:
    if world.differs("cuse", reason=NO_FLUSH):
        return
    scene = manager_and_client(world)
    child = scene.manager.fork()
    sleeping = scene.server.start()
    assert sleeping.parked
    child.kill()
    assert_br(sleeping.result(), BR_NOOP)
    sleeping = scene.server.start()
    assert sleeping.parked
    started = scene.client.start(bc.call(0))
    answer(scene.server, sleeping.result().items[-1])
    get_reply(started)


@statements("I5", "BINDER_SET_CONTEXT_MGR")
def test_only_the_first_manager_s_user_can_follow(world: World) -> None:
    first = world.open()
    first.become_manager()
    stranger = world.open(uid=UID).seasoned()
    first.kill()
    assert stranger.ioctl(BINDER_SET_CONTEXT_MGR, bytes(4))[0] == EPERM
    world.open().become_manager()


@statements("I5", "BINDER_SET_CONTEXT_MGR")
def test_any_user_can_be_the_first_manager_of_a_device(world: World) -> None:
    world.open("fresh", uid=UID).become_manager()
    other = world.open()
    other.become_manager()
    other.kill()
    stranger = world.open(uid=UID).seasoned()
    assert stranger.ioctl(BINDER_SET_CONTEXT_MGR, bytes(4))[0] == EPERM


@statements("I5")
def test_devices_are_worlds_of_their_own(world: World) -> None:
    scene = manager_and_client(world)
    other = world.open("hwbinder")
    other.become_manager()
    server = other.looper()
    client = world.open("hwbinder").seasoned()
    round_trip(scene)
    round_trip(Scene(server, client))
    started = client.start(bc.call(0, code=2))
    assert scene.server.start().parked
    answer(server, get_call(server, code=2))
    get_reply(started)


@statements("I6")
def test_two_files_of_one_process_can_call_each_other(world: World) -> None:
    scene = manager_and_client(world)
    second = scene.client.proc.open_again().looper()
    number = pass_on(scene, give(scene, 0x1000), second)
    started = second.start(bc.call(number, b"to myself"))
    assert started.parked
    call = get_call(scene.client, data=b"to myself", sender_pid=scene.client.proc.pid)
    answer(scene.client, call, b"and back")
    get_reply(started, data=b"and back")
