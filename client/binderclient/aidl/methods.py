# SPDX-License-Identifier: Apache-2.0
"""The rules for methods: which way arguments travel, and which number each method has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from binderclient import android
from binderclient.aidl.errors import AidlError, AidlNameError, AidlTypeError, AidlValueError
from binderclient.aidl.syntax import Direction, Enum, Interface, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderclient.aidl.errors import Problems
    from binderclient.aidl.syntax import Argument, Literal, Method, Type

# What AIDL keeps for methods that every interface may have: the last hundred codes.
NUMBER_MAX: Final = android.LAST_CALL_TRANSACTION - android.FIRST_CALL_TRANSACTION - 100
# fmt: off
_OF_JAVA: Final = frozenset(
    {
        "abstract", "assert", "boolean", "break", "byte", "case", "catch", "char", "class",
        "const", "continue", "default", "do", "double", "else", "enum", "extends", "final",
        "finally", "float", "for", "goto", "if", "implements", "import", "instanceof", "int",
        "interface", "long", "native", "new", "package", "private", "protected", "public",
        "return", "short", "static", "strictfp", "super", "switch", "synchronized", "this",
        "throw", "throws", "transient", "try", "void", "volatile", "while", "true", "false",
        "null",
    }
)
# fmt: on
_RESERVED: Final = frozenset({"getInterfaceVersion", "getInterfaceHash"})


def check_methods(
    declared: Interface, number_of: Callable[[Literal], int], problems: Problems
) -> None:
    """Check the methods of an interface, and number them.

    Args:
        declared: the interface.
        number_of: evaluates a literal.
        problems: gets what is wrong.
    """
    numbered = [each for each in declared.methods if each.number is not None]
    if numbered and len(numbered) != len(declared.methods):
        without = next(each for each in declared.methods if each.number is None)
        problems.add(
            AidlValueError(without.position, "either all methods have a number (= 5), or none has")
        )
    codes: dict[int, str] = {}
    for place, method in enumerate(declared.methods):
        try:
            number = place if method.number is None else _number(method.number, number_of)
            method.code = android.FIRST_CALL_TRANSACTION + number
            if method.code in codes:
                raise AidlValueError(
                    method.position, f"{codes[method.code]} has the number {number} already"
                )
            codes[method.code] = method.name
            _check_method(method)
        except AidlError as error:
            problems.add(error)


def _number(literal: Literal, number_of: Callable[[Literal], int]) -> int:
    number = number_of(literal)
    if not 0 <= number <= NUMBER_MAX:
        raise AidlValueError(literal.position, f"a method's number is from 0 to {NUMBER_MAX}")
    return number


def _check_method(method: Method) -> None:
    if method.name in _RESERVED:
        raise AidlNameError(method.position, f"AIDL keeps the name {method.name} for itself")
    result = method.result.meaning
    if result is not None and result.name == "ParcelableHolder":
        raise AidlTypeError(method.result.position, "a ParcelableHolder is for fields only")
    if method.oneway and result is not None and result.name != "void":
        raise AidlTypeError(method.result.position, f"{method.name} is oneway: it returns void")
    names: set[str] = set()
    for argument in method.arguments:
        if argument.name in names:
            raise AidlNameError(argument.position, f"two arguments are called {argument.name}")
        if argument.name in _OF_JAVA:
            raise AidlNameError(
                argument.position, f"{argument.name} is Java's own word: Android takes no such name"
            )
        if argument.name.startswith("_aidl"):
            raise AidlNameError(argument.position, "AIDL keeps names that begin with _aidl")
        names.add(argument.name)
        if argument.type.meaning is not None:
            _check_direction(method, argument, argument.type.meaning)


def _check_direction(method: Method, argument: Argument, meaning: Type) -> None:
    if meaning.name in {"void", "ParcelableHolder"} and meaning.kind is Kind.PLAIN:
        raise AidlTypeError(argument.type.position, f"an argument cannot be {meaning.name}")
    allowed = _directions(meaning)
    if not argument.written and len(allowed) > 1:
        words = ", ".join(each.value for each in allowed)
        raise AidlTypeError(
            argument.type.position,
            f"{argument.name}: write which way {argument.type} travels: {words}",
        )
    if argument.direction not in allowed:
        words = " or ".join(each.value for each in allowed)
        raise AidlTypeError(
            argument.position, f"{argument.name}: {argument.type} can be {words} only"
        )
    if method.oneway and argument.goes_out:
        raise AidlTypeError(
            argument.position, f"{method.name} is oneway: {argument.name} cannot come back"
        )


def _directions(meaning: Type) -> tuple[Direction, ...]:
    if meaning.kind in {Kind.ARRAY, Kind.LIST, Kind.MAP}:
        return tuple(Direction)
    if meaning.name == "ParcelFileDescriptor":
        return tuple(Direction)
    if meaning.declared is None or isinstance(meaning.declared, Interface | Enum):
        return (Direction.IN,)
    return tuple(Direction)
