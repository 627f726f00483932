# SPDX-License-Identifier: Apache-2.0
"""What must be there before anything is served: rights, and the doors through which clients come.

A door is the mounted file system, or one character device. Nothing here may know how they are
served.
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from binderd.channel.cuse_node import CuseNode, NodeError, has_cuse
from binderd.channel.fuse_mount import FUSE_DEVICE, FuseMount, MountError
from binderd.config import check_node_names
from binderd.device.cuse_device import CHANNELS_MAX

if TYPE_CHECKING:
    from binderd.config import Settings

# <linux/capability.h>: bit number, and what we cannot do without it
_CAPABILITIES: Final = {
    "CAP_SYS_ADMIN": (21, "mount"),
    "CAP_SYS_PTRACE": (19, "reach the memory of its clients"),
    "CAP_DAC_OVERRIDE": (1, "open the memory of other users' clients"),
}
_CGROUPS: Final = "/sys/fs/cgroup"
_NOTHING_LEFT: Final = (
    "there is no /dev/cuse either ('modprobe cuse'; a container needs --device /dev/cuse). With "
    "--transport fuse it works for clients that know docs/EXTENSION.md: binderclient, and programs "
    "that are started with 'binderctl run'"
)


class StartError(Exception):
    """The daemon cannot start; the text says why and what to do."""


class Doors:
    """Where clients come in.

    Args:
        mount: the file system, None: not served.
        nodes: the character devices.
        needs_passthrough: is the file system only worth it if it can be mapped?
    """

    def __init__(
        self, mount: FuseMount | None, nodes: list[CuseNode], *, needs_passthrough: bool
    ) -> None:
        self.mount = mount
        self.nodes = nodes
        self.needs_passthrough = needs_passthrough

    def close(self) -> str:
        """Take them away; whoever serves them closes the channels.

        Returns:
            What could not be, or an empty string.
        """
        for node in self.nodes:
            node.remove()
        if self.mount is not None and not self.mount.unmount():
            return f"something is mounted over {self.mount.path}: unmount both by hand"
        return ""


def transports_to_try(transport: str) -> list[str]:
    """Return what to try in turn for a setting; all but the last may turn out not to do."""
    if transport != "auto":
        return [transport]
    # What can be mapped with a plain mmap is the better door; /dev/fuse alone does not tell.
    return ["fuse", "cuse"] if os.path.exists(FUSE_DEVICE) else ["cuse"]


def explain(refusal: str) -> str:
    """Return what to say where no transport is left to try."""
    return refusal if has_cuse() else f"{refusal}, and {_NOTHING_LEFT}"


def open_doors(settings: Settings, transport: str) -> Doors:
    """Open what a transport (fuse, cuse or both) consists of.

    Raises:
        StartError: it cannot be; nothing is left open.
    """
    nodes: list[CuseNode] = []
    try:
        if transport != "fuse":
            check_node_names(settings.devices, settings.device_prefix)
            if len(settings.devices) >= CHANNELS_MAX:
                raise StartError(f"more than {CHANNELS_MAX - 1} CUSE devices cannot be served")
            for name in settings.devices:
                nodes.append(CuseNode.of(f"{settings.device_prefix}{name}"))  # noqa: PERF401
        mount = FuseMount.at(settings.mount) if transport != "cuse" else None
    except (MountError, NodeError, StartError, ValueError) as error:
        for node in nodes:
            os.close(node.fd)
        raise StartError(str(error)) from None
    return Doors(mount, nodes, needs_passthrough=settings.transport == "auto")


def check_capabilities() -> None:
    """Say at once what would otherwise show as a client's EFAULT much later."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    for name, (bit, purpose) in _CAPABILITIES.items():
        if not effective >> bit & 1:
            short = name.removeprefix("CAP_")
            raise StartError(
                f"needs {name} to {purpose}: start as root; a container needs --cap-add {short}"
            )


def memory_of_machine() -> int:
    """Return how much memory there is for us, in bytes: the machine's, or what our cgroup may."""
    page = resource.getpagesize()
    memory = page * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):
        group = Path("/proc/self/cgroup").read_text(encoding="utf-8").rpartition("::")[2].strip()
        limit = Path(_CGROUPS + group, "memory.max").read_text(encoding="ascii")
        memory = min(memory, int(limit))
    return memory


def raise_descriptor_limit() -> None:
    """Allow as many descriptors as the system lets us; ``engine/limits.py`` shares them out."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
