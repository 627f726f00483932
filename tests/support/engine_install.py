# SPDX-License-Identifier: Apache-2.0
"""Files on their way to a fake process: what helper, kernel and client do around the engine."""

from __future__ import annotations

from errno import EINTR, EMFILE
from typing import TYPE_CHECKING

from binderwire.binder_abi import BINDER_WRITE_READ
from binderwire.extension_abi import BINDERD_ERRNO, BINDERD_INSTALLED, binderd_installed
from support.fakes import FakeFile

if TYPE_CHECKING:
    from binderd.engine.ports import Room
    from support.engine_world import OpenFile, Program


class Install:
    """Files on their way into a program, by turns in all the ways that there are.

    Either somebody stops the thread for it and issues its request once more, before or after the
    engine hears of the numbers; or the client does it all itself.
    """

    def __init__(
        self,
        file: OpenFile,
        program: Program,
        tid: int,
        number: int,
        files: list[FakeFile],
        closes: list[int],
        room: Room,
    ) -> None:
        self._file, self._program, self._tid = file, program, tid
        self._number, self._files, self._closes, self._room = number, files, closes, room
        # Those that came with the message: the engine may let go of its own.
        self._descriptions = [FakeFile(one.description) for one in files]
        self.by_client = number % 3 == 0
        self._reports_late = number % 3 == 1
        self._pending = next(
            request
            for request in file.world.requests.values()
            if request.program is program and request._tid == tid
        )
        if self.by_client:
            self._pending.interim = -BINDERD_ERRNO

    def carry_out(self) -> None:
        if not self._program.alive:
            self._give_up()
            return
        engine, world = self._file.world.engine, self._file.world
        asks_again = bool(self._files) or self.by_client
        pending = self._pending
        if asks_again and not self.by_client:
            pending.interim = -EINTR
        if not self.by_client:
            engine.stopped(self._number)
            world.hand_out()
        memory = self._program.memory
        for number in self._closes:
            memory.close_file(number)
        if not self.by_client and self._files:
            assert memory.write(self._room.address, b"\xa5" * self._room.size)
        numbers = memory.receive(self._descriptions)
        if asks_again and self._reports_late:
            self._ask_again()
            world.check()
        if not self.by_client:
            engine.installed(self._number, numbers)
        elif self._files:
            self._report(numbers)
        if asks_again and not self._reports_late:
            self._ask_again()

    def _give_up(self) -> None:
        """The thread was killed: it stops for nobody, and its ioctl ends for good."""
        if not self.by_client:
            self._file.world.engine.stopped(self._number)
            self._file.world.hand_out()
            self._file.world.engine.installed(self._number, None)
        self._file.maybe_release()

    def _ask_again(self) -> None:
        pending = self._pending
        assert pending.interim == 0, "the request was not answered, or not with the right errno"
        self._file.calling[self._tid] = self._program
        uid, process = self._program.uid, self._file.process
        self._file.world.engine.ioctl(
            process, self._tid, uid, BINDER_WRITE_READ, pending.payload, pending.ticket
        )

    def _report(self, numbers: list[int] | None) -> None:
        world = self._file.world
        at = self._program.room(4 * len(numbers or []))
        packed = b"".join(number.to_bytes(4, "little") for number in numbers or [])
        assert self._program.memory.write(at, packed)
        argument = binderd_installed.build(
            id=self._number,
            error=EMFILE if numbers is None else 0,
            count=len(numbers or []),
            numbers=at,
        )
        world.engine.ioctl(
            self._file.process,
            self._tid,
            self._program.uid,
            BINDERD_INSTALLED,
            argument,
            world.next_number(),
        )
        result = world.engine.outbox[0]
        assert result.result == 0
        del world.engine.outbox[0]
