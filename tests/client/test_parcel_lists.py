# SPDX-License-Identifier: Apache-2.0
"""Lists, what may be null, parcelables, tokens: written, read, and what is wrong of them."""

from __future__ import annotations

import math
import os
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binderclient.bundle import Opaque, read_bundle
from binderclient.errors import BinderError, ParcelError
from binderclient.parcel import Parcel
from binderclient.tokens import Token, read_token
from binderwire.service_manager import Era

if TYPE_CHECKING:
    from collections.abc import Callable

# Each reader without arguments, by name; all must bear any bytes.
READERS = sorted(
    name
    for name in dir(Parcel)
    if name.startswith("read_")
    and name not in {"read_raw", "read_list", "read_nullable", "read_exception", "read_file_array"}
)


def rewound(parcel: Parcel) -> Parcel:
    parcel.position = 0
    return parcel


# The bytes are those that Android's own libraries write
BYTES = [
    ("int32_array", [1, -2], struct.pack("=iii", 2, 1, -2)),
    ("uint32_array", [1, 2**32 - 1], struct.pack("=iII", 2, 1, 2**32 - 1)),
    ("int64_array", [-(2**63)], struct.pack("=iq", 1, -(2**63))),
    ("uint64_array", [2**64 - 1], struct.pack("=iQ", 1, 2**64 - 1)),
    ("float_array", [0.5, -2.0], struct.pack("=iff", 2, 0.5, -2.0)),
    ("double_array", [0.1], struct.pack("=id", 1, 0.1)),
    ("bool_array", [True, False, True], struct.pack("=iiii", 3, 1, 0, 1)),
    ("char_array", ["a", "\uffff"], struct.pack("=iII", 2, 97, 0xFFFF)),
    ("bytes", b"abcde", struct.pack("=i5s3x", 5, b"abcde")),
    ("bytes", b"", struct.pack("=i", 0)),
    ("string16_array", ["a", None, ""], struct.pack("=iiHHiiHH", 3, 1, 97, 0, -1, 0, 0, 0)),
    ("string8_array", ["ab", None], struct.pack("=ii2s2xi", 2, 2, b"ab", -1)),
    ("strong_binder_array", [None], struct.pack("=iIIQQi", 1, 0x73622A85, 0, 0, 0, 0)),
    ("parcel_file_descriptor", None, struct.pack("=i", 0)),
]


@pytest.mark.parametrize(("name", "value", "data"), BYTES, ids=lambda value: str(value)[:20])
def test_the_bytes(name: str, value: Any, data: bytes) -> None:  # noqa: ANN401
    parcel = Parcel()
    getattr(parcel, f"write_{name}")(value)
    assert bytes(parcel) == data
    assert getattr(rewound(parcel), f"read_{name}")() == value
    assert parcel.remaining == 0


@pytest.mark.parametrize("name", sorted({row[0] for row in BYTES} - {"parcel_file_descriptor"}))
def test_null(name: str) -> None:
    parcel = Parcel()
    getattr(parcel, f"write_{name}")(None)
    assert bytes(parcel) == struct.pack("=i", -1)
    assert getattr(rewound(parcel), f"read_{name}")() is None


@pytest.mark.parametrize(
    ("write", "value", "error", "text"),
    [
        ("int32", "x", TypeError, r"write_int32\(\) takes int, not str"),
        ("int32", 1.5, TypeError, r"write_int32\(\) takes int, not float"),
        ("int32", 2**31, ParcelError, r"write_int32\(\): 2147483648 does not fit"),
        ("uint64", -1, ParcelError, r"write_uint64\(\): -1 does not fit"),
        ("double", "x", TypeError, r"write_double\(\) takes float, not str"),
        ("float", 1e300, ParcelError, r"write_float\(\): 1e\+300 does not fit"),
        ("bool", "x", TypeError, r"write_bool\(\) takes bool or int, not str"),
        ("byte", "x", TypeError, r"write_byte\(\) takes int, not str"),
        ("char", 5, TypeError, r"write_char\(\) takes str, not int"),
        ("char", "ab", ParcelError, "is not one UTF-16 unit"),
        ("int32_array", [1, "x"], TypeError, r"write_int32_array\(\): item 1 takes int, not str"),
        ("int32_array", [1, 2**31], ParcelError, r"write_int32_array\(\): item 1: 2147483648"),
        ("int32_array", 5, TypeError, r"write_int32_array\(\) takes a list, not int"),
        ("double_array", [None], TypeError, r"write_double_array\(\): item 0 takes float"),
        ("bool_array", ["x"], TypeError, r"write_bool_array\(\) takes bool or int, not str"),
        ("char_array", ["ab"], ParcelError, "is not one UTF-16 unit"),
        ("string16_array", "ab", TypeError, r"write_string16_array\(\) takes a list, not str"),
        ("string8_array", [b"x"], TypeError, r"write_string8\(\) takes str, not bytes"),
        ("strong_binder_array", ["x"], TypeError, r"write_strong_binder\(\) takes IBinder"),
        ("parcel_file_descriptor", "x", TypeError, "takes a file or a descriptor, not str"),
    ],
)
def test_what_is_none_is_told_by_name(
    write: str,
    value: Any,  # noqa: ANN401
    error: type[Exception],
    text: str,
) -> None:
    with pytest.raises(error, match=text):
        getattr(Parcel(), f"write_{write}")(value)


@given(st.sampled_from(READERS), st.binary(max_size=80), st.integers(0, 3))
def test_readers_bear_any_bytes(reader: str, data: bytes, words: int) -> None:
    parcel = Parcel(data)
    parcel.position = min(4 * words, len(data) // 4 * 4)
    before = parcel.position
    try:
        getattr(parcel, reader)()
    except ParcelError as error:
        refusal = str(error)
    else:
        assert before <= parcel.position <= len(data)
        return
    assert parcel.position == before
    assert any(character.isdigit() for character in refusal), refusal


@pytest.mark.parametrize(
    ("reader", "data", "text"),
    [
        ("string16", struct.pack("=iHH", 1, 97, 98), "a String16 of 1 units at 0 without its end"),
        ("string8", struct.pack("=i4s", 2, b"abcd"), "a String8 of 2 bytes at 0 without its end"),
        ("string8", struct.pack("=i2s2x", 1, b"\xff"), "not UTF-8 at 4: invalid start byte"),
        ("cstring", b"abcd", "a C string at 0 without its end"),
        ("int32_array", struct.pack("=ii", 2, 1), "8 bytes wanted at 4 of 8"),
        ("string16_array", struct.pack("=ii", 2**30, -1), "a list of 1073741824 at 0 of 8"),
        ("int64", bytes(4), "8 bytes wanted at 0 of 4"),
        ("parcel_file_descriptor", struct.pack("=i", 2), "2 at 0 is neither null nor a value"),
        ("strong_binder", bytes(12), "28 bytes wanted at 0 of 12"),
    ],
)
def test_what_is_malformed_says_where(reader: str, data: bytes, text: str) -> None:
    parcel = Parcel(data)
    with pytest.raises(ParcelError, match=text):
        getattr(parcel, f"read_{reader}")()
    assert parcel.position == 0


def test_lists_of_anything_and_of_a_fixed_size() -> None:
    parcel = Parcel()
    parcel.write_list([[1, 2], None], parcel.write_int32_array)
    assert rewound(parcel).read_list(parcel.read_int32_array) == [[1, 2], None]
    assert rewound(parcel).read_list(parcel.read_int32_array, size=2) == [[1, 2], None]
    for size in (1, 3):
        with pytest.raises(ParcelError, match=f"a list of 2 at 0 in place of {size} items"):
            rewound(parcel).read_list(parcel.read_int32_array, size=size)
    none = Parcel(struct.pack("=i", -1))
    with pytest.raises(ParcelError, match="null at 0 in place of 2 items"):
        none.read_list(none.read_int32, size=2)


def test_what_may_be_null() -> None:
    parcel = Parcel()
    parcel.write_nullable(5, parcel.write_int64)
    parcel.write_nullable(None, parcel.write_int64)
    assert bytes(parcel) == struct.pack("=iqi", 1, 5, 0)
    rewound(parcel)
    assert parcel.read_nullable(parcel.read_int64) == 5
    assert parcel.read_nullable(parcel.read_int64) is None


def test_parcelables_of_older_and_newer_writers() -> None:
    parcel = Parcel()
    with parcel.writing_parcelable():
        parcel.write_int32(1)
        parcel.write_string16("name")
    parcel.write_int32(99)
    assert bytes(parcel)[:4] == struct.pack("=i", 4 + 4 + 16)
    rewound(parcel)
    with parcel.reading_parcelable() as end:  # who knows fewer fields
        assert parcel.read_int32() == 1
        assert parcel.position < end
    assert parcel.read_int32() == 99
    rewound(parcel)
    more = pytest.raises(ParcelError, match="a parcelable of 24 bytes at 0 has more")
    with more, parcel.reading_parcelable() as end:
        parcel.position = end
        parcel.read_int32()


@pytest.mark.parametrize("size", [-1, 0, 3, 13, 2**31 - 1])
def test_a_parcelable_of_a_size_that_cannot_be(size: int) -> None:
    parcel = Parcel(struct.pack("=iii", size, 0, 0))
    wrong = pytest.raises(ParcelError, match=f"a parcelable of {size} bytes at 0 of 12")
    with wrong, parcel.reading_parcelable():
        raise AssertionError
    assert parcel.position == 0


def test_a_parcel_file_descriptor() -> None:
    parcel = Parcel()
    with open(os.devnull, "rb") as file:
        parcel.write_parcel_file_descriptor(file)
        inode = os.fstat(file.fileno()).st_ino
    assert bytes(parcel)[:8] == struct.pack("=ii", 1, 0)
    received = rewound(parcel).read_parcel_file_descriptor()
    assert received is not None
    with received:
        assert os.fstat(received.fileno()).st_ino == inode


@pytest.mark.parametrize("era", list(Era))
def test_tokens_of_all_eras(era: Era) -> None:
    parcel = Parcel()
    parcel.write_interface_token("org.example.IFoo", era)
    parcel.write_int32(7)
    assert read_token(rewound(parcel), "org.example.IFoo") == Token(era)
    rewound(parcel).enforce_interface("org.example.IFoo")
    assert parcel.read_int32() == 7
    with pytest.raises(ParcelError, match=r"'org.example.IFoo' came to 'org.example.IBar', at 0"):
        rewound(parcel).enforce_interface("org.example.IBar")


# Bundles


class Writer(Parcel):
    """Writes bundles, as Android's Parcel does."""

    __slots__ = ()

    def bundle(self, *entries: Callable[[], object], magic: int = 0x4C444E42) -> None:
        start = self.position
        self.write_int32(0)
        self.write_uint32(magic)
        self.write_int32(len(entries))
        for entry in entries:
            entry()
        end = self.position
        self.position = start
        self.write_int32(end - start - 8)
        self.position = end

    def entry(self, key: str, kind: int, write: str, value: Any) -> Callable[[], None]:  # noqa: ANN401
        def put() -> None:
            self.write_string16(key)
            self.write_int32(kind)
            getattr(self, f"write_{write}")(value)

        return put

    def sized(self, key: str, kind: int, write: Callable[[], object]) -> Callable[[], None]:
        def put() -> None:
            self.write_string16(key)
            self.write_int32(kind)
            start = self.position
            self.write_int32(0)
            write()
            end = self.position
            self.position = start
            self.write_int32(end - start - 4)
            self.position = end

        return put


PLAIN = [
    (0, "string16", "text"),
    (1, "int32", -5),
    (5, "int32", 7),
    (6, "int64", 2**40),
    (7, "float", 0.5),
    (8, "double", 0.1),
    (9, "bool", True),
    (13, "bytes", b"abc"),
    (14, "string16_array", ["a", None]),
    (15, "strong_binder", None),
    (18, "int32_array", [1, 2]),
    (19, "int64_array", [3]),
    (20, "byte", -3),
    (23, "bool_array", [True, False]),
    (28, "double_array", [0.25]),
    (29, "char", "x"),
    (30, "int32_array", [1]),
    (31, "char_array", ["a"]),
    (32, "float_array", [0.5]),
]


@pytest.mark.parametrize("magic", [0x4C444E42, 0x4C444E44])
def test_a_bundle_of_everything(magic: int) -> None:
    parcel = Writer()
    nested = Writer()
    nested.bundle(nested.entry("inner", 1, "int32", 1))
    entries = [parcel.entry(f"k{kind}", kind, name, value) for kind, name, value in PLAIN]
    entries.append(parcel.entry("bundle", 3, "raw", bytes(nested)))
    entries.append(parcel.entry("persistable", 25, "raw", bytes(nested)))
    entries.append(parcel.entry("nothing", -1, "raw", b""))
    entries.append(parcel.entry("size", 26, "raw", struct.pack("=ii", 3, 4)))
    entries.append(parcel.entry("sparse", 22, "raw", struct.pack("=iii", 1, 5, 1)))
    entries.append(parcel.entry("chars", 10, "raw", struct.pack("=ii2s2x", 1, 2, b"hi")))
    parcel.bundle(*entries, magic=magic)
    parcel.write_int32(99)
    expected: dict[str, Any] = {f"k{kind}": value for kind, _, value in PLAIN}
    expected |= {
        "bundle": {"inner": 1},
        "persistable": {"inner": 1},
        "nothing": None,
        "size": (3, 4),
        "sparse": {5: True},
        "chars": "hi",
    }
    assert read_bundle(rewound(parcel)) == expected
    assert parcel.read_int32() == 99


def test_values_with_a_size() -> None:
    parcel = Writer()
    parcel.bundle(
        parcel.sized("object", 4, lambda: parcel.write_raw(b"abcdefgh")),
        parcel.sized("list", 11, lambda: parcel.write_raw(struct.pack("=iiiii", 2, 1, 5, 9, 1))),
        parcel.sized("map", 2, lambda: parcel.write_raw(struct.pack("=iiiii", 1, 1, 5, 1, 6))),
    )
    assert read_bundle(rewound(parcel)) == {
        "object": Opaque(4, b"abcdefgh"),
        "list": [5, True],
        "map": {5: 6},
    }


def test_before_android_13_lists_have_no_size() -> None:
    parcel = Writer()
    parcel.bundle(parcel.entry("list", 11, "raw", struct.pack("=iii", 1, 1, 5)))
    assert read_bundle(rewound(parcel), android=12) == {"list": [5]}
    parcel = Writer()
    parcel.bundle(parcel.entry("object", 4, "raw", bytes(8)))
    with pytest.raises(ParcelError, match="a value of type 4 at 32, which has no size"):
        read_bundle(rewound(parcel), android=12)


@pytest.mark.parametrize(("words", "value"), [((-1,), None), ((0,), {})])
def test_null_and_empty_bundles(words: tuple[int, ...], value: object) -> None:
    assert read_bundle(Parcel(struct.pack(f"={len(words)}i", *words))) == value


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (struct.pack("=iIi", 4, 0x12345678, 0), "0x12345678 at 4 is not what a bundle begins with"),
        (struct.pack("=iIi", 400, 0x4C444E42, 0), "a bundle of 400 bytes at 0 of 12"),
        (struct.pack("=iIi", -4, 0x4C444E42, 0), "a bundle of -4 bytes at 0 of 12"),
        (struct.pack("=iIi", 4, 0x4C444E42, 2**30), "1073741824 entries at 8 of 12"),
        (struct.pack("=iIii", 8, 0x4C444E42, 0, 0), "a bundle at 0 that ends at 12, not at 16"),
        (struct.pack("=iIiii", 12, 0x4C444E42, 1, -1, 77), "a value of type 77 at 16"),
    ],
)
def test_malformed_bundles_say_where(data: bytes, text: str) -> None:
    parcel = Parcel(data)
    with pytest.raises(ParcelError, match=text):
        read_bundle(parcel)
    assert parcel.position == 0


def test_bundles_in_bundles_without_end() -> None:
    data = struct.pack("=iIi", 4, 0x4C444E42, 0)
    for _ in range(200):
        body = struct.pack("=iii", 1, -1, 3) + data
        data = struct.pack("=iI", len(body), 0x4C444E42) + body
    with pytest.raises(ParcelError, match="in too many others"):
        read_bundle(Parcel(data))


@given(st.binary(max_size=120), st.sampled_from([9, 12, 13]))
def test_bundles_of_any_bytes(data: bytes, android: int) -> None:
    parcel = Parcel(struct.pack("=iI", len(data) // 4 * 4, 0x4C444E42) + data)
    try:
        read_bundle(parcel, android=android)
    except BinderError:
        assert parcel.position == 0


def test_numbers_that_are_not_finite_travel() -> None:
    parcel = Parcel()
    parcel.write_double_array([math.inf, -math.inf])
    assert rewound(parcel).read_double_array() == [math.inf, -math.inf]


@pytest.mark.parametrize("shape", ["wide", "table"])
def test_a_view_counts_in_bytes_whatever_its_items_are(shape: str) -> None:
    octets = bytes(range(6))
    view = memoryview(octets)
    view = view.cast("H") if shape == "wide" else view.cast("B", (2, 3))
    parcel = Parcel()
    parcel.write_bytes(view)
    parcel.write_raw(view)
    parcel.write_int32(7)
    parcel.position = 0
    assert parcel.read_bytes() == octets
    assert bytes(parcel.read_raw(6)) == octets
    assert parcel.read_int32() == 7
