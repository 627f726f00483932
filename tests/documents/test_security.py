# SPDX-License-Identifier: Apache-2.0
"""docs/SECURITY.md promises nothing without a test that is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "SECURITY.md"
TEST: Final = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def promises() -> list[tuple[str, list[tuple[str, str]]]]:
    """Return each promise with the (file, test) that hold it."""
    found = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("| ") and not line.startswith("| promise "):
            promise, held_by = line.strip("| ").split(" | ")
            found.append((promise, TEST.findall(held_by)))
    return found


def names_in(file: Path) -> set[str]:
    """Return the names of the functions in a file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_each_promise_has_a_test_that_is_there() -> None:
    assert len(promises()) > 20, "the tables are not read as they are written"
    for promise, tests in promises():
        assert tests, f"nothing holds: {promise}"
        for file, name in tests:
            assert name.startswith("test_")
            why = f"{file}::{name} is to hold: {promise}"
            assert (ROOT / file).is_file(), why
            assert name in names_in(ROOT / file), why


def test_every_test_that_is_named_is_in_a_table() -> None:
    named = TEST.findall(PAGE.read_text(encoding="utf-8"))
    assert sorted(named) == sorted(test for _, tests in promises() for test in tests)
