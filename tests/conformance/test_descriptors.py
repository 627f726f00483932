# SPDX-License-Identifier: Apache-2.0
"""Descriptors in payloads: who may send which; what cannot be sent or installed (O6-O8).

What arrives, and what is closed again, is in ``test_files.py``.
"""

from __future__ import annotations

from errno import EBADF, EINVAL, EPERM
from typing import TYPE_CHECKING

import pytest

from binderwire.binder_abi import (
    BINDER_SET_CONTEXT_MGR_EXT,
    BINDER_TYPE_BINDER,
    BR_ACQUIRE,
    BR_DECREFS,
    BR_FAILED_REPLY,
    BR_INCREFS,
    BR_NOOP,
    BR_RELEASE,
    BR_REPLY,
    BR_TRANSACTION,
    BR_TRANSACTION_COMPLETE,
    FLAT_BINDER_FLAG_ACCEPTS_FDS,
    TF_ACCEPT_FDS,
    flat_binder_object,
)
from support import bc
from support.playbook import MAPPING_SIZE, SPARE_ADDRESS, statements
from support.scenes import Scene, answer, get_call, get_reply, manager_and_client, take
from support.transcript import assert_br

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.playbook import World

LEAD = b"leading!"  # an object at offset 0 of the data is special (O5)
LARGEST = (1 << 64) - 1
NO_FD = 987654


def welcoming(world: World) -> Scene:
    """A manager whose node takes descriptors, and a client."""
    manager = world.open()
    node = flat_binder_object.build(type=BINDER_TYPE_BINDER, flags=FLAT_BINDER_FLAG_ACCEPTS_FDS)
    assert manager.seasoned().ioctl(BINDER_SET_CONTEXT_MGR_EXT, node)[0] == 0
    return Scene(manager.looper(), world.open().seasoned())


def numbers(*fds: int) -> bytes:
    return b"".join(fd.to_bytes(4, "little") for fd in fds)


def refusal(scene: Scene, *objects: bytes, room: int = 64) -> int:
    """Let the client try a call that fails while it is sent; return why."""
    command = bc.call_sg(0, bc.payload(LEAD, *objects), buffers_size=room)
    assert_br(scene.client.write_read(command), BR_NOOP, BR_FAILED_REPLY)
    _, word, param = scene.client.extended_error()
    assert word == BR_FAILED_REPLY
    assert scene.server.poll() == 0
    return -param


@statements("O7", "E2")
def test_only_a_node_that_says_so_takes_descriptors(world: World) -> None:
    scene = manager_and_client(world)
    fd = scene.client.proc.new_file()
    assert refusal(scene, bc.fd(fd)) == EPERM
    piece = scene.client.proc.put(numbers(fd))
    assert refusal(scene, bc.ptr(piece, 4), bc.fd_array(1, parent=0)) == EPERM
    assert refusal(scene, bc.fd(NO_FD)) == EPERM


@statements("O7", "N7", "E2")
def test_what_a_node_takes_is_settled_when_it_is_first_sent(world: World) -> None:
    scene = manager_and_client(world)
    shy = take(scene, 0x1000)
    fd = scene.client.proc.new_file()
    started = scene.client.start(bc.call(0))
    again = bc.payload(bc.binder(0x1000, flags=FLAT_BINDER_FLAG_ACCEPTS_FDS))
    answer(scene.server, get_call(scene.server), again)
    get_reply(started)
    command = bc.call(shy, bc.payload(bc.fd(fd)))
    assert_br(scene.client.write_read(command), BR_NOOP, BR_FAILED_REPLY)
    assert scene.client.extended_error()[2] == -EPERM


@statements("O7", "E2")
def test_a_reply_has_descriptors_only_if_the_caller_takes_them(world: World) -> None:
    scene = manager_and_client(world)
    fd = scene.manager.new_file()
    started = scene.client.start(bc.call(0, flags=0))
    get_call(scene.server)
    assert_br(
        scene.server.write_read(bc.reply(bc.payload(bc.fd(fd)), flags=TF_ACCEPT_FDS)),
        BR_NOOP,
        BR_TRANSACTION_COMPLETE,
    )
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_FAILED_REPLY)
    assert scene.client.extended_error()[1:] == (BR_FAILED_REPLY, -EPERM)


BAD_FDS = {"closed": NO_FD, "negative": 0xFFFF_FFFF, "largest": 0x7FFF_FFFF}


@statements("O7", "E2", "B9")
@pytest.mark.parametrize("fd", BAD_FDS.values(), ids=BAD_FDS)
def test_a_descriptor_that_is_not_open(world: World, fd: int) -> None:
    scene = welcoming(world)
    good = scene.client.proc.new_file()
    assert refusal(scene, bc.fd(good), bc.fd(fd)) == EBADF
    piece = scene.client.proc.put(numbers(good, fd))
    assert refusal(scene, bc.ptr(piece, 8), bc.fd_array(2, parent=0)) == EBADF
    scene.client.write(bc.oneway(0, b"later"))
    get_call(scene.server, data=b"later", buffer=scene.manager.mapping[0])


@statements("O7", "E2")
def test_a_descriptor_that_is_only_a_path(world: World) -> None:
    scene = welcoming(world)
    assert refusal(scene, bc.fd(scene.client.proc.new_file("path"))) == EBADF


@statements("O7", "E2")
def test_a_descriptor_that_was_closed(world: World) -> None:
    scene = welcoming(world)
    fd = scene.client.proc.new_file()
    scene.client.proc.close_file(fd)
    assert refusal(scene, bc.fd(fd)) == EBADF


@statements("O6", "BC_TRANSACTION_SG")
def test_an_empty_array_needs_no_permission_and_brings_nothing(world: World) -> None:
    scene = manager_and_client(world)
    piece = scene.client.proc.put(b"no numbers here!")
    objects = [bc.ptr(piece, 16), bc.fd_array(0, parent=0, parent_offset=8)]
    scene.client.write(bc.call_sg(0, bc.payload(LEAD, *objects), buffers_size=16))
    call = get_call(scene.server)
    assert scene.manager.peek(call.records[0].buffer, 16) == b"no numbers here!"
    assert (call.records[1].num_fds, call.records[1].parent_offset) == (0, 8)
    started = scene.server.start(bc.free(call.buffer))
    assert started.parked


# Each builds the objects of a payload with an array of descriptors that cannot be, from the address
# of a piece of 16 bytes that begins with two good numbers.
BAD_ARRAYS: dict[str, Callable[[int], list[bytes]]] = {
    "no parent": lambda p: [bc.fd_array(1, parent=0)],
    "a parent that comes later": lambda p: [bc.fd_array(1, parent=1), bc.ptr(p, 16)],
    "a parent that is no pointer": lambda p: [
        bc.ptr(p, 16),
        bc.binder(0x1000),
        bc.fd_array(1, parent=1),
    ],
    "a parent far behind": lambda p: [bc.ptr(p, 16), bc.fd_array(1, parent=LARGEST)],
    "more numbers than room": lambda p: [bc.ptr(p, 7), bc.fd_array(2, parent=0)],
    "numbers that stick out": lambda p: [bc.ptr(p, 8), bc.fd_array(2, parent=0, parent_offset=4)],
    "numbers behind the end": lambda p: [bc.ptr(p, 8), bc.fd_array(1, parent=0, parent_offset=8)],
    "numbers far away": lambda p: [bc.ptr(p, 8), bc.fd_array(1, parent=0, parent_offset=1 << 63)],
    "numbers that wrap around": lambda p: [
        bc.ptr(p, 8),
        bc.fd_array(1, parent=0, parent_offset=LARGEST - 3),
    ],
    "as many as overflow": lambda p: [bc.ptr(p, 8), bc.fd_array(1 << 62, parent=0)],
    "nearly as many": lambda p: [bc.ptr(p, 8), bc.fd_array((1 << 62) - 1, parent=0)],
    "the largest number": lambda p: [bc.ptr(p, 8), bc.fd_array(LARGEST, parent=0)],
    "a parent that is empty": lambda p: [bc.ptr(p, 0), bc.fd_array(1, parent=0)],
    "at no multiple of 4": lambda p: [bc.ptr(p, 16), bc.fd_array(1, parent=0, parent_offset=2)],
    "at no multiple of 4 in the sender": lambda p: [bc.ptr(p + 2, 8), bc.fd_array(1, parent=0)],
    "numbers twice": lambda p: [
        bc.ptr(p, 16),
        bc.fd_array(2, parent=0),
        bc.fd_array(1, parent=0, parent_offset=4),
    ],
    "numbers that go back": lambda p: [
        bc.ptr(p, 16),
        bc.fd_array(1, parent=0, parent_offset=4),
        bc.fd_array(1, parent=0, parent_offset=0),
    ],
    "a pointer over numbers": lambda p: [
        bc.ptr(p, 16),
        bc.fd_array(2, parent=0),
        bc.ptr(p, 8, parent=0, parent_offset=4),
    ],
    "numbers over a pointer": lambda p: [
        bc.ptr(p, 16),
        bc.ptr(p, 8, parent=0, parent_offset=0),
        bc.fd_array(1, parent=0, parent_offset=4),
    ],
    "an empty array that goes back": lambda p: [
        bc.ptr(p, 16),
        bc.fd_array(1, parent=0, parent_offset=4),
        bc.fd_array(0, parent=0, parent_offset=0),
    ],
}


@statements("O6", "O4", "E2", "B9")
@pytest.mark.parametrize("build", BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_arrays_that_cannot_be(world: World, build: Callable[[int], list[bytes]]) -> None:
    scene = welcoming(world)
    fd = scene.client.proc.new_file()
    piece = scene.client.proc.put(numbers(fd, fd) + bytes(8))
    assert refusal(scene, *build(piece)) == EINVAL
    started = scene.client.start(bc.call(0, bytes(MAPPING_SIZE)))
    answer(scene.server, get_call(scene.server))
    get_reply(started)


@statements("O5", "O6")
def test_an_array_in_a_piece_at_offset_0(world: World) -> None:
    scene = welcoming(world)
    piece = scene.client.proc.put(numbers(scene.client.proc.new_file()))
    content = bc.payload(bc.ptr(piece, 4), bc.fd_array(1, parent=0))
    outcome = scene.client.write_read(bc.call_sg(0, content, buffers_size=8))
    assert_br(outcome, BR_NOOP, BR_FAILED_REPLY)
    assert scene.client.extended_error()[2] == -EINVAL


@statements("O6", "E2")
def test_an_array_whose_numbers_cannot_be_read(world: World) -> None:
    scene = welcoming(world)
    objects = [bc.ptr(SPARE_ADDRESS, 8), bc.fd_array(1, parent=0)]
    assert refusal(scene, *objects) == EINVAL


@statements("O8")
def test_a_call_whose_descriptors_cannot_be_installed_fails_for_its_sender(world: World) -> None:
    scene = welcoming(world)
    fd = scene.client.proc.new_file()
    scene.manager.run_out_of_files()
    sleeping = scene.server.start()
    started = scene.client.start(bc.call(0, bc.payload(bc.fd(fd))))
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_FAILED_REPLY)
    assert sleeping.parked
    scene.client.write(bc.call(0, b"without"))
    call = assert_br(sleeping.result(), BR_NOOP, (BR_TRANSACTION, {"data": b"without"}))[0]
    assert call.buffer == scene.manager.mapping[0]
    answer(scene.server, call)
    assert_br(scene.client.read(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_REPLY)


@statements("O8", "Q7")
def test_a_oneway_whose_descriptors_cannot_be_installed_is_dropped(world: World) -> None:
    scene = welcoming(world)
    piece = scene.client.proc.put(numbers(*(scene.client.proc.new_file() for _ in range(4))))
    objects = bc.payload(LEAD, bc.ptr(piece, 16), bc.fd_array(4, parent=0))
    scene.manager.run_out_of_files()
    outcome = scene.client.write_read(bc.oneway_sg(0, objects, buffers_size=16), bc.oneway(0, b"x"))
    assert_br(outcome, BR_NOOP, BR_TRANSACTION_COMPLETE, BR_TRANSACTION_COMPLETE)
    get_call(scene.server, data=b"x")


@statements("O8")
def test_a_reply_whose_descriptors_cannot_be_installed_fails_for_its_reader(world: World) -> None:
    scene = manager_and_client(world)
    fd = scene.manager.new_file()
    scene.client.proc.run_out_of_files()
    started = scene.client.start(bc.call(0, flags=TF_ACCEPT_FDS))
    scene.server.write(bc.free(get_call(scene.server).buffer))
    outcome = scene.server.write_read(bc.reply(bc.payload(bc.binder(0x1000), bc.fd(fd))))
    assert_br(outcome, BR_NOOP, BR_INCREFS, BR_ACQUIRE, BR_TRANSACTION_COMPLETE)
    scene.server.write(bc.increfs_done(0x1000), bc.acquire_done(0x1000))
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_FAILED_REPLY)
    assert_br(scene.server.read(), BR_NOOP, BR_RELEASE, BR_DECREFS)
    started = scene.client.start(bc.call(0, b"next"))
    answer(scene.server, get_call(scene.server, data=b"next"))
    get_reply(started, buffer=scene.client.proc.mapping[0])


@statements("O9", "B9")
def test_descriptors_that_nobody_reads_are_let_go(world: World) -> None:
    scene = welcoming(world)
    fd = scene.client.proc.new_file()
    scene.client.write(bc.oneway(0, bc.payload(bc.fd(fd), bc.fd(fd))))
    scene.client.write(bc.oneway(0, bc.payload(bc.fd(fd))))
    scene.client.write(bc.call(0, bc.payload(bc.fd(fd))))
    scene.client.proc.close_file(fd)
    scene.manager.kill()
    assert BR_FAILED_REPLY not in {item.word for item in scene.client.read().items}


@statements("O10", "I1")
def test_a_file_in_other_hands_stays_its_opener_s(world: World) -> None:
    scene = manager_and_client(world)
    opener = scene.client.proc
    child = opener.fork()
    stranger = child.seasoned()
    started = stranger.start(bc.call(0, b"from a child", code=3))
    call = get_call(scene.server, data=b"from a child", sender_pid=opener.pid)
    answer(scene.server, call, b"reply")
    reply = get_reply(started, data_size=5)
    assert opener.peek(reply.buffer, 5) == b"reply"
    stranger.write(bc.free(reply.buffer))
