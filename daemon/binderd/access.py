# SPDX-License-Identifier: Apache-2.0
"""Putting into force which users may do what, as the configuration says.

An entry of --manager-uid, --allow-user or --allow-group is ``ACCOUNT`` or ``DEVICE=ACCOUNT``. A
device goes by the entries that name it; if there are none, by those that name no device.

A name that the machine does not have stands for no user; if it is added later, the next SIGHUP lets
that user in. A list without any user lets no user in.
"""

from __future__ import annotations

import grp
import pwd
from typing import TYPE_CHECKING

from binderd.fuse.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from binderd.config import Settings
    from binderd.engine.engine import Engine
    from binderd.fuse.directory import Directory


class Accounts:
    """The entries of one option.

    Args:
        option: its name, for complaints.
        entries: as they were given; checked.
        find: returns the number of a name; raises KeyError.
    """

    def __init__(self, option: str, entries: Sequence[str], find: Callable[[str], int]) -> None:
        self.complaints: list[str] = []
        self._by_device: dict[str, set[int]] = {}  # "": of all others
        for entry in entries:
            device, _, name = entry.rpartition("=")
            numbers = self._by_device.setdefault(device, set())
            try:
                numbers.add(int(name) if name.isdecimal() else find(name))
            except KeyError:
                self.complaints.append(f"{option} {entry}: {name} is nobody on this machine")

    def of(self, device: str) -> frozenset[int] | None:
        """Return the numbers for a device; None: no entry is about it."""
        uids = self._by_device.get(device, self._by_device.get(""))
        return None if uids is None else frozenset(uids)


def put_into_force(settings: Settings, directory: Directory, engine: Engine) -> list[str]:
    """Use these settings from now on; files that are open stay open.

    Returns:
        What is wrong with them, though it does not matter to anything else.
    """
    managers = Accounts("manager-uid", settings.manager_uid, _user)
    users = Accounts("allow-users", settings.allow_users, _user)
    groups = Accounts("allow-groups", settings.allow_groups, _group)

    def policy(device: str) -> Policy:
        return Policy(managers.of(device), users.of(device), groups.of(device))

    directory.set_policies(policy)
    engine.set_access(directory.managers_of, freezes_others=settings.freeze == "any")
    return managers.complaints + users.complaints + groups.complaints


def _user(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _group(name: str) -> int:
    return grp.getgrnam(name).gr_gid
