# SPDX-License-Identifier: Apache-2.0
"""Debian's kernel package: fetched and unpacked once per user, never installed.

It lives in ${XDG_CACHE_HOME:-~/.cache}/binderd-vm/kernel-RELEASE/. Whoever comes first makes it,
under a lock, in a folder that gets its name only when it is complete; so an interrupted download,
or two at a time, leave nothing half-done behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vm.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE: Final = "linux-image-6.12-amd64"
PROGRAMS: Final = ("qemu-system-x86_64", "busybox", "depmod", "apt-get", "apt-cache", "dpkg-deb")
SYSTEM_PATH: Final = "/usr/sbin:/sbin:/usr/bin:/bin"


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package."""

    image: Path
    modules: Path  # .../lib/modules/RELEASE

    @property
    def release(self) -> str:
        return self.modules.name

    def module_files(self, *names: str) -> list[Path]:
        """Return the files to load for these modules, in order; built-in ones need none.

        Raises:
            MachineError: the package has no such module.
        """
        needs: dict[str, list[str]] = {}
        for line in (self.modules / "modules.dep").read_text().splitlines():
            path, _, dependencies = line.partition(":")
            needs[_module_name(path)] = [path, *dependencies.split()]
        built_in = (self.modules / "modules.builtin").read_text().split()
        names_built_in = {_module_name(path) for path in built_in}
        ordered: dict[str, None] = {}
        for name in names:
            if name not in needs and name not in names_built_in:
                raise MachineError(f"the kernel {self.release} has no module {name}")
            # depmod lists all dependencies, each before those that it needs itself.
            ordered.update(dict.fromkeys(reversed(needs.get(name, []))))
        return [self.modules / path for path in ordered]


def _module_name(path: str) -> str:
    return Path(path).name.partition(".")[0].replace("-", "_")


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "binderd-vm"


def obtain() -> Kernel:
    """Return the newest unpacked kernel; fetch one if there is none.

    Raises:
        MachineError: something needed is missing or a download failed.
    """
    _check_host()
    folder = cache_folder()
    if kernel := _newest(folder):
        return kernel
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / "lock"):
            if kernel := _newest(folder):  # another process was faster
                return kernel
            with tempfile.TemporaryDirectory(prefix="unfinished-", dir=folder) as unfinished:
                _fetch(Path(unfinished), folder)
    except OSError as error:
        raise MachineError(f"cannot keep a kernel in {folder}: {error}") from error
    if kernel := _newest(folder):
        return kernel
    raise MachineError(f"the package {PACKAGE} held no kernel; see {folder}")


def _check_host() -> None:
    if platform.machine() != "x86_64":
        raise MachineError("the machine shares the host's programs: only an x86-64 host will do")
    missing = [name for name in PROGRAMS if not shutil.which(name, path=search_path())]
    if missing:
        wanted = "qemu-system-x86 busybox-static kmod"
        raise MachineError(
            f"not installed: {', '.join(missing)}\n"
            f"'make vm' as root installs what is missing: apt-get install {wanted}"
        )


def search_path() -> str:
    return f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is fetching the kernel: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _newest(folder: Path) -> Kernel | None:
    candidates = [path for path in folder.glob("kernel-*") if path.is_dir()]
    for candidate in sorted(candidates, key=lambda path: path.stat().st_mtime, reverse=True):
        images = list(candidate.glob("boot/vmlinuz-*"))
        modules = list(candidate.glob("lib/modules/*/modules.dep"))
        if images and modules:
            return Kernel(images[0], modules[0].parent)
    return None


def _fetch(unfinished: Path, folder: Path) -> None:
    package = _download(unfinished)
    say(f"unpacking {package.name}")
    tree = unfinished / "tree"
    _run("dpkg-deb", "--extract", package, tree)
    shutil.rmtree(tree / "usr/share", ignore_errors=True)
    if not (tree / "lib").exists():  # newer packages know only /usr/lib
        (tree / "lib").symlink_to("usr/lib")
    modules = next(iter((tree / "lib/modules").glob("*")), None)
    if modules is None:
        raise MachineError(f"{package.name} holds no modules")
    _run("depmod", "--basedir", tree, modules.name)
    place = folder / f"kernel-{modules.name}"
    shutil.rmtree(place, ignore_errors=True)  # one that somebody made incomplete
    tree.rename(place)


def _download(folder: Path) -> Path:
    """Download the package that the meta package stands for."""
    try:
        return _download_listed(folder)
    except MachineError:  # no package lists yet, or lists of an older state of the mirror
        if os.geteuid():
            raise
        say("apt-get update")
        _run("apt-get", "update", "-qq")
        return _download_listed(folder)


def _download_listed(folder: Path) -> Path:
    depends = _run("apt-cache", "depends", "--important", PACKAGE)
    match = re.search(r"Depends: (linux-image-\S+)", depends)
    if not match:
        raise MachineError(f"apt knows no package {PACKAGE}; is this Debian 12?")
    say(f"downloading {match[1]}, some 100 MB, once")
    _run("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", match[1], directory=folder)
    return next(folder.glob("*.deb"))


def _run(*command: str | Path, directory: Path | None = None) -> str:
    environment = {**os.environ, "PATH": search_path(), "LC_ALL": "C"}
    result = subprocess.run(
        command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, capture_output=True
    )
    if result.returncode:
        complaint = result.stderr.decode(errors="replace").strip()[-2000:]
        raise MachineError(f"{' '.join(map(str, command))} failed:\n{complaint}")
    return result.stdout.decode(errors="replace")


def say(text: str) -> None:
    print(f"vm: {text}", file=sys.stderr, flush=True)
