# SPDX-License-Identifier: Apache-2.0
"""A silent page of a program whose thread that opened the device has ended."""

from __future__ import annotations

from threading import Thread

from hostile.means import Device, SilentMount, begin, finish, map_page_by_page, say, write_from

silent = SilentMount()
place = begin()
opened: list[Device] = []
opener = Thread(target=lambda: opened.append(Device(f"{place.devices}/his")))
opener.start()
opener.join()
address = map_page_by_page(silent.file, 4)
say("now")
write_from(opened[0], address, 64)
finish()
