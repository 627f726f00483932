# SPDX-License-Identifier: Apache-2.0
"""A world in which whatever can pause does, and stays so until it is told to go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.scenes import Scene, manager_and_client

if TYPE_CHECKING:
    from support.engine_world import EngineWorld


def pausing_scene(world: EngineWorld) -> Scene:
    """A manager and a client; from now on what can pause does, and stays so."""
    scene = manager_and_client(world)
    world.engine.set_pace(lambda: True)
    world.lets_pause = True
    return scene


def go_on(world: EngineWorld) -> int:
    """Go on with all that is paused, to the end; return how many slices that took."""
    before = world.pauses
    while world.engine.paused:
        world.go_on()
    return world.pauses - before
