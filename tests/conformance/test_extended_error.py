# SPDX-License-Identifier: Apache-2.0
"""Why a transaction failed, as the thread can ask afterwards (E8, and the errnos of E1-E4)."""

from __future__ import annotations

from errno import EFAULT, EINVAL, ENOSPC, EPROTO, ESRCH
from typing import TYPE_CHECKING

import pytest

from binderwire.binder_abi import (
    BR_DEAD_REPLY,
    BR_FAILED_REPLY,
    BR_NOOP,
    BR_OK,
    BR_REPLY,
    BR_TRANSACTION_COMPLETE,
)
from support import bc
from support.playbook import MAPPING_SIZE, SPARE_ADDRESS, statements
from support.scenes import (
    answer,
    get_call,
    get_reply,
    give,
    manager_and_client,
    take,
)
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.playbook import Thread, World

BAD_HANDLE = 77
RESET = (0, BR_OK, 0)
LARGEST = (1 << 64) - 1


@statements("E8", "BINDER_GET_EXTENDED_ERROR", "BR_OK")
def test_a_thread_that_did_nothing(world: World) -> None:
    assert world.open().thread().extended_error() == RESET


@statements("E8", "BINDER_GET_EXTENDED_ERROR")
def test_reading_it_resets_it(world: World) -> None:
    client = manager_and_client(world).client
    client.write_read(bc.oneway(BAD_HANDLE))
    number, word, param = client.extended_error()
    assert number > 0
    assert (word, param) == (BR_FAILED_REPLY, -EINVAL)
    assert client.extended_error() == RESET


@statements("E8")
def test_success_is_noted_as_well(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write_read(bc.oneway(BAD_HANDLE))
    scene.client.write_read(bc.oneway(0))
    number, word, param = scene.client.extended_error()
    assert number > 0
    assert (word, param) == (BR_OK, 0)
    started = world.open().seasoned().start(bc.call(0))
    get_call(scene.server)
    answer(scene.server, get_call(scene.server))
    assert scene.server.extended_error()[0] > number
    get_reply(started)


@statements("E8")
def test_a_reply_begins_anew_too(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(bc.call(0))
    scene.server.write(bc.oneway(BAD_HANDLE))
    assert_br(scene.server.read(), BR_NOOP, BR_FAILED_REPLY)
    answer(scene.server, get_call(scene.server))
    assert scene.server.extended_error()[1:] == (BR_OK, 0)


@statements("E8")
def test_numbers_are_counted_with_nodes_and_references(world: World) -> None:
    scene = manager_and_client(world)

    def next_number(*objects: bytes) -> int:
        scene.client.write(bc.oneway(0, bc.payload(*objects)))
        return scene.client.extended_error()[0]

    first = next_number()
    assert next_number() == first + 1
    assert next_number(bc.binder(0x1000)) == first + 2
    assert next_number(bc.binder(0x1000)) == first + 5, "a node and a reference came between"
    assert next_number(bc.binder(0x2000), bc.weak_binder(0x3000)) == first + 6
    scene.client.write_read(bc.oneway(BAD_HANDLE))
    assert scene.client.extended_error()[0] == first + 11


@statements("E8")
def test_every_thread_has_its_own(world: World) -> None:
    scene = manager_and_client(world)
    other = scene.client.proc.seasoned()
    scene.client.write_read(bc.oneway(BAD_HANDLE))
    other.write_read(bc.reply())
    assert scene.client.extended_error()[1:] == (BR_FAILED_REPLY, -EINVAL)
    assert other.extended_error()[1:] == (BR_FAILED_REPLY, -EPROTO)


@statements("E8", "BINDER_THREAD_EXIT")
def test_it_is_gone_with_the_thread(world: World) -> None:
    client = manager_and_client(world).client
    client.write_read(bc.oneway(BAD_HANDLE))
    client.exit()
    assert client.extended_error() == RESET


@statements("E8", "Q10")
def test_a_command_that_was_not_taken_does_not_reset_it(world: World) -> None:
    client = manager_and_client(world).client
    client.write_read(bc.oneway(BAD_HANDLE), bc.oneway(0), read=0)
    client.write_read(bc.oneway(0), read=0)
    assert client.extended_error()[1:] == (BR_FAILED_REPLY, -EINVAL)


def why(thread: Thread, command: bc.Parcel) -> tuple[int, int]:
    """Send something that fails; return (BR_ code, errno)."""
    outcome = thread.write_read(command)
    _, word, param = thread.extended_error()
    assert_br(outcome, BR_NOOP, word)
    return word, -param


DATA = bytes(64)
FLAT = bc.binder(0x1000)
BAD_TYPE = (0x1234).to_bytes(4, "little") + bytes(20)
FAILING = {
    "unknown handle": (bc.call(BAD_HANDLE), EINVAL),
    "more data than space": (bc.call(0, data_size=MAPPING_SIZE + 8), ENOSPC),
    "more oneway data than half the space": (bc.oneway(0, bytes(MAPPING_SIZE // 2 + 8)), ENOSPC),
    "sizes that overflow": (bc.call(0, data_size=LARGEST), EINVAL),
    "sizes that overflow together": (bc.call(0, data_size=1 << 63, offsets_size=1 << 63), EINVAL),
    "a size that just does not overflow": (bc.call(0, data_size=LARGEST - 7), ENOSPC),
    "data that cannot be read": (bc.call(0, data_size=8, buffer=SPARE_ADDRESS), EFAULT),
    "offsets that cannot be read": (
        bc.call(0, DATA, offsets_size=8, offsets=SPARE_ADDRESS),
        EFAULT,
    ),
    "offsets of no multiple of 8": (bc.call(0, bc.payload(DATA, at=[0]), offsets_size=4), EINVAL),
    "offsets of no multiple of 8 that cannot be read": (
        bc.call(0, DATA, offsets_size=4, offsets=SPARE_ADDRESS),
        EFAULT,
    ),
    "unknown object": (bc.call(0, bc.payload(BAD_TYPE, at=[0])), EINVAL),
    "unknown handle object": (bc.call(0, bc.payload(bc.handle(BAD_HANDLE))), EINVAL),
    "offset of no multiple of 4": (bc.call(0, bc.payload(FLAT * 2, at=[2])), EINVAL),
    "offset at the end": (bc.call(0, bc.payload(FLAT, at=[24])), EINVAL),
    "offset behind the end": (bc.call(0, bc.payload(FLAT, at=[28])), EFAULT),
    "largest offset": (bc.call(0, bc.payload(FLAT, at=[LARGEST - 3])), EFAULT),
    "object that sticks out": (bc.call(0, bc.payload(FLAT + FLAT[:20], at=[24])), EINVAL),
    "the same object twice": (bc.call(0, bc.payload(FLAT * 2, at=[0, 0])), EFAULT),
    "overlapping objects": (bc.call(0, bc.payload(FLAT * 3, at=[0, 20])), EFAULT),
    "overlapping, and no multiple of 4": (bc.call(0, bc.payload(FLAT * 3, at=[0, 10])), EFAULT),
    "objects that go back": (bc.call(0, bc.payload(FLAT * 2, at=[24, 0])), EFAULT),
}


@statements("E2", "O1", "E8")
@pytest.mark.parametrize(("command", "errno"), FAILING.values(), ids=FAILING)
def test_why_a_call_cannot_be_sent(world: World, command: bc.Parcel, errno: int) -> None:
    scene = manager_and_client(world)
    assert why(scene.client, command) == (BR_FAILED_REPLY, errno)


BAD_HANDLE_OBJECT = bc.handle(BAD_HANDLE)
TWO_REASONS = {
    "a bad object before a bad offset": ([BAD_HANDLE_OBJECT, FLAT], [0, 1000], EINVAL),
    "a bad object that the next one overlaps": ([BAD_HANDLE_OBJECT, FLAT], [0, 12], EINVAL),
    "a cookie that differs before a bad offset": (
        [bc.binder(0x1000, 1), bc.binder(0x1000, 2)],
        [0, 24, 7],
        EINVAL,
    ),
    "a bad offset before a bad object": ([FLAT, BAD_HANDLE_OBJECT], [1000, 24], EFAULT),
    "an unknown type before a bad offset": ([BAD_TYPE, FLAT], [0, 1000], EINVAL),
}


@statements("O1", "E2")
@pytest.mark.parametrize(("objects", "offsets", "errno"), TWO_REASONS.values(), ids=TWO_REASONS)
def test_what_comes_first_decides(
    world: World, objects: list[bytes], offsets: list[int], errno: int
) -> None:
    scene = manager_and_client(world)
    content = bc.payload(*objects, at=offsets)
    assert why(scene.client, bc.call(0, content)) == (BR_FAILED_REPLY, errno)


@statements("O1", "E2", "B9")
def test_data_that_cannot_be_read_beside_objects(world: World) -> None:
    """The data begins in memory that can be read and goes on where there is none."""
    scene = manager_and_client(world)
    proc = scene.client.proc
    end = proc.heap_end

    def reason(start: int, objects: bytes, *offsets: int, size: int = 256) -> int:
        proc.poke(end - len(objects) - start, bytes(start) + objects)
        command = bc.call(
            0, bc.payload(b"", at=offsets), buffer=end - len(objects) - start, data_size=size
        )
        word, errno = why(scene.client, command)
        assert word == BR_FAILED_REPLY
        return errno

    assert reason(0, b"") == EFAULT
    assert reason(0, b"", 0) == EINVAL, "the object itself cannot be read"
    assert reason(16, b"", 16) == EINVAL
    assert reason(16, b"", 24) == EFAULT, "what is before the object cannot be read"
    assert reason(0, FLAT, 0) == EINVAL, "no room for the largest object"
    assert reason(0, FLAT, 0, size=24 + 8) == EINVAL
    assert reason(0, FLAT + bytes(16), 0) == EFAULT, "the object is in order, what follows is not"
    assert reason(0, BAD_HANDLE_OBJECT + bytes(16), 0) == EINVAL
    assert reason(0, FLAT + FLAT + bytes(16), 0, 24) == EFAULT
    assert reason(0, FLAT + FLAT, 0, 24) == EINVAL
    assert reason(0, FLAT + bytes(16), 0, 250) == EFAULT
    assert reason(0, FLAT + bytes(16), 0, 30) == EINVAL
    assert give(scene, 0x1000) == 1


@statements("E1", "E8")
def test_why_somebody_cannot_be_reached(world: World) -> None:
    client = world.open().seasoned()
    assert why(client, bc.call(0)) == (BR_DEAD_REPLY, EINVAL)
    mapped_nothing = world.open(size=None)
    mapped_nothing.become_manager()
    assert why(client, bc.call(0)) == (BR_DEAD_REPLY, ESRCH)
    assert why(client, bc.oneway(0, data_size=LARGEST)) == (BR_DEAD_REPLY, ESRCH)


@statements("E1", "E8")
def test_why_the_dead_cannot_be_reached(world: World) -> None:
    scene = manager_and_client(world)
    number = take(scene, 0x1000)
    scene.manager.kill()
    assert why(scene.client, bc.call(number)) == (BR_DEAD_REPLY, EINVAL)


@statements("E2", "E8")
def test_why_a_process_cannot_call_itself(world: World) -> None:
    scene = manager_and_client(world)
    assert why(scene.server, bc.call(0)) == (BR_FAILED_REPLY, EINVAL)
    assert why(scene.manager.open_again().seasoned(), bc.call(0)) == (BR_FAILED_REPLY, EINVAL)


@statements("Q6", "E2", "E8")
def test_why_a_call_was_out_of_turn(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(bc.call(0))
    scene.client.write(bc.call(0))
    assert scene.client.extended_error()[1:] == (BR_FAILED_REPLY, -EPROTO)
    answer(scene.server, get_call(scene.server))
    assert why(scene.server, bc.reply()) == (BR_FAILED_REPLY, EPROTO)


@statements("E1", "E8", "Q9")
def test_a_failure_after_sending_leaves_no_reason(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    scene.manager.kill()
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_DEAD_REPLY)
    assert scene.client.extended_error()[1:] == (BR_OK, 0)


BAD_REPLY = bc.reply(data_size=8, buffer=SPARE_ADDRESS)


@statements("E4", "E8")
def test_why_a_reply_failed_is_the_caller_s_to_know(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    get_call(scene.server)
    scene.server.write_read(BAD_REPLY)
    number, word, param = scene.server.extended_error()
    assert (word, param) == (BR_OK, 0)
    started.result()
    assert scene.client.extended_error() == (number, BR_FAILED_REPLY, -EFAULT)


@statements("E4", "E8", "E1")
def test_why_a_caller_without_a_mapping_gets_no_reply(world: World) -> None:
    scene = manager_and_client(world)
    client = world.open(size=None).seasoned()
    started = client.start(bc.call(0))
    get_call(scene.server)
    scene.server.write_read(bc.reply())
    started.result()
    assert client.extended_error()[1:] == (BR_DEAD_REPLY, -ESRCH)


@statements("E4", "E8")
def test_a_failed_reply_does_not_hide_the_caller_s_own_error(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(bc.call(0))
    get_call(scene.server)
    scene.client.write(bc.oneway(BAD_HANDLE))
    scene.server.write_read(BAD_REPLY)
    assert_br(
        scene.client.read(),
        BR_NOOP,
        BR_TRANSACTION_COMPLETE,
        BR_FAILED_REPLY,
        BR_FAILED_REPLY,
    )
    assert scene.client.extended_error()[1:] == (BR_FAILED_REPLY, -EINVAL)


@statements("E4", "E8")
def test_a_failed_reply_is_noted_by_a_caller_that_has_asked_before(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(bc.call(0))
    get_call(scene.server)
    assert scene.client.extended_error()[1:] == (BR_OK, 0)
    scene.server.write_read(BAD_REPLY)
    number = scene.server.extended_error()[0]
    assert scene.client.extended_error() == (number, BR_FAILED_REPLY, -EFAULT)


@statements("E5", "E8")
def test_why_an_outer_call_failed_is_not_told(world: World) -> None:
    scene = manager_and_client(world)
    third = world.open().looper()
    to_third = give(scene, 0x3000, owner=third)
    outer = scene.client.start(bc.call(0))
    get_call(scene.server)
    scene.server.write(bc.call(to_third))
    get_call(third)
    scene.server.exit()
    assert_br(third.write_read(bc.reply()), BR_NOOP, BR_TRANSACTION_COMPLETE)
    assert third.extended_error()[1:] == (BR_OK, 0)
    assert_br(outer.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_DEAD_REPLY)
    assert scene.client.extended_error()[1:] == (BR_OK, 0)


@statements("E8", "Q4")
def test_a_nested_call_replaces_it(world: World) -> None:
    scene = manager_and_client(world)
    number = give(scene, 0x1000)
    scene.client.write(bc.call(0))
    call = get_call(scene.server)
    scene.server.write(bc.call(number))
    nested = scene.client.read().items[-1]
    scene.client.write_read(bc.oneway(BAD_HANDLE))
    answer(scene.client, nested)
    assert scene.client.extended_error()[1:] == (BR_OK, 0)
    assert_br(scene.server.read(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_REPLY)
    answer(scene.server, call)
    assert_br(scene.client.read(), BR_NOOP, BR_REPLY)
