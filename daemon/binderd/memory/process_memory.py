# SPDX-License-Identifier: Apache-2.0
"""Reading and writing the memory of a client thread (the port ``ClientMemory``).

Two ways lead there.  process_vm_readv and process_vm_writev honour page protections as the driver's
copy_from_user and copy_to_user do, and put a payload straight into the daemon's mapping of the
receiver's pages: the only way without an intermediate copy.  pread and pwrite on an open
/proc/PID/mem take half the time for the few bytes of a command stream, but override protections.
So a page is first used the honest way, which proves it, and the quick way from then on.

A thread cannot exec or be reaped while its request is open, so its thread id is safe to use. What
was proven was so of one program. With the program the descriptor goes, so the quick way notices an
exec by itself; whenever a page is proven we ask. The quick way is for threads of the process that
opened the file: only they share descriptors, and others may share memory with whom they like.

A thread that sends again and again has its payloads in one place as a rule. So where the latest two
came from the same one, what is there is read along with the next commands: one call instead of two,
of the honest way. If the payload is somewhere else after all, nothing has come of it.

Both are for memory that is present (``presence.py``). Accesses to other memory are left to workers
(``remote_access.py``): the engine gets ``NotYet``, and when the request goes on, what a worker has
read is taken in place of the memory.

Differs: a page that loses its protection after it was proven (mprotect) still works for command
streams, where the driver would answer EFAULT; the client could have lifted the protection itself.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from binderd.edge.calls import (
    copy_memory,
    nice_of,
    read_ahead,
    read_memory,
    take_ahead,
    write_memory,
)
from binderd.edge.plain import AHEAD_MAX
from binderd.engine.ports import ClientMemory, NotYet
from binderd.heartbeat import enter
from binderd.linux import process_vm
from binderd.memory.files import Disposal, TakenFile, take_file
from binderd.memory.identity import set_nice
from binderd.memory.memfd_arena import MemfdArena
from binderd.memory.presence import GENERATION, Presence, Trust
from binderd.memory.remote_access import Fetched, Reading, Writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from binderd.engine.ports import ReceiverArena, Share
    from binderd.memory.client_process import AddressSpace, ClientProcess
    from binderd.memory.remote_access import Workers

# Above this no user address can lie. No larger number is without an object in compiled code.
_ADDRESS_END: Final = (1 << 62) - 1

_SENDS_FROM: Final = 68  # bytes of commands; fewer name no payload
_IOV_MAX: Final = 1024  # parts per process_vm_readv, UIO_MAXIOV
_IOVEC_SIZE: Final = 16  # bytes: address and length
_SCRATCH_SIZE: Final = 64 << 10  # bytes; what is larger needs a buffer of its own
_PAGE_MASK: Final = -mmap.PAGESIZE
_RANGES_MAX: Final = 1024  # of one access
_SPAN_MAX: Final = 16 << 20  # bytes that are looked at for pieces that lie close to each other
_LOOKS_MAX: Final = 32  # at pieces that do not; others are left to workers without a look

# The pointers are made once, below, and no call moves more than a receive area.
_process_vm_readv: Final = process_vm.quick_readv
_process_vm_writev: Final = process_vm.quick_writev

# One buffer for every call's iovecs: the remote one first, then the local ones.
_iovecs: Final = bytearray(_IOVEC_SIZE * (1 + _IOV_MAX))
_REMOTE: Final = ctypes.addressof(ctypes.c_char.from_buffer(_iovecs))
_REMOTE_IOVEC: Final = ctypes.c_void_p(_REMOTE)
_LOCAL_IOVECS: Final = ctypes.c_void_p(_REMOTE + _IOVEC_SIZE)
_copy_memory: Final = copy_memory
_enter: Final = enter
_nice_of: Final = nice_of
_read_ahead: Final = read_ahead
_read_memory: Final = read_memory
_take_ahead: Final = take_ahead
_write_memory: Final = write_memory
_pack_iovec: Final = struct.Struct("=QQ").pack_into
_pack_two_iovecs: Final = struct.Struct("=QQQQ").pack_into

_scratch: Final = bytearray(_SCRATCH_SIZE)


class ProcessMemory(ClientMemory):
    """The memory of one thread.

    Args:
        pid: its process.
        tid: its number.
        opener: the process that opened the file if it is one of its threads, else None.
        home: the address space in which the opener has the receive area.
        disposal: closes what files are taken.
        workers: reach into memory that may keep us waiting; None: the daemon does.
        payer: the user that is charged for that.
        trust: the payer's, if it is not the opener's process.
        share: the payer's, of what is fetched.
    """

    __slots__ = (
        "_ahead",
        "_ahead_generation",
        "_ahead_size",
        "_disposal",
        "_fetched",
        "_has_ahead",
        "_home",
        "_opener",
        "_payer",
        "_presence",
        "_read_end",
        "_read_generation",
        "_read_start",
        "_space",
        "_tid",
        "_workers",
        "_write_end",
        "_write_generation",
        "_write_start",
        "is_openers",
        "is_settled",
        "pid",
        "sees_area",
    )

    def __init__(
        self,
        pid: int,
        tid: int,
        opener: ClientProcess | None,
        home: AddressSpace | None,
        disposal: Disposal,
        workers: Workers | None = None,
        payer: int = 0,
        trust: Trust | None = None,
        share: Share | None = None,
    ) -> None:
        self.pid = pid
        self.is_openers = opener is not None
        self._disposal = disposal
        self._tid = tid
        self._opener = opener
        self._home = home
        self._space: AddressSpace | None = None  # what was proven is proven of that
        self.sees_area = self.is_settled = False
        # The pages that command streams were last read from and written to: proven, see above.
        # Nothing lies there, not even what has no bytes.
        self._read_start = self._write_start = 0
        self._read_end = self._write_end = -1
        self._read_generation = self._write_generation = GENERATION.number
        # Where the latest payload was, and how large; 0: the next one may be anywhere.
        self._ahead = self._ahead_size = 0
        self._ahead_generation = -1  # in which that was seen to be present
        self._has_ahead = False  # was it read along with the current commands?
        self._workers = workers
        self._payer = payer
        # Others than the opener's threads may change the program that they run without our notice.
        self._presence = opener.presence if opener is not None else Presence(trust or Trust())
        self._fetched = Fetched(share)

    def read(self, address: int, size: int) -> bytes:
        """Return up to ``size`` bytes; fewer where the readable memory ends."""
        if (
            self._read_start <= address
            and address + size <= self._read_end
            and self._read_generation == GENERATION.number
        ):
            assert self._space is not None
            data = _read_memory(self._tid, self._space.memory, address, size)
            if len(data) == size:
                self.is_settled = True
                return data
        return self._prove_read(address, size)

    def read_commands(self, address: int, size: int) -> bytes:
        """Return what ``read`` does, and bring the next payload along if it is in its usual place.

        To see an exec is left to whatever proves pages, and to the write of what the thread reads:
        this way goes by the program that the thread has now.
        """
        self._has_ahead = False
        if (
            self._ahead_size
            and size >= _SENDS_FROM
            and self._read_start <= address
            and address + size <= self._read_end
            and self._read_generation == self._ahead_generation == GENERATION.number
        ):
            data = _read_ahead(self._tid, address, size, self._ahead, self._ahead_size)
            if len(data) == size:
                self._has_ahead = True
                return data
        return self.read(address, size)

    def write(self, address: int, data: bytes) -> bool:
        """Store all of ``data``; False if any byte could not be stored (EFAULT)."""
        size = len(data)
        if (
            self._write_start <= address
            and address + size <= self._write_end
            and self._write_generation == GENERATION.number
        ):
            assert self._space is not None
            if _write_memory(self._tid, self._space.memory, address, data):
                return True
        return self._prove_write(address, data)

    def copy(self, address: int, size: int, arena: ReceiverArena, offset: int) -> bool:
        """Copy ``size`` bytes straight into ``arena`` at ``offset``: the one copy."""
        target = _place(arena, offset, size)
        if not 0 <= address <= _ADDRESS_END - size:
            return False
        if self._has_ahead and self._fetched.is_empty:
            self._has_ahead = False
            if address == self._ahead and _take_ahead(self._tid, address, size, target):
                return True
        if self._workers is not None and not self._may_read(address, size):
            octets = self._what_was_fetched(address, size)
            arena.write(offset, octets)
            return len(octets) == size
        self._expect_again(address, size)
        return _copy_memory(self._tid, address, size, target)

    def _expect_again(self, address: int, size: int) -> None:
        """A payload, which is present, is about to be copied: is the next one there as well?"""
        is_usual = address == self._ahead and size <= AHEAD_MAX and self.is_openers
        self._ahead = address
        self._ahead_size = size if is_usual else 0
        self._ahead_generation = GENERATION.number

    def scatter(
        self,
        address: int,
        size: int,
        arena: ReceiverArena,
        offset: int,
        holes: Sequence[tuple[int, int]],
    ) -> list[bytes] | None:
        """Copy like ``copy``, but keep the bytes of ``holes`` away from the receiver."""
        target = _place(arena, offset, size)
        if not 0 <= address <= _ADDRESS_END - size:
            return None
        if self._workers is not None and not self._may_read(address, size):
            octets = self._what_was_fetched(address, size)
            return spread(octets, size, holes, arena, offset)
        kept_size = sum(length for _, length in holes)
        kept = _scratch if kept_size <= _SCRATCH_SIZE else bytearray(kept_size)
        kept_address = ctypes.addressof(ctypes.c_char.from_buffer(kept)) if kept_size else 0
        count = total = 0
        for part_address, part_size in _parts(target, size, holes, kept_address):
            if count == _IOV_MAX:
                if not self._read_parts(address, count, total):
                    return None
                address += total
                count = total = 0
            count += 1
            _pack_iovec(_iovecs, _IOVEC_SIZE * count, part_address, part_size)
            total += part_size
        if not self._read_parts(address, count, total):
            return None
        return _cut(kept, holes)

    def missing(self, ranges: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
        """Return those of these ranges, (address, bytes), that cannot be read at once."""
        if self._workers is None or not ranges:
            return ()
        start = min([address for address, _ in ranges])
        end = max([address + size for address, size in ranges])
        if 0 < end - start <= _SPAN_MAX and self._may_read(start, end - start):
            return ()
        missing: dict[tuple[int, int], None] = {}
        looks = 0
        for piece in ranges:
            address, size = piece
            if piece in missing or self._presence.knows(address, size):
                continue
            if self._fetched.at(address, size) is not None:
                continue
            looks += 1
            if looks > _LOOKS_MAX or not self._may_read(address, size):
                missing[piece] = None
        return list(missing)

    def expect(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Raise NotYet unless all of these ranges, (address, bytes), can be read at once."""
        missing = self.missing(ranges)
        if missing:
            assert self._workers is not None
            wanted = missing[:_RANGES_MAX]
            raise NotYet(Reading(self._workers, self._payer, self._tid, self._fetched, wanted))

    def forget(self) -> None:
        """Forget what was fetched: the request is over."""
        self._fetched.clear()

    def is_there(self) -> bool:
        """It has a request open, so it is."""
        return True

    def be_present(self) -> None:
        """The thread has a request open, so it is."""

    def file(self, fd: int) -> TakenFile | None:
        """Return the open file that the thread has under ``fd``; see ``take_file``."""
        enter(-self._tid)
        return take_file(self._tid, fd, self._disposal)

    def nice(self) -> int:
        """Return the thread's nice value."""
        return _nice_of(self._tid)

    def set_nice(self, nice: int) -> None:
        """Give the thread a nice value, as far as its own limits allow."""
        set_nice(self._tid, nice)

    def _read_parts(self, address: int, count: int, total: int) -> bool:
        """Read ``total`` bytes into the first ``count`` local iovecs; False if any is missing."""
        if not total:
            return True
        _pack_iovec(_iovecs, 0, address, total)
        enter(-self._tid)
        return _process_vm_readv(self._tid, _LOCAL_IOVECS, count, _REMOTE_IOVEC, 1, 0) == total  # type: ignore[no-any-return]

    def _may_read(self, address: int, size: int) -> bool:
        """Whether a read there cannot block."""
        if not self._fetched.is_empty and self._fetched.at(address, size) is not None:
            return False  # as it was then, and nowhere else
        if not self.is_openers:
            self._presence.forget()
        _enter(-self._tid)
        return self._presence.may_read(self._tid, address, size)

    def _what_was_fetched(self, address: int, size: int) -> bytes:
        """Return what a worker has read of a range.

        Raises:
            NotYet: none has.
        """
        octets = self._fetched.at(address, size)
        if octets is None:
            assert self._workers is not None
            ranges = ((address, size),)
            raise NotYet(Reading(self._workers, self._payer, self._tid, self._fetched, ranges))
        return octets

    def _may_write(self, address: int, size: int) -> bool:
        """Whether a write there cannot block."""
        if not self.is_openers:
            self._presence.forget()
        enter(-self._tid)
        return self._presence.may_write(self._tid, address, size)

    def _store_elsewhere(self, address: int, data: bytes) -> bool:
        """Return whether a worker has stored these bytes.

        Raises:
            NotYet: none has tried.
        """
        stored = self._fetched.stored.pop((address, len(data)), None)
        if stored is None:
            assert self._workers is not None
            raise NotYet(
                Writing(self._workers, self._payer, self._tid, self._fetched, address, data)
            )
        return stored

    def _prove_read(self, address: int, size: int) -> bytes:
        if not 0 <= address <= _ADDRESS_END - size:
            return b""
        if self._workers is not None and not self._may_read(address, size):
            return self._what_was_fetched(address, size)
        local = _scratch if size <= _SCRATCH_SIZE else bytearray(size)
        is_quick = self._settle()
        count = self._call(_process_vm_readv, local, address, size)
        if count <= 0:
            return b""
        if not is_quick:
            return bytes(local[:count])
        self._read_start = address & _PAGE_MASK
        self._read_end = -(-(address + count) & _PAGE_MASK)
        self._read_generation = GENERATION.number
        return bytes(local[:count])

    def _prove_write(self, address: int, data: bytes) -> bool:
        size = len(data)
        if not 0 <= address <= _ADDRESS_END - size:
            return False
        if self._workers is not None:
            is_stored = (address, size) in self._fetched.stored
            if is_stored or not self._may_write(address, size):
                return self._store_elsewhere(address, data)
        if size <= _SCRATCH_SIZE:
            local = _scratch
            local[:size] = data
        else:
            local = bytearray(data)
        is_quick = self._settle()
        count = self._call(_process_vm_writev, local, address, size)
        if is_quick and count > 0:
            self._write_start = address & _PAGE_MASK
            self._write_end = -(-(address + count) & _PAGE_MASK)
            self._write_generation = GENERATION.number
        return count == size

    def _call(self, function: Callable[..., int], local: bytearray, address: int, size: int) -> int:
        """Move ``size`` bytes between ``local`` and the client; return how many moved, or -1."""
        local_address = ctypes.addressof(ctypes.c_char.from_buffer(local))
        _pack_two_iovecs(_iovecs, 0, address, size, local_address, size)
        enter(-self._tid)
        return function(self._tid, _LOCAL_IOVECS, 1, _REMOTE_IOVEC, 1, 0)

    def entered(self) -> None:
        """The thread was in user space, and may run another program since."""
        self.is_settled = self._has_ahead = False

    def see_area(self) -> None:
        """See whether the thread, which has a request open, has the receive area."""
        self.is_settled = False
        self._settle()

    def _settle(self) -> bool:
        """See which address space the thread has; what was proven of another goes.

        Returns:
            Whether pages can be proven. Where that cannot be asked now they are not, and the next
            use asks again.
        """
        if self.is_settled:
            return self._space is not None
        space: AddressSpace | None = None
        if self._opener is not None:
            with suppress(OSError):
                space = self._opener.space_of(self._tid)
        if space is None or space is not self._space:
            self._read_end = self._write_end = -1
            self._space = space
            self.sees_area = space is not None and space is self._home
        self.is_settled = space is not None
        return self.is_settled


def _parts(
    target: int, size: int, holes: Sequence[tuple[int, int]], kept_address: int
) -> Iterator[tuple[int, int]]:
    """Yield (address, size) of where each piece goes: gaps to the receiver, holes to us.

    Holes without a gap between them are one piece.
    """
    position = run = 0
    for start, length in holes:
        if start > position:
            if run:
                yield kept_address, run
                kept_address += run
                run = 0
            yield target + position, start - position
        run += length
        position = start + length
    if run:
        yield kept_address, run
    if size > position:
        yield target + position, size - position


def _place(arena: ReceiverArena, offset: int, size: int) -> int:
    """Return where foreign bytes are to be put; see ``ReceiverArena.receive_at``."""
    if isinstance(arena, MemfdArena):  # compiled, what is usual needs no look-up
        return arena.receive_at(offset, size)
    return arena.receive_at(offset, size)


def spread(
    octets: bytes, size: int, holes: Sequence[tuple[int, int]], arena: ReceiverArena, offset: int
) -> list[bytes] | None:
    """Do what ``scatter`` does with what was fetched."""
    if len(octets) != size:
        return None
    position, kept = 0, []
    for start, length in holes:
        if start > position:
            arena.write(offset + position, octets[position:start])
        kept.append(octets[start : start + length])
        position = start + length
    if size > position:
        arena.write(offset + position, octets[position:])
    return kept


def _cut(kept: bytearray, holes: Sequence[tuple[int, int]]) -> list[bytes]:
    pieces = []
    position = 0
    for _, length in holes:
        pieces.append(bytes(kept[position : position + length]))
        position += length
    return pieces
