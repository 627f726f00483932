# SPDX-License-Identifier: Apache-2.0
"""Questions that may never be answered, asked by processes that may be thrown away.

Nothing here may know what is asked.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar, cast

from binderd.linux import proc

if TYPE_CHECKING:
    from collections.abc import Callable

_Answer = TypeVar("_Answer")

_ANSWER_SIZE_MAX: Final = 1 << 16
_PATIENCE: Final = 10  # times the limit for one that is kept from running

_abandoned: set[int] = set()  # killed, and not gone yet


class Held(Exception):
    """The child that asked sleeps: what it asks for is locked."""


def ask(question: Callable[[], _Answer], limit: float) -> _Answer:
    """Return the answer to a question; it is asked in a child process.

    Args:
        question: what it returns must be picklable.
        limit: seconds that the child may sleep; that it lacks a processor is not counted.

    Raises:
        Held: the child got stuck.
        OSError: the question has failed with that, or there can be no child.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        child = _fork(question, writing)
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    try:
        answer = _await(child, reading, limit)
    except BaseException:
        os.kill(child, signal.SIGKILL)  # ours until it is waited for
        _abandoned.add(child)
        raise
    finally:
        os.close(reading)
    os.waitpid(child, 0)  # it had nothing more to do
    if isinstance(answer, OSError):
        raise answer
    return cast("_Answer", answer)


def _fork(question: Callable[[], _Answer], writing: int) -> int:
    child = os.fork()
    if child:
        return child
    try:
        answer: object
        try:
            answer = question()
        except OSError as error:
            answer = OSError(error.errno, error.strerror)
        os.write(writing, pickle.dumps(answer))
    finally:
        os._exit(0)


def _await(child: int, reading: int, limit: float) -> object:
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    began = time.monotonic()
    while not poll.poll(limit * 1000):
        if (
            not proc.is_running(proc.place_of(child))
            or time.monotonic() - began > _PATIENCE * limit
        ):
            raise Held
    said = os.read(reading, _ANSWER_SIZE_MAX)
    if not said:
        return OSError(0, "the child that asked has died")
    return pickle.loads(said)


def reap() -> None:
    """Take note of children that have ended meanwhile."""
    for child in list(_abandoned):
        with suppress(ChildProcessError):
            if not os.waitpid(child, os.WNOHANG)[0]:
                continue
        _abandoned.discard(child)
