# SPDX-License-Identifier: Apache-2.0
"""``Recorder``: keeps the bytes of requests to a service, and of its replies."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from binderclient.objects import Service

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from binderclient.objects import Proxy
    from binderclient.parcel import Parcel
    from binderclient.testing import Binder

OBJECT_SIZE = 24  # of a flat_binder_object and of a binder_fd_object


class Call(NamedTuple):
    """A call; the objects in its bytes, which are different each time, are zero."""

    code: int
    request: bytes
    reply: bytes
    flags: int


class Recorder(Service):
    """Stands in front of a service."""

    accepts_descriptors = True

    def __init__(self, service: Service) -> None:
        self._service = service
        self.calls: list[Call] = []

    def on_transact(
        self, code: int, data: Parcel, reply: Parcel, flags: int
    ) -> Awaitable[None] | None:
        request = without_objects(data)
        self._service.on_transact(code, data, reply, flags)
        self.calls.append(Call(code, request, without_objects(reply), flags))
        return None


def without_objects(parcel: Parcel) -> bytes:
    """Return a parcel's bytes with zeros where its objects are."""
    data = bytearray(bytes(parcel))
    for offset in parcel.object_offsets():
        data[offset : offset + OBJECT_SIZE] = bytes(OBJECT_SIZE)
    return bytes(data)


@contextmanager
def recorded(binder: Binder, service: Service) -> Iterator[tuple[Proxy, list[Call]]]:
    """Serve a service; yields another process' proxy for it, and the calls that it got."""
    recorder = Recorder(service)
    with binder.device() as server, binder.device() as client:
        server.become_context_manager(recorder)
        server.start_thread_pool()
        client.start_thread_pool()
        yield client.context_manager, recorder.calls
