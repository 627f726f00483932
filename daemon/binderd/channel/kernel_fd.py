# SPDX-License-Identifier: Apache-2.0
"""A kernel channel: a descriptor on which each read is one request and each write one reply.

Rules of the file: no protocol knowledge, and -1 once closed, so that a reused number is never hit.
"""

from __future__ import annotations

import os
from errno import ECONNABORTED, ENODEV, ENOENT, ENOTCONN
from typing import Final

import trio

# Results of ``read`` that are no frame size.
WOULD_BLOCK: Final = -1
ENDED: Final = 0

# What a read can fail with besides EAGAIN (nothing to do) and EINTR (Python tries again by itself):
#   ENOENT        the request was given up while it was being copied to us: as if it had never been
#   ENODEV        the file system was unmounted: the end
#   ECONNABORTED  somebody aborted the connection (umount -f, or through sysfs): the end
_ENDS: Final = frozenset({ENODEV, ECONNABORTED})

# What a write can fail with because nobody waits for that reply any more:
#   ENOENT            the request was given up
#   ENODEV, ENOTCONN, ECONNABORTED  the connection has ended; the next read says so
_NOBODY_WAITS: Final = frozenset({ENOENT, ENODEV, ENOTCONN, ECONNABORTED})


class KernelFd:
    """The channel's descriptor and the one buffer that every request is read into.

    Args:
        fd: owned from now on; made non-blocking.
        buffer_size: bytes; the largest request that gets through.
    """

    __slots__ = ("_buffers", "_fd", "buffer")

    def __init__(self, fd: int, buffer_size: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self.buffer = bytearray(buffer_size)
        self._buffers = [self.buffer]  # made once, for readv

    def fileno(self) -> int:
        """Return the descriptor, -1 once closed."""
        return self._fd

    def read(self) -> int:
        """Read the next request into ``buffer``; never waits.

        Returns:
            Its size in bytes, WOULD_BLOCK, or ENDED when there will be no more.
        """
        while True:
            try:
                return os.readv(self._fd, self._buffers)
            except BlockingIOError:
                return WOULD_BLOCK
            except OSError as error:
                if error.errno in _ENDS:
                    return ENDED
                if error.errno != ENOENT:
                    raise

    def write(self, frame: bytes) -> None:
        """Write one frame; it goes out whole or, where nobody waits for it any more, not at all.

        Raises:
            OSError: the kernel does not understand the frame.
        """
        try:
            os.write(self._fd, frame)
        except OSError as error:
            if error.errno not in _NOBODY_WAITS:
                raise

    async def wait(self) -> None:
        """Wait until there is something to read; always a checkpoint.

        Raises:
            trio.ClosedResourceError: ``close`` was called, before or meanwhile.
        """
        if self._fd < 0:
            raise trio.ClosedResourceError("the kernel channel is closed")
        await trio.lowlevel.wait_readable(self._fd)

    def close(self) -> None:
        """Close the channel and wake whoever waits for it; a second call does nothing."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            trio.lowlevel.notify_closing(fd)
            os.close(fd)
