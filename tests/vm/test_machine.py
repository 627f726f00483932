# SPDX-License-Identifier: Apache-2.0
"""Inside the machine: the real driver is there and does what everything else here builds upon.

Run as a program, this file is the service that the transaction's test calls.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from binderwire import binder_abi as abi
from binderwire.commands import message, read_stream

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICES = ["binder", "hwbinder", "vndbinder", *(f"binder{number}" for number in range(1, 9))]
AREA_SIZE = 128 << 10
READ_SIZE = 256
CODE = 42


class Device:
    """An open, mapped binder device; one thread uses it."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self.area = mmap.mmap(self.fd, AREA_SIZE, mmap.MAP_PRIVATE, mmap.PROT_READ)

    def close(self) -> None:
        self.area.close()
        os.close(self.fd)

    def exchange(self, commands: bytes) -> list[tuple[str, Any]]:
        """Write commands, then block until something can be read; return it as (name, fields)."""
        written = ctypes.create_string_buffer(commands, len(commands))
        room = ctypes.create_string_buffer(READ_SIZE)
        request = bytearray(
            abi.binder_write_read.build(
                write_size=len(commands),
                write_buffer=ctypes.addressof(written),
                read_size=READ_SIZE,
                read_buffer=ctypes.addressof(room),
            )
        )
        fcntl.ioctl(self.fd, abi.BINDER_WRITE_READ, request)
        done = abi.binder_write_read.read(request)
        assert done.write_consumed == len(commands)
        stream = read_stream(abi.RETURNS, room.raw, 0, done.read_consumed)
        return [(item.message.name, item.fields) for item in stream]


def transaction(word: int, payload: ctypes.Array[ctypes.c_char], **fields: int) -> bytes:
    where = {"data_size": len(payload), "buffer": ctypes.addressof(payload)}
    return message(abi.COMMANDS, word, **where, **fields)


def octets_at(address: int, size: int) -> bytes:
    return ctypes.string_at(address, size)


def serve_one_call(path: str) -> None:
    """Be the context manager, answer one call with its bytes reversed, then end."""
    device = Device(path)
    fcntl.ioctl(device.fd, abi.BINDER_SET_CONTEXT_MGR, 0)
    commands = message(abi.COMMANDS, abi.BC_ENTER_LOOPER)
    print("ready", flush=True)
    call = None
    while call is None:
        received = dict(device.exchange(commands))
        call, commands = received.get("BR_TRANSACTION"), b""
    assert (call.code, call.sender_pid) == (CODE, os.getppid())
    answer = ctypes.create_string_buffer(
        octets_at(call.buffer, call.data_size)[::-1], call.data_size
    )
    freed = message(abi.COMMANDS, abi.BC_FREE_BUFFER, value=call.buffer)
    returned = device.exchange(freed + transaction(abi.BC_REPLY, answer))
    assert [name for name, _ in returned] == ["BR_NOOP", "BR_TRANSACTION_COMPLETE"]


@pytest.fixture
def device() -> Iterator[Device]:
    opened = Device("/dev/binder")
    yield opened
    opened.close()


@pytest.mark.parametrize("name", DEVICES)
def test_every_device_speaks_protocol_8(name: str) -> None:
    fd = os.open(f"/dev/{name}", os.O_RDWR | os.O_CLOEXEC)
    answer = bytearray(abi.binder_version.size)
    fcntl.ioctl(fd, abi.BINDER_VERSION, answer)
    os.close(fd)
    assert abi.binder_version.read(answer).protocol_version == abi.BINDER_CURRENT_PROTOCOL_VERSION


def test_it_is_the_kernels_driver_beside_cuse_and_fuse() -> None:
    assert Path("/sys/module/binder_linux").is_dir()
    assert Path("/sys/kernel/debug/binder/state").read_text().startswith("binder state:")
    for path in ("/dev/cuse", "/dev/fuse"):
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))


def test_the_receive_area_cannot_be_mapped_writable() -> None:
    fd = os.open("/dev/binder", os.O_RDWR | os.O_CLOEXEC)
    with pytest.raises(PermissionError):
        mmap.mmap(fd, AREA_SIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    os.close(fd)


def test_a_null_argument_makes_the_context_manager_and_only_one(device: Device) -> None:
    fcntl.ioctl(device.fd, abi.BINDER_SET_CONTEXT_MGR, 0)
    other = os.open("/dev/binder", os.O_RDWR | os.O_CLOEXEC)
    with pytest.raises(OSError, match=os.strerror(errno.EBUSY)) as refusal:
        fcntl.ioctl(other, abi.BINDER_SET_CONTEXT_MGR, 0)
    os.close(other)
    assert refusal.value.errno == errno.EBUSY


def test_a_call_goes_from_process_to_process_and_back(device: Device) -> None:
    command = [sys.executable, __file__, "/dev/binder"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as service:
        assert service.stdout
        assert service.stdout.readline() == b"ready\n"
        payload = ctypes.create_string_buffer(b"from the other side", 19)
        # Our first ioctl may return without the answer (R6); the later ones wait for it.
        returned = device.exchange(transaction(abi.BC_TRANSACTION, payload, target=0, code=CODE))
        while "BR_REPLY" not in dict(returned):
            returned += device.exchange(b"")
        names = [name for name, _ in returned if name != "BR_NOOP"]
        assert names == ["BR_TRANSACTION_COMPLETE", "BR_REPLY"]
        reply = dict(returned)["BR_REPLY"]
        assert octets_at(reply.buffer, reply.data_size) == payload.raw[::-1]
    assert service.returncode == 0


if __name__ == "__main__":
    serve_one_call(sys.argv[1])
