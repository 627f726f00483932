# SPDX-License-Identifier: Apache-2.0
"""The client's protocol core: transcripts of bytes in and commands out, without any device.

``<<`` in the comments is what the driver returned, ``>>`` what the client writes.
"""

from __future__ import annotations

import contextlib
import gc
import struct
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binderclient.connection import (
    Connection,
    Delivery,
    Incoming,
    Payload,
    SpawnLooper,
    Unreferenced,
)
from binderclient.deaths import Obituary
from binderclient.errors import (
    DeadObject,
    FailedTransaction,
    FrozenObject,
    MisuseError,
    ProtocolError,
)
from binderclient.objects import Service
from binderwire import binder_abi as abi
from binderwire.commands import message
from binderwire.describe import describe_commands

if TYPE_CHECKING:
    from binderclient.connection import OutgoingCall, ThreadState

EMPTY = Payload(0, 0, 0, 0)


class Proxy:
    """A stand-in for a proxy."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.dead = False


def br(word: int, **fields: int) -> bytes:
    return message(abi.RETURNS, word, **fields)


NOOP, COMPLETE = br(abi.BR_NOOP), br(abi.BR_TRANSACTION_COMPLETE)
DEAD, FAILED, FROZEN = br(abi.BR_DEAD_REPLY), br(abi.BR_FAILED_REPLY), br(abi.BR_FROZEN_REPLY)


def incoming(code: int = 1, *, flags: int = 0, buffer: int = 0x1000, target: int = 16) -> bytes:
    return br(abi.BR_TRANSACTION, target=target, code=code, flags=flags, buffer=buffer)


def reply(buffer: int = 0x2000) -> bytes:
    return br(abi.BR_REPLY, buffer=buffer)


class Wire:
    """One thread of a connection, with a driver that takes everything."""

    def __init__(self, connection: Connection[Any] | None = None) -> None:
        self.connection: Connection[Any] = connection or Connection(Proxy)
        self.thread: ThreadState = self.connection.thread()

    def call(self, handle: int = 1, flags: int = 0, payload: Payload = EMPTY) -> OutgoingCall:
        return self.thread.call(handle, 7, flags, payload)

    def write(self) -> str:
        """Return what is written, as text, and have the driver take it all."""
        data = bytes(self.thread.data_to_write())
        self.thread.written(len(data))
        return describe_commands(data)

    def names(self) -> list[str]:
        return [part.split()[0] for part in self.write().split(", ") if part]

    def read(self, *parts: bytes) -> list[Any]:
        return self.thread.receive(b"".join(parts))


@pytest.fixture
def wire() -> Wire:
    return Wire()


# Outgoing calls


def test_a_call_and_its_reply(wire: Wire) -> None:
    call = wire.call(5, abi.TF_ACCEPT_FDS, Payload(0x8000, 12, 0x9000, 8))
    # >> BC_TRANSACTION  << NOOP, COMPLETE, REPLY in one read (behaviours Q2)
    assert wire.write() == (
        "BC_TRANSACTION binder_transaction_data{target=5 code=7 flags=16 data_size=12 "
        "offsets_size=8 buffer=0x8000 offsets=0x9000}"
    )
    assert wire.read(NOOP, COMPLETE, reply(0x2000)) == []
    assert isinstance(call.outcome, Delivery)
    assert call.outcome.buffer == 0x2000
    assert wire.thread.idle
    assert wire.write() == ""


def test_a_call_is_open_between_complete_and_reply(wire: Wire) -> None:
    call = wire.call()
    wire.read(NOOP, COMPLETE)
    assert call.outcome is None
    assert not wire.thread.idle
    wire.read(NOOP, reply())
    assert isinstance(call.outcome, Delivery)


@pytest.mark.parametrize(
    ("word", "error"),
    [(DEAD, DeadObject), (FAILED, FailedTransaction), (FROZEN, FrozenObject)],
)
@pytest.mark.parametrize(
    ("accepted", "flags"),
    [(False, 0), (True, 0), (False, abi.TF_ONE_WAY)],
    ids=["call refused", "call failed later", "one-way refused"],
)
def test_failures(
    wire: Wire, word: bytes, error: type[Exception], accepted: bool, flags: int
) -> None:
    call = wire.call(flags=flags)
    # Refused: << NOOP, FAILED_REPLY.  Failed later: << NOOP, COMPLETE, FAILED_REPLY (Q9).
    wire.read(NOOP, *([COMPLETE] if accepted else []), word)
    assert isinstance(call.outcome, error)
    assert wire.thread.idle


@pytest.mark.parametrize(
    "word",
    [abi.BR_TRANSACTION_COMPLETE, abi.BR_ONEWAY_SPAM_SUSPECT, abi.BR_TRANSACTION_PENDING_FROZEN],
)
def test_a_one_way_call_is_over_when_the_driver_has_it(wire: Wire, word: int) -> None:
    call = wire.call(flags=abi.TF_ONE_WAY)
    wire.read(NOOP, br(word))
    assert call.outcome == word


def test_a_quiet_driver_confirms_replies_with_objects_only(wire: Wire) -> None:
    wire.thread.is_quiet = True
    for payload in (EMPTY, Payload(0x8000, 24, 0x9000, 8), EMPTY):
        assert wire.read(NOOP, incoming()) == [Incoming(ANY)]
        wire.thread.reply(0, payload)
        wire.write()
        call = wire.call()
        wire.write()
        wire.read(NOOP, *([COMPLETE] if payload.offsets_size else []))
        # What follows is of the call alone.
        wire.read(NOOP, COMPLETE, FAILED)
        assert isinstance(call.outcome, FailedTransaction)
    wire.read(NOOP, COMPLETE)  # of a driver that has forgotten it
    assert wire.thread.idle


def test_one_thread_has_one_call_outstanding(wire: Wire) -> None:
    wire.call()
    wire.write()
    with pytest.raises(MisuseError, match="another call already"):
        wire.call()
    assert wire.write() == ""
    note = wire.call(flags=abi.TF_ONE_WAY)  # which is allowed (Q6)
    wire.read(NOOP, COMPLETE)  # of the first call: they are answered in order
    assert note.outcome is None
    wire.read(NOOP, COMPLETE)
    assert note.outcome == abi.BR_TRANSACTION_COMPLETE


def test_what_cannot_be_packed_is_not_waited_for(wire: Wire) -> None:
    for handle, code in (("x", 1), (1, "x")):
        with pytest.raises(struct.error):
            wire.thread.call(handle, code, 0, EMPTY)  # type: ignore[arg-type]
        assert wire.thread.idle
    with pytest.raises(struct.error):
        wire.thread.proxy("x")  # type: ignore[arg-type]
    assert not len(wire.connection.handles)
    assert not wire.thread.data_to_write()
    wire.call()


def test_what_the_driver_did_not_take_is_written_again(wire: Wire) -> None:
    wire.thread.enter_looper()
    first = len(wire.thread.data_to_write())
    wire.call()
    wire.thread.written(first)
    assert wire.names() == ["BC_TRANSACTION"]


def test_memory_stays_until_the_driver_took_the_command(wire: Wire) -> None:
    class Memory:
        pass

    memory = Memory()
    alive = [memory]
    wire.call(payload=Payload(0, 0, 0, 0, (), memory))
    del memory
    assert len(gc.get_referrers(alive[0])) > 1
    wire.write()
    wire.read(NOOP, COMPLETE, reply())
    gc.collect()
    assert [r for r in gc.get_referrers(alive[0]) if r is not alive and isinstance(r, list)] == []


def test_a_refused_command_is_dropped_alone(wire: Wire) -> None:
    proxy = wire.thread.proxy(3)
    assert wire.thread.drop_refused() == "BC_INCREFS"
    assert wire.names() == ["BC_ACQUIRE"]
    assert proxy.handle == 3
    assert wire.thread.drop_refused() == "nothing"


# Incoming calls


def test_an_incoming_call_and_the_reply_to_it(wire: Wire) -> None:
    (event,) = wire.read(NOOP, incoming(9, buffer=0x1000))
    assert isinstance(event, Incoming)
    assert (event.delivery.code, event.delivery.target) == (9, 16)
    assert wire.thread.serving
    wire.connection.free_buffer(event.delivery.buffer)
    wire.thread.reply(0, EMPTY)
    assert wire.names() == ["BC_FREE_BUFFER", "BC_REPLY"]
    wire.read(NOOP, COMPLETE)
    assert wire.thread.idle


def test_the_security_context_comes_along(wire: Wire) -> None:
    (event,) = wire.read(NOOP, br(abi.BR_TRANSACTION_SEC_CTX, code=1, secctx=0x77))
    assert event.delivery.secctx == 0x77


def test_a_one_way_call_wants_no_reply(wire: Wire) -> None:
    wire.read(NOOP, incoming(flags=abi.TF_ONE_WAY))
    assert wire.thread.idle
    with pytest.raises(MisuseError, match="no call to reply to"):
        wire.thread.reply(0, EMPTY)


def test_calls_come_back_while_a_reply_is_awaited(wire: Wire) -> None:
    outer = wire.call()
    wire.read(NOOP, COMPLETE, incoming(2))
    inner = wire.call()
    wire.read(NOOP, COMPLETE, incoming(3))
    wire.thread.reply(0, EMPTY)
    wire.read(NOOP, COMPLETE, reply(0x3000))
    assert (outer.outcome, getattr(inner.outcome, "buffer", None)) == (None, 0x3000)
    with pytest.raises(ProtocolError, match="BR_REPLY without a call"):
        wire.read(NOOP, reply())
    wire.thread.reply(0, EMPTY)
    wire.read(NOOP, COMPLETE, reply(0x4000))
    assert getattr(outer.outcome, "buffer", None) == 0x4000
    assert wire.thread.idle


def test_a_reply_needs_the_own_call_to_return_first(wire: Wire) -> None:
    wire.read(NOOP, incoming())
    wire.call()
    with pytest.raises(MisuseError):
        wire.thread.reply(0, EMPTY)


def test_the_complete_of_a_reply_is_not_taken_for_that_of_a_call(wire: Wire) -> None:
    wire.read(NOOP, incoming())
    wire.thread.reply(0, EMPTY)
    call = wire.call()  # before the reply's COMPLETE was read
    wire.read(NOOP, COMPLETE, FAILED)
    assert isinstance(call.outcome, FailedTransaction)


def test_a_thread_that_leaves_forgets_its_calls_and_keeps_the_rest(wire: Wire) -> None:
    wire.connection.free_buffer(0x1000)
    wire.read(NOOP, incoming())
    wire.call()
    wire.thread.abandon()
    assert wire.thread.idle
    assert wire.names() == ["BC_FREE_BUFFER"]


# Looper threads


def test_spawn_looper_replaces_the_noop(wire: Wire) -> None:
    wire.thread.enter_looper()
    assert wire.names() == ["BC_ENTER_LOOPER"]
    spawn, call = wire.read(br(abi.BR_SPAWN_LOOPER), incoming())
    assert isinstance(spawn, SpawnLooper)
    assert isinstance(call, Incoming)
    other = Wire(wire.connection)
    other.thread.register_looper()
    other.thread.exit_looper()
    assert other.names() == ["BC_REGISTER_LOOPER", "BC_EXIT_LOOPER"]


# Local objects


def test_the_driver_wants_references_on_what_is_sent(wire: Wire) -> None:
    service, nodes = Service(), wire.connection.nodes
    number = nodes.export(service)
    call = wire.call(payload=Payload(0, 0, 0, 0, (number,)))
    # << NOOP, INCREFS, ACQUIRE, COMPLETE, REPLY (Q3)  >> INCREFS_DONE, ACQUIRE_DONE
    wire.write()
    events = wire.read(
        NOOP,
        br(abi.BR_INCREFS, ptr=number, cookie=number),
        br(abi.BR_ACQUIRE, ptr=number, cookie=number),
        COMPLETE,
        reply(),
    )
    assert call.outcome is not None
    assert events == []
    assert wire.thread.owes_answer
    assert wire.write() == (
        "BC_INCREFS_DONE binder_ptr_cookie{ptr=16 cookie=16}, "
        "BC_ACQUIRE_DONE binder_ptr_cookie{ptr=16 cookie=16}"
    )
    assert not wire.thread.owes_answer
    assert nodes.find(number) is service
    assert wire.read(NOOP, br(abi.BR_RELEASE, ptr=number, cookie=number)) == []
    events = wire.read(NOOP, br(abi.BR_DECREFS, ptr=number, cookie=number))
    assert events == [Unreferenced(service)]
    assert nodes.find(number) is None
    assert wire.write() == ""


def test_an_object_that_nobody_kept_is_let_go(wire: Wire) -> None:
    service = Service()
    wire.call(payload=Payload(0, 0, 0, 0, (wire.connection.nodes.export(service),)))
    assert wire.read(NOOP, FAILED) == [Unreferenced(service)]
    assert len(wire.connection.nodes) == 0


def test_a_release_that_is_read_late_does_not_undo_a_new_acquire(wire: Wire) -> None:
    nodes = wire.connection.nodes
    number = nodes.export(Service())
    acquire, release = (
        br(word, ptr=number, cookie=number) for word in (abi.BR_ACQUIRE, abi.BR_RELEASE)
    )
    other = Wire(wire.connection)
    wire.read(NOOP, acquire)
    nodes.settle(number)
    other.read(NOOP, acquire)  # the driver sent RELEASE before this, to a slower thread
    assert wire.read(NOOP, release) == []
    assert nodes.find(number) is not None
    assert len(other.read(NOOP, release)) == 1


def test_the_plain_context_manager_is_object_0(wire: Wire) -> None:
    service = Service()
    number = wire.connection.nodes.export_as_manager(service, plain=True)
    assert number == 0
    assert wire.connection.nodes.find(0) is service


# Proxies


def test_the_first_proxy_of_a_handle_takes_references_the_last_gives_them_back(wire: Wire) -> None:
    first = wire.thread.proxy(4)
    again = wire.thread.proxy(4)
    assert again is first
    assert wire.write() == "BC_INCREFS __u32{value=4}, BC_ACQUIRE __u32{value=4}"
    del again
    gc.collect()
    assert wire.write() == ""
    del first
    gc.collect()
    other = Wire(wire.connection)  # whichever thread writes next
    assert other.write() == "BC_RELEASE __u32{value=4}, BC_DECREFS __u32{value=4}"
    assert len(wire.connection.handles) == 0


def test_two_generations_of_proxies_keep_their_own_references(wire: Wire) -> None:
    wire.thread.proxy(4)  # dropped at once
    gc.collect()
    proxy = wire.thread.proxy(4)
    names = wire.names()
    assert sorted(names) == sorted(["BC_INCREFS", "BC_ACQUIRE"] * 2 + ["BC_RELEASE", "BC_DECREFS"])
    assert names[:2] == ["BC_INCREFS", "BC_ACQUIRE"]
    assert wire.thread.proxy(4) is proxy
    assert wire.write() == ""


# Death notifications


def test_a_death_is_told_to_everybody_once(wire: Wire) -> None:
    proxy, told = wire.thread.proxy(4), []
    wire.write()
    wire.thread.link_to_death(proxy, told.append)
    wire.thread.link_to_death(proxy, lambda who: told.append((who, 2)))
    assert wire.write() == ("BC_REQUEST_DEATH_NOTIFICATION binder_handle_cookie{handle=4 cookie=1}")
    (obituary,) = wire.read(NOOP, br(abi.BR_DEAD_BINDER, value=1))
    assert isinstance(obituary, Obituary)
    assert len(obituary.callbacks) == 2
    assert proxy.dead
    assert wire.write() == (
        "BC_DEAD_BINDER_DONE binder_uintptr_t{value=1}, "
        "BC_CLEAR_DEATH_NOTIFICATION binder_handle_cookie{handle=4 cookie=1}"
    )
    wire.read(NOOP, br(abi.BR_CLEAR_DEATH_NOTIFICATION_DONE, value=1))
    assert len(wire.connection.deaths) == 0
    with pytest.raises(DeadObject):
        wire.thread.link_to_death(proxy, told.append)


def test_a_link_keeps_its_proxy(wire: Wire) -> None:
    wire.thread.link_to_death(wire.thread.proxy(4), print)
    gc.collect()
    assert wire.names() == ["BC_INCREFS", "BC_ACQUIRE", "BC_REQUEST_DEATH_NOTIFICATION"]
    assert wire.write() == ""


def test_the_last_unlink_clears_the_registration(wire: Wire) -> None:
    proxy = wire.thread.proxy(4)
    wire.thread.link_to_death(proxy, print)
    wire.thread.link_to_death(proxy, repr)
    wire.write()
    assert wire.thread.unlink_to_death(proxy, print)
    assert not wire.thread.unlink_to_death(proxy, print)
    assert wire.write() == ""
    assert wire.thread.unlink_to_death(proxy, repr)
    assert wire.names() == ["BC_CLEAR_DEATH_NOTIFICATION"]


def test_a_link_during_a_clear_asks_again_when_that_is_done(wire: Wire) -> None:
    proxy = wire.thread.proxy(4)
    wire.thread.link_to_death(proxy, print)
    wire.thread.unlink_to_death(proxy, print)
    wire.write()
    wire.thread.link_to_death(proxy, repr)
    assert wire.write() == ""  # the driver would ignore it (E7)
    wire.read(NOOP, br(abi.BR_CLEAR_DEATH_NOTIFICATION_DONE, value=1))
    assert wire.write() == ("BC_REQUEST_DEATH_NOTIFICATION binder_handle_cookie{handle=4 cookie=2}")


def test_a_death_that_overtakes_a_clear_is_told_to_new_links(wire: Wire) -> None:
    proxy = wire.thread.proxy(4)
    wire.thread.link_to_death(proxy, print)
    wire.thread.unlink_to_death(proxy, print)
    wire.thread.link_to_death(proxy, repr)
    wire.write()
    # << DEAD_BINDER although CLEAR was sent; CLEAR_DONE comes after DEAD_BINDER_DONE (N11)
    (obituary,) = wire.read(NOOP, br(abi.BR_DEAD_BINDER, value=1))
    assert obituary.callbacks == [repr]
    assert wire.names() == ["BC_DEAD_BINDER_DONE"]
    wire.read(NOOP, br(abi.BR_CLEAR_DEATH_NOTIFICATION_DONE, value=1))
    assert wire.write() == ""


def test_the_death_of_the_context_manager_makes_room_for_the_next(wire: Wire) -> None:
    old = wire.thread.proxy(0)
    wire.thread.link_to_death(old, print)
    wire.write()
    wire.read(NOOP, br(abi.BR_DEAD_BINDER, value=1))
    assert wire.names()[-2:] == ["BC_RELEASE", "BC_DECREFS"]
    new = wire.thread.proxy(0)
    assert new is not old
    assert not new.dead
    wire.thread.link_to_death(new, print)
    assert wire.names() == ["BC_INCREFS", "BC_ACQUIRE", "BC_REQUEST_DEATH_NOTIFICATION"]
    del old
    gc.collect()
    assert wire.write() == ""


# What cannot be


@pytest.mark.parametrize(
    "stream",
    [
        COMPLETE,
        DEAD,
        reply(),
        br(abi.BR_ERROR, value=-1),
        br(abi.BR_ATTEMPT_ACQUIRE),
        b"\1\2",
        b"\1\2\3\4",
    ],
    ids=["complete", "dead", "reply", "error", "attempt", "stray bytes", "unknown word"],
)
def test_what_cannot_come_is_a_protocol_error(wire: Wire, stream: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.read(NOOP, stream)


@given(st.binary(max_size=200))
def test_garbage_is_a_protocol_error_and_nothing_else(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        Wire().read(data)


@given(st.lists(st.sampled_from(sorted(abi.RETURNS)), max_size=8), st.integers(0, 32))
def test_any_order_of_returns_is_handled_or_refused(words: list[int], value: int) -> None:
    wire = Wire()
    wire.call()
    for word in words:
        payload = abi.RETURNS[word].payload
        fields = {} if payload is None else {payload.fields[0].name: value}
        try:
            wire.read(NOOP, br(word, **fields))
        except ProtocolError:
            return
        wire.write()
