# SPDX-License-Identifier: Apache-2.0
"""Records: fast codecs derived from construct declarations.

A wire structure is written down once, as a construct ``Struct``.  A ``Record`` walks that
declaration when it is imported and derives everything else from it: the ``struct`` codec that the
request path uses, the size, each field's offset, a named tuple for readable code and the text for
debug output.  construct itself never runs on the request path: it is some thirty times slower
than ``struct``.

This is the only clever file of the package.  It must not know any particular structure.
"""

from __future__ import annotations

import struct
from collections import namedtuple
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from construct import (
    Bytes,
    FormatField,
    Int8un,
    Int16un,
    Int32sn,
    Int32un,
    Int64sn,
    Int64un,
    Padded,
    Padding,
    Renamed,
    SizeofError,
    Struct,
)

if TYPE_CHECKING:
    from collections.abc import Callable

try:
    from binderwire.quick import packer, unpacker
except ImportError:  # it is not compiled

    def packer(layout: struct.Struct, /) -> Callable[..., bytes]:
        """Return a function that packs such records; quick.c has one that takes a third."""
        return layout.pack

    def unpacker(layout: struct.Struct, /) -> Callable[..., tuple[Any, ...]]:
        """Return a function that unpacks such records, at an offset in bytes; see ``packer``."""
        return layout.unpack_from


__all__ = [
    "Field",
    "LayoutError",
    "Record",
    "Struct",
    "pad",
    "raw",
    "s32",
    "s64",
    "u8",
    "u16",
    "u32",
    "u64",
]

# The field types of the kernel's user-space headers: native byte order, fixed width.
u8 = Int8un
u16 = Int16un
u32 = Int32un
u64 = Int64un
s32 = Int32sn
s64 = Int64sn
raw = Bytes
pad = Padding


class LayoutError(TypeError):
    """A declaration that no C compiler would lay out that way, or that has no fixed size."""


Buffer: TypeAlias = bytes | bytearray | memoryview  # what records are read from


class Field(NamedTuple):
    """One named field of a record."""

    name: str
    offset: int  # bytes from the start of the record
    size: int  # bytes
    code: str  # its letter(s) for the struct module


class Record:
    """A fixed-size C structure.

    Args:
        name: the structure's name in the C header.
        declaration: a construct ``Struct`` of integers, ``raw(n)`` byte arrays and ``pad(n)``.
        packed: the C structure has ``__attribute__((packed))``; otherwise every integer must lie on
            a multiple of its size, as a C compiler would put it.

    Raises:
        LayoutError: the declaration has a field that is misaligned or of no fixed size.
    """

    __slots__ = (
        "_fields_type",
        "declaration",
        "fields",
        "name",
        "pack",
        "pack_into",
        "size",
        "struct",
        "unpack",
        "unpack_from",
    )

    def __init__(self, name: str, declaration: Any, *, packed: bool = False) -> None:  # noqa: ANN401
        self.name = name
        self.declaration = declaration
        self.fields, codes, alignment = _walk(name, declaration, packed=packed)
        self.struct = struct.Struct("=" + "".join(codes))
        self.size: int = self.struct.size
        if not packed and self.size % alignment:
            raise LayoutError(f"{name}: size {self.size} is no multiple of {alignment}")
        self.pack: Callable[..., bytes] = packer(self.struct)
        self.pack_into: Callable[..., None] = self.struct.pack_into
        self.unpack: Callable[..., tuple[Any, ...]] = self.struct.unpack
        self.unpack_from: Callable[..., tuple[Any, ...]] = unpacker(self.struct)
        self._fields_type: Any = _tuple_type(name, self.fields)

    def read(self, data: Buffer, offset: int = 0) -> Any:  # noqa: ANN401
        """Return the record at ``offset`` (bytes) as a named tuple.

        Raises:
            struct.error: fewer than ``size`` bytes are left there.
        """
        return self._fields_type._make(self.struct.unpack_from(data, offset))

    def only(self, *names: str) -> Callable[..., tuple[Any, ...]]:
        """Return an ``unpack_from`` that brings these fields and no others, in their own order.

        Raises:
            KeyError: a name that the record does not have.
        """
        unknown = set(names) - {field.name for field in self.fields}
        if unknown:
            raise KeyError(f"{self.name} has no field {', '.join(sorted(unknown))}")
        codes, end = ["="], 0
        for field in self.fields:
            if field.name in names:
                codes.append(f"{field.offset - end}x{field.code}")
                end = field.offset + field.size
        return unpacker(struct.Struct("".join([*codes, f"{self.size - end}x"])))

    def build(self, **values: int | bytes) -> bytes:
        """Return the record's bytes; fields that are not named are zero.

        Raises:
            TypeError: a name that the record does not have.
            struct.error: a value that does not fit its field.
        """
        unknown = values.keys() - {field.name for field in self.fields}
        if unknown:
            raise TypeError(f"{self.name} has no field {', '.join(sorted(unknown))}")
        zero: dict[bool, int | bytes] = {True: b"", False: 0}
        return self.pack(*(values.get(f.name, zero[f.code.endswith("s")]) for f in self.fields))

    def offset_of(self, field_name: str) -> int:
        """Return the byte offset of a field, like C's ``offsetof``.

        Raises:
            KeyError: the record has no such field.
        """
        for field in self.fields:
            if field.name == field_name:
                return field.offset
        raise KeyError(field_name)

    def describe(self, data: Buffer, offset: int = 0) -> str:
        """Return the record at ``offset`` as ``name{field=value …}``; zero fields are left out.

        Raises:
            struct.error: fewer than ``size`` bytes are left there.
        """
        values = self.struct.unpack_from(data, offset)
        shown = [
            f"{field.name}={value if isinstance(value, bytes) or value < 4096 else hex(value)}"
            for field, value in zip(self.fields, values, strict=True)
            if value
        ]
        return f"{self.name}{{{' '.join(shown)}}}"

    def __repr__(self) -> str:
        return f"<Record {self.name}, {self.size} bytes>"


def _walk(name: str, declaration: Any, *, packed: bool) -> tuple[list[Field], list[str], int]:  # noqa: ANN401
    """Flatten a construct declaration into fields, struct codes and the C alignment."""
    fields: list[Field] = []
    codes: list[str] = []
    offset, alignment = 0, 1
    for part in declaration.subcons:
        label, part = _unwrap(part)
        try:
            size = part.sizeof()
        except SizeofError:
            raise LayoutError(f"{name}.{label}: no fixed size") from None
        if isinstance(part, FormatField):
            code = part.fmtstr.lstrip("=<>@")
            alignment = max(alignment, size)
            if not packed and offset % size:
                raise LayoutError(f"{name}.{label}: offset {offset} is not aligned to {size}")
        elif isinstance(part, Padded) and label is None:
            code = f"{size}x"
        elif isinstance(part, Bytes) and label is not None:
            code = f"{size}s"
        else:
            raise LayoutError(f"{name}.{label}: no fixed C layout")
        codes.append(code)
        if label is not None:
            fields.append(Field(label, offset, size, code))
        offset += size
    return fields, codes, alignment


def _tuple_type(name: str, fields: list[Field]) -> Any:  # noqa: ANN401
    return namedtuple(name, [field.name for field in fields])  # noqa: PYI024 - names known at run time


def _unwrap(part: Any) -> tuple[str | None, Any]:  # noqa: ANN401
    if isinstance(part, Renamed):
        return part.name, part.subcon
    return None, part
