# SPDX-License-Identifier: Apache-2.0
"""HIDL's types beside strings, through the engine: vectors of numbers, handles with files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from binderclient import hidl
from binderclient.errors import FailedTransaction, ParcelError, RemoteException
from binderclient.files import ReceivedFile
from binderclient.objects import Service
from binderclient.parcel import Parcel

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderclient.testing import Binder


BARE, WITH_TOKEN = 1, 2


def with_token() -> Parcel:
    """Return a request with something in front: no object at 0 can have a child, to the driver."""
    request = Parcel()
    request.write_cstring("test@1.0::ITest")
    return request


class Reading(Service):
    """Reads what comes along, with what the test says."""

    accepts_descriptors = True

    def __init__(self, read: Callable[[Parcel], object]) -> None:
        self._read = read
        self.seen: object = None

    def on_transact(self, code: int, data: Parcel, reply: Parcel, _flags: int) -> None:
        if code == WITH_TOKEN:
            data.read_cstring()
        self.seen = self._read(data)
        reply.write_int32(data.remaining)


def sent(binder: Binder, request: Parcel, read: Callable[[Parcel], object]) -> Any:  # noqa: ANN401
    service = Reading(read)
    with binder.device() as server, binder.device() as client:
        server.become_context_manager(service)
        server.start_thread_pool()
        code = WITH_TOKEN if bytes(request).startswith(b"test@") else BARE
        with client.context_manager.call(code, request) as reply:
            assert reply.read_int32() == 0
    return service.seen


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("i", [1, -2, 3]),
        ("B", [0, 255]),
        ("h", [-(2**15)]),
        ("Q", [2**64 - 1]),
        ("d", [0.5]),
        ("?", [True, False]),
        ("i", []),
    ],
)
def test_vectors_of_numbers(binder: Binder, kind: str, values: list[Any]) -> None:
    request = with_token()
    hidl.write_vec(request, kind, values)
    hidl.write_string(request, "behind")
    found = sent(binder, request, lambda data: (hidl.read_vec(data, kind), hidl.read_string(data)))
    assert found == (values, "behind")


def test_a_handle(binder: Binder) -> None:
    before = len(os.listdir("/proc/self/fd"))
    request = Parcel()
    files = [os.fdopen(os.memfd_create(str(number)), "wb") for number in range(3)]
    inodes = [os.fstat(file.fileno()).st_ino for file in files]
    hidl.write_handle(request, hidl.Handle(files, [7, -8]))
    hidl.write_handle(request, None)
    for file in files:
        file.close()

    def read(data: Parcel) -> tuple[Any, Any]:
        return hidl.read_handle(data), hidl.read_handle(data)

    for _ in range(2):
        handle, nothing = sent(binder, request, read)
        assert nothing is None
        assert handle.numbers == (7, -8)
        assert [os.fstat(file.fileno()).st_ino for file in handle.files] == inodes
        assert all(isinstance(file, ReceivedFile) for file in handle.files)
        for file in handle.files:
            file.close()
    request.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_handle_without_files(binder: Binder) -> None:
    request = Parcel()
    hidl.write_handle(request, hidl.Handle([], [5]))
    assert sent(binder, request, hidl.read_handle) == ([], (5,))


@pytest.mark.parametrize(
    ("handle", "error"),
    [
        (hidl.Handle([-1]), ParcelError),
        (hidl.Handle([], [2**31]), ParcelError),
        (hidl.Handle(["x"]), TypeError),  # type: ignore[list-item]
    ],
)
def test_what_is_no_handle_is_not_written(handle: hidl.Handle, error: type[Exception]) -> None:
    with pytest.raises(error):
        hidl.write_handle(Parcel(), handle)
    with pytest.raises(ParcelError, match=r"write_vec\(\)"):
        hidl.write_vec(Parcel(), "b", [128])


def odd_size(request: Parcel) -> None:
    request.write_uint64(13)
    request.write_buffer(bytes(12))


def odd_version(request: Parcel) -> None:
    request.write_uint64(12)
    request.write_buffer(bytes(12))


def no_files(request: Parcel) -> None:
    request.write_uint64(16)
    buffer = request.write_buffer(bytes([12, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0]))
    request.write_uint64(0)
    assert buffer == 0


@pytest.mark.parametrize("write", [odd_size, odd_version, no_files])
def test_malformed_handles_are_refused(binder: Binder, write: Callable[[Parcel], None]) -> None:
    request = Parcel()
    write(request)
    places: list[int] = []

    def read(data: Parcel) -> None:
        try:
            hidl.read_handle(data)
        except ParcelError:
            places.append(data.position)
            raise

    with pytest.raises(RemoteException):
        sent(binder, request, read)
    assert places == [0]


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (hidl.read_string, "a text of 2 bytes in buffer 1, of 8"),
        (hidl.read_strings, "an array of 8 bytes for 2 strings, at 16"),
        (lambda parcel: hidl.read_vec(parcel, "q"), "an array of 8 bytes for 2 numbers, at 16"),
    ],
)
def test_what_cannot_be_read_is_still_there(
    binder: Binder, read: Callable[[Parcel], object], said: str
) -> None:
    request = with_token()
    hidl.write_vec(request, "i", [1, 2])

    def reads(parcel: Parcel) -> object:
        with pytest.raises(ParcelError, match=said):
            read(parcel)
        return hidl.read_vec(parcel, "i")

    assert sent(binder, request, reads) == [1, 2]


def test_a_vector_of_another_size_is_refused(binder: Binder) -> None:
    request = with_token()
    hidl.write_vec(request, "i", [1, 2, 3])
    with pytest.raises(RemoteException):
        sent(binder, request, lambda data: hidl.read_vec(data, "q"))


def test_a_descriptor_in_an_array_that_is_none_is_refused_by_the_driver(binder: Binder) -> None:
    request = Parcel()
    buffer = request.write_buffer((1 << 20).to_bytes(4, "little"))
    request.write_file_array(buffer, 0, 1)
    with pytest.raises(FailedTransaction):
        sent(binder, request, lambda _data: None)
