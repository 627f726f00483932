# SPDX-License-Identifier: Apache-2.0
"""What the installed C headers cannot tell: newer names, and how our flat fields are called in C.

The values come from the headers of Linux 6.18; the oldest headers that this list is meant for are
those of Linux 6.1.
"""

from __future__ import annotations

# Our own names, without a counterpart in C.
NOT_IN_C = {"OBJECT_SIZE_MAX", "IOC_NONE", "IOC_READ", "IOC_WRITE", "FUSE_DEV_IOC_MAGIC"}
NOT_IN_C |= {"backing_id", "__u32", "__s32", "__s64", "binder_uintptr_t"}  # single values

# We speak a newer minor version than the installed header declares.
NUMBERS_WE_RAISE = {"FUSE_KERNEL_MINOR_VERSION": 40}

# BR_TRANSACTION_PENDING_FROZEN: 6.2; freeze notifications: 6.12; FUSE passthrough and the mmap of
# direct I/O files: 6.9 and 6.6.
NEWER_NUMBERS = {
    "BC_REQUEST_FREEZE_NOTIFICATION": 0x400C6313,
    "BC_CLEAR_FREEZE_NOTIFICATION": 0x400C6314,
    "BC_FREEZE_NOTIFICATION_DONE": 0x40086315,
    "BR_TRANSACTION_PENDING_FROZEN": 0x7214,
    "BR_FROZEN_BINDER": 0x80107215,
    "BR_CLEAR_FREEZE_NOTIFICATION_DONE": 0x80087216,
    "FUSE_DIRECT_IO_ALLOW_MMAP": 1 << 36,
    "FUSE_PASSTHROUGH": 1 << 37,
    "FOPEN_PASSTHROUGH": 1 << 7,
    "FUSE_DEV_IOC_BACKING_OPEN": 0x4010E501,
    "FUSE_DEV_IOC_BACKING_CLOSE": 0x4004E502,
}

# Size and field offsets in bytes; since 6.12 and 6.9.
NEWER_RECORDS = {
    "binder_frozen_state_info": (16, {"cookie": 0, "is_frozen": 8, "reserved": 12}),
    "fuse_backing_map": (16, {"fd": 0, "flags": 4, "padding": 8}),
}

# (offset, size) of fields that older headers call padding or unused; since 6.9.
NEWER_FIELDS = {
    "fuse_init_out.max_stack_depth": (36, 4),
    "fuse_open_out.backing_id": (12, 4),
}

# The C member behind a field of ours, where the name differs: unions, and structures inside.
MEMBERS = {
    ("binder_transaction_data", "target"): "target.ptr",
    ("binder_transaction_data", "buffer"): "data.ptr.buffer",
    ("binder_transaction_data", "offsets"): "data.ptr.offsets",
    ("flat_binder_object", "type"): "hdr.type",
    ("fuse_lk_in", "start"): "lk.start",
    ("fuse_lk_in", "end"): "lk.end",
    ("fuse_lk_in", "type"): "lk.type",
    ("fuse_lk_in", "pid"): "lk.pid",
    ("binder_fd_object", "type"): "hdr.type",
    ("binder_buffer_object", "type"): "hdr.type",
    ("binder_fd_array_object", "type"): "hdr.type",
}

# Structures that we spell out inside another one: (outer, inner) to the C member's name.
EMBEDDED = {
    ("binder_transaction_data_sg", "binder_transaction_data"): "transaction_data",
    ("binder_transaction_data_secctx", "binder_transaction_data"): "transaction_data",
    ("fuse_entry_out", "fuse_attr"): "attr",
    ("fuse_attr_out", "fuse_attr"): "attr",
}

PREFIXES = {
    "b": ("BINDER_",),
    "c": ("BC_",),
    "r": ("BR_",),
}

# BINDER_ names that are no ioctl.
NOT_MESSAGES = {
    8,  # BINDER_CURRENT_PROTOCOL_VERSION
    1,  # BINDER_BUFFER_FLAG_HAS_PARENT
    0x73622A85,
    0x77622A85,
    0x73682A85,
    0x77682A85,
    0x66642A85,
    0x66646185,
    0x70742A85,
}

# Bytes, by type word: BINDER, WEAK_BINDER, HANDLE, WEAK_HANDLE, FD, FDA, PTR.
OBJECT_SIZES = {
    0x73622A85: 24,
    0x77622A85: 24,
    0x73682A85: 24,
    0x77682A85: 24,
    0x66642A85: 24,
    0x66646185: 32,
    0x70742A85: 40,
}
