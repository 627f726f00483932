# SPDX-License-Identifier: Apache-2.0
"""Random clients see the same on the engine alone and on a real device.

Where the machine has Linux's own driver, that is one of the devices: then this compares us with it
in situations that no scenario was written for.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from support.backends import BACKENDS
from support.duel import Duel
from support.engine_world import EngineWorld

if TYPE_CHECKING:
    from support.playbook import World

DEVICES = [name for name in BACKENDS if name != "engine"]
SEEDS = range(12)
STEPS = 80


@pytest.mark.parametrize("world", DEVICES, indirect=True)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_engine_and_the_device_agree(world: World, seed: int) -> None:
    engine = EngineWorld()
    duel = Duel((engine, world), Random(seed).randrange)
    duel.start()
    for _ in range(STEPS):
        duel.step()
    assert duel.seen > 20
    engine.close()
    engine.assert_empty()
