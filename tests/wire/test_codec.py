# SPDX-License-Identifier: Apache-2.0
"""The derived codecs against construct itself, and the declarations that must be refused."""

from __future__ import annotations

import struct
from typing import Any

import construct
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from binderwire import binder_abi, fuse_abi
from binderwire.codec import LayoutError, Record, Struct, pad, raw, s32, s64, u8, u16, u32, u64

RECORDS = {
    value.name: value
    for module in (binder_abi, fuse_abi)
    for value in vars(module).values()
    if isinstance(value, Record)
}
few = settings(max_examples=20)  # for each of sixty records
every_record = pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)


def values_of(code: str, size: int) -> st.SearchStrategy[int | bytes]:
    """Return a strategy for what one field can hold."""
    if code.endswith("s"):
        return st.binary(min_size=size, max_size=size)
    if code.islower():
        return st.integers(-(1 << size * 8 - 1), (1 << size * 8 - 1) - 1)
    return st.integers(0, (1 << size * 8) - 1)


def plain(parsed: Any) -> dict[str, int | bytes]:  # noqa: ANN401 - construct's own container
    return {key: value for key, value in parsed.items() if not key.startswith("_")}


@every_record
@few
@given(data=st.data())
def test_build_and_parse_equal_construct(record: Record, data: st.DataObject) -> None:
    values = {
        field.name: data.draw(values_of(field.code, field.size), field.name)
        for field in record.fields
    }
    built = record.build(**values)
    assert built == record.declaration.build(values)
    assert len(built) == record.size == record.declaration.sizeof()
    assert record.read(built)._asdict() == plain(record.declaration.parse(built)) == values


@every_record
@few
@given(data=st.data())
def test_any_bytes_parse_as_construct_parses_them(record: Record, data: st.DataObject) -> None:
    octets = data.draw(st.binary(min_size=record.size, max_size=record.size))
    assert record.read(octets)._asdict() == plain(record.declaration.parse(octets))
    assert record.read(b"\xff" * 3 + octets, 3) == record.read(octets)
    assert record.describe(octets).startswith(f"{record.name}{{")


@every_record
def test_too_few_bytes_are_refused(record: Record) -> None:
    with pytest.raises(struct.error):
        record.read(bytes(record.size - 1))


def test_build_fills_what_is_not_named_with_zero() -> None:
    record = Record("sample", Struct("a" / u32, "b" / s32, "c" / raw(4)))
    assert record.build(b=-1) == b"\0\0\0\0\xff\xff\xff\xff\0\0\0\0"


def test_build_refuses_names_it_does_not_have() -> None:
    record = Record("sample", Struct("a" / u32))
    with pytest.raises(TypeError, match="sample has no field x, y"):
        record.build(y=1, x=2)


@pytest.mark.parametrize("value", [-1, 1 << 32])
def test_build_refuses_values_that_do_not_fit(value: int) -> None:
    record = Record("sample", Struct("a" / u32))
    with pytest.raises(struct.error):
        record.build(a=value)


def test_offsets_of_a_packed_record() -> None:
    record = Record("sample", Struct("a" / u8, "b" / u64, pad(3), "c" / u16), packed=True)
    assert [tuple(field) for field in record.fields] == [
        ("a", 0, 1, "B"),
        ("b", 1, 8, "Q"),
        ("c", 12, 2, "H"),
    ]
    assert record.offset_of("c") == 12
    with pytest.raises(KeyError):
        record.offset_of("d")


def test_describe_leaves_zeros_out_and_shows_large_numbers_in_hex() -> None:
    record = Record("sample", Struct("a" / u32, "b" / u32, "c" / s64, "d" / raw(2), pad(6)))
    octets = record.build(b=4096, c=-5, d=b"hi")
    assert record.describe(octets) == "sample{b=0x1000 c=-5 d=b'hi'}"
    assert repr(record) == "<Record sample, 24 bytes>"


MISLAID = {
    "misaligned u32": Struct("a" / u8, "b" / u32),
    "misaligned u64": Struct("a" / u32, "b" / u64),
    "misaligned behind padding": Struct("a" / u32, pad(2), "b" / u32),
    "size no multiple of the alignment": Struct("a" / u64, "b" / u32),
    "nested structure": Struct("a" / Struct("b" / u32)),
    "array": Struct("a" / construct.Array(2, construct.Byte)),
    "greedy bytes": Struct("a" / u32, "rest" / construct.GreedyBytes),
    "variable integer": Struct("a" / construct.VarInt),
    "C string": Struct("a" / construct.CString("ascii")),
}


@pytest.mark.parametrize("declaration", MISLAID.values(), ids=MISLAID)
def test_declaration_without_a_c_layout_is_refused(declaration: Any) -> None:  # noqa: ANN401
    with pytest.raises(LayoutError):
        Record("sample", declaration)


def test_packed_lifts_only_the_alignment_rule() -> None:
    assert Record("sample", MISLAID["misaligned u32"], packed=True).size == 5
    with pytest.raises(LayoutError):
        Record("sample", MISLAID["nested structure"], packed=True)
