# SPDX-License-Identifier: Apache-2.0
"""What has to be compiled; everything else is in pyproject.toml.

The request path, with mypyc: the packages below are plain typed Python and run as such. With
BINDERD_COMPILE=1 in the environment they are compiled to C as well, which makes the daemon's own
share of a call about a third of what it is (`make bench` shows both). `make compile` puts the
result into build/compiled.

The preload library and the worker of `binderctl stress`, with the C compiler ($CC, $CFLAGS), into
the package binderclient; where there is none the package is installed without them, and `binderctl
run` and `stress` say so. `make preload` and `make stress-worker` put them into the source tree.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar, NamedTuple

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


class CProgram(NamedTuple):
    """Something in C that is a file of the package binderclient."""

    name: str
    sources: Path
    flags: tuple[str, ...]
    libraries: tuple[str, ...]
    needed_by: str


INCLUDES = Path("client/include")
PRELOAD = CProgram(
    "libbinderd-preload.so",
    Path("client/preload"),
    (
        *("-std=gnu11", "-O2", "-Wall", "-Wextra", "-fPIC", "-fvisibility=hidden", "-shared"),
        *("-pthread", "-Wl,-z,now", "-Wl,-z,defs"),
    ),
    ("-ldl",),
    "binderctl run",
)
STRESS_WORKER = CProgram(
    "binderd-stress-worker",
    Path("client/stress"),
    ("-std=c11", "-O2", "-Wall", "-Wextra", "-pthread"),
    ("-lm",),
    "binderctl stress",
)


class BuildC(Command):
    """Compiles one of them; which, its subclasses say."""

    program: ClassVar[CProgram]
    description = "compile a program or library in C"
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
        root = "client" if in_source_tree else str(self.build_lib)
        return Path(root, "binderclient", self.program.name)

    def run(self) -> None:
        compiler = shlex.split(os.environ.get("CC", "cc"))
        if shutil.which(compiler[0]) is None:
            self.give_up(f"no C compiler ({compiler[0]})")
            return
        self.target.parent.mkdir(parents=True, exist_ok=True)
        command = [
            *compiler,
            *self.program.flags,
            *shlex.split(os.environ.get("CFLAGS", "")),
            f"-I{INCLUDES}",
            *("-o", str(self.target)),
            *map(str, sorted(self.program.sources.glob("*.c"))),
            *self.program.libraries,
        ]
        if subprocess.run(command, check=False).returncode != 0:
            self.give_up("it does not compile")

    def give_up(self, reason: str) -> None:
        name, needed_by = self.program.name, self.program.needed_by
        message = f"{name} is not built: {reason}; `{needed_by}` will not work"
        if self.inplace:
            raise SystemExit(message)
        self.warn(message)

    # What setuptools wants to know of a step of its build.

    def get_source_files(self) -> list[str]:
        headers = INCLUDES.glob("*.h")
        return [str(path) for path in (*self.program.sources.glob("*.[ch]"), *headers)]

    def get_outputs(self) -> list[str]:
        return [str(self.target)]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class BuildPreload(BuildC):
    """``setup.py build_preload``."""

    program = PRELOAD


class BuildStressWorker(BuildC):
    """``setup.py build_stress_worker``."""

    program = STRESS_WORKER


C_BUILDS = {"build_preload": BuildPreload, "build_stress_worker": BuildStressWorker}


class Build(build):
    """The usual build, then what is in C."""

    sub_commands: ClassVar = [*build.sub_commands, *((name, None) for name in C_BUILDS)]


class PlatformDistribution(Distribution):
    """What is built holds machine code, so it is for one kind of machine."""

    def has_ext_modules(self) -> bool:
        return True


setup(
    cmdclass={"build": Build, **C_BUILDS},
    distclass=PlatformDistribution,
    ext_modules=extension_modules(),
)
