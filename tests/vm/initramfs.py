# SPDX-License-Identifier: Apache-2.0
"""The initial RAM file system: busybox, a few kernel modules, init.sh and its settings.

Only modules that a root file system on 9p needs, and those that are under test. They are unpacked
here because the host does it ten times faster than the emulated machine.
"""

from __future__ import annotations

import lzma
import shlex
import shutil
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vm.errors import MachineError
from vm.kernel import search_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vm.kernel import Kernel

HERE: Final = Path(__file__).resolve().parent
MODULES: Final = ("virtio_pci", "virtio_console", "9p", "9pnet_virtio", "overlay")
# A system of its own loads them when it wants them, as it would anywhere.
MODULES_UNDER_TEST: Final = ("fuse", "cuse", "binder_linux")
# Of each test its own context, if it wants one; the driver makes them when it is loaded.
DEVICES: Final = ("binder", "hwbinder", "vndbinder", *(f"binder{number}" for number in range(1, 9)))


class Archive:
    """A cpio archive in the "newc" format, in memory."""

    def __init__(self) -> None:
        self.octets = bytearray()
        self._count = 0

    def add(self, name: str, mode: int, content: bytes = b"") -> None:
        """Append a file or folder; its folder must have been added before."""
        self._count += 1
        path = name.encode() + b"\0"
        links = 1
        numbers = (self._count, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(path), 0)
        self.octets += b"070701" + b"".join(b"%08X" % number for number in numbers)
        for part in (path, content):
            self.octets += part
            self.octets += bytes(-len(self.octets) % 4)


def build(kernel: Kernel, settings: Mapping[str, str], *, is_system: bool = False) -> bytes:
    """Return the archive.

    Args:
        is_system: is the root a system of its own, with a systemd that is to be started?
        settings: shell variables for init.sh, beside those that are known here.
    """
    archive = Archive()
    for folder in ("bin", "dev", "proc", "modules", "host", "layer"):
        archive.add(folder, stat.S_IFDIR | 0o755)
    program, data = stat.S_IFREG | 0o755, stat.S_IFREG | 0o644
    archive.add("bin/busybox", program, _busybox())
    names = MODULES if is_system else (*MODULES, *MODULES_UNDER_TEST)
    for number, path in enumerate(kernel.module_files(*names)):
        archive.add(f"modules/{number:02}-{path.name.partition('.')[0]}", data, _unpack(path))
    everything = {
        "devices": ",".join(DEVICES),
        "is_system": "yes" if is_system else "",
        "release": kernel.release,
        "module_folder": str(kernel.modules.resolve()),
        "python": str(Path(sys.executable).resolve()),
        "tests": str(HERE.parent),
        **settings,
    }
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in everything.items()]
    archive.add("settings", data, "".join(lines).encode())
    archive.add("init", program, (HERE / "init.sh").read_bytes())
    archive.add("TRAILER!!!", 0)
    return bytes(archive.octets)


def _busybox() -> bytes:
    """Return the program's file.

    Raises:
        MachineError: it needs libraries, which the archive has not.
    """
    path = shutil.which("busybox", path=search_path())
    content = Path(path).read_bytes() if path else b""
    if b"/ld-linux" in content[:65536] or not content:
        raise MachineError("busybox must be a static program: apt-get install busybox-static")
    return content


def _unpack(module: Path) -> bytes:
    content = module.read_bytes()
    if module.suffix == ".xz":
        return lzma.decompress(content)
    if module.suffix == ".ko":
        return content
    raise MachineError(f"{module.name}: do not know how to unpack this")
