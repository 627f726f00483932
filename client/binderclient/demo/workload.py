# SPDX-License-Identifier: Apache-2.0
"""What travels in the demo, and how both ends know that it arrived as it was sent.

Pure: no device, no clock.  The random numbers come from seeds, so that a run can be repeated.
"""

from __future__ import annotations

import random
import struct
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

from binderclient.parcel import Parcel

if TYPE_CHECKING:
    from binderclient.ibinder import IBinder

DESCRIPTOR: Final = "org.binderd.demo.IWorker"
CALLBACK_DESCRIPTOR: Final = "org.binderd.demo.ICallback"

# IWorker
HELLO: Final = 1  # int32 client, binder callback
ECHO: Final = 2  # a message; the reply is the same message
NOTE: Final = 3  # one-way: a message, bool acknowledge
NESTED: Final = 4  # int32 client, int32 number; calls ASK, replies with its answer
BYE: Final = 5  # int32 client; the reply is int64: how many notes came from it

# ICallback
ACKNOWLEDGE: Final = 1  # one-way: int64 sequence of the last note
ASK: Final = 2  # int32 number; the reply is one more

KIB: Final = 1024
SMALL_SIZES: Final = (0, 64, 1 * KIB, 4 * KIB, 16 * KIB, 64 * KIB)
LARGE_SIZES: Final = (128 * KIB, 256 * KIB, 512 * KIB)
NOTE_SIZES: Final = (0, 64, 1 * KIB, 4 * KIB)
# What one client may have under way as notes: eight of them stay far below a server's share of
# buffer space for one-way calls.
NOTES_UNDERWAY_MAX: Final = 16
WORKER_MAP_SIZE: Final = 4 << 20  # bytes: the largest receive area there is

_HEAD: Final = struct.Struct("=iq")
_SOURCE: Final = random.Random(2008).randbytes(2 * LARGE_SIZES[-1])


class CorruptMessage(Exception):
    """A message is not what its sender put there, or comes out of order."""


class Message(NamedTuple):
    """The head of a message; the body follows as a byte array."""

    client: int
    sequence: int
    checksum: int


def body_of(client: int, sequence: int, size: int) -> bytes:
    """Return the body that a client's message with this sequence number and size has."""
    start = (client * 7919 + sequence * 104729) % LARGE_SIZES[-1]
    return _SOURCE[start : start + size]


def write_message(parcel: Parcel, client: int, sequence: int, body: bytes | memoryview) -> None:
    """Write a message."""
    parcel.write_int32(client)
    parcel.write_int64(sequence)
    parcel.write_uint32(_checksum(client, sequence, body))
    parcel.write_bytes(body)


def read_message(parcel: Parcel) -> tuple[Message, memoryview]:
    """Read and check a message; the body is a view that dies with the parcel.

    Raises:
        CorruptMessage: the body is not the one that was sent under this number.
    """
    message = Message(parcel.read_int32(), parcel.read_int64(), parcel.read_uint32())
    body = parcel.read_blob()
    if body is None or _checksum(message.client, message.sequence, body) != message.checksum:
        raise CorruptMessage(f"message {message.sequence} of client {message.client}")
    return message, body


def hello(client: int, callback: IBinder) -> Parcel:
    """Return the request of HELLO."""
    request = Parcel.for_interface(DESCRIPTOR)
    request.write_int32(client)
    request.write_strong_binder(callback)
    return request


def sizes_for(client: int) -> tuple[int, ...]:
    """Return the payload sizes of a client's calls, in bytes.

    Every fourth client sends the large ones: all of them doing it at a time would need more than
    the largest receive area there is, and be refused with good reason.
    """
    return SMALL_SIZES + LARGE_SIZES if client % 4 == 0 else SMALL_SIZES


def _checksum(client: int, sequence: int, body: bytes | memoryview) -> int:
    return zlib.crc32(body, zlib.crc32(_HEAD.pack(client, sequence)))
