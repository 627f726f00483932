# SPDX-License-Identifier: Apache-2.0
"""Tokens of AIDL: their names in messages, how many there may be, how deeply brackets may nest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from binderclient.aidl.errors import AidlSyntaxError, Position

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DEPTH_MAX: Final = 40
TOKENS_MAX: Final = 200_000  # of a file; the largest of Android's has a tenth of them
_OPENING: Final = frozenset({"LPAR", "LBRACE", "LSQB"})
_CLOSING: Final = frozenset({"RPAR", "RBRACE", "RSQB"})
_ANGLE: Final = frozenset({"LESS"})
_END_OF_TYPE: Final = frozenset({"SEMICOLON", "LBRACE", "RBRACE", "LPAR"})

# What the grammar's terminals are called in messages; others by their own text.
_NAMES: Final = {
    "NAME": "a name",
    "ANNOTATION": "an annotation",
    "INTEGER": "a number",
    "HEXADECIMAL": "a number",
    "FLOAT": "a number",
    "CHARACTER": "a character",
    "STRING": "a string",
    "DIRECTION": "'in', 'out' or 'inout'",
    "FOREIGN": "'cpp_header'",
    "$END": "the end of the file",
}
_SIGNS: Final = {
    "ASSIGN": "=",
    "SEMICOLON": ";",
    "COMMA": ",",
    "DOT": ".",
    "LPAR": "(",
    "RPAR": ")",
    "LBRACE": "{",
    "RBRACE": "}",
    "LSQB": "[",
    "RSQB": "]",
    "LESS": "<",
    "MORE": ">",
}
# fmt: off
_OPERATORS: Final = frozenset(
    {
        "OR", "AND", "BIT_OR", "BIT_XOR", "BIT_AND", "EQUAL", "UNEQUAL", "LESS", "MORE",
        "AT_MOST", "AT_LEAST", "LEFT", "RIGHT", "PLUS", "MINUS", "TIMES", "DIVIDE", "MODULO",
        "NOT", "INVERT",
    }
)
# fmt: on
_VALUES: Final = frozenset(
    ("FLOAT", "HEXADECIMAL", "INTEGER", "CHARACTER", "STRING", "TRUE", "FALSE")
)
RESERVED: Final = frozenset(
    {"package", "import", "parcelable", "interface", "oneway", "enum", "union", "const"}
    | {"inout", "in", "out", "true", "false"}
)
_SHOWN_MAX: Final = 60  # characters of a token in a message
_WANTED_MAX: Final = 5


class Depth:
    """Looks at the tokens on their way to the parser, and refuses too many or too deep a nesting.

    What comes after the parser recurses, so this is what bounds its depth and its time.
    """

    always_accept = ()

    def __init__(self) -> None:
        self.path = ""

    def process(self, stream: Iterator[Any]) -> Iterator[Any]:
        """Yield the tokens as they come.

        Raises:
            AidlSyntaxError: there are too many, or brackets nest too deeply.
        """
        depth = angles = 0
        for number, token in enumerate(stream):
            if number == TOKENS_MAX:
                position = Position(self.path, token.line, token.column)
                raise AidlSyntaxError(position, f"a file of more than {TOKENS_MAX} words and signs")
            kind = token.type
            if kind in _END_OF_TYPE:
                angles = 0
            depth += (kind in _OPENING) - (kind in _CLOSING)
            angles += kind in _ANGLE
            if max(depth, angles) > DEPTH_MAX:
                position = Position(self.path, token.line, token.column)
                raise AidlSyntaxError(position, f"brackets are nested more than {DEPTH_MAX} deep")
            yield token


def shown_token(token: Any) -> str:  # noqa: ANN401 - lark's
    """Return a token for a message."""
    text = str(token)
    return f"'{text[:_SHOWN_MAX]}…'" if len(text) > _SHOWN_MAX else f"'{text}'"


def what_was_wanted(names: Iterable[str]) -> str:
    """Return which terminals could have been there, in words."""
    wanted = set(names)
    if wanted >= _VALUES:
        wanted -= _VALUES | _OPERATORS | {"NAME", "LPAR"}
        shown = ["a value"]
    else:
        shown = ["an operator"] if len(wanted & _OPERATORS) > 2 else []
        if shown:
            wanted -= _OPERATORS
    shown += sorted({_NAMES.get(each) or f"'{_SIGNS.get(each, each.lower())}'" for each in wanted})
    if len(shown) > _WANTED_MAX:
        shown = [*shown[:_WANTED_MAX], "…"]
    if not shown:
        return "something else"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"
