# SPDX-License-Identifier: Apache-2.0
"""From text to ``syntax``: the grammar is in grammar.lark, and this file alone knows ``lark``.

Whatever the text is, the result is a ``Document`` or an ``AidlError`` with a position: brackets
that nest too deeply, files too large and bytes that are no UTF-8 are errors as well.
"""

from __future__ import annotations

import bisect
import functools
import re
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import lark
from lark import Token, Tree

from binderclient.aidl import syntax
from binderclient.aidl.errors import AidlImportError, AidlSyntaxError, Position
from binderclient.aidl.tokens import RESERVED, Depth, shown_token, what_was_wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from binderclient.aidl.errors import AidlError

SIZE_MAX: Final = 4 << 20  # bytes of a file; the largest of Android's is a hundredth of it
_COMMENT: Final = re.compile(r'/\*.*?\*/|//[^\n]*|"[^"\n]*"', re.DOTALL)
_Tree = Tree[Any]


@functools.cache
def _parsers() -> tuple[lark.Lark, Depth]:
    depth = Depth()
    grammar = (resources.files("binderclient.aidl") / "grammar.lark").read_text("utf-8")
    parser = lark.Lark(
        grammar, parser="lalr", propagate_positions=True, postlex=depth, maybe_placeholders=True
    )
    return parser, depth


def read(path: str) -> str:
    """Return the text of a file.

    Raises:
        AidlImportError: it cannot be read.
        AidlSyntaxError: it is no text in UTF-8, or too long.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(SIZE_MAX + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise AidlImportError(Position(path), f"this file cannot be read: {reason}") from None
    if len(data) > SIZE_MAX:
        raise AidlSyntaxError(Position(path), f"a file of more than {SIZE_MAX} bytes is no AIDL")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start]
        column = len(before.rpartition(b"\n")[2].decode("utf-8", "replace")) + 1
        position = Position(path, before.count(b"\n") + 1, column)
        raise AidlSyntaxError(
            position, f"the byte {data[error.start]:#04x} is no UTF-8; save the file as UTF-8"
        ) from None


def parse(path: str, text: str) -> syntax.Document:
    """Return what is in a file.

    Args:
        path: its name, for positions.
        text: what it contains.

    Raises:
        AidlSyntaxError: it is no AIDL.
    """
    parser, depth = _parsers()
    depth.path = path
    try:
        tree = parser.parse(text)
    except lark.UnexpectedInput as error:
        raise _syntax_error(path, text, error) from None
    return _Builder(path, text).document(tree)


def _syntax_error(path: str, text: str, error: lark.UnexpectedInput) -> AidlError:
    if isinstance(error, lark.UnexpectedToken) and error.token.type == "$END":
        lines = text.split("\n")
        position = Position(path, len(lines), len(lines[-1]) + 1)
        return AidlSyntaxError(position, f"the file ends where {_wanted(error)} should be")
    position = Position(path, error.line, error.column)
    rest = text[getattr(error, "pos_in_stream", None) or 0 :]
    if rest.startswith("/*"):
        return AidlSyntaxError(position, "this comment has no end: '*/' is missing")
    if rest.startswith('"') and not re.match(r'"[^"\n]*"', rest):
        return AidlSyntaxError(position, "this string has no end in its line")
    wanted = _wanted(error)
    word = re.match(r"[A-Za-z_]\w*", rest)
    if word and word[0] in RESERVED and "a name" in wanted:
        return AidlSyntaxError(position, f"'{word[0]}' is AIDL's own word: it cannot be a name")
    return AidlSyntaxError(position, f"{_found(error, rest)} where {wanted} should be")


def _found(error: lark.UnexpectedInput, rest: str) -> str:
    if isinstance(error, lark.UnexpectedToken):
        return shown_token(error.token)
    word = re.match(r"[A-Za-z_]\w*", rest)
    if word:
        return shown_token(word[0])
    return repr(rest[0]) if rest[0].isascii() else f"{rest[0]!r} (U+{ord(rest[0]):04X})"


def _wanted(error: lark.UnexpectedInput) -> str:
    for attribute in ("accepts", "expected", "allowed"):  # of which each kind of error has some
        names = getattr(error, attribute, None)
        if names:
            return what_was_wanted(names)
    return what_was_wanted(())


def _trees(tree: _Tree, name: str) -> list[_Tree]:
    return [each for each in tree.children if isinstance(each, Tree) and each.data == name]


def _tokens(tree: _Tree, name: str) -> list[Token]:
    return [each for each in tree.children if isinstance(each, Token) and each.type == name]


def _has(tree: _Tree, name: str) -> bool:
    return bool(_tokens(tree, name))


class _Builder:
    """Makes a document of a tree."""

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._text = text
        self._package = ""
        found = ((each.end(), each[0]) for each in _COMMENT.finditer(text))
        self._docs = [(end, each) for end, each in found if each.startswith("/**")]
        self._ends = [end for end, _ in self._docs]

    def document(self, tree: _Tree) -> syntax.Document:
        packages = _trees(tree, "package")
        position = None
        if packages:
            self._package, position = self._qualified(packages[0])
        imports = tuple(self._qualified(each) for each in _trees(tree, "import_"))
        declared = tuple(self._declaration(each, None) for each in _trees(tree, "declaration"))
        return syntax.Document(self._path, self._package, position, imports, declared)

    # Small things

    def _at(self, item: _Tree | Token) -> Position:
        place = item if isinstance(item, Token) else item.meta
        line, column = getattr(place, "line", None), getattr(place, "column", None)
        return Position(self._path, line or 1, column or 1)

    def _name(self, tree: _Tree) -> tuple[str, Position]:
        token = _tokens(tree, "NAME")[0]
        return str(token), self._at(token)

    def _qualified(self, tree: _Tree) -> tuple[str, Position]:
        """Return the dotted name in a tree, and where it is."""
        inner = (_trees(tree, "qualified") or _trees(tree, "type_name"))[0]
        return ".".join(map(str, inner.children)), self._at(inner)

    def _doc(self, tree: _Tree) -> str:
        """Return the /** */ comment before something, without its stars."""
        start = tree.meta.start_pos
        before = bisect.bisect_right(self._ends, start)
        if not before:
            return ""
        end, text = self._docs[before - 1]
        return _without_stars(text) if self._text[end:start].isspace() else ""

    def _annotations(self, tree: _Tree) -> tuple[syntax.Annotation, ...]:
        return tuple(self._annotation(each) for each in _trees(tree, "annotation"))

    def _annotation(self, tree: _Tree) -> syntax.Annotation:
        token = tree.children[0]
        arguments = tuple(
            (self._name(each)[0], self._expression(each.children[-1]))
            for each in _trees(tree, "parameter")
        )
        for each in _trees(tree, "unnamed"):
            arguments = (("value", self._expression(each.children[0])),)
        return syntax.Annotation(str(token)[1:], arguments, self._at(token))

    # Declarations

    def _declaration(self, tree: _Tree, outer: syntax.Declaration | None) -> syntax.Declaration:
        inner = tree.children[-1]
        makers: dict[str, Callable[..., syntax.Declaration]] = {
            "interface": self._interface,
            "parcelable": self._parcelable,
            "union": self._union,
            "opaque": self._opaque,
            "enum": self._enum,
        }
        return makers[inner.data](
            inner,
            annotations=self._annotations(tree),
            doc=self._doc(tree),
            package=self._package,
            outer=outer,
        )

    def _interface(self, tree: _Tree, **common: Any) -> syntax.Interface:  # noqa: ANN401
        name, position = self._name(tree)
        bodies = _trees(tree, "body_of_interface")
        if not bodies:
            raise AidlSyntaxError(position, f"{name} has no body: write {{ }} with its methods")
        made = syntax.Interface(name=name, position=position, oneway=_has(tree, "ONEWAY"), **common)
        for member in bodies[0].children:
            inner = member.children[-1]
            if inner.data == "method":
                made.methods.append(self._method(member, inner, made))
            else:
                self._add_inner(made, member, inner)
        return made

    def _add_inner(self, made: syntax.Declaration, member: _Tree, inner: _Tree) -> None:
        if inner.data == "constant":
            made.constants.append(self._constant(member, inner))
        else:
            made.nested.append(self._declaration(member, made))

    def _method(self, member: _Tree, tree: _Tree, owner: syntax.Interface) -> syntax.Method:
        name, position = self._name(tree)
        annotations = self._annotations(member) + self._annotations(tree)
        numbers = _tokens(tree, "INTEGER")
        return syntax.Method(
            name=name,
            result=self._type(_trees(tree, "type")[0], annotations),
            arguments=tuple(self._argument(each) for each in _trees(tree, "argument")),
            oneway=owner.oneway or _has(tree, "ONEWAY"),
            number=self._literal(numbers[0]) if numbers else None,
            annotations=annotations,
            doc=self._doc(member),
            position=position,
        )

    def _argument(self, tree: _Tree) -> syntax.Argument:
        name, position = self._name(tree)
        written = _tokens(tree, "DIRECTION")
        return syntax.Argument(
            name=name,
            type=self._type(_trees(tree, "type")[0], self._annotations(tree)),
            direction=syntax.Direction(str(written[0]) if written else "in"),
            written=bool(written),
            position=position,
        )

    def _parcelable(self, tree: _Tree, **common: Any) -> syntax.Parcelable:  # noqa: ANN401
        name, position = self._qualified(tree)
        if "." in name:
            raise AidlSyntaxError(position, f"{name} has fields, so its name cannot have dots")
        return self._with_fields(syntax.Parcelable(name=name, position=position, **common), tree)

    def _union(self, tree: _Tree, **common: Any) -> syntax.Parcelable:  # noqa: ANN401
        name, position = self._name(tree)
        return self._with_fields(syntax.Union(name=name, position=position, **common), tree)

    def _with_fields(self, made: syntax.Parcelable, tree: _Tree) -> syntax.Parcelable:
        for parameters in _trees(tree, "parameters"):
            raise AidlSyntaxError(
                self._at(parameters), "type parameters are not supported; declare one for each type"
            )
        for member in _trees(tree, "field_member"):
            inner = member.children[-1]
            if inner.data == "field":
                made.fields.append(self._field(member, inner))
            else:
                self._add_inner(made, member, inner)
        return made

    def _opaque(self, tree: _Tree, **common: Any) -> syntax.Opaque:  # noqa: ANN401
        name, position = self._qualified(tree)
        return syntax.Opaque(name=name, position=position, **common)

    def _enum(self, tree: _Tree, **common: Any) -> syntax.Enum:  # noqa: ANN401
        name, position = self._name(tree)
        made = syntax.Enum(name=name, position=position, **common)
        for each in _trees(tree, "enumerator"):
            label, place = self._name(each)
            expression = each.children[-1]
            made.enumerators.append(
                syntax.Enumerator(
                    label,
                    self._expression(expression) if isinstance(expression, Tree) else None,
                    self._annotations(each),
                    self._doc(each),
                    place,
                )
            )
        return made

    def _constant(self, member: _Tree, tree: _Tree) -> syntax.Constant:
        name, position = self._name(tree)
        annotations = self._annotations(member) + self._annotations(tree)
        type_ = self._type(_trees(tree, "type")[0], annotations)
        value = self._expression(tree.children[-1])
        return syntax.Constant(name, type_, value, annotations, self._doc(member), position)

    def _field(self, member: _Tree, tree: _Tree) -> syntax.Field:
        name, position = self._name(tree)
        annotations = self._annotations(member)
        type_ = self._type(_trees(tree, "type")[0], annotations)
        default = tree.children[-1]
        value = self._expression(default) if isinstance(default, Tree) else None
        return syntax.Field(name, type_, value, annotations, self._doc(member), position)

    # Types and expressions

    def _type(self, tree: _Tree, annotations: tuple[syntax.Annotation, ...]) -> syntax.TypeName:
        name, position = self._qualified(tree)
        arguments = tuple(
            self._type(_trees(each, "type")[0], self._annotations(each))
            for each in _trees(tree, "annotated")
        )
        sizes = [each.children[0] for each in _trees(tree, "dimension")]
        dimensions = tuple(None if each is None else self._expression(each) for each in sizes)
        return syntax.TypeName(name, arguments, dimensions, annotations, position)

    def _literal(self, token: Token) -> syntax.Literal:
        return syntax.Literal(token.type, str(token), self._at(token))

    def _expression(self, tree: _Tree) -> syntax.Expression:
        position = self._at(tree)
        children = tree.children
        if tree.data == "literal":
            return self._literal(next(each for each in children if isinstance(each, Token)))
        if tree.data == "reference":
            return syntax.Reference(*self._qualified(tree))
        if tree.data == "list":
            items = (self._expression(each) for each in children if isinstance(each, Tree))
            return syntax.ListOf(tuple(items), position)
        if tree.data == "unary":
            operators = tuple(str(each) for each in children[:-1])
            return syntax.Unary(operators, self._expression(children[-1]), position)
        return syntax.Binary(self._expression(children[0]), tuple(self._rest(children)), position)

    def _rest(self, children: list[Any]) -> Iterator[tuple[str, syntax.Expression]]:
        for operator, operand in zip(children[1::2], children[2::2], strict=True):
            yield str(operator), self._expression(operand)


def _without_stars(comment: str) -> str:
    lines = [re.sub(r"^\s*\*? ?", "", each) for each in comment[3:-2].split("\n")]
    lines[0] = lines[0].strip()
    return "\n".join(each.rstrip() for each in lines).strip()
