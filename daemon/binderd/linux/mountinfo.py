# SPDX-License-Identifier: Apache-2.0
"""/proc/PID/mountinfo: the table of mounts."""

from __future__ import annotations

from typing import Final, NamedTuple

from binderd.linux.proc import OWN, lines_in, read_in

# How the kernel writes space, tab, newline, backslash and #.
_ESCAPES: Final = tuple((f"\\{ord(character):03o}", character) for character in " \t\n#\\")


class MountEntry(NamedTuple):
    """One line of /proc/self/mountinfo."""

    mount_id: int  # given out again when it is free, as the device number is
    device: tuple[int, int]  # major and minor number; of FUSE, the minor is the connection's
    path: str
    fstype: str

    def is_same(self, other: MountEntry) -> bool:
        """Return whether they are one mount, which may have been moved meanwhile."""
        return self._replace(path=other.path) == other


def read_mounts(place: str = OWN) -> list[MountEntry]:
    """Return all mounts of a process' mount namespace, also those that others hide.

    Args:
        place: of the process.
    """
    # The kernel quotes a newline in a path, and no other character that Python ends lines at.
    return [
        _parse_mount(line.decode("utf-8", "surrogateescape"))
        for line in lines_in(place, "mountinfo")
    ]


def mount_id_of(fd: int) -> int:
    """Return the number of the mount that a descriptor of ours was opened through."""
    lines = read_in(OWN, f"fdinfo/{fd}").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(b"mnt_id:"))


def _parse_mount(line: str) -> MountEntry:
    # 36 35 98:0 /root /mount/point options shared:1 - type source options
    fields = line.split(" ")
    major, minor = fields[2].split(":")
    fstype = fields[fields.index("-", 6) + 1]
    return MountEntry(int(fields[0]), (int(major), int(minor)), _unescape(fields[4]), fstype)


def _unescape(path: str) -> str:
    for escape, character in _ESCAPES:
        path = path.replace(escape, character)
    return path
