# SPDX-License-Identifier: Apache-2.0
"""What a client of the extension does, good and bad, for clients of these tests."""

from __future__ import annotations

import array
import os
import socket
import struct

from rawclient import Device, map_file

from binderwire import extension_abi as ext

DEAD = socket.AF_UNIX, socket.SOCK_SEQPACKET


def info(device: Device) -> tuple[int, int, int]:
    answer = device.ioctl(ext.BINDERD_GET_INFO, bytes(ext.binderd_info.size))
    return ext.binderd_info.unpack(answer)


def attach(device: Device, fd: int, flags: int = ext.BINDERD_ATTACH_AREA) -> None:
    device.ioctl(ext.BINDERD_ATTACH, struct.pack("=iI", fd, flags))


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def take(end: socket.socket) -> tuple[tuple[int, ...], list[int]]:
    """Return the fields of the message that waits, and its descriptors."""
    octets, fds, _, _ = socket.recv_fds(end, 4096, 253, socket.MSG_DONTWAIT)
    return ext.binderd_message.unpack_from(octets), fds


def area(device: Device) -> int:
    """Return a descriptor of the receive area."""
    ours, theirs = pair()
    attach(device, theirs.fileno())
    (kind, count, value, left), [fd] = take(ours)
    assert (kind, count, value, left) == (ext.BINDERD_AREA, 1, 4 << 20, 0)
    return fd


def mapped(path: str, size: int = 1 << 20) -> Device:
    """Return a device whose receive area came through the extension."""
    device = Device(path, size=0)
    fd = area(device)
    device.size, device.address = size, map_file(fd, size)
    os.close(fd)
    return device


def fill(end: socket.socket) -> None:
    """Send until nothing more goes in."""
    end.setblocking(False)
    while True:
        try:
            end.send(bytes(64))
        except BlockingIOError:
            return


def send_fd(end: socket.socket, fd: int) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
    end.sendmsg([b"x"], rights)


def attach_new(device: Device, flags: int) -> socket.socket:
    """Attach a new socket; return our end."""
    ours, theirs = pair()
    with theirs:
        attach(device, theirs.fileno(), flags)
    return ours
