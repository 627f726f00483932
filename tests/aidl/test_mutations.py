# SPDX-License-Identifier: Apache-2.0
"""Files that were damaged at random: a result, or an error with a position inside of the file."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from aidl.conftest import sources
from binderclient.aidl.checks import compile_files
from binderclient.aidl.errors import AidlError
from binderclient.aidl.generator import generate

if TYPE_CHECKING:
    from collections.abc import Callable

FILES: Final = [Path(each) for each in [*sources("android10"), *sources("later")]]
PER_FILE: Final = 60
SECONDS_MAX: Final = 5.0
_TOKEN: Final = re.compile(r"\w+|\s+|.", re.DOTALL)
_TEXT: Final = """\
interface parcelable union enum const oneway in out inout int[] List< Map<String, > >> { } ( ) [ ]
; , . = == @ @nullable @Backing(type= 0xFFFFFFFFFFFFFFFFFF -1 1/0 << " ' /* */ // \0 é void int
String ParcelableHolder true 1e999 'x' "x" package import FixedSize"""
_WORDS: Final = _TEXT.split()


def _drop(parts: list[str], chance: random.Random) -> None:
    del parts[chance.randrange(len(parts))]


def _double(parts: list[str], chance: random.Random) -> None:
    place = chance.randrange(len(parts))
    parts.insert(place, parts[place])


def _swap(parts: list[str], chance: random.Random) -> None:
    one, other = chance.randrange(len(parts)), chance.randrange(len(parts))
    parts[one], parts[other] = parts[other], parts[one]


def _insert(parts: list[str], chance: random.Random) -> None:
    parts.insert(chance.randrange(len(parts) + 1), f" {chance.choice(_WORDS)} ")


def _replace(parts: list[str], chance: random.Random) -> None:
    parts[chance.randrange(len(parts))] = f" {chance.choice(_WORDS)} "


def _cut(parts: list[str], chance: random.Random) -> None:
    del parts[chance.randrange(1, len(parts)) :]


def _repeat(parts: list[str], chance: random.Random) -> None:
    start = chance.randrange(len(parts))
    piece = parts[start : start + chance.randrange(1, 20)]
    parts[start:start] = piece * chance.randrange(1, 50)


_DAMAGES: Final[tuple[Callable[[list[str], random.Random], None], ...]] = (
    _drop,
    _double,
    _swap,
    _insert,
    _replace,
    _cut,
    _repeat,
)


def damaged(text: str, chance: random.Random) -> str:
    """Return a text with some damage."""
    parts = _TOKEN.findall(text)
    for _ in range(chance.randrange(1, 4)):
        if len(parts) > 2:
            chance.choice(_DAMAGES)(parts, chance)
    return "".join(parts)


@pytest.mark.parametrize("source", FILES, ids=lambda each: each.stem)
def test_damaged_files(source: Path, tmp_path: Path) -> None:
    root = next(each for each in source.parents if each.parent.name == "corpus")
    path = tmp_path / source.relative_to(root)
    path.parent.mkdir(parents=True)
    includes = [str(each) for each in root.parent.iterdir() if each != root]
    for other in root.rglob("*.aidl"):
        if other != source:
            copy = tmp_path / other.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(other.read_bytes())
    refused = 0
    for number in range(PER_FILE):
        text = damaged(source.read_text("utf-8"), random.Random(f"{source.stem} {number}"))
        path.write_text(text, "utf-8")
        start = time.monotonic()
        try:
            for document in compile_files([str(path)], includes).documents:
                generate(document)
        except AidlError as error:
            refused += 1
            for each in error.all:
                check_position(each)
        assert time.monotonic() - start < SECONDS_MAX, text
    assert refused > PER_FILE // 3


def check_position(error: AidlError) -> None:
    """Check that an error is about a place that there is."""
    path, line, column = error.position
    lines = Path(path).read_text("utf-8").split("\n")
    assert 1 <= line <= len(lines), error
    assert 1 <= column <= len(lines[line - 1]) + 1, error
    assert error.text
    assert "\n" not in error.text
