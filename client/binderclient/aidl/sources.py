# SPDX-License-Identifier: Apache-2.0
"""``Program``: the files of AIDL that are compiled together, and which of them declares a name.

A type's file is that of its package and name: ``a.b.IFoo`` is in a/b/IFoo.aidl below one of the
folders that are searched: those that were given, and those in which the packages of the compiled
files begin.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from binderclient.aidl import parser
from binderclient.aidl.errors import AidlImportError, AidlNameError, Position

if TYPE_CHECKING:
    from collections.abc import Iterable

    from binderclient.aidl.syntax import Declaration, Document


class Program:
    """The files that have been read.

    Args:
        folders: where to look for files that are imported.
    """

    def __init__(self, folders: Iterable[str]) -> None:
        self._folders = list(folders)
        self._by_file: dict[str, Document] = {}
        self._by_name: dict[str, Declaration] = {}
        self._found: dict[str, str | None] = {}  # names whose file was looked for
        self.document_of: dict[Declaration, Document] = {}
        self.documents: list[Document] = []

    def add(self, path: str) -> Document:
        """Read a file that is to be compiled.

        Raises:
            AidlError: it is no AIDL, or not where its package says.
        """
        document = self._load(path)
        folder = _folder_of(document)
        if folder not in self._folders:
            self._folders.append(folder)
            self._found.clear()
        return document

    def find(self, name: str) -> Declaration | None:
        """Return the declaration of a full name, None if there is none; reads its file if need be.

        Raises:
            AidlError: its file is no AIDL, or there are several.
        """
        parts = name.split(".")
        for end in range(len(parts), 0, -1):
            outermost = ".".join(parts[:end])
            if outermost not in self._by_name:
                path = self._path_of(outermost, parts[:end])
                if path is not None:
                    self._load(path)
            if outermost in self._by_name:
                return nested(self._by_name[outermost], parts[end:])
        return None

    def _path_of(self, name: str, parts: list[str]) -> str | None:
        if name not in self._found:
            relative = os.path.join(*parts) + ".aidl"
            paths = [os.path.join(folder, relative) for folder in self._folders]
            there = {os.path.realpath(path): path for path in reversed(paths) if _is_file(path)}
            if len(there) > 1:
                first, second = sorted(there.values())[:2]
                raise AidlImportError(Position(first), f"{name} is in {second} as well")
            self._found[name] = next(iter(there.values()), None)
        return self._found[name]

    def _load(self, path: str) -> Document:
        text = parser.read(path)
        real = os.path.realpath(path)
        if real in self._by_file:
            return self._by_file[real]
        document = parser.parse(path, text)
        _check_place(document)
        self._by_file[real] = document
        self.documents.append(document)
        for outermost in document.declarations:
            name = outermost.qualified
            if name in self._by_name:
                other = self._by_name[name].position
                raise AidlNameError(outermost.position, f"{name} is declared at {other} already")
            self._by_name[name] = outermost
            for each in outermost.everything():
                self.document_of[each] = document
        return document


def nested(declared: Declaration, names: list[str]) -> Declaration | None:
    """Return what is nested in a declaration, by its names from the outside in."""
    found: Declaration | None = declared
    for name in names:
        if found is not None:
            found = next((each for each in found.nested if each.name == name), None)
    return found


def _is_file(path: str) -> bool:
    try:
        return os.path.isfile(path)
    except ValueError:
        return False


def _folder_of(document: Document) -> str:
    """Return the folder in which a file's package begins."""
    folder = os.path.dirname(os.path.abspath(document.path))
    for _ in document.package.split(".") if document.package else ():
        folder = os.path.dirname(folder)
    return os.path.relpath(folder)


def _check_place(document: Document) -> None:
    """Check that a file is named after what is in it, and lies where its package says."""
    first = document.declarations[0]
    for other in document.declarations[1:]:
        if other.word != "parcelable" or first.word != "parcelable":
            raise AidlNameError(
                other.position,
                f"a file declares one thing: {other.name} belongs into {other.name}.aidl, "
                f"or into {first.name}",
            )
    names = {each.name for each in document.declarations}
    path = os.path.abspath(document.path)
    name, folders = os.path.basename(path), os.path.dirname(path).split(os.sep)
    if not name.endswith(".aidl") or name.removesuffix(".aidl") not in names:
        raise AidlImportError(
            first.position, f"{first.name} belongs into a file of that name, {first.name}.aidl"
        )
    package = document.package.split(".") if document.package else []
    if package and folders[-len(package) :] != package:
        wanted = "/".join([*package, name])
        position = document.package_position or Position(document.path)
        raise AidlImportError(
            position, f"a file of package {document.package} is called …/{wanted}"
        )
