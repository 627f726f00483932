# SPDX-License-Identifier: Apache-2.0
"""What is in an AIDL file: declarations, types and expressions, each with its position.

The parser makes these; ``resolve`` fills in what the names of types mean (``TypeName.meaning``) and
``constants`` what expressions come to (``value``).  Nothing here may know grammar or Python code.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binderclient.aidl.errors import Position

INTEGERS: Final = {"byte": 8, "int": 32, "long": 64}  # bits

# Expressions


@dataclass(frozen=True)
class Literal:
    """A literal: ``kind`` is INTEGER, HEXADECIMAL, FLOAT, CHARACTER, STRING, TRUE or FALSE."""

    kind: str
    text: str
    position: Position


@dataclass(frozen=True)
class Reference:
    """The name of a constant or enumerator, perhaps with those of what it is in."""

    name: str
    position: Position


@dataclass(frozen=True)
class Unary:
    """Operators, the innermost last, in front of an operand."""

    operators: tuple[str, ...]
    operand: Expression
    position: Position


@dataclass(frozen=True)
class Binary:
    """Operands with operators of one precedence between them, to be taken from the left."""

    first: Expression
    rest: tuple[tuple[str, Expression], ...]
    position: Position


@dataclass(frozen=True)
class ListOf:
    """The items of an array."""

    items: tuple[Expression, ...]
    position: Position


Expression: TypeAlias = Literal | Reference | Unary | Binary | ListOf


# Types


@dataclass(frozen=True)
class Annotation:
    """An annotation, its name without the @."""

    name: str
    arguments: tuple[tuple[str, Expression], ...]
    position: Position


class Kind(enum.Enum):
    """What a type is."""

    PLAIN = enum.auto()  # built in: ``name`` says which
    DECLARED = enum.auto()  # interface, parcelable, enum or union: ``declared``
    ARRAY = enum.auto()  # of ``item``; ``size`` items if that is not None
    LIST = enum.auto()  # of ``item``
    MAP = enum.auto()  # from String to ``item``


@dataclass(frozen=True)
class Type:
    """What a type's name means."""

    kind: Kind
    name: str  # as AIDL has it, for messages
    nullable: bool = False
    item: Type | None = None
    size: int | None = None
    declared: Declaration | None = None


@dataclass
class TypeName:
    """A type as it is written."""

    name: str
    arguments: tuple[TypeName, ...]
    dimensions: tuple[Expression | None, ...]
    annotations: tuple[Annotation, ...]
    position: Position
    meaning: Type | None = None

    def annotation(self, name: str) -> Annotation | None:
        """Return the annotation of that name."""
        return annotation_of(self.annotations, name)

    def __str__(self) -> str:
        arguments = f"<{', '.join(map(str, self.arguments))}>" if self.arguments else ""
        return self.name + arguments + "[]" * len(self.dimensions)


def annotation_of(annotations: tuple[Annotation, ...], name: str) -> Annotation | None:
    """Return the annotation of that name."""
    return next((each for each in annotations if each.name == name), None)


# Members


class Direction(enum.Enum):
    """Which way an argument travels."""

    IN = "in"
    OUT = "out"
    INOUT = "inout"


@dataclass
class Argument:
    """An argument; ``written`` tells whether its direction was."""

    name: str
    type: TypeName
    direction: Direction
    written: bool
    position: Position

    @property
    def comes_in(self) -> bool:
        """Does the service get it?"""
        return self.direction is not Direction.OUT

    @property
    def goes_out(self) -> bool:
        """Does the caller get it back?"""
        return self.direction is not Direction.IN


@dataclass
class Method:
    """A method; ``number`` is what is written behind ``=``, ``code`` its transaction's."""

    name: str
    result: TypeName
    arguments: tuple[Argument, ...]
    oneway: bool
    number: Literal | None
    annotations: tuple[Annotation, ...]
    doc: str
    position: Position
    code: int = 0


@dataclass
class Constant:
    """A constant."""

    name: str
    type: TypeName
    expression: Expression
    annotations: tuple[Annotation, ...]
    doc: str
    position: Position
    value: Any = None


@dataclass
class Field:
    """A field of a parcelable or a member of a union; ``value`` is that of ``default``."""

    name: str
    type: TypeName
    default: Expression | None
    annotations: tuple[Annotation, ...]
    doc: str
    position: Position
    value: Any = None


@dataclass
class Enumerator:
    """A name in an enum."""

    name: str
    expression: Expression | None
    annotations: tuple[Annotation, ...]
    doc: str
    position: Position
    value: int = 0


# Declarations


@dataclass(eq=False)
class Declaration:
    """What all declarations have.

    ``outer`` is the declaration in which it is, None at the top of a file; ``word`` is how messages
    call its kind.
    """

    name: str
    annotations: tuple[Annotation, ...]
    doc: str
    position: Position
    package: str
    constants: list[Constant] = field(default_factory=list)
    nested: list[Declaration] = field(default_factory=list)
    outer: Declaration | None = None
    word: str = "declaration"

    @property
    def qualified(self) -> str:
        """Its name with that of what it is in, or of its package."""
        before = self.outer.qualified if self.outer is not None else self.package
        return f"{before}.{self.name}" if before else self.name

    @property
    def outermost(self) -> Declaration:
        """The declaration after which its file is named."""
        return self if self.outer is None else self.outer.outermost

    def annotation(self, name: str) -> Annotation | None:
        """Return the annotation of that name."""
        return annotation_of(self.annotations, name)

    def everything(self) -> Iterator[Declaration]:
        """Yield it and all that is nested in it."""
        yield self
        for each in self.nested:
            yield from each.everything()


@dataclass(eq=False)
class Interface(Declaration):
    """An interface."""

    word: str = "interface"
    oneway: bool = False
    methods: list[Method] = field(default_factory=list)


@dataclass(eq=False)
class Parcelable(Declaration):
    """A parcelable with fields."""

    word: str = "parcelable"
    fields: list[Field] = field(default_factory=list)


@dataclass(eq=False)
class Union(Parcelable):
    """A union: one of its fields."""

    word: str = "union"


@dataclass(eq=False)
class Opaque(Declaration):
    """A parcelable of which AIDL knows the name only: what it is is written in Java or C++."""

    word: str = "parcelable"


@dataclass(eq=False)
class Enum(Declaration):
    """An enum."""

    word: str = "enum"
    enumerators: list[Enumerator] = field(default_factory=list)

    @property
    def backing(self) -> str:
        """The type of its values: what @Backing says if that can be."""
        for each in self.annotations:
            for _, value in each.arguments if each.name == "Backing" else ():
                if isinstance(value, Literal) and value.text.strip('"') in INTEGERS:
                    return value.text.strip('"')
        return "byte"


@dataclass(eq=False)
class Document:
    """A file."""

    path: str
    package: str
    package_position: Position | None
    imports: tuple[tuple[str, Position], ...]
    declarations: tuple[Declaration, ...]


def types_in(declared: Declaration) -> Iterator[TypeName]:
    """Yield the types that are written in a declaration, but for those in nested ones."""
    for constant in declared.constants:
        yield constant.type
    if isinstance(declared, Parcelable):
        for each in declared.fields:
            yield each.type
    if isinstance(declared, Interface):
        for method in declared.methods:
            yield method.result
            for argument in method.arguments:
                yield argument.type
