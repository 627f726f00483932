# SPDX-License-Identifier: Apache-2.0
"""Who gets a call, in which order, and what a sender sees of it (Q1-Q11)."""

from __future__ import annotations

from errno import EFAULT, EINVAL
from typing import TYPE_CHECKING

import pytest

from binderwire.binder_abi import (
    BINDER_WRITE_READ,
    BR_ACQUIRE,
    BR_DEAD_REPLY,
    BR_FAILED_REPLY,
    BR_INCREFS,
    BR_NOOP,
    BR_REPLY,
    BR_TRANSACTION,
    BR_TRANSACTION_COMPLETE,
    binder_write_read,
)
from support import bc
from support.playbook import SPARE_ADDRESS, statements
from support.scenes import (
    Scene,
    answer,
    get_call,
    get_reply,
    give,
    manager_and_client,
    pass_on,
    take,
)
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.playbook import World

BAD_HANDLE = 77


@statements("Q1")
def test_a_call_wakes_the_thread_that_fell_asleep_last(world: World) -> None:
    scene = manager_and_client(world)
    other = world.open().seasoned()
    early, late = scene.server.start(), scene.manager.looper().start()
    scene.client.write(bc.call(0, code=1))
    assert_br(late.result(), BR_NOOP, (BR_TRANSACTION, {"code": 1}))
    assert early.parked
    other.write(bc.call(0, code=2))
    assert_br(early.result(), BR_NOOP, (BR_TRANSACTION, {"code": 2}))


@statements("Q1")
def test_a_call_that_finds_nobody_asleep_waits_for_any_thread(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(bc.call(0, code=1))
    get_call(scene.manager.looper(), code=1)


@statements("Q1", "Q5")
def test_a_thread_with_work_of_its_own_leaves_the_process_queue_alone(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(bc.call(0, code=1))
    scene.server.write(bc.oneway(BAD_HANDLE))
    assert_br(scene.server.read(), BR_NOOP, BR_FAILED_REPLY)
    get_call(scene.server, code=1)


@statements(
    "Q2",
    "BC_TRANSACTION",
    "BR_TRANSACTION",
    "BC_REPLY",
    "BR_REPLY",
    "BC_FREE_BUFFER",
    "BR_TRANSACTION_COMPLETE",
    "BR_NOOP",
)
def test_a_caller_sleeps_until_the_reply_and_gets_both_at_once(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0, b"question", code=3))
    call = get_call(scene.server, data=b"question", code=3)
    assert started.parked
    answer(scene.server, call, b"reply", code=4)
    get_reply(started, data=b"reply", code=4)


@statements("Q2")
def test_oneway_and_reply_are_acknowledged_at_once(world: World) -> None:
    scene = manager_and_client(world)
    assert_br(scene.client.write_read(bc.oneway(0)), BR_NOOP, BR_TRANSACTION_COMPLETE)
    scene.server.write(bc.free(get_call(scene.server).buffer))
    started = scene.client.start(bc.call(0))
    get_call(scene.server)
    assert_br(scene.server.write_read(bc.reply()), BR_NOOP, BR_TRANSACTION_COMPLETE)
    get_reply(started)


@statements("Q3", "N5", "N6")
def test_news_of_a_sent_node_comes_before_the_completion(world: World) -> None:
    scene = manager_and_client(world)
    content = bc.payload(bc.binder(0x1000, 5))
    started = scene.client.start(bc.call(0, content))
    call = get_call(scene.server)
    assert started.parked
    scene.server.write(bc.acquire(call.objects[0][1]))
    answer(scene.server, call)
    news = {"ptr": 0x1000, "cookie": 5}
    assert_br(
        started.result(),
        BR_NOOP,
        (BR_INCREFS, news),
        (BR_ACQUIRE, news),
        BR_TRANSACTION_COMPLETE,
        BR_REPLY,
    )


@statements("Q4", "Q5")
def test_a_nested_call_goes_to_the_thread_that_waits(world: World) -> None:
    scene = manager_and_client(world)
    number = give(scene, 0x1000)
    idle = scene.client.proc.looper().start()
    outer = scene.client.start(bc.call(0, code=1))
    call = get_call(scene.server, code=1)
    inner = scene.server.start(bc.call(number, code=2))
    nested = assert_br(
        outer.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, (BR_TRANSACTION, {"code": 2})
    )[1]
    assert idle.parked
    answer(scene.client, nested, code=3)
    get_reply(inner, code=3)
    answer(scene.server, call, code=4)
    assert_br(scene.client.read(), BR_NOOP, (BR_REPLY, {"code": 4}))
    assert idle.parked


@statements("Q4")
def test_a_nested_call_finds_its_thread_over_several_processes(world: World) -> None:
    scene = manager_and_client(world)
    first = scene.client
    third = world.open().looper()
    to_first = give(scene, 0x1000)
    to_third = give(scene, 0x3000, owner=third)
    third_to_first = pass_on(scene, to_first, third)
    idle = first.proc.looper().start()
    outer = first.start(bc.call(0, code=1))
    get_call(scene.server, code=1)
    middle = scene.server.start(bc.call(to_third, code=2))
    get_call(third, code=2)
    inner = third.start(bc.call(third_to_first, code=3))
    assert_br(outer.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, (BR_TRANSACTION, {"code": 3}))
    assert idle.parked
    assert_br(first.write_read(bc.reply()), BR_NOOP, BR_TRANSACTION_COMPLETE)
    get_reply(inner)
    assert_br(third.write_read(bc.reply()), BR_NOOP, BR_TRANSACTION_COMPLETE)
    get_reply(middle)
    assert_br(scene.server.write_read(bc.reply()), BR_NOOP, BR_TRANSACTION_COMPLETE)
    assert_br(first.read(), BR_NOOP, BR_REPLY)


@statements("Q4")
def test_a_oneway_is_never_nested(world: World) -> None:
    scene = manager_and_client(world)
    number = give(scene, 0x1000)
    idle = scene.client.proc.looper().start()
    outer = scene.client.start(bc.call(0))
    call = get_call(scene.server)
    assert_br(scene.server.write_read(bc.oneway(number)), BR_NOOP, BR_TRANSACTION_COMPLETE)
    assert_br(idle.result(), BR_NOOP, BR_TRANSACTION)
    assert outer.parked
    answer(scene.server, call)
    get_reply(outer)


@statements("Q5")
def test_a_caller_does_not_serve_other_callers(world: World) -> None:
    scene = manager_and_client(world)
    number = give(scene, 0x1000)
    other = world.open().looper()
    theirs = pass_on(scene, number, other)
    outer = scene.client.start(bc.call(0))
    call = get_call(scene.server)
    other.write(bc.call(theirs, code=5))
    assert outer.parked
    answer(scene.server, call)
    get_reply(outer)
    get_call(scene.client, code=5)


@statements("Q6")
def test_a_second_call_before_the_reply_fails(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(bc.call(0, code=1))
    outcome = scene.client.write_read(bc.call(0, code=2))
    assert_br(outcome, BR_NOOP, BR_TRANSACTION_COMPLETE, BR_FAILED_REPLY)
    assert_br(scene.client.write_read(bc.oneway(0)), BR_NOOP, BR_TRANSACTION_COMPLETE)
    answer(scene.server, get_call(scene.server, code=1))
    assert_br(scene.client.read(), BR_NOOP, BR_REPLY)


@statements("Q6", "R2")
def test_a_call_before_reading_the_one_that_waits_fails(world: World) -> None:
    scene = manager_and_client(world)
    number = give(scene, 0x1000)
    unable = scene.server.start(read=64)
    scene.client.write(bc.call(0, code=1))
    assert_br(unable.result(), BR_NOOP)
    scene.server.write(bc.oneway(number))
    scene.server.write(bc.call(number))
    get_call(scene.server, code=1)
    assert_br(scene.server.read(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_FAILED_REPLY)


@statements("Q7")
def test_oneways_to_a_node_come_one_after_the_other_is_freed(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(*(bc.oneway(0, code=code) for code in (1, 2, 3)))
    delivered = get_call(scene.server, code=1)
    for code in (2, 3):
        sleeping = scene.manager.looper().start()
        assert sleeping.parked
        scene.server.write(bc.free(delivered.buffer))
        wanted = (BR_TRANSACTION, {"code": code})
        delivered = assert_br(sleeping.result(), BR_NOOP, wanted)[0]


@statements("Q7")
def test_a_call_overtakes_oneways_that_wait(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(bc.oneway(0, code=1), bc.oneway(0, code=2))
    oneway = get_call(scene.server, code=1)
    world.open().seasoned().write(bc.call(0, code=3))
    call = get_call(scene.server, code=3)
    scene.server.write(bc.free(oneway.buffer))
    answer(scene.server, call)
    get_call(scene.server, code=2)


@statements("Q7")
def test_oneways_to_two_nodes_do_not_wait_for_each_other(world: World) -> None:
    scene = manager_and_client(world)
    number = take(scene, 0x1000)
    scene.client.write(bc.oneway(0, code=1), bc.oneway(number, code=2))
    get_call(scene.server, code=1, target=0)
    get_call(scene.server, code=2, target=0x1000)


def two_services(world: World) -> tuple[Scene, Scene, int]:
    """Two servers for one client, which reaches the second by the handle."""
    scene = manager_and_client(world)
    second = world.open().looper()
    number = pass_on(scene, give(scene, 0x1000, owner=second), scene.client)
    return scene, Scene(second, scene.client), number


@statements("Q8", "Q9")
def test_a_second_failure_of_a_called_one_is_dropped(world: World) -> None:
    first, second, number = two_services(world)
    client = first.client
    client.write(bc.call(number))
    second.server.proc.kill()
    client.write(bc.call(0))
    first.manager.kill()
    assert_br(
        client.read(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_DEAD_REPLY, BR_TRANSACTION_COMPLETE
    )


@statements("Q8", "BR_DEAD_REPLY", "BR_FAILED_REPLY")
def test_own_failure_and_the_called_one_s_do_not_hide_each_other(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(bc.call(0))
    scene.manager.kill()
    scene.client.write(bc.oneway(BAD_HANDLE))
    assert_br(scene.client.read(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_DEAD_REPLY, BR_FAILED_REPLY)


@statements("Q9")
def test_a_call_that_could_not_be_sent_is_not_acknowledged(world: World) -> None:
    scene = manager_and_client(world)
    assert_br(scene.client.write_read(bc.call(BAD_HANDLE)), BR_NOOP, BR_FAILED_REPLY)
    assert_br(scene.client.write_read(bc.oneway(BAD_HANDLE)), BR_NOOP, BR_FAILED_REPLY)


@statements("Q9", "E1")
def test_a_call_that_fails_later_was_acknowledged(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    scene.manager.kill()
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_DEAD_REPLY)


@statements("Q10")
def test_after_a_failure_nothing_is_taken_until_it_was_read(world: World) -> None:
    client = manager_and_client(world).client
    failing = bc.call(BAD_HANDLE)
    outcome = client.write_read(failing, bc.enter_looper(), read=0)
    assert (outcome.errno, outcome.write_consumed) == (0, 4 + 64)
    outcome = client.write_read(bc.enter_looper(), read=0)
    assert (outcome.errno, outcome.write_consumed) == (0, 0)
    outcome = client.write_read(bc.enter_looper())
    assert outcome.write_consumed == 0
    assert_br(outcome, BR_NOOP, BR_FAILED_REPLY)
    client.write(bc.enter_looper())


@statements("Q10", "E4")
def test_a_reply_to_nothing_stops_the_commands_behind_it(world: World) -> None:
    client = manager_and_client(world).client
    outcome = client.write_read(bc.reply(), bc.enter_looper())
    assert outcome.write_consumed == 4 + 64
    assert_br(outcome, BR_NOOP, BR_FAILED_REPLY)


@statements("Q11", "E6")
@pytest.mark.parametrize("word", [0, 0x720C, 0x40406313, 0x63FF])
def test_an_unknown_command_ends_the_ioctl_before_it(world: World, word: int) -> None:
    scene = manager_and_client(world)
    scene.client.write(bc.oneway(0))
    stream = bc.enter_looper() + word.to_bytes(4, "little") + bc.enter_looper()
    argument = binder_write_read.build(
        write_size=12,
        write_buffer=scene.client.proc.put(stream),
        read_size=256,
        read_consumed=8,
        read_buffer=scene.client.proc.room(256),
    )
    errno, argument = scene.client.ioctl(BINDER_WRITE_READ, argument)
    bwr = binder_write_read.read(argument)
    assert (errno, bwr.write_consumed, bwr.read_consumed) == (EINVAL, 4, 0)
    assert_br(scene.client.read(), BR_NOOP, BR_TRANSACTION_COMPLETE)


@statements("Q11")
def test_commands_that_cannot_be_read_end_the_ioctl(world: World) -> None:
    client = manager_and_client(world).client
    argument = binder_write_read.build(
        write_size=8,
        write_buffer=SPARE_ADDRESS,
        read_size=256,
        read_consumed=8,
        read_buffer=client.proc.room(256),
    )
    errno, argument = client.ioctl(BINDER_WRITE_READ, argument)
    bwr = binder_write_read.read(argument)
    assert (errno, bwr.write_consumed, bwr.read_consumed) == (EFAULT, 0, 0)


@statements("Q11", "R1")
def test_a_read_buffer_that_cannot_be_written_takes_nothing_away(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(bc.oneway(0))
    argument = binder_write_read.build(read_size=256, read_buffer=SPARE_ADDRESS)
    errno, argument = scene.client.ioctl(BINDER_WRITE_READ, argument)
    assert (errno, binder_write_read.read(argument).read_consumed) == (EFAULT, 0)
    assert_br(scene.client.read(), BR_NOOP, BR_TRANSACTION_COMPLETE)
