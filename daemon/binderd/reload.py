# SPDX-License-Identifier: Apache-2.0
"""SIGHUP: taking over what the configuration says now, as far as a running daemon can.

Nothing here may know requests or trio.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from binderd.access import put_into_force
from binderd.config import changed
from binderd.config_file import ConfigError
from binderd.engine.limits import WAITING_BYTES
from binderd.linux.sd_notify import notify
from binderd.start import limits_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.config import Settings
    from binderd.engine.engine import Engine
    from binderd.fuse.directory import Directory
    from binderd.fuse.turns import Turns
    from binderd.links import Links

_log: Final = logging.getLogger("binderd")


class Reload:
    """What can be changed, and the settings that are in force.

    Args:
        settings: those that the daemon was started with.
        reread: returns what the configuration says now; raises ConfigError.
        directory: the devices.
        links: to them, None if there can be none.
        engine: gets the limits.
        turns: gets those of waiting requests.
        set_log_level: called with the new one.
    """

    def __init__(
        self,
        settings: Settings,
        reread: Callable[[], Settings],
        directory: Directory,
        links: Links | None,
        engine: Engine,
        turns: Turns,
        set_log_level: Callable[[str], None],
    ) -> None:
        self.settings = settings
        self._reread = reread
        self._directory = directory
        self._links = links
        self._engine = engine
        self._turns = turns
        turns.set_room(*engine.limits.of(WAITING_BYTES))
        self._restrict(settings)
        self._set_log_level = set_log_level

    def run(self) -> None:
        """Read the configuration and take it over; a mistake leaves all as it was."""
        notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            wanted = self._reread()
        except ConfigError as error:
            _log.error("SIGHUP: all stays as it was: %s", error)
        else:
            self._take_over(wanted)
        notify("READY=1")

    def _take_over(self, wanted: Settings) -> None:
        taken, left = changed(self.settings, wanted)
        if "log_level" in taken:
            self._set_log_level(wanted.log_level)
        if "limits" in taken:
            self._engine.set_limits(limits_for(wanted.limits))
            self._turns.set_room(*self._engine.limits.of(WAITING_BYTES))
        self._restrict(wanted)  # also if nothing is new: names may be somebody's by now
        devices = self._change_devices(wanted)
        self.settings = replace(
            self.settings,
            devices=devices,
            max_devices=wanted.max_devices,
            log_level=wanted.log_level,
            limits=wanted.limits,
            manager_uid=wanted.manager_uid,
            allow_users=wanted.allow_users,
            allow_groups=wanted.allow_groups,
            freeze=wanted.freeze,
        )
        _log.info("SIGHUP: %s", f"a new {', '.join(taken)}" if taken else "nothing is new")
        if left:
            _log.warning("SIGHUP: a new %s needs a restart", ", ".join(left))

    def _restrict(self, wanted: Settings) -> None:
        for complaint in put_into_force(wanted, self._directory, self._engine):
            _log.warning("%s", complaint)

    def _change_devices(self, wanted: Settings) -> tuple[str, ...]:
        """Return what devices there are now."""
        old = self.settings.devices
        if self.settings.transport in {"cuse", "both"}:
            if wanted.devices != old:
                _log.warning("SIGHUP: other character devices need a restart")
            return old
        refused = self._directory.configure(
            old, wanted.devices, wanted.max_devices, self.settings.access
        )
        for name in refused:
            _log.error("SIGHUP: no device %r: its name is taken, or there are too many", name)
        devices = tuple(name for name in wanted.devices if name not in refused)
        for complaint in self._links.update(devices) if self._links is not None else ():
            _log.warning("SIGHUP: %s", complaint)
        return devices
