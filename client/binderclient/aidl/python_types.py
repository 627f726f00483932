# SPDX-License-Identifier: Apache-2.0
"""``Types``: AIDL's types as annotations, their default values, and what a module imports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from binderclient.aidl.layout import WIDTH, Group, Text
from binderclient.aidl.python_names import ClassNames, Names, long_name, module_name
from binderclient.aidl.syntax import Enum, Interface, Kind, Parcelable, Type, Union

if TYPE_CHECKING:
    from collections.abc import Iterable

    from binderclient.aidl.syntax import Declaration

_PLAIN: Final = {
    "boolean": "bool",
    "byte": "aidl.Byte",
    "char": "aidl.Char",
    "int": "int",
    "long": "aidl.Long",
    "float": "aidl.Float",
    "double": "float",
    "String": "str",
    "IBinder": "aidl.IBinder",
    "FileDescriptor": "aidl.FileDescriptor",
    "ParcelFileDescriptor": "aidl.ReceivedFile",
    "ParcelableHolder": "aidl.ParcelableHolder",
}
_ZEROS: Final = {
    "boolean": "False",
    "byte": "0",
    "char": '"\\0"',
    "int": "0",
    "long": "0",
    "float": "0.0",
    "double": "0.0",
    "String": '""',
}
_OF_FILES: Final = frozenset({"FileDescriptor", "ParcelFileDescriptor", "ParcelableHolder"})
BLOCKING: Final = ""
AWAITING: Final = "Async"
DATA: Final = "data"  # of a parcelable: an interface in it has neither flavour


class Types:
    """The types that one module uses.

    Args:
        outermost: what the module is of.
        prefix: the package in which all modules are, with a dot behind it; or nothing.
    """

    def __init__(self, outermost: Declaration, prefix: str) -> None:
        self._prefix = prefix
        self._outermost = outermost
        self._names = Names()
        self._own = {BLOCKING: self._names.take(outermost.name)}
        if isinstance(outermost, Interface):
            self._own[AWAITING] = self._names.take(f"Async{outermost.name}")
        self._imported: dict[tuple[str, str], str] = {}  # module, class -> its name here
        self._class_names: dict[Declaration, ClassNames] = {}

    def imports(self) -> list[str]:
        """Return what comes at the end of the module."""
        lines: list[str] = []
        for (module, name), local in sorted(self._imported.items()):
            renamed = name if name == local else f"{name} as {local}"
            line = f"from {module} import {renamed}"
            is_long = len(line) > WIDTH
            lines += [f"from {module} import (", f"    {renamed},", ")"] if is_long else [line]
        return lines

    def names_of(self, declared: Declaration) -> ClassNames:
        """Return the names in a declaration's class."""
        if declared not in self._class_names:
            self._class_names[declared] = ClassNames(declared)
        return self._class_names[declared]

    def own_name(self, declared: Declaration, flavour: str = BLOCKING) -> str:
        """Return the name of a class where it is defined."""
        if declared.outer is None:
            return self._own[flavour]
        names = self.names_of(declared.outer)
        return (names.awaiting if flavour == AWAITING else names.nested)[declared.name]

    def class_of(self, declared: Declaration, flavour: str = BLOCKING) -> str:
        """Return how a class is called in this module."""
        if declared is self._outermost:
            return self._own[flavour]
        if declared.outer is not None:
            return f"{self.class_of(declared.outer)}.{self.own_name(declared, flavour)}"
        name = Names().take(f"{flavour}{declared.name}")
        key = (self._prefix + module_of(declared), name)
        if key not in self._imported:
            self._imported[key] = self._names.take(self._local(declared, name))
        return self._imported[key]

    def _local(self, declared: Declaration, name: str) -> str:
        is_free = name not in {*self._own.values(), *self._imported.values()}
        return name if is_free else long_name(declared, name)

    # Annotations

    def annotation(self, meaning: Type, flavour: str, *, vintf: bool = False) -> Text:
        """Return how a type is written.

        Args:
            meaning: the type.
            flavour: of the class in which it is.
            vintf: is that class' declaration @VintfStability?
        """
        found = self._annotation(meaning, flavour, vintf=vintf)
        if not meaning.nullable:
            return found
        if isinstance(found, Group):
            return Group(found.head, found.brackets, found.items, " | None")
        return f"{found} | None"

    def _annotation(self, meaning: Type, flavour: str, *, vintf: bool) -> Text:
        if meaning.kind is Kind.PLAIN:
            is_vintf_holder = vintf and meaning.name == "ParcelableHolder"
            return "aidl.VintfParcelableHolder" if is_vintf_holder else _PLAIN[meaning.name]
        if meaning.declared is not None:
            if not isinstance(meaning.declared, Interface):
                return self.class_of(meaning.declared)
            is_data = flavour == DATA
            return "aidl.IBinder" if is_data else self.class_of(meaning.declared, flavour)
        item = meaning.item
        assert item is not None
        if meaning.kind is Kind.MAP:
            return Group("aidl.Map", "[]", (self.annotation(item, flavour),))
        if meaning.size is not None:
            sizes: list[str] = []
            inner = self._fixed(meaning, flavour, sizes)
            size = Group("aidl.FixedSize", "()", tuple(sizes))
            return Group("typing.Annotated", "[]", (inner, size))
        if is_byte(item):
            return "bytes"
        head = "aidl.ByteEnums" if is_byte_enum(item) and meaning.kind is Kind.ARRAY else "list"
        return Group(head, "[]", (self.annotation(item, flavour),))

    def _fixed(self, meaning: Type, flavour: str, sizes: list[str]) -> Text:
        """Return a fixed-size array as lists; ``sizes`` gets the sizes."""
        item = meaning.item
        assert item is not None
        sizes.append(str(meaning.size))
        if item.kind is Kind.ARRAY:
            inner = self._fixed(item, flavour, sizes)
            if item.nullable:
                inner = f"{inner} | None"
            return Group("list", "[]", (inner,))
        if is_byte(item):
            return "bytes"
        return Group("list", "[]", (self.annotation(item, flavour),))

    # Default values

    def default(self, meaning: Type, value: Any, *, vintf: bool = False) -> Text | None:  # noqa: ANN401
        """Return the expression for a default value; None if there is none.

        Args:
            meaning: the type.
            value: what AIDL says; None if that is nothing.
            vintf: as for ``annotation``.
        """
        if value is not None:
            return self._written(meaning, value)
        if meaning.nullable:
            return "None"
        if meaning.kind is Kind.PLAIN:
            if meaning.name == "ParcelableHolder":
                return Group(str(self._annotation(meaning, DATA, vintf=vintf)), "()", ())
            return _ZEROS.get(meaning.name)
        if meaning.kind is Kind.DECLARED:
            return self._default_of_declared(meaning.declared)
        if meaning.kind is Kind.MAP:
            return "{}"
        assert meaning.item is not None
        if meaning.size is None:
            return 'b""' if is_byte(meaning.item) and meaning.kind is Kind.ARRAY else "[]"
        if is_byte(meaning.item):
            return f"bytes({meaning.size})"
        item = self.default(meaning.item, None)
        if item is None:
            return None
        return f"[{item} for _ in range({meaning.size})]"

    def _default_of_declared(self, declared: Declaration | None) -> Text | None:
        if isinstance(declared, Enum):
            return self._enumerator(declared, 0)
        if isinstance(declared, Parcelable) and self.has_default(declared):
            return Group(self.class_of(declared), "()", ())
        return None

    def has_default(self, declared: Parcelable) -> bool:
        """Can a value be made without saying what is in it?"""
        fields = declared.fields[:1] if isinstance(declared, Union) else declared.fields
        return all(
            each.type.meaning is not None
            and self.default(each.type.meaning, each.value) is not None
            for each in fields
        )

    def _enumerator(self, declared: Enum, value: int) -> str:
        names = self.names_of(declared).members
        for each in declared.enumerators:
            if each.value == value:
                return f"{self.class_of(declared)}.{names[each.name]}"
        return f"{self.class_of(declared)}({value})"

    def _written(self, meaning: Type, value: Any) -> Text:  # noqa: ANN401
        if isinstance(meaning.declared, Enum):
            return self._enumerator(meaning.declared, value)
        if isinstance(value, list):
            assert meaning.item is not None
            if is_byte(meaning.item) and meaning.kind is Kind.ARRAY:
                return 'b"' + "".join(f"\\x{each & 0xFF:02x}" for each in value) + '"'
            return Group("", "[]", tuple(self._written(meaning.item, each) for each in value))
        return literal(value)


def literal(value: Any) -> str:  # noqa: ANN401
    """Return a number, truth value or text as formatters leave it."""
    if isinstance(value, str):
        return f"'{value}'" if '"' in value else f'"{value}"'
    return repr(value)


def is_byte(meaning: Type) -> bool:
    """Is it what arrays of are bytes?"""
    return meaning.kind is Kind.PLAIN and meaning.name == "byte"


def is_byte_enum(meaning: Type) -> bool:
    """Is it an enum of type byte?"""
    return isinstance(meaning.declared, Enum) and meaning.declared.backing == "byte"


def module_of(declared: Declaration) -> str:
    """Return the module in which a declaration's class is."""
    parts = [*declared.package.split("."), declared.outermost.name]
    return ".".join(module_name(each) for each in parts if each)


def carries_files(meanings: Iterable[Type | None]) -> bool:
    """Can a value of any of these types have an open file in it?"""
    left = [each for each in meanings if each is not None]
    seen: set[Declaration] = set()
    while left:
        meaning = left.pop()
        if meaning.name in _OF_FILES and meaning.kind is Kind.PLAIN:
            return True
        declared = meaning.declared
        if meaning.item is not None:
            left.append(meaning.item)
        elif isinstance(declared, Parcelable) and declared not in seen:
            seen.add(declared)
            left += [each.type.meaning for each in declared.fields if each.type.meaning is not None]
    return False
