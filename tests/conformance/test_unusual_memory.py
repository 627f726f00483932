# SPDX-License-Identifier: Apache-2.0
"""What only a kernel reaches: memory and files that nobody else gets at (E2, O7)."""

from __future__ import annotations

from errno import EINTR
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from binderwire.binder_abi import (
    BINDER_CURRENT_PROTOCOL_VERSION,
    BINDER_THREAD_EXIT,
    BINDER_VERSION,
    BINDER_WRITE_READ,
    BR_FAILED_REPLY,
    BR_NOOP,
    BR_TRANSACTION,
    BR_TRANSACTION_COMPLETE,
    binder_version,
    binder_write_read,
)
from conformance.test_descriptors import welcoming
from support import bc
from support.playbook import statements
from support.scenes import answer, get_call, get_reply, manager_and_client
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.playbook import World

NO_MAPPINGS = "it knows nothing of mapping"
# Then what is only executable cannot be read, also not by a driver in the name of its owner.
HAS_PROTECTION_KEYS = " ospke" in Path("/proc/cpuinfo").read_text(encoding="utf-8")


@statements("E2", "BC_TRANSACTION")
@pytest.mark.parametrize("kind", ["secret", "execute", "kernel"])
def test_a_payload_in_memory_that_no_other_process_can_read(world: World, kind: str) -> None:
    if world.differs("engine", reason=NO_MAPPINGS):
        return
    scene = manager_and_client(world)
    try:
        address = scene.client.proc.unusual_memory(kind, b"whisper.")
    except OSError as error:
        world.excuse(f"no memory of the kind {kind} here: {error}")
        return
    command = bc.oneway(0, data_size=8, buffer=address)
    reason = "the payload is read from another process"
    is_unreadable = kind == "execute" and HAS_PROTECTION_KEYS
    if is_unreadable or world.differs("fuse", "cuse", reason=reason):
        assert_br(scene.client.write_read(command), BR_NOOP, BR_FAILED_REPLY)
        return
    assert_br(scene.client.write_read(command), BR_NOOP, BR_TRANSACTION_COMPLETE)
    call = get_call(scene.server)
    assert call.data_size == 8
    assert kind == "kernel" or call.data == b"whisper."


@statements("BINDER_WRITE_READ", "BINDER_VERSION", "R9")
def test_an_argument_that_is_not_there_yet(world: World) -> None:
    """Nobody has used the page that it is in; it is read and written back all the same."""
    if world.differs("engine", reason=NO_MAPPINGS):
        return
    scene = manager_and_client(world)
    client = scene.client
    version = client.start_late_ioctl(BINDER_VERSION, b"\xa5" * 4).wait()
    assert version == (0, binder_version.pack(BINDER_CURRENT_PROTOCOL_VERSION))
    room = client.proc.unusual_memory("untouched", bytes(256))
    asked = binder_write_read.pack(0, 0, 0, 256, 0, room)
    for _ in range(2):
        sleeping = client.start_late_ioctl(BINDER_WRITE_READ, asked)
        assert sleeping.parked
        client.signal()
        errno, argument = sleeping.wait()
        assert errno == EINTR
        assert argument == asked
    assert client.start_late_ioctl(BINDER_THREAD_EXIT, bytes(4)).wait()[0] == 0


@statements("BC_TRANSACTION", "BR_TRANSACTION", "BC_REPLY")
@pytest.mark.parametrize("size", [16, 4000])
def test_a_payload_that_is_not_there_yet(world: World, size: int) -> None:
    """Each side passes memory that it has mapped and not used."""
    if world.differs("engine", reason=NO_MAPPINGS):
        return
    scene = manager_and_client(world)
    question, reply = (bytes([number]) * size for number in (1, 2))
    address = scene.client.proc.unusual_memory("untouched", question)
    started = scene.client.start(bc.call(0, data_size=size, buffer=address))
    call = get_call(scene.server)
    assert call.data == question
    address = scene.server.proc.unusual_memory("untouched", reply)
    scene.server.write(bc.free(call.buffer), bc.reply(data_size=size, buffer=address))
    assert get_reply(started).data == reply


@statements("O7")
def test_an_io_uring_is_a_file_like_others(world: World) -> None:
    scene = welcoming(world)
    try:
        fd = scene.client.proc.new_file("uring")
    except OSError as error:
        world.excuse(f"no io_uring here: {error}")
        return
    started = scene.client.start(bc.call(0, bc.payload(bc.fd(fd))))
    sleeping = scene.server.start()
    if world.differs("fuse", "cuse", reason="no socket takes an io_uring along"):
        assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_FAILED_REPLY)
        assert sleeping.parked
        return
    call = assert_br(sleeping.result(), BR_NOOP, BR_TRANSACTION)[0]
    assert scene.client.proc.has_same_file(fd, scene.manager, call.records[0].fd)
    answer(scene.server, call)
    get_reply(started)
