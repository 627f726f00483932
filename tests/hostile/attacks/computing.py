# SPDX-License-Identifier: Apache-2.0
"""No attack at all: processes that compute, and have no device (size: how many).

What the victims see of it is the scheduler's doing. It is the measure for attacks by many processes
at once: no daemon could make those cost less.
"""

from __future__ import annotations

from hostile.means import begin, child, finish, for_seconds, os, say

SECONDS = 4.0

place = begin()
say("now")
for number in [
    child(lambda: for_seconds(SECONDS, lambda: sum(range(10_000)))) for _ in range(place.size)
]:
    os.waitpid(number, 0)
finish()
