# SPDX-License-Identifier: Apache-2.0
"""Parcels: Android's encoding byte for byte, round trips, bounds, the life of received pages."""

from __future__ import annotations

import os
import pickle
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binderclient import android
from binderclient.errors import ParcelError, RemoteException
from binderclient.ibinder import IBinder
from binderclient.objects import Proxy
from binderclient.parcel import Parcel
from binderwire.binder_abi import (
    BINDER_TYPE_BINDER,
    BINDER_TYPE_FD,
    BINDER_TYPE_HANDLE,
    binder_fd_object,
    flat_binder_object,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

INT32 = st.integers(-(2**31), 2**31 - 1)
UNITS = st.text(st.characters(codec=None), max_size=40)  # lone surrogates included
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)

# How a value is written, how it is read, and what values there are.
KINDS: list[tuple[str, str, st.SearchStrategy[Any]]] = [
    ("write_int32", "read_int32", INT32),
    ("write_uint32", "read_uint32", st.integers(0, 2**32 - 1)),
    ("write_int64", "read_int64", st.integers(-(2**63), 2**63 - 1)),
    ("write_uint64", "read_uint64", st.integers(0, 2**64 - 1)),
    ("write_float", "read_float", st.floats(width=32, allow_nan=False)),
    ("write_double", "read_double", st.floats(allow_nan=False)),
    ("write_bool", "read_bool", st.booleans()),
    ("write_byte", "read_byte", st.integers(-128, 127)),
    ("write_char", "read_char", st.characters(codec=None, max_codepoint=0xFFFF)),
    ("write_string16", "read_string16", st.none() | UNITS),
    ("write_string8", "read_string8", st.none() | TEXT),
    ("write_cstring", "read_cstring", TEXT.map(lambda text: text.replace("\0", ""))),
    ("write_bytes", "read_bytes", st.none() | st.binary(max_size=40)),
    ("write_int32_array", "read_int32_array", st.none() | st.lists(INT32, max_size=9)),
    ("write_int64_array", "read_int64_array", st.none() | st.lists(INT32, max_size=9)),
    (
        "write_double_array",
        "read_double_array",
        st.none() | st.lists(st.floats(width=16, allow_nan=False), max_size=9),
    ),
    (
        "write_string16_array",
        "read_string16_array",
        st.none() | st.lists(st.none() | UNITS, max_size=5),
    ),
]
VALUES = st.sampled_from(KINDS).flatmap(lambda kind: st.tuples(st.just(kind[:2]), kind[2]))


class Numbers:
    """Gives every binder the object that a test wants, and settles nothing."""

    def __init__(self, *flat: tuple[int, int, int, int]) -> None:
        self._flat = iter(flat)

    def flatten(self, _binder: IBinder, _exported: list[int]) -> tuple[int, int, int, int]:
        return next(self._flat)


class Owner:
    """Remembers what came back."""

    def __init__(self) -> None:
        self.freed: list[tuple[int, tuple[int, ...]]] = []
        self.dropped: list[tuple[int, tuple[int, ...]]] = []
        self.known = IBinder()

    def resolve(self, kind: int, binder: int, cookie: int) -> IBinder:
        self.resolved = (kind, binder, cookie)
        return self.known

    def free_buffer(self, address: int, descriptors: Sequence[int]) -> None:
        self.freed.append((address, tuple(descriptors)))

    def drop_buffer(self, address: int, descriptors: Sequence[int]) -> None:
        self.dropped.append((address, tuple(descriptors)))


def delivered(parcel: Parcel, owner: Owner) -> Parcel:
    """Return what a receiver sees of a parcel."""
    pages = memoryview(bytes(parcel)).toreadonly()
    return Parcel(pages, offsets=parcel.object_offsets(), owner=owner, address=0x1000)


# The encoding

GOLDEN: list[tuple[str, Callable[[Parcel], None], str]] = [
    ("int32", lambda p: p.write_int32(-2), "feffffff"),
    (
        "int64 is aligned to 4 only",
        lambda p: (p.write_int32(1), p.write_int64(2))[0],
        "01000000 0200000000000000",
    ),
    ("bool", lambda p: p.write_bool(True), "01000000"),
    ("byte is an int32", lambda p: p.write_byte(-1), "ffffffff"),
    ("char is an int32", lambda p: p.write_char("é"), "e9000000"),
    ("string16", lambda p: p.write_string16("ab"), "02000000 6100 6200 0000 0000"),
    ("string16 without padding", lambda p: p.write_string16("a"), "01000000 6100 0000"),
    (
        "string16 counts UTF-16 units",
        lambda p: p.write_string16("\U0001f600"),
        "02000000 3dd8 00de 0000 0000",
    ),
    ("string16 empty", lambda p: p.write_string16(""), "00000000 0000 0000"),
    ("string16 null", lambda p: p.write_string16(None), "ffffffff"),
    ("string8", lambda p: p.write_string8("é"), "02000000 c3a9 00 00"),
    (
        "string8 with its NUL in the next word",
        lambda p: p.write_string8("abcd"),
        "04000000 61626364 00000000",
    ),
    ("cstring", lambda p: p.write_cstring("abcd"), "61626364 00000000"),
    ("byte array", lambda p: p.write_bytes(b"abcde"), "05000000 6162636465 000000"),
    ("byte array null", lambda p: p.write_bytes(None), "ffffffff"),
    ("int32 array", lambda p: p.write_int32_array([1, -1]), "02000000 01000000 ffffffff"),
    (
        "string16 array",
        lambda p: p.write_string16_array(["a", None]),
        "02000000 01000000 6100 0000 ffffffff",
    ),
    ("no exception", lambda p: p.write_no_exception(), "00000000"),
    (
        "null binder: flat object of type BINDER, stability 0",
        lambda p: p.write_strong_binder(None),
        "852a6273" + 20 * "00" + "00000000",
    ),
    (
        "interface token: gather bit, no work source, 'SYST', name",
        lambda p: p.write_interface_token("a.B"),
        "00000080 ffffffff 54535953 03000000 6100 2e00 4200 0000",
    ),
    (
        "exception: code, message, no stack trace, number",
        lambda p: p.write_exception(
            RemoteException(android.EX_SERVICE_SPECIFIC, "x", service_specific=7)
        ),
        "f8ffffff 01000000 7800 0000 00000000 07000000",
    ),
]


@pytest.mark.parametrize(("write", "expected"), [g[1:] for g in GOLDEN], ids=[g[0] for g in GOLDEN])
def test_the_encoding_is_androids(write: Callable[[Parcel], None], expected: str) -> None:
    parcel = Parcel()
    write(parcel)
    assert bytes(parcel).hex() == expected.replace(" ", "")


def test_a_strong_binder_is_a_flat_object_with_its_stability_behind_it() -> None:
    parcel = Parcel()
    parcel.write_int32(5)
    parcel.write_strong_binder(IBinder())
    numbers = Numbers((BINDER_TYPE_BINDER, 0x113, 0x10, 0x20))
    data, offsets = parcel.payload(numbers, [])
    flat = flat_binder_object.pack(BINDER_TYPE_BINDER, 0x113, 0x10, 0x20)
    assert bytes(data) == struct.pack("=i", 5) + flat + struct.pack("=i", 0b001100)
    assert bytes(offsets) == struct.pack("=Q", 4)


def test_a_file_descriptor_is_an_object() -> None:
    parcel = Parcel()
    with os.fdopen(os.memfd_create("a"), "wb") as file:
        inode = os.fstat(file.fileno()).st_ino
        parcel.write_file(file)
    data, offsets = parcel.payload(Numbers(), [])
    kind, number = binder_fd_object.read(data)[::2]
    assert kind == BINDER_TYPE_FD
    assert os.fstat(number).st_ino == inode  # it was closed above, and the parcel's was not
    assert not os.get_inheritable(number)
    assert bytes(offsets) == bytes(8)
    parcel.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def open_count() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_files_of_a_parcel_end_with_it() -> None:
    before = open_count()
    with os.fdopen(os.memfd_create("a"), "w+b") as file:
        parcels = [Parcel() for _ in range(3)]
        for parcel in parcels:
            parcel.write_file(file)
            parcel.write_file(file.fileno())
        other = Parcel()
        other.append(parcels[0])
        parcels[1].close()
        parcels[1].close()
    del parcel
    parcels.clear()
    assert open_count() == before + 2, "those that were appended"
    other.position = 0
    with other.read_file() as first, other.read_file() as second:
        assert os.path.sameopenfile(first.fileno(), second.fileno())
        del other
        assert open_count() == before + 2
    assert open_count() == before


@pytest.mark.parametrize("number", [-1, 1 << 20, 1 << 40])
def test_what_is_no_open_file_is_not_written(number: int) -> None:
    parcel = Parcel()
    with pytest.raises(ParcelError, match=f"{number} is no open file"):
        parcel.write_file(number)
    file = open(os.devnull, "rb")  # noqa: SIM115 - it is to be closed
    file.close()
    with pytest.raises(ParcelError, match="is no open file"):
        parcel.write_file(file)
    with pytest.raises(TypeError, match="takes a file or a descriptor, not str"):
        parcel.write_file("x")  # type: ignore[arg-type]
    assert len(parcel) == 0


@given(st.lists(VALUES, max_size=12))
def test_what_was_written_is_read(values: list[tuple[tuple[str, str], Any]]) -> None:
    parcel = Parcel()
    for (write, _read), value in values:
        getattr(parcel, write)(value)
        assert parcel.position % 4 == 0
    owner = Owner()
    with delivered(parcel, owner) as received:
        for (_write, read), value in values:
            assert getattr(received, read)() == value
        assert received.remaining == 0
    assert owner.freed == [(0x1000, ())]


@given(VALUES)
def test_no_prefix_can_be_read(value: tuple[tuple[str, str], Any]) -> None:
    (write, read), content = value
    parcel = Parcel()
    getattr(parcel, write)(content)
    whole = bytes(parcel)
    needed = len(whole.rstrip(b"\0")) if read in {"read_bytes", "read_string8"} else len(whole) - 3
    for size in range(min(needed, len(whole))):
        short = Parcel(whole[:size])
        with pytest.raises(ParcelError):
            getattr(short, read)()
        assert short.position == 0


@given(st.binary(max_size=80), st.lists(st.sampled_from([kind[1] for kind in KINDS]), max_size=6))
def test_garbage_is_read_or_refused(data: bytes, reads: list[str]) -> None:
    parcel = Parcel(data)
    for read in [*reads, "read_strong_binder", "read_exception", "read_file_descriptor"]:
        before = parcel.position
        try:
            getattr(parcel, read)()
        except ParcelError:
            assert parcel.position == before
        except RemoteException:
            assert read == "read_exception"


@pytest.mark.parametrize(
    ("write", "value"),
    [
        ("write_int32", 2**31),
        ("write_uint32", -1),
        ("write_int64", 2**63),
        ("write_byte", 128),
        ("write_char", "ab"),
        ("write_char", "\U0001f600"),
        ("write_cstring", "a\0b"),
        ("write_int32_array", [2**31]),
        ("write_float", 1e300),
    ],
)
def test_a_value_that_does_not_fit_is_refused(write: str, value: object) -> None:
    parcel = Parcel()
    with pytest.raises(ParcelError):
        getattr(parcel, write)(value)
    assert len(parcel) == 0


# Headers


def test_a_request_for_another_interface_is_refused() -> None:
    with pytest.raises(ParcelError, match=r"'a\.B' came to 'a\.C'"):
        Parcel(bytes(Parcel.for_interface("a.B"))).enforce_interface("a.C")


def test_a_request_without_a_token_is_refused() -> None:
    parcel = Parcel(struct.pack("=iii", 0, -1, 3) + b"\0" * 8)
    with pytest.raises(ParcelError, match="SYST"):
        parcel.enforce_interface("")


def test_a_remote_exception_comes_out_as_it_went_in() -> None:
    reply = Parcel()
    reply.write_exception(RemoteException(android.EX_SECURITY, "no"))
    reply.position = 0
    with pytest.raises(RemoteException, match="EX_SECURITY: no") as caught:
        reply.read_exception()
    assert caught.value.exception_code == android.EX_SECURITY


def test_java_reply_headers_and_stack_traces_are_skipped() -> None:
    reply = Parcel()
    for word in (android.EX_HAS_NOTED_APPOPS_REPLY_HEADER, 12, 1, 2):
        reply.write_int32(word)
    reply.write_int32(android.EX_HAS_REPLY_HEADER)
    for word in (8, 3):
        reply.write_int32(word)
    reply.write_int32(42)
    reply.position = 0
    reply.read_exception()
    assert reply.read_int32() == 42

    reply = Parcel()
    reply.write_int32(android.EX_SERVICE_SPECIFIC)
    reply.write_string16("why")
    for word in (12, 0, 0, 5):  # a stack trace of 8 bytes: its size counts itself
        reply.write_int32(word)
    reply.position = 0
    with pytest.raises(RemoteException) as caught:
        reply.read_exception()
    assert caught.value.service_specific == 5


# Objects


def test_bytes_that_look_like_an_object_are_none() -> None:
    forged = flat_binder_object.pack(BINDER_TYPE_HANDLE, 0, 1, 0) + bytes(4)
    with pytest.raises(ParcelError, match="no binder object"):
        Parcel(memoryview(forged), owner=Owner()).read_strong_binder()


def test_a_received_binder_is_resolved_once() -> None:
    owner = Owner()
    pages = memoryview(flat_binder_object.pack(BINDER_TYPE_HANDLE, 0, 7, 0) + bytes(4))
    with Parcel(pages, offsets=[0], owner=owner) as parcel:
        assert parcel.read_strong_binder() is owner.known
        assert owner.resolved == (BINDER_TYPE_HANDLE, 7, 0)
        del owner.resolved
        parcel.position = 0
        assert parcel.read_strong_binder() is owner.known
        assert not hasattr(owner, "resolved")


def test_a_binder_in_a_parcel_cannot_be_overwritten() -> None:
    parcel = Parcel()
    parcel.write_strong_binder(IBinder())
    parcel.position = 20
    with pytest.raises(ParcelError, match="overwrite"):
        parcel.write_int32(0)
    parcel.position = 24
    parcel.write_int32(0)


def test_appending_moves_the_objects_along() -> None:
    first, second, binder = Parcel(), Parcel(), IBinder()
    first.write_int32(1)
    second.write_int32(2)
    second.write_strong_binder(binder)
    first.append(second, 4)
    assert first.object_offsets() == (4,)
    first.position = 4
    assert first.read_strong_binder() is binder
    with pytest.raises(ParcelError, match="cuts through"):
        first.append(second, 4, 12)


def test_a_received_parcel_can_be_appended_but_not_sent() -> None:
    owner, copy = Owner(), Parcel()
    pages = memoryview(flat_binder_object.pack(BINDER_TYPE_HANDLE, 0, 7, 0) + bytes(4))
    with Parcel(pages, offsets=[0], owner=owner) as parcel:
        copy.append(parcel)
        with pytest.raises(ParcelError, match="cannot be sent"):
            parcel.payload(Numbers(), [])
        with pytest.raises(ParcelError, match="cannot be written"):
            parcel.write_int32(1)
    data, _offsets = copy.payload(Numbers((BINDER_TYPE_HANDLE, 0, 9, 0)), [])
    assert flat_binder_object.read(data).binder == 9


# The life of received pages


def test_blobs_are_views_of_the_pages_and_die_with_them() -> None:
    sent = Parcel()
    sent.write_bytes(b"secret")
    pages = bytearray(bytes(sent))
    owner = Owner()
    parcel = Parcel(memoryview(pages), owner=owner)
    blob = parcel.read_blob()
    assert blob is not None
    assert blob.readonly
    pages[4:5] = b"S"
    assert blob == b"Secret"
    whole = parcel.view()
    parcel.close()
    parcel.close()
    assert owner.freed == [(0, ())]
    for view in (blob, whole):
        with pytest.raises(ValueError, match="released"):
            bytes(view)
    for use in (parcel.read_int32, parcel.view, parcel.read_bytes, parcel.__bytes__):
        with pytest.raises(ParcelError, match="given back"):
            use()
    assert len(parcel) == 0


def test_a_view_in_use_keeps_the_buffer() -> None:
    owner = Owner()
    parcel = Parcel(memoryview(bytes(8)), owner=owner)
    user = pickle.PickleBuffer(parcel.view())
    with pytest.raises(ParcelError, match="still in use"):
        parcel.close()
    assert owner.freed == []
    assert parcel.read_int64() == 0
    user.release()
    parcel.close()
    assert owner.freed == [(0, ())]


def test_a_forgotten_parcel_gives_its_buffer_back() -> None:
    owner = Owner()
    parcel = Parcel(memoryview(bytes(8)), owner=owner, address=0x2000)
    del parcel
    assert owner.dropped == [(0x2000, ())]
    assert owner.freed == []


def test_descriptors_that_nobody_took_come_back_with_the_buffer() -> None:
    sent = Parcel()
    numbers = []
    with open(os.devnull, "rb") as file:
        for _ in range(2):
            position = sent.position
            sent.write_file(file)
            numbers.append(binder_fd_object.unpack_from(bytes(sent), position)[2])
    owner = Owner()
    with delivered(sent, owner) as received:
        assert received.read_file_descriptor() == numbers[0]
    assert owner.freed == [(0x1000, (numbers[1],))]


def test_nothing_is_appended_below_a_view() -> None:
    parcel = Parcel()
    parcel.write_int32(1)
    view = parcel.view()
    with pytest.raises(ParcelError, match="still in use"):
        parcel.write_int32(2)
    del view
    parcel.write_int32(2)


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (Parcel.write_string16, 5, r"write_string16\(\) takes str, not int"),
        (Parcel.write_string8, b"x", r"write_string8\(\) takes str, not bytes"),
        (Parcel.write_cstring, None, r"write_cstring\(\) takes str, not NoneType"),
        (Parcel.write_raw, "x", r"write_raw\(\) takes bytes or bytearray or memoryview, not str"),
        (Parcel.write_bytes, [1], r"write_bytes\(\) takes bytes or bytearray or memoryview"),
        (Parcel.write_strong_binder, "x", r"write_strong_binder\(\) takes IBinder, not str"),
        (Parcel.write_string16_array, ["a", 1], r"write_string16\(\) takes str, not int"),
    ],
)
def test_what_is_no_such_value_is_told_by_name(
    write: Callable[[Parcel, Any], None], value: object, text: str
) -> None:
    parcel = Parcel()
    with pytest.raises(TypeError, match=text):
        write(parcel, value)
    assert len(parcel) <= 12, "at most what came before it"


def test_a_call_takes_a_parcel() -> None:
    class Nobody:
        def transact(self, *_: object) -> Parcel:
            raise AssertionError("it was sent")

    with pytest.raises(TypeError, match=r"call\(\): data must be Parcel, not str"):
        Proxy(1, Nobody()).call(1, "x")  # type: ignore[arg-type]
