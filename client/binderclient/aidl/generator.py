# SPDX-License-Identifier: Apache-2.0
"""``generate``: the Python module of an AIDL file.

An interface becomes two classes with ``@interface``, for blocking programs and for those that
await (``Async…``): a service is a subclass, a caller uses ``as_interface``.  A
parcelable becomes a dataclass, an enum an ``IntEnum``, a union a class of ``runtime.Union``.
Other modules are imported at the end, since interfaces and parcelables may need each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from binderclient.aidl.layout import WIDTH, Group, docstring, joined, lines_of, statement
from binderclient.aidl.output import MARK
from binderclient.aidl.python_names import Names
from binderclient.aidl.python_types import (
    AWAITING,
    BLOCKING,
    DATA,
    Types,
    carries_files,
    literal,
    module_of,
)
from binderclient.aidl.syntax import (
    Direction,
    Enum,
    Interface,
    Kind,
    Literal,
    Opaque,
    Parcelable,
    Union,
)
from binderclient.android import LAST_CALL_TRANSACTION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binderclient.aidl.layout import Text
    from binderclient.aidl.syntax import (
        Argument,
        Declaration,
        Document,
        Field,
        Method,
        TypeName,
    )


__all__ = ["Version", "generate"]

_STEP: Final = 4
# The codes of what AIDL keeps for itself, by the ends of the methods' names.
_ANSWERS: Final = {"Version": LAST_CALL_TRANSACTION, "Hash": LAST_CALL_TRANSACTION - 1}
_BASES: Final = {"byte": "aidl.ByteEnum", "int": "aidl.IntEnum", "long": "aidl.LongEnum"}


class Version(NamedTuple):
    """Of interfaces: what they answer when they are asked; 0 and "" if they are not to."""

    number: int = 0
    hash: str = ""


_NO_VERSION: Final = Version()


def generate(
    document: Document, package: str = "", version: Version = _NO_VERSION
) -> dict[str, str]:
    """Return the modules of a file: paths below the folder for all, and their texts.

    Args:
        document: the file, checked.
        package: the Python package that this folder is; nothing if it is on the search path.
        version: of the interfaces.
    """
    modules = {}
    for declared in document.declarations:
        path = path_of(declared)
        if path is not None:
            prefix = f"{package}." if package else ""
            modules[path] = _Module(declared, prefix, version).text()
    return modules


def path_of(declared: Declaration) -> str | None:
    """Return the path of a declaration's module below the folder for all; None if it has none."""
    return None if isinstance(declared, Opaque) else module_of(declared).replace(".", "/") + ".py"


class _Module:
    """Writes one module."""

    def __init__(self, outermost: Declaration, prefix: str, version: Version) -> None:
        self._version = version
        self._outermost = outermost
        self._types = Types(outermost, prefix)

    def text(self) -> str:
        """Return the module's text."""
        body = "\n".join(self._declaration(self._outermost, 0))
        imports = self._types.imports()
        source = "/".join([*self._outermost.package.split("."), self._outermost.name]).lstrip("/")
        modules = [f"import {each}" for each in ("dataclasses", "typing") if f"{each}." in body]
        head = [
            f"{MARK} from {source}.aidl; what is changed here is lost.",
            "# ruff: noqa",
            f'"""``{self._outermost.qualified}``, from AIDL."""',
            "",
            "from __future__ import annotations",
            "",
            *([*modules, ""] if modules else []),
            "from binderclient.aidl import runtime as aidl",
            "",
            "",
            body,
        ]
        tail = ["", "", "# At the end, because these modules may import this one.", *imports]
        return "\n".join([*head, *(tail if imports else [])]) + "\n"

    def _declaration(self, declared: Declaration, indent: int) -> Iterator[str]:
        if isinstance(declared, Interface):
            yield from self._interface(declared, indent, BLOCKING)
            yield from [""] * (1 if indent else 2)
            yield from self._interface(declared, indent, AWAITING)
        elif isinstance(declared, Union):
            yield from self._union(declared, indent)
        elif isinstance(declared, Parcelable):
            yield from self._parcelable(declared, indent)
        elif isinstance(declared, Enum):
            yield from self._enum(declared, indent)

    def _nested(self, declared: Declaration, indent: int) -> Iterator[str]:
        for each in declared.nested:
            if not isinstance(each, Opaque):
                yield ""
                yield from self._declaration(each, indent)

    def _constants(self, declared: Declaration, indent: int) -> Iterator[str]:
        if declared.constants:
            yield ""
        names = self._types.names_of(declared).constants
        for constant in declared.constants:
            yield from statement(literal(constant.value), indent, f"{names[constant.name]} = ")
            if constant.doc:
                yield from docstring(constant.doc, indent)

    # Enums

    def _enum(self, declared: Enum, indent: int) -> Iterator[str]:
        name = self._types.own_name(declared)
        yield from _class(name, _BASES[declared.backing], indent)
        doc = declared.doc or f"``{declared.qualified}``: an enum of type {declared.backing}."
        yield from docstring(doc, indent + _STEP)
        yield ""
        names = self._types.names_of(declared).members
        for each in declared.enumerators:
            yield from statement(str(each.value), indent + _STEP, f"{names[each.name]} = ")
            if each.doc:
                yield from docstring(each.doc, indent + _STEP)

    # Parcelables

    def _parcelable(self, declared: Parcelable, indent: int) -> Iterator[str]:
        blank = " " * indent
        yield from _decorator("named", declared, indent)
        yield f"{blank}@dataclasses.dataclass"
        yield f"{blank}class {self._types.own_name(declared)}:"
        yield from docstring(declared.doc or f"``{declared.qualified}``.", indent + _STEP)
        yield from self._nested(declared, indent + _STEP)
        yield from self._constants(declared, indent + _STEP)
        if declared.fields:
            yield ""
        for field in declared.fields:
            yield from self._field(field, declared, indent + _STEP)

    def _field(self, field: Field, owner: Parcelable, indent: int) -> Iterator[str]:
        meaning = field.type.meaning
        assert meaning is not None
        vintf = _is_vintf(owner)
        annotation = self._types.annotation(meaning, DATA, vintf=vintf)
        before = f"{self._types.names_of(owner).members[field.name]}: "
        default = self._types.default(meaning, field.value, vintf=vintf)
        # What is not a literal is made when it is needed: its module may not be there yet.
        is_plain = meaning.kind is Kind.PLAIN and not isinstance(default, Group)
        is_bytes = isinstance(default, str) and default.startswith("b")
        if default is None:
            value: Text = Group("dataclasses.field", "()", ("kw_only=True",))
        elif is_plain or is_bytes or default == "None":
            value = default
        else:
            value = Group("dataclasses.field", "()", (_factory(default),))
        yield from statement(value, indent, f"{before}{annotation} = ")
        doc = _with_interface(field)
        if doc:
            yield from docstring(doc, indent)

    def _union(self, declared: Union, indent: int) -> Iterator[str]:
        inside = " " * (indent + _STEP)
        yield from _decorator("named", declared, indent)
        yield from _class(self._types.own_name(declared), "aidl.Union", indent)
        names = self._types.names_of(declared).members
        doc = declared.doc or f"``{declared.qualified}``."
        members = ", ".join(f"``{each}``" for each in names.values())
        use = f"It takes one of these by name: {members}; ``tag`` says which it is."
        yield from docstring(f"{doc}\n\n{use}", indent + _STEP)
        yield ""
        yield f"{inside}class Tag(aidl.IntEnum):"
        yield f'{inside}    """Which member it is."""'
        yield ""
        for number, name in enumerate(names.values()):
            yield from statement(str(number), indent + 2 * _STEP, f"{name} = ")
        yield from self._nested(declared, indent + _STEP)
        yield from self._constants(declared, indent + _STEP)
        yield ""
        pairs = []
        for field in declared.fields:
            assert field.type.meaning is not None
            annotation = self._types.annotation(field.type.meaning, DATA)
            pairs.append((names[field.name], annotation))
            yield from statement(annotation, indent + _STEP, f"{names[field.name]}: ")
            if _with_interface(field):
                yield from docstring(_with_interface(field), indent + _STEP)
        yield from self._constructor(declared, pairs, indent + _STEP)

    def _constructor(
        self, declared: Union, members: list[tuple[str, Text]], indent: int
    ) -> Iterator[str]:
        blank = " " * indent
        first = declared.fields[0]
        assert first.type.meaning is not None
        default = self._types.default(first.type.meaning, first.value)
        signatures = [] if default is None else [Group("def __init__", "()", ("self",))]
        for name, annotation in members:
            arguments = ("self", "*", f"{name}: {annotation}")
            signatures.append(Group("def __init__", "()", arguments))
        if len(signatures) > 1:
            for signature in signatures:
                yield ""
                yield f"{blank}@typing.overload"
                yield from statement(signature, indent, after=" -> None: ...")
        yield ""
        yield f"{blank}def __init__(self, **member: typing.Any) -> None:"
        if default is None:
            yield f"{blank}    super().__init__(member)"
            return
        yield f"{blank}    if not member:"
        yield from statement(default, indent + 2 * _STEP, f'member["{members[0][0]}"] = ')
        yield f"{blank}    super().__init__(member)"

    # Interfaces

    def _interface(self, declared: Interface, indent: int, flavour: str) -> Iterator[str]:
        blank = " " * indent
        name = self._types.own_name(declared, flavour)
        yield from _decorator("interface", declared, indent)
        yield from _class(name, "aidl.Service", indent)
        how = "await its methods" if flavour else "call its methods"
        whole = self._types.class_of(declared, flavour)
        use = f"Serve it with a subclass; ``as_interface({whole}, proxy)`` to {how}."
        doc = declared.doc or f"``{declared.qualified}``."
        yield from docstring(f"{doc}\n\n{use}", indent + _STEP)
        if _takes_files(declared):
            yield ""
            yield f"{blank}    accepts_descriptors = True"
        if flavour == BLOCKING:
            yield from self._nested(declared, indent + _STEP)
        yield from self._constants(declared, indent + _STEP)
        for method in declared.methods:
            yield ""
            yield from self._method(method, declared, indent + _STEP, flavour)
        if self._version.number:
            yield from _answer("Version", "int", str(self._version.number), indent, flavour)
        if self._version.hash:
            yield from _answer("Hash", "str", f'"{self._version.hash}"', indent, flavour)

    def _method(self, method: Method, owner: Interface, indent: int, flavour: str) -> Iterator[str]:
        blank = " " * indent
        name = self._types.names_of(owner).members[method.name]
        names = Names()
        parameters: list[Text] = ["self"]
        sizes = []
        for argument in method.arguments:
            meaning = argument.type.meaning
            assert meaning is not None
            if argument.comes_in:
                label = names.take(argument.name)
                parameters.append(_labelled(label, self._types.annotation(meaning, flavour)))
            elif _sends_size(argument):
                sizes.append((names.take(f"{argument.name}_size"), argument))
                kind = "NullableOutSize" if meaning.nullable else "OutSize"
                parameters.append(f"{sizes[-1][0]}: aidl.{kind}")
        results = self._results(method, flavour)
        result: Text = results[0] if results else "None"
        if len(results) > 1:
            result = Group("tuple", "[]", tuple(results))
        if method.oneway:
            yield f"{blank}@aidl.oneway"
        yield f"{blank}@aidl.transaction({method.code})"
        word = "async def" if flavour else "def"
        yield from _signature(f"{word} {name}", parameters, result, indent)
        yield from docstring(_doc_of(method, sizes), indent + _STEP)
        yield f"{blank}    raise NotImplementedError"

    def _results(self, method: Method, flavour: str) -> list[Text]:
        types = [method.result] if _returns(method) else []
        types += [each.type for each in method.arguments if each.goes_out]
        return [
            self._types.annotation(each.meaning, flavour)
            for each in types
            if each.meaning is not None
        ]


def _answer(name: str, kind: str, value: str, indent: int, flavour: str) -> Iterator[str]:
    """Yield a method that every interface with a version has."""
    blank = " " * (indent + _STEP)
    yield ""
    yield f"{blank}@aidl.transaction({_ANSWERS[name]})"
    yield f"{blank}{'async def' if flavour else 'def'} getInterface{name}(self) -> {kind}:"
    yield f'{blank}    """The {name.lower()} of the interface that the other side has."""'
    yield from statement(value, indent + 2 * _STEP, "return ")


def _signature(head: str, parameters: list[Text], result: Text, indent: int) -> Iterator[str]:
    whole = Group(head, "()", tuple(parameters))
    flat = f"{' ' * indent}{whole} -> {result}:"
    if len(flat) <= WIDTH:
        yield flat
        return
    *lines, _ = lines_of(whole, indent, split=True)
    lines += lines_of(result, indent, ") -> ", ":")
    yield from lines if max(map(len, lines)) <= WIDTH else [f"{flat}  # fmt: skip"]


def _class(name: str, base: str, indent: int) -> Iterator[str]:
    yield from lines_of(Group(f"class {name}", "()", (base,)), indent, after=":")


def _decorator(name: str, declared: Declaration, indent: int) -> Iterator[str]:
    yield from lines_of(Group(f"@aidl.{name}", "()", (f'"{descriptor_of(declared)}"',)), indent)


def _labelled(label: str, annotation: Text) -> Text:
    if isinstance(annotation, Group):
        head = f"{label}: {annotation.head}"
        return Group(head, annotation.brackets, annotation.items, annotation.tail)
    return f"{label}: {annotation}"


def _factory(default: Text) -> Text:
    """Return the argument that makes a default value."""
    plain = {"[]": "list", "{}": "dict"}.get(str(default))
    if plain is not None:
        return f"default_factory={plain}"
    if isinstance(default, Group):
        if default.head.startswith("aidl."):
            return f"default_factory={default.head}"
        head = f"default_factory=lambda: {default.head}"
        return Group(head, default.brackets, default.items, default.tail)
    return f"default_factory=lambda: {default}"


def descriptor_of(declared: Declaration) -> str:
    """Return the name by which a declaration is known in parcels."""
    found = declared.annotation("Descriptor")
    value = dict(found.arguments)["value"] if found is not None else None
    return value.text[1:-1] if isinstance(value, Literal) else declared.qualified


def _is_vintf(declared: Declaration | None) -> bool:
    while declared is not None:
        if declared.annotation("VintfStability") is not None:
            return True
        declared = declared.outer
    return False


def _takes_files(declared: Interface) -> bool:
    arguments = [each for method in declared.methods for each in method.arguments]
    return carries_files(each.type.meaning for each in arguments if each.comes_in)


def _returns(method: Method) -> bool:
    return method.result.name != "void" or bool(method.result.dimensions)


def _sends_size(argument: Argument) -> bool:
    """Does the caller say of which size an array is to be?"""
    meaning = argument.type.meaning
    is_array = meaning is not None and meaning.kind is Kind.ARRAY and meaning.size is None
    return is_array and argument.direction is Direction.OUT


def _with_interface(field: Field) -> str:
    meaning = field.type.meaning
    while meaning is not None and meaning.item is not None:
        meaning = meaning.item
    if meaning is None or not isinstance(meaning.declared, Interface):
        return field.doc
    name = meaning.declared.qualified
    return f"{field.doc}\n\nOf interface {name}: see ``as_interface``.".strip()


def _shown(written: TypeName) -> str:
    nullable = "@nullable " if written.meaning is not None and written.meaning.nullable else ""
    return f"{nullable}{written}"


def _doc_of(method: Method, sizes: list[tuple[str, Argument]]) -> str:
    words = ["oneway "] if method.oneway else []
    arguments = [
        f"{each.direction.value + ' ' if each.written else ''}{_shown(each.type)} {each.name}"
        for each in method.arguments
    ]
    signature = f"``{''.join(words)}{_shown(method.result)} {method.name}({', '.join(arguments)})``"
    parts = [method.doc, signature] if method.doc else [signature]
    if sizes:
        lines = [f"    {name}: how many items {each.name} is to have." for name, each in sizes]
        parts.append("\n".join(["Args:", *lines]))
    outs = [each.name for each in method.arguments if each.goes_out]
    if outs:
        results = ["the result", *outs] if _returns(method) else outs
        parts.append(f"Returns:\n    {joined(results)}.")
    return "\n\n".join(parts)
