# SPDX-License-Identifier: Apache-2.0
"""How AIDL's names are called in Python: the same, unless that cannot be.

A name that Python, this library or the generated text itself needs has an underscore behind it; one
that begins with an underscore, which would make it private, has an x before it.
"""

from __future__ import annotations

import functools
import keyword
from typing import TYPE_CHECKING, Final

from binderclient.aidl.syntax import Enum, Interface, Parcelable, Union, types_in
from binderclient.interfaces import InterfaceProxy
from binderclient.objects import Service

if TYPE_CHECKING:
    from collections.abc import Iterable

    from binderclient.aidl.syntax import Declaration

# What the generated text uses by these names.
# fmt: off
USED: Final = frozenset(
    {
        "aidl", "annotations", "bool", "bytes", "dataclasses", "dict", "float", "int", "list",
        "range", "self", "str", "super", "tuple", "typing", "NotImplementedError",
    }
)
# fmt: on
_OF_SERVICES: Final = frozenset([*dir(Service), *dir(InterfaceProxy), "binder", "timeout"])
_OF_ENUMS: Final = frozenset([*dir(int), "mro", "name", "value"])
_OF_UNIONS: Final = frozenset(["tag", "Tag"])


class Names:
    """The names in one class or list of arguments.

    Args:
        reserved: what nothing in it may be called.
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self._taken = {*USED, *reserved}

    def take(self, name: str) -> str:
        """Return the name for something, which nothing else gets."""
        found = f"x{name}" if name.startswith("_") else name
        while found in self._taken or keyword.iskeyword(found):
            found += "_"
        self._taken.add(found)
        return found


def module_name(name: str) -> str:
    """Return the name of a package's or file's module."""
    return f"{name}_" if keyword.iskeyword(name) else name


class ClassNames:
    """The names of a declaration's class and its members, by those in AIDL."""

    def __init__(self, declared: Declaration) -> None:
        names = Names(_reserved(declared) | _classes_in(declared.outermost))
        self.nested: dict[str, str] = {}
        self.awaiting: dict[str, str] = {}  # of nested interfaces
        self.members: dict[str, str] = {}
        for inner in declared.nested:
            self.nested[inner.name] = names.take(inner.name)
        if isinstance(declared, Enum):
            self.members = {each.name: names.take(each.name) for each in declared.enumerators}
        if isinstance(declared, Parcelable):
            self.members = {each.name: names.take(each.name) for each in declared.fields}
        if isinstance(declared, Interface):
            self.members = {each.name: names.take(each.name) for each in declared.methods}
        self.constants = {each.name: names.take(each.name) for each in declared.constants}
        for inner in declared.nested:
            if isinstance(inner, Interface):
                self.awaiting[inner.name] = names.take(f"Async{inner.name}")


@functools.cache
def _classes_in(outermost: Declaration) -> frozenset[str]:
    """Return the names in a module under which its annotations have classes."""
    found = {outermost.name, f"Async{outermost.name}"}
    for declared in outermost.everything():
        for written in types_in(declared):
            meaning = written.meaning
            while meaning is not None and meaning.item is not None:
                meaning = meaning.item
            if meaning is not None and meaning.declared is not None:
                other = meaning.declared.outermost
                for name in (other.name, f"Async{other.name}"):
                    found |= {name, long_name(other, name)}
    return frozenset(found)


def long_name(declared: Declaration, name: str) -> str:
    """Return what a class of another module is called where its name is taken."""
    return f"{declared.package.replace('.', '_')}_{name}"


def _reserved(declared: Declaration) -> frozenset[str]:
    if isinstance(declared, Interface):
        return _OF_SERVICES
    if isinstance(declared, Enum):
        return _OF_ENUMS
    return _OF_UNIONS | _OF_ENUMS if isinstance(declared, Union) else frozenset()
