# SPDX-License-Identifier: Apache-2.0
"""``binderd.h``: what is checked in is current, and a C compiler reads it as we do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from binderwire import extension_abi
from binderwire.cheader import header
from binderwire.codec import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

INCLUDES: Final = Path(__file__).parents[2] / "client" / "include"


def records() -> list[Record]:
    return [value for value in vars(extension_abi).values() if isinstance(value, Record)]


def expressions() -> Iterator[tuple[str, int]]:
    """Yield each C expression that the header gives a meaning, and what we say it is."""
    for name, value in vars(extension_abi).items():
        if name.startswith("BINDERD_"):
            yield name, value
    for record in records():
        yield f"sizeof(struct {record.name})", record.size
        for field in record.fields:
            member = f"((struct {record.name} *)0)->{field.name}"
            yield f"offsetof(struct {record.name}, {field.name})", field.offset
            yield f"sizeof({member})", field.size
            yield f"((__typeof__({member}))-1 < 1)", field.code.islower()


def test_what_is_checked_in_is_current() -> None:
    checked_in = (INCLUDES / "binderd.h").read_text(encoding="utf-8")
    assert checked_in == header(), "python -m binderwire.cheader > client/include/binderd.h"


def test_there_is_something_to_compare() -> None:
    assert len(records()) == 6
    assert len(dict(expressions())) > 40


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler to ask")
@pytest.mark.parametrize("language", ["c", "c++"])
def test_the_compiler_agrees(tmp_path: Path, language: str) -> None:
    expected = dict(expressions())
    lines = ["#include <stddef.h>", "#include <stdio.h>", "#include <binderd.h>"]
    lines += ["#include <binderd.h>", "int main(void) {"]
    lines += [f'printf("%lld %s\\n", (long long)({it}), "{it}");' for it in expected]
    source = tmp_path / "layout"
    source.write_text("\n".join([*lines, "}"]), encoding="utf-8")
    program = tmp_path / "program"
    command = ["cc", "-x", language, "-Wall", "-Wextra", "-Werror", f"-I{INCLUDES}"]
    compiled = subprocess.run(
        [*command, "-o", program, source], capture_output=True, text=True, check=False
    )
    if "cc1plus" in compiled.stderr:
        pytest.skip("no C++ compiler")
    assert compiled.returncode == 0, compiled.stderr
    said = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    answers = dict(line.split(" ", 1)[::-1] for line in said.splitlines())
    assert {name: int(value) for name, value in answers.items()} == expected
