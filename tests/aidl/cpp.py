# SPDX-License-Identifier: Apache-2.0
"""What C++ that Android's own compiler has generated would write, value by value.

Read are the codes, descriptors and calls of ``Parcel``'s methods, in their order; and what each of
these writes is here, from the NDK's documentation of its parcels.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_NULL_BINDER: Final = struct.pack("=IIQQ", 0x73622A85, 0, 0, 0)
_UNDECLARED, _SYSTEM = 0, 0b001100
_CODE: Final = re.compile(r"FIRST_CALL_TRANSACTION \+ (\d+) /\* (\w+) \*/")
_WRITE: Final = re.compile(r"(?:\.|->)(write\w+)\(([^;]*)\);")


class Write(NamedTuple):
    """A call of one of Parcel's methods with something of a name."""

    method: str
    name: str


class Transaction(NamedTuple):
    """What a method's proxy and stub do."""

    code: int
    request: tuple[Write, ...]
    reply: tuple[Write, ...]
    oneway: bool


def _i32(number: int) -> bytes:
    return struct.pack("=i", number)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _string16(text: str | None) -> bytes:
    if text is None:
        return _i32(-1)
    units = text.encode("utf-16-le")
    return _i32(len(units) // 2) + _padded(units + b"\0\0")


def _binder(value: object) -> bytes:
    return _NULL_BINDER + _i32(_UNDECLARED) if value is None else bytes(24) + _i32(_SYSTEM)


def _vector(item: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    def encode(values: Any) -> bytes:  # noqa: ANN401
        if values is None:
            return _i32(-1)
        return _i32(len(values)) + b"".join(map(item, values))

    return encode


def _bytes(data: bytes | None) -> bytes:
    return _i32(-1) if data is None else _i32(len(data)) + _padded(data)


def _packed(form: str) -> Callable[[Any], bytes]:
    return lambda value: struct.pack(f"={form}", value)


_ENCODERS: Final[Mapping[str, Callable[[Any], bytes]]] = {
    "Bool": _packed("i"),
    "Byte": _packed("i"),
    "Char": lambda value: _i32(ord(value)),
    "Int32": _i32,
    "Int64": _packed("q"),
    "Float": _packed("f"),
    "Double": _packed("d"),
    "String16": _string16,
    "Utf8AsUtf16": _string16,
    "StrongBinder": _binder,
    "UniqueFileDescriptor": lambda _: bytes(24),
    "VectorSize": lambda size: _i32(size),
    "ByteVector": _bytes,
    "BoolVector": _vector(_i32),
    "CharVector": _vector(lambda value: _i32(ord(value))),
    "Int32Vector": _vector(_i32),
    "Int64Vector": _vector(_packed("q")),
    "FloatVector": _vector(_packed("f")),
    "DoubleVector": _vector(_packed("d")),
    "String16Vector": _vector(_string16),
    "UniqueFileDescriptorVector": _vector(lambda _: bytes(24)),
}


class Cpp:
    """The text for the files of the corpus.

    Args:
        folder: where it is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _text(self, name: str) -> str:
        return (self._folder / (name.replace(".", "/") + ".cpp")).read_text()

    def descriptor(self, name: str) -> str:
        """Return an interface's descriptor."""
        found = re.search(r'IMPLEMENT_META_INTERFACE\(\w+, "([^"]+)"\)', self._text(name))
        assert found is not None
        return found[1]

    def transactions(self, name: str) -> dict[str, Transaction]:
        """Return an interface's methods."""
        proxies, stub = self._text(name).split("::onTransact(", 1)
        requests: dict[str, tuple[int, tuple[Write, ...], bool]] = {}
        writes: list[Write] = []
        for line in proxies.splitlines():
            found = _CODE.search(line)
            if found is not None:
                oneway = "FLAG_ONEWAY" in line
                requests[found[2]] = int(found[1]) + 1, tuple(writes), oneway
                writes = []
            elif "_aidl_data." in line:
                writes += _writes(line)
        replies: dict[str, list[Write]] = {}
        method = ""
        for line in stub.splitlines():
            found = _CODE.search(line)
            if found is not None:
                method = found[2]
                replies[method] = []
            elif "_aidl_reply->" in line:
                replies[method] += _writes(line)
        return {
            method: Transaction(code, request, tuple(replies[method]), oneway)
            for method, (code, request, oneway) in requests.items()
        }

    def encode(self, write: Write, value: Any) -> bytes:  # noqa: ANN401
        """Return what a call writes with a value."""
        kind = write.method.removeprefix("write")
        if kind in {"Parcelable", "NullableParcelable"}:
            return self._parcelable(value)
        if kind == "ParcelableVector":
            return _vector(self._parcelable)(value)
        return _ENCODERS[kind](value)

    def _parcelable(self, value: Any) -> bytes:  # noqa: ANN401
        if value is None:
            return _i32(0)
        if hasattr(value, "fileno"):  # android::os::ParcelFileDescriptor
            return _i32(1) + _i32(0) + bytes(24)
        text = self._text(type(value).__module__).split("::writeToParcel(", 1)[1]
        fields = [each for each in _writes(text) if each.name not in {"0", ""}]
        body = b"".join(
            self.encode(each, getattr(value, each.name))
            for each in fields
            if "_aidl_" not in each.name
        )
        return _i32(1) + _i32(len(body) + 4) + body


def _writes(text: str) -> list[Write]:
    found = []
    for method, argument in _WRITE.findall(text):
        if method not in {"writeInterfaceToken", "writeToParcel"}:
            inner = re.sub(r"^.*asBinder\((.*)\)$", r"\1", argument).lstrip("*")
            found.append(Write(method, re.sub(r"^(in|out)_", "", inner)))
    return found
