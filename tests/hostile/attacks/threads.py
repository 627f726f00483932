# SPDX-License-Identifier: Apache-2.0
"""Every thread of a process uses every file of it (size: threads): each pair costs something."""

from __future__ import annotations

import threading

from hostile.means import Device, begin, finish, say

FILES = 320

place = begin()
files: list[Device] = []
started = threading.Semaphore(0)
threading.stack_size(1 << 16)


def use() -> None:
    for file in files:
        try:
            file.version()
        except OSError:
            break
    started.release()
    threading.Event().wait()


say("now")
for _ in range(FILES):
    try:
        files.append(Device(f"{place.devices}/his", 4096))
    except OSError:
        break
for _ in range(place.size):
    threading.Thread(target=use, daemon=True).start()
for _ in range(place.size):
    started.acquire()
finish()
