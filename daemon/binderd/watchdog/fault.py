# SPDX-License-Identifier: Apache-2.0
"""What the daemon waits for, and whether the client is at fault.

A client whose pages are being read from a local disk, or from swap, is not at fault, however long
that takes, and killing it would change nothing. A client is at fault whose memory comes from a FUSE
file system or from a userfaultfd, or which holds the lock of its own mapping table or the like.

Nothing here may act on it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from binderd.linux import proc, process_vm
from binderd.linux.statx import memory_device
from binderd.watchdog import userfaults
from binderd.watchdog.ask import Held, ask
from binderd.watchdog.connections import Connection, connections, mounted_types
from binderd.watchdog.system import device_number, has_major

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binderd.watchdog.access import Access
    from binderd.watchdog.culprit import Culprit

_ASKING_SECONDS: Final = 0.1
_READ_SIZE: Final = 1 << 16
# File systems of local memory or disks that are listed as if they had none.
_LOCAL: Final = frozenset(
    [b"tmpfs", b"ramfs", b"devtmpfs", b"hugetlbfs", b"zfs", b"bcachefs", b"proc", b"sysfs"]
)
_MEMORY_DEVICE: Final = device_number(*memory_device())


class Fault(NamedTuple):
    """What blocks the daemon."""

    is_clients: bool
    what: str  # in words
    sources: tuple[Connection, ...] = ()  # that the memory comes from
    userfaultfd: int = -1  # a copy of the one that the memory waits for; to be closed


def find(daemon: int, access: Access, culprit: Culprit, own_type: bytes) -> Fault:
    """Return what keeps the daemon in an access to a client.

    Args:
        daemon: a process.
        access: that it sleeps in.
        culprit: the client.
        own_type: what our own file systems are called in /proc/self/mountinfo.
    """
    if not access.size:
        return Fault(True, "keeps us from its descriptors or its mapping table")
    try:
        # The table itself can be read without its lock since Linux 6.17.
        ask(lambda: _take_lock(culprit), _ASKING_SECONDS)
        devices = ask(lambda: _devices(culprit, access), _ASKING_SECONDS)
    except Held:
        return Fault(True, "holds the lock of its mapping table")
    except OSError:
        devices = ()  # it has ended: then others keep its memory
    known = {one.number: one for one in _connections()}
    types = _types(culprit)
    served = [known[one] for one in devices if one in known and types.get(one) != own_type]
    if served:
        return Fault(True, "has memory of a FUSE file system", tuple(served))
    copy = userfaults.find(daemon, access.start, access.size, [culprit.pid])
    if copy >= 0:
        return Fault(True, "has memory of a userfaultfd", (), copy)
    if not devices or any(_is_suspect(one, types) for one in devices):
        # Behind what is stacked on FUSE (overlayfs) the kernel shows only the upper file system.
        waiting = [
            one for one in known.values() if one.waiting and types.get(one.number) != own_type
        ]
        if waiting:
            return Fault(True, "has memory that may be of a FUSE file system in the end")
    return Fault(False, "waits for a disk, swap or a network")


def _connections() -> list[Connection]:
    with suppress(OSError):
        return connections()
    return []


def _types(culprit: Culprit) -> dict[int, bytes]:
    types: dict[int, bytes] = {}
    for place in (culprit.place, proc.OWN):
        with suppress(OSError):  # a process that has ended has no mounts any more
            types.update(mounted_types(place))
    return types


def _is_suspect(number: int, types: dict[int, bytes]) -> bool:
    """Whether a file system can be stacked on another one, as far as we know."""
    if number in (0, _MEMORY_DEVICE):
        return False
    kind = types.get(number)
    if kind is None:
        return not has_major(number)
    return kind not in _LOCAL and kind not in _disk_types()


def _disk_types() -> set[bytes]:
    with suppress(OSError):
        types = proc.file_system_types().items()
        return {kind for kind, has_disk in types if has_disk} - {b"fuseblk"}
    return set()


def _take_lock(culprit: Culprit) -> None:
    """Do what takes the lock of a client's mapping table, and nothing else."""
    for tid in _threads(culprit):
        try:
            process_vm.touch_nothing(tid)
        except ProcessLookupError:
            continue
        except OSError:
            pass  # there is nothing at that address, as a rule
        return


def _devices(culprit: Culprit, access: Access) -> tuple[int, ...]:
    """Return the devices of the files that the memory shows; 0 is memory of no file."""
    found: dict[int, None] = {}
    end = access.start + access.size
    for line in _mappings(culprit):
        bounds, _, _, place, *_ = line.split(None, 5)
        first, last = (int(part, 16) for part in bounds.split(b"-"))
        if first >= end:
            break
        if last > access.start:
            major, _, minor = place.partition(b":")
            found[device_number(int(major, 16), int(minor, 16))] = None
    return tuple(found)


def _threads(culprit: Culprit) -> list[int]:
    """Return its threads, that with a request open first."""
    return sorted(proc.threads_of(culprit.place), key=lambda tid: tid != culprit.tid)


def _mappings(culprit: Culprit) -> Iterator[bytes]:
    """Yield the lines of a client's mapping table.

    Through any of its threads: a first one that has ended before the others has none.

    Raises:
        OSError: it has none.
    """
    for tid in _threads(culprit):
        rest = b""
        with suppress(OSError), open(f"{culprit.place}/task/{tid}/maps", "rb", buffering=0) as file:
            is_empty = True
            while piece := file.read(_READ_SIZE):
                is_empty = False
                *whole, rest = (rest + piece).split(b"\n")
                yield from whole
            if not is_empty:
                return
    raise ProcessLookupError
