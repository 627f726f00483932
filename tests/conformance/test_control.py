# SPDX-License-Identifier: Apache-2.0
"""Making devices: BINDER_CTL_ADD on the control file, where there is one."""

from __future__ import annotations

from errno import EACCES, EEXIST, EINVAL
from typing import TYPE_CHECKING

import pytest

from binderwire.binder_abi import BINDER_CTL_ADD, BINDER_VERSION, BINDER_WRITE_READ, binderfs_device
from support.playbook import statements
from support.scenes import Scene, round_trip

if TYPE_CHECKING:
    from support.playbook import World

NO_CONTROL = "it has no control file here"
NAME_SIZE_MAX = 255  # bytes


def device(name: bytes) -> bytes:
    return binderfs_device.build(name=name.ljust(256, b"\0"))


@statements("BINDER_CTL_ADD", "I5")
def test_a_device_that_was_made_works_as_any_other(world: World) -> None:
    answer = world.control(BINDER_CTL_ADD, device(b"made-to-work"))
    if answer is None:
        world.excuse(NO_CONTROL)
        return
    errno, argument = answer
    assert errno == 0
    assert binderfs_device.read(argument).name.rstrip(b"\0") == b"made-to-work"
    manager = world.open("made-to-work")
    manager.become_manager()
    round_trip(Scene(manager.looper(), world.open("made-to-work").seasoned()), b"call", b"reply")


@statements("BINDER_CTL_ADD")
def test_devices_have_numbers_of_their_own(world: World) -> None:
    minors = []
    for name in (b"made-first", b"made-second"):
        answer = world.control(BINDER_CTL_ADD, device(name))
        if answer is None:
            world.excuse(NO_CONTROL)
            return
        assert answer[0] == 0
        minors.append(binderfs_device.read(answer[1]).minor)
    assert minors[0] != minors[1]


@statements("BINDER_CTL_ADD")
def test_a_name_is_taken_once(world: World) -> None:
    answer = world.control(BINDER_CTL_ADD, device(b"made-once"))
    if answer is None:
        world.excuse(NO_CONTROL)
        return
    assert answer[0] == 0
    for name in (b"made-once", b"binder-control"):
        answer = world.control(BINDER_CTL_ADD, device(name))
        assert answer is not None
        assert answer[0] == EEXIST


BAD_NAMES = [b"", b".", b"..", b"a/b", b"/"]


@statements("BINDER_CTL_ADD")
@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_what_is_no_name_is_refused(world: World, name: bytes) -> None:
    answer = world.control(BINDER_CTL_ADD, device(name))
    if answer is None:
        world.excuse(NO_CONTROL)
        return
    assert answer[0] == EACCES


@statements("BINDER_CTL_ADD")
def test_a_name_that_does_not_end_is_cut(world: World) -> None:
    name = b"made-" + b"x" * 251
    answer = world.control(BINDER_CTL_ADD, device(name))
    if answer is None:
        world.excuse(NO_CONTROL)
        return
    assert answer[0] == 0
    thread = world.open(name[:NAME_SIZE_MAX].decode()).seasoned()
    assert thread.ioctl(BINDER_VERSION, bytes(4))[0] == 0


@statements("unknown ioctl")
@pytest.mark.parametrize("request_", [BINDER_VERSION, BINDER_WRITE_READ, 0xC0046263])
def test_the_control_file_is_no_device(world: World, request_: int) -> None:
    answer = world.control(request_, bytes(48))
    if answer is None:
        world.excuse(NO_CONTROL)
        return
    assert answer[0] == EINVAL


@statements("unknown ioctl", "BINDER_CTL_ADD")
def test_a_device_makes_no_devices(world: World) -> None:
    argument = device(b"made-nowhere")
    assert world.open().seasoned().ioctl(BINDER_CTL_ADD, argument) == (EINVAL, argument)
