# SPDX-License-Identifier: Apache-2.0
"""Processes open and close, and look at, the victims' device all the time (size: how many)."""

from __future__ import annotations

from contextlib import suppress

from hostile.means import begin, child, finish, for_seconds, os, say, time

SECONDS = 4.0
FOR_EVER = 1e9

place = begin()
device = f"{place.devices}/hers"


def open_it() -> None:
    with suppress(OSError):  # there are too many already
        os.close(os.open(device, os.O_RDWR))


def look_at_it() -> None:
    os.stat(device)


say("now")
for number in range(place.size):
    does = look_at_it if number % 2 else open_it
    child(lambda does=does: for_seconds(FOR_EVER, does))
time.sleep(SECONDS)
finish()
