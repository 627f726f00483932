# SPDX-License-Identifier: Apache-2.0
"""``binderd.h``: the declarations of ``extension_abi`` in C.

``python -m binderwire.cheader`` prints it. ``client/include/binderd.h`` is that, checked in; a test
compares the two and has a compiler check every number and offset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from binderwire import extension_abi as abi
from binderwire.ioc import IOC_READ, IOC_WRITE, ioc_direction

if TYPE_CHECKING:
    from binderwire.codec import Record

_HEAD: Final = """\
// SPDX-License-Identifier: Apache-2.0
// binderd.h - binderd's extension of the binder ABI; docs/EXTENSION.md tells how it is used.
//
// Made by "python -m binderwire.cheader". Linux's own driver answers these ioctls with EINVAL.

#ifndef BINDERD_H
#define BINDERD_H

#include <errno.h>
#include <stdint.h>
#include <sys/ioctl.h>
"""
_TAIL: Final = "#endif\n"

_TYPES: Final = {"L": "uint32_t", "l": "int32_t", "Q": "uint64_t", "q": "int64_t"}
_MACROS: Final = {IOC_READ: "_IOR", IOC_WRITE: "_IOW", IOC_READ | IOC_WRITE: "_IOWR"}

_RECORDS: Final = (
    abi.binderd_info,
    abi.binderd_attach,
    abi.binderd_installed,
    abi.binderd_message,
    abi.binderd_lane,
    abi.binderd_slot,
)

# The comment beside each field in the header.
_FIELD_COMMENTS: Final = {
    "binderd_info.version": "BINDERD_VERSION",
    "binderd_info.flags": "BINDERD_HAS_MMAP, BINDERD_INJECTS, BINDERD_HAS_LANES",
    "binderd_info.area_size": "the receive area has at most that many bytes",
    "binderd_attach.socket": "your descriptor of the end that the daemon takes",
    "binderd_attach.flags": "BINDERD_ATTACH_AREA, BINDERD_ATTACH_FILES",
    "binderd_installed.id": "binderd_message.value",
    "binderd_installed.error": "0, or EMFILE if they did not all come",
    "binderd_installed.count": "how many numbers; 0 with an error",
    "binderd_installed.numbers": "address of int32_t[count]",
    "binderd_message.kind": "BINDERD_AREA, BINDERD_FILES, BINDERD_CLOSE",
    "binderd_message.count": "how many descriptors or numbers come with it",
    "binderd_message.value": "AREA: bytes, at most; FILES: the id of the delivery",
    "binderd_message.left": "FILES: how many descriptors are still to come",
    "binderd_lane.memory": "your descriptor of a memfd that is sealed against shrinking",
    "binderd_lane.flags": "BINDERD_LANE_QUIET",
    "binderd_lane.size": "bytes, whole pages, at most BINDERD_LANE_SIZE_MAX",
    "binderd_lane.address": "where you have mapped them; they begin with a binderd_slot",
    "binderd_slot.asked": "yours: add 1 when the rest is in place",
    "binderd_slot.answered": "the daemon's: the same as asked when it has answered",
    "binderd_slot.is_watched": "the daemon's: 0, it does not look here: use BINDERD_ENTER",
    "binderd_slot.result": "what the ioctl would have returned: 0 or a negative errno",
    "binderd_slot.write_size": "from here on: a struct binder_write_read",
    "binderd_slot.write_consumed": "",
    "binderd_slot.write_buffer": "",
    "binderd_slot.read_size": "",
    "binderd_slot.read_consumed": "",
    "binderd_slot.read_buffer": "",
}
_GROUPS: Final = (
    ("", {"BINDERD_VERSION": ""}),
    (
        "binderd_info.flags",
        {
            "BINDERD_HAS_MMAP": "mmap of the device shows the receive area",
            "BINDERD_INJECTS": "clients that do not attach get descriptors as well, by ptrace",
            "BINDERD_HAS_LANES": "threads can have lanes",
        },
    ),
    (
        "binderd_attach.flags",
        {
            "BINDERD_ATTACH_AREA": "send the receive area, now",
            "BINDERD_ATTACH_FILES": "send descriptors, from now on",
        },
    ),
    (
        "binderd_message.kind",
        {
            "BINDERD_AREA": "one descriptor to map",
            "BINDERD_FILES": "count descriptors",
            "BINDERD_CLOSE": "close these: int32_t[count] behind the message",
        },
    ),
    (
        "binderd_lane.flags",
        {"BINDERD_LANE_QUIET": "a reply that has arrived is not confirmed"},
    ),
    ("", {"BINDERD_LANE_SIZE_MAX": "bytes"}),
    (
        "As many descriptors as the kernel takes in one message.",
        {"BINDERD_FILES_MAX": ""},
    ),
)
_AGAIN_TEXT: Final = """\
// binderd_slot.result, negated: ask the same once more.
#define BINDERD_AGAIN ERESTART
"""
_ERRNO_TEXT: Final = """\
// What BINDER_WRITE_READ fails with when there are messages to take before it is issued again.
"""


def header() -> str:
    """Return the text of ``binderd.h``."""
    parts = [_HEAD, *map(_structure, _RECORDS), _ioctls()]
    parts += [_constants(title, names) for title, names in _GROUPS]
    parts += [f"{_ERRNO_TEXT}#define BINDERD_ERRNO EREMOTEIO\n", _AGAIN_TEXT, _TAIL]
    return "\n".join(parts)


def _structure(record: Record) -> str:
    lines = [f"struct {record.name} {{"]
    offset = 0
    for field in record.fields:
        lines += _gap(offset, field.offset)
        comment = _FIELD_COMMENTS[f"{record.name}.{field.name}"]
        lines.append(_beside(f"\t{_TYPES[field.code]} {field.name};", comment))
        offset = field.offset + field.size
    return "\n".join([*lines, *_gap(offset, record.size), "};", ""])


def _gap(start: int, end: int) -> list[str]:
    """Return the member that fills the bytes between two fields, if there are some."""
    return [f"\tuint8_t reserved{start}[{end - start}];"] if start < end else []


def _ioctls() -> str:
    lines = []
    for word, message in abi.IOCTLS.items():
        if message.payload is None:
            lines.append(f"#define {message.name} _IO('b', {word & 0xFF:#04x})")
            continue
        macro = _MACROS[ioc_direction(word)]
        lines.append(
            f"#define {message.name} {macro}('b', {word & 0xFF:#04x}, "
            f"struct {message.payload.name})"
        )
    return "\n".join([*lines, ""])


def _constants(title: str, names: dict[str, str]) -> str:
    lines = [f"// {title}"] if title else []
    lines += [_beside(f"#define {name} {getattr(abi, name)}", text) for name, text in names.items()]
    return "\n".join([*lines, ""])


def _beside(code: str, comment: str) -> str:
    return f"{code} // {comment}" if comment else code


if __name__ == "__main__":
    print(header(), end="")
