# SPDX-License-Identifier: Apache-2.0
"""FUSE connections: their owner, the threads that wait for them, and their end.

The control file system tells (``fusectl``); it need not be mounted anywhere. A connection is known
by its number, the device number of its file system.

Nothing here may know why one is aborted.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from binderd.linux.mount import open_file_system
from binderd.linux.mountinfo import read_mounts
from binderd.watchdog.system import device_number

if TYPE_CHECKING:
    from collections.abc import Iterator


class Connection(NamedTuple):
    """One FUSE connection."""

    number: int
    owner: int  # the user that it was mounted for
    waiting: int  # requests without an answer


def mounted_types(place: str) -> dict[int, bytes]:
    """Return what is mounted for a process: device -> type of file system.

    Raises:
        OSError: it could not be asked.
    """
    return {device_number(*one.device): os.fsencode(one.fstype) for one in read_mounts(place)}


def connections() -> list[Connection]:
    """Return every FUSE connection.

    Raises:
        OSError: it could not be asked.
    """
    connections = []
    with _control() as folder:
        for name in os.listdir(folder):
            with suppress(FileNotFoundError):  # it has ended meanwhile
                owner = os.stat(name, dir_fd=folder).st_uid
                file = os.open(f"{name}/waiting", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
                try:
                    waiting = int(os.read(file, 32))
                finally:
                    os.close(file)
                connections.append(Connection(int(name), owner, waiting))
    return connections


def abort(number: int) -> OSError | None:
    """Abort a FUSE connection; return why that failed."""
    try:
        with _control() as folder:
            file = os.open(f"{number}/abort", os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
            try:
                os.write(file, b"1")
            finally:
                os.close(file)
    except OSError as error:
        return error
    return None


@contextmanager
def _control() -> Iterator[int]:
    """A descriptor of the FUSE control file system; a new one shows what there is by now.

    Raises:
        OSError: it cannot be had.
    """
    folder = open_file_system("fusectl")
    try:
        yield folder
    finally:
        os.close(folder)
