# SPDX-License-Identifier: Apache-2.0
"""The life of a context manager and a client, with looks at the driver's logs at every turn.

It runs on every backend of the playbook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from binderwire import binder_abi as abi
from binderwire.binder_abi import (
    BR_ACQUIRE,
    BR_DEAD_BINDER,
    BR_FAILED_REPLY,
    BR_FROZEN_REPLY,
    BR_INCREFS,
    BR_NOOP,
    BR_REPLY,
    BR_TRANSACTION,
    BR_TRANSACTION_COMPLETE,
    BR_TRANSACTION_PENDING_FROZEN,
)
from support import bc
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.logs import Transcript
    from support.playbook import Proc, Thread, World

SIZE: Final = 1 << 16
STATES: Final = ("state", "transactions")
LOGS: Final = ("transaction_log", "failed_transaction_log")
EVERYTHING: Final = ("state", "transactions", "stats", *LOGS)
COOKIE: Final = 0x77


class Life:
    """Everybody in it.

    Args:
        world: where it happens; nobody else is there.
        transcript: takes what the logs say.
    """

    def __init__(self, world: World, transcript: Transcript) -> None:
        self._world = world
        self._look = transcript.show
        self._transcript = transcript
        self.manager = self._named(world.open(size=SIZE), "manager")
        self.server = self._thread(self.manager, "server")
        self.server.ioctl(abi.BINDER_SET_CONTEXT_MGR, bytes(4))
        self.server.write(bc.enter_looper())
        self.caller = self._named(world.open(size=SIZE), "caller")
        self.client = self._thread(self.caller, "client")
        self.client.ioctl(abi.BINDER_VERSION, bytes(4))
        self.handle = 0  # the client's, of a node of the manager

    def live(self) -> None:
        """All of it."""
        self._look("nothing has happened", (*STATES, "stats"))
        self._call()
        self._one_ways()
        self._failures()
        self._freeze()
        self._rest()
        self._end()

    def _named(self, proc: Proc, name: str) -> Proc:
        self._transcript.name(proc.pid, name)
        return proc

    def _thread(self, proc: Proc, name: str) -> Thread:
        thread = proc.thread()
        self._transcript.name(thread.tid, name)
        return thread

    def _call(self) -> None:
        """A call and its reply; each carries an object of its sender."""
        client, server = self.client, self.server
        started = client.start(bc.call(0, bc.payload(bc.binder(0x1000, 0x2000)), code=0x2A))
        assert started.parked
        self._look("a call is queued", STATES)
        call = assert_br(server.read(), BR_NOOP, BR_TRANSACTION)[0]
        number = call.objects[0][1]
        server.write(bc.acquire(number), bc.request_death(number, COOKIE))
        self._look("it is delivered", (*STATES, "proc/{manager}", "proc/{caller}"))
        content = bc.payload(bc.binder(0x5000, 0x6000))
        outcome = server.write_read(bc.free(call.buffer), bc.reply(content))
        assert_br(outcome, BR_NOOP, BR_INCREFS, BR_ACQUIRE, BR_TRANSACTION_COMPLETE)
        news = (BR_INCREFS, BR_ACQUIRE, BR_TRANSACTION_COMPLETE, BR_REPLY)
        reply = assert_br(started.result(), BR_NOOP, *news)[-1]
        self.handle = reply.objects[0][1]
        self._look("it is answered", EVERYTHING)
        client.write(bc.acquire(self.handle), bc.free(reply.buffer))
        client.write(bc.increfs_done(0x1000, 0x2000), bc.acquire_done(0x1000, 0x2000))
        server.write(bc.increfs_done(0x5000, 0x6000), bc.acquire_done(0x5000, 0x6000))

    def _one_ways(self) -> None:
        """Three one-way calls to one node: they wait for each other."""
        for size in (0, 8, 16):
            outcome = self.client.write_read(bc.oneway(self.handle, bytes(size)))
            assert_br(outcome, BR_NOOP, BR_TRANSACTION_COMPLETE)
        self._look("one-way calls are queued", EVERYTHING)
        call = assert_br(self.server.read(), BR_NOOP, BR_TRANSACTION)[0]
        self._look("the first of them is delivered", (*STATES, "stats"))
        for _ in range(2):
            outcome = self.server.write_read(bc.free(call.buffer))
            call = assert_br(outcome, BR_NOOP, BR_TRANSACTION)[0]
        self.server.write(bc.free(call.buffer))

    def _failures(self) -> None:
        """Each fails for another reason, and at another point of the driver's way."""
        client, server = self.client, self.server
        unknown_object = (bytes(24), (0,))
        commands = [
            bc.call(99),
            bc.call(self.handle, bytes(2 * SIZE)),
            bc.oneway(self.handle, bytes(SIZE - 64)),
            bc.reply(),
            bc.call(0, unknown_object),
        ]
        for command in commands:
            assert_br(client.write_read(command), BR_NOOP, BR_FAILED_REPLY)
        assert_br(server.write_read(bc.call(0)), BR_NOOP, BR_FAILED_REPLY)
        client.write(bc.call(77))
        self._look("calls have failed, one unnoticed", EVERYTHING)
        assert_br(client.read(), BR_NOOP, BR_FAILED_REPLY)

    def _freeze(self) -> None:
        pid = self.manager.pid
        client, argument = self.client, abi.binder_freeze_info.pack
        assert client.ioctl(abi.BINDER_FREEZE, argument(pid, 1, 0))[0] == 0
        client.write(bc.oneway(self.handle))
        self._look("a one-way call waits for somebody frozen", STATES)
        assert_br(client.read(), BR_NOOP, BR_TRANSACTION_PENDING_FROZEN)
        assert_br(client.write_read(bc.call(0)), BR_NOOP, BR_FROZEN_REPLY)
        assert client.ioctl(abi.BINDER_FREEZE, argument(pid, 0, 0))[0] == 0
        client.write(bc.oneway(self.handle))
        self._look("a completion is unread", (*STATES, *LOGS))
        assert_br(client.read(), BR_NOOP, BR_TRANSACTION_COMPLETE)

    def _rest(self) -> None:
        """Weak references, a second open file, a thread that is asked for."""
        client, server = self.client, self.server
        assert server.ioctl(abi.BINDER_SET_MAX_THREADS, abi.u32_value.pack(4))[0] == 0
        outcome = server.read()
        assert [item.word for item in outcome.items] == [abi.BR_SPAWN_LOOPER, BR_TRANSACTION]
        client.write(bc.increfs(0), bc.increfs(self.handle))
        second = self.caller.open_again(size=SIZE)
        self._thread(second, "second").ioctl(abi.BINDER_VERSION, bytes(4))
        self._look("the caller has two files", ("state", "stats", "proc/{caller}"))

    def _end(self) -> None:
        self.caller.kill()
        self._look("the caller is gone", EVERYTHING)
        assert_br(self.server.read(), BR_NOOP, BR_DEAD_BINDER)
        self._look("its death is known", ("state", "transactions", "stats"))
        self.server.write(bc.dead_binder_done(COOKIE))
        self._look("and taken note of", ("state",))
        self.manager.kill()
        self._look("everybody is gone", EVERYTHING)
