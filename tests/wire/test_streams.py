# SPDX-License-Identifier: Apache-2.0
"""Command streams: whole ones read back as written, cut ones raise StreamError and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binderwire import binder_abi as abi
from binderwire.commands import StreamError, append, message, read_stream

if TYPE_CHECKING:
    from binderwire.binder_abi import Message

TABLES = [abi.COMMANDS, abi.RETURNS]
each_table = pytest.mark.parametrize("table", TABLES, ids=["commands", "returns"])


def stream_of(table: dict[int, Message], rows: list[tuple[int, bytes]]) -> bytes:
    stream = bytearray()
    for word, octets in rows:
        payload = table[word].payload
        append(stream, word, octets[: payload.size] if payload else b"")
    return bytes(stream)


def rows_of(table: dict[int, Message]) -> st.SearchStrategy[list[tuple[int, bytes]]]:
    largest = max(row.payload.size for row in table.values() if row.payload)
    row = st.tuples(st.sampled_from(sorted(table)), st.binary(min_size=largest, max_size=largest))
    return st.lists(row, max_size=6)


@each_table
@given(data=st.data())
def test_a_stream_reads_back_as_written(table: dict[int, Message], data: st.DataObject) -> None:
    rows = data.draw(rows_of(table))
    stream = stream_of(table, rows)
    items = list(read_stream(table, stream))
    assert [item.message.word for item in items] == [word for word, _ in rows]
    rebuilt = b"".join(
        message(table, item.message.word, **(item.fields._asdict() if item.fields else {}))
        for item in items
        if "pri" not in getattr(item.message.payload, "name", "")  # has unnamed padding
    )
    kept = [row for row in rows if "pri" not in getattr(table[row[0]].payload, "name", "")]
    assert rebuilt == stream_of(table, kept)


@each_table
def test_every_prefix_raises_only_stream_errors(table: dict[int, Message]) -> None:
    stream = stream_of(table, [(word, bytes(80)) for word in table])
    ends = {0}
    for item in read_stream(table, stream):
        payload = item.message.payload
        ends.add(item.offset + 4 + (payload.size if payload else 0))
    for length in range(len(stream) + 1):
        items = read_stream(table, stream, end=length)
        if length in ends:
            assert sum(1 for _ in items) == sorted(ends).index(length)
        else:
            with pytest.raises(StreamError):
                list(items)


@each_table
@given(octets=st.binary(max_size=64))
def test_garbage_raises_only_stream_errors(table: dict[int, Message], octets: bytes) -> None:
    try:
        items = list(read_stream(table, octets))
    except StreamError:
        return
    sizes = [4 + (item.message.payload.size if item.message.payload else 0) for item in items]
    assert sum(sizes) == len(octets)


def test_what_was_read_before_the_error_is_kept() -> None:
    stream = message(abi.RETURNS, abi.BR_NOOP) + b"\x01\x02\x03\x04"
    items = read_stream(abi.RETURNS, stream)
    assert next(items).message.name == "BR_NOOP"
    with pytest.raises(StreamError, match="unknown word 0x4030201 at offset 4"):
        next(items)


def test_start_and_end_are_offsets_into_the_data() -> None:
    noop, done = message(abi.RETURNS, abi.BR_NOOP), message(abi.RETURNS, abi.BR_OK)
    items = list(read_stream(abi.RETURNS, b"??" + noop + done + b"?", start=2, end=10))
    assert [(item.message.name, item.offset) for item in items] == [("BR_NOOP", 2), ("BR_OK", 6)]


def test_message_builds_named_fields() -> None:
    octets = message(abi.COMMANDS, abi.BC_REQUEST_DEATH_NOTIFICATION, handle=7, cookie=1)
    assert octets == bytes.fromhex("0e630c40070000000100000000000000")
    with pytest.raises(TypeError):
        message(abi.COMMANDS, abi.BC_ACQUIRE, handle=7)
