# SPDX-License-Identifier: Apache-2.0
"""Receive buffers: where they lie, how many fit, who may free them (B1-B3, B5, B7-B9, O1)."""

from __future__ import annotations

from errno import EBUSY, EINVAL, ENODEV, EPERM
from typing import TYPE_CHECKING

import pytest

from binderwire.binder_abi import (
    BR_DEAD_REPLY,
    BR_FAILED_REPLY,
    BR_NOOP,
    BR_TRANSACTION_COMPLETE,
)
from support import bc
from support.passthrough import HAS_PASSTHROUGH
from support.playbook import MAPPING_SIZE, Outcome, statements
from support.scenes import (
    answer,
    get_call,
    get_reply,
    give,
    manager_and_client,
    round_trip,
)
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.playbook import World
    from support.scenes import Scene

SIZE_MAX = 4 << 20  # bytes, the driver's cap


def deliver(scene: Scene, content: bc.Payload) -> int:
    """Let the manager receive a call and keep its buffer; return the buffer's address."""
    started = scene.client.start(bc.call(0, content))
    call = get_call(scene.server)
    assert_br(scene.server.write_read(bc.reply()), BR_NOOP, BR_TRANSACTION_COMPLETE)
    scene.client.write(bc.free(get_reply(started).buffer))
    return int(call.buffer)


def sent(outcome: Outcome) -> bool:
    """Whether a oneway was taken; otherwise it must have failed for want of space."""
    words = [item.word for item in outcome.items]
    assert words in ([BR_NOOP, BR_TRANSACTION_COMPLETE], [BR_NOOP, BR_FAILED_REPLY])
    return words[1] == BR_TRANSACTION_COMPLETE


@statements("B1")
def test_buffers_fill_the_mapping_from_its_start(world: World) -> None:
    scene = manager_and_client(world)
    start, _ = scene.manager.mapping
    sizes = [8, 1, 0, 64, 13]
    addresses = [deliver(scene, bytes(size)) for size in sizes]
    assert addresses == [start, start + 8, start + 16, start + 24, start + 88]


@statements("B1")
def test_a_buffer_has_room_for_data_and_offsets_each_rounded_up(world: World) -> None:
    scene = manager_and_client(world)
    start, _ = scene.manager.mapping
    scene.client.write(bc.oneway(0, bc.payload(bc.binder(0x1000), b"x")))
    world.open().seasoned().write(bc.call(0))
    assert get_call(scene.server, data_size=25, offsets_size=8).buffer == start
    assert get_call(scene.manager.looper()).buffer == start + 32 + 8


@statements("B1")
def test_the_smallest_hole_that_suffices_is_taken_from_its_low_end(world: World) -> None:
    scene = manager_and_client(world)
    big, _, small, _ = (deliver(scene, bytes(size)) for size in (64, 8, 32, 8))
    scene.server.write(bc.free(big), bc.free(small))
    assert deliver(scene, bytes(24)) == small
    assert deliver(scene, bytes(16)) == big
    assert deliver(scene, bytes(8)) == small + 24
    assert deliver(scene, bytes(48)) == big + 16


@statements("B1", "B3")
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (0, 2, 1), (1, 0, 2)])
def test_freed_neighbours_become_one(world: World, order: tuple[int, ...]) -> None:
    scene = manager_and_client(world)
    start, size = scene.manager.mapping
    buffers = [deliver(scene, bytes(1000)) for _ in order]
    scene.server.write(*(bc.free(buffers[index]) for index in order))
    assert deliver(scene, bytes(size)) == start


@statements("B2")
def test_an_empty_payload_has_a_buffer_of_its_own(world: World) -> None:
    scene = manager_and_client(world)
    start, size = scene.manager.mapping
    first, second = deliver(scene, b""), deliver(scene, b"")
    assert (first, second) == (start, start + 8)
    assert not sent(scene.client.write_read(bc.call(0, data_size=size - 8)))
    scene.server.write(bc.free(first), bc.free(second))
    assert deliver(scene, bytes(size)) == start


@statements("B3", "E2")
def test_the_whole_mapping_can_be_used_and_no_more(world: World) -> None:
    scene = manager_and_client(world)
    assert not sent(scene.client.write_read(bc.call(0, data_size=MAPPING_SIZE + 1)))
    buffer = deliver(scene, b"\x5a" * MAPPING_SIZE)
    assert not sent(scene.client.write_read(bc.call(0)))
    assert scene.manager.peek(buffer, MAPPING_SIZE) == b"\x5a" * MAPPING_SIZE


@statements("B3")
def test_a_mapping_larger_than_4_mib_counts_as_4_mib(world: World) -> None:
    manager = world.open(size=2 * SIZE_MAX)
    manager.become_manager()
    server, client = manager.looper(), world.open().seasoned()
    assert not sent(client.write_read(bc.call(0, data_size=SIZE_MAX + 8)))
    started = client.start(bc.call(0, b"\xa5" * SIZE_MAX))
    call = get_call(server, data_size=SIZE_MAX)
    assert manager.peek(call.buffer + SIZE_MAX - 8, 8) == b"\xa5" * 8
    answer(server, call)
    get_reply(started)


@statements("B3")
def test_oneways_get_half_of_it(world: World) -> None:
    scene = manager_and_client(world)
    half = MAPPING_SIZE // 2
    assert not sent(scene.client.write_read(bc.oneway(0, data_size=half + 1)))
    assert sent(scene.client.write_read(bc.oneway(0, bytes(half - 8))))
    assert sent(scene.client.write_read(bc.oneway(0, b"x")))
    assert not sent(scene.client.write_read(bc.oneway(0, b"x")))
    deliver_size = MAPPING_SIZE - half
    started = world.open().seasoned().start(bc.call(0, bytes(deliver_size)))
    first = get_call(scene.server, data_size=half - 8)
    answer(scene.server, get_call(scene.server, data_size=deliver_size))
    get_reply(started)
    scene.server.write(bc.free(first.buffer))
    assert sent(scene.client.write_read(bc.oneway(0, bytes(half - 8))))


@statements("B5", "E7")
def test_a_buffer_cannot_be_freed_before_it_was_delivered(world: World) -> None:
    scene = manager_and_client(world)
    start, _ = scene.manager.mapping
    started = scene.client.start(bc.call(0, b"still here"))
    scene.server.write(bc.free(start), bc.free(start))
    other = world.open().seasoned()
    other.write(bc.call(0, b"no overlap"))
    call = get_call(scene.server, data=b"still here", buffer=start)
    answer(scene.server, call)
    get_reply(started)


@statements("B5")
def test_only_the_receiver_can_free(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0, b"mine"))
    call = get_call(scene.server)
    scene.client.proc.seasoned().write(bc.free(call.buffer))
    other = world.open().seasoned()
    other.write(bc.free(call.buffer), bc.call(0, b"else"))
    assert get_call(scene.manager.looper()).buffer == call.buffer + 8
    answer(scene.server, call)
    get_reply(started)


@statements("B5")
def test_a_buffer_may_be_freed_before_and_after_the_reply(world: World) -> None:
    scene = manager_and_client(world)
    round_trip(scene, b"before")
    buffer = deliver(scene, b"after")
    scene.server.write(bc.free(buffer))
    assert deliver(scene, bytes(MAPPING_SIZE)) == buffer


@statements("B7")
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100])
def test_the_offsets_follow_the_data_rounded_up(world: World, size: int) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0, bytes(size)))
    call = get_call(scene.server, data_size=size, offsets_size=0)
    assert call.offsets == call.buffer + (size + 7 & ~7)
    outcome = scene.server.write_read(bc.reply(bc.payload(bytes(4), bc.handle(0))))
    assert_br(outcome, BR_NOOP, BR_TRANSACTION_COMPLETE)
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_FAILED_REPLY)
    scene.client.write(bc.oneway(0, bc.payload(bytes(4 * (size // 4)), bc.binder(0x1000))))
    call = get_call(scene.server, offsets_size=8)
    assert call.offsets == call.buffer + (call.data_size + 7 & ~7)
    assert call.offset_list == [4 * (size // 4)]


@statements("B8", "E1")
def test_whoever_unmapped_can_receive_no_more(world: World) -> None:
    scene = manager_and_client(world)
    round_trip(scene)
    scene.manager.munmap()

    def refused() -> bool:
        words = [item.word for item in scene.client.write_read(bc.oneway(0)).items]
        assert words[1] in (BR_TRANSACTION_COMPLETE, BR_DEAD_REPLY)
        return words == [BR_NOOP, BR_DEAD_REPLY]

    world.eventually(refused)
    assert_br(scene.client.write_read(bc.call(0)), BR_NOOP, BR_DEAD_REPLY)


@statements("B8")
@pytest.mark.parametrize("shared", [False, True], ids=["private", "shared"])
def test_both_kinds_of_mapping_show_what_arrives(world: World, *, shared: bool) -> None:
    reason = "a shared mapping has no pages of its client's own"
    if shared and world.differs("bare", "private", reason=reason):
        manager = world.open(size=None)
        if world.name == "bare" or not HAS_PASSTHROUGH:
            assert manager.try_mmap(shared=True) == ENODEV
            return
        assert manager.try_mmap(shared=True) == 0
        manager.become_manager()
        refused = world.open().seasoned().write_read(bc.call(0))
        assert_br(refused, BR_NOOP, BR_DEAD_REPLY)
        return
    manager = world.open(shared=shared)
    manager.become_manager()
    server, client = manager.looper(), world.open(shared=shared).seasoned()
    for content in (b"first", b"second"):
        started = client.start(bc.call(0, content))
        answer(server, get_call(server, data=content, buffer=manager.mapping[0]), content)
        client.write(bc.free(get_reply(started, data=content).buffer))


@statements("B8")
def test_mappings_that_the_driver_refuses(world: World) -> None:
    if world.differs("engine", reason="nobody maps"):
        return
    reason = "the kernel does not tell us of mappings"
    refuses = not world.differs("fuse", "cuse", reason=reason)
    mapped, unmapped = world.open(), world.open(size=None)
    child = unmapped.fork()
    assert mapped.try_mmap(MAPPING_SIZE) == (EBUSY if refuses else 0)
    assert unmapped.try_mmap(MAPPING_SIZE, writable=True) == (EPERM if refuses else 0)
    assert child.try_mmap(MAPPING_SIZE) == (EINVAL if world.name in ("kernel", "cuse") else 0)
    mapped.munmap()
    assert mapped.try_mmap(MAPPING_SIZE) == (EBUSY if refuses else 0)


def objects_at(*offsets: int) -> tuple[bytes, tuple[int, ...]]:
    data = bc.binder(0x1000) + bc.binder(0x2000) + bc.binder(0x3000)
    return data, offsets


BAD_OFFSETS = {
    "not a multiple of 4": objects_at(0, 26),
    "the same twice": objects_at(0, 0),
    "overlapping": objects_at(0, 20),
    "going backwards": objects_at(24, 0),
    "behind the data": objects_at(0, 80),
    "at the end of the data": objects_at(0, 72),
    "sticking out": (bc.binder(0x1000) + bc.binder(0x2000)[:20], (0, 24)),
    "no room for a type": (bc.binder(0x1000) + bytes(3), (0, 24)),
    "huge": objects_at(0, 1 << 63),
    "largest": objects_at(0, (1 << 64) - 1),
    "largest first": objects_at((1 << 64) - 8, 0),
}


@statements("O1", "B9", "E2")
@pytest.mark.parametrize("content", BAD_OFFSETS.values(), ids=BAD_OFFSETS)
def test_offsets_that_do_not_fit_leave_no_trace(world: World, content: bc.Payload) -> None:
    scene = manager_and_client(world)
    assert_br(scene.client.write_read(bc.call(0, content)), BR_NOOP, BR_FAILED_REPLY)
    assert_br(scene.client.write_read(bc.oneway(0, content)), BR_NOOP, BR_FAILED_REPLY)
    assert scene.client.poll() == 0
    assert give(scene, 0x1000, 3) == 1
    assert deliver(scene, bytes(MAPPING_SIZE)) == scene.manager.mapping[0]


@statements("O1")
def test_objects_side_by_side_and_at_multiples_of_4(world: World) -> None:
    scene = manager_and_client(world)
    parts = (bytes(4), bc.binder(0x1000), bc.binder(0x2000), bytes(4), bc.weak_binder(0x3000))
    content = bc.payload(*parts)
    assert content[1] == (4, 28, 56)
    started = scene.client.start(bc.call(0, content))
    call = get_call(scene.server, offset_list=[4, 28, 56])
    assert [value for _, value, _, _ in call.objects] == [1, 2, 3]
    answer(scene.server, call)
    get_reply(started)


@statements("B9", "N5")
def test_a_failed_transaction_gives_back_what_it_took(world: World) -> None:
    scene = manager_and_client(world)
    known = give(scene, 0x1000, 5)
    objects = [bc.binder(0x1000, 5), bc.binder(0x2000), bc.weak_binder(0x3000), bc.handle(77)]
    assert_br(scene.client.write_read(bc.call(0, bc.payload(*objects))), BR_NOOP, BR_FAILED_REPLY)
    assert scene.client.poll() == scene.server.poll() == 0
    assert give(scene, 0x2000, 6) == known + 1
    assert deliver(scene, bytes(MAPPING_SIZE)) == scene.manager.mapping[0]


@statements("O2")
def test_the_receiver_gets_what_was_there_when_it_was_sent(world: World) -> None:
    scene = manager_and_client(world)
    data, offsets = bc.payload(bc.binder(0x1000), b"text")
    address = scene.client.proc.put(data)
    started = scene.client.start(bc.call(0, (data, offsets), buffer=address))
    scene.client.proc.poke(address, bytes(len(data)))
    call = get_call(scene.server, objects=[("handle", 1, 0, 0)])
    assert call.data[24:] == b"text"
    answer(scene.server, call)
    get_reply(started)
