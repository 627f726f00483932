# SPDX-License-Identifier: Apache-2.0
"""Reading and writing the memory of a client thread (the port ``ClientMemory``).

Two ways lead there.  process_vm_readv and process_vm_writev honour page protections as the driver's
copy_from_user and copy_to_user do, and put a payload straight into the daemon's mapping of the
receiver's pages: the only way without an intermediate copy.  pread and pwrite on an open
/proc/PID/mem take half the time for the few bytes of a command stream, but override protections.
So a page is first used the honest way, which proves it, and the quick way from then on.

A thread cannot exec or be reaped while its request is open, so its thread id is safe to use.

Differs: a page that loses its protection after it was proven (mprotect) still works for command
streams, where the driver would answer EFAULT; the client could have lifted the protection itself.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from typing import TYPE_CHECKING, Final

from binderd.memory.files import Disposal, TakenFile, take_file
from binderd.memory.identity import nice_of, set_nice
from binderd.memory.memfd_arena import MemfdArena

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from binderd.engine.ports import ReceiverArena

# Above this no user address can lie, and file offsets end.
_ADDRESS_END: Final = 1 << 63

_IOV_MAX: Final = 1024  # parts per process_vm_readv, UIO_MAXIOV
_IOVEC_SIZE: Final = 16  # bytes: address and length
_SCRATCH_SIZE: Final = 64 << 10  # bytes; what is larger needs a buffer of its own
_PAGE_MASK: Final = -mmap.PAGESIZE

# PyDLL: the calls are short, and giving up the interpreter's lock would cost more than it brings.
_libc = ctypes.PyDLL(None)
_process_vm_readv = _libc.process_vm_readv
_process_vm_writev = _libc.process_vm_writev
# No argtypes: the pointers are made once, below, and everything else is a small number, so that
# there is nothing to convert. The result fits in an int: no call moves more than a receive area.

# One buffer for every call's iovecs: the remote one first, then the local ones.
_iovecs = bytearray(_IOVEC_SIZE * (1 + _IOV_MAX))
_REMOTE: Final = ctypes.addressof(ctypes.c_char.from_buffer(_iovecs))
_REMOTE_IOVEC: Final = ctypes.c_void_p(_REMOTE)
_LOCAL_IOVECS: Final = ctypes.c_void_p(_REMOTE + _IOVEC_SIZE)
_pack_iovec = struct.Struct("=QQ").pack_into
_pack_two_iovecs = struct.Struct("=QQQQ").pack_into

_scratch = bytearray(_SCRATCH_SIZE)


class AddressSpace:
    """An open /proc/PID/mem, shared by the threads of one process that use one file."""

    __slots__ = ("fd", "pid", "threads")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.threads = 0  # how many thread objects use it?
        self.fd = -1

    def open(self, tid: int) -> bool:
        """Open the address space that ``tid`` has now, instead of the one it had.

        Returns:
            False if we may not, or have no descriptor left; then every address is a fault.
        """
        self.close()
        try:
            self.fd = os.open(f"/proc/{tid}/mem", os.O_RDWR)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let go of the address space."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1  # a reused number must never be read by mistake
            os.close(fd)


class ProcessMemory:
    """The memory of one thread."""

    __slots__ = (
        "_disposal",
        "_read_end",
        "_read_start",
        "_space",
        "_tid",
        "_write_end",
        "_write_start",
        "pid",
    )

    def __init__(self, tid: int, space: AddressSpace, disposal: Disposal) -> None:
        self.pid = space.pid
        self._disposal = disposal
        self._tid = tid
        self._space = space
        # The pages that command streams were last read from and written to: proven, see above.
        self._read_start = self._read_end = 0
        self._write_start = self._write_end = 0

    def read(self, address: int, size: int) -> bytes:
        """Return up to ``size`` bytes; fewer where the readable memory ends."""
        if self._read_start <= address and address + size <= self._read_end:
            try:
                data = os.pread(self._space.fd, size, address)
            except OSError:
                data = b""
            if len(data) == size:
                return data
            self._renew()
        return self._prove_read(address, size)

    def write(self, address: int, data: bytes | bytearray) -> bool:
        """Store all of ``data``; False if any byte could not be stored (EFAULT)."""
        size = len(data)
        if self._write_start <= address and address + size <= self._write_end:
            try:
                if os.pwrite(self._space.fd, data, address) == size:
                    return True
            except OSError:
                pass
            self._renew()
        return self._prove_write(address, data)

    def copy(self, address: int, size: int, arena: ReceiverArena, offset: int) -> bool:
        """Copy ``size`` bytes straight into ``arena`` at ``offset``: the one copy."""
        assert isinstance(arena, MemfdArena)
        target = arena.receive_at(offset, size)
        if not 0 <= address <= _ADDRESS_END - size:
            return False
        _pack_two_iovecs(_iovecs, 0, address, size, target, size)
        return _process_vm_readv(self._tid, _LOCAL_IOVECS, 1, _REMOTE_IOVEC, 1, 0) == size  # type: ignore[no-any-return]

    def scatter(
        self,
        address: int,
        size: int,
        arena: ReceiverArena,
        offset: int,
        holes: Sequence[tuple[int, int]],
    ) -> list[bytes] | None:
        """Copy like ``copy``, but keep the bytes of ``holes`` away from the receiver."""
        assert isinstance(arena, MemfdArena)
        target = arena.receive_at(offset, size)
        if not 0 <= address <= _ADDRESS_END - size:
            return None
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

    def file(self, fd: int) -> TakenFile | None:
        """Return the open file that the thread has under ``fd``, None if there is none."""
        return take_file(self._tid, fd, self._disposal)

    def nice(self) -> int:
        """Return the thread's nice value."""
        return nice_of(self._tid)

    def set_nice(self, nice: int) -> None:
        """Give the thread a nice value, as far as its own limits allow."""
        set_nice(self._tid, nice)

    def _read_parts(self, address: int, count: int, total: int) -> bool:
        """Read ``total`` bytes into the first ``count`` local iovecs; False if any is missing."""
        if not total:
            return True
        _pack_iovec(_iovecs, 0, address, total)
        return _process_vm_readv(self._tid, _LOCAL_IOVECS, count, _REMOTE_IOVEC, 1, 0) == total  # type: ignore[no-any-return]

    def _prove_read(self, address: int, size: int) -> bytes:
        if not 0 <= address <= _ADDRESS_END - size:
            return b""
        local = _scratch if size <= _SCRATCH_SIZE else bytearray(size)
        count = self._call(_process_vm_readv, local, address, size)
        if count <= 0:
            return b""
        self._read_start = address & _PAGE_MASK
        self._read_end = -(-(address + count) & _PAGE_MASK)
        return bytes(local[:count])

    def _prove_write(self, address: int, data: bytes | bytearray) -> bool:
        size = len(data)
        if not 0 <= address <= _ADDRESS_END - size:
            return False
        if size <= _SCRATCH_SIZE:
            local = _scratch
            local[:size] = data
        else:
            local = bytearray(data)
        count = self._call(_process_vm_writev, local, address, size)
        if count > 0:
            self._write_start = address & _PAGE_MASK
            self._write_end = -(-(address + count) & _PAGE_MASK)
        return count == size

    def _call(self, function: Callable[..., int], local: bytearray, address: int, size: int) -> int:
        """Move ``size`` bytes between ``local`` and the client; return how many moved, or -1."""
        local_address = ctypes.addressof(ctypes.c_char.from_buffer(local))
        _pack_two_iovecs(_iovecs, 0, address, size, local_address, size)
        return function(self._tid, _LOCAL_IOVECS, 1, _REMOTE_IOVEC, 1, 0)

    def _renew(self) -> None:
        """The quick way failed: the memory is not as it was, or it is a new one, after an exec."""
        self._read_start = self._read_end = 0
        self._write_start = self._write_end = 0
        self._space.open(self._tid)


def _parts(
    target: int, size: int, holes: Sequence[tuple[int, int]], kept_address: int
) -> Iterator[tuple[int, int]]:
    """Yield (address, size) of where each piece goes: gaps to the receiver, holes to us."""
    position = 0
    for start, length in holes:
        if start > position:
            yield target + position, start - position
        if length:
            yield kept_address, length
            kept_address += length
        position = start + length
    if size > position:
        yield target + position, size - position


def _cut(kept: bytearray, holes: Sequence[tuple[int, int]]) -> list[bytes]:
    pieces = []
    position = 0
    for _, length in holes:
        pieces.append(bytes(kept[position : position + length]))
        position += length
    return pieces
