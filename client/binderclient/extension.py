# SPDX-License-Identifier: Apache-2.0
"""What binderd has beside the driver's ABI, for a client: see docs/EXTENSION.md.

Rules of this file: it is only for devices that are binderd's, and it keeps no state.
"""

from __future__ import annotations

import array
import contextlib
import errno
import mmap
import os
import socket
from typing import TYPE_CHECKING, Final, NamedTuple

from binderwire.extension_abi import (
    BINDERD_AREA,
    BINDERD_ATTACH,
    BINDERD_ATTACH_AREA,
    BINDERD_FILES_MAX,
    BINDERD_GET_INFO,
    binderd_attach,
    binderd_info,
    binderd_message,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    # An ioctl of the device: its number and its argument.
    Control = Callable[[int, bytearray], None]

_MESSAGE_SIZE: Final = 4096  # bytes; more than any has
_FD_SIZE: Final = array.array("i").itemsize


def flags_of(control: Control) -> int | None:
    """Return what binderd says of the device (BINDERD_HAS_...), None if it is not binderd's.

    Raises:
        OSError: the device cannot be asked, for example as its driver is gone.
    """
    answer = bytearray(binderd_info.size)
    try:
        control(BINDERD_GET_INFO, answer)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTTY}:
            raise
        return None  # Linux's own driver
    return int(binderd_info.read(answer).flags)


def map_area(control: Control, size: int) -> mmap.mmap:
    """Return the receive area, which the daemon hands over; at most ``size`` bytes of it.

    Raises:
        OSError: the daemon refuses, or cannot; EINVAL also where the device is not binderd's.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            request = binderd_attach.pack(theirs.fileno(), BINDERD_ATTACH_AREA)
            control(BINDERD_ATTACH, bytearray(request))
        message = receive(ours)
    descriptors = [] if message is None else message.descriptors
    try:
        if message is None or message.kind != BINDERD_AREA or len(descriptors) != 1:
            number = errno.EMFILE if message is not None and message.is_cut else errno.EPROTO
            raise OSError(number, os.strerror(number))
        size = min(size, message.value)
        area = mmap.mmap(descriptors[0], size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    finally:
        close_all(descriptors)
    area.madvise(mmap.MADV_DONTFORK)  # a child has no receive area (statement B8)
    return area


class Message(NamedTuple):
    """What came through the socket; the fields of binderd_message, and what came with it."""

    kind: int
    value: int
    left: int  # how many descriptors are still to follow
    body: bytes
    descriptors: list[int]
    is_cut: bool  # did not all descriptors come? Then there are none here


def receive(end: socket.socket) -> Message | None:
    """Return the message that waits in the socket, None if there will be no more.

    Raises:
        OSError: EAGAIN, there is none.
    """
    room = socket.CMSG_SPACE(BINDERD_FILES_MAX * _FD_SIZE)
    flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    octets, ancillary, result, _ = end.recvmsg(_MESSAGE_SIZE, room, flags)
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % _FD_SIZE])
    if len(octets) < binderd_message.size:
        close_all(descriptors)
        return None
    message, body = binderd_message.read(octets), octets[binderd_message.size :]
    is_cut = bool(result & socket.MSG_CTRUNC) or (not body and len(descriptors) != message.count)
    if is_cut:
        close_all(descriptors)
        descriptors = array.array("i")
    return Message(message.kind, message.value, message.left, body, list(descriptors), is_cut)


def close_all(descriptors: Iterable[int]) -> None:
    """Close descriptors; it does not matter whether they are open."""
    for number in descriptors:
        with contextlib.suppress(OSError):
            os.close(number)
