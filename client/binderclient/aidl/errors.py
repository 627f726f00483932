# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with AIDL: errors that say where, as compilers do."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = [
    "AidlError",
    "AidlImportError",
    "AidlNameError",
    "AidlSyntaxError",
    "AidlTypeError",
    "AidlValueError",
    "Note",
    "Position",
]


class Position(NamedTuple):
    """Where something is: a file as it was named, a line and a column, both from 1 on."""

    path: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


class Note(NamedTuple):
    """Something that is no error, but may not be what was meant."""

    position: Position
    text: str

    def __str__(self) -> str:
        return f"{self.position}: note: {self.text}"


class AidlError(Exception):
    """Base of all that is wrong with AIDL.

    Args:
        position: where.
        text: what, and what to do about it.
    """

    kind: Final = "error"

    def __init__(self, position: Position, text: str) -> None:
        super().__init__(position, text)
        self.position = position
        self.text = text
        self.all: tuple[AidlError, ...] = (self,)
        """This one and those found besides it, in the order of the text."""

    def __str__(self) -> str:
        return f"{self.position}: {self.kind}: {self.text}"


class AidlSyntaxError(AidlError):
    """The text is no AIDL."""


class AidlImportError(AidlError):
    """A file is not there, cannot be read, or is not where its package says."""


class AidlNameError(AidlError):
    """A name that nothing has, or that several things have."""


class AidlTypeError(AidlError):
    """A type, direction or annotation that cannot be used there."""


class AidlValueError(AidlError):
    """A constant expression that has no value, or none that fits."""


class Problems:
    """Collects errors and notes, so that all of them are told at once."""

    def __init__(self) -> None:
        self.errors: list[AidlError] = []
        self._said: set[str] = set()
        self.notes: list[Note] = []

    def add(self, error: AidlError) -> None:
        """Keep an error, unless the same was said already."""
        if str(error) not in self._said:
            self._said.add(str(error))
            self.errors.append(error)

    def note(self, position: Position, text: str) -> None:
        """Keep a note, unless the same was said already."""
        note = Note(position, text)
        if str(note) not in self._said:
            self._said.add(str(note))
            self.notes.append(note)

    def raise_if_any(self) -> None:
        """Raise the first error, if there is one, with all of them in ``all``."""
        if self.errors:
            found = sorted(self.errors, key=lambda each: each.position)
            found[0].all = tuple(found)
            raise found[0]
