# SPDX-License-Identifier: Apache-2.0
"""The ioctls that are binderd's own (docs/EXTENSION.md); the engine never sees them.

Nothing here may know sockets, memory mappings or the engine: what they do to an open file is behind
the port ``ExtensionClient``.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL
from typing import TYPE_CHECKING, Final, Protocol

from binderd.engine.limits import MAPPING_SIZE_MAX
from binderwire.extension_abi import (
    BINDERD_ATTACH,
    BINDERD_ATTACH_AREA,
    BINDERD_ATTACH_FILES,
    BINDERD_FLUSH,
    BINDERD_GET_INFO,
    BINDERD_HAS_MMAP,
    BINDERD_INJECTS,
    BINDERD_VERSION,
    binderd_attach,
    binderd_info,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_ATTACH_FLAGS: Final = BINDERD_ATTACH_AREA | BINDERD_ATTACH_FILES


class ExtensionClient(Protocol):
    """What the extension needs of an open file."""

    __slots__ = ()

    has_mmap: bool  # does an mmap of the device show the very pages that we deliver into?

    @property
    def injects(self) -> bool:
        """Whether processes that do not attach get descriptors as well, by ptrace."""

    def attach(self, tid: int, fd: int, flags: int) -> int:
        """Take the socket ``fd`` of thread ``tid``, whose request is open; return 0 or an errno."""


def _get_info(client: ExtensionClient, tid: int, argument: bytes) -> tuple[int, bytes]:
    flags = BINDERD_HAS_MMAP if client.has_mmap else 0
    if client.injects:
        flags |= BINDERD_INJECTS
    return 0, binderd_info.pack(BINDERD_VERSION, flags, MAPPING_SIZE_MAX)


def _attach(client: ExtensionClient, tid: int, argument: bytes) -> tuple[int, bytes]:
    if len(argument) < binderd_attach.size:
        return -EFAULT, b""
    socket, flags = binderd_attach.unpack_from(argument)
    if not flags or flags & ~_ATTACH_FLAGS:
        return -EINVAL, b""
    return -client.attach(tid, socket, flags), b""


def _nothing(client: ExtensionClient, tid: int, argument: bytes) -> tuple[int, bytes]:
    """BINDERD_FLUSH: what there is to do is done by the device."""
    return 0, b""


# Whatever has no row goes to the engine.
EXTENSION: Final[dict[int, Callable[[ExtensionClient, int, bytes], tuple[int, bytes]]]] = {
    BINDERD_GET_INFO: _get_info,
    BINDERD_ATTACH: _attach,
    BINDERD_FLUSH: _nothing,
}


def extension_ioctl(
    client: ExtensionClient, tid: int, request: int, argument: bytes
) -> tuple[int, bytes]:
    """Carry out an ioctl that has a row in ``EXTENSION``.

    Args:
        tid: the calling thread, in the daemon's pid namespace.
        argument: as the client passed it; shorter if it could not be read.

    Returns:
        0 or a negative errno, and what goes back to the client.
    """
    return EXTENSION[request](client, tid, argument)
