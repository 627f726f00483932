# SPDX-License-Identifier: Apache-2.0
"""Objects in a payload: what binders, handles, files and pointers mean to the receiver.

The bytes of each object are read from the sender exactly once, into the daemon, and are validated
and translated there; only the result is written to the receiver, who may be writing to its pages
all the while (O2). Everything between the objects goes straight across.

A table gives each object type the function that translates it. What pointers need, the copies into
the extra area and the fix-ups in them, is next door in ``scatter.py``.

Mirrors the object loop of binder_transaction and the binder_translate_ functions.
"""

from __future__ import annotations

from errno import EBADF, EFAULT, EINVAL, ENOMEM, EPERM
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from binderd.engine.buffers import Passed
from binderd.engine.errors import BinderFailure
from binderd.engine.payload import offsets_at
from binderd.engine.ports import NoAnswer
from binderd.engine.scatter import Pointers
from binderwire.binder_abi import (
    BINDER_TYPE_BINDER,
    BINDER_TYPE_FD,
    BINDER_TYPE_FDA,
    BINDER_TYPE_HANDLE,
    BINDER_TYPE_PTR,
    BINDER_TYPE_WEAK_BINDER,
    BINDER_TYPE_WEAK_HANDLE,
    BR_FAILED_REPLY,
    OBJECT_SIZE_MAX,
    OBJECTS,
    binder_buffer_object,
    binder_fd_array_object,
    binder_fd_object,
    flat_binder_object,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.engine.buffers import Buffer
    from binderd.engine.process import Process
    from binderd.engine.thread import Thread

_HEADER_SIZE: Final = 4
_OFFSET_SIZE: Final = 8
_FD_SIZE: Final = 4
_HANDLE_MASK: Final = 0xFFFFFFFF
_unpack_word: Final = Struct("=I").unpack_from


class Fault(NamedTuple):
    """Why a payload is refused, unless something before that is wrong."""

    start: int  # where in the data
    errno: int


class Translation:
    """The objects of one payload on their way.

    Args:
        thread: the sender's.
        accepts_fds: whether the receiver takes descriptors (O7).
    """

    __slots__ = (
        "_end",
        "_fault",
        "_holes",
        "_index",
        "_objects",
        "_table",
        "accepts_fds",
        "buffer",
        "pointers",
        "receiver",
        "starts",
        "thread",
    )

    def __init__(
        self, thread: Thread, receiver: Process, buffer: Buffer, *, accepts_fds: bool
    ) -> None:
        self.thread = thread
        self.receiver = receiver
        self.buffer = buffer
        self.accepts_fds = accepts_fds
        self.starts: tuple[int, ...] = ()  # the objects' offsets in the data
        self.pointers = Pointers(buffer)
        self._table = b""  # of those offsets
        self._holes: list[tuple[int, int]] = []  # where in the data objects are: (start, bytes)
        self._objects: list[bytes] = []  # as they were read
        self._fault: Fault | None = None  # behind them
        self._index = 0  # of the object whose turn it is
        self._end = 0  # of the one before

    def begin(self, address: int, offsets_address: int) -> None:
        """Move the payload into the buffer, all but the objects.

        Args:
            address: of the data, in the sender.
            offsets_address: of the array of u64 offsets of the objects, in the sender.

        Raises:
            BinderFailure: -EFAULT, -EINVAL or -ENOMEM (E2).
            NotYet: something of it has to be fetched first.
        """
        buffer, memory, arena = self.buffer, self.thread.memory, self.receiver.client.arena
        self._table = self._read_offsets(offsets_address)
        holes, fault = _holes(self.starts, buffer.data_size)
        objects = memory.scatter(address, buffer.data_size, arena, buffer.offset, holes)
        if objects is None:
            objects, fault = self._readable(address, holes, fault)
        if buffer.extra_size:
            memory.expect(_pieces(objects, buffer.extra_size))
        buffer.held = []
        self._holes, self._objects, self._fault = holes, objects, fault

    def go_on(self) -> bool:
        """Translate objects; returns False if others should have their turn before it goes on.

        Raises:
            BinderFailure: -EFAULT, -EINVAL, -EPERM, -EBADF or -ENOMEM (E2); the buffer then lists
                what was translated before, for the caller to release.
            NotYet: something has to be fetched, and then all begun anew.
        """
        buffer, arena = self.buffer, self.receiver.client.arena
        pace, objects = self.receiver.hub.pace, self._objects
        while self._index < len(objects):
            self._translate(self._index, objects[self._index])
            self._index += 1
            if self._index < len(objects) and pace():
                return False
        fault = self._fault
        if fault is not None:
            errno = EFAULT if fault.start < self._end else fault.errno
            raise BinderFailure(BR_FAILED_REPLY, -errno)
        if self._table:
            arena.write(buffer.offset + offsets_at(buffer.data_size), self._table)
            self._table = b""
        while self.pointers.copy_next(self.thread.memory, arena):
            if pace():
                return False
        return True

    def _translate(self, index: int, found: bytes) -> None:
        start, length = self._holes[index]
        if start < self._end:
            raise BinderFailure(BR_FAILED_REPLY, -EFAULT)
        kind = _unpack_word(found)[0]
        record = OBJECTS.get(kind)
        if record is not None and len(found) < record.size:
            found = b"".join(self._objects[index:])  # the next one begins inside it
        if record is None or len(found) < record.size:
            raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
        translated = _TRANSLATORS[kind](self, index, found)
        # The hole may be smaller than the object; compiled, a slice must not run backwards.
        rest = found[record.size : max(record.size, length)]
        self.receiver.client.arena.write(self.buffer.offset + start, translated + rest)
        self._end = start + record.size

    def _read_offsets(self, address: int) -> bytes:
        size = self.buffer.offsets_size
        table = self.thread.memory.read(address, size)
        if len(table) != size:
            raise BinderFailure(BR_FAILED_REPLY, -EFAULT)
        if size % _OFFSET_SIZE or self.buffer.extra_size % _OFFSET_SIZE:
            raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
        if size // _OFFSET_SIZE > self.receiver.hub.limits.objects_per_transaction:
            raise BinderFailure(BR_FAILED_REPLY, -ENOMEM)
        if size:
            self.receiver.take_objects(self.buffer, size // _OFFSET_SIZE)
        self.starts = Struct(f"={size // _OFFSET_SIZE}Q").unpack(table)
        return table

    def _readable(
        self, address: int, holes: list[tuple[int, int]], fault: Fault | None
    ) -> tuple[list[bytes], Fault]:
        """Return the objects up to where the data cannot be read, and what is wrong there.

        Data that cannot be read matters only once everything before it is in order.
        """
        size = self.buffer.data_size
        data = self.thread.memory.read(address, size)
        objects: list[bytes] = []
        for start, length in holes:
            if start > len(data):
                return objects, Fault(start, EFAULT)
            if min(start + OBJECT_SIZE_MAX, size) > len(data):
                return objects, Fault(start, EINVAL)
            objects.append(data[start : start + length])
        if fault is None or fault.start > len(data):
            fault = Fault(size, EFAULT)
        return objects, fault

    # One function for each type; all return the object as the receiver is to see it.

    def binder(self, index: int, found: bytes) -> bytes:
        """The sender's own object becomes a handle of the receiver (N2, N7, N10)."""
        kind, flags, ptr, cookie = flat_binder_object.unpack_from(found)
        strong = kind == BINDER_TYPE_BINDER
        node = self.thread.process.node_for(ptr, cookie, flags)
        try:
            ref = self.receiver.handles.increment_for_node(node, strong=strong, thread=self.thread)
        except BinderFailure:
            node.settle()
            raise
        self.buffer.hold(strong, ref.handle)
        kind = BINDER_TYPE_HANDLE if strong else BINDER_TYPE_WEAK_HANDLE
        return flat_binder_object.pack(kind, flags, ref.handle, 0)

    def handle(self, index: int, found: bytes) -> bytes:
        """A handle of the sender becomes one of the receiver, or comes home as its object (N9)."""
        kind, flags, binder, _ = flat_binder_object.unpack_from(found)
        strong = kind == BINDER_TYPE_HANDLE
        source = self.thread.process.handles.find(binder & _HANDLE_MASK, strong=strong)
        if source is None:
            raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
        node = source.node
        if node.process is self.receiver:
            node.acquire_local(strong=strong)
            self.buffer.hold(strong, node)
            kind = BINDER_TYPE_BINDER if strong else BINDER_TYPE_WEAK_BINDER
            return flat_binder_object.pack(kind, flags, node.ptr, node.cookie)
        ref = self.receiver.handles.increment_for_node(node, strong=strong, thread=None)
        self.buffer.hold(strong, ref.handle)
        return flat_binder_object.pack(kind, flags, ref.handle, 0)

    def fd(self, index: int, found: bytes) -> bytes:
        """A file of the sender; the receiver's number for it is known when it reads (O7)."""
        kind, flags, fd, cookie = binder_fd_object.unpack_from(found)
        where = self.starts[index] + binder_fd_object.offset_of("fd")
        self._take_file(fd, where, in_array=False)
        return binder_fd_object.pack(kind, flags, 0, cookie)

    def pointer(self, index: int, found: bytes) -> bytes:
        """A piece of the sender's memory, copied into the extra area (O3)."""
        fields = binder_buffer_object.read(found)
        where = self.pointers.add(index, self.starts[index], fields)
        return binder_buffer_object.pack(*fields[:2], where, *fields[3:])

    def fd_array(self, index: int, found: bytes) -> bytes:
        """Descriptors inside a piece of memory that was passed before (O6)."""
        fields = binder_fd_array_object.read(found)
        found_in = self.pointers.add_fd_array(index, fields)
        if found_in is not None:
            source, target = found_in
            size = _FD_SIZE * fields.num_fds
            if fields.num_fds > self.receiver.hub.limits.files_per_transaction:
                raise BinderFailure(BR_FAILED_REPLY, -ENOMEM)
            numbers = self.thread.memory.read(source, size)
            if len(numbers) != size:
                raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
            self.receiver.take_objects(self.buffer, fields.num_fds)  # closed when it is freed (O9)
            for position in range(0, size, _FD_SIZE):
                fd = _unpack_word(numbers, position)[0]
                self._take_file(fd, target + position, in_array=True)
        return found[: binder_fd_array_object.size]

    def _take_file(self, fd: int, offset: int, *, in_array: bool) -> None:
        """Look a descriptor up in the sender, which may close it right afterwards (O7)."""
        if not self.accepts_fds:
            raise BinderFailure(BR_FAILED_REPLY, -EPERM)
        sender, receiver = self.thread.process, self.receiver
        limits = receiver.hub.limits
        if (
            len(self.buffer.files) >= limits.files_per_transaction
            or receiver.files_queued >= limits.files_per_process
            or not sender.user.may_send_file(receiver.user)
        ):
            raise BinderFailure(BR_FAILED_REPLY, -ENOMEM)
        try:
            file = self.thread.memory.file(fd)
        except NoAnswer:
            raise BinderFailure(BR_FAILED_REPLY, -ENOMEM) from None
        if file is None:
            raise BinderFailure(BR_FAILED_REPLY, -EBADF)
        self.buffer.hold_file(Passed(offset, file, in_array), sender)
        sender.user.send_file(receiver.user)
        receiver.files_queued += 1
        receiver.hub.stats.files += 1


_TRANSLATORS: Final[dict[int, Callable[[Translation, int, bytes], bytes]]] = {
    BINDER_TYPE_BINDER: Translation.binder,
    BINDER_TYPE_WEAK_BINDER: Translation.binder,
    BINDER_TYPE_HANDLE: Translation.handle,
    BINDER_TYPE_WEAK_HANDLE: Translation.handle,
    BINDER_TYPE_FD: Translation.fd,
    BINDER_TYPE_FDA: Translation.fd_array,
    BINDER_TYPE_PTR: Translation.pointer,
}


def _pieces(objects: list[bytes], room: int) -> list[tuple[int, int]]:
    """Return where the pieces of memory are that are passed, (address, bytes), as far as it goes.

    Nothing is said about whether they are in order.
    """
    pieces: list[tuple[int, int]] = []
    for found in objects:
        if len(found) < binder_buffer_object.size or _unpack_word(found)[0] != BINDER_TYPE_PTR:
            continue
        _, _, address, length, _, _ = binder_buffer_object.unpack_from(found)
        if length > room:
            break
        room -= length
        if length:
            pieces.append((address, length))
    return pieces


def _holes(starts: tuple[int, ...], data_size: int) -> tuple[list[tuple[int, int]], Fault | None]:
    """Return where the objects lie, each with as many bytes as the largest object could have.

    They end before the first offset that is not 4-aligned, too close to the end (O1: EINVAL), not
    increasing or outside the data (EFAULT: the driver notices these two when it copies the bytes
    up to the object).
    """
    holes: list[tuple[int, int]] = []
    end = 0
    for start in starts:
        if start < end or start > data_size:
            return holes, Fault(start, EFAULT)
        size = min(OBJECT_SIZE_MAX, data_size - start)
        if size < _HEADER_SIZE or start % _HEADER_SIZE:
            return holes, Fault(start, EINVAL)
        if holes:
            before, length = holes[-1]
            holes[-1] = (before, min(length, start - before))
        holes.append((start, size))
        end = start + _HEADER_SIZE
    return holes, None
