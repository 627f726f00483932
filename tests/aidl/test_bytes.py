# SPDX-License-Identifier: Apache-2.0
"""Bytes that are written down: what the NDK's documentation and Android's sources say of each type.

They stand without a compiler to compare with, and for what came after the one that Debian has.
"""

from __future__ import annotations

import copy
import os
import pickle
import struct
from typing import TYPE_CHECKING, Any, Final

import pytest

from aidl.recorder import recorded
from binderclient import android
from binderclient.errors import ParcelError, RemoteException
from binderclient.files import ReceivedFile
from binderclient.interfaces import as_interface
from binderclient.objects import Service
from binderclient.parcel import Parcel

if TYPE_CHECKING:
    from collections.abc import Callable

    from aidl.conftest import Generated
    from binderclient.testing import Binder

OBJECT: Final = bytes(24)
SYSTEM: Final = bytes.fromhex("0c000000")  # the stability behind a binder


def words(*numbers: int) -> bytes:
    """Return 32-bit numbers as bytes."""
    return b"".join(struct.pack("=i", each) for each in numbers)


def text(value: str) -> bytes:
    """Return a String16: length, units, a NUL unit, padding."""
    data = value.encode("utf-16-le") + b"\0\0"
    return words(len(value)) + data + bytes(-len(data) % 4)


def sized(*parts: bytes) -> bytes:
    """Return a parcelable that is not null: its size counts itself."""
    body = b"".join(parts)
    return words(1, len(body) + 4) + body


FIXED: Final = sized(
    words(2, 3, 1, 2, 3, 3, 4, 5, 6),  # int[2][3]
    words(4) + bytes([127, 0, 0, 1]),  # byte[4]
    words(3) + bytes([0, 5, 6, 0]),  # Color[3], whose type is byte
    words(1),  # boolean
)


def fixed(generated: Generated) -> Any:  # noqa: ANN401
    color = generated("org.example.later.Color")
    return generated("org.example.later.Fixed")(
        grid=[[1, 2, 3], [4, 5, 6]], colors=[color.BLACK, color.GREEN, color.WHITE], valid=True
    )


def value_cases() -> list[Any]:
    """Return what makes the arguments of a method, and their bytes."""
    later = "org.example.later."

    def a(name: str) -> Callable[[Generated], Any]:
        return lambda generated: generated(later + name)

    return [
        pytest.param(
            "paint",
            lambda g: (a("Color")(g).WHITE, a("Level")(g).HIGH),
            words(6, (16 << 8) | 3),
            id="enums",
        ),
        pytest.param(
            "paint",
            lambda g: (a("Color")(g)(-100), a("Level")(g)(99)),
            words(-100, 99),
            id="values that are no enumerators",
        ),
        pytest.param(
            "palette",
            lambda g: ([a("Color")(g).GREEN, a("Color")(g)(-1)], 3),
            words(2) + bytes([5, 255, 0, 0]) + words(3),
            id="array of an enum of bytes, and a size",
        ),
        pytest.param(
            "choose",
            lambda g: (a("Value")(g)(number=3), None),
            words(1, 0, 3, 0),
            id="union, null union",
        ),
        pytest.param(
            "choose",
            lambda g: (a("Value")(g)(text="ab"), a("Value")(g)(many=[fixed(g)])),
            words(1, 1) + text("ab") + words(1, 2, 1) + FIXED,
            id="unions",
        ),
        pytest.param(
            "choose",
            lambda g: (a("Value")(g)(binder=Service()), a("Value")(g)()),
            words(1, 3) + OBJECT + SYSTEM + words(1, 0, 7),
            id="union with a binder, and by default",
        ),
        pytest.param("rotate", lambda _: ([7, 8, 9],), words(3, 7, 8, 9), id="fixed-size array"),
        pytest.param(
            "names",
            lambda _: ({"a": Service(), "bc": Service()},),
            words(2) + text("a") + OBJECT + SYSTEM + text("bc") + OBJECT + SYSTEM,
            id="map",
        ),
        pytest.param(
            "perhaps",
            lambda g: (["x", None], [None, a("Everything")(g).Inner(name="y")]),
            words(2) + text("x") + words(-1) + words(2, 0) + sized(text("y"), words(0)),
            id="list and array with null in them",
        ),
        pytest.param("perhaps", lambda _: (None, None), words(-1, -1), id="null list and array"),
    ]


class Served(Service):
    """Answers with what it is told to."""

    descriptor = "org.example.later.ILater"
    accepts_descriptors = True

    def __init__(self, reply: bytes = b"") -> None:
        self._reply = reply

    def on_transact(self, _code: int, _data: Parcel, reply: Parcel, _flags: int) -> None:
        reply.write_raw(self._reply)


@pytest.mark.parametrize(("method", "arguments", "wanted"), value_cases())
def test_requests(
    generated: Generated,
    binder: Binder,
    method: str,
    arguments: Callable[[Generated], tuple[Any, ...]],
    wanted: bytes,
) -> None:
    cls = generated("org.example.later.ILater")
    token = bytes(Parcel.for_interface(cls.descriptor))
    with recorded(binder, Served(words(android.EX_SECURITY) + text("") + words(0))) as (proxy, got):
        with pytest.raises(RemoteException, match="EX_SECURITY"):
            getattr(as_interface(cls, proxy), method)(*arguments(generated))
        assert got[0].request.removeprefix(token).hex(" ", 4) == wanted.hex(" ", 4)
        assert got[0].request.startswith(token)


def everything(generated: Generated) -> tuple[Any, bytes]:
    cls = generated("org.example.later.Everything")
    held = generated("org.example.later.Fixed")
    assert held is type(fixed(generated))
    with open(os.devnull, "rb") as file:
        files = [ReceivedFile(os.dup(file.fileno()))]
    value = cls(
        inner=cls.Inner("i", cls.Inner("j")),
        inners=[cls.Inner("k")],
        pair=[fixed(generated), fixed(generated)],
        fixed=fixed(generated),
        words=["", "w"],
        map={"k": "v"},
        files=files,
        class_=77,
    )
    value.extension = type(value.extension)(fixed(generated))
    inside = sized(text("j"), words(0))
    name = text("org.example.later.Fixed")
    held_bytes = name + FIXED[4:]
    wanted = sized(
        words(5),  # color
        words(2) + bytes([0, 6, 0, 0]),
        words((16 << 8) | 3, 0),  # level, levels
        struct.pack("=q", 1 << 40),
        words(1),  # mode, of type byte
        words(1, 0, 7),  # value
        words(0),  # other
        FIXED,
        words(2) + FIXED + FIXED,
        words(2) + text("") + text("w"),
        sized(text("i"), inside),
        words(1) + sized(text("k"), words(0)),
        words(1, 0, len(held_bytes)) + held_bytes,
        words(1) + text("k") + text("v"),
        words(1, 1, 0) + OBJECT,
        words(77),
        words(2, 1, 2),
    )
    return value, wanted


def test_a_parcelable_with_all(generated: Generated, binder: Binder) -> None:
    """There and back; what comes back is what went."""
    cls = generated("org.example.later.ILater")
    value, wanted = everything(generated)

    class Echo(cls):  # type: ignore[misc,valid-type]
        def all(self, everything: Any) -> Any:  # noqa: ANN401
            return everything

    with recorded(binder, Echo()) as (proxy, calls):
        back = as_interface(cls, proxy).all(value)
        token = bytes(Parcel.for_interface(cls.descriptor))
        assert calls[0].request == token + wanted
        assert calls[0].reply == words(0) + wanted
        assert back.extension.get(generated("org.example.later.Fixed")) == fixed(generated)
        assert back.extension.get(generated("org.example.later.Everything")) is None
        assert back.class_ == 77
        for file in (*back.files, *value.files):
            file.close()
        back.files = value.files = []
        assert back == value


def test_a_newer_parcelable_has_more(generated: Generated) -> None:
    """A reader that knows fewer fields skips the rest; one that knows more has their defaults."""
    from binderclient.annotations import codec_of

    inner = codec_of(generated("org.example.later.Everything").Inner, lambda _: None)
    long = Parcel(sized(text("n"), words(0), words(9, 9)) + words(5))
    assert inner.read(long).name == "n"
    assert long.read_int32() == 5
    assert inner.read(Parcel(sized(text("n")))).next is None


def read(generated: Generated, name: str, data: bytes) -> object:
    from binderclient.annotations import codec_of

    return codec_of(generated(name), lambda _: None).read(Parcel(data))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (words(1, 9, 0), "no member with the tag 9"),
        (words(1, -1, 0), "no member with the tag -1"),
        (words(0), "null at 0, where that must not be"),
        (words(1, 2, 1 << 20), "a list of 1048576"),
        (words(1), "4 bytes wanted"),
        (b"", "4 bytes wanted"),
    ],
)
def test_unions_that_make_no_sense(generated: Generated, data: bytes, said: str) -> None:
    with pytest.raises(ParcelError, match=said):
        read(generated, "org.example.later.Value", data)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (sized(words(3, 3)), "an array of 3 at 8, where 2 must be"),
        (sized(words(2, 2)), "an array of 2 at 12, where 3 must be"),
        (
            FIXED.replace(words(4) + b"\x7f", words(5) + b"\x7f"),
            "an array of 5 at 44, where 4 must be",
        ),
        (FIXED[:-4], "a parcelable of 60 bytes"),
    ],
)
def test_arrays_of_another_size(generated: Generated, data: bytes, said: str) -> None:
    with pytest.raises(ParcelError, match=said):
        read(generated, "org.example.later.Fixed", data)


def test_a_holder_of_something_unknown_is_sent_on(generated: Generated) -> None:
    from binderclient.aidl.runtime import ParcelableHolder, VintfParcelableHolder
    from binderclient.annotations import codec_of

    codec = codec_of(ParcelableHolder, lambda _: None)
    inside = text("org.example.Nobody") + words(12, 1, 2)
    data = words(1, 0, len(inside)) + inside
    holder = codec.read(Parcel(data))
    assert holder.name == "org.example.Nobody"
    assert holder.get(object) is None
    again = Parcel()
    codec.write(again, holder, "it")
    assert bytes(again) == data
    strict = codec_of(VintfParcelableHolder, lambda _: None)
    with pytest.raises(ParcelError, match="of stability 0 at 4, not 1"):
        strict.read(Parcel(data))
    with pytest.raises(ParcelError, match="with 24 left"):
        codec.read(Parcel(words(1, 0, 999) + bytes(24)))


@pytest.mark.parametrize(
    ("method", "arguments", "error", "said"),
    [
        ("paint", (1, 2), TypeError, "color: must be Color, not int"),
        ("rotate", ([1, 2],), ValueError, "point: 2 items, where 3 must be"),
        ("rotate", (7,), TypeError, "point: must be a list of 3, not int"),
        ("names", ([],), TypeError, "given: must be dict, not list"),
        ("names", ({1: 2},), TypeError, "given: must be str, not int"),
        ("names", ({"a": 2},), TypeError, r"given\.a: must be IBinder, not int"),
        ("choose", (5, None), TypeError, "value: must be Value, not int"),
        ("choose", (None, None), TypeError, "value: must be Value, not None"),
        ("palette", ("ab", 1), TypeError, "given: must be list, not str"),
        ("others", ([None],), TypeError, r"given\[0\]: must be ILater, not None"),
    ],
)
def test_wrong_values_are_named(
    generated: Generated,
    binder: Binder,
    method: str,
    arguments: tuple[Any, ...],
    error: type[Exception],
    said: str,
) -> None:
    cls = generated("org.example.later.ILater")
    with recorded(binder, Served()) as (proxy, calls):
        with pytest.raises(error, match=rf"^org\.example\.later\.ILater\.{method}\(\): {said}$"):
            getattr(as_interface(cls, proxy), method)(*arguments)
        assert not calls


def test_unions_in_python(generated: Generated) -> None:
    value = generated("org.example.later.Value")
    one = value(text="x")
    assert one.tag is value.Tag.text
    assert one.text == "x"
    assert one == value(text="x") != value(number=1)
    assert repr(one) == "Value(text='x')"
    with pytest.raises(AttributeError, match="this Value is text, not number"):
        _ = one.number
    with pytest.raises(TypeError, match="Value is one of number, text, many, binder"):
        value(text="x", number=1)
    with pytest.raises(TypeError, match="Value has no member nothing"):
        value(nothing=1)


def test_to_assign_to_a_member_makes_a_union_that(generated: Generated) -> None:
    value = generated("org.example.later.Value")
    one = value(text="x")
    one.number = 5
    assert one == value(number=5)
    assert one.tag is value.Tag.number
    with pytest.raises(AttributeError, match="this Value is number, not text"):
        _ = one.text
    for name in ("txt", "tag"):
        with pytest.raises(AttributeError, match=f"Value has no member {name}: Value is one"):
            setattr(one, name, value.Tag.text)
    assert copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == one
