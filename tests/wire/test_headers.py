# SPDX-License-Identifier: Apache-2.0
"""Every number and layout of the wire packages against the C headers of this machine.

One C program is generated from our own tables, compiled and run; it prints what the compiler makes
of each name.  Names that the installed headers are too old to know are listed in ``header_facts``
with their values and the reason; a name that is in neither place fails.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from binderwire import binder_abi, fuse_abi
from binderwire.codec import Record
from binderwire.ioc import ioc, ioc_direction, ioc_size
from wire import header_facts as facts

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc to ask for the layout")

MODULES = (binder_abi, fuse_abi)
HEADERS = ("stddef.h", "stdio.h", "linux/android/binder.h", "linux/android/binderfs.h")
FUSE_HEADERS = ("linux/fuse.h", "fcntl.h", "linux/fs.h")


def numbers_of(module: ModuleType) -> dict[str, int]:
    """Return the module's constants that carry a C name."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, int) and name.isupper() and name not in facts.NOT_IN_C
        if not name.startswith("_")
    }


def records_of(module: ModuleType) -> dict[str, Record]:
    """Return the module's structures by C name; single-value payloads have none."""
    return {
        value.name: value
        for value in vars(module).values()
        if isinstance(value, Record) and value.name not in facts.NOT_IN_C
    }


NUMBERS = {name: value for module in MODULES for name, value in numbers_of(module).items()}
RECORDS = {name: record for module in MODULES for name, record in records_of(module).items()}
FIELDS = [(record.name, field.name) for record in RECORDS.values() for field in record.fields]


def member_of(record: str, field: str) -> str:
    """Return the C member designator of one of our flattened fields."""
    if (record, field) in facts.MEMBERS:
        return facts.MEMBERS[record, field]
    for (owner, first), prefix in facts.EMBEDDED.items():
        if record == owner and field in {f.name for f in RECORDS[first].fields}:
            inner = facts.MEMBERS.get((first, field), field)
            return f"{prefix}.{inner}"
    return field


def program(skipped: set[str]) -> str:
    """Return the C program; names in ``skipped`` are left out."""
    lines = ["#define _GNU_SOURCE"]
    lines += [f"#include <{header}>" for header in HEADERS + FUSE_HEADERS]
    lines.append("int main(void) {")
    lines += [
        f'printf("number {name} %lld\\n", (long long)({name}));'
        for name in sorted(NUMBERS.keys() - skipped)
    ]
    lines += [
        f'printf("size {name} %zu\\n", sizeof(struct {name}));'
        for name in sorted(RECORDS.keys() - skipped)
    ]
    for record, field in FIELDS:
        if record in skipped or f"{record}.{field}" in skipped:
            continue
        member = member_of(record, field)
        lines.append(
            f'printf("field {record}.{field} %zu %zu\\n", offsetof(struct {record}, {member}), '
            f"sizeof(((struct {record} *)0)->{member}));"
        )
    return "\n".join([*lines, "return 0; }"])


def compile_program(source: Path, text: str) -> subprocess.CompletedProcess[str]:
    source.write_text(text, encoding="utf-8")
    command = [
        "gcc",
        "-std=c11",
        "-fmax-errors=0",
        "-o",
        str(source.with_suffix("")),
        str(source),
    ]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )


def unknown_names(errors: str) -> set[str]:
    """Return the names that the compiler's messages call unknown."""
    names = set(re.findall(r"'(\w+)' undeclared", errors))
    names |= set(re.findall(r"incomplete type 'struct (\w+)'", errors))
    names |= set(re.findall(r"undefined type 'struct (\w+)'", errors))
    names |= {
        f"{record}.{field}"
        for record, field in re.findall(r"'struct (\w+)' has no member named '(\w+)'", errors)
    }
    return names


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, ...]]:
    """What the compiler says: ``kind name`` to its numbers; unknown names are not in it."""
    source = tmp_path_factory.mktemp("headers") / "layout.c"
    skipped = unknown_names(compile_program(source, program(set())).stderr)
    compiled = compile_program(source, program(skipped))
    assert compiled.returncode == 0, compiled.stderr
    output = subprocess.run([source.with_suffix("")], capture_output=True, text=True, check=True)
    answers = {}
    for line in output.stdout.splitlines():
        kind, name, *values = line.split()
        answers[f"{kind} {name}"] = tuple(map(int, values))
    return answers


def asked_about(asked: dict[str, tuple[int, ...]], kind: str) -> dict[str, tuple[int, ...]]:
    return {key.split()[1]: value for key, value in asked.items() if key.startswith(f"{kind} ")}


def test_numbers_are_the_header_s(asked: dict[str, tuple[int, ...]]) -> None:
    theirs = {name: value for name, (value,) in asked_about(asked, "number").items()}
    for name, value in facts.NUMBERS_WE_RAISE.items():
        assert theirs[name] <= value
    assert {**facts.NEWER_NUMBERS, **theirs, **facts.NUMBERS_WE_RAISE} == NUMBERS


def test_newer_numbers_are_the_listed_ones() -> None:
    assert {name: NUMBERS[name] for name in facts.NEWER_NUMBERS} == facts.NEWER_NUMBERS


def test_sizes_are_the_header_s(asked: dict[str, tuple[int, ...]]) -> None:
    theirs = {name: size for name, (size,) in asked_about(asked, "size").items()}
    newer = {name: size for name, (size, _) in facts.NEWER_RECORDS.items()}
    assert {**newer, **theirs} == {name: record.size for name, record in RECORDS.items()}


def test_fields_are_the_header_s(asked: dict[str, tuple[int, ...]]) -> None:
    ours = {
        f"{name}.{field.name}": (field.offset, field.size)
        for name, record in RECORDS.items()
        for field in record.fields
        if name not in facts.NEWER_RECORDS or f"field {name}.{field.name}" in asked
    }
    assert {**facts.NEWER_FIELDS, **asked_about(asked, "field")} == ours


def test_newer_records_are_the_listed_ones() -> None:
    for name, (size, offsets) in facts.NEWER_RECORDS.items():
        assert RECORDS[name].size == size
        assert {field.name: field.offset for field in RECORDS[name].fields} == offsets


def test_no_list_outlives_its_reason() -> None:
    assert facts.NEWER_NUMBERS.keys() <= NUMBERS.keys()
    assert facts.NEWER_RECORDS.keys() <= RECORDS.keys()
    assert {tuple(name.split(".")) for name in facts.NEWER_FIELDS} <= set(FIELDS)
    assert facts.MEMBERS.keys() <= set(FIELDS)


@pytest.mark.parametrize(
    ("table", "letter"),
    [(binder_abi.IOCTLS, "b"), (binder_abi.COMMANDS, "c"), (binder_abi.RETURNS, "r")],
)
def test_tables_agree_with_their_words(table: dict[int, binder_abi.Message], letter: str) -> None:
    for word, row in table.items():
        assert row.word == word == NUMBERS[row.name]
        size = row.payload.size if row.payload else 0
        assert ioc_size(word) == size
        assert word == ioc(ioc_direction(word), letter, word & 0xFF, size)
    numbers = {value for name, value in NUMBERS.items() if name.startswith(facts.PREFIXES[letter])}
    assert table.keys() == numbers - facts.NOT_MESSAGES


def test_every_object_starts_with_its_type() -> None:
    records = binder_abi.OBJECTS.items()
    assert {word: record.size for word, record in records} == facts.OBJECT_SIZES
    assert {record.fields[0][:3] for _, record in records} == {("type", 0, 4)}


@pytest.mark.parametrize("size", [-1, 0x4000, 1 << 32])
def test_ioctl_size_that_has_no_number(size: int) -> None:
    with pytest.raises(ValueError, match="has no number"):
        ioc(0, "b", 1, size)
