# SPDX-License-Identifier: Apache-2.0
"""Running a daemon with the rights that it is documented to need, and no others.

Every daemon of the tests has those of the systemd unit; BINDERD_RIGHTS=container gives it those of
a container that is started as `binderd --help` advises, BINDERD_RIGHTS=all whatever there is. Also
seccomp filters that deny single calls.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from binderd.linux import rights

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

UNIT: Final = Path(__file__).parents[2] / "systemd" / "binderd.service"

# What Docker grants without being asked, from its documentation ("Runtime privilege and Linux
# capabilities").
DOCKER: Final = frozenset(
    [
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
        *("NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    ]
)

_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP: Final = 22
_SECCOMP_MODE_FILTER: Final = 2
_NUMBERS: Final = {  # of system calls
    "x86_64": {
        "mount": 165,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "ptrace": 101,
        "prctl": 157,
    },
    "aarch64": {
        "mount": 40,
        "process_vm_readv": 270,
        "process_vm_writev": 271,
        "ptrace": 117,
        "prctl": 167,
    },
}
_NUMBERS_EVERYWHERE: Final = {
    "pidfd_open": 434,
    "pidfd_getfd": 438,
    "pidfd_send_signal": 424,
    "move_mount": 429,
}


def unit_settings() -> dict[str, list[str]]:
    """Return what the unit sets, in its section [Service]."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def unit_capabilities() -> set[str]:
    """Return the names of the unit's capabilities."""
    return set(" ".join(unit_settings()["CapabilityBoundingSet"]).split())


def container_capabilities() -> set[str]:
    """Return those of a container that is started as we advise."""
    words = " ".join(rights.container_options()).split()
    added = {word for option, word in pairwise(words) if option == "--cap-add"}
    return {f"CAP_{name}" for name in DOCKER | added}


def only(capabilities: Collection[str], *, no_new_privileges: bool = False) -> list[str]:
    """Return the words before a command that leave it these capabilities at most."""
    names = "".join(f",+{name.removeprefix('CAP_').lower()}" for name in sorted(capabilities))
    words = ["setpriv", "--inh-caps=-all", f"--bounding-set=-all{names}"]
    return [*words, "--no-new-privs"] if no_new_privileges else words


def confined(kind: str = "") -> list[str]:
    """Return the words before a daemon's command that leave it what it is documented to need.

    Args:
        kind: unit, container or all; default: what BINDERD_RIGHTS says.
    """
    kind = kind or os.environ.get("BINDERD_RIGHTS", "unit")
    if kind == "all" or os.geteuid() != 0:
        return []
    if kind == "unit":
        no_new_privileges = unit_settings()["NoNewPrivileges"] == ["yes"]
        return only(unit_capabilities(), no_new_privileges=no_new_privileges)
    assert kind == "container", f"BINDERD_RIGHTS={kind}"
    return only(container_capabilities())


def denying(*calls: str) -> list[str]:
    """Return the words before a command that run it under a filter: these calls fail with EPERM."""
    return [sys.executable, __file__, ",".join(calls)]


def _filter(calls: Sequence[str]) -> bytes:
    table = {**_NUMBERS[platform.machine()], **_NUMBERS_EVERYWHERE}
    load, jump, give = 0x20, 0x15, 0x06
    code = struct.pack("=HBBI", load, 0, 0, 0)  # the number of the call
    for index, call in enumerate(calls):
        code += struct.pack("=HBBI", jump, len(calls) - index, 0, table[call])
    code += struct.pack("=HBBI", give, 0, 0, 0x7FFF0000)  # allow
    return code + struct.pack("=HBBI", give, 0, 0, 0x00050000 | 1)  # EPERM


def _run_filtered(calls: Sequence[str], command: Sequence[str]) -> None:
    code = _filter(calls)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0) == 0
    os.execvp(command[0], list(command))


if __name__ == "__main__":
    _run_filtered([call for call in sys.argv[1].split(",") if call], sys.argv[2:])
