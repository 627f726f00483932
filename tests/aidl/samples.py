# SPDX-License-Identifier: Apache-2.0
"""Values of any AIDL type, the same each time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from binderclient.aidl.syntax import Interface, Kind, Parcelable, Type
from binderclient.files import ReceivedFile
from binderclient.objects import Service

if TYPE_CHECKING:
    from aidl.conftest import Generated

_PLAIN: Final[dict[str, tuple[Any, ...]]] = {
    "boolean": (True, False),
    "byte": (-3, 127, -128),
    "char": ("q", "☕", "\uffff"),
    "int": (70000, -1, -(1 << 31)),
    "long": (1 << 40, -2, (1 << 63) - 1),
    "float": (0.5, -1.25, 3.0),
    "double": (0.1, -2.5e300, 7.0),
    "String": ("tea ☕", "", "odd", "\U0001f375 cup"),
}


class Samples:
    """Makes values.

    Args:
        generated: has the classes.
        with_nulls: is what may be null null?
    """

    def __init__(self, generated: Generated, *, with_nulls: bool) -> None:
        self._generated = generated
        self._with_nulls = with_nulls
        self._number = 0

    def value(self, type_: Type | None) -> Any:  # noqa: ANN401 - of that type
        """Return the next value of a type."""
        assert type_ is not None
        self._number += 1
        if type_.nullable and self._with_nulls:
            return None
        if type_.kind is Kind.PLAIN:
            return self._plain(type_.name)
        if type_.declared is not None:
            return self._declared(type_)
        assert type_.item is not None
        if type_.item.name == "byte" and type_.kind is Kind.ARRAY:
            return bytes(range(250, 250 + self._number % 5))
        return [self.value(type_.item) for _ in range(1 + self._number % 3)]

    def _plain(self, name: str) -> Any:  # noqa: ANN401
        if name == "IBinder":
            return Service()
        if name in {"FileDescriptor", "ParcelFileDescriptor"}:
            return ReceivedFile(os.open(os.devnull, os.O_RDONLY))
        choice = _PLAIN[name]
        return choice[self._number % len(choice)]

    def _declared(self, type_: Type) -> Any:  # noqa: ANN401
        declared = type_.declared
        assert declared is not None
        cls = self._generated(declared.qualified)
        if isinstance(declared, Interface):
            return cls()
        assert isinstance(declared, Parcelable)
        return cls(**{each.name: self.value(each.type.meaning) for each in declared.fields})
