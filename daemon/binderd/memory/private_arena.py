# SPDX-License-Identifier: Apache-2.0
"""The receive buffer of an open file whose pages the kernel cannot share with us.

The client maps the device file privately and sees zeros: of one file that all such clients have in
common, or what we answer its kernel's page cache with. What is delivered is first put together in
pages of ours (those of ``MemfdArena``), and when the client reads the transaction it is written
into its mapping, through the /proc/PID/mem of the program that opened the file. Like a debugger's,
that write gives a private mapping a page of its own, also if it is read-only.

Such a page can be written to at once. A page that is not present, or is the file's still, must
first be made, and the page fault may ask a file system, which may be ours, or the handler of the
client's page faults. So a worker writes it. Where the kernel would ask our own file system, workers
make all writes: what was seen of a client's pages may be wrong by the time of the write, and the
daemon would wait for itself.

Right before each write, daemon or worker check that a private mapping of the very file is there. If
the client maps something else there in between, its own memory is written to, and nothing else: a
write of this kind never reaches a file, and shared memory only if the client could write to it.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Final

from binderd.edge.calls import store_over
from binderd.edge.plain import pack_file
from binderd.engine.ports import Mapping, NoAnswer, NotYet
from binderd.heartbeat import enter
from binderd.linux.maps import Long, is_own_copy
from binderd.memory.memfd_arena import MemfdArena
from binderd.memory.presence import OwnPages
from binderd.memory.remote_access import Storing

if TYPE_CHECKING:
    from binderd.linux.maps import FileId
    from binderd.memory.client_process import AddressSpace
    from binderd.memory.shrinker import Shrinker

_enter: Final = enter
_store_over: Final = store_over

_log: Final = logging.getLogger("binderd")

_NO_MAPPING: Final = "is no private mapping of the device any more, or cannot be written to"
_LATE: Final = "blocks writes to it"
_PIECES_MAX: Final = 16  # of a mapping that we look at ourselves
_SECONDS_BETWEEN_LINES: Final = 10.0


class _Lines:
    """When the latest line was logged; clients can make as many as they like."""

    __slots__ = ("_latest",)

    def __init__(self) -> None:
        self._latest = -_SECONDS_BETWEEN_LINES

    def is_due(self) -> bool:
        """Whether another may be logged now."""
        now = time.monotonic()
        if now - self._latest < _SECONDS_BETWEEN_LINES:
            return False
        self._latest = now
        return True


_LINES: Final = _Lines()  # the daemon's


class PrivateArena(MemfdArena):
    """The pages of one open file (the port ``ReceiverArena``); what is not said here is inherited.

    Until ``locate`` finds them mapped it may still turn out that the client has mapped our pages
    themselves, which it was handed over: then nothing has to be brought.

    Args:
        space, shrinker: as ``MemfdArena`` has them.
        file: the device file's inode.
        asks_us: would the kernel ask us what is in a page of that file?
    """

    __slots__ = ("_asks_us", "_begun", "_own", "_packed", "file")

    def __init__(
        self, space: AddressSpace, file: FileId, shrinker: Shrinker, *, asks_us: bool
    ) -> None:
        super().__init__(space, file, shrinker)
        self.file = file
        self._packed: bytes = pack_file(file.inode, file.major, file.minor)
        self.is_beside = True
        self._asks_us = asks_us
        self._own = OwnPages()
        self._begun: dict[int, Storing] = {}  # what ``bring`` has begun, by offset

    @property
    def there(self) -> tuple[int, int]:
        """See ``remote_access.Pages``."""
        return self.space.memory, self.space.maps

    def locate(self) -> Mapping | None:
        mapping = super().locate()
        if mapping is None or self._file != self.file:
            return mapping
        if self._is_trusted() and not self._is_private_at(mapping.address):
            self._give_up(_NO_MAPPING)
            return None
        self.is_private = True
        return mapping

    def _is_private_at(self, address: int) -> bool:
        enter(self.space.subject)
        try:
            return is_own_copy(self.space.maps, self.file, address, address + 1, 1)
        except OSError as error:
            raise NoAnswer from error

    def bring(self, offset: int, size: int) -> bool:
        if self._begun:
            over = self._begun.pop(offset, None)
            if over is not None and over.is_over:
                return self._outcome(over)
        address = self.mapped_at + offset
        _enter(self.space.subject)
        if self._may_write(address, size):
            return self._store(address, offset, size) or self._give_up(_NO_MAPPING)
        assert self._workers is not None
        begun = Storing(
            self._workers, self._payer, self._pid, self, address, self._base + offset, size
        )
        self._begun[offset] = begun
        raise NotYet(begun)

    def forget(self, offset: int) -> None:
        self._begun.pop(offset, None)

    def close(self) -> None:
        self._begun.clear()
        super().close()

    def _may_write(self, address: int, size: int) -> bool:
        """Whether the daemon may write itself, as that cannot block."""
        if self._workers is None:
            return True
        if self._asks_us or not self._is_trusted() or self.space.memory < 0:
            return False
        return self._own.have(self._place, address, size)

    def _store(self, address: int, offset: int, size: int) -> bool:
        """Write from our pages into the client's, if those are there."""
        maps, memory = self.space.maps, self.space.memory
        if _store_over(maps, memory, self._packed, address, size, self.address + offset):
            return True
        start = self._base + offset
        try:
            if not is_own_copy(maps, self.file, address, address + size, _PIECES_MAX):
                return False
            return os.pwrite(memory, self._pages[start : start + size], address) == size
        except (Long, OSError):
            return False

    def _outcome(self, storing: Storing) -> bool:
        if storing.is_done:
            return True
        if storing.is_refused:
            return self._give_up(_NO_MAPPING)
        if storing.is_late:
            return self._give_up(_LATE)
        raise NoAnswer

    def _give_up(self, why: str) -> bool:
        if _LINES.is_due():
            _log.info("process %d receives nothing any more: its receive area %s", self._pid, why)
        return False
