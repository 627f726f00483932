# SPDX-License-Identifier: Apache-2.0
"""All attacks, one after the other, with victims that are measured: `make hostile`.

The daemon must be the compiled one. The table shows what the victims see before and under each
attack, in milliseconds, and what they saw before there was any defence (before.jsonl). The
exit status is 1 if any figure is over its target.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hostile.play import HERE, Result, play
from hostile.table import ATTACKS, BY_NAME, WAKING, Attack
from hostile.victims import build

if TYPE_CHECKING:
    from collections.abc import Sequence

BEFORE: Final = HERE / "before.jsonl"
HEADER: Final = "| attack | quiet p50 | p99 | max | under p50 | p99 | max | was p99 | max | over |"
RULE: Final = "|:--|--:|--:|--:|--:|--:|--:|--:|--:|:--|"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make hostile", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--only", action="append", choices=sorted(BY_NAME), metavar="NAME", help="this attack alone"
    )
    parser.add_argument("--short", action="store_true", help="as small as in 'make test'")
    parser.add_argument("--quiet", type=float, default=2.0, help="seconds before each (2)")
    parser.add_argument(
        "--json", action="store_true", help="a line of data for each, instead of a table"
    )
    parser.add_argument(
        "--interpreted", action="store_true", help="do not insist on the compiled daemon"
    )
    return parser.parse_args(arguments)


def is_compiled() -> bool:
    words = [sys.executable, "-m", "binderd", "--version"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return "interpreted" not in said


def read_before() -> dict[str, Result]:
    if not BEFORE.exists():
        return {}
    lines = BEFORE.read_text(encoding="utf-8").splitlines()
    return {found.name: found for found in (Result.of_data(json.loads(line)) for line in lines)}


class Verdict:
    """What is over its target, of all that was played so far."""

    def __init__(self) -> None:
        self.over = 0
        self._scheduler = 0.0

    def of(self, attack: Attack, found: Result) -> str:
        """Return what is over, "no" for nothing; the next must be another attack."""
        if attack is WAKING:
            self._scheduler = max(found.under.p99 - found.quiet.p99, 0.0)
        complaints = found.failures(attack.kind, self._scheduler if attack.by_many else 0.0)
        self.over += bool(complaints)
        return "; ".join(complaints) or "no"


def selected(names: Sequence[str]) -> list[Attack]:
    """Return the attacks of those names, or all; and what they are compared with."""
    attacks = [attack for attack in ATTACKS if not names or attack.name in names]
    if any(attack.by_many for attack in attacks) and WAKING not in attacks:
        attacks.insert(0, WAKING)
    return attacks


def row(attack: Attack, now: Result, before: Result | None, verdict: str) -> str:
    """Return a line of the table."""
    figures = [*now.quiet[2:5], *now.under[2:5]]
    cells = [f"{figure:.2f}" for figure in figures]
    cells += [f"{figure:.2f}" for figure in before.under[3:5]] if before else ["–", "–"]
    return " | ".join([f"| {attack.title}", *cells, verdict]) + " |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status."""
    options = parse(arguments)
    if os.geteuid() != 0:
        print("make hostile: needs root, for users and a mount", file=sys.stderr)
        return 1
    if not options.interpreted and not is_compiled():
        print("make hostile: the daemon is not compiled; run 'make hostile'", file=sys.stderr)
        return 1
    attacks = selected(options.only or [])
    before, verdict = read_before(), Verdict()
    if not options.json:
        print(HEADER, RULE, sep="\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="binderd-hostile-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        program = build(folder)
        for attack in attacks:
            size = attack.short if options.short else attack.size
            found = play(attack, program, folder / attack.name, size, options.quiet)
            said = verdict.of(attack, found)
            line = json.dumps(found.as_data()) if options.json else None
            print(line or row(attack, found, before.get(attack.name), said), flush=True)
    print(f"{len(attacks)} attacks, {verdict.over} over their targets", file=sys.stderr)
    return 1 if verdict.over else 0


if __name__ == "__main__":
    sys.exit(main())
