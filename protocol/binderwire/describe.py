# SPDX-License-Identifier: Apache-2.0
"""One readable line for any frame, from the tables of the ABI modules.

For debug logs and for test differences.  Never fails: what cannot be read is shown as hex.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from binderwire import fuse_abi as fuse
from binderwire.binder_abi import COMMANDS, IOCTLS, OBJECTS, RETURNS, Message
from binderwire.commands import StreamError, read_stream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from binderwire.codec import Record

_BODIES: dict[int, Record] = {
    fuse.FUSE_INIT: fuse.fuse_init_in,
    fuse.FUSE_OPEN: fuse.fuse_open_in,
    fuse.FUSE_OPENDIR: fuse.fuse_open_in,
    fuse.FUSE_RELEASE: fuse.fuse_release_in,
    fuse.FUSE_RELEASEDIR: fuse.fuse_release_in,
    fuse.FUSE_FLUSH: fuse.fuse_flush_in,
    fuse.FUSE_READDIR: fuse.fuse_read_in,
    fuse.FUSE_IOCTL: fuse.fuse_ioctl_in,
    fuse.FUSE_POLL: fuse.fuse_poll_in,
    fuse.FUSE_INTERRUPT: fuse.fuse_interrupt_in,
    fuse.FUSE_FORGET: fuse.fuse_forget_in,
    fuse.FUSE_BATCH_FORGET: fuse.fuse_batch_forget_in,
    fuse.FUSE_SETATTR: fuse.fuse_setattr_in,
    fuse.FUSE_RENAME: fuse.fuse_rename_in,
    fuse.FUSE_RENAME2: fuse.fuse_rename2_in,
    fuse.CUSE_INIT: fuse.cuse_init_in,
}


def describe_commands(data: bytes) -> str:
    """Return a client's BC_ stream as text, messages separated by ``, ``."""
    return _describe_stream(COMMANDS, data)


def describe_returns(data: bytes) -> str:
    """Return a driver's BR_ stream as text, messages separated by ``, ``."""
    return _describe_stream(RETURNS, data)


def describe_ioctl(request: int, argument: bytes = b"") -> str:
    """Return an ioctl's name and argument as text."""
    row = IOCTLS.get(request)
    if row is None:
        return f"ioctl {request:#x} {argument.hex()}".rstrip()
    if row.payload is None or len(argument) < row.payload.size:
        return row.name
    return f"{row.name} {row.payload.describe(argument)}"


def describe_objects(data: bytes, offsets: Sequence[int]) -> str:
    """Return the objects of a payload as text, each behind its offset in bytes."""
    shown = []
    for offset in offsets:
        word = int.from_bytes(data[offset : offset + 4], "little")
        record = OBJECTS.get(word)
        if record is None or offset + record.size > len(data):
            shown.append(f"{offset}: not an object")
        else:
            shown.append(f"{offset}: {record.describe(data, offset)}")
    return ", ".join(shown)


def describe_request(frame: bytes) -> str:
    """Return a FUSE request as ``rx UNIQUE: OPCODE nNODE pPID {body}``."""
    try:
        header = fuse.fuse_in_header.read(frame)
    except struct.error:
        return f"rx: cut short {frame.hex()}"
    name = fuse.OPCODES.get(header.opcode, f"opcode {header.opcode}").removeprefix("FUSE_")
    text = f"rx {header.unique}: {name} n{header.nodeid} p{header.pid}"
    offset = fuse.fuse_in_header.size
    record = _BODIES.get(header.opcode)
    if record is None or len(frame) < offset + record.size:
        return f"{text} {frame[offset:].hex()}".rstrip()
    text = f"{text} {record.describe(frame, offset)}"
    if header.opcode == fuse.FUSE_IOCTL:
        body = record.read(frame, offset)
        text = f"{text} {describe_ioctl(body.cmd, frame[offset + record.size :])}"
    return text


def describe_reply(frame: bytes) -> str:
    """Return a FUSE reply or notification as ``tx UNIQUE: result``."""
    try:
        header = fuse.fuse_out_header.read(frame)
    except struct.error:
        return f"tx: cut short {frame.hex()}"
    body = frame[fuse.fuse_out_header.size :]
    if header.unique == 0:
        return f"tx notify {header.error}: {body.hex()}"
    outcome = "OK" if header.error == 0 else f"errno {-header.error}"
    return f"tx {header.unique}: {outcome} {body.hex()}".rstrip()


def _describe_stream(table: Mapping[int, Message], data: bytes) -> str:
    shown = []
    position = 0
    try:
        for item in read_stream(table, data):
            payload = item.message.payload
            size = payload.size if payload else 0
            position = item.offset + 4 + size
            text = item.message.name
            shown.append(f"{text} {payload.describe(data, item.offset + 4)}" if payload else text)
    except StreamError as error:
        shown.append(f"<{error}: {data[position:].hex()}>")
    return ", ".join(shown)
