# SPDX-License-Identifier: Apache-2.0
"""Commands on a page that never comes, by one process after the other (size: how many)."""

from __future__ import annotations

import sys

from hostile.means import (
    Device,
    SilentMount,
    begin,
    child,
    finish,
    map_page_by_page,
    os,
    say,
    write_from,
)

mounts = [SilentMount(name=f"silent{number}") for number in range(int(sys.argv[2]))]
place = begin()


def use_page(silent: SilentMount) -> None:
    device = Device(f"{place.devices}/his")
    write_from(device, map_page_by_page(silent.file, 1), 64)


say("now")
for silent in mounts:
    os.waitpid(child(lambda silent=silent: use_page(silent)), 0)
finish()
