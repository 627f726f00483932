# SPDX-License-Identifier: Apache-2.0
"""As many nodes as one user may have, on five devices, and somebody who reads the log ``state``."""

from __future__ import annotations

from pathlib import Path

from hostile.means import (
    Device,
    Parcel,
    Tell,
    begin,
    binders,
    child_that_says,
    finish,
    for_seconds,
    own_receiver,
    rest,
    say,
)

SECONDS = 4.0
STEP = 8192  # nodes a call

place = begin()


def fill(path: str) -> None:
    own_receiver(path)

    def send(tell: Tell) -> None:
        device = Device(path)
        for first in range(1, place.size // 5, STEP):
            device.write_read(Parcel(binders(STEP, first)).command, 256)
        tell()
        rest()

    child_that_says(send)


for name in ("his", "his1", "his2", "his3", "his4"):
    fill(f"{place.devices}/{name}")
say("now")
for_seconds(SECONDS, Path(f"{place.devices}/binder_logs/state").read_text)
finish()
