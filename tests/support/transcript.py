# SPDX-License-Identifier: Apache-2.0
"""What a client reads, and how a scenario states what it expects to read.

``assert_br`` compares a read with a transcript: one line per BR_ item, either the bare word or
``(word, {field: value})`` for the fields that matter.  Values that a test cannot know (addresses,
handles) are ``ANY`` or a ``Slot``, which takes the first value it meets and insists on it later.
Besides the fields of the wire structure, a transaction has ``data`` (the delivered bytes),
``offset_list`` (its offsets array) and ``objects`` (the flat objects at these offsets).
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Final

from binderwire.binder_abi import (
    BINDER_TYPE_BINDER,
    BINDER_TYPE_HANDLE,
    BINDER_TYPE_WEAK_BINDER,
    BINDER_TYPE_WEAK_HANDLE,
    BR_ACQUIRE_RESULT,
    BR_ATTEMPT_ACQUIRE,
    BR_ERROR,
    BR_FINISHED,
    BR_NOOP,
    BR_OK,
    OBJECTS,
    RETURNS,
)
from binderwire.commands import StreamError, read_stream
from binderwire.describe import describe_returns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from support.playbook import Outcome, Proc

Expected = int | tuple[int, "Mapping[str, object]"]


class Any_:  # noqa: N801 - a sentinel whose only instance is ANY
    """Equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "ANY"


ANY: Final = Any_()


class NonZero:
    """Equal to every value but 0."""

    def __eq__(self, other: object) -> bool:
        return bool(other)

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "NON_ZERO"


NON_ZERO: Final = NonZero()


class Slot:
    """A value to be learned: equal to the first thing it is compared with, and to that only."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._known: list[Any] = []

    @property
    def value(self) -> Any:  # noqa: ANN401
        assert self._known, f"slot {self.name} was never filled"
        return self._known[0]

    def __eq__(self, other: object) -> bool:
        if not self._known:
            self._known.append(other)
        return bool(self._known[0] == other)

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"{self.name}={self._known[0]!r}" if self._known else self.name


class Flat(tuple[str, int, int, int]):
    """One flat object of a delivered payload: (kind, value, cookie, flags)."""

    __slots__ = ()


KINDS: Final = {
    BINDER_TYPE_BINDER: "binder",
    BINDER_TYPE_WEAK_BINDER: "weak binder",
    BINDER_TYPE_HANDLE: "handle",
    BINDER_TYPE_WEAK_HANDLE: "weak handle",
}


# Declared, but the driver never says them (BR_ERROR: only when it has no memory left).
NEVER_SENT: Final = {BR_ERROR, BR_OK, BR_ACQUIRE_RESULT, BR_ATTEMPT_ACQUIRE, BR_FINISHED}


class Received:
    """One BR_ item as the client sees it."""

    def __init__(self, proc: Proc, word: int, fields: Any) -> None:  # noqa: ANN401
        self._proc = proc
        self.word = word
        self.name = RETURNS[word].name
        self.fields = fields

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.fields, name)

    @property
    def data(self) -> bytes:
        """The delivered payload, read where the receiver reads it."""
        return self._proc.peek(self.fields.buffer, self.fields.data_size)

    @property
    def offset_list(self) -> list[int]:
        octets = self._proc.peek(self.fields.offsets, self.fields.offsets_size)
        return [int.from_bytes(octets[i : i + 8], "little") for i in range(0, len(octets), 8)]

    @property
    def objects(self) -> list[tuple[str, int, int, int]]:
        """The flat objects of the payload as (kind, value, cookie, flags)."""
        flat = [record for record in self.records if record.type in KINDS]
        return [(KINDS[o.type], o.binder, o.cookie, o.flags) for o in flat]

    @property
    def records(self) -> list[Any]:
        """All objects of the payload, each as the named tuple of its structure."""
        data = self.data
        return [
            OBJECTS[int.from_bytes(data[offset : offset + 4], "little")].read(data, offset)
            for offset in self.offset_list
        ]

    @property
    def extra(self) -> int:
        """The address of the area behind data and offsets."""
        return int(self.fields.offsets + (self.fields.offsets_size + 7 & ~7))

    def line(self, wanted: Mapping[str, object]) -> str:
        """Return the item as text, with the fields that the transcript names."""
        shown = " ".join(f"{name}={getattr(self, name)!r}" for name in wanted)
        return f"{self.name} {{{shown}}}" if shown else self.name


def received(proc: Proc, stream: bytes) -> list[Received]:
    """Return the items of what a read left in its buffer."""
    try:
        items = [
            Received(proc, item.message.word, item.fields) for item in read_stream(RETURNS, stream)
        ]
    except StreamError as error:
        raise AssertionError(f"{error}: {describe_returns(stream)}") from error
    assert not NEVER_SENT & {item.word for item in items}, describe_returns(stream)
    proc.world.seen |= {item.name for item in items}
    return items


def _matches(item: Received, word: int, wanted: Mapping[str, object]) -> bool:
    if item.word != word:
        return False
    return all(value == getattr(item, name) for name, value in wanted.items())


def _expected_line(word: int, wanted: Mapping[str, object]) -> str:
    shown = " ".join(f"{name}={value!r}" for name, value in wanted.items())
    return f"{RETURNS[word].name} {{{shown}}}" if shown else RETURNS[word].name


def assert_br(outcome: Outcome, *transcript: Expected) -> list[Received]:
    """Assert that a read succeeded and brought exactly this.

    Returns:
        The items, BR_NOOP left out, for values that later steps need.
    """
    assert outcome.errno == 0, f"the ioctl failed: {outcome}"
    expected = [(row, {}) if isinstance(row, int) else row for row in transcript]
    items = outcome.items
    if len(items) == len(expected) and all(
        _matches(item, word, wanted) for item, (word, wanted) in zip(items, expected, strict=True)
    ):
        return [item for item in items if item.word != BR_NOOP]
    named = dict(expected)
    difference = difflib.ndiff(
        [_expected_line(word, wanted) for word, wanted in expected],
        [item.line(named.get(item.word, {})) for item in items],
    )
    raise AssertionError("\n".join(["expected (-) and read (+):", *difference, str(outcome)]))
