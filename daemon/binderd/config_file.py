# SPDX-License-Identifier: Apache-2.0
"""The configuration file: TOML text to entries that know their lines.

Nothing here may know which keys there are, or what they mean.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE_MAX: Final = 256 << 10  # bytes; what is larger is no configuration


class ConfigError(Exception):
    """The configuration cannot be used; the text says where and why."""


class Entry(NamedTuple):
    """One key of the file."""

    table: str  # the heading that it stands under, "" for none
    key: str
    value: object
    line: int  # the first one is 1


def read_entries(path: str) -> list[Entry]:
    """Return what a file says, in its order.

    Raises:
        FileNotFoundError: there is none.
        ConfigError: it cannot be read, or is no TOML.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(SIZE_MAX + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: cannot be read: {reason}") from None
    if len(data) > SIZE_MAX:
        raise ConfigError(f"{path}: is larger than {SIZE_MAX >> 10} KiB")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: is not UTF-8 text") from None
    return parse_entries(text, path)


def parse_entries(text: str, path: str) -> list[Entry]:
    """Return the entries of a text.

    Args:
        path: what to call it in errors.

    Raises:
        ConfigError: it is no TOML, or nests deeper than one table.
    """
    try:
        tomllib.loads(text)  # all of it first: duplicates show only there
        return list(_entries(text, path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_explain(path, str(error), text.count("\n") + 1)) from None
    except RecursionError:
        raise ConfigError(f"{path}: values lie too deep inside one another") from None


def _entries(text: str, path: str) -> Iterator[Entry]:
    """Yield the entries; tomllib does not tell lines, so it reads one statement after another."""
    table = ""
    for line, statement in _statements(text):
        if statement.lstrip().startswith("["):
            heading = tomllib.loads(statement)
            table = next(iter(heading))
            if heading != {table: {}}:
                raise ConfigError(f"{path}:{line}: {plain(table)}: tables in it are not known here")
            continue
        for key, value in tomllib.loads(statement).items():
            if isinstance(value, dict) and not table:  # limits.files = 5, limits = { files = 5 }
                yield from (Entry(key, inner, value[inner], line) for inner in value)
            else:
                yield Entry(table, key, value, line)


def plain(key: str) -> str:
    """Return a key as it can stand in a line of text."""
    return key if key.isprintable() and key else repr(key)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield (first line, text) of each statement of a valid file: it ends where it is complete."""
    statement: list[str] = []
    first = 0
    for number, line in enumerate(text.split("\n"), 1):
        if not statement:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            first = number
        statement.append(line)
        whole = "\n".join(statement)
        try:
            tomllib.loads(whole)
        except tomllib.TOMLDecodeError:
            continue  # goes on in the next line
        yield first, whole
        statement.clear()


def _explain(path: str, message: str, lines: int) -> str:
    """Put tomllib's place, "(at line 3, column 7)" or "(at end of document)", to the front."""
    reason, _, place = message.partition(" (at ")
    words = place.rstrip(")").replace(",", "").split()
    reason = reason[0].lower() + reason[1:]
    if words[:1] == ["line"]:
        return f"{path}:{words[1]}: {reason} (column {words[3]})"
    return f"{path}:{lines}: {reason} (at the end of the file)"
