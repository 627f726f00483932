# SPDX-License-Identifier: Apache-2.0
"""The programs in C that are measured, compiled when they are older than their sources."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.errors import BenchError, Missing

if TYPE_CHECKING:
    from collections.abc import Iterable

SOURCES: Final = Path(__file__).resolve().parent
INCLUDES: Final = SOURCES.parents[1] / "client" / "include"
BUILD: Final = SOURCES.parents[1] / "build" / "bench"
CFLAGS: Final = ("-O2", "-Wall", "-Wextra", "-Werror")


def build(program: str, libraries: Iterable[str] = ()) -> str:
    """The path of the compiled program, made now if it is older than its sources."""
    source, binary = SOURCES / f"{program}.c", BUILD / program
    headers = (*SOURCES.glob("*.h"), *INCLUDES.glob("*.h"))
    newest = max(path.stat().st_mtime for path in (source, *headers, Path(__file__)))
    if not binary.exists() or binary.stat().st_mtime < newest:
        BUILD.mkdir(parents=True, exist_ok=True)
        fresh = binary.with_name(f"{program}.{os.getpid()}")  # another run may be using the old one
        command = [compiler(), *CFLAGS, "-o", str(fresh), str(source), *library_flags(libraries)]
        if subprocess.run(command).returncode != 0:
            raise BenchError(f"{source.name} does not compile; `make setup` installs what it needs")
        fresh.replace(binary)
    return str(binary)


def compiler() -> str:
    """The C compiler's command."""
    return os.environ.get("CC", "cc")


def library_flags(libraries: Iterable[str]) -> list[str]:
    """Compiler flags of libraries by their pkg-config names."""
    flags: list[str] = []
    for library in libraries:
        command = ["pkg-config", "--cflags", "--libs", library]
        asked = subprocess.run(command, capture_output=True, text=True)
        if asked.returncode != 0:
            raise BenchError(f"{library} is not installed; `make setup` installs it")
        flags += asked.stdout.split()
    return flags


def need(*programs: str) -> None:
    """Ends the run early, with the name, when a program it relies on is missing."""
    for program in programs:
        if shutil.which(program) is None:
            raise Missing(f"{program} is not installed; `make setup` installs it")


def broker() -> str:
    """dbus-broker: the system's, or what `make bench` has fetched.

    Raises:
        Missing: there is none.
    """
    fetched = BUILD / "dbus-broker"
    found = shutil.which("dbus-broker") or (str(fetched) if fetched.exists() else None)
    if found is None:
        raise Missing("dbus-broker is not there; `make bench` fetches it")
    return found
