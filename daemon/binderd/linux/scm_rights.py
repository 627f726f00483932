# SPDX-License-Identifier: Apache-2.0
"""Open files sent through Unix sockets (SCM_RIGHTS, unix(7)).

Not Python's send_fds and recv_fds: the former forgets its flags, the latter has no close-on-exec of
its own accord.
"""

from __future__ import annotations

import socket
from array import array
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    Octets = bytes | bytearray | memoryview

FD_SIZE: Final = 4  # bytes of a descriptor's number in a control message
KIND: Final = (socket.SOL_SOCKET, socket.SCM_RIGHTS)  # level and type of such a control message


def send(
    channel: socket.socket, pieces: Sequence[Octets], fds: Sequence[int], flags: int = 0
) -> None:
    """Send one message, with descriptors or without; they stay the caller's.

    Args:
        channel: a Unix socket.
        pieces: what it says, one behind the other.
        fds: the descriptors, at most 253.
        flags: of send(2).
    """
    rights = [(*KIND, array("i", fds))] if fds else []
    channel.sendmsg(pieces, rights, flags)


def receive(
    channel: socket.socket, size: int, most: int, flags: int = 0
) -> tuple[bytes, list[int]]:
    """Return the next message and the descriptors that came along, which are close-on-exec.

    Fewer descriptors than were sent come where this process can have no more.

    Args:
        channel: a Unix socket.
        size: how many bytes it may have.
        most: how many descriptors there may be.
        flags: of recv(2).
    """
    message, controls, _, _ = channel.recvmsg(
        size, socket.CMSG_SPACE(most * FD_SIZE), socket.MSG_CMSG_CLOEXEC | flags
    )
    fds = array("i")
    for level, kind, data in controls:
        if (level, kind) == KIND:
            fds.frombytes(data[: len(data) - len(data) % FD_SIZE])
    return message, fds.tolist()
