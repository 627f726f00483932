# SPDX-License-Identifier: Apache-2.0
"""What parcelables contain: themselves never, and only what has a fixed size with @FixedSize."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from binderclient.aidl.errors import AidlTypeError
from binderclient.aidl.resolve import ITEMS_MAX, PRIMITIVES
from binderclient.aidl.syntax import Enum, Kind, Parcelable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binderclient.aidl.syntax import Field, Type

CONTAINED_MAX: Final = 64  # parcelables in each other; a value is made of all of them


class Containment:
    """Checks what is in every value of parcelables and unions; each is looked at once."""

    def __init__(self) -> None:
        self._weights: dict[Parcelable, int] = {}
        self._open: list[Parcelable] = []

    def check(self, declared: Parcelable) -> int:
        """Check a parcelable and what it contains.

        Returns:
            How many parcelables a value is made of.

        Raises:
            AidlTypeError: it contains itself, too many others, or what @FixedSize does not allow.
        """
        if declared in self._weights:
            return self._weights[declared]
        self._open.append(declared)
        weight = 1
        try:
            _check_fixed_size(declared)
            for field, inner, count in _contained(declared):
                self._check_open(field, inner)
                weight += count * self.check(inner)
                if weight > ITEMS_MAX:
                    raise AidlTypeError(
                        field.type.position,
                        f"a value would have {weight} parts, which fits no transaction: "
                        f"make {field.name} @nullable",
                    )
        finally:
            self._open.pop()
            self._weights[declared] = min(weight, ITEMS_MAX)
        return weight

    def _check_open(self, field: Field, inner: Parcelable) -> None:
        what = ""
        if inner in self._open:
            what = f"{inner.name} would contain itself without end"
        elif len(self._open) >= CONTAINED_MAX:
            what = f"more than {CONTAINED_MAX} parcelables are in each other"
        if what:
            raise AidlTypeError(field.type.position, f"{what}: make {field.name} @nullable")


def _check_fixed_size(declared: Parcelable) -> None:
    if declared.annotation("FixedSize") is None:
        return
    for field in declared.fields:
        if field.type.meaning is None or not _is_fixed(field.type.meaning):
            raise AidlTypeError(
                field.type.position,
                f"{field.name}: in a @FixedSize {declared.word} there are numbers, truth "
                "values, enums, arrays of a fixed size and other @FixedSize types only",
            )


def _contained(declared: Parcelable) -> Iterator[tuple[Field, Parcelable, int]]:
    """Yield what is in every value of a type, by the field, and how often."""
    for field in declared.fields:
        meaning = field.type.meaning
        count = 1
        while meaning is not None and meaning.kind is Kind.ARRAY and meaning.size is not None:
            count *= meaning.size
            meaning = None if meaning.nullable else meaning.item
        if meaning is not None and not meaning.nullable:
            inner = meaning.declared
            if meaning.kind is Kind.DECLARED and isinstance(inner, Parcelable):
                yield field, inner, count


def _is_fixed(meaning: Type) -> bool:
    if meaning.nullable:
        return False
    if meaning.kind is Kind.ARRAY:
        return meaning.size is not None and meaning.item is not None and _is_fixed(meaning.item)
    declared = meaning.declared
    if declared is None:
        return meaning.name in PRIMITIVES
    return isinstance(declared, Enum) or declared.annotation("FixedSize") is not None
