# SPDX-License-Identifier: Apache-2.0
"""A worker: takes one job after the other, and may get stuck in any of them.

It has no descriptors but its two sockets, so that nothing of the daemon's waits for its end.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn

from binderd.fetcher import messages
from binderd.linux import process_vm, scm_rights
from binderd.linux.maps import FileId, Long, find_first, is_own_copy
from binderd.linux.proc import open_in, place_of, threads_of

if TYPE_CHECKING:
    import socket

    from binderd.linux.maps import Area

_IDLE_SECONDS: Final = 30.0
_ADDRESS_END: Final = 1 << 63
_CHUNK: Final = 1 << 20  # bytes of one call
_PIECES_MAX: Final = 2048  # of a mapping; more than a receive area has pages


def work(jobs: socket.socket, daemon: socket.socket) -> NoReturn:
    """Take jobs until there are none any more.

    Args:
        jobs: from the manager, which hears a byte when a job is through.
        daemon: where the outcomes go.
    """
    jobs.settimeout(_IDLE_SECONDS)
    try:
        while True:
            message, fds = messages.take_job(jobs)
            if not message:
                break
            try:
                _do(message, fds, daemon)
            finally:
                for fd in fds:
                    os.close(fd)
            jobs.send(b".")
    except OSError:
        pass  # nothing to do for a while, or nobody there
    finally:
        os._exit(0)


def _do(message: bytes, fds: list[int], daemon: socket.socket) -> None:
    what, tid, number = messages.head.unpack_from(message)
    body = message[messages.head.size :]
    if what == messages.STORE:
        outcome = _store(body, fds)
    else:
        result = {messages.READ: _read, messages.WRITE: _write, messages.LOCATE: _locate}
        outcome = result[what](tid, body)
    _answer(daemon, number, outcome)


def _store(body: bytes, fds: list[int]) -> list[bytes]:
    """Store bytes of a file where another is mapped privately, and nowhere else."""
    *wanted, address, offset, size = messages.store.unpack(body)
    done = 0
    with suppress(OSError, ValueError, Long):
        memory, maps, pages = fds
        data = os.pread(pages, size, offset)
        if is_own_copy(maps, FileId(*wanted), address, address + size, _PIECES_MAX):
            done = os.pwrite(memory, data, address)
    return [messages.length.pack(done == size)]


def _read(tid: int, body: bytes) -> list[bytes]:
    """Return the length of each range as far as it can be read, then the bytes of all."""
    lengths, pieces = [], []
    for address, size in messages.span.iter_unpack(body):
        piece = _read_range(tid, address, size)
        lengths.append(messages.length.pack(len(piece)))
        pieces.append(piece)
    return lengths + pieces


def _read_range(tid: int, address: int, size: int) -> bytes:
    pieces = []
    while size > 0:
        wanted = min(size, _CHUNK)
        if not 0 <= address <= _ADDRESS_END - wanted:
            break
        try:
            piece = process_vm.read(tid, address, wanted)
        except OSError:
            break
        pieces.append(piece)
        address += len(piece)
        size -= len(piece)
        if len(piece) < wanted:
            break
    return b"".join(pieces)


def _write(tid: int, body: bytes) -> list[bytes]:
    address, size = messages.span.unpack_from(body)
    data = body[messages.span.size :]
    done = False
    if 0 <= address <= _ADDRESS_END - size:
        with suppress(OSError):
            done = process_vm.write(tid, address, data) == size
    return [messages.length.pack(done)]


def _locate(tid: int, body: bytes) -> list[bytes]:
    """Return where the first of the files is mapped that is; nothing where it cannot be asked."""
    (count,) = messages.count.unpack_from(body)
    files_at = messages.count.size + count * messages.where.size
    addresses = body[messages.count.size : files_at]
    taken = {address for (address,) in messages.where.iter_unpack(addresses)}
    files = [FileId(*numbers) for numbers in messages.file.iter_unpack(body[files_at:])]
    try:
        mapped = _find(tid, files, taken)
    except (FileNotFoundError, ProcessLookupError):
        mapped = None
    except OSError:
        return []
    if mapped is None:
        return [messages.area.pack(-1, 0, 0, 0)]
    which, area = mapped
    return [messages.area.pack(which, *area)]


def _find(pid: int, files: list[FileId], taken: set[int]) -> tuple[int, Area] | None:
    """Look through the first thread of a process that has its memory still."""
    for tid in sorted(threads_of(place_of(pid))):
        with suppress(ProcessLookupError):
            maps = open_in(place_of(tid), "maps", os.O_RDONLY)
            try:
                return find_first(maps, files, None, taken)
            finally:
                os.close(maps)
    return None


def _answer(daemon: socket.socket, number: int, pieces: list[bytes]) -> None:
    size = sum(map(len, pieces))
    if size <= messages.IN_PACKET_MAX:
        daemon.sendmsg([messages.outcome.pack(messages.DONE, 0, number), *pieces])
        return
    fd = os.memfd_create("binderd-fetched", os.MFD_CLOEXEC)
    with suppress(OSError), os.fdopen(fd, "wb", buffering=0) as file:
        data = memoryview(b"".join(pieces))
        while data:
            data = data[file.write(data) :]
        scm_rights.send(daemon, [messages.outcome.pack(messages.DONE, 1, number)], [fd])
