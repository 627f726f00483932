# SPDX-License-Identifier: Apache-2.0
"""BC_ commands and payload objects for scenarios, one short function each.

A transaction points to memory of its sender, which only the sender's process can provide: it is a
``Parcel`` until it is written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from binderwire import binder_abi as abi
from binderwire.commands import StreamError, message, read_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Parcel:
    """A BC_TRANSACTION or BC_REPLY (or its _SG form) whose bytes are not placed yet."""

    word: int
    data: bytes = b""
    offsets: tuple[int, ...] = ()
    fields: dict[str, int] = field(default_factory=dict)  # of the wire structure; win over the rest

    def place(self, put: Callable[[bytes], int]) -> bytes:
        """Return the command's bytes after putting payload and offsets into the sender."""
        offsets = b"".join(offset.to_bytes(8, "little") for offset in self.offsets)
        values = {
            "data_size": len(self.data),
            "offsets_size": len(offsets),
            "buffer": put(self.data) if self.data else 0,
            "offsets": put(offsets) if offsets else 0,
        }
        return message(abi.COMMANDS, self.word, **{**values, **self.fields})


Command = bytes | Parcel
Payload = bytes | tuple[bytes, tuple[int, ...]]


def payload(*parts: bytes, at: Sequence[int] | None = None) -> tuple[bytes, tuple[int, ...]]:
    """Return (data, offsets) of the parts in a row; every flat object among them gets an offset.

    Args:
        at: these offsets instead.
    """
    data, found = b"", []
    for part in parts:
        if len(part) >= 4 and int.from_bytes(part[:4], "little") in abi.OBJECTS:
            found.append(len(data))
        data += part
    return data, tuple(found if at is None else at)


def _parcel(word: int, content: Payload, fields: dict[str, int]) -> Parcel:
    data, offsets = (content, ()) if isinstance(content, bytes) else content
    return Parcel(word, data, offsets, fields)


def call(target: int, content: Payload = b"", **fields: int) -> Parcel:
    return _parcel(abi.BC_TRANSACTION, content, {"target": target, **fields})


def oneway(target: int, content: Payload = b"", **fields: int) -> Parcel:
    flags = fields.pop("flags", 0) | abi.TF_ONE_WAY
    return call(target, content, flags=flags, **fields)


def reply(content: Payload = b"", **fields: int) -> Parcel:
    return _parcel(abi.BC_REPLY, content, dict(fields))


def call_sg(target: int, content: Payload = b"", *, buffers_size: int, **fields: int) -> Parcel:
    values = {"target": target, "buffers_size": buffers_size, **fields}
    return _parcel(abi.BC_TRANSACTION_SG, content, values)


def oneway_sg(target: int, content: Payload = b"", *, buffers_size: int, **fields: int) -> Parcel:
    flags = fields.pop("flags", 0) | abi.TF_ONE_WAY
    return call_sg(target, content, buffers_size=buffers_size, flags=flags, **fields)


def reply_sg(content: Payload = b"", *, buffers_size: int, **fields: int) -> Parcel:
    return _parcel(abi.BC_REPLY_SG, content, {"buffers_size": buffers_size, **fields})


def _flat(type_word: int, value: int, cookie: int, flags: int) -> bytes:
    return abi.flat_binder_object.build(type=type_word, flags=flags, binder=value, cookie=cookie)


def binder(ptr: int, cookie: int = 0, flags: int = 0) -> bytes:
    return _flat(abi.BINDER_TYPE_BINDER, ptr, cookie, flags)


def weak_binder(ptr: int, cookie: int = 0, flags: int = 0) -> bytes:
    return _flat(abi.BINDER_TYPE_WEAK_BINDER, ptr, cookie, flags)


def handle(number: int, cookie: int = 0, flags: int = 0) -> bytes:
    return _flat(abi.BINDER_TYPE_HANDLE, number, cookie, flags)


def weak_handle(number: int, cookie: int = 0, flags: int = 0) -> bytes:
    return _flat(abi.BINDER_TYPE_WEAK_HANDLE, number, cookie, flags)


def fd(number: int, cookie: int = 0, flags: int = 0) -> bytes:
    return abi.binder_fd_object.build(
        type=abi.BINDER_TYPE_FD, pad_flags=flags, fd=number, cookie=cookie
    )


def ptr(
    address: int, length: int, *, parent: int | None = None, parent_offset: int = 0, flags: int = 0
) -> bytes:
    """A piece of memory; with a parent, its address also belongs into that one's copy."""
    if parent is not None:
        flags |= abi.BINDER_BUFFER_FLAG_HAS_PARENT
    return abi.binder_buffer_object.build(
        type=abi.BINDER_TYPE_PTR,
        flags=flags,
        buffer=address,
        length=length,
        parent=parent or 0,
        parent_offset=parent_offset,
    )


def fd_array(count: int, *, parent: int, parent_offset: int = 0) -> bytes:
    return abi.binder_fd_array_object.build(
        type=abi.BINDER_TYPE_FDA, num_fds=count, parent=parent, parent_offset=parent_offset
    )


def names(stream: bytes) -> set[str]:
    """Return the names of the commands in a stream, up to the first that is none."""
    found: set[str] = set()
    try:
        for item in read_stream(abi.COMMANDS, stream):
            found.add(item.message.name)
    except StreamError:
        pass
    return found


def _command(word: int, **fields: int) -> bytes:
    return message(abi.COMMANDS, word, **fields)


def free(address: int) -> bytes:
    return _command(abi.BC_FREE_BUFFER, value=address)


def increfs(number: int) -> bytes:
    return _command(abi.BC_INCREFS, value=number)


def acquire(number: int) -> bytes:
    return _command(abi.BC_ACQUIRE, value=number)


def release(number: int) -> bytes:
    return _command(abi.BC_RELEASE, value=number)


def decrefs(number: int) -> bytes:
    return _command(abi.BC_DECREFS, value=number)


def increfs_done(ptr: int, cookie: int = 0) -> bytes:
    return _command(abi.BC_INCREFS_DONE, ptr=ptr, cookie=cookie)


def acquire_done(ptr: int, cookie: int = 0) -> bytes:
    return _command(abi.BC_ACQUIRE_DONE, ptr=ptr, cookie=cookie)


def enter_looper() -> bytes:
    return _command(abi.BC_ENTER_LOOPER)


def register_looper() -> bytes:
    return _command(abi.BC_REGISTER_LOOPER)


def exit_looper() -> bytes:
    return _command(abi.BC_EXIT_LOOPER)


def request_death(number: int, cookie: int) -> bytes:
    return _command(abi.BC_REQUEST_DEATH_NOTIFICATION, handle=number, cookie=cookie)


def clear_death(number: int, cookie: int) -> bytes:
    return _command(abi.BC_CLEAR_DEATH_NOTIFICATION, handle=number, cookie=cookie)


def dead_binder_done(cookie: int) -> bytes:
    return _command(abi.BC_DEAD_BINDER_DONE, value=cookie)


def request_freeze_notice(number: int, cookie: int) -> bytes:
    return _command(abi.BC_REQUEST_FREEZE_NOTIFICATION, handle=number, cookie=cookie)


def clear_freeze_notice(number: int, cookie: int) -> bytes:
    return _command(abi.BC_CLEAR_FREEZE_NOTIFICATION, handle=number, cookie=cookie)


def freeze_notice_done(cookie: int) -> bytes:
    return _command(abi.BC_FREEZE_NOTIFICATION_DONE, value=cookie)
