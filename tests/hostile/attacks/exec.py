# SPDX-License-Identifier: Apache-2.0
"""A receiver of files, one thread of which executes a program that never comes: nobody attaches."""

from __future__ import annotations

import ctypes
from threading import Thread

from binderwire import binder_abi as abi
from hostile.means import (
    Device,
    Parcel,
    SilentMount,
    Tell,
    begin,
    child_that_says,
    finish,
    manager,
    os,
    rest,
    say,
)

silent = SilentMount()
place = begin()


def execute() -> None:
    """Not by ``os.execv``, which keeps Python's lock."""
    name = silent.file.encode()
    ctypes.CDLL(None).execv(name, (ctypes.c_char_p * 2)(name, None))


def receive(tell: Tell) -> None:
    device = Device(f"{place.devices}/his", 4 << 20)
    manager(device)
    Thread(target=execute, daemon=True).start()
    silent.wait_until_asked()
    tell()
    device.write_read(b"", 256)
    rest()


child_that_says(receive)
device = Device(f"{place.devices}/his")
file = abi.binder_fd_object.build(type=abi.BINDER_TYPE_FD, fd=os.open("/dev/null", os.O_RDONLY))
parcel = Parcel([file], flags=abi.TF_ONE_WAY | abi.TF_ACCEPT_FDS)
say("now")
device.write_read(parcel.command, 256)
finish()
