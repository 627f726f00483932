# SPDX-License-Identifier: Apache-2.0
"""HIDL: the layout of its strings and vectors, and the codes of IBase and IServiceManager.

Only declarations: ``binderclient.hidl`` encodes.
"""

from __future__ import annotations

from typing import Final

from binderwire.codec import Record, Struct, pad, s32, u8, u32, u64

# Both point to their characters or items, which travel as a buffer of their own (BINDER_TYPE_PTR).
hidl_string = Record(
    "hidl_string", Struct("buffer" / u64, "size" / u32, "owns_buffer" / u8, pad(3))
)
hidl_vec = Record("hidl_vec", Struct("buffer" / u64, "size" / u32, "owns_buffer" / u8, pad(3)))
native_handle = Record(  # in front of the descriptors and the numbers of a handle
    "native_handle", Struct("version" / u32, "num_fds" / u32, "num_ints" / u32)
)
hidl_debug_info = Record(  # of an object: DebugInfo
    "hidl_debug_info",
    Struct("pid" / s32, pad(4), "ptr" / u64, "architecture" / s32, pad(4)),
)

instance_debug_info = Record(  # of a list that a manager gives: InstanceDebugInfo
    "instance_debug_info",
    Struct(
        "interface" / u64,
        "interface_size" / u32,
        "owns_interface" / u8,
        pad(3),
        "instance" / u64,
        "instance_size" / u32,
        "owns_instance" / u8,
        pad(3),
        "pid" / s32,
        pad(4),
        "clients" / u64,
        "clients_count" / u32,
        "owns_clients" / u8,
        pad(3),
        "architecture" / s32,
        pad(4),
    ),
)
INTERFACE_AT: Final = 0  # offsets in it, in bytes, of the fields that point to buffers
INSTANCE_AT: Final = hidl_string.size
CLIENTS_AT: Final = 2 * hidl_string.size + 8
HASH_SIZE: Final = 32  # bytes; of an interface, SHA-256

IBASE: Final = "android.hidl.base@1.0::IBase"
MANAGER_1_0: Final = "android.hidl.manager@1.0::IServiceManager"
MANAGER_1_1: Final = "android.hidl.manager@1.1::IServiceManager"
MANAGER_1_2: Final = "android.hidl.manager@1.2::IServiceManager"
MANAGER_CHAIN: Final = (MANAGER_1_2, MANAGER_1_1, MANAGER_1_0, IBASE)
NOTIFICATION: Final = "android.hidl.manager@1.0::IServiceNotification"
ON_REGISTRATION: Final = 1  # one-way
CLIENT_CALLBACK: Final = "android.hidl.manager@1.2::IClientCallback"
ON_CLIENTS: Final = 1  # one-way


def _base_code(text: str) -> int:
    return 0x0F000000 | int.from_bytes(text.encode("ascii"), "big")


# What every HIDL object answers, with the token of IBase.
INTERFACE_CHAIN: Final = _base_code("CHN")
DEBUG: Final = _base_code("DBG")
INTERFACE_DESCRIPTOR: Final = _base_code("DSC")
PING: Final = _base_code("PNG")
GET_DEBUG_INFO: Final = _base_code("REF")
GET_HASH_CHAIN: Final = _base_code("HSH")
SET_HAL_INSTRUMENTATION: Final = _base_code("INT")  # one-way
NOTIFY_SYSPROPS_CHANGED: Final = _base_code("SYS")  # one-way

# IServiceManager 1.0, 1.1 and 1.2: each goes on where the one before ends.
GET: Final = 1
ADD: Final = 2
GET_TRANSPORT: Final = 3
LIST: Final = 4
LIST_BY_INTERFACE: Final = 5
REGISTER_FOR_NOTIFICATIONS: Final = 6
DEBUG_DUMP: Final = 7
REGISTER_PASSTHROUGH_CLIENT: Final = 8
UNREGISTER_FOR_NOTIFICATIONS: Final = 9
REGISTER_CLIENT_CALLBACK: Final = 10
UNREGISTER_CLIENT_CALLBACK: Final = 11
ADD_WITH_CHAIN: Final = 12
LIST_MANIFEST_BY_INTERFACE: Final = 13
TRY_UNREGISTER: Final = 14

TRANSPORT_EMPTY: Final = 0
TRANSPORT_HWBINDER: Final = 1
