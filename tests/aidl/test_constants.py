# SPDX-License-Identifier: Apache-2.0
"""Constant expressions come to what AIDL says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from binderclient.aidl.checks import compile_files
from binderclient.aidl.errors import AidlValueError

if TYPE_CHECKING:
    from pathlib import Path

VALUES = [
    ("int", "0x7fffffff", 2147483647),
    ("int", "0xffffffff", -1),
    ("int", "0x80000000", -(1 << 31)),
    ("int", "-2147483647 - 1", -(1 << 31)),
    ("long", "0x80000000", -(1 << 31)),
    ("long", "0x80000000L", 1 << 31),
    ("long", "0xffffffffffffffff", -1),
    ("long", "4294967296", 1 << 32),
    ("long", "1L << 63", -(1 << 63)),
    ("int", "1 << 31", -(1 << 31)),
    ("int", "-8 >> 1", -4),
    ("int", "2 + 3 * 4", 14),
    ("int", "(2 + 3) * 4", 20),
    ("int", "10 - 4 - 3", 3),
    ("int", "-7 / 2", -3),
    ("int", "-7 % 2", -1),
    ("int", "7 / -2", -3),
    ("int", "1 | 6 & 4 ^ 1", 5),
    ("int", "1 << 2 + 1", 8),
    ("int", "~0", -1),
    ("int", "!0", 1),
    ("int", "-+-3", 3),
    ("int", "~~(1 << 31) == (1 << 31)", 1),
    ("int", "~0xFFFFFFFF == 0", 1),
    ("int", "-0x7fffffff < 0", 1),
    ("int", "1 < 2 == true", 1),
    ("int", "true && 0 || 5", 1),
    ("int", "3 >= 3 && 2 <= 1", 0),
    ("int", "1 != 1", 0),
    ("int", "3 > 2", 1),
    ("int", "true + true", 2),
    ("boolean", "true", True),
    ("boolean", "1 == 2", False),
    ("boolean", "5", True),
    ("byte", "-128", -128),
    ("byte", "0xff", -1),
    ("byte", "0xffu8", -1),
    ("byte", "255u8", -1),
    ("int", "4294967295u32", -1),
    ("char", "'x'", "x"),
    ("char", "'\"'", '"'),
    ("String", '"a" + "b" + "c"', "abc"),
    ("String", '"// no comment /*"', "// no comment /*"),
    ("float", "-1.5f", -1.5),
    ("double", "1e3", 1000.0),
    ("double", ".5", 0.5),
    ("double", "1.5f", 1.5),
    ("int", "B * 2", 6),
    ("int", "IX.B + E.Y + IX.E.Y", 25),
    ("int", "E.Z", 12),
]


@pytest.mark.parametrize(("kind", "text", "value"), VALUES)
def test_values(tmp_path: Path, kind: str, text: str, value: Any) -> None:  # noqa: ANN401
    path = tmp_path / "IX.aidl"
    path.write_text(
        f"interface IX {{ const {kind} A = {text}; const int B = 3; enum E {{ X, Y = 11, Z }} }}"
    )
    found = compile_files([str(path)]).documents[0].declarations[0].constants[0].value
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("int", "2147483647 + 1", "does not fit 32 bits"),
        ("int", "-(-2147483647 - 1)", "does not fit 32 bits"),
        ("long", "9223372036854775807 + 1", "does not fit 64 bits"),
        ("long", "1 << 32", "32 is no number of bits from 0 to 31"),
        ("int", "1 << -1", "-1 is no number of bits"),
        ("long", "9223372036854775808", "does not fit 64 bits"),
        ("long", "0x10000000000000000", "does not fit 64 bits"),
        ("byte", "256u8", "does not fit 8 bits"),
        ("int", "1 / 0", "a division by zero"),
        ("int", "1 % 0", "a division by zero"),
        ("int", "1L << 40", "is no int"),
        ("int", "1.5", "a floating point number is no int"),
        ("int", "1.5 + 1", r"\+ cannot be used with a floating point number"),
        ("int", "'a' + 1", r"\+ cannot be used with a character"),
        ("int", '"a" - "b"', "- cannot be used with a string"),
        ("int", "~1.5", "~ cannot be in front of a floating point number"),
        ("int", "{1}", "an array is no int"),
        ("int", "A", "depends on itself"),
        ("String", "'x'", "a character is no String"),
        ("float", "1e40f", "too large for float"),
        ("double", "1e400", "too large"),
    ],
)
def test_no_values(tmp_path: Path, kind: str, text: str, said: str) -> None:
    path = tmp_path / "IX.aidl"
    path.write_text(f"interface IX {{ const {kind} A = {text}; }}")
    with pytest.raises(AidlValueError, match=said):
        compile_files([str(path)])
