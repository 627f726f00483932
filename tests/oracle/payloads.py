# SPDX-License-Identifier: Apache-2.0
"""Transactions with random payloads: mostly right, often with one thing wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from binderwire import binder_abi as abi
from binderwire.commands import message
from oracle import script
from oracle.script import Command
from support import bc

if TYPE_CHECKING:
    from random import Random

    from oracle.engine_player import File

# Descriptors that senders offer: those that every process has, and some that nobody has. A device's
# own are not among them: whoever was sent one would keep the file open.
OFFERED_FDS: Final = (0, 0, 1, 2, 9999, 0xFFFFFFFF)

POINTERS: Final = (0x1000, 0x1000, 0x2000, 0x3000)
SIZES: Final = (0, 0, 4, 8, 8, 12, 100, 900, 2000, 1)
NODE_FLAGS: Final = (0, 0, 0, 0, 0x100, 0x100, 0x100, 0x100, 0x100, 0x7F, 0x10A, 0x114, 0x1000)
CALL_FLAGS: Final = (0, 0, 0, 0x10, 0x10, 0x20, 0x40, 0x08, 0x04, 0x60, 0x30, 0xFFFFFFFE)
FILLER: Final = 0xA7


class Payloads:
    """The payloads of one write; they lie behind one another in the thread's part of the heap.

    Args:
        mishaps: how likely what makes no sense is, compared with what this file says.
    """

    def __init__(self, random: Random, thread: int, file: File, mishaps: float) -> None:
        self.random = random
        self.mishaps = mishaps
        self.file = file
        self.room = script.payloads(thread)
        self.end = self.room + script.PAYLOADS_SIZE
        self.heap_end = script.heap(script.process_of(thread)) + script.HEAP_SIZE
        self.fills: list[tuple[int, bytes]] = []
        self.pieces: list[tuple[int, int, int]] = []  # object's index, address, length

    def transaction(self, word: int, target: int, *, one_way: bool) -> Command:
        random = self.random
        self.fills, self.pieces = [], []
        scatter = self._chance(18)
        data, offsets = self._content(scatter=scatter)
        table = b"".join(offset.to_bytes(8, "little") for offset in offsets)
        flags = random.choice(CALL_FLAGS) & ~1 | one_way
        fields = {
            "target": target | (1 << 40 if self._mishap(2) else 0),
            "cookie": random.choice([0, 0, 5]),
            "code": random.choice([0, 1, 1, 7, random.getrandbits(32)]),
            "flags": flags,
            "sender_pid": random.choice([0, 1]),
            "data_size": len(data),
            "offsets_size": len(table),
            "buffer": self._put(data),
            "offsets": self._put(table),
        }
        if self._mishap(7):
            self._spoil(fields)
        if scatter:
            word = abi.BC_TRANSACTION_SG if word == abi.BC_TRANSACTION else abi.BC_REPLY_SG
            fields["buffers_size"] = self._buffers_size()
        return Command(message(abi.COMMANDS, word, **fields), tuple(self.fills))

    def _chance(self, percent: float) -> bool:
        return self.random.random() * 100 < percent

    def _mishap(self, percent: float) -> bool:
        return self._chance(percent * self.mishaps)

    def _put(self, octets: bytes) -> int:
        """Return the address of the bytes; if they do not fit in, one where they are not."""
        address = self.room
        if address + len(octets) > self.end:
            return address - address % 8
        if octets:
            self.fills.append((address, octets))
            self.room = address + len(octets) + 7 & ~7
        return address

    def _spoil(self, fields: dict[str, int]) -> None:
        random = self.random
        field = random.choice(["data_size", "offsets_size", "buffer", "offsets", "data_size"])
        if field in ("buffer", "offsets"):
            edge = self.heap_end - random.choice([1, 4, 8, 16, 24])
            fields[field] = random.choice([script.SPARE_ADDRESS, 1 << 63, edge, fields[field] + 1])
            return
        small = max(0, fields[field] - random.choice([1, 4, 8, 12, 20]))
        large = [1 << 20, 1 << 40, (1 << 64) - 1, (1 << 64) - 8, 1 << 63, 5000, 20000]
        fields[field] = random.choice([small, small, small, *large])

    def _content(self, *, scatter: bool) -> tuple[bytes, list[int]]:
        """Return data and the offsets of its objects."""
        random = self.random
        size = random.choice(SIZES)
        data = bytearray([FILLER + 1]) * size
        offsets = []
        counts = [1, 2, 3, 5] if scatter else [0, 0, 1, 1, 1, 2, 3, 4]
        for index in range(random.choice(counts)):
            data += bytes(-len(data) % 4)
            if self._chance(20):
                data += bytes([FILLER]) * 4 * random.randrange(5)
            offsets.append(len(data))
            data += self._object(index, scatter=scatter)
        if self._chance(15):
            data += bytes([FILLER]) * random.randrange(9)
        if offsets and self._mishap(2):
            data[random.randrange(offsets[0], len(data))] = random.randrange(256)
        if offsets and self._mishap(8):
            self._spoil_offsets(offsets, len(data))
        return bytes(data), offsets

    def _spoil_offsets(self, offsets: list[int], size: int) -> None:
        random = self.random
        index = random.randrange(len(offsets))
        wrong = [offsets[index] + change for change in (-8, -4, -1, 1, 2, 4, 8)]
        wrong += [size, size - 4, size + 4, size - 20, (1 << 64) - 8, 1 << 33, offsets[0]]
        if self._chance(25):
            random.shuffle(offsets)
        elif self._chance(20):
            offsets.append(offsets[index])
        else:
            offsets[index] = random.choice(wrong) % (1 << 64)

    # Objects

    def _object(self, index: int, *, scatter: bool) -> bytes:
        random = self.random
        if scatter and self._chance(60):
            return self._pointer(index)
        if scatter and self.pieces and self._chance(25):
            return self._fd_array(index)
        kind = random.random() * 100
        if kind < 45 or (kind < 82 and not self.file.process.handles.refs):
            ptr = random.choice(POINTERS)
            cookie = 0 if self._mishap(3) else ptr
            make = bc.weak_binder if self._chance(20) else bc.binder
            return make(ptr, cookie, random.choice(NODE_FLAGS))
        if kind < 80:
            make = bc.weak_handle if self._chance(20) else bc.handle
            number = self._handle() | (1 << 32 if self._mishap(3) else 0)
            return make(number, cookie=random.choice([0, 9]), flags=random.getrandbits(9))
        if kind < 93:
            return bc.fd(random.choice(OFFERED_FDS), cookie=random.choice([0, 9]), flags=3)
        if kind < 96:
            return self._fd_array(index)
        if kind < 98:
            return self._pointer(index)
        return random.choice([0, 0x73622A86, random.getrandbits(32)]).to_bytes(4, "little") * 6

    def _handle(self) -> int:
        known = list(self.file.process.handles.refs)
        if known and not self._mishap(12):
            return self.random.choice(known)
        return self.random.choice([0, 0, 1, 2, 3, 9] if self._chance(30) else [0])

    def _pointer(self, index: int) -> bytes:
        random = self.random
        length = random.choice([0, 8, 16, 16, 24, 32, 64, 13, 100])
        octets = bytes([0 if self._chance(40) else FILLER - index & 0xFF]) * length
        address = self._put(octets)
        if self._mishap(4):
            address = random.choice([script.SPARE_ADDRESS, self.heap_end - 8, 1 << 63])
        if self._mishap(4):
            length = random.choice([length + 8, (1 << 64) - 8, 1 << 40, length + 1])
        parent, offset = None, 0
        if self.pieces and self._chance(60):
            parent, offset = self._parent()
        self.pieces.append((index, address, length))
        return bc.ptr(address, length, parent=parent, parent_offset=offset)

    def _parent(self) -> tuple[int, int]:
        random = self.random
        parent = random.choice(self.pieces)[0]
        if self._mishap(8):
            parent = random.choice([0, 1, 2, 7, (1 << 64) - 1])
        return parent, random.choice([0, 0, 8, 8, 16, 24, 4, 2, 1 << 40, (1 << 64) - 8])

    def _fd_array(self, index: int) -> bytes:
        random = self.random
        parent, offset = self._parent() if self.pieces else (random.randrange(3), 0)
        count = random.choice([0, 0, 1, 1, 2, 1 << 62, (1 << 62) + 1, 100])
        return bc.fd_array(count, parent=parent, parent_offset=offset)

    def _buffers_size(self) -> int:
        random = self.random
        size = sum(length + 7 & ~7 for _, _, length in self.pieces if length < 1 << 30)
        if self._mishap(10):
            return random.choice([0, 8, size + 4, max(0, size - 8), 1 << 40, (1 << 64) - 8])
        return size + random.choice([0, 0, 8, 64])
