# SPDX-License-Identifier: Apache-2.0
"""One process opens a device again and again, until it cannot (size: at most)."""

from __future__ import annotations

from hostile.means import begin, finish, os, say

place = begin()
say("now")
for _ in range(place.size):
    try:
        os.open(f"{place.devices}/his", os.O_RDWR)
    except OSError:
        break
finish()
