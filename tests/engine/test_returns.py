# SPDX-License-Identifier: Apache-2.0
"""A stream of returns, which is put together piece by piece, is what a bytearray would be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from binderd.engine.returns import Returns

WORD = st.binary(min_size=4, max_size=4)
PIECES = st.lists(st.binary(max_size=600), max_size=8)


@given(first=WORD | st.just(b""), pieces=PIECES)
def test_pieces_follow_one_another(first: bytes, pieces: list[bytes]) -> None:
    out = Returns(first)
    for piece in pieces:
        out.add(piece)
    assert out.octets() == first + b"".join(pieces)
    assert out.size == len(out.octets())


@given(first=WORD, pieces=PIECES, more=PIECES, at=st.integers(0, 5000), word=WORD)
def test_what_is_cut_and_replaced(
    first: bytes, pieces: list[bytes], more: list[bytes], at: int, word: bytes
) -> None:
    out, expected = Returns(first), bytearray(first)
    for piece in pieces:
        out.add(piece)
        expected += piece
    at = max(len(word), at % (len(expected) + 1))
    out.cut(at)
    del expected[at:]
    out.replace_first(word)
    expected[: len(word)] = word
    for piece in more:
        out.add(piece)
        expected += piece
    assert (out.octets(), out.size) == (expected, len(expected))
