# SPDX-License-Identifier: Apache-2.0
"""``compile_files``: from files to declarations of which all is known, or to all that is wrong.

This file has the rules of the language for what is declared; ``resolve`` has those for types,
``constants`` those for values, ``annotation_rules`` those for annotations.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Final, Protocol

from binderclient.aidl import annotation_rules
from binderclient.aidl.constants import Evaluator, fitted
from binderclient.aidl.containment import Containment
from binderclient.aidl.errors import (
    AidlError,
    AidlNameError,
    AidlSyntaxError,
    AidlTypeError,
    AidlValueError,
    Problems,
)
from binderclient.aidl.methods import check_methods
from binderclient.aidl.resolve import Resolver
from binderclient.aidl.sources import Program
from binderclient.aidl.syntax import (
    INTEGERS,
    Enum,
    Interface,
    Kind,
    Opaque,
    Parcelable,
    Union,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from binderclient.aidl.errors import Position
    from binderclient.aidl.syntax import Constant, Declaration, Document, Field

__all__ = ["Compiled", "compile_files"]

_DESCRIPTOR: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_CONSTANTS: Final = frozenset(
    {"boolean", "byte", "char", "int", "long", "float", "double", "String"}
)


class _Named(Protocol):
    """Something that a program gave a name."""

    name: str
    position: Position


class Compiled:
    """What was compiled.

    ``documents`` are the files that were given, ``imported`` those that they need; ``notes`` tells
    what is ignored.
    """

    def __init__(
        self, documents: list[Document], imported: list[Document], problems: Problems
    ) -> None:
        self.documents = documents
        self.imported = imported
        self.notes = problems.notes


def compile_files(paths: Sequence[str], includes: Iterable[str] = ()) -> Compiled:
    """Read AIDL files and what they import, and check them.

    Args:
        paths: the files.
        includes: the folders in which packages are looked for.

    Raises:
        AidlError: something is wrong; its ``all`` has everything that is.
    """
    problems = Problems()
    program = Program(includes)
    documents: list[Document] = []
    for path in paths:
        with _collecting(problems):
            document = program.add(path)
            if document not in documents:
                documents.append(document)
    if not problems.errors:
        _Checker(program, problems).check_all()
    problems.raise_if_any()
    for document in documents:
        for each in document.declarations:
            if isinstance(each, Opaque):
                problems.note(each.position, f"{each.name} has no fields: nothing is made of it")
    imported = [each for each in program.documents if each not in documents]
    return Compiled(documents, imported, problems)


@contextlib.contextmanager
def _collecting(problems: Problems) -> Iterator[None]:
    try:
        yield
    except AidlError as error:
        problems.add(error)


class _Checker:
    """Checks the files of a program, and those that they turn out to need."""

    def __init__(self, program: Program, problems: Problems) -> None:
        self._program = program
        self._problems = problems
        self._evaluator = Evaluator()
        self._resolver = Resolver(program, self._evaluator.size)
        self._evaluator.resolver = self._resolver

    def check_all(self) -> None:
        done = 0
        while done < len(self._program.documents):  # which grows meanwhile
            document = self._program.documents[done]
            done += 1
            with _collecting(self._problems):
                self._resolver.check_imports(document, self._problems)
                for declared in document.declarations:
                    self._check(declared)
        containment = Containment()
        for document in self._program.documents:
            for outermost in document.declarations:
                for declared in outermost.everything():
                    if not self._problems.errors and isinstance(declared, Parcelable):
                        with _collecting(self._problems):
                            containment.check(declared)

    def _check(self, declared: Declaration) -> None:
        place = annotation_rules.place_of(declared)
        annotation_rules.check(
            declared.annotations, (place, annotation_rules.DECLARATION), self._problems
        )
        found = declared.annotation("Descriptor")
        if found is not None:
            with _collecting(self._problems):
                name = annotation_rules.text_argument(found, "value")
                if not _DESCRIPTOR.fullmatch(name):
                    raise AidlValueError(found.position, f"{name!r} is no name of an interface")
        self._check_names(declared)
        if isinstance(declared, Enum):
            self._check_enum(declared)
        if isinstance(declared, Interface):
            self._check_interface(declared)
        if isinstance(declared, Parcelable):
            self._check_fields(declared)
        for constant in declared.constants:
            self._check_constant(constant, declared)
        for inner in declared.nested:
            self._check(inner)

    def _check_names(self, declared: Declaration) -> None:
        names: dict[str, object] = {}
        inside = declared.outer
        while inside is not None:
            names[inside.name] = inside.position
            inside = inside.outer
        names[declared.name] = declared.position
        self._unique(declared.nested, names)
        members: dict[str, object] = {}
        if isinstance(declared, Enum):
            self._unique(declared.enumerators, members)
        if isinstance(declared, Parcelable):
            self._unique(declared.fields, members)
        if isinstance(declared, Interface):
            self._unique(declared.methods, {})
        self._unique(declared.constants, members)

    def _unique(self, items: Iterable[_Named], names: dict[str, object]) -> None:
        for each in items:
            if each.name in names:
                self._problems.add(
                    AidlNameError(
                        each.position, f"{each.name} is declared at {names[each.name]} already"
                    )
                )
            names.setdefault(each.name, each.position)

    def _check_enum(self, declared: Enum) -> None:
        backing = declared.annotation("Backing")
        with _collecting(self._problems):
            given = annotation_rules.text_argument(backing, "type") if backing else "byte"
            if backing is not None and given not in INTEGERS:
                raise AidlTypeError(
                    backing.position, f"an enum's type is one of {', '.join(INTEGERS)}"
                )
            if not declared.enumerators:
                raise AidlSyntaxError(declared.position, f"{declared.name} has no enumerators")
        for each in declared.enumerators:
            annotation_rules.check(each.annotations, ("an enumerator",), self._problems)
        with _collecting(self._problems):
            self._evaluator.enum(declared)

    def _check_interface(self, declared: Interface) -> None:
        for method in declared.methods:
            on_both = (annotation_rules.METHOD, annotation_rules.TYPE)
            annotation_rules.check(method.annotations, on_both, self._problems)
            with _collecting(self._problems):
                self._resolver.resolve(method.result, declared)
            for argument in method.arguments:
                annotation_rules.check(
                    argument.type.annotations, (annotation_rules.TYPE,), self._problems
                )
                with _collecting(self._problems):
                    self._resolver.resolve(argument.type, declared)
        check_methods(declared, self._evaluator.number, self._problems)

    def _check_fields(self, declared: Parcelable) -> None:
        if isinstance(declared, Union) and not declared.fields:
            self._problems.add(
                AidlSyntaxError(declared.position, f"{declared.name} has no members")
            )
        for each in declared.fields:
            annotation_rules.check(each.annotations, (annotation_rules.TYPE,), self._problems)
            with _collecting(self._problems):
                self._check_field(each, declared)

    def _check_field(self, field: Field, owner: Parcelable) -> None:
        meaning = self._resolver.resolve(field.type, owner)
        if meaning.name == "void":
            raise AidlTypeError(field.type.position, f"{field.name} cannot be void")
        if isinstance(owner, Union) and meaning.name == "ParcelableHolder":
            raise AidlTypeError(field.type.position, "a ParcelableHolder cannot be in a union")
        if field.default is None:
            return
        if isinstance(owner, Union) and field is not owner.fields[0]:
            raise AidlValueError(
                field.default.position, "only the first member of a union has a default value"
            )
        value = self._evaluator.evaluate(field.default, owner)
        field.value = fitted(value, meaning, field.default.position)

    def _check_constant(self, constant: Constant, owner: Declaration) -> None:
        annotation_rules.check(constant.annotations, (annotation_rules.TYPE,), self._problems)
        with _collecting(self._problems):
            meaning = self._resolver.resolve(constant.type, owner)
            of = meaning.item if meaning.kind is Kind.ARRAY and meaning.item else meaning
            is_enum = of.kind is Kind.DECLARED and isinstance(of.declared, Enum)
            if meaning.kind is Kind.ARRAY or not (of.name in _CONSTANTS or is_enum):
                raise AidlTypeError(
                    constant.type.position, f"there are no constants of type {constant.type}"
                )
            self._evaluator.constant(constant, owner)
