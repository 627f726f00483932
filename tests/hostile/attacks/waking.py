# SPDX-License-Identifier: Apache-2.0
"""No attack at all: processes that wake each other, and have no device (size: how many at once).

As ``computing``, of attacks whose processes are short of work rather than of a processor.
"""

from __future__ import annotations

from hostile.means import begin, child, finish, for_seconds, os, say

SECONDS = 4.0
TURN = range(2_000)  # some 20 microseconds, as long as a call keeps a processor busy

place = begin()
turn, answer = os.pipe(), os.pipe()


def take_turns() -> None:
    while os.read(turn[0], 1):
        sum(TURN)
        os.write(answer[1], b".")


def round_trip() -> None:
    os.write(turn[1], b"." * place.size)
    for _ in range(place.size):
        os.read(answer[0], 1)


for _ in range(place.size):
    child(take_turns)
say("now")
for_seconds(SECONDS, round_trip)
finish()
