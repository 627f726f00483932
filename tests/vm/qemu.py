# SPDX-License-Identifier: Apache-2.0
"""QEMU's command line, and the settings that a user may change.

What was measured to matter (README.md has the figures): a plain processor model, because each extra
feature costs the emulator more than it gains; no address space randomisation, so that code that was
translated for one process fits the next; no kernel mitigations.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vm import frames
from vm.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vm.kernel import Kernel

KERNEL_ARGUMENTS: Final = (
    "console=ttyS0 quiet panic=-1 oops=panic rdinit=/init mitigations=off norandmaps nokaslr"
    " audit=0 nowatchdog"
)
TESTS: Final = Path(__file__).resolve().parents[1]
# The random number instruction saves Python a wait of two seconds for entropy.
PROCESSOR: Final = "Nehalem,+rdrand"
SECONDS_MAX: Final = 7 * 24 * 3600.0


def _from_environment(name: str, default: str) -> Callable[[], str]:
    return lambda: os.environ.get(name) or default


def _seconds(name: str, default: str) -> Callable[[], float]:
    def read() -> float:
        text = _from_environment(name, default)()
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        if not 0 < number < SECONDS_MAX:
            raise MachineError(f"{name} must be a number of seconds above 0, not {text!r}")
        return number

    return read


def _processors() -> str:
    text = os.environ.get("VM_CPUS") or "1"
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise MachineError(f"VM_CPUS must be a number of processors, not {text!r}")
    emulated = not (os.environ.get("VM_ACCEL") or "tcg").startswith("kvm")
    if emulated and int(text) > 1:
        raise MachineError(
            f"VM_CPUS={text}: Debian's kernel 6.12 panics with more than one emulated processor; "
            "leave it out, or have VM_ACCEL=kvm"
        )
    return text


def _memory() -> str:
    text = os.environ.get("VM_MEMORY") or "1G"
    if re.fullmatch(r"[1-9][0-9]{0,8}[MG]", text) is None:
        raise MachineError(f"VM_MEMORY must be a size such as 512M or 2G, not {text!r}")
    return text


@dataclass(frozen=True)
class Settings:
    """How to make the machine; each default can be set in the environment."""

    timeout: float = field(default_factory=_seconds("VM_TIMEOUT", "600"))  # of a command
    boot_timeout: float = field(default_factory=_seconds("VM_BOOT_TIMEOUT", "120"))
    processors: str = field(default_factory=_processors)
    memory: str = field(default_factory=_memory)
    accelerator: str = field(default_factory=_from_environment("VM_ACCEL", "tcg,thread=multi"))
    arguments: str = field(default_factory=_from_environment("VM_ARGUMENTS", ""))  # the kernel's
    # The only folder of the host that the machine can write to; the same path inside.
    results: str = field(default_factory=_from_environment("VM_RESULTS", ""))
    # A folder with a whole Debian system, whose systemd is started; default: the host's files.
    root: str = field(default_factory=_from_environment("VM_ROOT", ""))


def command_line(
    settings: Settings, kernel: Kernel, initramfs: int, console: int, channel: int
) -> list[str]:
    """Return QEMU's arguments.

    The last three are descriptors that QEMU must inherit: files without a name, so that none is
    left behind, however this ends.

    Args:
        console: takes what the kernel says.
        channel: QEMU's end of our socket.
    """
    arguments = ["qemu-system-x86_64", "-no-user-config", "-nodefaults", "-display", "none"]
    arguments += ["-no-reboot", "-name", "binderd-vm", "-machine", "q35"]
    arguments += ["-accel", settings.accelerator, "-cpu", PROCESSOR]
    arguments += ["-smp", settings.processors, "-m", settings.memory]
    arguments += ["-kernel", str(kernel.image), "-initrd", f"/proc/self/fd/{initramfs}"]
    arguments += ["-append", f"{KERNEL_ARGUMENTS} {settings.arguments}"]
    arguments += ["-chardev", f"file,id=console,path=/proc/self/fd/{console}", "-serial"]
    arguments += ["chardev:console", "-device", "virtio-serial-pci"]
    arguments += ["-chardev", f"socket,id=channel,fd={channel}"]
    arguments += ["-device", f"virtserialport,chardev=channel,name={frames.PORT}"]
    arguments += _shared_folder("root", os.path.realpath(settings.root or "/"), "readonly=on")
    if settings.root:
        arguments += _shared_folder("tests", str(TESTS), "readonly=on")
        arguments += _shared_folder("modules", str(kernel.modules), "readonly=on")
    if settings.results:
        arguments += _shared_folder("results", os.path.realpath(settings.results), "readonly=off")
    return arguments


def _shared_folder(tag: str, path: str, access: str) -> list[str]:
    path = path.replace(",", ",,")
    backend = f"local,id={tag},path={path},security_model=none,multidevs=remap,{access}"
    return ["-fsdev", backend, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
