# SPDX-License-Identifier: Apache-2.0
"""One user keeps logs open, as many as there may be (size: at most)."""

from __future__ import annotations

from hostile.means import begin, finish, os, say

place = begin()
say("now")
for _ in range(place.size):
    try:
        os.open(f"{place.devices}/binder_logs/state", os.O_RDONLY)
    except OSError:
        break
finish()
