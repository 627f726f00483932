# SPDX-License-Identifier: Apache-2.0
"""What has to be compiled; everything else is in pyproject.toml.

The request path, with mypyc: the packages below are plain typed Python and run as such. With
BINDERD_COMPILE=1 in the environment they are compiled to C as well, which makes the daemon's own
share of a call about a third of what it is (`make bench` shows both). `make compile` puts the
result into build/compiled.

The preload library, with the C compiler ($CC, $CFLAGS), into the package binderclient; where there
is none the package is installed without it, and `binderctl run` says so. `make preload` puts it
into the source tree.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Distribution, setup
from setuptools.command.build import build

# Whatever a request passes through; no coroutine lives there.
COMPILED_PACKAGES = (
    "daemon/binderd/engine",
    "daemon/binderd/fuse",
    "daemon/binderd/device",
    "daemon/binderd/memory",
)
COMPILED_MODULES = ("daemon/binderd/channel/transfer.py",)


def extension_modules() -> list[object]:
    """Return what to compile: nothing unless it was asked for."""
    if os.environ.get("BINDERD_COMPILE") != "1":
        return []
    from mypyc.build import mypycify

    sources = sorted(
        str(path)
        for package in COMPILED_PACKAGES
        for path in Path(package).glob("*.py")
        if path.name != "__init__.py"
    )
    return list(mypycify([*sources, *COMPILED_MODULES], opt_level="3"))


PRELOAD_LIBRARY = Path("binderclient", "libbinderd-preload.so")
PRELOAD_SOURCES = Path("client/preload")
PRELOAD_INCLUDES = Path("client/include")
PRELOAD_FLAGS = (
    *("-std=gnu11", "-O2", "-Wall", "-Wextra", "-fPIC", "-fvisibility=hidden", "-shared"),
    *("-pthread", "-Wl,-z,now", "-Wl,-z,defs"),
)


class BuildPreload(Command):
    """``setup.py build_preload``: compiles the preload library."""

    description = "compile the preload library"
    user_options: ClassVar[list[tuple[str, str | None, str]]] = [
        ("build-lib=", None, "where the packages are built"),
        ("inplace", "i", "put it into the source tree, and fail if that is not possible"),
    ]
    boolean_options: ClassVar[list[str]] = ["inplace"]
    editable_mode = False  # set by setuptools

    def initialize_options(self) -> None:
        self.build_lib: str | None = None
        self.inplace = False

    def finalize_options(self) -> None:
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    @property
    def target(self) -> Path:
        in_source_tree = self.inplace or self.editable_mode
        return Path("client" if in_source_tree else str(self.build_lib)) / PRELOAD_LIBRARY

    def run(self) -> None:
        compiler = shlex.split(os.environ.get("CC", "cc"))
        if shutil.which(compiler[0]) is None:
            self.give_up(f"no C compiler ({compiler[0]})")
            return
        self.target.parent.mkdir(parents=True, exist_ok=True)
        command = [
            *compiler,
            *PRELOAD_FLAGS,
            *shlex.split(os.environ.get("CFLAGS", "")),
            f"-I{PRELOAD_INCLUDES}",
            *("-o", str(self.target)),
            *map(str, sorted(PRELOAD_SOURCES.glob("*.c"))),
            "-ldl",
        ]
        if subprocess.run(command, check=False).returncode != 0:
            self.give_up("it does not compile")

    def give_up(self, reason: str) -> None:
        message = f"{PRELOAD_LIBRARY.name} is not built: {reason}; `binderctl run` will not work"
        if self.inplace:
            raise SystemExit(message)
        self.warn(message)

    # What setuptools wants to know of a step of its build.

    def get_source_files(self) -> list[str]:
        headers = PRELOAD_INCLUDES.glob("*.h")
        return [str(path) for path in (*PRELOAD_SOURCES.glob("*.[ch]"), *headers)]

    def get_outputs(self) -> list[str]:
        return [str(self.target)]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class Build(build):
    """The usual build, then the preload library."""

    sub_commands: ClassVar = [*build.sub_commands, ("build_preload", None)]


class PlatformDistribution(Distribution):
    """What is built holds machine code, so it is for one kind of machine."""

    def has_ext_modules(self) -> bool:
        return True


setup(
    cmdclass={"build": Build, "build_preload": BuildPreload},
    distclass=PlatformDistribution,
    ext_modules=extension_modules(),
)
