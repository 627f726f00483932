# SPDX-License-Identifier: Apache-2.0
"""Reading: what a read returns, when it sleeps, and when it must come back (R1-R6, R8-R15)."""

from __future__ import annotations

from errno import EAGAIN, EINTR
from typing import TYPE_CHECKING

import pytest

from binderwire.binder_abi import (
    BINDER_WRITE_READ,
    BR_CLEAR_DEATH_NOTIFICATION_DONE,
    BR_DEAD_BINDER,
    BR_FAILED_REPLY,
    BR_NOOP,
    BR_REPLY,
    BR_TRANSACTION,
    BR_TRANSACTION_COMPLETE,
    RETURNS,
    binder_write_read,
)
from binderwire.commands import message
from support import bc
from support.playbook import statements
from support.scenes import (
    answer,
    get_call,
    get_reply,
    give,
    manager_and_client,
    round_trip,
    take,
)
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.playbook import Thread, World

POLLIN = 1
COMPLETE = message(RETURNS, BR_TRANSACTION_COMPLETE)
FILLER = b"\xa5"


def read_into(
    thread: Thread, size: int, *, consumed: int = 0, spare: int = 64
) -> tuple[int, bytes]:
    """Read with these sizes into a filled buffer; return read_consumed and all of the buffer."""
    address = thread.proc.put(FILLER * (size + spare))
    argument = binder_write_read.build(read_size=size, read_consumed=consumed, read_buffer=address)
    errno, argument = thread.ioctl(BINDER_WRITE_READ, argument)
    assert errno == 0
    return binder_write_read.read(argument).read_consumed, thread.proc.peek(address, size + spare)


@statements("R1")
def test_a_read_begins_with_a_noop(world: World) -> None:
    _, client = manager_and_client(world)
    client.write(bc.oneway(0))
    consumed, buffer = read_into(client, 256)
    assert buffer[:consumed] == message(RETURNS, BR_NOOP) + COMPLETE
    assert buffer[consumed:] == FILLER * (len(buffer) - consumed)


@statements("R1")
def test_a_read_that_goes_on_appends_without_a_noop(world: World) -> None:
    _, client = manager_and_client(world)
    client.write(bc.oneway(0))
    consumed, buffer = read_into(client, 256, consumed=12)
    assert consumed == 16
    assert buffer == FILLER * 12 + COMPLETE + FILLER * (len(buffer) - 16)


@statements("R2")
@pytest.mark.parametrize("size", [4, 8, 40, 79])
def test_a_small_read_returns_only_a_noop_and_keeps_the_work(world: World, size: int) -> None:
    _, client = manager_and_client(world)
    client.write(bc.oneway(0))
    assert_br(client.read(size), BR_NOOP)
    assert_br(client.read(80), BR_NOOP, BR_TRANSACTION_COMPLETE)


@statements("R2")
def test_room_is_counted_from_where_the_read_goes_on(world: World) -> None:
    _, client = manager_and_client(world)
    client.write(bc.oneway(0))
    assert read_into(client, 256, consumed=181)[0] == 181
    assert read_into(client, 256, consumed=180)[0] == 184


@statements("R3")
@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_read_too_small_for_a_word_writes_nothing(world: World, size: int) -> None:
    if world.differs("kernel", reason="it writes past the end of the buffer, a bug"):
        return
    _, client = manager_and_client(world)
    client.write(bc.oneway(0))
    consumed, buffer = read_into(client, size)
    assert consumed <= size
    assert buffer == FILLER * len(buffer)
    assert_br(client.read(), BR_NOOP, BR_TRANSACTION_COMPLETE)


@statements("R4")
def test_a_call_ends_the_read(world: World) -> None:
    scene = manager_and_client(world)
    other = world.open().seasoned()
    first, second = scene.client.start(bc.call(0, code=1)), other.start(bc.call(0, code=2))
    answer(scene.server, get_call(scene.server, code=1))
    answer(scene.server, get_call(scene.server, code=2))
    get_reply(first)
    get_reply(second)


@statements("R4", "Q2")
def test_a_reply_ends_the_read_but_a_completion_does_not(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(bc.call(0))
    call = get_call(scene.server)
    answer(scene.server, call)
    scene.client.write(bc.oneway(0), bc.oneway(0))
    assert_br(scene.client.read(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_REPLY)
    assert_br(scene.client.read(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_TRANSACTION_COMPLETE)


@statements("R4", "Q6")
def test_an_error_does_not_end_the_read(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(bc.call(0))
    call = get_call(scene.server)
    scene.client.write(bc.oneway(77))
    answer(scene.server, call)
    outcome = scene.client.read()
    assert_br(outcome, BR_NOOP, BR_TRANSACTION_COMPLETE, BR_FAILED_REPLY, BR_REPLY)


@statements("R4", "N11")
def test_each_death_ends_the_read_but_a_cleared_one_does_not(world: World) -> None:
    scene = manager_and_client(world)
    first, second = take(scene, 0x1000), take(scene, 0x2000)
    scene.client.write(bc.request_death(first, 11), bc.request_death(second, 22))
    scene.manager.kill()
    cookies = {assert_br(scene.client.read(), BR_NOOP, BR_DEAD_BINDER)[0].value for _ in "12"}
    assert cookies == {11, 22}
    scene.client.write(bc.dead_binder_done(11), bc.dead_binder_done(22))
    scene.client.write(bc.clear_death(first, 11), bc.clear_death(second, 22))
    assert_br(
        scene.client.read(),
        BR_NOOP,
        (BR_CLEAR_DEATH_NOTIFICATION_DONE, {"value": 11}),
        (BR_CLEAR_DEATH_NOTIFICATION_DONE, {"value": 22}),
    )


@statements("R5", "N5")
def test_news_that_cancels_out_does_not_end_the_sleep(world: World) -> None:
    scene = manager_and_client(world)
    owner, looper = scene.client, scene.client.proc.looper()
    number = give(scene, 0x1000)
    scene.server.write(bc.increfs(number), bc.release(number))
    owner.write(bc.oneway(0, bc.payload(bc.binder(0x1000))))
    assert_br(owner.read(), BR_NOOP, BR_TRANSACTION_COMPLETE)
    sleeping = looper.start()
    assert sleeping.parked
    scene.server.write(bc.acquire(number))
    scene.server.write(bc.free(get_call(scene.server).buffer))
    assert sleeping.parked


@statements("R6")
def test_the_first_read_of_a_thread_comes_back_at_once(world: World) -> None:
    proc = world.open()
    fresh = proc.thread()
    assert_br(fresh.read(), BR_NOOP)
    assert fresh.start().parked
    entering = proc.thread()
    assert_br(entering.write_read(bc.enter_looper()), BR_NOOP)
    assert entering.start().parked


@statements("R6", "BINDER_THREAD_EXIT")
def test_after_thread_exit_the_thread_is_fresh_again(world: World) -> None:
    thread = world.open().seasoned()
    thread.exit()
    assert_br(thread.read(), BR_NOOP)
    assert thread.start().parked


@statements("R6", "R15")
def test_a_fresh_thread_polls_readable(world: World) -> None:
    proc = world.open()
    fresh = proc.thread()
    assert fresh.poll() == POLLIN
    assert fresh.poll() == POLLIN
    assert_br(fresh.read(), BR_NOOP)
    assert fresh.poll() == 0
    assert proc.seasoned().poll() == 0


@statements("R8")
def test_a_nonblocking_read_with_nothing_to_do(world: World) -> None:
    thread = world.open(nonblocking=True).seasoned()
    outcome = thread.write_read(bc.enter_looper(), bc.enter_looper())
    assert outcome.errno == EAGAIN
    assert outcome.read_consumed == 0
    assert outcome.write_consumed == outcome.bwr.write_size == 8


@statements("R8", "R1")
def test_a_nonblocking_read_with_something_to_do(world: World) -> None:
    manager_and_client(world)
    thread = world.open(nonblocking=True).seasoned()
    assert_br(thread.write_read(bc.oneway(0)), BR_NOOP, BR_TRANSACTION_COMPLETE)
    assert thread.read().errno == EAGAIN


@statements("R8")
def test_nonblocking_can_be_set_later(world: World) -> None:
    if world.differs("engine", reason="there is no descriptor to set it on"):
        return
    thread = world.open().seasoned()
    thread.proc.set_nonblocking()
    reading = thread.start()
    if world.differs("fuse", "cuse", reason="the kernel tells us the flag of the open only"):
        assert reading.parked
    else:
        assert reading.result().errno == EAGAIN


@statements("R9")
def test_a_signal_interrupts_without_losing_or_repeating_the_call(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0, b"once"))
    assert started.parked
    scene.client.signal()
    outcome = started.result()
    assert outcome.errno == EINTR
    assert outcome.write_consumed == outcome.bwr.write_size
    assert outcome.read_consumed == 0
    again = scene.client.start_ioctl(BINDER_WRITE_READ, binder_write_read.pack(*outcome.bwr))
    assert again.parked
    answer(scene.server, get_call(scene.server, data=b"once"))
    assert scene.server.start().parked
    outcome = scene.client.outcome(*again.wait())
    assert_br(outcome, BR_NOOP, BR_TRANSACTION_COMPLETE, BR_REPLY)


@statements("R9")
def test_a_signal_while_waiting_for_calls_loses_none(world: World) -> None:
    scene = manager_and_client(world)
    sleeping = scene.server.start()
    scene.server.signal()
    assert sleeping.result().errno == EINTR
    round_trip(scene)


@statements("R10")
def test_commands_are_taken_from_write_consumed_on(world: World) -> None:
    thread = world.open().seasoned()
    stream = b"\xff\xff\xff\xff" + bc.enter_looper()
    argument = binder_write_read.build(
        write_size=8, write_consumed=4, write_buffer=thread.proc.put(stream)
    )
    errno, argument = thread.ioctl(BINDER_WRITE_READ, argument)
    assert (errno, binder_write_read.read(argument).write_consumed) == (0, 8)


@statements("R10")
@pytest.mark.parametrize("consumed", [4, 5, 100, 1 << 40])
def test_nothing_is_taken_behind_the_end(world: World, consumed: int) -> None:
    thread = world.open().seasoned()
    argument = binder_write_read.build(
        write_size=4, write_consumed=consumed, write_buffer=thread.proc.put(b"\xff" * 4)
    )
    errno, back = thread.ioctl(BINDER_WRITE_READ, argument)
    assert (errno, back) == (0, argument)


@statements("R10")
def test_a_command_that_begins_inside_is_taken_whole(world: World) -> None:
    thread = world.open().seasoned()
    argument = binder_write_read.build(write_size=4, write_buffer=thread.proc.put(bc.acquire(5)))
    errno, argument = thread.ioctl(BINDER_WRITE_READ, argument)
    assert (errno, binder_write_read.read(argument).write_consumed) == (0, 8)


@statements("R13")
def test_a_thread_that_never_entered_the_loop_serves_calls(world: World) -> None:
    scene = manager_and_client(world)
    plain = scene.manager.seasoned()
    sleeping = plain.start()
    started = scene.client.start(bc.call(0))
    call = assert_br(sleeping.result(), BR_NOOP, BR_TRANSACTION)[0]
    answer(plain, call)
    get_reply(started)


@statements("R14", "R2", "N11")
def test_work_that_a_woken_thread_cannot_take_goes_to_the_next(world: World) -> None:
    scene = manager_and_client(world)
    number = take(scene, 0x1000)
    scene.client.write(bc.request_death(number, 7))
    patient, hasty = scene.client.proc.looper(), scene.client.proc.looper()
    able = patient.start()
    unable = hasty.start(read=64)
    scene.manager.kill()
    assert_br(unable.result(), BR_NOOP)
    assert_br(able.result(), BR_NOOP, (BR_DEAD_BINDER, {"value": 7}))


@statements("R15")
def test_poll_sees_a_call_and_sleeps_until_there_is_one(world: World) -> None:
    scene = manager_and_client(world)
    assert scene.server.poll() == 0
    waiting = scene.server.start_poll()
    assert waiting.parked
    started = scene.client.start(bc.call(0))
    assert waiting.wait() == (0, POLLIN.to_bytes(4, "little"))
    assert scene.server.poll() == POLLIN
    answer(scene.server, get_call(scene.server))
    assert scene.server.poll() == 0
    get_reply(started)


@statements("R15", "Q2")
def test_poll_does_not_see_a_deferred_completion(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(bc.call(0))
    assert scene.client.poll() == 0
    waiting = scene.client.start_poll()
    assert waiting.parked
    answer(scene.server, get_call(scene.server))
    assert waiting.wait() == (0, POLLIN.to_bytes(4, "little"))
    assert_br(scene.client.read(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_REPLY)


@statements("R15")
def test_poll_of_a_busy_thread_does_not_see_work_of_the_process(world: World) -> None:
    scene = manager_and_client(world)
    first = scene.client.start(bc.call(0, code=1))
    call = get_call(scene.server, code=1)
    second = world.open().seasoned().start(bc.call(0, code=2))
    assert scene.server.poll() == 0
    assert scene.manager.seasoned().poll() == POLLIN
    answer(scene.server, call)
    assert scene.server.poll() == POLLIN
    answer(scene.server, get_call(scene.server, code=2))
    get_reply(first)
    get_reply(second)
