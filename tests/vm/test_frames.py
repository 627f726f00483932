# SPDX-License-Identifier: Apache-2.0
"""The frames between host and machine survive any cut of the byte stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm import frames

NUMBERS = st.integers(min_value=0, max_value=(1 << 32) - 1)
FRAMES = st.lists(st.tuples(st.integers(0, 255), NUMBERS, st.binary(max_size=40)), max_size=8)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
NAMES = st.text("ABC_", min_size=1, max_size=4)


@given(sent=FRAMES, cuts=st.lists(st.integers(1, 30), min_size=1, max_size=9))
def test_frames_arrive_as_sent(sent: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(frames.pack(*frame) for frame in sent)
    parser, position = frames.Parser(), 0
    received: list[tuple[int, int, bytes]] = []
    while position < len(stream):
        size = cuts[len(received) % len(cuts)]
        received += parser.feed(stream[position : position + size])
        position += size
    assert received == sent


@given(command=TEXT, directory=TEXT, environment=st.dictionaries(NAMES, TEXT, max_size=4))
def test_a_command_arrives_as_sent(
    command: str, directory: str, environment: dict[str, str]
) -> None:
    content = frames.pack_command(command, directory, environment)
    assert frames.unpack_command(content) == (command, directory, environment)


def test_a_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        frames.pack_command("echo \0", "/", {})
