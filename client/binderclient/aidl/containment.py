# SPDX-License-Identifier: Apache-2.0
"""What parcelables contain: themselves never, and only what has a fixed size with @FixedSize."""

from __future__ import annotations

from typing import TYPE_CHECKING

from binderclient.aidl.errors import AidlTypeError
from binderclient.aidl.resolve import PRIMITIVES
from binderclient.aidl.syntax import Enum, Kind, Parcelable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binderclient.aidl.syntax import Declaration, Field, Type


def check_containment(declared: Parcelable) -> None:
    """Check the fields of a parcelable or union.

    Raises:
        AidlTypeError: it contains itself, or what @FixedSize does not allow.
    """
    if declared.annotation("FixedSize") is not None:
        for field in declared.fields:
            if field.type.meaning is None or not _is_fixed(field.type.meaning):
                raise AidlTypeError(
                    field.type.position,
                    f"{field.name}: in a @FixedSize {declared.word} there are numbers, truth "
                    "values, enums, arrays of a fixed size and other @FixedSize types only",
                )
    seen: set[Declaration] = set()
    ways = [(field, each) for field, each in _contained(declared)]
    while ways:
        field, inner = ways.pop()
        if inner is declared:
            raise AidlTypeError(
                field.type.position,
                f"{declared.name} would contain itself without end: make {field.name} @nullable",
            )
        if inner not in seen:
            seen.add(inner)
            ways += [(field, each) for _, each in _contained(inner)]


def _contained(declared: Parcelable) -> Iterator[tuple[Field, Parcelable]]:
    """Yield what is in every value of a type, by the field."""
    for field in declared.fields:
        meaning = field.type.meaning
        while meaning is not None and meaning.kind is Kind.ARRAY and meaning.size is not None:
            meaning = None if meaning.nullable else meaning.item
        if meaning is not None and not meaning.nullable:
            inner = meaning.declared
            if meaning.kind is Kind.DECLARED and isinstance(inner, Parcelable):
                yield field, inner


def _is_fixed(meaning: Type) -> bool:
    if meaning.nullable:
        return False
    if meaning.kind is Kind.ARRAY:
        return meaning.size is not None and meaning.item is not None and _is_fixed(meaning.item)
    declared = meaning.declared
    if declared is None:
        return meaning.name in PRIMITIVES
    return isinstance(declared, Enum) or declared.annotation("FixedSize") is not None
