# SPDX-License-Identifier: Apache-2.0
"""Who may open a device, and who may become its context manager, beside what its mode says.

Users and groups are numbers of the daemon's user namespace. Nothing here may know their names.
"""

from __future__ import annotations

from typing import NamedTuple

ROOT = 0


class Policy(NamedTuple):
    """What a device's administrator has settled; None: nothing."""

    managers: frozenset[int] | None = None  # users; None: the first manager's user, as the driver
    users: frozenset[int] | None = None  # who may open it, beside root
    groups: frozenset[int] | None = None  # whose members may open it

    def is_open(self) -> bool:
        """Whether everybody may open the device."""
        return self.users is None and self.groups is None

    def admits(self, user: int, groups: frozenset[int]) -> bool:
        """Return whether somebody may open the device.

        Args:
            user: effective.
            groups: the effective one and the supplementary ones.
        """
        if user == ROOT or self.is_open():
            return True
        return user in (self.users or ()) or not groups.isdisjoint(self.groups or ())
