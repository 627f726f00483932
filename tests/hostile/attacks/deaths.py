# SPDX-License-Identifier: Apache-2.0
"""So many deaths that are told with one cookie, and not acknowledged; then the file is closed."""

from __future__ import annotations

import struct

from binderwire import binder_abi as abi
from hostile.means import (
    Device,
    Parcel,
    Tell,
    begin,
    binders,
    child_that_says,
    finish,
    manager,
    os,
    peek,
    rest,
    say,
)

STEP = 4096  # nodes a call
COOKIE = 7

place = begin()
path = f"{place.devices}/his"
device = Device(path, 4 << 20)
manager(device)


def send(tell: Tell) -> None:
    mine = Device(path)
    for first in range(1, place.size + 1, STEP):
        parcel = Parcel(binders(min(STEP, place.size + 1 - first), first), flags=0)
        mine.write_read(parcel.command, 0)
        tell()
        while struct.pack("=I", abi.BR_REPLY) not in mine.write_read(b"", 256):
            pass
    rest()


def handles_of(returns: bytes) -> tuple[int, list[int]]:
    """Return the address of a call's buffer, and the handles in it."""
    at = returns.index(struct.pack("=I", abi.BR_TRANSACTION)) + 4
    call = abi.binder_transaction_data.read(returns, at)
    data = peek(call.buffer, call.data_size)
    return call.buffer, [n & 0xFFFFFFFF for _, _, n, _ in struct.iter_unpack("=IIQQ", data)]


owner = child_that_says(send)
commands = struct.pack("=I", abi.BC_ENTER_LOOPER)
known = 0
while known < place.size:
    returns = device.write_read(commands, 256)
    commands = b""
    if struct.pack("=I", abi.BR_TRANSACTION) not in returns:
        continue
    buffer, handles = handles_of(returns)
    known += len(handles)
    take = struct.Struct("=II")
    watch = struct.Struct("=IIQ")
    commands = b"".join(take.pack(abi.BC_ACQUIRE, handle) for handle in handles)
    commands += b"".join(
        watch.pack(abi.BC_REQUEST_DEATH_NOTIFICATION, handle, COOKIE) for handle in handles
    )
    commands += struct.pack("=IQ", abi.BC_FREE_BUFFER, buffer)
    commands += struct.pack("=I", abi.BC_REPLY) + abi.binder_transaction_data.build()
device.write_read(commands, 0)
os.kill(owner, 9)
os.waitpid(owner, 0)
say("now")
told = 0
while told < place.size:
    told += struct.pack("=I", abi.BR_DEAD_BINDER) in device.write_read(b"", 256)
os.close(device.fd)
finish()
