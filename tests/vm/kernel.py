# SPDX-License-Identifier: Apache-2.0
"""Debian's kernel packages: fetched and unpacked once per user, never installed.

KERNEL in the environment says which: the beginning of a version. What the host's package lists do
not know is looked for in those of another Debian, as only the file is wanted.

They live in ${XDG_CACHE_HOME:-~/.cache}/binderd-vm/kernel-RELEASE/. Whoever comes first makes it,
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

DEFAULT: Final = "6.12"
# One package of an ordinary kernel: not unsigned, nor built for clouds or real time.
PACKAGE: Final = re.compile(r"linux-image-[0-9][^-]*(?:-[0-9]+)?-amd64")
# What newer ones are divided into.
PARTS: Final = re.compile(r"Depends: (linux-(?:base|binary|modules)-[0-9]\S*)")
# Where newer kernels than the host's are, and the key of it.
OTHER_SUITE: Final = "trixie-backports"
KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
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


def wanted() -> str:
    """Return the beginning of the version that is asked for.

    Raises:
        MachineError: it is none.
    """
    text = os.environ.get("KERNEL") or DEFAULT
    if re.fullmatch(r"[0-9]{1,3}(\.[0-9a-z.+-]{1,40})?", text) is None:
        raise MachineError(f"KERNEL must be a version such as 6.1 or 6.12, not {text!r}")
    return text


def obtain() -> Kernel:
    """Return the newest unpacked kernel of the version that is wanted; fetch one if there is none.

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
    raise MachineError(f"the package held no kernel {wanted()}; see {folder}")


def _check_host() -> None:
    if platform.machine() != "x86_64":
        raise MachineError("the machine shares the host's programs: only an x86-64 host will do")
    missing = [name for name in PROGRAMS if not shutil.which(name, path=search_path())]
    if missing:
        raise MachineError(
            f"not installed: {', '.join(missing)}\n'make vm' as root installs what is missing: "
            "apt-get install qemu-system-x86 busybox-static kmod"
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
    candidates = [path for path in folder.glob("kernel-*") if path.is_dir() and _fits(path.name)]
    for candidate in sorted(candidates, key=lambda path: path.stat().st_mtime, reverse=True):
        images = [*candidate.glob("boot/vmlinuz-*"), *candidate.glob("lib/modules/*/vmlinuz")]
        modules = list(candidate.glob("lib/modules/*/modules.dep"))
        if images and modules:
            return Kernel(images[0], modules[0].parent)
    return None


def _fits(name: str) -> bool:
    """Whether a package's or a folder's name is of the version that is wanted: 6.1 is not 6.12."""
    return re.search(rf"-{re.escape(wanted())}(?![0-9])", name) is not None


def _fetch(unfinished: Path, folder: Path) -> None:
    tree = unfinished / "tree"
    packages = _download(unfinished)
    for package in packages:
        say(f"unpacking {package.name}")
        _run("dpkg-deb", "--extract", package, tree)
    shutil.rmtree(tree / "usr/share", ignore_errors=True)
    if not (tree / "lib").exists():  # newer packages know only /usr/lib
        (tree / "lib").symlink_to("usr/lib")
    modules = next(iter((tree / "lib/modules").glob("*")), None)
    if modules is None:
        raise MachineError(f"there are no modules in {packages[0].name}")
    _run("depmod", "--basedir", tree, modules.name)
    place = folder / f"kernel-{modules.name}"
    shutil.rmtree(place, ignore_errors=True)  # one that somebody made incomplete
    tree.rename(place)


def _download(folder: Path) -> list[Path]:
    """Download the newest package that fits, with its parts."""
    try:
        return _download_listed(folder, [])
    except MachineError:  # no package lists yet, or lists of an older state of the mirror
        if not os.geteuid():
            say("apt-get update")
            _run("apt-get", "update", "-qq")
            with contextlib.suppress(MachineError):
                return _download_listed(folder, [])
    say(f"looking for a kernel {wanted()} in Debian's {OTHER_SUITE}")
    options = _other_suite(folder)
    _run("apt-get", *options, "update", "-qq")
    return _download_listed(folder, options)


def _other_suite(folder: Path) -> list[str]:
    """Return options that have apt use lists of another Debian, in a folder, and no others."""
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True)
    mirror = os.environ.get("MIRROR", "http://deb.debian.org/debian")
    sources = folder / "sources.list"
    sources.write_text(f"deb [signed-by={KEYRING}] {mirror} {OTHER_SUITE} main\n", encoding="utf-8")
    settings = {
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder,
        "APT::Sandbox::User": "root",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def _download_listed(folder: Path, options: list[str]) -> list[Path]:
    names = [
        name
        for name in _run("apt-cache", *options, "pkgnames", "linux-image-").split()
        if PACKAGE.fullmatch(name) and _fits(name)
    ]
    # Names stay in the lists when the packages have gone: "(none)".
    shown = _run("apt-cache", *options, "policy", *names) if names else ""
    there = re.findall(r"^(linux-image-\S+):\n.*\n +Candidate: ([0-9]\S*)$", shown, re.MULTILINE)
    if not there:
        raise MachineError(f"apt knows no package of a kernel {wanted()}")
    name = max((name for name, _ in there), key=_order)
    say(f"downloading {name}, some 100 MB, once")
    parts = PARTS.findall(_run("apt-cache", *options, "depends", "--important", name))
    sandbox = ("-o", "APT::Sandbox::User=root")
    _run("apt-get", *options, "download", "-qq", *sandbox, name, *parts, directory=folder)
    return sorted(folder.glob("*.deb"))


def _order(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"[0-9]+", name)]


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
