# SPDX-License-Identifier: Apache-2.0
"""``Evaluator``: the values of constant expressions, as AIDL computes them.

Integers have 32 bits, or 64 if their literal needs these or ends in L; hexadecimal literals are bit
patterns (0xffffffff is -1).  Smaller ones and truth values become 32 bits wide when computed with.
A result that its type cannot hold is an error, but for <<, which drops bits.
"""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from binderclient.aidl.errors import AidlError, AidlNameError, AidlValueError
from binderclient.aidl.syntax import (
    INTEGERS,
    Constant,
    Enum,
    Enumerator,
    Kind,
    ListOf,
    Literal,
    Reference,
    Type,
    Unary,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from binderclient.aidl.errors import Position
    from binderclient.aidl.resolve import Resolver
    from binderclient.aidl.syntax import Declaration, Expression

_SUFFIXES: Final = {"l": 64, "u8": 8, "u32": 32, "u64": 64}  # bits
_DIGITS_MAX: Final = 40  # of a number; 64 bits are 20
_TEXT_MAX: Final = 1 << 16
_DEPTH_MAX: Final = 100  # constants that refer to each other


class Value(NamedTuple):
    """A value: an integer of ``bits`` (1: a truth value), or something else if these are 0."""

    value: Any
    bits: int = 0
    enum: Enum | None = None  # of which it is an enumerator
    is_character: bool = False
    is_single: bool = False  # a floating point number of 32 bits
    is_pattern: bool = False  # a hexadecimal literal, which gives bits

    @property
    def kind(self) -> str:
        """What it is, for messages."""
        if self.bits:
            return "a truth value" if self.bits == 1 else "an integer"
        if self.is_character:
            return "a character"
        return {str: "a string", float: "a floating point number", list: "an array"}[
            type(self.value)
        ]


class Evaluator:
    """Computes expressions, each constant once.

    Attributes:
        resolver: finds what names mean; to be set before anything is computed.
    """

    def __init__(self) -> None:
        self.resolver: Resolver | None = None
        self._values: dict[int, Value] = {}  # of constants, by identity
        self._open: list[int] = []  # what is being computed
        self._done: set[int] = set()  # enums
        self._failed: dict[int, AidlError] = {}
        self._members: dict[Declaration, dict[str, Constant | Enumerator]] = {}

    def size(self, expression: Expression, scope: Declaration) -> int:
        """Return the size of an array.

        Raises:
            AidlError: it has no value, or is no number above 0.
        """
        value = self.evaluate(expression, scope)
        if value.bits <= 1 or not 0 < value.value < 1 << 31:
            raise AidlValueError(expression.position, "the size of an array is a number above 0")
        return int(value.value)

    def number(self, literal: Literal) -> int:
        """Return the number of a method, which is a literal.

        Raises:
            AidlValueError: it is too large.
        """
        return int(self._integer(literal).value)

    def constant(self, constant: Constant, scope: Declaration) -> Value:
        """Return the value of a constant, and keep it in ``constant.value``.

        Raises:
            AidlError: it has no value, or none that fits its type.
        """
        key = id(constant)
        if key not in self._values:
            with_type = constant.type.meaning or self._resolver.resolve(constant.type, scope)
            with self._computing(key, constant.position):
                found = self.evaluate(constant.expression, scope)
                constant.value = fitted(found, with_type, constant.expression.position)
            self._values[key] = _value_of(constant.value, with_type)
        return self._values[key]

    def enum(self, enum: Enum) -> None:
        """Compute the enumerators of an enum, up to those that it is asked for meanwhile."""
        if id(enum) in self._done:
            return
        with self._computing(id(enum), enum.position):
            number = 0
            for each in enum.enumerators:
                if each.expression is not None:
                    value = self.evaluate(each.expression, enum)
                    number = _whole(value, enum.backing, each.expression.position)
                each.value = _in_range(number, enum.backing, each.position)
                self._values[id(each)] = Value(number, INTEGERS[enum.backing], enum)
                number += 1
        self._done.add(id(enum))

    @contextlib.contextmanager
    def _computing(self, key: int, position: Position) -> Iterator[None]:
        """Compute something once, whether or not that succeeds."""
        if key in self._failed:
            raise self._failed[key]
        if key in self._open:
            raise AidlValueError(position, "this constant's value depends on itself")
        if len(self._open) >= _DEPTH_MAX:
            raise AidlValueError(
                position, f"more than {_DEPTH_MAX} constants depend on each other here"
            )
        self._open.append(key)
        try:
            yield
        except AidlError as error:
            self._failed[key] = error
            raise
        finally:
            self._open.pop()

    @property
    def _resolver(self) -> Resolver:
        assert self.resolver is not None
        return self.resolver

    # Expressions

    def evaluate(self, expression: Expression, scope: Declaration) -> Value:
        """Return the value of an expression inside a declaration.

        Raises:
            AidlError: it has none.
        """
        if isinstance(expression, Literal):
            return self._literal(expression)
        if isinstance(expression, Reference):
            return self._reference(expression, scope)
        if isinstance(expression, ListOf):
            return Value([self.evaluate(each, scope) for each in expression.items])
        if isinstance(expression, Unary):
            value = self.evaluate(expression.operand, scope)
            for operator in reversed(expression.operators):
                value = _unary(operator, value, expression.position)
            return value
        value = self.evaluate(expression.first, scope)
        for operator, operand in expression.rest:
            right = self.evaluate(operand, scope)
            value = _binary(operator, value, right, operand.position)
        return value

    def _literal(self, literal: Literal) -> Value:
        if literal.kind in {"TRUE", "FALSE"}:
            return Value(int(literal.kind == "TRUE"), 1)
        if literal.kind in {"INTEGER", "HEXADECIMAL"}:
            return self._integer(literal)
        text = literal.text
        if literal.kind == "FLOAT":
            number = float(text.removesuffix("f"))
            if number == float("inf"):
                raise AidlValueError(literal.position, f"{text[:20]} is too large")
            return Value(number, is_single=text.endswith("f"))
        for column, character in enumerate(text[1:-1], 1):
            if not " " <= character <= "~" or character == "\\":
                position = literal.position._replace(column=literal.position.column + column)
                raise AidlValueError(
                    position, f"{character!r}: text in AIDL is ASCII without escapes"
                )
        return Value(text[1:-1], is_character=literal.kind == "CHARACTER")

    def _integer(self, literal: Literal) -> Value:
        text = literal.text.lower()
        ending = next((each for each in ("u8", "u32", "u64", "l") if text.endswith(each)), "")
        digits = text.removesuffix(ending)
        is_pattern = literal.kind == "HEXADECIMAL"
        number = 1 << 64
        if len(digits) <= _DIGITS_MAX:
            number = int(digits, 16) if is_pattern else int(digits)
        wraps = is_pattern or ending.startswith("u")
        for bits in (_SUFFIXES[ending],) if ending else (32, 64):
            if number < 1 << (bits if wraps else bits - 1):
                return Value(_wrapped(number, bits), bits, is_pattern=is_pattern)
        what = f"{_SUFFIXES[ending]} bits" if ending else "64 bits"
        raise AidlValueError(literal.position, f"{literal.text[:30]} does not fit {what}")

    def _reference(self, reference: Reference, scope: Declaration) -> Value:
        before, _, name = reference.name.rpartition(".")
        if before:
            owner = self._resolver.lookup(before, scope)
            if owner is None:
                raise AidlNameError(reference.position, f"nothing is called {before}")
            found = self._member(owner, name)
        else:
            found = None
            inside: Declaration | None = scope
            while inside is not None and found is None:
                found = self._member(inside, name)
                inside = inside.outer
        if found is None:
            raise AidlNameError(reference.position, f"no constant is called {reference.name}")
        return found

    def _member(self, owner: Declaration, name: str) -> Value | None:
        if owner not in self._members:
            inside: list[Constant | Enumerator] = [*owner.constants]
            inside += owner.enumerators if isinstance(owner, Enum) else []
            self._members[owner] = {each.name: each for each in reversed(inside)}
        found = self._members[owner].get(name)
        if found is None:
            return None
        if isinstance(found, Constant):
            return self.constant(found, owner)
        if id(found) not in self._values:
            assert isinstance(owner, Enum)
            self.enum(owner)
        return self._values[id(found)]


def _value_of(value: Any, of: Type) -> Value:  # noqa: ANN401
    if of.name in INTEGERS:
        return Value(value, INTEGERS[of.name])
    if of.name == "boolean":
        return Value(int(value), 1)
    if isinstance(of.declared, Enum):
        return Value(value, INTEGERS[of.declared.backing], of.declared)
    if of.kind in {Kind.ARRAY, Kind.LIST} and of.item is not None:
        return Value([_value_of(each, of.item) for each in value])
    return Value(value, is_character=of.name == "char", is_single=of.name == "float")


def _wrapped(number: int, bits: int) -> int:
    return (number + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)


def _checked(number: int, bits: int, position: Position) -> Value:
    if _wrapped(number, bits) != number:
        raise AidlValueError(position, f"the result does not fit {bits} bits; write a number as 1L")
    return Value(number, bits)


def _unary(operator: str, value: Value, position: Position) -> Value:
    if not value.bits:
        if operator in "+-" and isinstance(value.value, float):
            number = -value.value if operator == "-" else value.value
            return Value(number, is_single=value.is_single)
        raise AidlValueError(position, f"{operator} cannot be in front of {value.kind}")
    if operator == "!":
        return Value(int(not value.value), 1)
    bits = max(value.bits, 32)
    number = {"+": value.value, "-": -value.value, "~": ~value.value}[operator]
    return _checked(number, bits, position)


def _divide(left: int, right: int) -> int:
    """Divide as C does, towards zero."""
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


_ARITHMETIC: Final[dict[str, Callable[[int, int], int]]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": _divide,
    "%": lambda left, right: left - right * _divide(left, right),
    "|": lambda left, right: left | right,
    "^": lambda left, right: left ^ right,
    "&": lambda left, right: left & right,
}
_TRUTHS: Final[dict[str, Callable[[int, int], bool]]] = {
    "||": lambda left, right: bool(left or right),
    "&&": lambda left, right: bool(left and right),
    "==": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<": lambda left, right: left < right,
    ">": lambda left, right: left > right,
    "<=": lambda left, right: left <= right,
    ">=": lambda left, right: left >= right,
}


def _binary(operator: str, left: Value, right: Value, position: Position) -> Value:
    if operator == "+" and left.kind == right.kind == "a string":
        text = left.value + right.value
        if len(text) > _TEXT_MAX:
            raise AidlValueError(position, f"a text of more than {_TEXT_MAX} characters")
        return Value(text)
    for each in (left, right):
        if not each.bits:
            raise AidlValueError(position, f"{operator} cannot be used with {each.kind}")
    if operator in _TRUTHS:
        return Value(int(_TRUTHS[operator](left.value, right.value)), 1)
    if operator in {"<<", ">>"}:
        bits = max(left.bits, 32)
        if not 0 <= right.value < bits:
            raise AidlValueError(
                position, f"{right.value} is no number of bits from 0 to {bits - 1}"
            )
        shifted = left.value << right.value if operator == "<<" else left.value >> right.value
        return Value(_wrapped(shifted, bits), bits)
    if operator in "/%" and right.value == 0:
        raise AidlValueError(position, "a division by zero")
    bits = max(left.bits, right.bits, 32)
    return _checked(_ARITHMETIC[operator](left.value, right.value), bits, position)


# What fits a type


def fitted(value: Value, to: Type, position: Position) -> Any:  # noqa: ANN401 - as Python has it
    """Return a value as Python has it in a type.

    Raises:
        AidlValueError: it does not fit.
    """
    if to.kind in {Kind.ARRAY, Kind.LIST} and to.item is not None:
        if not isinstance(value.value, list):
            raise AidlValueError(position, f"{value.kind} is no array: write {{ }} around it")
        if to.size is not None and len(value.value) != to.size:
            raise AidlValueError(position, f"{len(value.value)} items, where {to.size} belong")
        return [fitted(each, to.item, position) for each in value.value]
    if isinstance(to.declared, Enum):
        if value.enum is not to.declared:
            raise AidlValueError(position, f"this is no enumerator of {to.declared.qualified}")
        return value.value
    if to.kind is Kind.PLAIN:
        return _fitted_plain(value, to.name, position)
    raise AidlValueError(position, f"there is no constant of type {to.name}")


def _fitted_plain(value: Value, name: str, position: Position) -> Any:  # noqa: ANN401
    if name in INTEGERS:
        return _whole(value, name, position)
    if name == "boolean" and value.bits:
        return bool(value.value)
    if name in {"float", "double"} and isinstance(value.value, float):
        if name == "float" and not value.is_single:
            raise AidlValueError(position, f"this is no float: write {value.value}f")
        return _floating(value.value, name, position)
    if name == "char" and value.is_character:
        return value.value
    if name == "String" and isinstance(value.value, str) and not value.is_character:
        return value.value
    raise AidlValueError(position, f"{value.kind} is no {name}")


def _floating(number: float, name: str, position: Position) -> float:
    try:
        struct.pack("=f" if name == "float" else "=d", number)
    except OverflowError:
        raise AidlValueError(position, f"{number} is too large for {name}") from None
    return float(number)


def _whole(value: Value, name: str, position: Position) -> int:
    if not value.bits:
        raise AidlValueError(position, f"{value.kind} is no {name}")
    number = value.value
    if value.is_pattern and 0 <= number < 1 << INTEGERS[name]:
        number = _wrapped(number, INTEGERS[name])
    return _in_range(number, name, position)


def _in_range(number: int, name: str, position: Position) -> int:
    bits = INTEGERS[name]
    if _wrapped(number, bits) != number:
        low, high = -(1 << bits - 1), (1 << bits - 1) - 1
        hint = f"; {number:#x}u{bits} is its bits" if 0 < number < 1 << bits else ""
        raise AidlValueError(position, f"{number} is no {name}, from {low} to {high}{hint}")
    return number
