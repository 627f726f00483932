# SPDX-License-Identifier: Apache-2.0
"""quick.c does what the module struct does, with every record that there is."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from binderd.fuse import frames
from binderwire import binder_abi, codec, extension_abi, fuse_abi
from binderwire.codec import Record
from support.extensions import compiled

SOURCE = Path(__file__).resolve().parents[2] / "protocol" / "binderwire" / "quick.c"
RECORDS = {
    record.name: record
    for module in (binder_abi, extension_abi, fuse_abi, frames)
    for record in vars(module).values()
    if isinstance(record, Record)
}
every_record = pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
PREFIX = b"before"
INTEGERS = st.integers(-(1 << 65), 1 << 65) | st.sampled_from(
    [sign * ((1 << bits) + off) for bits in range(0, 65, 8) for off in (-1, 0) for sign in (1, -1)]
    + [(1 << bits) - 1 for bits in (7, 15, 31, 63)]
)


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Any:  # noqa: ANN401
    """The module of quick.c, compiled for this session."""
    return compiled("binderwire.quick", SOURCE, tmp_path_factory.mktemp("quick"))


def outcome(function: Any, *arguments: object, **named: object) -> object:  # noqa: ANN401
    """What a call returns or raises, to compare."""
    try:
        return function(*arguments, **named)
    except Exception as error:
        return type(error), str(error)


@every_record
def test_what_is_unpacked(quick: Any, record: Record) -> None:  # noqa: ANN401
    unpack = quick.unpacker(record.struct)

    @settings(max_examples=30)
    @given(st.binary(min_size=record.size, max_size=record.size))
    def check(octets: bytes) -> None:
        expected = record.struct.unpack(octets)
        assert unpack(octets) == expected
        assert unpack(bytearray(octets)) == unpack(memoryview(octets)) == expected
        assert unpack(PREFIX + octets, len(PREFIX)) == unpack(octets, 0) == expected
        assert unpack(octets + PREFIX, -len(octets + PREFIX)) == expected

    check()


@every_record
def test_what_is_packed(quick: Any, record: Record) -> None:  # noqa: ANN401
    pack = quick.packer(record.struct)
    kinds = [
        st.binary(min_size=field.size, max_size=field.size) if field.code[-1] == "s" else INTEGERS
        for field in record.fields
    ]

    @settings(max_examples=30)
    @given(st.tuples(*kinds))
    def check(values: tuple[object, ...]) -> None:
        assert outcome(pack, *values) == outcome(record.struct.pack, *values)

    check()
    fitting = record.struct.unpack(bytes(range(record.size % 256)).rjust(record.size, b"\x81"))
    assert pack(*fitting) == record.struct.pack(*fitting)


@every_record
def test_what_is_no_record(quick: Any, record: Record) -> None:  # noqa: ANN401
    pack, unpack = quick.packer(record.struct), quick.unpacker(record.struct)
    values: list[tuple[object, ...]] = [(), (None,), ("text",) * len(record.fields)]
    values += [(1.5,) * len(record.fields), (True,) * len(record.fields)]
    for wrong in values:
        assert outcome(pack, *wrong) == outcome(record.struct.pack, *wrong)
    whole = bytes(record.size)
    buffers: list[tuple[object, ...]] = [
        (),
        (whole[1:],),
        (whole, 1),
        (whole, -1),
        (whole, 1 << 70),
    ]
    buffers += [(whole, "0"), (whole, None), (None,), (whole, 0, 0), (bytearray(whole), 2)]
    for wrong in buffers:
        assert outcome(unpack, *wrong) == outcome(record.struct.unpack_from, *wrong)
    assert outcome(unpack, buffer=whole) == outcome(record.struct.unpack_from, buffer=whole)
    assert outcome(pack, a=1) == outcome(record.struct.pack, a=1)


def test_some_fields_only(quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    record = binder_abi.binder_transaction_data
    octets = bytes(range(record.size))
    found = record.read(octets)
    for unpacker in (quick.unpacker, lambda layout: layout.unpack_from):
        monkeypatch.setattr(codec, "unpacker", unpacker)
        assert record.only("flags", "target")(octets) == (found.target, found.flags)
        assert record.only("offsets")(PREFIX + octets, len(PREFIX)) == (found.offsets,)
    with pytest.raises(KeyError, match="no field colour"):
        record.only("colour")


def test_some_fields_changed(quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    record = binder_abi.binder_write_read
    octets = bytes(range(record.size))
    outcomes = []
    for changer in (quick.changer, lambda layout, slow: slow):
        monkeypatch.setattr(codec, "changer", changer)
        change = record.changing("read_consumed", "write_consumed")
        changed = record.read(change(octets, 7, (1 << 64) - 1))
        assert changed == record.read(octets)._replace(
            write_consumed=7, read_consumed=(1 << 64) - 1
        )
        assert octets == bytes(range(record.size))
        wrong = [(octets, 7), (octets, 7, 8, 9), (octets[1:], 7, 8), (octets + b"x", 7, 8), ()]
        wrong += [(octets, 7, 1 << 64), (octets, -1, 8), (octets, "7", 8), (None, 7, 8)]
        outcomes.append([outcome(change, *arguments) for arguments in wrong])
        assert all(isinstance(result, tuple) for result in outcomes[-1])
        with pytest.raises(KeyError, match="no field colour"):
            record.changing("colour")
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("layout", ["<I", "=d", "=2I", "=?", "I", "=P"[:1] + "f"])
def test_other_formats_are_refused(quick: Any, layout: str) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match="no format of records"):
        quick.packer(struct.Struct(layout))


def test_what_has_no_format_is_refused(quick: Any) -> None:  # noqa: ANN401
    with pytest.raises(AttributeError):
        quick.packer(None)
    with pytest.raises(AttributeError):
        quick.changer(None, None)
    with pytest.raises(TypeError):
        quick.changer(None)
    with pytest.raises(AttributeError):
        quick.unpacker("=I")
