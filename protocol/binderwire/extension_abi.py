# SPDX-License-Identifier: Apache-2.0
"""binderd's own extension of the ABI; all other formats of this package are Linux's or Android's.

It is for clients that know that they talk to binderd: they get their receive area where the kernel
has no mmap for the device, descriptors without being stopped for it, and lanes, memory through
which a thread's requests go without a system call. docs/EXTENSION.md tells how each is used.
Linux's own driver answers these ioctls with EINVAL, as it does all that it does not know, so a
client can try.
"""

from __future__ import annotations

from errno import EREMOTEIO, ERESTART
from typing import Final

from binderwire.binder_abi import Message
from binderwire.codec import Record, Struct, pad, s32, u32, u64
from binderwire.ioc import IOC_NONE, IOC_READ, IOC_WRITE, ioc

BINDERD_VERSION: Final = 1

# The ioctls

binderd_info = Record(
    "binderd_info",
    Struct("version" / u32, "flags" / u32, "area_size" / u64),  # area_size: bytes, at most
)
binderd_attach = Record("binderd_attach", Struct("socket" / s32, "flags" / u32))
binderd_installed = Record(
    "binderd_installed",
    Struct("id" / u64, "error" / s32, "count" / u32, "numbers" / u64),  # numbers: of s32[count]
)

binderd_lane = Record(
    "binderd_lane",
    # memory: a memfd that cannot shrink; address: where the thread has mapped its first size bytes
    Struct("memory" / s32, "flags" / u32, "size" / u32, pad(4), "address" / u64),
)

# binderd_info.flags
BINDERD_HAS_MMAP: Final = 0x01  # mmap of the device shows the receive area
BINDERD_INJECTS: Final = 0x02  # clients that do not attach get descriptors as well, by ptrace
BINDERD_HAS_LANES: Final = 0x04  # threads can have lanes

# binderd_attach.flags
BINDERD_ATTACH_AREA: Final = 0x01  # send the receive area, now
BINDERD_ATTACH_FILES: Final = 0x02  # send descriptors, from now on

# binderd_lane.flags
BINDERD_LANE_QUIET: Final = 0x01  # a reply that has arrived is no news: no BR_TRANSACTION_COMPLETE

IOCTLS: Final[dict[int, Message]] = {}


def _ioctl(direction: int, number: int, name: str, payload: Record) -> int:
    word = ioc(direction, "b", number, payload.size)
    IOCTLS[word] = Message(name, word, payload)
    return word


BINDERD_GET_INFO: Final = _ioctl(IOC_READ, 0xB0, "BINDERD_GET_INFO", binderd_info)
BINDERD_ATTACH: Final = _ioctl(IOC_WRITE, 0xB1, "BINDERD_ATTACH", binderd_attach)
BINDERD_INSTALLED: Final = _ioctl(IOC_WRITE, 0xB2, "BINDERD_INSTALLED", binderd_installed)

# What the close of one descriptor of several does with the driver (statement I4): all threads
# that wait in a read return with nothing. CUSE does not tell the daemon of such a close.
BINDERD_FLUSH: Final = ioc(IOC_NONE, "b", 0xB3, 0)
IOCTLS[BINDERD_FLUSH] = Message("BINDERD_FLUSH", BINDERD_FLUSH, None)

# Lanes: a thread's BINDER_WRITE_READ in memory that the daemon looks at, without a system call.
BINDERD_LANE: Final = _ioctl(IOC_WRITE, 0xB4, "BINDERD_LANE", binderd_lane)
# Wait until what was asked in the lane is answered; and the same after a signal has come.
BINDERD_ENTER: Final = ioc(IOC_NONE, "b", 0xB5, 0)
IOCTLS[BINDERD_ENTER] = Message("BINDERD_ENTER", BINDERD_ENTER, None)
BINDERD_LEAVE: Final = ioc(IOC_NONE, "b", 0xB6, 0)
IOCTLS[BINDERD_LEAVE] = Message("BINDERD_LEAVE", BINDERD_LEAVE, None)

# What BINDER_WRITE_READ fails with when there are messages to take before it is issued again. Only
# a client that has attached with BINDERD_ATTACH_FILES ever sees it; the driver never fails with it.
BINDERD_ERRNO: Final = EREMOTEIO

# Messages through the socket, from the daemon

binderd_message = Record(
    "binderd_message",
    Struct("kind" / u32, "count" / u32, "value" / u64, "left" / u32, pad(4)),
)

# binderd_message.kind
BINDERD_AREA: Final = 1  # one descriptor to map; value: bytes, at most
BINDERD_FILES: Final = 2  # count descriptors; value: their id; left: how many are still to come
BINDERD_CLOSE: Final = 3  # close these: s32[count] behind the message

# As many descriptors as the kernel takes in one message (SCM_MAX_FD).
BINDERD_FILES_MAX: Final = 253

# What a lane's memory begins with. The last six are a struct binder_write_read.
binderd_slot = Record(
    "binderd_slot",
    Struct(
        "asked" / u32,  # the client adds 1 when the rest is in place
        "answered" / u32,  # the daemon makes it the same as asked when it has answered
        "is_watched" / u32,  # does the daemon look at the slot? If 0, BINDERD_ENTER tells it to
        "result" / s32,  # what the ioctl would have returned: 0 or a negative errno
        "write_size" / u64,
        "write_consumed" / u64,
        "write_buffer" / u64,
        "read_size" / u64,
        "read_consumed" / u64,
        "read_buffer" / u64,
    ),
)
BINDERD_LANE_SIZE_MAX: Final = 16 << 10  # bytes; the least is a page
# binderd_slot.result, negated: the client has to ask the same once more.
BINDERD_AGAIN: Final = ERESTART
