# SPDX-License-Identifier: Apache-2.0
"""Symbolic links to the devices, where programs look for them: /dev/binder to /dev/binderfs/binder.

A name that something else has is left alone, be it Linux's own driver or any file. A link
counts as ours if it leads to our device: one that a dead daemon has left is taken over.

Nothing here may know what is served.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Links:
    """The links in one folder.

    Args:
        folder: where they are; "": none are wanted.
        place: the directory with the devices.
    """

    __slots__ = ("_folder", "_names", "_place")

    def __init__(self, folder: str, place: str) -> None:
        self._folder = folder
        self._place = place
        self._names: dict[str, None] = {}  # those that are there because of us

    def update(self, names: Sequence[str]) -> list[str]:
        """See that there are links for these devices and no others.

        Returns:
            What could not be done, a sentence each.
        """
        if not self._folder:
            return []
        for name in [name for name in self._names if name not in names]:
            self._remove(name)
        return [complaint for name in names if (complaint := self._make(name))]

    def close(self) -> None:
        """Take them away."""
        for name in list(self._names):
            self._remove(name)

    def _make(self, name: str) -> str:
        path, target = f"{self._folder}/{name}", f"{self._place}/{name}"
        if path == target:
            return ""
        try:
            os.symlink(target, path)
        except FileExistsError:
            if not self._is_ours(name):
                return f"{path} is there already, so it is no link to {target}"
        except OSError as error:
            return f"cannot make the link {path} ({error.strerror})"
        self._names[name] = None
        return ""

    def _remove(self, name: str) -> None:
        del self._names[name]
        if self._is_ours(name):
            with suppress(OSError):  # it was removed meanwhile, or the folder is read-only
                os.unlink(f"{self._folder}/{name}")

    def _is_ours(self, name: str) -> bool:
        try:
            return os.readlink(f"{self._folder}/{name}") == f"{self._place}/{name}"
        except OSError:
            return False
