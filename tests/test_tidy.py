# SPDX-License-Identifier: Apache-2.0
"""The style rules that a program can check, for every Python file of the repository."""

from __future__ import annotations

import ast
import io
import itertools
import re
import runpy
import tokenize
import tomllib
from pathlib import Path

import pytest

from parity import STATEMENTS

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("protocol", "daemon", "client", "tests", "docs")
FILE_LINES_MAX = 600
LINE_COLUMNS_MAX = 100
FUNCTION_LINES_MAX = 70
FUNCTION_LINES_USUAL = 40
LICENSE = "# SPDX-License-Identifier: Apache-2.0"
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
PRAGMA = re.compile(r"\s+# (noqa|type: ignore).*")  # does not count as part of the line

FILES = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if not any(part.startswith(".") or part == "build" for part in path.relative_to(ROOT).parts)
)
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


@every_file
def test_file_starts_with_its_license_and_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    first = 1 if lines[0].startswith("#!") else 0
    assert lines[first] == LICENSE
    assert ast.get_docstring(ast.parse(text)), "no module docstring"


@every_file
def test_file_fits(path: Path) -> None:
    lines = [PRAGMA.sub("", line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(lines) <= FILE_LINES_MAX
    assert [n for n, line in enumerate(lines, 1) if len(line) > LINE_COLUMNS_MAX] == []
    assert [n for n, line in enumerate(lines, 1) if UNFINISHED.search(line)] == []


def lengths(path: Path) -> dict[str, int]:
    """Return the physical lines of each function of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        f"{path.relative_to(ROOT)}:{item.lineno} {item.name}": item.end_lineno - item.lineno + 1
        for item in ast.walk(tree)
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and item.end_lineno
    }


def test_functions_fit() -> None:
    sizes = {name: size for path in FILES for name, size in lengths(path).items()}
    for name, size in sizes.items():
        if size > FUNCTION_LINES_USUAL:
            print(f"{name}: {size} lines, usual are {FUNCTION_LINES_USUAL}")
    assert {name: size for name, size in sizes.items() if size > FUNCTION_LINES_MAX} == {}


def test_every_package_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    setuptools = settings["tool"]["setuptools"]
    found = {
        ".".join((name, *file.parent.relative_to(ROOT / folder).parts))
        for name, folder in setuptools["package-dir"].items()
        for file in (ROOT / folder).rglob("__init__.py")
    }
    assert found == set(setuptools["packages"])


def test_the_rules_reach_every_folder() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(FOLDERS)


def test_what_the_recipes_make_is_ignored() -> None:
    texts = [ROOT / "client" / "README.md", *(ROOT / "client" / "examples").glob("*.c")]
    recipes = "\n".join(text.read_text(encoding="utf-8") for text in texts)
    programs = sorted(set(re.findall(r"cc -O2 -Wall -o (\S+)", recipes)))
    assert programs
    assert "/build/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert [program for program in programs if not program.startswith("build/")] == []


# What only binderd.linux may do, as far as a name tells it. Prose (docstrings, comments) may.
LINUX_ONLY = re.compile(
    r"""
    CDLL | PyDLL | SCM_RIGHTS | send_fds | recv_fds | pidfd_open | pidfd_send_signal | pidfd_getfd
    """,
    re.VERBOSE,
)
# Names of trials that people read.
SHOWN = re.compile(r"/proc/PID/\w+|pidfd_\w+")


def asked_of_linux(path: Path) -> list[str]:
    """Return what a file asks of Linux by itself: loads the C library, opens a file of /proc."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    prose = {
        id(item.value)
        for item in ast.walk(tree)
        if isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant)
    }
    found = []
    for item in ast.walk(tree):
        name = getattr(item, "attr", None) or getattr(item, "id", None)
        if isinstance(item, ast.alias):
            name = item.name
        if isinstance(name, str) and LINUX_ONLY.fullmatch(name):
            found.append(f"{path.name}:{getattr(item, 'lineno', 0)} {name}")
        if isinstance(item, ast.Constant) and id(item) not in prose:
            value = item.value
            text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
            if text.startswith("/proc") and not SHOWN.fullmatch(text):
                found.append(f"{path.name}:{item.lineno} {text}")
    return found


def test_one_package_asks_linux() -> None:
    package = ROOT / "daemon" / "binderd"
    files = [path for path in package.rglob("*.py") if path.parent.name != "linux"]
    assert [one for path in files for one in asked_of_linux(path)] == []
    assert [one for path in (package / "linux").glob("*.py") for one in asked_of_linux(path)]


# Citations: what prose names must be there.
TRACKED_FOLDERS = (*FOLDERS, "systemd", "debian")
PROSE = {".py", ".c", ".h", ".md", ".sh"}
FILE_NAME = re.compile(r"(?<![\w/.*<{}$-])((?:[\w.-]+/)*[\w-]+\.(?:py|md|c|h|sh))(?![\w(*/-])")
STATEMENT = re.compile(r"(?<![\w.])([RQEFNBOI]\d{1,2})(?!\w)")
UNSHARED = re.compile(r"\b[Ii]ssue #?\d|\bbehaviour reference\b")
# Headers of systems, and what programs make.
ELSEWHERE = re.compile(r"Python\.h|(utils|binder)/\w+\.h|linux/\w+\.h|sys/\w+\.h|share/.*|build/.*")


def prose_of(path: Path) -> list[tuple[int, str]]:
    """Return the lines of comments, docstrings and documents, with their numbers."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        found = []
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            is_docstring = token.type == tokenize.STRING and token.string.startswith('"""')
            is_docstring = is_docstring and not token.line[: token.start[1]].strip()
            if token.type == tokenize.COMMENT or is_docstring:
                lines = token.string.splitlines()
                found += [(token.start[0] + n, line) for n, line in enumerate(lines)]
        return found
    numbered = list(enumerate(text.splitlines(), 1))
    if path.suffix == ".md":
        fences = itertools.accumulate(line.lstrip().startswith("```") for _, line in numbered)
        return [one for one, count in zip(numbered, fences, strict=True) if count % 2 == 0]
    mark = "#" if path.suffix == ".sh" else "//"
    return [(number, line[line.index(mark) :]) for number, line in numbered if mark in line]


def documents() -> list[Path]:
    """Return every file with prose."""
    below = [path for folder in TRACKED_FOLDERS for path in (ROOT / folder).rglob("*")]
    found = [*ROOT.glob("*.md"), *below]
    return sorted(
        path
        for path in found
        if path.suffix in PROSE
        and not any(part.startswith((".", "build")) for part in path.relative_to(ROOT).parts)
        and path.name != "CHANGELOG.md"  # is about the past
    )


def test_what_is_cited_is_there() -> None:
    paths = [path for folder in TRACKED_FOLDERS for path in (ROOT / folder).rglob("*.*")]
    parts = [path.relative_to(ROOT).parts for path in (*paths, *ROOT.glob("*.*"))]
    known = {"/".join(one[start:]) for one in parts for start in range(len(one))}
    missing = []
    for path in documents():
        for number, line in prose_of(path):
            place = f"{path.relative_to(ROOT)}:{number}"
            names = {name.removeprefix("../") for name in FILE_NAME.findall(line)} - known
            missing += [f"{place} {one}" for one in names if not ELSEWHERE.fullmatch(one)]
            missing += [f"{place} {one}" for one in UNSHARED.findall(line)]
            if path.suffix in {".py", ".c", ".h"}:
                missing += [
                    f"{place} {code}" for code in STATEMENT.findall(line) if code not in STATEMENTS
                ]
    assert missing == []


def test_the_layers_of_the_design_are_all_there_is() -> None:
    text = (ROOT / "daemon" / "DESIGN.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| (`[^|]+) \|", text.partition("## Layers")[2].partition("\n## ")[0], re.MULTILINE
    )
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    package = ROOT / "daemon" / "binderd"
    there = {path.stem for path in package.glob("*.py")} | {
        path.name for path in package.iterdir() if (path / "__init__.py").exists()
    }
    assert told - {"binderwire"} == there - {"__init__"}


@pytest.mark.parametrize(
    ("title", "folders"),
    [
        ("## Where is ...?", ["daemon/binderd"]),
        ("## Where is ... in the client and the protocol?", ["client", "protocol"]),
    ],
)
def test_where_things_happen(title: str, folders: list[str]) -> None:
    """The files that DESIGN names for a stranger's questions are there."""
    text = (ROOT / "daemon" / "DESIGN.md").read_text(encoding="utf-8")
    table = text.partition(f"{title}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+\?) \| `(.+)` \|$", table, re.MULTILINE)
    assert len(rows) > 20
    places = [ROOT / folder for folder in folders]
    missing = [file for _, file in rows if not any((place / file).is_file() for place in places)]
    assert missing == []


def test_documents_fit() -> None:
    """As code does; ``make wrap`` puts it right."""
    program = runpy.run_path(str(ROOT / "docs" / "manual" / "wrap.py"))
    wrap, long_lines = program["wrap"], program["long_lines"]
    texts = {path: path.read_text(encoding="utf-8") for path in program["documents"]()}
    long = {str(path.relative_to(ROOT)): long_lines(text) for path, text in texts.items()}
    assert {name: lines for name, lines in long.items() if lines} == {}
    sample = f"- {'word ' * 30}\n  `a {'code ' * 6}span` 1. - end\n\n| {'cell' * 40} |\n"
    assert long_lines(sample) == [1]
    assert long_lines(wrap(sample)) == []
    assert wrap(sample).split() == sample.split()
