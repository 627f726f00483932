# SPDX-License-Identifier: Apache-2.0
"""Results where people see them: README's tables, its picture, and the data behind both.

README has a part between two marks, which is made here and by nobody else.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.errors import BenchError
from bench.picture import draw
from bench.report import crowds, loads, trips
from bench.systems import BINDER, SIZES

if TYPE_CHECKING:
    from bench.results import Results

ROOT: Final = Path(__file__).resolve().parents[2]
README: Final = ROOT / "README.md"
DATA: Final = ROOT / "docs" / "speed.json"
PICTURE: Final = ROOT / "docs" / "speed.svg"
BEGIN: Final = "<!-- what follows is made by: make bench ARGS=--publish -->\n"
COLUMNS: Final = 100
END: Final = "<!-- until here -->\n"


def publish(results: Results) -> None:
    """Writes all three.

    Raises:
        BenchError: README has not the marks.
    """
    text = README.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise BenchError("README.md has no place for results")
    README.write_text(f"{head}{BEGIN}{tables(results)}{END}{tail}", encoding="utf-8")
    PICTURE.write_text(draw(results), encoding="utf-8")
    DATA.write_text(data(results), encoding="utf-8")


def tables(results: Results) -> str:
    """The part of README."""
    facts = [results.machine.get(key, "") for key in ("cpu", "kernel", "daemon", "others")]
    rounds = len(results.of(BINDER, min(SIZES), pinned=True))
    about = f"{', '.join(fact for fact in facts if fact)}; medians of {rounds} rounds."
    parts = [
        textwrap.fill(about, COLUMNS),
        "A round trip in µs, and in brackets what the slowest of a hundred takes at least (p99):",
        trips(results),
        f"{results.clients()} at once, 16 B. CPU is the processor time of all that take part:",
        loads(results),
        "A call of 16 B, all on one core, without and beside others that do nothing:",
        crowds(results),
    ]
    return "\n" + "\n\n".join(parts) + "\n\n"


def data(results: Results) -> str:
    """JSON with a line for each sample, so that versions can be compared."""
    parts = []
    for key, value in results.as_json().items():
        if isinstance(value, list):
            items = ",\n".join(json.dumps(item) for item in value)
            parts.append(f'"{key}": [\n{items}\n]')
        else:
            parts.append(f'"{key}": {json.dumps(value, indent=1)}')
    return "{\n" + ",\n".join(parts) + "\n}\n"
