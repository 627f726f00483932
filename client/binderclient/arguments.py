# SPDX-License-Identifier: Apache-2.0
"""Checks of arguments: a wrong one is refused with an error that names function and argument.

Nothing here may know any other module.
"""

from __future__ import annotations

from typing import Final

_U32_MAX: Final = 0xFFFFFFFF


def check_type(place: str, value: object, *wanted: type) -> None:
    """Refuse an argument of another type; a truth value is no number here.

    Args:
        place: the function and the argument, for the error: ``append(): start``.
        value: the argument.
        wanted: what it may be.

    Raises:
        TypeError: it is not.
    """
    if isinstance(value, wanted) and not (value is True or value is False):
        return
    if isinstance(value, bool) and bool in wanted:
        return
    raise _refusal(place, value, " or ".join(each.__name__ for each in wanted))


def check_callable(place: str, value: object) -> None:
    """Refuse what cannot be called; see ``check_type``."""
    if not callable(value):
        raise _refusal(place, value, "a function")


def check_number(place: str, value: object, lowest: int, highest: int = _U32_MAX) -> None:
    """Refuse what is no whole number of a range; see ``check_type``.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is out of the range.
    """
    check_type(place, value, int)
    assert isinstance(value, int)
    if not lowest <= value <= highest:
        raise ValueError(f"{place} must be from {lowest} to {highest}, not {value}")


def check_code(code: int) -> None:
    """Refuse what is no code of a transaction, a number of 32 bits; see ``check_number``."""
    if type(code) is not int or not 0 <= code <= _U32_MAX:
        check_number("call(): code", code, 0)


def _refusal(place: str, value: object, wanted: str) -> TypeError:
    found = "None" if value is None else type(value).__name__
    return TypeError(f"{place} must be {wanted}, not {found}")
