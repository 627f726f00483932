# SPDX-License-Identifier: Apache-2.0
"""Wraps the documents: ``python docs/manual/wrap.py`` after an edit that has made lines too long.

Only paragraphs with a line of more than 100 columns are touched. Tables, code and headings stay as
they are, and so does what a program makes (docs/PARITY.md, docs/LIMITS.md).
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
COLUMNS: Final = 100
MADE: Final = frozenset(["PARITY.md", "LIMITS.md"])
_ITEM: Final = re.compile(r"( *)([-*+] |\d+\. )?")
_APART: Final = re.compile(r"\s*(#|\||<|>|$)")  # headings, tables, HTML, quotations, nothing
# What would be something else at the beginning of a line.
_MISTAKEN: Final = re.compile(r"\s*([-*+#>|]|\d+\.)(\s|$)")
_CODE: Final = re.compile(r"`[^`]+`")
_KEPT: Final = "\0"  # a space at which no line ends


def documents() -> list[Path]:
    """Return the documents that people write."""
    below = [path for path in (ROOT / "docs").glob("*.md") if path.name not in MADE]
    parts = [ROOT / "daemon" / "DESIGN.md", ROOT / "client" / "README.md"]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *parts, *sorted(below)]


def long_lines(text: str) -> list[int]:
    """Return the numbers of lines in paragraphs that have too many columns."""
    found = []
    number = 1
    for block, is_prose in _blocks(text.splitlines()):
        if is_prose:
            found += [number + n for n, line in enumerate(block) if len(line) > COLUMNS]
        number += len(block)
    return found


def wrap(text: str) -> str:
    """Return a document with no such lines."""
    lines: list[str] = []
    for block, is_prose in _blocks(text.splitlines()):
        is_long = is_prose and any(len(line) > COLUMNS for line in block)
        lines += _wrapped(block) if is_long else block
    return "\n".join(lines) + "\n"


def _blocks(lines: list[str]) -> Iterator[tuple[list[str], bool]]:
    """Yield pieces of a document, and whether each is a paragraph or an item of a list."""
    block: list[str] = []
    is_code = False
    for line in lines:
        is_fence = line.lstrip().startswith("```")
        if is_code or is_fence or _APART.match(line):
            if block:
                yield block, True
                block = []
            yield [line], False
            is_code ^= is_fence
            continue
        item = _ITEM.match(line)
        if block and item is not None and item[2]:
            yield block, True
            block = []
        block.append(line)
    if block:
        yield block, True


def _wrapped(block: list[str]) -> list[str]:
    item = _ITEM.match(block[0])
    assert item is not None
    text = " ".join(line.strip() for line in [block[0][item.end() :], *block[1:]])
    text = _CODE.sub(lambda code: code[0].replace(" ", _KEPT), text)
    rest = " " * item.end()
    found: list[str] = []
    for width in range(COLUMNS, COLUMNS // 2, -1):
        found = textwrap.wrap(
            text,
            width,
            initial_indent=item[0],
            subsequent_indent=rest,
            break_long_words=False,
            break_on_hyphens=False,
        )
        if not any(_MISTAKEN.match(line) for line in found[1:]):
            break
    return [line.replace(_KEPT, " ") for line in found]


def main() -> None:
    for path in documents():
        text = path.read_text(encoding="utf-8")
        if wrap(text) != text:
            path.write_text(wrap(text), encoding="utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
