# SPDX-License-Identifier: Apache-2.0
"""Commands on pages of a file system that gives out one after the other, each late (size: ms)."""

from __future__ import annotations

import sys

from hostile.means import Device, SilentMount, begin, finish, map_page_by_page, say, write_from

PAGES = 4

silent = SilentMount(PAGES, int(sys.argv[2]) / 1000)
place = begin()
device = Device(f"{place.devices}/his")
address = map_page_by_page(silent.file, PAGES)
say("now")
write_from(device, address, PAGES * 4096)
finish()
