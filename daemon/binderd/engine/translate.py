# SPDX-License-Identifier: Apache-2.0
"""Objects in a payload: what a binder or handle of the sender means to the receiver.

The bytes of each object are read from the sender exactly once, into the daemon, and are validated
and translated there; only the result is written to the receiver, who may be writing to its pages
all the while (O2).  Everything between the objects goes straight across.

Mirrors the object loop of binder_transaction, binder_translate_binder and binder_translate_handle.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL, ENOMEM
from struct import Struct
from typing import TYPE_CHECKING, Final

from binderd.engine.errors import BinderFailure
from binderwire.binder_abi import (
    BINDER_TYPE_BINDER,
    BINDER_TYPE_HANDLE,
    BINDER_TYPE_WEAK_BINDER,
    BINDER_TYPE_WEAK_HANDLE,
    BR_FAILED_REPLY,
    OBJECT_SIZE_MAX,
    OBJECTS,
    flat_binder_object,
)

if TYPE_CHECKING:
    from binderd.engine.buffers import Buffer, Held
    from binderd.engine.process import Process
    from binderd.engine.thread import Thread

_HEADER_SIZE: Final = 4
_OFFSET_SIZE: Final = 8
_unpack_word: Final = Struct("=I").unpack_from
_HANDLE_MASK: Final = 0xFFFFFFFF


def fill_objects(
    thread: Thread, receiver: Process, buffer: Buffer, address: int, offsets_address: int
) -> None:
    """Move a payload that has objects into ``buffer``, translating each.

    Args:
        address: of the data, in the sender.
        offsets_address: of the array of u64 offsets of the objects, in the sender.

    Raises:
        BinderFailure: -EFAULT, -EINVAL or -ENOMEM (E2); ``buffer.held`` then lists what was
            translated before, for the caller to release.
    """
    table = thread.memory.read(offsets_address, buffer.offsets_size)
    if len(table) != buffer.offsets_size:
        raise BinderFailure(BR_FAILED_REPLY, -EFAULT)
    if buffer.offsets_size % _OFFSET_SIZE:
        raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
    if buffer.offsets_size // _OFFSET_SIZE > receiver.engine.limits.objects_per_transaction:
        raise BinderFailure(BR_FAILED_REPLY, -ENOMEM)
    starts = Struct(f"={buffer.offsets_size // _OFFSET_SIZE}Q").unpack(table)
    holes = _holes(starts, buffer.data_size)
    arena = receiver.client.arena
    objects = thread.memory.scatter(address, buffer.data_size, arena, buffer.offset, holes)
    if objects is None:
        raise BinderFailure(BR_FAILED_REPLY, -EFAULT)
    held = buffer.held = []
    for (start, _), found in zip(holes, objects, strict=True):
        arena.write(buffer.offset + start, _translate(thread, receiver, held, found))
    arena.write(buffer.offset + (buffer.data_size + 7 & ~7), table)


def _holes(starts: tuple[int, ...], data_size: int) -> list[tuple[int, int]]:
    """Return where the objects lie, each with as many bytes as the largest object could have.

    Raises:
        BinderFailure: -EINVAL for an offset that is not 4-aligned, not increasing or too close to
            the end (O1); -EFAULT for one outside the data, as the driver has it.
    """
    holes = []
    end = 0
    for index, start in enumerate(starts):
        if start < end or start > data_size:
            # The driver notices these while it copies the bytes up to the object.
            raise BinderFailure(BR_FAILED_REPLY, -EFAULT if start != end else -EINVAL)
        size = min(OBJECT_SIZE_MAX, data_size - start)
        if index + 1 < len(starts) and starts[index + 1] > start:
            size = min(size, starts[index + 1] - start)
        if size < _HEADER_SIZE or start % _HEADER_SIZE:
            raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
        holes.append((start, size))
        end = start + _HEADER_SIZE
    return holes


def _translate(thread: Thread, receiver: Process, held: Held, found: bytes) -> bytes:
    """Return an object, and what follows it in its hole, as the receiver is to see it."""
    kind = _unpack_word(found)[0]
    record = OBJECTS.get(kind)
    if record is None or len(found) < record.size:
        raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
    if kind in (BINDER_TYPE_BINDER, BINDER_TYPE_WEAK_BINDER):
        return _translate_binder(thread, receiver, held, found)
    if kind in (BINDER_TYPE_HANDLE, BINDER_TYPE_WEAK_HANDLE):
        return _translate_handle(thread, receiver, held, found)
    raise BinderFailure(BR_FAILED_REPLY, -EINVAL)


def _translate_binder(thread: Thread, receiver: Process, held: Held, found: bytes) -> bytes:
    """The sender's own object becomes a handle of the receiver (N2, N7, N10)."""
    kind, flags, ptr, cookie = flat_binder_object.unpack_from(found)
    strong = kind == BINDER_TYPE_BINDER
    node = thread.process.node_for(ptr, cookie, flags)
    try:
        ref = receiver.handles.increment_for_node(node, strong=strong, thread=thread)
    except BinderFailure:
        node.settle()
        raise
    held.append((strong, ref.handle))
    kind = BINDER_TYPE_HANDLE if strong else BINDER_TYPE_WEAK_HANDLE
    translated: bytes = flat_binder_object.pack(kind, flags, ref.handle, 0)
    return translated + found[len(translated) :]


def _translate_handle(thread: Thread, receiver: Process, held: Held, found: bytes) -> bytes:
    """A handle of the sender becomes one of the receiver, or comes home as its object (N9)."""
    kind, flags, binder, _ = flat_binder_object.unpack_from(found)
    strong = kind == BINDER_TYPE_HANDLE
    source = thread.process.handles.find(binder & _HANDLE_MASK, strong=strong)
    if source is None:
        raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
    node = source.node
    if node.process is receiver:
        node.acquire_local(strong=strong)
        held.append((strong, node))
        kind = BINDER_TYPE_BINDER if strong else BINDER_TYPE_WEAK_BINDER
        translated: bytes = flat_binder_object.pack(kind, flags, node.ptr, node.cookie)
    else:
        ref = receiver.handles.increment_for_node(node, strong=strong, thread=None)
        held.append((strong, ref.handle))
        translated = flat_binder_object.pack(kind, flags, ref.handle, 0)
    return translated + found[len(translated) :]
