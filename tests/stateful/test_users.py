# SPDX-License-Identifier: Apache-2.0
"""What one user can have, and that nobody can use up what is another's (``engine/user.py``)."""

from __future__ import annotations

import struct
from errno import EAGAIN, ENOMEM
from typing import TYPE_CHECKING

import pytest

from binderd.engine.errors import KernelErrno
from binderd.engine.kinds import KINDS
from binderd.engine.limits import Bound, Limits
from binderwire.binder_abi import (
    BINDER_VERSION,
    BR_DEAD_REPLY,
    BR_ERROR,
    BR_FAILED_REPLY,
    BR_NOOP,
    BR_TRANSACTION,
    BR_TRANSACTION_COMPLETE,
)
from support import bc
from support.engine_world import EngineWorld
from support.playbook import MAPPING_SIZE
from support.scenes import LONG, get_call, manager_and_client, round_trip, take
from support.transcript import assert_br

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.playbook import Thread
    from support.scenes import Scene

MALLORY, ALICE = 1001, 1002


class Play:
    """An engine with a limit, a manager of root's, and how it ends."""

    def __init__(self, **limits: Bound | int) -> None:
        self.world = EngineWorld(Limits().replaced(limits))
        self.scene: Scene = manager_and_client(self.world)
        self._last_number = 0

    def next_number(self) -> int:
        self._last_number += 1
        return self._last_number

    def user(self, uid: int) -> Thread:
        return self.world.open(uid=uid).seasoned()

    def end(self) -> None:
        self.world.close()
        self.world.assert_empty()
        assert not any(self.world.engine._hub.users.total(kind).count for kind in KINDS)


@pytest.fixture
def plays() -> Iterator[list[Play]]:
    plays: list[Play] = []
    yield plays
    for play in plays:
        play.end()


def is_refused(sender: Thread, outcome_of: bytes) -> bool:
    outcome = sender.write_read(outcome_of)
    if outcome.items[-1].word == BR_FAILED_REPLY:
        assert sender.extended_error()[2] == -ENOMEM
        return True
    return False


def test_open_files(plays: list[Play]) -> None:
    play = Play(open_files=Bound(total=8, user=2, ordinary=7))
    plays.append(play)
    own = [play.world.open(uid=MALLORY) for _ in range(2)]
    for _ in range(2):
        with pytest.raises(KernelErrno) as refusal:
            play.world.open(uid=MALLORY)
        assert refusal.value.errno == ENOMEM
    play.user(ALICE)
    own[0].close()
    play.world.open(uid=MALLORY)
    # Three users: what ordinary users may have is used up, and root has something left.
    play.user(ALICE)
    play.user(1003)
    with pytest.raises(KernelErrno):
        play.world.open(uid=1004)
    play.user(0)
    with pytest.raises(KernelErrno):
        play.world.open(uid=0)
    round_trip(play.scene)


def test_threads(plays: list[Play]) -> None:
    play = Play(threads=Bound(total=100, user=3, ordinary=90))
    plays.append(play)
    procs = [play.world.open(uid=MALLORY) for _ in range(2)]
    threads = [proc.seasoned() for proc in (*procs, procs[0])]
    for proc in procs:
        assert proc.thread().ioctl(BINDER_VERSION, bytes(4))[0] == ENOMEM
    play.user(ALICE)
    threads[0].end()
    assert procs[1].thread().ioctl(BINDER_VERSION, bytes(4))[0] == 0
    # A file that somebody else has in hand is charged to who opened it.
    assert procs[1].fork(uid=ALICE).thread().ioctl(BINDER_VERSION, bytes(4))[0] == ENOMEM


def test_nodes_and_refs(plays: list[Play]) -> None:
    bound = Bound(total=1000, user=5, ordinary=900)
    play = Play(nodes=bound, refs=bound, nodes_granted=2, refs_granted=2)
    plays.append(play)
    first, second = play.user(MALLORY), play.user(MALLORY)
    for ptr in range(1, 6):
        first.write(bc.oneway(0, bc.payload(bc.binder(ptr, 0))))
        assert first.read().items[-1].word == BR_TRANSACTION_COMPLETE
    assert is_refused(first, bc.oneway(0, bc.payload(bc.binder(6, 0))))
    for ptr in (1, 2):  # what a process has in any case
        assert not is_refused(second, bc.oneway(0, bc.payload(bc.binder(ptr, 0))))
    assert is_refused(second, bc.oneway(0, bc.payload(bc.binder(3, 0))))
    alice = play.user(ALICE)
    assert not is_refused(alice, bc.oneway(0, bc.payload(bc.binder(1, 0))))
    # Its nodes are charged to nobody once the owner has gone, although somebody refers to them.
    first.proc.kill()
    for ptr in range(3, 6):
        assert not is_refused(second, bc.oneway(0, bc.payload(bc.binder(ptr, 0))))


def test_buffers_and_areas(plays: list[Play]) -> None:
    play = Play(
        buffers=Bound(total=1000, user=4, ordinary=900),
        buffers_granted=2,
        areas=Bound(total=1 << 30, user=3 * MAPPING_SIZE, ordinary=1 << 30),
    )
    plays.append(play)
    # Calls of root's, which Mallory's processes do not answer.
    held = [take_from(play, uid=MALLORY, count=count) for count in (4, 2, 2)]
    assert [got for got, _ in held] == [4, 2, 2], "each has two in any case"
    got, why = take_from(play, uid=MALLORY, count=1)
    assert (got, why) == (0, -ENOMEM), "a fourth area"
    assert take_from(play, uid=ALICE, count=4)[0] == 4


def take_from(play: Play, *, uid: int, count: int) -> tuple[int, int]:
    """Have a new process of ``uid`` be called, at most ``count`` times and then once more."""
    owner = play.user(uid)
    server = play.scene.server
    owner.write(bc.oneway(0, bc.payload(bc.binder(0x1000, 0))))
    call = get_call(server)
    number = call.objects[0][1]
    server.write(bc.acquire(number), bc.free(call.buffer))
    for sent in range(count + 1):
        outcome = server.write_read(bc.oneway(number))
        if outcome.items[-1].word == BR_FAILED_REPLY:
            return sent, server.extended_error()[2]
    return count, 0


def test_what_is_not_read(plays: list[Play]) -> None:
    play = Play(notices=Bound(total=1000, user=3, ordinary=900))
    plays.append(play)
    mallory = play.user(MALLORY)
    for _ in range(3):
        mallory.write(bc.oneway(0))
    assert mallory.write_read(bc.oneway(0)).items[-1].word == BR_FAILED_REPLY
    assert mallory.extended_error()[2] == -ENOMEM
    assert not is_refused(play.user(ALICE), bc.oneway(0))
    assert not is_refused(mallory, bc.oneway(0)), "it has read now"


def test_death_notices_that_are_not_read(plays: list[Play]) -> None:
    play = Play(notices=Bound(total=1000, user=8, ordinary=900))
    plays.append(play)
    server, _ = play.scene
    mallory = play.user(MALLORY)
    number = take(play.scene._replace(client=mallory), 0x2000)
    for _ in range(8):
        mallory.write(bc.request_death(number, 7), bc.clear_death(number, 7))
    mallory.write(bc.request_death(number, 7))
    stream = mallory.read().stream
    assert BR_ERROR.to_bytes(4, "little") in stream, "as in the driver there is no number with it"
    assert_br(play.user(0).write_read(bc.oneway(0)), BR_NOOP, BR_TRANSACTION_COMPLETE)
    assert server.proc.pid


def test_objects_in_buffers(plays: list[Play]) -> None:
    """Each object costs us more than its bytes cost the receiver."""
    play = Play(objects=Bound(total=1000, user=5, ordinary=900), objects_granted=2)
    plays.append(play)
    server = play.scene.server
    first, second = play.user(MALLORY), play.user(MALLORY)
    numbers = [give_to_server(play, owner) for owner in (first, second)]

    def offer(number: int, count: int) -> bool:
        items = [bc.binder(0x5000 + 8 * place, 0) for place in range(count)]
        return not is_refused(server, bc.oneway(number, bc.payload(*items)))

    assert offer(numbers[0], 5)
    assert not offer(numbers[0], 1)
    assert offer(numbers[1], 2), "what a process has in any case"
    assert not offer(numbers[1], 1)
    items = [item for _ in range(2) for item in first.read(4096).items]
    first.write(*[bc.free(item.buffer) for item in items if item.word == BR_TRANSACTION])
    assert offer(numbers[1], 1)


def test_descriptors_of_arrays_are_objects(plays: list[Play]) -> None:
    """Their numbers are kept until the buffer is freed, which then closes them (O9)."""
    play = Play(objects=Bound(total=1000, user=5, ordinary=900), objects_granted=0)
    plays.append(play)
    mallory = play.user(MALLORY)
    sender = play.user(ALICE)
    number = handle_of(play, sender, mallory)
    one = sender.proc.new_file()
    for count, refused in ((4, True), (3, False), (1, True)):  # with the two that describe them
        piece = bc.ptr(sender.proc.put(struct.pack(f"={count}i", *[one] * count)), 4 * count)
        array = bc.fd_array(count, parent=0)
        parts = bc.payload(bytes(8), piece, array, at=(8, 8 + len(piece)))  # O5
        outcome = is_refused(sender, bc.oneway_sg(number, parts, buffers_size=16))
        assert outcome is refused, count


def give_to_server(play: Play, owner: Thread) -> int:
    """Have the manager take a handle of a node of ``owner``'s; return it."""
    owner.write(bc.oneway(0, bc.payload(bc.binder(0x1000, 0))))
    call = get_call(play.scene.server)
    number: int = call.objects[0][1]
    play.scene.server.write(bc.acquire(number), bc.free(call.buffer))
    return number


def test_freezes_that_wait(plays: list[Play]) -> None:
    play = Play(freezes=Bound(total=10, user=2, ordinary=9))
    plays.append(play)
    server, client = play.scene
    assert client.start(bc.call(0)).parked
    waits = [play.user(MALLORY).start_freeze(server.proc.pid, timeout_ms=LONG) for _ in range(2)]
    assert play.user(MALLORY).freeze(server.proc.pid, timeout_ms=LONG) == ENOMEM
    waits.append(play.user(ALICE).start_freeze(server.proc.pid, timeout_ms=LONG))
    assert all(wait.parked for wait in waits)
    assert all(wait.wait()[0] == EAGAIN for wait in waits)
    assert play.user(MALLORY).freeze(server.proc.pid, timeout_ms=LONG) == EAGAIN, "and not ENOMEM"


def test_calls_in_calls(plays: list[Play]) -> None:
    play = Play(calls=Bound(total=1000, user=2, ordinary=900))
    plays.append(play)
    for _ in range(2):
        assert play.user(MALLORY).start(bc.call(0)).parked
    assert is_refused(play.user(MALLORY), bc.call(0))
    assert play.user(ALICE).start(bc.call(0)).parked


def test_files_between_users(plays: list[Play]) -> None:
    """Who does not read what it is sent uses up its own share, and a quarter of the sender's."""
    play = Play(files=Bound(total=160, user=16, ordinary=140))
    plays.append(play)
    reader, other, sender = play.user(MALLORY), play.user(ALICE), play.user(1003)
    numbers = {}
    for uid, owner in ((MALLORY, reader), (ALICE, other)):
        numbers[uid] = handle_of(play, sender, owner)
    one = sender.proc.new_file()
    passing = {uid: bc.oneway(number, bc.payload(bc.fd(one))) for uid, number in numbers.items()}
    for _ in range(4):
        assert not is_refused(sender, passing[MALLORY])
    assert is_refused(sender, passing[MALLORY])
    for _ in range(4):
        assert not is_refused(sender, passing[ALICE])
    reader.proc.kill()
    third = handle_of(play, sender, play.user(MALLORY))
    assert not is_refused(sender, bc.oneway(third, bc.payload(bc.fd(one))))
    sender.proc.kill()  # on their way still: the sender is charged


def handle_of(play: Play, sender: Thread, owner: Thread) -> int:
    """Give ``sender`` a handle of a node of ``owner``'s that takes files."""
    owner.write(bc.oneway(0, bc.payload(bc.binder(0x1000, 0, 0x100))))
    server = play.scene.server
    call = get_call(server)
    number = call.objects[0][1]
    server.write(bc.acquire(number), bc.free(call.buffer))
    started = sender.start(bc.call(0))
    asked = get_call(server)
    server.write_read(bc.free(asked.buffer), bc.reply(bc.payload(bc.handle(number))))
    got = started.result().items[-1]
    theirs: int = got.objects[0][1]
    sender.write(bc.acquire(theirs), bc.free(got.buffer))
    return theirs


# Could not ask


def test_who_cannot_be_asked_about_is_not_gone(plays: list[Play]) -> None:
    play = Play()
    plays.append(play)
    server, client = play.scene
    arena = server.proc.file.arena
    for has_area in (False, True):
        arena.answers = False
        assert_br(client.write_read(bc.call(0)), BR_NOOP, BR_FAILED_REPLY)
        assert client.extended_error()[2] == -ENOMEM
        arena.answers = True
        round_trip(play.scene)
        assert has_area == (arena.times_asked > 2)


def test_the_area_is_asked_for_only_where_nobody_keeps_it(plays: list[Play]) -> None:
    play = Play()
    plays.append(play)
    server, client = play.scene
    round_trip(play.scene)
    asked = server.proc.file.arena.times_asked, client.proc.file.arena.times_asked
    for _ in range(3):
        reading = server.start()
        calling = client.start(bc.call(0))
        call = assert_br(reading.result(), BR_NOOP, BR_TRANSACTION)[0]
        assert_br(
            server.write_read(bc.free(call.buffer), bc.reply()), BR_NOOP, BR_TRANSACTION_COMPLETE
        )
        client.write(bc.free(calling.result().items[-1].buffer))
    assert asked == (server.proc.file.arena.times_asked, client.proc.file.arena.times_asked)


def test_a_program_that_turns_out_to_be_new(plays: list[Play]) -> None:
    """It reads with the buffer that the old one had, which only shows when it gets something."""
    play = Play()
    plays.append(play)
    server, client = play.scene
    round_trip(play.scene)
    reading = server.start()
    fake, arena = server._fake, server.proc.file.arena
    write = fake.write

    def late(address: int, data: bytes | bytearray) -> bool:
        arena.alive = False  # seen by nobody before
        return write(address, data)

    fake.write = late
    outcome = client.write_read(bc.call(0))
    assert_br(outcome, BR_NOOP, BR_TRANSACTION_COMPLETE, BR_DEAD_REPLY)
    assert_br(reading.result(), BR_NOOP)
    fake.write = write
    assert_br(client.write_read(bc.call(0)), BR_NOOP, BR_DEAD_REPLY)


# What it all costs


@pytest.mark.parametrize("descriptors", [256, 1024, 4096, 65536, 524288])
@pytest.mark.parametrize("memory", [256 << 20, 2 << 30, 64 << 30])
def test_limits_leave_a_machine_enough(descriptors: int, memory: int) -> None:
    limits = Limits.for_machine(descriptors, memory)
    everybody, one = limits.cost_of_all(), limits.cost_of_user()
    assert everybody.descriptors < descriptors
    assert everybody.memory < memory
    assert one.descriptors <= everybody.descriptors // 4 + 8
    for kind in KINDS:
        bound = limits.of(kind)
        assert 1 <= bound.user <= bound.ordinary <= bound.total
