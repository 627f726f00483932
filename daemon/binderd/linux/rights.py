# SPDX-License-Identifier: Apache-2.0
"""The rights that the daemon, its helper and its watchdog use, each with its reason.

This table is the only place that lists them. What the daemon checks when it starts, what `binderd
--help` and README.md say, and what the tests allow it are made of it; `systemd/binderd.service` is
compared with it. A call that needs a right which is not here fails in the tests, as they run every
daemon with exactly these.

Nothing here may know what is done with a right.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from binderd.linux import proc

if TYPE_CHECKING:
    from collections.abc import Sequence


class Right(NamedTuple):
    """One capability, see capabilities(7)."""

    name: str
    bit: int  # of <linux/capability.h>
    purpose: str
    loss: str = ""  # what does not work without it; empty: the daemon does not start
    in_containers: bool = False  # do Docker and Podman grant it without being asked?
    only_in_containers: bool = False  # is it of no use where /dev is the kernel's own?

    @property
    def short_name(self) -> str:
        """The name as container engines and setpriv(1) have it."""
        return self.name.removeprefix("CAP_")


RIGHTS: Final = (
    Right("CAP_SYS_ADMIN", 21, "mount, back files by memory, suspend receivers' seccomp filters"),
    Right("CAP_SYS_PTRACE", 19, "reach the memory and the descriptors of clients"),
    Right(
        "CAP_DAC_OVERRIDE",
        1,
        "open files of other users' clients in /proc and /sys",
        in_containers=True,
    ),
    Right(
        "CAP_SYS_NICE",
        23,
        "have other users' programs serve a call at its caller's nice value",
        "programs of other users keep their own nice value while they serve a call",
    ),
    Right(
        "CAP_KILL",
        5,
        "kill other users' clients at --stall-limit",
        "--stall-limit cannot kill clients of other users",
        in_containers=True,
    ),
    Right(
        "CAP_CHOWN",
        0,
        "give CUSE devices to --owner and --group",
        "--owner and --group fail for CUSE devices",
        in_containers=True,
    ),
    Right(
        "CAP_MKNOD",
        27,
        "make the nodes of CUSE devices where /dev is not the kernel's own",
        "CUSE devices fail where /dev is not the kernel's own",
        in_containers=True,
        only_in_containers=True,
    ),
)

# What a container needs besides capabilities. A seccomp filter of our own forbids us to suspend
# those of others; AppArmor's usual profile for containers forbids mounting.
SECURITY_OPTIONS: Final = ("seccomp=unconfined", "apparmor=unconfined")


def is_ordinary_user() -> bool:
    """Return whether this process can mount for itself alone, and only by fusermount3."""
    mounting = next(right for right in RIGHTS if right.name == "CAP_SYS_ADMIN")
    return os.geteuid() != 0 and not _effective() >> mounting.bit & 1


def owner() -> tuple[int, int]:
    """Return user and group of what we show where nobody has chosen: root's, or an ordinary user's
    own, as no one else could reach it.
    """
    return (os.geteuid(), os.getegid()) if is_ordinary_user() else (0, 0)


def missing() -> list[Right]:
    """Return the rights that this process does not have."""
    effective = _effective()
    return [right for right in RIGHTS if not effective >> right.bit & 1]


def advice(rights: Sequence[Right]) -> str:
    """Return what to do where rights are missing."""
    added = " ".join(f"--cap-add {right.short_name}" for right in rights)
    names = " ".join(right.name for right in rights)
    return (
        f"start as root; a container needs {added}, "
        f"a systemd unit {names} in its CapabilityBoundingSet="
    )


def container_options() -> list[str]:
    """Return what `docker run` or `podman run` has to be told about rights, in two lines."""
    added = [right for right in RIGHTS if not right.in_containers]
    return [
        " ".join(f"--cap-add {right.short_name}" for right in added),
        " ".join(f"--security-opt {option}" for option in SECURITY_OPTIONS),
    ]


def describe() -> list[str]:
    """Return a line for each right: its name, why it is needed, and whether it must be there."""
    width = max(len(right.name) for right in RIGHTS)
    return [
        f"{right.name:{width}} to {right.purpose}{'' if right.loss else ' (required)'}"
        for right in RIGHTS
    ]


def _effective() -> int:
    return proc.effective_capabilities(proc.OWN)
