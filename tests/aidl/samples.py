# SPDX-License-Identifier: Apache-2.0
"""Values of any AIDL type, the same each time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from binderclient.aidl.python_names import ClassNames
from binderclient.aidl.runtime import ParcelableHolder
from binderclient.aidl.syntax import Enum, Interface, Kind, Parcelable, Type, Union
from binderclient.files import ReceivedFile
from binderclient.objects import Service

if TYPE_CHECKING:
    from aidl.conftest import Generated
    from binderclient.aidl.syntax import Field

_DEPTH_MAX: Final = 2  # of parcelables in others that may be null
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
        self._depth = 0

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
        count = 1 + self._number % 3 if type_.size is None else type_.size
        if type_.kind is Kind.MAP:
            return {f"key{each}": self.value(type_.item) for each in range(count)}
        if type_.item.name == "byte" and type_.kind is Kind.ARRAY:
            return bytes(range(250, 250 + count))
        return [self.value(type_.item) for _ in range(count)]

    def _plain(self, name: str) -> Any:  # noqa: ANN401
        if name == "IBinder":
            return Service()
        if name in {"FileDescriptor", "ParcelFileDescriptor"}:
            return ReceivedFile(os.open(os.devnull, os.O_RDONLY))
        if name == "ParcelableHolder":
            return ParcelableHolder(self._generated("org.example.later.Value")(text="held"))
        choice = _PLAIN[name]
        return choice[self._number % len(choice)]

    def _declared(self, type_: Type) -> Any:  # noqa: ANN401
        declared = type_.declared
        assert declared is not None
        cls = self._generated(declared.outermost.qualified)
        for name in declared.qualified.removeprefix(declared.outermost.qualified).split(".")[1:]:
            cls = getattr(cls, name)
        if isinstance(declared, Interface):
            return cls()
        if isinstance(declared, Enum):
            return cls(declared.enumerators[self._number % len(declared.enumerators)].value)
        assert isinstance(declared, Parcelable)
        names = ClassNames(declared).members
        chosen = declared.fields
        if isinstance(declared, Union):
            chosen = [declared.fields[self._number % len(declared.fields)]]
        if self._depth > _DEPTH_MAX:
            chosen = [
                each for each in chosen if each.type.meaning and not each.type.meaning.nullable
            ]
        self._depth += 1
        values = {names[each.name]: self.value(each.type.meaning) for each in chosen}
        self._depth -= 1
        return cls(**values)


def _is_nullable(field: Field) -> bool:
    return field.type.meaning is not None and field.type.meaning.nullable
