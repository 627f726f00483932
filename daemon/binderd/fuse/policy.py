# SPDX-License-Identifier: Apache-2.0
"""Policies: users that may open a device or become its context manager, beside its mode.

Users and groups are numbers of the daemon's user namespace. Nothing here may know their names.
"""

from __future__ import annotations

from typing import NamedTuple

ROOT = 0


class Policy(NamedTuple):
    """What the administrator has configured for a device; None: nothing."""

    managers: frozenset[int] | None = None  # users; None: the first manager's user, as the driver
    users: frozenset[int] | None = None  # may open it, as root may
    groups: frozenset[int] | None = None  # their members may open it

    def is_open(self) -> bool:
        """Whether there is no list, so that only the mode counts."""
        return self.users is None and self.groups is None

    def admits(self, user: int, groups: frozenset[int]) -> bool:
        """Return whether a user may open the device.

        Args:
            user: effective.
            groups: the effective one and the supplementary ones.
        """
        if user == ROOT or self.is_open():
            return True
        return user in (self.users or ()) or not groups.isdisjoint(self.groups or ())
