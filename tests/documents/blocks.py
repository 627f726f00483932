# SPDX-License-Identifier: Apache-2.0
"""The code blocks of the documents that people paste from, as they are written there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
DOCUMENTS: Final = tuple(
    str(path.relative_to(ROOT))
    for path in (
        ROOT / "README.md",
        ROOT / "client" / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").glob("**/*.md")),
    )
)
LANGUAGES: Final = ("sh", "python", "c", "text")  # text: nothing to paste, a drawing for example
_FENCE: Final = re.compile(r"( {0,3})```(.*)")


@dataclass(frozen=True)
class Block:
    """A block between two fences.

    Args:
        document: its path in the repository.
        line: of its first fence, counted from 1.
        language: one of LANGUAGES.
        text: what is pasted.
    """

    document: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """Where it is, as editors take it."""
        return f"{self.document}:{self.line}"

    @property
    def first(self) -> str:
        """Its first line without the comment: what lists of blocks name it by."""
        return self.text.split("\n", 1)[0].partition("  #")[0].rstrip()


def blocks_of(document: str, text: str) -> Iterator[Block]:
    """Yield the blocks of a document.

    Raises:
        AssertionError: something looks like code and is in no block that we would find.
    """
    lines = enumerate(text.splitlines(), 1)
    for number, line in lines:
        place = f"{document}:{number}"
        opened = _FENCE.match(line)
        if opened is None:
            assert not line.startswith("    "), f"{place}: give code a fence and a language"
            assert "~~~" not in line, f"{place}: fences are ```"
            continue
        indent, language = opened[1], opened[2]
        assert language in LANGUAGES, f"{place}: {language!r} is none of {LANGUAGES}"
        found = []
        for _, inside in lines:
            if inside == f"{indent}```":
                break
            assert inside.startswith(indent) or not inside, f"{place}: indented unlike its fence"
            found.append(inside.removeprefix(indent))
        else:
            raise AssertionError(f"{place}: its block has no end")
        yield Block(document, number, language, "\n".join(found) + "\n")


def all_blocks() -> list[Block]:
    """Return the blocks of all documents, in their order."""
    return [
        block
        for document in DOCUMENTS
        for block in blocks_of(document, (ROOT / document).read_text(encoding="utf-8"))
    ]
