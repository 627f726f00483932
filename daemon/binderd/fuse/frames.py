# SPDX-License-Identifier: Apache-2.0
"""The frames that go back to the kernel, and the joined records of the request path.

An ioctl is unpacked and packed with one call each, so the records that lie behind one another
in its frames are joined here. Nothing here may know what a request means.
"""

from __future__ import annotations

from typing import Final

from binderwire.binder_abi import binder_write_read
from binderwire.codec import Record, Struct, pad, raw, u64
from binderwire.fuse_abi import (
    FUSE_NOTIFY_POLL,
    fuse_in_header,
    fuse_ioctl_in,
    fuse_ioctl_out,
    fuse_notify_poll_wakeup_out,
    fuse_out_header,
)

# Where a request's body starts, in bytes from the start of its frame.
BODY: Final[int] = fuse_in_header.size

# The size of the argument that almost every ioctl carries; the joined records include it.
USUAL_ARGUMENT_SIZE: Final[int] = binder_write_read.size

# The body of whatever concerns an open file begins with its handle.
request_head: Final = Record(
    "request_head", Struct(*fuse_in_header.declaration.subcons, "handle" / u64)
)
ioctl_request: Final = Record(
    "ioctl_request",
    Struct(*fuse_ioctl_in.declaration.subcons, "argument" / raw(USUAL_ARGUMENT_SIZE)),
)
_IOCTL_REPLY: Final = (*fuse_out_header.declaration.subcons, *fuse_ioctl_out.declaration.subcons)
ioctl_reply_head: Final = Record("ioctl_reply_head", Struct(*_IOCTL_REPLY))
# What is always 0 in a usual reply has no name here.
ioctl_reply: Final = Record(
    "ioctl_reply",
    Struct(
        *(
            part if part.name in ("len", "unique", "result") else pad(part.sizeof())
            for part in _IOCTL_REPLY
        ),
        "payload" / raw(USUAL_ARGUMENT_SIZE),
    ),
)

_pack_header: Final = fuse_out_header.pack
_HEADER_SIZE: Final = fuse_out_header.size


def success(unique: int, body: bytes) -> bytes:
    """Return the reply to request ``unique`` that carries ``body``."""
    return _pack_header(_HEADER_SIZE + len(body), 0, unique) + body


def failure(unique: int, errno: int) -> bytes:
    """Return the reply to request ``unique`` that ends it with ``errno`` (positive)."""
    return _pack_header(_HEADER_SIZE, -errno, unique)


def ioctl_result(unique: int, result: int, payload: bytes) -> bytes:
    """Return the reply to an ioctl of any argument size.

    An errno goes into the body, because a frame with an errno in its header may carry no payload,
    and an interrupted BINDER_WRITE_READ must tell how much of it was consumed (R9).
    """
    length = ioctl_reply_head.size + len(payload)
    return ioctl_reply_head.pack(length, 0, unique, result, 0, 0, 0) + payload


def poll_wakeup(kernel_handle: int) -> bytes:
    """Return the notification that has the pollers of one open file look again."""
    body = fuse_notify_poll_wakeup_out.pack(kernel_handle)
    return _pack_header(_HEADER_SIZE + len(body), FUSE_NOTIFY_POLL, 0) + body
