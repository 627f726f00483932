# SPDX-License-Identifier: Apache-2.0
"""The bytes that player.c takes and gives: operations and their results.

Each operation but FILL has one result, in the same order.
"""

from __future__ import annotations

from errno import EINVAL, EOPNOTSUPP
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from binderwire import binder_abi as abi

if TYPE_CHECKING:
    from collections.abc import Sequence

OPEN, CLOSE, UNMAP, KILL, IOCTL, POLL, SIGNAL, PEEK, FILL, RENICE = range(1, 11)
NO_POINTER: Final = 1  # flag of IOCTL
READS: Final = 2  # it is a BINDER_WRITE_READ: the read buffer is part of the result

_END: Final = 0xFF
_ended: Final = Struct("<BHBH")
_size: Final = Struct("<H")
_extended_error: Final = abi.binder_extended_error


class Ended(NamedTuple):
    """A call that has ended: the first of the kinds of results."""

    thread: int
    errno: int
    nice: int
    argument: bytes  # as it came back; for a poll: revents
    stream: bytes  # the read buffer up to read_consumed


Result = int | bytes | tuple[Ended, ...]


def open_file(process: int, file: int, device: int, size: int, *, nonblocking: bool) -> bytes:
    return bytes([OPEN, process, file, device, nonblocking]) + size.to_bytes(4, "little")


def plain(operation: int, number: int) -> bytes:
    """CLOSE, UNMAP, KILL, SIGNAL."""
    return bytes([operation, number])


def renice(thread: int, nice: int) -> bytes:
    return bytes([RENICE, thread, nice + 20])


def poll(thread: int, file: int) -> bytes:
    return bytes([POLL, thread, file])


def ioctl(thread: int, file: int, request: int, argument: bytes | None, flags: int = 0) -> bytes:
    flags |= NO_POINTER if argument is None else 0
    octets = argument or b""
    head = bytes([IOCTL, thread, file, flags]) + request.to_bytes(4, "little")
    return head + bytes([len(octets)]) + octets


def fill(address: int, octets: bytes) -> bytes:
    return bytes([FILL]) + address.to_bytes(8, "little") + _size.pack(len(octets)) + octets


def peek(process: int, address: int, size: int) -> bytes:
    return bytes([PEEK, process]) + address.to_bytes(8, "little") + _size.pack(size)


def parse(operations: Sequence[bytes], octets: bytes) -> list[Result]:
    """Return the results of the operations; fewer if the player gave up before their end."""
    results: list[Result] = []
    requests: dict[int, int] = {}  # the latest of each thread
    position = 0
    for operation in operations:
        kind = operation[0]
        if kind == IOCTL:
            requests[operation[1]] = int.from_bytes(operation[4:8], "little")
        if kind == FILL:
            continue
        if position >= len(octets):
            break
        if kind == OPEN:
            results.append(_size.unpack_from(octets, position)[0])
            position += _size.size
        elif kind == PEEK:
            size = _size.unpack_from(octets, position)[0]
            position += _size.size + size
            results.append(octets[position - size : position])
        else:
            ended, position = _parse_ended(octets, position, requests)
            results.append(ended)
    return results


def _parse_ended(
    octets: bytes, position: int, requests: dict[int, int]
) -> tuple[tuple[Ended, ...], int]:
    ended = []
    while octets[position] != _END:
        thread, errno, nice, size = _ended.unpack_from(octets, position)
        position += _ended.size + size
        argument = normal(requests.get(thread, 0), octets[position - size : position])
        size = _size.unpack_from(octets, position)[0]
        position += _size.size + size
        stream = octets[position - size : position]
        ended.append(Ended(thread, errno, nice - 20, argument, stream))
    return tuple(ended), position + 1


def normal(request: int, argument: bytes) -> bytes:
    """Return an argument without what is free to differ: debug ids, but for whether there is one.

    Everything else is the same on both sides to begin with: addresses, process ids.

    Without a security context (I2) the driver passes on what its security module says: none of it
    in the kernel is EOPNOTSUPP, AppArmor says EINVAL.
    """
    if request != abi.BINDER_GET_EXTENDED_ERROR or len(argument) != _extended_error.size:
        return argument
    number, command, param = _extended_error.unpack_from(argument)
    return _extended_error.pack(bool(number), command, -EINVAL if param == -EOPNOTSUPP else param)
