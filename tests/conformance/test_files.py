# SPDX-License-Identifier: Apache-2.0
"""Files that arrive: their numbers, what they are, when they are closed again (O7-O10, R7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from binderwire.binder_abi import (
    BINDER_SET_CONTEXT_MGR_EXT,
    BINDER_TYPE_BINDER,
    BR_ACQUIRE,
    BR_FAILED_REPLY,
    BR_INCREFS,
    BR_NOOP,
    BR_REPLY,
    BR_SPAWN_LOOPER,
    BR_TRANSACTION,
    BR_TRANSACTION_COMPLETE,
    FLAT_BINDER_FLAG_ACCEPTS_FDS,
    TF_ACCEPT_FDS,
    flat_binder_object,
)
from conformance.test_descriptors import LEAD, numbers, welcoming
from support import bc
from support.playbook import FileState, statements
from support.scenes import answer, get_call, get_reply, manager_and_client
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.playbook import Proc, World
    from support.scenes import Scene
    from support.transcript import Received

KINDS = ("null", "regular", "pipe", "socket", "memory", "device")


def free_numbers(proc: Proc, count: int) -> list[int]:
    """Return the lowest numbers that the process has free."""
    taken = proc.descriptors()
    return [number for number in range(count + len(taken)) if number not in taken][:count]


def array_of(call: Received, index: int = 1, piece: int = 0) -> list[int]:
    """Return the numbers that the array of a payload has, as the receiver reads them."""
    records = call.records
    count = records[index].num_fds
    at = records[piece].buffer + records[index].parent_offset
    octets = call._proc.peek(at, 4 * count)
    return [int.from_bytes(octets[i : i + 4], "little") for i in range(0, len(octets), 4)]


def send_array(scene: Scene, *fds: int) -> None:
    piece = scene.client.proc.put(numbers(*fds))
    objects = bc.payload(LEAD, bc.ptr(piece, 4 * len(fds)), bc.fd_array(len(fds), parent=0))
    scene.client.write(bc.oneway_sg(0, objects, buffers_size=4 * len(fds) + 7 & ~7))


@statements("O7", "BC_TRANSACTION", "BR_TRANSACTION")
@pytest.mark.parametrize("nonblocking", [False, True], ids=["blocking", "nonblocking"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_arrives(world: World, kind: str, nonblocking: bool) -> None:
    scene = welcoming(world)
    client, manager = scene.client.proc, scene.manager
    if kind == "device" and nonblocking:
        nonblocking = False  # it is the very file that our threads sleep in
    fd = client.new_file(kind, nonblocking=nonblocking)
    expected = free_numbers(manager, 1)
    started = scene.client.start(bc.call(0, bc.payload(bc.fd(fd, cookie=77))))
    call = get_call(scene.server)
    record = call.records[0]
    assert [record.fd] == expected
    assert record.cookie == 77
    assert call.data[12:16] == bytes(4)  # the other half of where a handle would be
    assert manager.file_state(record.fd) == FileState(True, nonblocking)
    assert client.has_same_file(fd, manager, record.fd)
    before = manager.descriptors()
    answer(scene.server, call)
    get_reply(started)
    assert manager.descriptors() == before  # freeing the buffer closes no file of an FD object
    assert client.file_state(fd) is not None


@statements("O7", "R1")
def test_a_sleeping_reader_gets_a_file(world: World) -> None:
    scene = welcoming(world)
    fd = scene.client.proc.new_file()
    sleeping = scene.server.start()
    assert sleeping.parked
    started = scene.client.start(bc.call(0, bc.payload(bc.fd(fd))))
    call = assert_br(sleeping.result(), BR_NOOP, BR_TRANSACTION)[0]
    assert scene.client.proc.has_same_file(fd, scene.manager, call.records[0].fd)
    answer(scene.server, call)
    get_reply(started)


@statements("O7")
def test_the_sender_may_close_it_at_once(world: World) -> None:
    scene = welcoming(world)
    client = scene.client.proc
    kept, fd = client.new_file(), client.new_file()
    scene.client.write(bc.oneway(0, bc.payload(bc.fd(kept), bc.fd(fd))))
    client.close_file(fd)
    call = get_call(scene.server)
    first, second = (record.fd for record in call.records)
    assert client.has_same_file(kept, scene.manager, first)
    assert scene.manager.file_state(second) is not None
    assert not scene.manager.has_same_file(first, scene.manager, second)


@statements("O7")
@pytest.mark.parametrize("count", [2, 3, 50])
def test_several_get_the_lowest_numbers_in_order(world: World, count: int) -> None:
    scene = welcoming(world)
    client, manager = scene.client.proc, scene.manager
    holes = [manager.new_file() for _ in range(count + 3)]
    for fd in holes[1:-1:2]:
        manager.close_file(fd)
    fds = [client.new_file() for _ in range(count)]
    expected = free_numbers(manager, count)
    before = manager.descriptors()
    scene.client.write(bc.oneway(0, bc.payload(*(bc.fd(fd) for fd in fds))))
    call = get_call(scene.server)
    arrived = [record.fd for record in call.records]
    assert arrived == expected
    assert manager.descriptors() == before | set(arrived)
    pairs = zip(fds, arrived, strict=True)
    assert all(client.has_same_file(fd, manager, number) for fd, number in pairs)


@statements("O7")
def test_one_file_twice(world: World) -> None:
    scene = welcoming(world)
    client, manager = scene.client.proc, scene.manager
    fd = client.new_file()
    expected = free_numbers(manager, 2)
    scene.client.write(bc.oneway(0, bc.payload(bc.fd(fd), bc.fd(fd))))
    call = get_call(scene.server)
    assert [record.fd for record in call.records] == expected
    assert manager.has_same_file(expected[0], manager, expected[1])


@statements("O6", "O9", "R7", "BC_FREE_BUFFER")
def test_an_array_is_closed_with_its_buffer(world: World) -> None:
    scene = welcoming(world)
    client, manager = scene.client.proc, scene.manager
    fds = [client.new_file() for _ in range(3)]
    before, expected = manager.descriptors(), free_numbers(manager, 3)
    send_array(scene, *fds)
    call = get_call(scene.server)
    assert array_of(call) == expected
    for fd, number in zip(fds, expected, strict=True):
        assert client.has_same_file(fd, manager, number)
        assert manager.file_state(number) == FileState(True, False)
    assert_br(scene.server.write_read(bc.free(call.buffer)), BR_NOOP)  # R7: does not sleep
    assert manager.descriptors() == before
    assert scene.server.start().parked


@statements("O9", "R7")
def test_a_write_alone_closes_an_array_too(world: World) -> None:
    scene = welcoming(world)
    before = scene.manager.descriptors()
    send_array(scene, scene.client.proc.new_file())
    call = get_call(scene.server)
    scene.server.write(bc.free(call.buffer))
    assert scene.manager.descriptors() == before
    assert scene.server.start().parked  # what must come back is the same ioctl, no later one


@statements("O9", "R7")
def test_the_receiver_may_have_closed_some_itself(world: World) -> None:
    scene = welcoming(world)
    client, manager = scene.client.proc, scene.manager
    before = manager.descriptors()
    send_array(scene, client.new_file(), client.new_file())
    call = get_call(scene.server)
    manager.close_file(array_of(call)[0])
    assert_br(scene.server.write_read(bc.free(call.buffer)), BR_NOOP)
    assert manager.descriptors() == before


@statements("O9", "O6")
def test_files_and_an_array_in_one_payload(world: World) -> None:
    scene = welcoming(world)
    client, manager = scene.client.proc, scene.manager
    fds = [client.new_file() for _ in range(4)]
    expected = free_numbers(manager, 4)
    piece = client.put(numbers(*fds[1:3]))
    objects = [bc.fd(fds[0]), bc.ptr(piece, 8), bc.fd_array(2, parent=1), bc.fd(fds[3])]
    scene.client.write(bc.oneway_sg(0, bc.payload(*objects), buffers_size=8))
    call = get_call(scene.server)
    got = [call.records[0].fd, *array_of(call, 2, 1), call.records[3].fd]
    assert got == expected
    assert all(
        client.has_same_file(fd, manager, number) for fd, number in zip(fds, got, strict=True)
    )
    assert_br(scene.server.write_read(bc.free(call.buffer)), BR_NOOP)
    assert manager.descriptors() & set(got) == {got[0], got[3]}


@statements("O9", "R7")
def test_freeing_one_array_while_the_next_waits(world: World) -> None:
    scene = welcoming(world)
    client, manager = scene.client.proc, scene.manager
    before = manager.descriptors()
    send_array(scene, client.new_file())
    send_array(scene, client.new_file())
    call = get_call(scene.server)
    outcome = scene.server.write_read(bc.free(call.buffer))
    if len(outcome.items) == 1:  # the ioctl had to come back before it could read (R7)
        outcome = scene.server.read()
    call = assert_br(outcome, BR_NOOP, BR_TRANSACTION)[0]
    assert array_of(call) == free_numbers_of(before, 1)
    assert_br(scene.server.write_read(bc.free(call.buffer)), BR_NOOP)
    assert manager.descriptors() == before


def free_numbers_of(taken: set[int], count: int) -> list[int]:
    return [number for number in range(count + len(taken)) if number not in taken][:count]


@statements("O7", "O8", "Q2", "BR_REPLY")
def test_a_reply_brings_a_file(world: World) -> None:
    scene = manager_and_client(world)
    client, manager = scene.client.proc, scene.manager
    fd = manager.new_file()
    expected = free_numbers(client, 1)
    started = scene.client.start(bc.call(0, flags=TF_ACCEPT_FDS))
    answer(scene.server, get_call(scene.server), bc.payload(bc.fd(fd)))
    reply = assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_REPLY)[-1]
    assert [reply.records[0].fd] == expected
    assert manager.has_same_file(fd, client, expected[0])
    before = client.descriptors()
    scene.client.write(bc.free(reply.buffer))
    assert client.descriptors() == before


@statements("O7", "Q3", "R1")
def test_what_was_read_before_the_file_stays(world: World) -> None:
    """The caller reads news of a node, the completion, and then a nested call with a file."""
    scene = welcoming(world)
    client = scene.client.proc
    node = bc.binder(0x1000, 0x2000, flags=0x100)
    started = scene.client.start(bc.call(0, bc.payload(node)))
    call = get_call(scene.server)
    handle = call.objects[0][1]
    fd = scene.manager.new_file()
    nested = scene.server.start(bc.call(handle, bc.payload(bc.fd(fd))))
    assert nested.parked
    items = assert_br(
        started.result(),
        BR_NOOP,
        BR_INCREFS,
        BR_ACQUIRE,
        BR_TRANSACTION_COMPLETE,
        (BR_TRANSACTION, {"target": 0x1000, "cookie": 0x2000}),
    )
    assert scene.manager.has_same_file(fd, client, items[-1].records[0].fd)
    answer(scene.client, items[-1])
    get_reply(nested)
    answer(scene.server, call)
    assert_br(scene.client.read(), BR_NOOP, BR_REPLY)


@statements("O7", "R11", "BR_SPAWN_LOOPER")
def test_a_pool_is_asked_for_a_thread_with_the_file(world: World) -> None:
    scene = welcoming(world)
    scene.manager.set_max_threads(1)
    fd = scene.client.proc.new_file()
    sleeping = scene.server.start()
    scene.client.write(bc.oneway(0, bc.payload(bc.fd(fd))))
    call = assert_br(sleeping.result(), BR_SPAWN_LOOPER, BR_TRANSACTION)[-1]
    assert scene.client.proc.has_same_file(fd, scene.manager, call.records[0].fd)


@statements("O7", "R8")
def test_a_nonblocking_reader_gets_a_file_as_well(world: World) -> None:
    manager = world.open(nonblocking=True)
    node = flat_binder_object.build(type=BINDER_TYPE_BINDER, flags=FLAT_BINDER_FLAG_ACCEPTS_FDS)
    assert manager.seasoned().ioctl(BINDER_SET_CONTEXT_MGR_EXT, node)[0] == 0
    server, client = manager.looper(), world.open().seasoned()
    fd = client.proc.new_file()
    client.write(bc.oneway(0, bc.payload(bc.fd(fd))))
    call = get_call(server)
    assert client.proc.has_same_file(fd, manager, call.records[0].fd)


@statements("O7", "O8", "B9")
def test_all_or_none(world: World) -> None:
    scene = welcoming(world)
    client, manager = scene.client.proc, scene.manager
    fd = client.new_file()
    manager.new_file()
    spare = manager.new_file()
    manager.run_out_of_files()
    manager.close_file(spare)  # now there is room for one
    before = manager.descriptors()
    sleeping = scene.server.start()
    started = scene.client.start(bc.call(0, bc.payload(bc.fd(fd), bc.fd(fd), bc.fd(fd))))
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_FAILED_REPLY)
    assert manager.descriptors() == before
    scene.client.write(bc.oneway(0, b"next"))
    assert_br(sleeping.result(), BR_NOOP, (BR_TRANSACTION, {"data": b"next"}))


@statements("O10")
def test_a_device_file_is_passed_on(world: World) -> None:
    """Who gets the file can call through it; for the driver it is its opener's all the same."""
    scene = welcoming(world)
    client, manager = scene.client.proc, scene.manager
    sleeping = scene.client.start()
    assert sleeping.parked
    sender = client.seasoned()
    fd = client.new_file("device")
    sender.write(bc.oneway(0, bc.payload(bc.fd(fd))))
    call = get_call(scene.server)
    assert client.has_same_file(fd, manager, call.records[0].fd)
    assert sleeping.parked  # nobody has closed anything (I4)


@statements("O10", "O7")
def test_a_file_goes_to_the_process_that_reads(world: World) -> None:
    """A child reads through the file that it inherited; the descriptor is the child's."""
    scene = manager_and_client(world)
    opener = scene.client.proc
    child = opener.fork()
    stranger = child.seasoned()
    fd = scene.manager.new_file()
    before, expected = opener.descriptors(), free_numbers(child, 1)
    started = stranger.start(bc.call(0, flags=TF_ACCEPT_FDS))
    answer(scene.server, get_call(scene.server), bc.payload(bc.fd(fd)))
    reply = get_reply(started)
    number = int.from_bytes(opener.peek(reply.buffer + 8, 4), "little")
    assert [number] == expected
    assert scene.manager.has_same_file(fd, child, number)
    assert opener.descriptors() == before


@statements("O7", "Q10")
def test_commands_that_an_error_holds_up_are_not_taken_once_the_read_has_told_it(
    world: World,
) -> None:
    scene = welcoming(world)
    started = scene.client.start(bc.call(0, flags=TF_ACCEPT_FDS), read=0)
    assert not started.parked
    call = get_call(scene.server)
    scene.client.write(bc.call(99))
    fd = scene.manager.new_file()
    scene.server.write(bc.free(call.buffer), bc.reply(bc.payload(bc.fd(fd))))
    outcome = scene.client.write_read(bc.enter_looper())
    assert_br(outcome, BR_NOOP, BR_TRANSACTION_COMPLETE, BR_FAILED_REPLY, BR_REPLY)
    assert outcome.write_consumed == 0
