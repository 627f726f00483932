# SPDX-License-Identifier: Apache-2.0
"""What the budget counts still runs, without anybody counting; and what is said of a number."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

HERE = Path(__file__).resolve().parent

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to reach clients' memory")


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """``run.py`` with a budget of 1000 instructions for these tools."""
    spec = importlib.util.spec_from_file_location("budget_run", HERE / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path = tmp_path / "budget.json"
    path.write_text(json.dumps({"these": 1000}))
    monkeypatch.setattr(module, "BUDGET", path)
    monkeypatch.setattr(module, "toolchain", lambda: "these")
    return module


@needs_root
def test_calls_are_made_and_answered() -> None:
    command = [sys.executable, str(HERE / "roundtrip.py"), "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("cost", "status"), [(1000, 0), (1050, 0), (1051, 1), (500, 0)])
def test_five_percent_more_are_too_many(budget: ModuleType, cost: int, status: int) -> None:
    assert budget.compare(cost, writes=False) == status


def test_other_tools_have_no_budget_until_one_is_written(
    budget: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "toolchain", lambda: "others")
    assert budget.compare(7, writes=False) == 2
    assert budget.compare(7, writes=True) == 0
    assert budget.compare(7, writes=False) == 0
