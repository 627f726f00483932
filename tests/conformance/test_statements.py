# SPDX-License-Identifier: Apache-2.0
"""Every statement about the driver is proven by some scenario, and the table of them is current."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import parity
from binderwire.binder_abi import COMMANDS, IOCTLS, RETURNS
from parity import STATEMENTS, UNPROVEN
from support.results import PASSED, read, write

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

LAST = {"R": 15, "Q": 11, "E": 8, "F": 5, "N": 12, "B": 9, "O": 10, "I": 8}


def test_there_is_a_statement_for_everything() -> None:
    numbered = {f"{letter}{n}" for letter, last in LAST.items() for n in range(1, last + 1)}
    named = {row.name for table in (IOCTLS, COMMANDS, RETURNS) for row in table.values()}
    assert set(STATEMENTS) == numbered | named | {"unknown ioctl"}
    assert all(re.fullmatch(r"\S.+[^.\s]", title) for title in STATEMENTS.values())


def test_every_statement_has_a_scenario_or_a_reason_to_have_none() -> None:
    proven = {code for codes in parity.scenarios().values() for code in codes}
    assert STATEMENTS.keys() - proven == UNPROVEN.keys()
    assert proven <= STATEMENTS.keys()


def test_every_scenario_names_what_it_proves() -> None:
    assert [test for test, codes in parity.scenarios().items() if not codes] == []


def test_a_scenario_that_the_table_does_not_list_has_no_results(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As what passed is not written down, a new scenario must not be taken for passed."""
    new = next(test for test in parity.scenarios() if test.startswith("test_queues:"))
    said = new.removeprefix("test_queues:test_").replace("_s_", "'s ").replace("_", " ")
    table, results = tmp_path / "table", tmp_path / "results"
    table.write_text(parity.TABLE.read_text(encoding="utf-8").replace(said, "something else"))
    monkeypatch.setattr(parity, "TABLE", table)
    assert parity.committed()["engine"][new] == PASSED
    assert new not in parity.merged([])["engine"]
    write(results, {"engine": {new: PASSED}})
    assert parity.merged([results])["engine"][new] == PASSED
    monkeypatch.setattr(parity, "RESULTS", results)
    write(results, parity.exceptions_of({"engine": {new: PASSED}}))
    assert new not in read(results)["engine"]
    assert set(read(results)["engine"].values()) == {parity.NOT_PLAYED}


def test_the_table_is_current() -> None:
    assert parity.problems() == []
