# SPDX-License-Identifier: Apache-2.0
"""``Resolver``: what the names of types mean, and which types there can be, @nullable ones too."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from binderclient.aidl.errors import AidlImportError, AidlNameError, AidlTypeError
from binderclient.aidl.sources import nested
from binderclient.aidl.syntax import Enum, Kind, Opaque, Type

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderclient.aidl.errors import Problems
    from binderclient.aidl.sources import Program
    from binderclient.aidl.syntax import Declaration, Document, Expression, TypeName

PRIMITIVES: Final = frozenset({"boolean", "byte", "char", "int", "long", "float", "double"})
_BUILT_IN: Final = PRIMITIVES | {
    "void",
    "String",
    "IBinder",
    "FileDescriptor",
    "ParcelFileDescriptor",
    "ParcelableHolder",
}
# What Java calls some of them; files for Java import these.
_FULL_NAMES: Final = {
    "java.lang.String": "String",
    "java.lang.CharSequence": "CharSequence",
    "java.io.FileDescriptor": "FileDescriptor",
    "java.util.List": "List",
    "java.util.Map": "Map",
    "android.os.IBinder": "IBinder",
    "android.os.ParcelFileDescriptor": "ParcelFileDescriptor",
    "android.os.ParcelableHolder": "ParcelableHolder",
}
_OF_LISTS: Final = "String, IBinder, ParcelFileDescriptor, parcelables, unions and interfaces"
ITEMS_MAX: Final = 1 << 20  # of a fixed-size array; what has more fits no transaction


class Resolver:
    """Finds out what types mean.

    Args:
        program: has the files.
        size_of: evaluates the size of an array.
    """

    def __init__(self, program: Program, size_of: Callable[[Expression, Declaration], int]) -> None:
        self._program = program
        self._size_of = size_of

    def check_imports(self, document: Document, problems: Problems) -> None:
        """Read what a file imports."""
        for name, position in document.imports:
            if name in _FULL_NAMES:
                continue
            try:
                if self._program.find(name) is None:
                    problems.add(
                        AidlImportError(
                            position,
                            f"nothing has {name}: no folder given with -I has a file "
                            f"{name.replace('.', '/')}.aidl",
                        )
                    )
            except AidlImportError as error:
                problems.add(error)

    def lookup(self, name: str, scope: Declaration) -> Declaration | None:
        """Return what a name means inside a declaration; None if nothing."""
        first, *rest = name.split(".")
        inside: Declaration | None = scope
        while inside is not None:
            found = inside if inside.name == first else nested(inside, [first])
            if found is not None:
                return nested(found, rest)
            inside = inside.outer
        document = self._program.document_of[scope]
        for imported, _ in document.imports:
            if imported.rpartition(".")[2] == first:
                return self._program.find(".".join([imported, *rest]))
        if document.package:
            found = self._program.find(f"{document.package}.{name}")
            if found is not None:
                return found
        return self._program.find(name)

    def resolve(self, written: TypeName, scope: Declaration) -> Type:
        """Find out what a type means, and keep it in ``meaning``.

        Raises:
            AidlError: it means nothing, or a type that there cannot be.
        """
        name = _FULL_NAMES.get(written.name, written.name)
        nullable = written.annotation("nullable") is not None
        if name in {"List", "Map"}:
            meaning = self._generic(written, name, scope, nullable)
        elif written.arguments:
            raise AidlTypeError(written.position, f"{name} takes no types in < >")
        elif name in _BUILT_IN:
            meaning = Type(Kind.PLAIN, name)
        elif name == "CharSequence":
            raise AidlTypeError(written.position, "CharSequence is Java's only: use String")
        else:
            meaning = Type(Kind.DECLARED, name, declared=self._declared(written, scope))
        if written.dimensions:
            meaning = self._array(written, meaning, scope, nullable)
        elif nullable:
            meaning = self._nullable(written, meaning)
        _check_utf8(written, meaning)
        written.meaning = meaning
        return meaning

    def _declared(self, written: TypeName, scope: Declaration) -> Declaration:
        found = self.lookup(written.name, scope)
        if found is None:
            raise AidlNameError(
                written.position,
                f"nothing is called {written.name}: import it, and give its folder with -I",
            )
        if isinstance(found, Opaque):
            raise AidlTypeError(
                written.position,
                f"{written.name} has no fields at {found.position}: how it travels is written in "
                "Java or C++, not in AIDL",
            )
        return found

    def _generic(self, written: TypeName, name: str, scope: Declaration, nullable: bool) -> Type:
        wanted = {"List": 1, "Map": 2}[name]
        if len(written.arguments) != wanted:
            example = {"List": "List<String>", "Map": "Map<String, IBinder>"}[name]
            raise AidlTypeError(
                written.position, f"{name} takes {wanted} in < >, for example {example}"
            )
        *keys, of = [self.resolve(each, scope) for each in written.arguments]
        if keys and (keys[0].name != "String" or keys[0].kind is not Kind.PLAIN):
            raise AidlTypeError(written.arguments[0].position, "the keys of a Map are String")
        _check_item(written.arguments[-1], name, of)
        item = _may_be_null(of) if nullable and name == "List" else of
        return Type(Kind.LIST if name == "List" else Kind.MAP, name, nullable, item)

    def _array(self, written: TypeName, item: Type, scope: Declaration, nullable: bool) -> Type:
        if item.name in {"void", "ParcelableHolder"} or item.kind in {Kind.LIST, Kind.MAP}:
            raise AidlTypeError(written.position, f"there are no arrays of {item.name}")
        sizes = [
            None if each is None else self._size_of(each, scope) for each in written.dimensions
        ]
        if len(sizes) > 1 and None in sizes:
            raise AidlTypeError(
                written.position, "an array of arrays needs all its sizes, as in int[2][3]"
            )
        items = math.prod(size or 1 for size in sizes)
        if items > ITEMS_MAX:
            what = f"an array of more than {ITEMS_MAX} items"
            raise AidlTypeError(written.position, f"{what} fits no transaction")
        meaning = _may_be_null(item) if nullable else item
        for size in reversed(sizes):
            meaning = Type(Kind.ARRAY, str(written), item=meaning, size=size)
        return Type(Kind.ARRAY, str(written), nullable, meaning.item, meaning.size)

    def _nullable(self, written: TypeName, meaning: Type) -> Type:
        position = written.position
        if meaning.name == "void":
            raise AidlTypeError(position, "void cannot be @nullable")
        if meaning.kind is Kind.PLAIN and meaning.name in PRIMITIVES:
            raise AidlTypeError(
                position, f"{meaning.name} is a number or a truth value, never null"
            )
        if isinstance(meaning.declared, Enum):
            raise AidlTypeError(position, f"{meaning.name} is an enum, which is never null")
        if meaning.name == "ParcelableHolder":
            raise AidlTypeError(position, "a ParcelableHolder may be empty, but is never null")
        if meaning.name == "FileDescriptor":
            raise AidlTypeError(
                position, "a FileDescriptor is never null: use ParcelFileDescriptor"
            )
        return Type(meaning.kind, meaning.name, True, meaning.item, meaning.size, meaning.declared)


def _may_be_null(item: Type) -> Type:
    """Return the type of items of something nullable: those that can be are nullable as well."""
    if item.name in PRIMITIVES | {"FileDescriptor"} or isinstance(item.declared, Enum):
        return item
    return Type(item.kind, item.name, True, item.item, item.size, item.declared)


def _check_item(written: TypeName, name: str, item: Type) -> None:
    allowed = item.kind is Kind.DECLARED or item.name in {
        "String",
        "IBinder",
        "ParcelFileDescriptor",
    }
    if item.kind is Kind.MAP and name == "Map":
        allowed = False
    if not allowed or item.kind is Kind.ARRAY or isinstance(item.declared, Enum):
        raise AidlTypeError(
            written.position, f"a {name} is of {_OF_LISTS}, not of {written}; use an array"
        )


def _check_utf8(written: TypeName, meaning: Type) -> None:
    found = written.annotation("utf8InCpp")
    of = meaning.item if meaning.kind in {Kind.ARRAY, Kind.LIST} and meaning.item else meaning
    if found is not None and of.name != "String":
        raise AidlTypeError(found.position, "@utf8InCpp is for String, String[] and List<String>")
