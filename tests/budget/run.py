# SPDX-License-Identifier: Apache-2.0
"""Budget: the instructions that a call costs the daemon, and the number that they must keep to.

Times depend on who else is there; instructions do not. callgrind counts those of the compiled
daemon (in user space, the system calls themselves are not in it) while it serves the calls of
``roundtrip.py``: two runs differ by less than a thousandth. What a call costs is compared with
budget.json, which has a number for each version of Python, mypy and the C compiler with which it
was counted: other versions make other instructions of the same lines.

Exit status: 0, it keeps to the budget; 1, it exceeds that by more than 5 %; 2, it could not be
counted, or there is no number to compare with.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUDGET = HERE / "budget.json"
BUILD = HERE.parents[1] / "build" / "budget"
CALLS = 300
TOLERANCE = 0.05
SECONDS_MAX = 120
PARTS = ("switch", "calls")  # in the order in which roundtrip.py ends them

# callgrind's file of one part
_PART = re.compile(r"^desc: Trigger: Client Request: (\w+)$", re.MULTILINE)
_TOTALS = re.compile(r"^totals: (\d+)$", re.MULTILINE)


class Unable(Exception):
    """Nothing could be counted; the text is for the user."""


def toolchain() -> str:
    """What the number depends on beside our own code."""
    compiler = os.environ.get("CC", "cc")
    asked = subprocess.run([compiler, "-dumpversion"], capture_output=True, text=True, check=True)
    python = ".".join(map(str, sys.version_info[:2]))
    mypy = ".".join(version("mypy").split(".")[:2])
    return f"Python {python}, mypy {mypy}, {compiler} {asked.stdout.split('.')[0].strip()}"


def library() -> Path:
    """The compiled collect.c, made now if it is older than that."""
    source, target = HERE / "collect.c", BUILD / "collect.so"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        BUILD.mkdir(parents=True, exist_ok=True)
        command = [os.environ.get("CC", "cc"), "-O2", "-Wall", "-Wextra", "-Werror", "-shared"]
        if subprocess.run([*command, "-fPIC", "-o", str(target), str(source)]).returncode:
            raise Unable("collect.c does not compile; `make budget` installs what it needs")
    return target


def count(calls: int, folder: Path) -> dict[str, Path]:
    """Let callgrind count; return its file of each part."""
    command = [
        *("valgrind", "--tool=callgrind", "--quiet", f"--callgrind-out-file={folder / 'out'}"),
        *("--instr-atstart=no", "--collect-atstart=no"),
        *(sys.executable, str(HERE / "roundtrip.py"), str(calls), str(library())),
    ]
    # Where things are in tables must not depend on chance.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    try:
        done = subprocess.run(command, env=environment, timeout=SECONDS_MAX, check=False)
    except subprocess.TimeoutExpired:
        raise Unable(f"it is not done after {SECONDS_MAX} s") from None
    if done.returncode:
        raise Unable(f"roundtrip.py failed (status {done.returncode})")
    found = {}
    for path in folder.iterdir():
        part = _PART.search(path.read_text())
        if part is not None:
            found[part[1]] = path
    if missing := set(PARTS) - found.keys():
        raise Unable(f"callgrind has counted nothing of {', '.join(sorted(missing))}")
    return found


def total(path: Path) -> int:
    """How many instructions a part took."""
    found = _TOTALS.search(path.read_text())
    if found is None:
        raise Unable(f"{path} has no total")
    return int(found[1])


def show_profile(path: Path, lines: int) -> None:
    """Print which functions the instructions are in."""
    command = ["callgrind_annotate", "--show-percs=yes", "--auto=no", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    print("\n".join(done.stdout.splitlines()[:lines]))


def compare(cost: int, *, writes: bool) -> int:
    """Compare a call's cost with the budget, or make it the budget; return the exit status."""
    tools, budgets = toolchain(), json.loads(BUDGET.read_text())
    print(f"{cost} instructions per call ({tools})")
    if writes:
        budgets[tools] = cost
        BUDGET.write_text(json.dumps(budgets, indent=2, sort_keys=True) + "\n")
        return 0
    budget = budgets.get(tools)
    if budget is None:
        print(f"there is no budget for {tools}: `make budget ARGS=--write` makes this one it")
        return 2
    print(f"the budget is {budget}: {cost / budget - 1:+.1%}")
    if cost > budget * (1 + TOLERANCE):
        print("too much: make it cheaper, or say in the commit why it is worth that (--write)")
        return 1
    if cost < budget * (1 - TOLERANCE):
        print("that is worth keeping: `make budget ARGS=--write`")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="budget", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--write", action="store_true", help="make what is counted the budget")
    add("--calls", type=int, default=CALLS, metavar="N", help="to count (%(default)s)")
    add("--profile", type=int, default=0, metavar="LINES", help="show the costliest functions")
    settings = parser.parse_args()
    from binderd.compilation import describe

    try:
        if shutil.which("valgrind") is None:
            raise Unable("valgrind is not installed; `make budget` installs it")
        if (kind := describe()) != "compiled":
            raise Unable(f"the daemon is {kind}: `make budget` has it compiled")
        with tempfile.TemporaryDirectory(prefix="binderd-budget-") as folder:
            parts = count(settings.calls, Path(folder))
            cost = (total(parts["calls"]) - total(parts["switch"])) // settings.calls
            if settings.profile:
                show_profile(parts["calls"], settings.profile)
        return compare(cost, writes=settings.write)
    except Unable as reason:
        print(f"budget: {reason}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
