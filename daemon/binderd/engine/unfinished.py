# SPDX-License-Identifier: Apache-2.0
"""Commands that stop in the middle: those whose payload has thousands of objects.

A command is otherwise done as a whole, and the pauses are between commands (``pause.py``). Here the
thread keeps what is left, and its ioctl goes on with that before the next command. What others do
meanwhile is what they can do in the middle of a command of the driver, which holds no lock from one
object to the next: most of all they can end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from binderd.engine.pause import Unfinished

if TYPE_CHECKING:
    from binderd.engine.buffers import Buffer
    from binderd.engine.process import Process
    from binderd.engine.thread import Thread


def begin(thread: Thread, command: Unfinished) -> None:
    """Do a command that may stop in the middle; then ``Thread.unfinished`` is what goes on."""
    if not command.go_on():
        thread.unfinished = command


class Emptying(Unfinished):
    """What the objects in a buffer hold is let go of, one by one; then the buffer is given back.

    Args:
        process: whose buffer it is.
    """

    __slots__ = ("_buffer", "_process")

    def __init__(self, process: Process, buffer: Buffer) -> None:
        super().__init__()
        self._process = process
        self._buffer = buffer
        process.release_target(buffer)
        if buffer.held is not None:
            buffer.held.reverse()  # the first is the next to go

    def go_on(self) -> bool:
        process, held = self._process, self._buffer.held
        if process.is_dead:
            return True  # it goes with everything else
        pace = process.hub.pace
        while held:
            strong, target = held.pop()
            process.release_object(strong, target)
            if held and pace():
                return False
        process.discard_buffer(self._buffer)
        return True

    def abandon(self) -> None:
        if not self._process.is_dead:
            self._process.discard_buffer(self._buffer)
