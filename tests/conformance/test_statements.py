# SPDX-License-Identifier: Apache-2.0
"""Every statement of the behaviour reference that we claim to keep is named by some scenario."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

from binderwire.binder_abi import IOCTLS

if TYPE_CHECKING:
    from collections.abc import Iterator


def numbered(letter: str, last: int, *, without: tuple[int, ...] = ()) -> set[str]:
    return {f"{letter}{number}" for number in range(1, last + 1) if number not in without}


# R7 and B4 to B6, I2, I3, O3 to O10, E3, E8 and all of F need objects or ioctls that are not
# implemented yet.
CLAIMED = (
    numbered("R", 15, without=(7,))
    | numbered("Q", 11)
    | numbered("E", 7, without=(3,))
    | numbered("N", 12)
    | numbered("B", 9, without=(4, 6))
    | numbered("I", 8, without=(2, 3))
    | numbered("O", 2)
    | {
        "BINDER_WRITE_READ",
        "BINDER_SET_MAX_THREADS",
        "BINDER_SET_CONTEXT_MGR",
        "BINDER_SET_CONTEXT_MGR_EXT",
        "BINDER_THREAD_EXIT",
        "BINDER_VERSION",
        "unknown ioctl",
    }
)


def scenarios() -> Iterator[tuple[str, set[str]]]:
    """Yield each test function of this folder and the statements that it names."""
    for file in sorted(Path(__file__).parent.glob("test_*.py")):
        for item in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(item, ast.FunctionDef) and item.name.startswith("test_"):
                yield f"{file.name}:{item.name}", set(_named(item))


def _named(function: ast.FunctionDef) -> Iterator[str]:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "statements":
            yield from (ast.literal_eval(argument) for argument in decorator.args)


def test_every_claimed_statement_has_a_scenario() -> None:
    named = set().union(*(codes for _, codes in scenarios()))
    assert named >= CLAIMED
    assert {code for code in named if code.startswith("BINDER_")} <= {
        row.name for row in IOCTLS.values()
    }


def test_every_scenario_names_what_it_proves() -> None:
    here = Path(__file__).name
    assert [name for name, codes in scenarios() if not codes and not name.startswith(here)] == []
