# SPDX-License-Identifier: Apache-2.0
"""The thread pool: when the driver asks for another thread (R11, R12)."""

from __future__ import annotations

from errno import EAGAIN, EINTR
from typing import TYPE_CHECKING

from binderwire.binder_abi import (
    BINDER_WRITE_READ,
    BR_NOOP,
    BR_SPAWN_LOOPER,
    BR_TRANSACTION,
    BR_TRANSACTION_COMPLETE,
    RETURNS,
    binder_write_read,
)
from binderwire.commands import message
from support import bc
from support.playbook import statements
from support.scenes import manager_and_client
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.playbook import Proc, Thread, World
    from support.scenes import Scene


def crowd(world: World, max_threads: int) -> Scene:
    """A manager whose driver may ask for ``max_threads`` threads."""
    scene = manager_and_client(world)
    scene.manager.set_max_threads(max_threads)
    return scene


def call_from(proc: Proc) -> None:
    """Queue a call that nobody waits for to be answered."""
    proc.seasoned().write(bc.call(0))


def asked_for_a_thread(looper: Thread, caller: Proc) -> bool:
    """Whether the looper, reading one call, is asked to spawn a thread."""
    call_from(caller)
    outcome = looper.read()
    first = outcome.items[0].word
    assert_br(outcome, first, BR_TRANSACTION)
    assert first in (BR_NOOP, BR_SPAWN_LOOPER)
    return first == BR_SPAWN_LOOPER


@statements("R11")
def test_without_permission_no_thread_is_asked_for(world: World) -> None:
    scene = manager_and_client(world)
    assert not asked_for_a_thread(scene.server, scene.client.proc)


@statements("R11", "BINDER_SET_MAX_THREADS")
def test_one_thread_at_a_time_is_asked_for_up_to_the_limit(world: World) -> None:
    scene = crowd(world, 2)
    caller = scene.client.proc
    assert asked_for_a_thread(scene.server, caller)
    entered = scene.manager.looper()
    assert not asked_for_a_thread(entered, caller)
    second = scene.manager.thread()
    second.write(bc.register_looper())
    assert asked_for_a_thread(second, caller)
    third = scene.manager.thread()
    third.write(bc.register_looper())
    assert not asked_for_a_thread(third, caller)


@statements("R11")
def test_no_thread_is_asked_for_while_another_waits(world: World) -> None:
    scene = crowd(world, 1)
    waiting = scene.manager.looper()
    idle = waiting.start()
    scene.server.write(bc.oneway(99))
    assert scene.server.read().items[0].word == BR_NOOP
    assert idle.parked


@statements("R11", "R13")
def test_only_a_looper_is_asked_for_another(world: World) -> None:
    scene = crowd(world, 1)
    plain = scene.manager.seasoned()
    assert not asked_for_a_thread(plain, scene.client.proc)
    assert asked_for_a_thread(scene.server, scene.client.proc)


@statements("R11")
def test_a_read_that_brings_nothing_asks_as_well(world: World) -> None:
    proc = world.open()
    proc.set_max_threads(1)
    assert_br(proc.thread().write_read(bc.enter_looper()), BR_SPAWN_LOOPER)


@statements("R11", "R1")
def test_the_request_goes_to_the_start_of_a_buffer_that_is_appended_to(world: World) -> None:
    scene = crowd(world, 1)
    call_from(scene.client.proc)
    scene.server.write(bc.oneway(99))
    address = scene.manager.put(b"\xa5" * 256)
    argument = binder_write_read.build(read_size=256, read_consumed=8, read_buffer=address)
    errno, argument = scene.server.ioctl(BINDER_WRITE_READ, argument)
    assert (errno, binder_write_read.read(argument).read_consumed) == (0, 12)
    start = scene.manager.peek(address, 8)
    assert start == message(RETURNS, BR_SPAWN_LOOPER) + b"\xa5" * 4


@statements("R11", "R8")
def test_a_read_that_fails_does_not_ask(world: World) -> None:
    manager_and_client(world)
    proc = world.open(nonblocking=True)
    proc.set_max_threads(1)
    looper = proc.looper()
    assert looper.read().errno == EAGAIN
    assert_br(looper.write_read(bc.oneway(0)), BR_SPAWN_LOOPER, BR_TRANSACTION_COMPLETE)


@statements("R11", "R9")
def test_a_read_that_is_interrupted_does_not_ask(world: World) -> None:
    scene = crowd(world, 1)
    sleeping = scene.server.start()
    scene.server.signal()
    assert sleeping.result().errno == EINTR
    assert asked_for_a_thread(scene.server, scene.client.proc)


@statements("R11", "BINDER_THREAD_EXIT")
def test_a_thread_that_left_still_counts_as_started(world: World) -> None:
    scene = crowd(world, 1)
    assert asked_for_a_thread(scene.server, scene.client.proc)
    spawned = scene.manager.thread()
    spawned.write(bc.register_looper())
    spawned.exit()
    other = scene.manager.looper()
    assert not asked_for_a_thread(other, scene.client.proc)


@statements("R12")
def test_registering_after_entering_is_no_error_and_counts_for_nothing(world: World) -> None:
    scene = crowd(world, 1)
    scene.server.write(bc.register_looper())
    assert asked_for_a_thread(scene.server, scene.client.proc)
    late = scene.manager.looper()
    late.write(bc.register_looper())
    other = scene.manager.looper()
    assert not asked_for_a_thread(other, scene.client.proc)


@statements("R12")
def test_registering_unasked_makes_a_looper_but_counts_for_nothing(world: World) -> None:
    scene = crowd(world, 1)
    unasked = scene.manager.thread()
    unasked.write(bc.register_looper())
    assert asked_for_a_thread(unasked, scene.client.proc)


@statements("R12", "BC_REGISTER_LOOPER", "BC_ENTER_LOOPER", "BC_EXIT_LOOPER", "BR_SPAWN_LOOPER")
def test_entering_after_registering_is_no_error(world: World) -> None:
    scene = crowd(world, 2)
    assert asked_for_a_thread(scene.server, scene.client.proc)
    spawned = scene.manager.thread()
    spawned.write(bc.register_looper(), bc.enter_looper(), bc.exit_looper())
    assert asked_for_a_thread(spawned, scene.client.proc)
