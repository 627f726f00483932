# SPDX-License-Identifier: Apache-2.0
"""Objects in a payload: what binders, handles, files and pointers mean to the receiver.

The bytes of each object are read from the sender exactly once, into the daemon (``objects.py``),
and are validated and translated there; only the result is written to the receiver, which may be
writing to its pages all the while (O2).

A table gives each object type the function that translates it. What pointers need, the copies into
the extra area and the fix-ups in them, is next door in ``scatter.py``.

Mirrors the object loop of binder_transaction and the binder_translate_ functions.
"""

from __future__ import annotations

from errno import EBADF, EFAULT, EINVAL, ENOMEM, EPERM
from struct import Struct
from typing import TYPE_CHECKING, Final

from binderd.engine.buffers import FdFixup
from binderd.engine.errors import BinderFailure
from binderd.engine.objects import Objects
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

_OFFSET_SIZE: Final = 8
_FD_SIZE: Final = 4
_HANDLE_MASK: Final = 0xFFFFFFFF
_unpack_word: Final = Struct("=I").unpack_from


class Translation:
    """The objects of one payload on their way.

    Args:
        thread: the sender's.
        address: of the data, in the sender.
        offsets_address: of the array of u64 offsets of the objects, in the sender.
        accepts_fds: whether the receiver takes descriptors (O7).

    Raises:
        BinderFailure: -EFAULT, -EINVAL or -ENOMEM (E2): of the offsets.
        NotYet: something has to be fetched first.
    """

    __slots__ = (
        "_end",
        "_index",
        "_is_read",
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
        self,
        thread: Thread,
        receiver: Process,
        buffer: Buffer,
        address: int,
        offsets_address: int,
        *,
        accepts_fds: bool,
    ) -> None:
        self.thread = thread
        self.receiver = receiver
        self.buffer = buffer
        self.accepts_fds = accepts_fds
        self._table = self._read_offsets(offsets_address)
        # The objects' offsets in the data.
        self.starts: tuple[int, ...] = Struct(f"={len(self._table) // _OFFSET_SIZE}Q").unpack(
            self._table
        )
        self.pointers = Pointers(buffer)
        self._objects = Objects(buffer, address, self.starts)
        self._objects.expect(thread.memory)
        self._is_read = False  # are all objects here?
        self._index = 0  # of the object whose turn it is
        self._end = 0  # of the one before
        buffer.held = []

    def go_on(self) -> bool:
        """Move the payload into the buffer; returns False if others should have their turn before.

        Raises:
            BinderFailure: -EFAULT, -EINVAL, -EPERM, -EBADF or -ENOMEM (E2); the buffer then lists
                what was translated before, for the caller to release.
            NotYet: something has to be fetched, and then all begun anew.
        """
        buffer, arena, memory = self.buffer, self.receiver.client.arena, self.thread.memory
        pace, objects = self.receiver.hub.pace, self._objects
        if not self._is_read:
            while objects.read_next(memory, arena):
                if pace():
                    return False
            memory.expect(objects.missing)
            self._is_read = True
        octets = objects.octets
        while self._index < len(octets):
            self._translate(self._index, octets[self._index])
            self._index += 1
            if self._index < len(octets) and pace():
                return False
        fault = objects.fault
        if fault is not None:
            errno = EFAULT if fault.start < self._end else fault.errno
            raise BinderFailure(BR_FAILED_REPLY, -errno)
        if self._table:
            arena.write(buffer.offset + offsets_at(buffer.data_size), self._table)
            self._table = b""
        while self.pointers.copy_next(memory, arena):
            if pace():
                return False
        return True

    def let_go(self) -> bool:
        """It has failed: let go of what was kept; returns as ``go_on``."""
        pace = self.receiver.hub.pace
        while self._objects.let_go() or self.pointers.let_go():
            if pace():
                return False
        return True

    def _translate(self, index: int, octets: bytes) -> None:
        start, length = self.starts[index], len(octets)
        if start < self._end:
            raise BinderFailure(BR_FAILED_REPLY, -EFAULT)
        kind = _unpack_word(octets)[0]
        record = OBJECTS.get(kind)
        if record is not None and len(octets) < record.size:
            rest = [*self._objects.octets[index:], self._objects.tail]
            octets = b"".join(rest)  # the next one begins inside it
        if record is None or len(octets) < record.size:
            raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
        translated = _TRANSLATORS[kind](self, index, octets)
        # The next one may begin inside it; compiled, a slice must not run backwards.
        translated += octets[record.size : max(record.size, length)]
        self.receiver.client.arena.write(self.buffer.offset + start, translated)
        self._objects.octets[index] = b""  # thousands are not to go in one step
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
        return table

    # One function for each type; all return the object as the receiver is to see it.

    def binder(self, index: int, octets: bytes) -> bytes:
        """The sender's own object becomes a handle of the receiver (N2, N7, N10)."""
        kind, flags, ptr, cookie = flat_binder_object.unpack_from(octets)
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

    def handle(self, index: int, octets: bytes) -> bytes:
        """A handle of the sender becomes one of the receiver, or comes home as its object (N9)."""
        kind, flags, binder, _ = flat_binder_object.unpack_from(octets)
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

    def fd(self, index: int, octets: bytes) -> bytes:
        """A file of the sender; the receiver's number for it is known when it reads (O7)."""
        kind, flags, fd, cookie = binder_fd_object.unpack_from(octets)
        where = self.starts[index] + binder_fd_object.offset_of("fd")
        self._take_file(fd, where, in_array=False)
        return binder_fd_object.pack(kind, flags, 0, cookie)

    def pointer(self, index: int, octets: bytes) -> bytes:
        """A piece of the sender's memory, copied into the extra area (O3)."""
        fields = binder_buffer_object.read(octets)
        where = self.pointers.add(index, self.starts[index], fields)
        return binder_buffer_object.pack(*fields[:2], where, *fields[3:])

    def fd_array(self, index: int, octets: bytes) -> bytes:
        """Descriptors inside a piece of memory that was passed before (O6)."""
        fields = binder_fd_array_object.read(octets)
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
        return octets[: binder_fd_array_object.size]

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
        self.buffer.hold_file(FdFixup(offset, file, in_array), sender)
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
