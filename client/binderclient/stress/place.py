# SPDX-License-Identifier: Apache-2.0
"""The device under test: one that is there, or one that is added and removed again."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from binderclient.blocking import DEFAULT_PATH
from binderclient.stress.errors import StressError
from binderwire.binder_abi import BINDER_CTL_ADD, binderfs_device

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTROL: Final = "binder-control"
_NAME_SIZE: Final = 256

_HINTS: Final = {
    errno.ENOENT: "no such device; is binderd running, or binderfs mounted?",
    errno.ENOTDIR: "no such device",
    errno.ELOOP: "symbolic links without end",
    errno.ENAMETOOLONG: "no such device: the name is too long",
    errno.ENOTCONN: "nobody serves it any more: unmount it, or start binderd again",
    errno.ENXIO: "no driver is behind it",
    errno.ENODEV: "no driver is behind it",
}


@contextmanager
def device_for_stress(path: str | None) -> Iterator[tuple[str, bool]]:
    """Find a device, or add one for as long as the ``with`` block lasts.

    Args:
        path: a device, or a directory with binder-control, or None for the usual place.

    Yields:
        its path, and whether it is one of our own.

    Raises:
        StressError: there is none.
    """
    if path is None:
        folder = os.path.dirname(DEFAULT_PATH)
        path = folder if os.access(f"{folder}/{CONTROL}", os.W_OK) else DEFAULT_PATH
    if not os.path.isdir(path):
        yield path, False
        return
    device = _add(path)
    try:
        yield device, True
    finally:
        with suppress(OSError):  # the driver may be gone
            os.unlink(device)


def _add(folder: str) -> str:
    control = f"{folder}/{CONTROL}"
    name = f"binder-stress-{os.getpid()}"
    request = binderfs_device.pack(name.encode().ljust(_NAME_SIZE, b"\0"), 0, 0)
    try:
        with open(control, "rb", buffering=0) as file:
            fcntl.ioctl(file, BINDER_CTL_ADD, bytearray(request))
    except OSError as error:
        if error.errno == errno.ENOENT:
            text = f"{folder} is a directory without {CONTROL}: name a device in it"
        elif error.errno in {errno.EACCES, errno.EPERM}:
            text = f"{control}: {error.strerror}; only root may add devices: name one that is there"
        elif error.errno == errno.ENOSPC:
            text = f"{control} gives no more devices (max=): remove one, or name one that is there"
        else:
            text = f"{control} adds no device: {error.strerror}"
        raise StressError(text) from None
    return f"{folder}/{name}"


def close_device(fd: int) -> None:
    """Close it; that fails, and matters to nobody, where its driver is gone."""
    with suppress(OSError):
        os.close(fd)


def open_device(path: str) -> int:
    """Open a device; returns the descriptor.

    Raises:
        StressError: it is none, or cannot be opened.
    """
    if "\0" in path:
        raise StressError(f"{path!r} cannot be the name of a file")
    try:
        mode = Path(path).stat().st_mode
        if not (stat.S_ISCHR(mode) or stat.S_ISREG(mode)):
            raise StressError(f"{path}: this is no binder device, but another kind of file")
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, error.strerror)
        if error.errno in {errno.EACCES, errno.EPERM}:
            hint = f"{error.strerror}: be root, or have its mode changed (binderd --mode)"
        raise StressError(f"{path}: {hint}") from None
