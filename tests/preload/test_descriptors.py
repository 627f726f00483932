# SPDX-License-Identifier: Apache-2.0
"""Descriptors that arrive through the library, in programs that do their worst (O7, O8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from binderwire.extension_abi import BINDERD_INSTALLED
from preload.test_programs import ioctls

if TYPE_CHECKING:
    from pathlib import Path

    from preload.conftest import Stage

FIRST = 3  # the lowest number that a program with one open file is free to have, plus one
MANY = 600  # comes in several messages


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = [tmp_path / name for name in ("one", "two", "three")]
    for path in made:
        path.write_text(path.name)
    return made


def test_they_get_the_lowest_free_numbers(stage: Stage, files: list[Path]) -> None:
    stage.start("porter", "serve")
    for _ in range(3):  # each time the same, as the library keeps away from there
        assert stage.run("porter", "ask", "r", *files) == "4:one 5:two 6:three\n"
    assert stage.run("porter", "ask", "k", *files[:2]) == "4:one 5:two\n"
    assert stage.run("porter", "ask", "r", files[2]) == "6:three\n"


def test_they_come_through_the_socket(our_stage: Stage, files: list[Path], spied: Path) -> None:
    our_stage.start("porter", "serve")
    assert our_stage.run("porter", "ask", "r", *files) == "4:one 5:two 6:three\n"
    reported = [(rc, no) for _, word, rc, no in ioctls(spied) if word == BINDERD_INSTALLED]
    assert reported == [(0, 0)]


def test_more_than_one_message_takes(our_stage: Stage, files: list[Path]) -> None:
    our_stage.start("porter", "serve")
    wanted = " ".join(f"{number}:one" for number in range(4, 4 + MANY))
    assert our_stage.run("porter", "ask", "r", *[files[0]] * MANY) == wanted + "\n"
    assert our_stage.run("porter", "ask", "r", files[1]) == "4:two\n"


def test_nothing_is_left_open(our_stage: Stage, files: list[Path]) -> None:
    our_stage.start("porter", "serve")
    our_stage.run("porter", "ask", "r", *files)
    before = our_stage.run("porter", "ask", "n")
    for _ in range(5):
        our_stage.run("porter", "ask", "r", *files)
    assert our_stage.run("porter", "ask", "n") == before


def test_a_program_that_closes_everything(our_stage: Stage, files: list[Path]) -> None:
    our_stage.start("porter", "serve")
    assert our_stage.run("porter", "ask", "r", *files) == "4:one 5:two 6:three\n"
    assert our_stage.run("porter", "ask", "c") == "ok\n"
    assert our_stage.run("porter", "ask", "r", *files) == "4:one 5:two 6:three\n"


def test_a_socket_of_the_program_s_at_our_number(our_stage: Stage, files: list[Path]) -> None:
    """The library neither reads from it nor closes it, and finds another number."""
    our_stage.start("porter", "serve")
    assert our_stage.run("porter", "ask", "r", files[0]) == "4:one\n"
    assert our_stage.run("porter", "ask", "o") == "ok\n"
    count = int(our_stage.run("porter", "ask", "n"))
    said = our_stage.run("porter", "ask", "r", files[1])
    assert said.split(":")[1] == "two\n"
    assert int(our_stage.run("porter", "ask", "n")) == count
    assert our_stage.run("porter", "ask", "t") == "mine\n"


def test_a_full_table_of_descriptors(our_stage: Stage, files: list[Path]) -> None:
    """The call fails as it does with the driver; when there is room again it works again."""
    our_stage.start("porter", "serve")
    assert our_stage.run("porter", "ask", "r", files[0]) == "4:one\n"
    before = our_stage.run("porter", "ask", "n")
    assert our_stage.run("porter", "ask", "l") == "ok\n"
    assert our_stage.run("porter", "ask", "r", *files) == "failed\n"
    assert our_stage.run("porter", "ask", "u") == "ok\n"
    assert our_stage.run("porter", "ask", "n") == before
    assert our_stage.run("porter", "ask", "r", *files) == "4:one 5:two 6:three\n"


def test_a_child_takes_its_own(our_stage: Stage, files: list[Path]) -> None:
    our_stage.start("porter", "serve")
    assert our_stage.run("porter", "ask", "r", files[0]) == "4:one\n"
    assert our_stage.run("porter", "ask", "f") == "ok\n"
    assert our_stage.run("porter", "ask", "r", files[1]) == "child 4:two\n"
    assert our_stage.run("porter", "ask", "r", files[2]) == "4:three\n"
