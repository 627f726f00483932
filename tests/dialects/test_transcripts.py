# SPDX-License-Identifier: Apache-2.0
"""Each Android's clients, as they were seen on the wire, against the service manager."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from binderwire.service_manager import DIALECTS
from dialects.player import Player

if TYPE_CHECKING:
    from client.conftest import Bench
    from dialects.conftest import Start

FOLDER = Path(__file__).parent / "transcripts"
TRANSCRIPTS = sorted(FOLDER.glob("*.txt"))
DECLARED = ("--declare", "a.IFoo/one,apex=com.apex,address=10.0.0.1:99", "--declare", "a.IFoo/two")


def test_there_is_one_for_each_android() -> None:
    names = {path.name.split("-")[1].removesuffix(".txt") for path in TRANSCRIPTS}
    assert names == {str(android) for android in DIALECTS}


@pytest.mark.parametrize("chosen", sorted(DIALECTS))
def test_each_method_is_in_it_and_succeeds(chosen: int) -> None:
    text = (FOLDER / f"android-{chosen}.txt").read_text()
    answered = {int(code, 0) for code in re.findall(r"^\w+> (\S+).*\n<", text, re.MULTILINE)}
    dialect = DIALECTS[chosen]
    missing = [each.name for each in dialect.methods if dialect.code(each.name) not in answered]
    assert missing == []


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(bench: Bench, start: Start, path: Path) -> None:
    manager = start("--android", path.stem.split("-")[1], *DECLARED)
    player = Player(bench.device)
    try:
        player.play(path.read_text().replace("MANAGER", str(manager.pid)))
    finally:
        player.close()
