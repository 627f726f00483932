# SPDX-License-Identifier: Apache-2.0
"""Makes docs/PARITY.md: which statement about the driver is proven by which scenario, and where.

    python tests/parity.py --write [RESULTS...]   after pytest: takes its results, writes both files
    python tests/parity.py --check                fails if docs/PARITY.md is not what it should be
    python tests/parity.py --verify [RESULTS...]  fails, too, if these results say anything else

The statements are read from docs/STATEMENTS.md, the scenarios and what each of them proves from the
tests. Where scenarios did not pass is in docs/parity.json, so that the table can be made on a
machine that cannot run them all: what is listed in the table and not there has passed. Results of
pytest sessions (build/parity-results.json, or the files that are named) are merged into it.
With --verify, such results prove that what is committed is still true.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from support.results import FAILED, PASSED, Results, read, results_file, write

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[1]
SCENARIOS: Final = ROOT / "tests" / "conformance"
DUELS: Final = SCENARIOS / "test_duels.py"  # compare whatever comes, and prove no statement
TABLE: Final = ROOT / "docs" / "PARITY.md"
RESULTS: Final = ROOT / "docs" / "parity.json"
LIST: Final = ROOT / "docs" / "STATEMENTS.md"
_UNPROVEN: Final = "## Statements that no scenario names"

# Backends in the order of the columns, and what they are.
BACKENDS: Final = {
    "engine": "the engine alone, with fake clients",
    "fuse": "the daemon behind FUSE, with real clients",
    "private": "the same, with each device bind-mounted alone: pages of the clients' own",
    "bare": "the same, as on a kernel without passthrough",
    "lane": "the first again, through lanes",
    "cuse": "the daemon behind CUSE, with real clients",
    "kernel": "Linux's own driver, with the same clients",
}
# Where a result of every scenario is asked for; the others may have some, or none yet.
COMPLETE: Final = ("engine", "fuse", "private", "bare", "kernel")
NOT_PLAYED: Final = "not played"  # in docs/parity.json only: no result
# How an excuse begins that holds everywhere. Others are the machine's that plays the scenario.
LASTING: Final = "differs:"
SECTIONS: Final = {
    "R": "Reading",
    "Q": "Queues",
    "E": "Errors",
    "F": "Freezing",
    "N": "Nodes and handles",
    "B": "Buffers",
    "O": "Objects",
    "I": "Identity and lifetime",
    "BINDER_": "ioctls",
    "BC_": "Commands",
    "BR_": "Returns",
}
HEAD: Final = """\
# Parity with the driver

What the binder driver does, statement by statement; the scenarios in tests/conformance that prove
it; and where they have passed. `python tests/parity.py --write` makes this file from
[STATEMENTS.md](STATEMENTS.md), the tests and docs/parity.json, which has only what did not pass:
change those.

A ✓ means that all scenarios of the statement pass; 3/4, that one of the four was not played there,
or differs there on purpose (the reasons are at the end); ✗, that one fails; –, that none was
played."""


def _rows(text: str) -> dict[str, str]:
    """Return the rows of tables with two columns, without their heads."""
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    return {code: said for code, said in rows if code != "code"}


_proven_text, _, _unproven_text = LIST.read_text(encoding="utf-8").partition(_UNPROVEN)
STATEMENTS: Final = _rows(_proven_text)
UNPROVEN: Final = _rows(_unproven_text)  # statements that no scenario names, and why


def scenarios() -> dict[str, tuple[str, ...]]:
    """Return every scenario, as "file:test", with the codes of the statements that it proves."""
    found = {}
    for file in sorted(set(SCENARIOS.glob("test_*.py")) - {DUELS}):
        if file.stem == "test_statements":
            continue
        for item in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(item, ast.FunctionDef) and item.name.startswith("test_"):
                found[f"{file.stem}:{item.name}"] = tuple(_named(item))
    return found


def _named(function: ast.FunctionDef) -> Iterator[str]:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "statements":
            yield from (ast.literal_eval(argument) for argument in decorator.args)


def section_of(code: str) -> str:
    """Return the key of the section that a statement is listed in."""
    if code == "unknown ioctl":
        return "BINDER_"
    return next(key for key in SECTIONS if code.startswith(key) and (len(key) > 1 or len(code) < 4))


def render(proven: dict[str, tuple[str, ...]], results: Results) -> str:
    """Return the text of docs/PARITY.md."""
    columns = [name for name in BACKENDS if name in results]
    lines = [HEAD, "", *(_summary(name, proven, results[name]) for name in columns)]
    for key, title in SECTIONS.items():
        codes = [code for code in STATEMENTS if section_of(code) == key]
        lines += ["", f"## {title}", "", f"| | | scenarios | {' | '.join(columns)} |"]
        lines.append("|---|---|---|" + "---|" * len(columns))
        lines += [_row(code, proven, results, columns) for code in codes]
    lines += _excuses(proven, results, columns)
    return "\n".join(lines) + "\n"


def _summary(name: str, proven: dict[str, tuple[str, ...]], outcomes: dict[str, str]) -> str:
    """Say what a backend is, and how many statements hold there."""
    cells = [
        _cell([test for test, codes in proven.items() if code in codes], outcomes)
        for code in STATEMENTS
    ]
    counts = f"{cells.count('✓')} of {len(cells)} statements ✓"
    counts += f", {sum('/' in cell for cell in cells)} in part"
    if "✗" in cells:
        counts += f", {cells.count('✗')} ✗"
    return f"- **{name}**, {BACKENDS[name]}: {counts}"


def _row(
    code: str, proven: dict[str, tuple[str, ...]], results: Results, columns: list[str]
) -> str:
    tests = [test for test, codes in proven.items() if code in codes]
    cells = [_cell(tests, results[name]) for name in columns]
    shown = _listed(tests) if tests else f"none: {UNPROVEN[code]}"
    return f"| {code} | {STATEMENTS[code]} | {shown} | {' | '.join(cells)} |"


def _cell(tests: list[str], outcomes: dict[str, str]) -> str:
    found = [outcomes.get(test) for test in tests]
    passed = found.count(PASSED)
    if FAILED in found:
        return "✗"
    if not passed:
        return "–"
    return "✓" if passed == len(tests) else f"{passed}/{len(tests)}"


def _listed(tests: list[str]) -> str:
    """Return the scenarios of each file in a row, readable."""
    files: dict[str, list[str]] = {}
    for test in tests:
        file, _, name = test.partition(":")
        files.setdefault(file.removeprefix("test_"), []).append(_readable(name))
    return "; ".join(f"*{file}*: {', '.join(names)}" for file, names in files.items())


def _readable(name: str) -> str:
    return name.removeprefix("test_").replace("_s_", "'s ").replace("_", " ")


def _excuses(
    proven: dict[str, tuple[str, ...]], results: Results, columns: list[str]
) -> Iterator[str]:
    """Yield what was not played as elsewhere, and why."""
    yield from ("", "## Not played as elsewhere", "")
    for name in columns:
        reasons: dict[str, list[str]] = {}
        for test in proven:
            outcome = results[name].get(test, PASSED)
            if outcome not in (PASSED, FAILED):
                reasons.setdefault(outcome, []).append(test)
        for reason, tests in reasons.items():
            yield f"- {name}, {reason}: {_listed(tests)}"


def merged(files: list[Path]) -> Results:
    """Return what is committed with the results of these files, as far as the scenarios exist."""
    proven, results = scenarios(), committed()
    listed = _listed_in(TABLE.read_text(encoding="utf-8"))
    for outcomes in results.values():  # that a new scenario would have passed is known of none
        for test in [test for test in outcomes if _listed([test]) not in listed]:
            del outcomes[test]
    for file in files:
        for backend, outcomes in read(file).items():
            earlier = results.setdefault(backend, {})
            for test, outcome in outcomes.items():
                # That it could not be played here is no news of what passed elsewhere.
                if earlier.get(test) != PASSED or _is_lasting(outcome):
                    earlier[test] = outcome
    return {
        backend: {test: outcome for test, outcome in outcomes.items() if test in proven}
        for backend, outcomes in results.items()
        if backend in BACKENDS
    }


def committed() -> Results:
    """Return what docs/parity.json says of every scenario."""
    proven = scenarios()
    return {
        backend: {
            test: outcome
            for test in proven
            if (outcome := exceptions.get(test, PASSED)) != NOT_PLAYED
        }
        for backend, exceptions in read(RESULTS).items()
    }


def exceptions_of(results: Results) -> Results:
    """Return what docs/parity.json is to have of results."""
    return {
        backend: {
            test: outcome
            for test in scenarios()
            if (outcome := outcomes.get(test, NOT_PLAYED)) != PASSED
        }
        for backend, outcomes in results.items()
    }


def _listed_in(text: str) -> set[str]:
    """Return the scenarios that a table lists, each as ``_listed`` has it alone."""
    rows = re.findall(r"(\*\w+\*): ([^;|\n]+)", text)
    return {f"{file}: {name.strip()}" for file, names in rows for name in names.split(", ")}


def problems() -> list[str]:
    """Return what is wrong with the committed table, nothing if it is as it should be."""
    proven, results, exceptions = scenarios(), committed(), read(RESULTS)
    found = []
    for backend in BACKENDS:
        missing = proven.keys() - results.get(backend, {}).keys()
        if backend in COMPLETE and missing:
            found.append(f"{backend}: no results of {', '.join(sorted(missing))}")
        gone = exceptions.get(backend, {}).keys() - proven.keys()
        if gone:
            found.append(f"{backend}: results of what is gone: {', '.join(sorted(gone))}")
        if PASSED in exceptions.get(backend, {}).values():
            found.append(f"{backend}: {RESULTS.relative_to(ROOT)} has what passed, too")
    if not TABLE.exists() or TABLE.read_text(encoding="utf-8") != render(proven, results):
        found.append(f"{TABLE.relative_to(ROOT)} is not what the tests and results make of it")
    return found


def contradictions(files: list[Path], complete: list[str]) -> list[str]:
    """Return where results of sessions are not what docs/parity.json says.

    Args:
        files: the results.
        complete: backends of which these must have a result of every scenario.
    """
    proven, known = scenarios(), committed()
    played: Results = {}
    for file in files:
        for backend, outcomes in read(file).items():
            played.setdefault(backend, {}).update(outcomes)
    found = []
    for backend in complete:
        missing = sorted(proven.keys() - played.get(backend, {}).keys())
        if missing:
            found.append(f"{backend}: not played: {', '.join(missing)}")
    for backend, outcomes in played.items():
        for test, outcome in outcomes.items():
            written = known.get(backend, {}).get(test)
            if test in proven and written is not None and not _agree(written, outcome):
                found.append(f"{backend}: {test}: {outcome!r}, but written is {written!r}")
    return found


def _agree(written: str, outcome: str) -> bool:
    """Return whether two outcomes can both be true, on machines that differ."""
    if FAILED in (written, outcome):
        return False
    return written == outcome or not (_is_lasting(written) and _is_lasting(outcome))


def _is_lasting(outcome: str) -> bool:
    """Return whether an outcome is the same on all machines that can play the scenario."""
    return outcome in (PASSED, FAILED) or outcome.startswith(LASTING)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true")
    action.add_argument("--check", action="store_true")
    action.add_argument("--verify", action="store_true")
    parser.add_argument("--complete", action="append", default=[], choices=BACKENDS)
    parser.add_argument("results", nargs="*", type=Path)
    arguments = parser.parse_args()
    files = arguments.results or [results_file()]
    if arguments.write:
        results = merged(files)
        write(RESULTS, exceptions_of(results))
        TABLE.write_text(render(scenarios(), results), encoding="utf-8")
    found = problems()
    if arguments.verify:
        found += contradictions(files, arguments.complete)
    for problem in found:
        print(f"parity: {problem}", file=sys.stderr)
    if found:
        print("parity: run pytest tests/conformance, then tests/parity.py --write", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
