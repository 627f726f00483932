# SPDX-License-Identifier: Apache-2.0
"""Layout of generated Python, as formatters leave it: one line if it fits, else one for each item.

Items in lines of their own have a comma behind them, so that wider settings change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WIDTH: Final = 88  # what Black and ruff format to unless told otherwise
STEP: Final = 4


@dataclass(frozen=True)
class Group:
    """Items in brackets, with text in front and behind."""

    head: str
    brackets: str  # "[]", "()"
    items: tuple[Text, ...]
    tail: str = ""

    @property
    def is_splittable(self) -> bool:
        """Can each item have a comma behind it?  In [ ] one would make a tuple of a lone item."""
        is_alone = len(self.items) < 2 and self.brackets == "[]" and bool(self.head)
        return bool(self.items) and not self.tail and not is_alone

    def __str__(self) -> str:
        opening, closing = self.brackets[0], self.brackets[1]
        return f"{self.head}{opening}{', '.join(map(str, self.items))}{closing}{self.tail}"


Text: TypeAlias = str | Group


def lines_of(
    text: Text, indent: int, before: str = "", after: str = "", *, split: bool = False
) -> Iterator[str]:
    """Yield the lines of an expression.

    Args:
        text: the expression.
        indent: of the first line and the last, in columns.
        before, after: what else is in these.
        split: have items in lines of their own even if they would fit into one.
    """
    flat = f"{' ' * indent}{before}{text}{after}"
    if isinstance(text, str) or not text.is_splittable or (len(flat) <= WIDTH and not split):
        yield flat
        return
    opening, closing = text.brackets[0], text.brackets[1]
    yield f"{' ' * indent}{before}{text.head}{opening}"
    for item in text.items:
        yield from lines_of(item, indent + STEP, after=",")
    yield f"{' ' * indent}{closing}{after}"


def statement(text: Text, indent: int, before: str = "", after: str = "") -> Iterator[str]:
    """Yield the lines of a statement; one that cannot be made to fit is left to stick out."""
    lines = list(lines_of(text, indent, before, after))
    if max(map(len, lines)) > WIDTH:
        lines = [f"{' ' * indent}{before}{text}{after}  # fmt: skip"]
    yield from lines


def docstring(text: str, indent: int) -> Iterator[str]:
    """Yield a docstring."""
    plain = "".join(each if each.isprintable() or each == "\n" else " " for each in text)
    plain = plain.replace("\\", "\\\\").replace('"""', "'''").strip()
    first, *rest = plain.split("\n")
    first = f" {first}" if first.startswith('"') else first
    blank = " " * indent
    if not rest:
        yield f'{blank}"""{first}{" " if first.endswith(chr(34)) else ""}"""'
        return
    yield f'{blank}"""{first.rstrip()}'
    for line in rest:
        yield f"{blank}{line.rstrip()}" if line.strip() else ""
    yield f'{blank}"""'


def joined(parts: Sequence[str]) -> str:
    """Return words as a sentence has them."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
