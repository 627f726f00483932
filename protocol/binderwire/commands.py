# SPDX-License-Identifier: Apache-2.0
"""Command streams: reading and writing a run of BC_ or BR_ words with their payloads.

Both directions use this: a client writes BC_ and reads BR_; tests and debug output read either.
The daemon's own loops use the tables of ``binder_abi`` directly: they are on the request path.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from binderwire.binder_abi import Message
    from binderwire.codec import Buffer

_WORD: Final = struct.Struct("=I")
WORD_SIZE: Final = _WORD.size


class StreamError(ValueError):
    """A command stream that cannot be read on: an unknown word or a payload cut short."""


class Item(NamedTuple):
    """One message of a stream."""

    message: Message
    fields: Any  # the payload as a named tuple; None for a bare word
    offset: int  # bytes from the start of the stream to the word


def read_stream(
    table: Mapping[int, Message], data: Buffer, start: int = 0, end: int | None = None
) -> Iterator[Item]:
    """Yield the messages between the byte offsets ``start`` and ``end`` of ``data``.

    Args:
        table: COMMANDS or RETURNS of ``binder_abi``.
        data: what has the stream.
        start, end: where in it, in bytes; None: to its end.

    Raises:
        StreamError: at the first unknown or incomplete message; those before it were yielded.
    """
    view = memoryview(data)
    position, end = start, len(view) if end is None else end
    while position < end:
        if end - position < WORD_SIZE:
            raise StreamError(f"{end - position} stray bytes at offset {position}")
        word: int = _WORD.unpack_from(view, position)[0]
        message = table.get(word)
        if message is None:
            raise StreamError(f"unknown word {word:#x} at offset {position}")
        size = message.payload.size if message.payload else 0
        if end - position - WORD_SIZE < size:
            raise StreamError(f"{message.name} at offset {position} is cut short")
        fields = message.payload.read(view, position + WORD_SIZE) if message.payload else None
        yield Item(message, fields, position)
        position += WORD_SIZE + size


def append(stream: bytearray, word: int, payload: bytes = b"") -> None:
    """Append one message; ``payload`` is what the word's record packed."""
    stream += _WORD.pack(word)
    stream += payload


def message(table: Mapping[int, Message], word: int, **fields: int) -> bytes:
    """Return the bytes of one message, its payload built from named fields (others are zero).

    Raises:
        KeyError: the table has no such word.
        TypeError, struct.error: a field that its payload does not have; a value that does not fit.
    """
    row = table[word]
    return _WORD.pack(word) + (row.payload.build(**fields) if row.payload else b"")
