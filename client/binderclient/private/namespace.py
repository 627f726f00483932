# SPDX-License-Identifier: Apache-2.0
"""A mount namespace of one's own, with a /dev in which devices can be added.

Nothing that happens here is seen outside, and all of it goes with the last process inside.

An ordinary user gets the namespace together with a user namespace, and is root in there, which
mounting takes. The command is put into one more, in which it is that ordinary user again.
"""

from __future__ import annotations

import ctypes
import os
import stat
from contextlib import suppress
from errno import EACCES, EINVAL, ENOSPC, EPERM
from pathlib import Path
from typing import Final, NamedTuple

from binderclient.errors import BinderError

DEV: Final = Path("/dev")
# Where ours is put together: a directory that is everywhere, that may be read-only, and that is not
# used meanwhile.
_SCAFFOLD: Final = Path("/proc")
_OUTSIDE: Final = ".outside"  # the /dev that there was

_CLONE_NEWNS: Final = 0x0002_0000
_CLONE_NEWUSER: Final = 0x1000_0000
_MS_BIND: Final = 0x1000
_MS_MOVE: Final = 0x2000
_MS_REC: Final = 0x4000
_MS_SLAVE: Final = 1 << 19
_MS_NOSUID: Final = 2

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36

_libc: Final = ctypes.CDLL(None, use_errno=True)


class PrivateError(BinderError):
    """There can be no devices of one's own here; the text says why, and what helps."""


class User(NamedTuple):
    """The user and groups that this process had outside."""

    uid: int
    gid: int


def enter() -> User | None:
    """Leave the mount namespace that we were in for a copy of it.

    Returns:
        The user that the command has to become again (``become``); None if that has not changed.

    Raises:
        PrivateError: this process may not.
    """
    uid, gid = os.geteuid(), os.getegid()
    flags = _CLONE_NEWNS if _may_mount() else _CLONE_NEWNS | _CLONE_NEWUSER
    try:
        _call(_libc.unshare(flags), "unshare")
        if flags & _CLONE_NEWUSER:
            _map_users(f"0 {uid} 1", f"0 {gid} 1")
        _mount(None, "/", None, _MS_REC | _MS_SLAVE)  # what we mount is not seen outside
    except OSError as error:  # also later than at once, as where AppArmor leaves no rights
        raise PrivateError(_why_not(error)) from None
    return User(uid, gid) if flags & _CLONE_NEWUSER else None


def become(user: User) -> None:
    """Be the user again that ``enter`` has made root, without any rights; between fork and exec."""
    _call(_libc.unshare(_CLONE_NEWUSER), "unshare")
    _map_users(f"{user.uid} 0 1", f"{user.gid} 0 1")


def _map_users(uids: str, gids: str) -> None:
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(uids, encoding="ascii")
    Path("/proc/self/gid_map").write_text(gids, encoding="ascii")


def _may_mount() -> bool:
    """Return whether this process has CAP_SYS_ADMIN."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return bool(int(value, 16) >> 21 & 1)
    return False


def _why_not(error: OSError) -> str:
    if error.errno == ENOSPC:
        return "there may be no more namespaces: see /proc/sys/user/max_user_namespaces"
    if error.errno in {EACCES, EPERM, EINVAL}:
        return (
            "this needs a mount namespace of its own, and this system lets ordinary users have "
            "none: be root, in a container add --cap-add SYS_ADMIN, or allow user namespaces "
            "(sysctl kernel.unprivileged_userns_clone, "
            "kernel.apparmor_restrict_unprivileged_userns)"
        )
    return f"this needs a mount namespace of its own: {error.strerror}"


def own_dev(names: list[str]) -> None:
    """Put a /dev in the place of the one there is, with all that is in that.

    Args:
        names: of entries that it should not have, as they are to be made there.

    Raises:
        PrivateError: it cannot be.
    """
    place = _SCAFFOLD
    try:
        _mount("tmpfs", str(place), "tmpfs", _MS_NOSUID, "mode=0755,size=64k,nr_inodes=100k")
        for entry in sorted(DEV.iterdir()):
            if entry.name not in names:
                _show(entry, place / entry.name)
        _mount(str(place), str(DEV), None, _MS_MOVE)
    except OSError as error:
        raise PrivateError(f"a /dev of its own cannot be made: {error}") from None


def _show(entry: Path, place: Path) -> None:
    """Have an entry of /dev seen at another place; it is left out if it is going just now."""
    if entry.is_symlink():
        place.symlink_to(os.readlink(entry))
        return
    if entry.name == "ptmx":
        _show_ptmx(entry, place)
        return
    if entry.is_dir():
        place.mkdir()
    else:
        place.touch()
    with suppress(FileNotFoundError):
        _mount(str(entry), str(place), None, _MS_BIND | _MS_REC)


def _show_ptmx(entry: Path, place: Path) -> None:
    """Have what makes terminals at another place: Linux looks for ``pts`` in its directory.

    So a file that is bind-mounted alone makes none. A user that may not have a device of its own
    gets the one in the /dev that there was.
    """
    status = entry.stat()
    try:
        os.mknod(place, status.st_mode, status.st_rdev)
        os.chmod(place, stat.S_IMODE(status.st_mode))
        os.chown(place, status.st_uid, status.st_gid)
    except PermissionError:
        place.unlink(missing_ok=True)
        outside = place.with_name(_OUTSIDE)
        outside.mkdir()
        _mount(str(DEV), str(outside), None, _MS_BIND | _MS_REC)
        place.symlink_to(f"{_OUTSIDE}/{entry.name}")


def end_with_parent(number: int) -> None:
    """Have this process get a signal when the thread that forked it ends; between fork and exec."""
    _prctl(_PR_SET_PDEATHSIG, number)


def adopt_orphans() -> None:
    """Become the parent of whatever our descendants leave behind."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(what: int, *arguments: int) -> None:
    words = [*arguments, 0, 0, 0, 0][:4]
    _call(_libc.prctl(what, *map(ctypes.c_ulong, words)), "prctl")


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str = "") -> None:
    def text(word: str | None) -> bytes | None:
        return None if word is None else os.fsencode(word)

    arguments = text(source), text(target), text(kind), ctypes.c_ulong(flags), text(data or None)
    _call(_libc.mount(*arguments), target)


def _call(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
