# SPDX-License-Identifier: Apache-2.0
"""Closing files that were taken from clients, without ever blocking in a close.

The last close of a file can take any time, and any close of some file systems' files asks their
server. So the helper process gets each file, whose reference makes ours not the last; where our own
close may wait as well a thread does it (``closer.py``). A file is paid for until both have closed
it.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from binderd.closer import NOBODY, Closer
from binderd.injector import messages

if TYPE_CHECKING:
    from binderd.descriptors.helper_process import HelperProcess
    from binderd.engine.ports import Charged


class _Close:
    """A file that is being closed, here, by the helper or by both."""

    __slots__ = ("is_helpers", "is_ours", "payment")

    def __init__(self, payment: Charged | None) -> None:
        self.payment = payment
        self.is_ours = self.is_helpers = False


class FileDisposer:
    """The files that are being closed (the port ``Disposer``).

    Args:
        helper: closes them as well.
        closer: closes ours where that may wait.
    """

    def __init__(self, helper: HelperProcess, closer: Closer) -> None:
        self._helper = helper
        self._closer = closer
        self._closes: dict[int, _Close] = {}  # under way, by number
        self._last_close = 0
        self._closed: deque[int] = deque()  # by us, not settled yet
        self._closed_event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Return the descriptor that is readable when ``settle`` is due."""
        return self._closed_event

    def dispose(
        self, fd: int, *, flushes: bool, owner: int = NOBODY, payment: Charged | None = None
    ) -> None:
        """Close a file of a client's.

        Args:
            flushes: is it of a file system that wants to know of each close? Then even a close that
                is not the last may take any time.
            owner: the user on whose account that is.
            payment: ends when it is closed.
        """
        self._last_close += 1
        number = self._last_close
        close = self._closes[number] = _Close(payment)
        message = messages.head.pack(messages.DISPOSE, number) + messages.account.pack(owner)
        close.is_helpers = self._helper.send_at_once(message, (fd,))
        close.is_ours = flushes or not close.is_helpers
        if close.is_ours:
            self._closer.close([fd], owner, partial(self._tell_closed, number))
        else:
            os.close(fd)

    def settle(self) -> None:
        """See what has been closed here."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._closed_event)
        while self._closed:
            number = self._closed.popleft()
            self._closes[number].is_ours = False
            self._look_at(number)

    def closed_there(self, number: int) -> None:
        """The helper has closed its own."""
        self._closes[number].is_helpers = False
        self._look_at(number)

    def helper_is_lost(self) -> None:
        """The helper has ended, which closes all that it had."""
        for number in list(self._closes):
            self.closed_there(number)

    def close(self) -> None:
        """Stop watching the closes."""
        event, self._closed_event = self._closed_event, -1
        if event >= 0:
            os.close(event)

    def _tell_closed(self, number: int) -> None:
        """One is closed; called in another thread."""
        self._closed.append(number)
        with suppress(OSError):
            os.eventfd_write(self._closed_event, 1)

    def _look_at(self, number: int) -> None:
        """End the charge for a file that both have closed."""
        close = self._closes[number]
        if close.is_ours or close.is_helpers:
            return
        del self._closes[number]
        if close.payment is not None:
            close.payment.end()
