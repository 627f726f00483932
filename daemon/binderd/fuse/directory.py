# SPDX-License-Identifier: Apache-2.0
"""The devices of one mount, by name: adding, removing, renaming them, and their attributes.

A device outlives its name: as long as it is open anywhere it keeps its context, its minor number
and its place under the limit, as the driver's do. Nothing here may know inodes or requests.

Mirrors binderfs_binder_device_create, binderfs_unlink, binderfs_rename, binderfs_evict_inode.
"""

from __future__ import annotations

from errno import EACCES, EEXIST, EINVAL, ENOENT, ENOSPC
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from binderd.fuse.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CONTROL_NAME: Final = b"binder-control"
# Directories in which other file systems are shown.
PLACE_NAMES: Final = (b"features", b"binder_logs")
FIXED_NAMES: Final = (CONTROL_NAME, *PLACE_NAMES)

DEVICES_MAX: Final = 1 << 20  # BINDERFS_MAX_MINOR
CONTROL_MODE: Final = 0o600
# Differs: binderfs creates every device 0600. Those that the daemon is started with are what
# Android's init makes of them; those that are added later are the driver's.
CONFIGURED_MODE: Final = 0o666
ADDED_MODE: Final = 0o600

# <linux/fs.h>
RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2


class Attributes:
    """What chmod, chown and utimes change."""

    __slots__ = ("accessed", "gid", "mode", "modified", "uid")

    def __init__(self, mode: int) -> None:
        # (seconds since the epoch, nanoseconds); None: never set
        self.accessed: tuple[int, int] | None = None
        self.modified: tuple[int, int] | None = None
        self.mode = mode  # permission bits
        self.uid = 0
        self.gid = 0


class Device(Attributes):
    """One binder device."""

    __slots__ = ("context", "is_listed", "made_as", "minor", "name", "opens", "policy", "position")

    def __init__(self, name: bytes, context: str, minor: int, position: int, mode: int) -> None:
        super().__init__(mode)
        self.name = self.made_as = name  # a policy stays with the device when it is renamed
        self.policy = Policy()
        self.context = context  # what the engine calls it, for good
        self.minor = minor
        self.position = position  # in listings; unique, and kept when it is renamed
        self.is_listed = True  # does its name still lead to it?
        self.opens = 0  # how many files of it are open


class Directory:
    """All devices.

    Args:
        names: those to start with.
        count_max: how many there may be at once (the mount option ``max``).
        gone: called with the context of a device that has neither a name nor an open file any more.
        access: permission bits, user and group of those to start with.
        owner: user and group of everything else: directories, binder-control, and what is added
            through that.
    """

    __slots__ = (
        "_by_context",
        "_by_name",
        "_count_max",
        "_free_minors",
        "_gone",
        "_next_minor",
        "_next_position",
        "_policies",
        "owner",
    )

    def __init__(
        self,
        names: Sequence[str],
        count_max: int = DEVICES_MAX,
        gone: Callable[[str], None] = lambda context: None,
        access: tuple[int, int, int] = (CONFIGURED_MODE, 0, 0),
        owner: tuple[int, int] = (0, 0),
    ) -> None:
        self.owner = owner
        self._by_name: dict[bytes, Device] = {}
        self._by_context: dict[str, Device] = {}  # those without a name, too
        self._count_max = count_max
        self._gone = gone
        self._policies: Callable[[str], Policy] = lambda name: Policy()
        self._free_minors: list[int] = []  # heap of numbers below _next_minor
        self._next_minor = 1  # binder-control has 0
        self._next_position = 0
        for name in names:
            self._create(name.encode(), self._take_minor(), access)

    def __len__(self) -> int:
        """How many names are there?"""
        return len(self._by_name)

    def find(self, name: bytes) -> Device | None:
        """Return the device of that name."""
        return self._by_name.get(name)

    def listed_after(self, position: int) -> list[Device]:
        """Return the devices behind a position, in the order of their positions."""
        devices = [device for device in self._by_name.values() if device.position > position]
        return sorted(devices, key=lambda device: device.position)

    def add(self, name: bytes) -> tuple[int, int | None]:
        """Add a device (binderfs_binder_device_create).

        Returns:
            (0 or an errno, its minor number). ENOSPC: there are too many. EACCES: nothing can have
            that name. EEXIST: something has it. The driver takes a number before it looks at the
            name, so there is one beside the latter two as well; it is free again by then.
        """
        if len(self._by_context) >= self._count_max:
            return ENOSPC, None
        minor = self._take_minor()
        errno = self._check_new(name)
        if errno:
            heappush(self._free_minors, minor)
        else:
            self._create(name, minor, (ADDED_MODE, *self.owner))
        return errno, minor

    def configure(
        self,
        old: Sequence[str],
        new: Sequence[str],
        count_max: int,
        access: tuple[int, int, int],
    ) -> list[str]:
        """Change which devices were asked for at the start, beside those that others have added.

        Args:
            old: names that were asked for until now. Those that are not wanted any more are
                removed; open files of them work on.
            new: names that are asked for now.
            count_max: how many devices there may be at once.
            access: permission bits, user and group of new ones.

        Returns:
            The names that could not be added: something has them, or there are too many.
        """
        self._count_max = count_max
        for name in old:
            if name not in new:
                self.remove(name.encode())
        missing = [name for name in new if name not in old]
        refused = []
        for name in missing:
            if len(self._by_context) >= count_max or self._check_new(name.encode()):
                refused.append(name)
            else:
                self._create(name.encode(), self._take_minor(), access)
        return refused

    def remove(self, name: bytes) -> int:
        """Remove a name; return 0 or ENOENT. Open files of the device work on."""
        device = self._by_name.pop(name, None)
        if device is None:
            return ENOENT
        device.is_listed = False
        self._drop_unused(device)
        return 0

    def rename(self, old: bytes, new: bytes, flags: int) -> int:
        """Give a device another name, in place of whatever has that (simple_rename).

        Args:
            flags: of renameat2.

        Returns:
            0, or the errno that says why nothing has changed: EINVAL, an unknown flag; ENOENT, no
            such device; EEXIST, the new name is taken and RENAME_NOREPLACE was given.
        """
        if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE):
            return EINVAL
        device, other = self._by_name.get(old), self._by_name.get(new)
        if device is None or (flags & RENAME_EXCHANGE and other is None):
            return ENOENT
        if other is not None and flags & RENAME_NOREPLACE:
            return EEXIST
        if old == new:
            return 0
        del self._by_name[old]
        if other is not None and flags & RENAME_EXCHANGE:
            self._by_name[old] = other
            other.name = old
        elif other is not None:
            self.remove(new)
        self._by_name[new] = device
        device.name = new
        return 0

    def set_policies(self, policies: Callable[[str], Policy]) -> None:
        """Set which users may use which device, also those that are there already.

        Args:
            policies: returns the policy of a device that is made under a name.
        """
        self._policies = policies
        for device in self._by_context.values():
            device.policy = policies(device.made_as.decode("utf-8", "surrogateescape"))

    def policy_of(self, context: str) -> Policy:
        """Return the policy of the device that has a context."""
        return self._by_context[context].policy

    def managers_of(self, context: str) -> frozenset[int] | None:
        """Return the users that may become manager of a context, None: the first one that asks."""
        return self._by_context[context].policy.managers

    def opened(self, device: Device) -> None:
        """A file of the device was opened."""
        device.opens += 1

    def closed(self, device: Device) -> None:
        """An open file of the device is gone."""
        device.opens -= 1
        self._drop_unused(device)

    def _check_new(self, name: bytes) -> int:
        """Return 0 if a device can be added under ``name``, else an errno (lookup_one_len)."""
        if name in {b"", b".", b".."} or b"/" in name:
            return EACCES
        return EEXIST if name in self._by_name or name in FIXED_NAMES else 0

    def _create(self, name: bytes, minor: int, access: tuple[int, int, int]) -> Device:
        # Differs: contexts of the driver may have equal names in its logs, after a rename or an
        # unlink; here the later one has its minor number behind the name.
        context = _in_one_line(name)
        while context in self._by_context:
            context = f"{context}#{minor}"
        self._next_position += 1
        device = Device(name, context, minor, self._next_position, access[0])
        device.uid, device.gid = access[1:]
        device.policy = self._policies(name.decode("utf-8", "surrogateescape"))
        self._by_name[name] = self._by_context[context] = device
        return device

    def _drop_unused(self, device: Device) -> None:
        """Give back what a device takes that nothing leads to (binderfs_evict_inode)."""
        if not device.is_listed and not device.opens:
            del self._by_context[device.context]
            heappush(self._free_minors, device.minor)
            self._gone(device.context)

    def _take_minor(self) -> int:
        if self._free_minors:
            return heappop(self._free_minors)
        self._next_minor += 1
        return self._next_minor - 1


def _in_one_line(name: bytes) -> str:
    """Return a name as logs show it.

    Differs: the driver's logs show names as they are; here what could end a line or is no text is
    in octal, as in /proc/self/mountinfo.
    """
    shown = ""
    for letter in name.decode("utf-8", "surrogateescape"):
        if letter.isprintable():
            shown += letter
        else:
            shown += "".join(f"\\{byte:03o}" for byte in letter.encode("utf-8", "surrogateescape"))
    return shown
