# SPDX-License-Identifier: Apache-2.0
"""What the outside must do next: answer a request, or have something go on that has paused."""

from __future__ import annotations

from typing import Final

from binderwire.binder_abi import binder_write_read

_SIZE: Final[int] = binder_write_read.size
_unpack: Final = binder_write_read.unpack_from
_note: Final = binder_write_read.changing("write_consumed", "read_consumed")


class Completion:
    """The end of one ioctl.

    Args:
        ticket: the number that the caller gave to ``Engine.ioctl``.
        result: 0 or a negative errno.
        payload: the argument as it goes back to the client, also beside an errno.
    """

    __slots__ = ("_payload", "result", "ticket")

    def __init__(self, ticket: int, result: int, payload: bytes) -> None:
        self.ticket = ticket
        self.result = result
        self._payload = payload

    @property
    def payload(self) -> bytes:
        """The argument as it goes back to the client."""
        return self._payload


class WriteRead(Completion):
    """One BINDER_WRITE_READ: its argument while it is under way, and its end.

    Args:
        ticket: as above.
        argument: as the client has passed it; there may be more behind it.
    """

    __slots__ = (
        "read_buffer",
        "read_consumed",
        "read_size",
        "write_buffer",
        "write_consumed",
        "write_end",
        "write_size",
    )

    write_size: int
    write_consumed: int
    write_buffer: int
    read_size: int
    read_consumed: int
    read_buffer: int

    def __init__(self, ticket: int, argument: bytes) -> None:
        super().__init__(ticket, 0, argument[:_SIZE] if len(argument) > _SIZE else argument)
        self.write_end = 0  # up to where this ioctl takes commands
        (
            self.write_size,
            self.write_consumed,
            self.write_buffer,
            self.read_size,
            self.read_consumed,
            self.read_buffer,
        ) = _unpack(argument)

    @property
    def payload(self) -> bytes:
        return _note(self._payload, self.write_consumed, self.read_consumed)


class Paused:
    """Work that stopped in the middle.

    Args:
        ticket: under which it is listed; nothing else has it. If it answers a request, that one's.
        payer: the number of the user whose time it takes.
    """

    __slots__ = ("payer", "ticket")

    def __init__(self, ticket: int, payer: int) -> None:
        self.ticket = ticket
        self.payer = payer

    def go_on(self) -> None:
        """Do some more; what is not through then is listed anew."""
        raise NotImplementedError

    def interrupt(self) -> None:
        """A signal has reached the thread whose request this is."""

    def abandon(self) -> None:
        """It will not go on: leave nothing behind but the request, which somebody else ends."""
