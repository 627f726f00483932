# SPDX-License-Identifier: Apache-2.0
"""What has to be compiled; everything else is in pyproject.toml.

The request path of the daemon, with mypyc: plain typed Python that runs as such, too. Compiled, the
daemon's own share of a call is a fraction of what it is else (`make bench` shows both).
binderd/compilation.py has the list.

What it calls most, in C, as extensions: the kernel (binderd/edge) and the codecs of records
(binderwire). Where they are not there the same in Python is taken.

Programs in C, with the C compiler ($CC, $CFLAGS): the table below has them.

A build that cannot do that fails and says what is missing. With BINDERD_COMPILE=0 in the
environment the request path stays interpreted, and programs in C are left out where there is no C
compiler. An editable installation is always interpreted. `binderd --version` tells.
"""

from __future__ import annotations

import os
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Distribution, Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

WANTS_COMPILED = os.environ.get("BINDERD_COMPILE", "1") != "0"
ADVICE = (
    "Install a C compiler and Python's headers (Debian: apt-get install gcc libc6-dev "
    "linux-libc-dev python3-dev), or set BINDERD_COMPILE=0 for a slower, interpreted daemon."
)


def give_up(reason: str, advice: str = ADVICE) -> SystemExit:
    """Return what ends the build."""
    return SystemExit(f"\nbinderd cannot be built: {reason}. {advice}\n")


def find_compiler() -> list[str] | None:
    """Return the command of the C compiler, None if there is none."""
    compiler = shlex.split(os.environ.get("CC") or "cc")
    return compiler if shutil.which(compiler[0]) else None


class BuildRequestPath(build_ext):
    """``build_ext``, which finds out what there is to compile when it is run, not before."""

    def run(self) -> None:
        if WANTS_COMPILED and not (self.editable_mode or self.inplace):
            self.distribution.ext_modules = self.translate()
            self.distribution.reinitialize_command(self)  # now that there is something
            self.ensure_finalized()
        super().run()

    def build_extensions(self) -> None:
        try:
            super().build_extensions()
        except Exception as error:
            raise give_up(f"the C compiler fails ({error})") from None

    def translate(self) -> list[object]:
        """Make C of the request path; return the extensions that there are then."""
        if find_compiler() is None:
            raise give_up(f"there is no C compiler ({os.environ.get('CC') or 'cc'})")
        headers = Path(sysconfig.get_path("include"))
        if not (headers / "Python.h").exists():
            raise give_up(f"there is no {headers}/Python.h")
        try:
            from mypyc import build as mypyc
        except ImportError as error:
            raise give_up(f"there is no mypyc ({error})", "Install mypy.") from None
        try:
            extensions = list(mypyc.mypycify(self.sources(), opt_level="3"))
        except (Exception, SystemExit) as error:
            raise give_up(
                f"mypyc fails ({error})", "Another version of mypy may help, or BINDERD_COMPILE=0."
            ) from None
        extensions += IN_C
        # Where it was built is nothing to be told from what was built; the last that fits counts.
        places = {Path.cwd(): ".", Path(mypyc.__file__).parent: "mypyc"}
        for extension in extensions:
            for place, name in places.items():
                extension.extra_compile_args.append(f"-ffile-prefix-map={place}={name}")
        return extensions

    @staticmethod
    def sources() -> list[str]:
        table = runpy.run_path("daemon/binderd/compilation.py")
        found = []
        for name in table["REQUEST_PATH"]:
            package, *rest = name.split(".")
            path = Path(table["PLACES"][package], package, *rest)
            files = path.glob("*.py") if path.is_dir() else [path.with_suffix(".py")]
            found += [str(file) for file in files if file.name != "__init__.py"]
        return sorted(found)


@dataclass(frozen=True)
class Program:
    """A program or library in C that a package brings along."""

    target: Path  # below the packages
    sources: Path  # a folder
    flags: tuple[str, ...]
    libraries: tuple[str, ...]
    needed_by: str  # what does not work without it

    def command(self, compiler: list[str], target: Path) -> list[str]:
        return [
            *compiler,
            *("-std=c11", "-O2", "-Wall", "-Wextra"),
            *self.flags,
            *shlex.split(os.environ.get("CPPFLAGS", "")),
            *shlex.split(os.environ.get("CFLAGS", "")),
            f"-I{INCLUDES}",
            *("-o", str(target)),
            *map(str, sorted(self.sources.glob("*.c"))),
            *shlex.split(os.environ.get("LDFLAGS", "")),
            *self.libraries,
        ]


IN_C = [
    Extension(name, [source], extra_compile_args=["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra"])
    for name, source in (
        ("binderd.edge.native", "daemon/binderd/edge/native.c"),
        ("binderwire.quick", "protocol/binderwire/quick.c"),
    )
]
INCLUDES = Path("client/include")
PROGRAMS = (
    Program(
        target=Path("binderclient", "libbinderd-preload.so"),
        sources=Path("client/preload"),
        flags=(
            *("-fPIC", "-fvisibility=hidden", "-shared", "-pthread"),
            *("-Wl,-z,now", "-Wl,-z,defs"),
        ),
        libraries=("-ldl",),
        needed_by="binderctl run",
    ),
    Program(
        target=Path("binderclient", "binderd-stress-worker"),
        sources=Path("client/stress"),
        flags=("-pthread",),
        libraries=("-lm",),
        needed_by="binderctl stress",
    ),
)


class BuildPrograms(Command):
    """``setup.py build_programs``: compiles the programs in C."""

    description = "compile the programs in C"
    user_options: ClassVar[list[tuple[str, str | None, str]]] = [
        ("build-lib=", None, "where the packages are built"),
        ("inplace", "i", "put them into the source tree, and fail if that is not possible"),
    ]
    boolean_options: ClassVar[list[str]] = ["inplace"]
    editable_mode = False  # set by setuptools

    def initialize_options(self) -> None:
        self.build_lib: str | None = None
        self.inplace = False

    def finalize_options(self) -> None:
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def target(self, program: Program) -> Path:
        in_source_tree = self.inplace or self.editable_mode
        return Path("client" if in_source_tree else str(self.build_lib)) / program.target

    def run(self) -> None:
        for program in PROGRAMS:
            self.compile(program)

    def compile(self, program: Program) -> None:
        compiler = find_compiler()
        if compiler is None:
            reason = f"there is no C compiler ({os.environ.get('CC') or 'cc'})"
            if WANTS_COMPILED or self.inplace:
                raise give_up(reason)
            self.warn(f"{program.target.name} is left out, {reason}: no `{program.needed_by}`")
            return
        target = self.target(program)
        target.parent.mkdir(parents=True, exist_ok=True)
        if subprocess.run(program.command(compiler, target), check=False).returncode != 0:
            raise give_up(f"{program.target.name} does not compile")

    # What setuptools wants to know of a step of its build.

    def get_source_files(self) -> list[str]:
        folders = [INCLUDES, *(program.sources for program in PROGRAMS)]
        return [str(path) for folder in folders for path in folder.glob("*.[ch]")]

    def get_outputs(self) -> list[str]:
        return [str(self.target(program)) for program in PROGRAMS]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class Build(build):
    """The usual build, then the programs in C."""

    sub_commands: ClassVar = [*build.sub_commands, ("build_programs", None)]


class PlatformDistribution(Distribution):
    """What is built holds machine code, so it is for one kind of machine and one Python."""

    def has_ext_modules(self) -> bool:
        return True


if "editable_wheel" in sys.argv:
    print("binderd: an editable installation is interpreted; `make compile` makes a fast daemon")
setup(
    cmdclass={"build": Build, "build_ext": BuildRequestPath, "build_programs": BuildPrograms},
    distclass=PlatformDistribution,
)
