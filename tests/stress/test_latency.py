# SPDX-License-Identifier: Apache-2.0
"""The workers count where HdrHistogram's library reads, and the board is where both think."""

from __future__ import annotations

import random
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from binderclient.stress.board import Board, read_layout
from binderclient.stress.errors import StressError
from binderclient.stress.latency import read_counts
from preload import toolbox
from stress.conftest import FLAGS, SOURCES

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS: Final = {"servers": 2, "clients": 11, "threads": 3}
PROGRAM: Final = """\
#include "board.h"
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv)
{
	unsigned long long ns;

	board_open(atoi(argv[argc - 1]));
	board_be(12, 5);
	while (scanf("%llu", &ns) == 1)
		board_record((unsigned)(ns % 11), ONEWAY, ns);
	board_complain(&self->lost, "%s %d", "lost", 1);
	board_complain(&self->lost, "%s", "not the first");
	board_sent(1, 32)->oneways = 7;
	board_sent(1, 32)->client_life = 5;
	board_received(1, 32)->oneways = 6;
	board_link(12, 1)->linked = 3;
	board_link(12, 1)->life = 4;
	return 0;
}
"""


@pytest.fixture(scope="session")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("recorder")
    source = directory / "recorder.c"
    source.write_text(PROGRAM)
    return toolbox.compiled(source, directory, *FLAGS, f"-I{SOURCES}", str(SOURCES / "board.c"))


def test_every_value_is_where_the_library_finds_it(worker: Path, recorder: Path) -> None:
    dice = random.Random(1)
    edges = [2**power + offset for power in range(41) for offset in (-1, 0, 1)]
    values = [*edges, 10**12, *(int(10 ** dice.uniform(3, 12)) for _ in range(5000))]
    layout = read_layout(worker)
    board = Board(layout, SETTINGS)
    try:
        subprocess.run(
            [recorder, str(board.fd)],
            input="\n".join(map(str, values)).encode(),
            pass_fds=[board.fd],
            check=True,
        )
        latency = read_counts(layout, [board.counts(1)])
        assert board.counts(0) == [0] * layout.counts_size
        assert board.complaint(12) == "lost 1"
        assert (board.field(12, "lost"), board.worker(12)["life"]) == (2, 5)
        assert [(s, t, a.oneways, b.oneways) for s, t, a, b in board.cells()] == [(1, 32, 7, 6)]
        assert [(a, b, tuple(link)) for a, b, link in board.links()] == [(12, 1, (3, 0, 4))]
    finally:
        board.close()
    values = sorted(min(value, layout.highest) for value in values)
    assert latency.calls == len(values)
    assert latency.max == pytest.approx(values[-1] / 1000, rel=0.001)
    for name, microseconds in latency.percentiles.items():
        rank = max(round(float(name[1:]) / 100 * len(values)), 1)
        assert microseconds == pytest.approx(values[rank - 1] / 1000, rel=0.002, abs=0.6), name


def test_no_values(worker: Path) -> None:
    layout = read_layout(worker)
    latency = read_counts(layout, [[0] * layout.counts_size])
    assert (latency.calls, latency.max, latency.curve) == (0, 0.0, [])


def test_another_program(tmp_path: Path) -> None:
    program = tmp_path / "program"
    for text in ("#!/bin/sh\necho hello\n", "#!/bin/sh\nexit 1\n", "#!/bin/sh\necho '{}'\n", ""):
        program.write_text(text)
        program.chmod(0o755)
        with pytest.raises(StressError, match="does not work"):
            read_layout(program)
