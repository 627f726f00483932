# SPDX-License-Identifier: Apache-2.0
"""Numbers of Android's user space that the driver knows nothing about.

Status codes (``utils/Errors.h``), exception codes (``binder/Status.h``) and the transaction codes
that every binder object answers (``binder/IBinder.h``).  Constants only: no behaviour lives here.
"""

from __future__ import annotations

import errno
from typing import Final


def _pack_chars(text: str) -> int:
    c1, c2, c3, c4 = text.encode("ascii")
    return c1 << 24 | c2 << 16 | c3 << 8 | c4


# Transaction codes.  An interface numbers its own methods between the first two.
FIRST_CALL_TRANSACTION: Final = 0x00000001
LAST_CALL_TRANSACTION: Final = 0x00FFFFFF
PING_TRANSACTION: Final = _pack_chars("_PNG")
DUMP_TRANSACTION: Final = _pack_chars("_DMP")
INTERFACE_TRANSACTION: Final = _pack_chars("_NTF")
SHELL_COMMAND_TRANSACTION: Final = _pack_chars("_CMD")

# The end of a shell command is told to its caller through this; code 1 is one-way.
RESULT_RECEIVER_DESCRIPTOR: Final = "com.android.internal.os.IResultReceiver"
RESULT_RECEIVER_SEND: Final = 1

# Status codes, Android's status_t: 0 or a negative errno, with a few of its own below all of them.
_UNKNOWN_ERROR: Final = -(2**31)
STATUS_OK: Final = 0
STATUS_UNKNOWN_ERROR: Final = _UNKNOWN_ERROR
STATUS_BAD_TYPE: Final = _UNKNOWN_ERROR + 1
STATUS_FAILED_TRANSACTION: Final = _UNKNOWN_ERROR + 2
STATUS_FDS_NOT_ALLOWED: Final = _UNKNOWN_ERROR + 7
STATUS_UNEXPECTED_NULL: Final = _UNKNOWN_ERROR + 8
STATUS_PERMISSION_DENIED: Final = -errno.EPERM
STATUS_NAME_NOT_FOUND: Final = -errno.ENOENT
STATUS_WOULD_BLOCK: Final = -errno.EWOULDBLOCK
STATUS_NO_MEMORY: Final = -errno.ENOMEM
STATUS_ALREADY_EXISTS: Final = -errno.EEXIST
STATUS_NO_INIT: Final = -errno.ENODEV
STATUS_BAD_VALUE: Final = -errno.EINVAL
STATUS_DEAD_OBJECT: Final = -errno.EPIPE
STATUS_INVALID_OPERATION: Final = -errno.ENOSYS
STATUS_NOT_ENOUGH_DATA: Final = -errno.ENODATA
STATUS_UNKNOWN_TRANSACTION: Final = -errno.EBADMSG
STATUS_TIMED_OUT: Final = -errno.ETIMEDOUT

# Exception codes: the first int32 of a reply from an interface that was generated from AIDL.
EX_NONE: Final = 0
EX_SECURITY: Final = -1
EX_BAD_PARCELABLE: Final = -2
EX_ILLEGAL_ARGUMENT: Final = -3
EX_NULL_POINTER: Final = -4
EX_ILLEGAL_STATE: Final = -5
EX_NETWORK_MAIN_THREAD: Final = -6
EX_UNSUPPORTED_OPERATION: Final = -7
EX_SERVICE_SPECIFIC: Final = -8
EX_PARCELABLE: Final = -9
EX_HAS_NOTED_APPOPS_REPLY_HEADER: Final = -127
EX_HAS_REPLY_HEADER: Final = -128

# The header that precedes an interface's name in a request.
STRICT_MODE_PENALTY_GATHER: Final = 1 << 31
UNSET_WORK_SOURCE: Final = -1
SYSTEM_HEADER: Final = _pack_chars("SYST")

# What a binder object promises about its interface; written behind every flattened binder.
STABILITY_UNDECLARED: Final = 0
STABILITY_VENDOR: Final = 0b000011
STABILITY_SYSTEM: Final = 0b001100
STABILITY_VINTF: Final = 0b111111
DECLARED_STABILITIES: Final = frozenset({STABILITY_VENDOR, STABILITY_SYSTEM, STABILITY_VINTF})


def _names(prefix: str) -> dict[int, str]:
    return {value: name for name, value in globals().items() if name.startswith(prefix)}


STATUS_NAMES: Final[dict[int, str]] = _names("STATUS_")
EXCEPTION_NAMES: Final[dict[int, str]] = _names("EX_")
