# SPDX-License-Identifier: Apache-2.0
"""Very many processes in a user namespace of their own call one another's device in turn.

They end one after the other: 1,543 that are killed at once, and have nothing to do with a device,
hold up everybody on two processors for 0.7 s by themselves.
"""

from __future__ import annotations

import signal

from hostile.means import (
    Device,
    Parcel,
    begin,
    child,
    finish,
    for_seconds,
    os,
    own_namespace,
    own_receiver,
    say,
)

SECONDS = 4.0

place = begin()
own_namespace()
own_receiver(f"{place.devices}/his")
turn, answer = os.pipe(), os.pipe()


def take_turns() -> None:
    try:
        device = Device(f"{place.devices}/his", 0)
    except OSError:
        os.write(answer[1], b"x")
        return
    parcel = Parcel()
    os.write(answer[1], b".")
    while os.read(turn[0], 1):
        device.write_read(parcel.command, 256)
        os.write(answer[1], b".")


def round_trip() -> None:
    os.write(turn[1], b"." * 16)
    for _ in range(16):
        os.read(answer[0], 1)


children = []
for _ in range(place.size):
    children.append(child(take_turns))
    if os.read(answer[0], 1) == b"x":
        break  # as many as there may be
say("now")
for_seconds(SECONDS, round_trip)
for number in children:
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
finish()
