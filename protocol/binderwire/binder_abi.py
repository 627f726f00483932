# SPDX-License-Identifier: Apache-2.0
"""The binder ABI: ``<linux/android/binder.h>`` and ``<linux/android/binderfs.h>``, protocol 8.

Every structure is declared here and nowhere else; command words and ioctl numbers are computed from
the sizes.  A C union is declared as its widest member: a handle is the low 32 bits of ``target`` or
``binder``.  Constants keep the C names, so that they can be looked up and compared.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from binderwire.codec import Record, Struct, pad, raw, s32, s64, u32, u64
from binderwire.ioc import IOC_NONE, IOC_READ, IOC_WRITE, ioc

BINDER_CURRENT_PROTOCOL_VERSION: Final = 8

# Structures


def _pack_chars(c1: str, c2: str, c3: str) -> int:
    return ord(c1) << 24 | ord(c2) << 16 | ord(c3) << 8 | 0x85


BINDER_TYPE_BINDER: Final = _pack_chars("s", "b", "*")
BINDER_TYPE_WEAK_BINDER: Final = _pack_chars("w", "b", "*")
BINDER_TYPE_HANDLE: Final = _pack_chars("s", "h", "*")
BINDER_TYPE_WEAK_HANDLE: Final = _pack_chars("w", "h", "*")
BINDER_TYPE_FD: Final = _pack_chars("f", "d", "*")
BINDER_TYPE_FDA: Final = _pack_chars("f", "d", "a")
BINDER_TYPE_PTR: Final = _pack_chars("p", "t", "*")

BINDER_BUFFER_FLAG_HAS_PARENT: Final = 0x01

FLAT_BINDER_FLAG_PRIORITY_MASK: Final = 0xFF
FLAT_BINDER_FLAG_ACCEPTS_FDS: Final = 0x100
FLAT_BINDER_FLAG_TXN_SECURITY_CTX: Final = 0x1000

TF_ONE_WAY: Final = 0x01
TF_ROOT_OBJECT: Final = 0x04
TF_STATUS_CODE: Final = 0x08
TF_ACCEPT_FDS: Final = 0x10
TF_CLEAR_BUF: Final = 0x20
TF_UPDATE_TXN: Final = 0x40

binder_write_read = Record(
    "binder_write_read",
    Struct(
        "write_size" / u64,
        "write_consumed" / u64,
        "write_buffer" / u64,
        "read_size" / u64,
        "read_consumed" / u64,
        "read_buffer" / u64,
    ),
)
binder_version = Record("binder_version", Struct("protocol_version" / s32))
binder_transaction_data = Record(
    "binder_transaction_data",
    Struct(
        "target" / u64,  # union: handle (commands), node pointer (returns)
        "cookie" / u64,
        "code" / u32,
        "flags" / u32,
        "sender_pid" / s32,
        "sender_euid" / u32,
        "data_size" / u64,
        "offsets_size" / u64,
        "buffer" / u64,  # data.ptr.buffer
        "offsets" / u64,  # data.ptr.offsets
    ),
)
binder_transaction_data_sg = Record(
    "binder_transaction_data_sg",
    Struct(*binder_transaction_data.declaration.subcons, "buffers_size" / u64),
)
binder_transaction_data_secctx = Record(
    "binder_transaction_data_secctx",
    Struct(*binder_transaction_data.declaration.subcons, "secctx" / u64),
)
binder_object_header = Record("binder_object_header", Struct("type" / u32))
flat_binder_object = Record(
    "flat_binder_object",
    Struct(
        "type" / u32,
        "flags" / u32,
        "binder" / u64,  # union: binder, or handle in the low 32 bits
        "cookie" / u64,
    ),
)
binder_fd_object = Record(
    "binder_fd_object",
    Struct("type" / u32, "pad_flags" / u32, "fd" / u32, pad(4), "cookie" / u64),
)
binder_buffer_object = Record(
    "binder_buffer_object",
    Struct(
        "type" / u32,
        "flags" / u32,
        "buffer" / u64,
        "length" / u64,
        "parent" / u64,
        "parent_offset" / u64,
    ),
)
binder_fd_array_object = Record(
    "binder_fd_array_object",
    Struct("type" / u32, "pad" / u32, "num_fds" / u64, "parent" / u64, "parent_offset" / u64),
)
binder_ptr_cookie = Record("binder_ptr_cookie", Struct("ptr" / u64, "cookie" / u64))
binder_handle_cookie = Record(
    "binder_handle_cookie", Struct("handle" / u32, "cookie" / u64), packed=True
)
binder_pri_desc = Record("binder_pri_desc", Struct("priority" / s32, "desc" / u32))
binder_pri_ptr_cookie = Record(
    "binder_pri_ptr_cookie", Struct("priority" / s32, pad(4), "ptr" / u64, "cookie" / u64)
)
binder_node_debug_info = Record(
    "binder_node_debug_info",
    Struct("ptr" / u64, "cookie" / u64, "has_strong_ref" / u32, "has_weak_ref" / u32),
)
binder_node_info_for_ref = Record(
    "binder_node_info_for_ref",
    Struct(
        "handle" / u32,
        "strong_count" / u32,
        "weak_count" / u32,
        "reserved1" / u32,
        "reserved2" / u32,
        "reserved3" / u32,
    ),
)
binder_freeze_info = Record(
    "binder_freeze_info", Struct("pid" / u32, "enable" / u32, "timeout_ms" / u32)
)
binder_frozen_status_info = Record(
    "binder_frozen_status_info", Struct("pid" / u32, "sync_recv" / u32, "async_recv" / u32)
)
binder_frozen_state_info = Record(
    "binder_frozen_state_info", Struct("cookie" / u64, "is_frozen" / u32, "reserved" / u32)
)
binder_extended_error = Record(
    "binder_extended_error", Struct("id" / u32, "command" / u32, "param" / s32)
)
binderfs_device = Record("binderfs_device", Struct("name" / raw(256), "major" / u32, "minor" / u32))
u32_value = Record("__u32", Struct("value" / u32))
_s32 = Record("__s32", Struct("value" / s32))
_s64 = Record("__s64", Struct("value" / s64))
binder_uintptr_t = Record("binder_uintptr_t", Struct("value" / u64))

# Numbered messages: one row each; the word is computed from direction, number and payload size.


class Message(NamedTuple):
    """An ioctl, a BC_ command or a BR_ return."""

    name: str
    word: int
    payload: Record | None  # None: the bare word


_READ_WRITE: Final = IOC_READ | IOC_WRITE
IOCTLS: Final[dict[int, Message]] = {}
COMMANDS: Final[dict[int, Message]] = {}
RETURNS: Final[dict[int, Message]] = {}


def _ioctl(direction: int, number: int, name: str, payload: Record) -> int:
    return _message(IOCTLS, "b", direction, number, name, payload)


def _bc(number: int, name: str, payload: Record | None = None) -> int:
    return _message(COMMANDS, "c", IOC_WRITE if payload else IOC_NONE, number, name, payload)


def _br(number: int, name: str, payload: Record | None = None) -> int:
    return _message(RETURNS, "r", IOC_READ if payload else IOC_NONE, number, name, payload)


def _message(
    table: dict[int, Message],
    letter: str,
    direction: int,
    number: int,
    name: str,
    payload: Record | None,
) -> int:
    word = ioc(direction, letter, number, payload.size if payload else 0)
    table[word] = Message(name, word, payload)
    return word


BINDER_WRITE_READ: Final = _ioctl(_READ_WRITE, 1, "BINDER_WRITE_READ", binder_write_read)
BINDER_SET_IDLE_TIMEOUT: Final = _ioctl(IOC_WRITE, 3, "BINDER_SET_IDLE_TIMEOUT", _s64)
BINDER_SET_MAX_THREADS: Final = _ioctl(IOC_WRITE, 5, "BINDER_SET_MAX_THREADS", u32_value)
BINDER_SET_IDLE_PRIORITY: Final = _ioctl(IOC_WRITE, 6, "BINDER_SET_IDLE_PRIORITY", _s32)
BINDER_SET_CONTEXT_MGR: Final = _ioctl(IOC_WRITE, 7, "BINDER_SET_CONTEXT_MGR", _s32)
BINDER_THREAD_EXIT: Final = _ioctl(IOC_WRITE, 8, "BINDER_THREAD_EXIT", _s32)
BINDER_VERSION: Final = _ioctl(_READ_WRITE, 9, "BINDER_VERSION", binder_version)
BINDER_GET_NODE_DEBUG_INFO: Final = _ioctl(
    _READ_WRITE, 11, "BINDER_GET_NODE_DEBUG_INFO", binder_node_debug_info
)
BINDER_GET_NODE_INFO_FOR_REF: Final = _ioctl(
    _READ_WRITE, 12, "BINDER_GET_NODE_INFO_FOR_REF", binder_node_info_for_ref
)
BINDER_SET_CONTEXT_MGR_EXT: Final = _ioctl(
    IOC_WRITE, 13, "BINDER_SET_CONTEXT_MGR_EXT", flat_binder_object
)
BINDER_FREEZE: Final = _ioctl(IOC_WRITE, 14, "BINDER_FREEZE", binder_freeze_info)
BINDER_GET_FROZEN_INFO: Final = _ioctl(
    _READ_WRITE, 15, "BINDER_GET_FROZEN_INFO", binder_frozen_status_info
)
BINDER_ENABLE_ONEWAY_SPAM_DETECTION: Final = _ioctl(
    IOC_WRITE, 16, "BINDER_ENABLE_ONEWAY_SPAM_DETECTION", u32_value
)
BINDER_GET_EXTENDED_ERROR: Final = _ioctl(
    _READ_WRITE, 17, "BINDER_GET_EXTENDED_ERROR", binder_extended_error
)
# Same type and number as BINDER_WRITE_READ; only the size tells them apart.
BINDER_CTL_ADD: Final = _ioctl(_READ_WRITE, 1, "BINDER_CTL_ADD", binderfs_device)

BC_TRANSACTION: Final = _bc(0, "BC_TRANSACTION", binder_transaction_data)
BC_REPLY: Final = _bc(1, "BC_REPLY", binder_transaction_data)
BC_ACQUIRE_RESULT: Final = _bc(2, "BC_ACQUIRE_RESULT", _s32)
BC_FREE_BUFFER: Final = _bc(3, "BC_FREE_BUFFER", binder_uintptr_t)
BC_INCREFS: Final = _bc(4, "BC_INCREFS", u32_value)
BC_ACQUIRE: Final = _bc(5, "BC_ACQUIRE", u32_value)
BC_RELEASE: Final = _bc(6, "BC_RELEASE", u32_value)
BC_DECREFS: Final = _bc(7, "BC_DECREFS", u32_value)
BC_INCREFS_DONE: Final = _bc(8, "BC_INCREFS_DONE", binder_ptr_cookie)
BC_ACQUIRE_DONE: Final = _bc(9, "BC_ACQUIRE_DONE", binder_ptr_cookie)
BC_ATTEMPT_ACQUIRE: Final = _bc(10, "BC_ATTEMPT_ACQUIRE", binder_pri_desc)
BC_REGISTER_LOOPER: Final = _bc(11, "BC_REGISTER_LOOPER")
BC_ENTER_LOOPER: Final = _bc(12, "BC_ENTER_LOOPER")
BC_EXIT_LOOPER: Final = _bc(13, "BC_EXIT_LOOPER")
BC_REQUEST_DEATH_NOTIFICATION: Final = _bc(
    14, "BC_REQUEST_DEATH_NOTIFICATION", binder_handle_cookie
)
BC_CLEAR_DEATH_NOTIFICATION: Final = _bc(15, "BC_CLEAR_DEATH_NOTIFICATION", binder_handle_cookie)
BC_DEAD_BINDER_DONE: Final = _bc(16, "BC_DEAD_BINDER_DONE", binder_uintptr_t)
BC_TRANSACTION_SG: Final = _bc(17, "BC_TRANSACTION_SG", binder_transaction_data_sg)
BC_REPLY_SG: Final = _bc(18, "BC_REPLY_SG", binder_transaction_data_sg)
BC_REQUEST_FREEZE_NOTIFICATION: Final = _bc(
    19, "BC_REQUEST_FREEZE_NOTIFICATION", binder_handle_cookie
)
BC_CLEAR_FREEZE_NOTIFICATION: Final = _bc(20, "BC_CLEAR_FREEZE_NOTIFICATION", binder_handle_cookie)
BC_FREEZE_NOTIFICATION_DONE: Final = _bc(21, "BC_FREEZE_NOTIFICATION_DONE", binder_uintptr_t)

BR_ERROR: Final = _br(0, "BR_ERROR", _s32)
BR_OK: Final = _br(1, "BR_OK")
BR_TRANSACTION_SEC_CTX: Final = _br(2, "BR_TRANSACTION_SEC_CTX", binder_transaction_data_secctx)
BR_TRANSACTION: Final = _br(2, "BR_TRANSACTION", binder_transaction_data)
BR_REPLY: Final = _br(3, "BR_REPLY", binder_transaction_data)
BR_ACQUIRE_RESULT: Final = _br(4, "BR_ACQUIRE_RESULT", _s32)
BR_DEAD_REPLY: Final = _br(5, "BR_DEAD_REPLY")
BR_TRANSACTION_COMPLETE: Final = _br(6, "BR_TRANSACTION_COMPLETE")
BR_INCREFS: Final = _br(7, "BR_INCREFS", binder_ptr_cookie)
BR_ACQUIRE: Final = _br(8, "BR_ACQUIRE", binder_ptr_cookie)
BR_RELEASE: Final = _br(9, "BR_RELEASE", binder_ptr_cookie)
BR_DECREFS: Final = _br(10, "BR_DECREFS", binder_ptr_cookie)
BR_ATTEMPT_ACQUIRE: Final = _br(11, "BR_ATTEMPT_ACQUIRE", binder_pri_ptr_cookie)
BR_NOOP: Final = _br(12, "BR_NOOP")
BR_SPAWN_LOOPER: Final = _br(13, "BR_SPAWN_LOOPER")
BR_FINISHED: Final = _br(14, "BR_FINISHED")
BR_DEAD_BINDER: Final = _br(15, "BR_DEAD_BINDER", binder_uintptr_t)
BR_CLEAR_DEATH_NOTIFICATION_DONE: Final = _br(
    16, "BR_CLEAR_DEATH_NOTIFICATION_DONE", binder_uintptr_t
)
BR_FAILED_REPLY: Final = _br(17, "BR_FAILED_REPLY")
BR_FROZEN_REPLY: Final = _br(18, "BR_FROZEN_REPLY")
BR_ONEWAY_SPAM_SUSPECT: Final = _br(19, "BR_ONEWAY_SPAM_SUSPECT")
BR_TRANSACTION_PENDING_FROZEN: Final = _br(20, "BR_TRANSACTION_PENDING_FROZEN")
BR_FROZEN_BINDER: Final = _br(21, "BR_FROZEN_BINDER", binder_frozen_state_info)
BR_CLEAR_FREEZE_NOTIFICATION_DONE: Final = _br(
    22, "BR_CLEAR_FREEZE_NOTIFICATION_DONE", binder_uintptr_t
)

# Objects inside a payload, by the type word that each of them starts with.
OBJECTS: Final[dict[int, Record]] = {
    BINDER_TYPE_BINDER: flat_binder_object,
    BINDER_TYPE_WEAK_BINDER: flat_binder_object,
    BINDER_TYPE_HANDLE: flat_binder_object,
    BINDER_TYPE_WEAK_HANDLE: flat_binder_object,
    BINDER_TYPE_FD: binder_fd_object,
    BINDER_TYPE_FDA: binder_fd_array_object,
    BINDER_TYPE_PTR: binder_buffer_object,
}
OBJECT_SIZE_MAX: Final = max(record.size for record in OBJECTS.values())
