# SPDX-License-Identifier: Apache-2.0
"""Pieces of memory beside the data, and the pointers between them (O3-O5)."""

from __future__ import annotations

from errno import EINVAL, ENOSPC
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from binderwire.binder_abi import BR_FAILED_REPLY, BR_NOOP, BR_TRANSACTION_COMPLETE
from support import bc
from support.playbook import MAPPING_SIZE, SPARE_ADDRESS, statements
from support.scenes import answer, get_call, get_reply, manager_and_client
from support.transcript import assert_br

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.playbook import Proc, World
    from support.scenes import Scene
    from support.transcript import Received

LEAD = b"leading!"  # an object at offset 0 of the data is special (O5)
OBJECT_SIZE = 40  # bytes of a pointer object
ROOM = 1024  # bytes of extra area: more than enough
SENT = b"\xee" * 8  # where the receiver must find a pointer
LARGEST = (1 << 64) - 1


def send(scene: Scene, *objects: bytes, room: int = ROOM, lead: bytes = LEAD) -> Received:
    """Let the client call with these objects; return what the manager receives."""
    scene.client.write(bc.call_sg(0, bc.payload(lead, *objects), buffers_size=room))
    return get_call(scene.server)


def refusal(scene: Scene, *objects: bytes, room: int = ROOM, lead: bytes = LEAD) -> int:
    """Let the client try a call that fails; return why, and check that it left no trace."""
    command = bc.call_sg(0, bc.payload(lead, *objects), buffers_size=room)
    assert_br(scene.client.write_read(command), BR_NOOP, BR_FAILED_REPLY)
    _, word, param = scene.client.extended_error()
    assert word == BR_FAILED_REPLY
    assert scene.server.poll() == 0
    started = scene.client.start(bc.call(0, bytes(MAPPING_SIZE)))
    answer(scene.server, get_call(scene.server, buffer=scene.manager.mapping[0]))
    scene.client.write(bc.free(get_reply(started).buffer))
    return -int(param)


def word_at(proc: Proc, address: int) -> int:
    return int.from_bytes(proc.peek(address, 8), "little")


@statements("O3", "B7", "BC_TRANSACTION_SG")
def test_pieces_lie_behind_the_offsets_at_multiples_of_8(world: World) -> None:
    scene = manager_and_client(world)
    contents = [b"12345", b"12345678", b"", b"0123456789abcdef!", b"end"]
    put = scene.client.proc.put
    objects = [bc.ptr(put(c) if c else SPARE_ADDRESS, len(c), flags=0xFE) for c in contents]
    call = send(scene, *objects)
    assert call.offsets == call.buffer + call.data_size
    where = call.extra
    for content, record in zip(contents, call.records, strict=True):
        assert (record.buffer, record.length, record.flags) == (where, len(content), 0xFE)
        assert scene.manager.peek(where, len(content)) == content
        where += len(content) + 7 & ~7


@statements("O3", "BC_REPLY_SG")
def test_a_reply_can_have_pieces_as_well(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    get_call(scene.server)
    put = scene.manager.put
    root, child = put(b"root" + SENT[:4] + SENT[4:] * 2), put(b"child")
    content = bc.payload(LEAD, bc.ptr(root, 16), bc.ptr(child, 5, parent=0, parent_offset=8))
    outcome = scene.server.write_read(bc.reply_sg(content, buffers_size=24))
    assert_br(outcome, BR_NOOP, BR_TRANSACTION_COMPLETE)
    reply = get_reply(started)
    first, second = reply.records
    assert scene.client.proc.peek(first.buffer, 8) == b"root" + SENT[:4]
    assert word_at(scene.client.proc, first.buffer + 8) == second.buffer
    assert scene.client.proc.peek(second.buffer, 5) == b"child"


@statements("O4")
def test_a_tree_of_pointers_arrives_as_a_tree(world: World) -> None:
    scene = manager_and_client(world)
    put = scene.client.proc.put
    root = put(b"".join([SENT, b"between1", SENT, b"between2", SENT, b"tail"]))
    inner = put(SENT + b"inner")
    leaves = [put(b"leaf" + bytes([n])) for n in range(3)]
    call = send(
        scene,
        bc.ptr(root, 44),
        bc.ptr(leaves[0], 5, parent=0, parent_offset=0),
        bc.ptr(inner, 13, parent=0, parent_offset=16),
        bc.ptr(leaves[1], 5, parent=2, parent_offset=0),
        bc.ptr(leaves[2], 5, parent=0, parent_offset=32),
    )
    a, b, c, d, e = call.records
    peek = scene.manager.peek
    assert [word_at(scene.manager, a.buffer + at) for at in (0, 16, 32)] == [
        b.buffer,
        c.buffer,
        e.buffer,
    ]
    assert (peek(a.buffer + 8, 8), peek(a.buffer + 24, 8)) == (b"between1", b"between2")
    assert peek(a.buffer + 40, 4) == b"tail"
    assert word_at(scene.manager, c.buffer) == d.buffer
    assert peek(c.buffer + 8, 5) == b"inner"
    assert [peek(leaf.buffer, 5) for leaf in (b, d, e)] == [b"leaf\0", b"leaf\1", b"leaf\2"]
    assert (c.parent, c.parent_offset, d.parent) == (0, 16, 2)
    assert scene.client.proc.peek(root, 8) == SENT


@statements("O4")
def test_a_long_chain_and_back_to_its_root(world: World) -> None:
    scene = manager_and_client(world)
    node = scene.client.proc.put(SENT * 2)
    depth = 20
    objects = [bc.ptr(node, 16)]
    objects += [bc.ptr(node, 16, parent=index, parent_offset=0) for index in range(depth)]
    objects.append(bc.ptr(node, 16, parent=0, parent_offset=8))
    records = send(scene, *objects).records
    for parent, child in pairwise(records[:-1]):
        assert word_at(scene.manager, parent.buffer) == child.buffer
    assert word_at(scene.manager, records[0].buffer + 8) == records[-1].buffer


@statements("O4")
def test_two_trees_side_by_side(world: World) -> None:
    scene = manager_and_client(world)
    node = scene.client.proc.put(SENT)
    objects = [bc.ptr(node, 8), bc.ptr(node, 8, parent=0), bc.ptr(node, 8)]
    records = send(scene, *objects, bc.ptr(node, 8, parent=2)).records
    assert word_at(scene.manager, records[0].buffer) == records[1].buffer
    assert word_at(scene.manager, records[2].buffer) == records[3].buffer


@statements("O4", "O3")
def test_a_pointer_to_an_empty_piece(world: World) -> None:
    scene = manager_and_client(world)
    root = scene.client.proc.put(SENT)
    call = send(scene, bc.ptr(root, 8), bc.ptr(SPARE_ADDRESS, 0, parent=0), room=8)
    assert word_at(scene.manager, call.extra) == call.records[1].buffer == call.extra + 8


@statements("O2", "O3")
def test_what_the_sender_changes_later_does_not_matter(world: World) -> None:
    scene = manager_and_client(world)
    piece = scene.client.proc.put(b"as sent!")
    scene.client.write(bc.call_sg(0, bc.payload(LEAD, bc.ptr(piece, 8)), buffers_size=8))
    scene.client.proc.poke(piece, bytes(8))
    call = get_call(scene.server)
    assert scene.manager.peek(call.records[0].buffer, 8) == b"as sent!"


@statements("O3")
def test_a_plain_call_has_room_for_empty_pieces_only(world: World) -> None:
    scene = manager_and_client(world)
    piece = scene.client.proc.put(b"x")
    content = bc.payload(LEAD, bc.ptr(piece, 1))
    assert_br(scene.client.write_read(bc.call(0, content)), BR_NOOP, BR_FAILED_REPLY)
    scene.client.write(bc.call(0, bc.payload(LEAD, bc.ptr(piece, 0))))
    call = get_call(scene.server)
    assert call.records[0].buffer == call.extra


@statements("O3", "B1")
@pytest.mark.parametrize(
    ("lengths", "room"), [((8,), 8), ((5,), 8), ((5, 8), 16), ((1, 0, 1, 0), 16)]
)
def test_the_room_can_be_used_up(world: World, lengths: tuple[int, ...], room: int) -> None:
    scene = manager_and_client(world)
    piece = scene.client.proc.put(b"12345678")
    objects = [bc.ptr(piece, length) for length in lengths]
    call = send(scene, *objects, room=room)
    world.open().seasoned().write(bc.call(0))
    assert get_call(scene.manager.looper()).buffer == call.extra + room


@statements("O3", "E2", "B9")
@pytest.mark.parametrize(
    ("lengths", "room"),
    [
        ((9,), 8),
        ((1,), 0),
        ((5, 4), 8),
        ((8, LARGEST - 7), 16),
        ((LARGEST,), 8),
        ((8, 1 << 63), 8),
    ],
)
def test_pieces_that_do_not_fit(world: World, lengths: tuple[int, ...], room: int) -> None:
    scene = manager_and_client(world)
    piece = scene.client.proc.put(bytes(16))
    objects = [bc.ptr(piece, length) for length in lengths]
    assert refusal(scene, *objects, room=room) == EINVAL


ROOMS = {
    "no multiple of 8": (12, EINVAL),
    "one": (1, EINVAL),
    "more than there is": (MAPPING_SIZE, ENOSPC),
    "overflowing by itself": (LARGEST, EINVAL),
    "overflowing with the rest": (LARGEST - 7, EINVAL),
    "huge": (1 << 63, ENOSPC),
}


@statements("E2", "B1")
@pytest.mark.parametrize(("room", "errno"), ROOMS.values(), ids=ROOMS)
def test_a_room_that_cannot_be(world: World, room: int, errno: int) -> None:
    scene = manager_and_client(world)
    assert refusal(scene, room=room) == errno


@statements("O3", "E2")
def test_a_piece_that_cannot_be_read(world: World) -> None:
    scene = manager_and_client(world)
    piece = scene.client.proc.put(b"readable")
    assert refusal(scene, bc.ptr(piece, 8), bc.ptr(SPARE_ADDRESS, 8)) == EINVAL


@statements("O3", "O4")
def test_what_a_pointer_replaces_need_not_be_readable(world: World) -> None:
    scene = manager_and_client(world)
    proc = scene.client.proc
    edge, child = proc.heap_end - 8, proc.put(b"child at")
    proc.poke(edge, b"readable")
    pointer = bc.ptr(child, 8, parent=0, parent_offset=8)
    assert refusal(scene, bc.ptr(edge, 24), pointer) == EINVAL
    call = send(scene, bc.ptr(edge, 16), pointer)
    assert scene.manager.peek(call.extra, 8) == b"readable"
    assert word_at(scene.manager, call.extra + 8) == call.records[1].buffer == call.extra + 16
    assert scene.manager.peek(call.extra + 16, 8) == b"child at"


# Each builds the objects of a payload in which some fix-up is not allowed, from a piece's address.
FORBIDDEN: dict[str, Callable[[int], list[bytes]]] = {
    "a parent that is itself": lambda p: [bc.ptr(p, 32), bc.ptr(p, 32, parent=1)],
    "the first as its own parent": lambda p: [bc.ptr(p, 32, parent=0)],
    "a parent that comes later": lambda p: [bc.ptr(p, 32), bc.ptr(p, 32, parent=2), bc.ptr(p, 32)],
    "a parent behind the last": lambda p: [bc.ptr(p, 32), bc.ptr(p, 32, parent=7)],
    "a parent far behind": lambda p: [bc.ptr(p, 32), bc.ptr(p, 32, parent=1 << 61)],
    "the largest parent": lambda p: [bc.ptr(p, 32), bc.ptr(p, 32, parent=LARGEST)],
    "a parent that is no pointer": lambda p: [bc.binder(0x1000), bc.ptr(p, 32, parent=0)],
    "a parent that is no pointer, after one": lambda p: [
        bc.ptr(p, 32),
        bc.binder(0x1000),
        bc.ptr(p, 32, parent=1),
    ],
    "the same offset twice": lambda p: [
        bc.ptr(p, 32),
        bc.ptr(p, 8, parent=0, parent_offset=8),
        bc.ptr(p, 8, parent=0, parent_offset=8),
    ],
    "offsets going back": lambda p: [
        bc.ptr(p, 32),
        bc.ptr(p, 8, parent=0, parent_offset=16),
        bc.ptr(p, 8, parent=0, parent_offset=0),
    ],
    "overlapping pointers": lambda p: [
        bc.ptr(p, 32),
        bc.ptr(p, 8, parent=0, parent_offset=0),
        bc.ptr(p, 8, parent=0, parent_offset=4),
    ],
    "a sibling's child": lambda p: [
        bc.ptr(p, 32),
        bc.ptr(p, 8, parent=0, parent_offset=0),
        bc.ptr(p, 8, parent=0, parent_offset=8),
        bc.ptr(p, 8, parent=1, parent_offset=0),
    ],
    "a tree that was left": lambda p: [
        bc.ptr(p, 32),
        bc.ptr(p, 32),
        bc.ptr(p, 8, parent=0),
    ],
    "offsets going back after a grandchild": lambda p: [
        bc.ptr(p, 32),
        bc.ptr(p, 32, parent=0, parent_offset=16),
        bc.ptr(p, 8, parent=1, parent_offset=0),
        bc.ptr(p, 8, parent=0, parent_offset=8),
    ],
    "a pointer that sticks out": lambda p: [
        bc.ptr(p, 32),
        bc.ptr(p, 8, parent=0, parent_offset=28),
    ],
    "a pointer behind the end": lambda p: [
        bc.ptr(p, 32),
        bc.ptr(p, 8, parent=0, parent_offset=32),
    ],
    "a pointer far away": lambda p: [
        bc.ptr(p, 32),
        bc.ptr(p, 8, parent=0, parent_offset=LARGEST - 3),
    ],
    "a parent too small for a pointer": lambda p: [bc.ptr(p, 7), bc.ptr(p, 8, parent=0)],
    "an empty parent": lambda p: [bc.ptr(p, 0), bc.ptr(p, 8, parent=0)],
    "a pointer at no multiple of 4": lambda p: [
        bc.ptr(p, 32),
        bc.ptr(p, 8, parent=0, parent_offset=2),
    ],
}


@statements("O4", "E2", "B9")
@pytest.mark.parametrize("build", FORBIDDEN.values(), ids=FORBIDDEN)
def test_pointers_that_are_not_in_order(world: World, build: Callable[[int], list[bytes]]) -> None:
    scene = manager_and_client(world)
    piece = scene.client.proc.put(SENT * 4)
    assert refusal(scene, *build(piece)) == EINVAL


@statements("O4")
def test_pointers_at_multiples_of_4_are_enough(world: World) -> None:
    scene = manager_and_client(world)
    piece = scene.client.proc.put(SENT * 4)
    children = [bc.ptr(piece, 8, parent=0, parent_offset=at) for at in (4, 12, 24)]
    records = send(scene, bc.ptr(piece, 32), *children).records
    for child in records[1:]:
        where = records[0].buffer + child.parent_offset
        assert word_at(scene.manager, where) == child.buffer


@statements("O5")
def test_nothing_can_point_into_a_piece_at_offset_0(world: World) -> None:
    scene = manager_and_client(world)
    piece = scene.client.proc.put(SENT * 4)
    child = bc.ptr(piece, 8, parent=0)
    assert refusal(scene, bc.ptr(piece, 32), child, lead=b"") == EINVAL
    assert refusal(scene, bc.ptr(piece, 32), bc.ptr(piece, 32), child, lead=b"") == EINVAL
    call = send(scene, bc.ptr(piece, 32), bc.ptr(piece, 32), bc.ptr(piece, 8, parent=1), lead=b"")
    assert word_at(scene.manager, call.records[1].buffer) == call.records[2].buffer


@statements("O4", "B9")
def test_what_came_before_a_bad_pointer_is_undone(world: World) -> None:
    scene = manager_and_client(world)
    piece = scene.client.proc.put(SENT)
    bad = bc.ptr(piece, 8, parent=9)
    objects = [bc.binder(0x1000), bc.ptr(piece, 8), bc.weak_binder(0x2000), bad]
    assert refusal(scene, *objects) == EINVAL
    assert scene.client.poll() == 0
    call = send(scene, bc.binder(0x3000), bc.ptr(piece, 8))
    assert [call.records[0].binder, call.records[1].length] == [1, 8]
