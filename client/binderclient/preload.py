# SPDX-License-Identifier: Apache-2.0
"""``binderctl run``: starts a program that cannot be changed, with libbinderd-preload.so in it.

The library is a file of this package if a C compiler was there when it was installed. Nothing here
may know what the library does, or talk to a device.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NoReturn

from binderclient.errors import BinderError
from binderclient.tool import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LIBRARY: Final = "libbinderd-preload.so"
VARIABLE: Final = "LD_PRELOAD"
_SEPARATORS: Final = " :"  # of the names in it; a name with one of them cannot be written there

INTERPRETERS_MAX: Final = 5  # that the kernel follows, of scripts that are run by scripts

NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126

_NOT_BUILT: Final = """\
{} is not there: it is built when the package is installed, if there is a C compiler.
Install one and the kernel's headers (Debian: apt-get install gcc libc6-dev linux-libc-dev), then
install binderd again; in a checkout, "make preload" is enough."""


class RunError(BinderError):
    """The program cannot be started.

    Args:
        message: why, and what helps.
        status: the exit status that says so: as a shell, 127 if there is no such program, 126 if it
            cannot be executed; else 1.
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def library_path() -> Path:
    """Return the path of the library.

    Raises:
        RunError: it was not built, or the loader cannot be told about a file of that name.
    """
    path = Path(str(files("binderclient") / LIBRARY))
    if not path.is_file():
        raise RunError(_NOT_BUILT.format(path))
    if set(_SEPARATORS) & set(str(path)):
        raise RunError(f"{path}: the loader takes no names with spaces or colons in {VARIABLE}")
    return path


def with_library(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the library put before what is preloaded already."""
    library = str(library_path())
    others = environment.get(VARIABLE, "").replace(" ", ":").split(":")
    names = [library, *(name for name in others if name and name != library)]
    return {**environment, VARIABLE: ":".join(names)}


def run(command: Sequence[str], caller: str) -> NoReturn:
    """Become the program ``command[0]``, with the library; warns on stderr where it cannot work.

    Args:
        command: the program and its arguments.
        caller: the command, for the warning.

    Raises:
        RunError: there is no library, or no such program; or it cannot be executed.
    """
    environment = with_library(os.environ)
    path = find_program(command[0])
    for warning in warnings_about(path):
        say(f"{caller}: warning: {path}: {warning}")
    try:
        os.execve(path, list(command), environment)
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}", NOT_EXECUTABLE) from None


def find_program(name: str) -> Path:
    """Return where a program is, as a shell finds it.

    Raises:
        RunError: there is none, or it cannot be executed.
    """
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    if "/" in name and Path(name).exists():
        raise RunError(f"{name}: not an executable file", NOT_EXECUTABLE)
    raise RunError(f"{name}: no such program", NOT_FOUND)


def warnings_about(path: Path, depth: int = INTERPRETERS_MAX) -> Iterator[str]:
    """Yield why preloading a library into a program will not work, if so.

    Args:
        path: the program; of a script, its interpreter is looked at.
        depth: how many interpreters may still follow.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or depth < 0:
        return  # the kernel will refuse it; opening a FIFO would wait for ever
    if _gains_privileges(path, status):
        yield "it gains privileges when it starts, so the loader ignores LD_PRELOAD"
    try:
        with path.open("rb") as file:
            first = file.read(2)
            if first == b"#!":
                words = file.readline(256).split()
                if words:
                    yield from warnings_about(Path(os.fsdecode(words[0])), depth - 1)
                return
            loader = elf_loader(file)
    except (OSError, struct.error):
        return  # it may be executable but not readable, or a file like none that we know
    if loader is None:
        yield "it is statically linked, so nothing can be preloaded into it"
    elif (ours := _own_loader()) is not None and loader != ours:
        yield f"it is loaded by {loader}, and the library is for programs that {ours} loads"


def _gains_privileges(path: Path, status: os.stat_result) -> bool:
    if status.st_mode & stat.S_ISUID and status.st_uid != os.getuid():
        return True
    if status.st_mode & stat.S_ISGID and status.st_gid != os.getgid():
        return True
    try:
        return os.getuid() != 0 and bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False


_ELF_MAGIC: Final = b"\x7fELF"
_ELF64: Final = 2
_PT_INTERP: Final = 3
_OFFSET_MAX: Final = 1 << 40  # what can be sought
# Where the table of program headers of a 64-bit or a 32-bit file is: its offset, the size of an
# entry, how many; and in an entry: type, offset, size in the file.
_HEADERS: Final = {_ELF64: struct.Struct("=32xQ14xHH"), 1: struct.Struct("=28xI10xHH")}
_ENTRIES: Final = {_ELF64: struct.Struct("=I4xQ16xQ"), 1: struct.Struct("=II8xI")}


def elf_loader(file: BinaryIO) -> str | None:
    """Return which loader an ELF program asks for, None if for none: it is statically linked.

    Raises:
        OSError: it is no ELF file of this machine's byte order.
        struct.error: the file ends too soon.
    """
    file.seek(0)
    identity = file.read(64)
    if len(identity) < 64 or not identity.startswith(_ELF_MAGIC) or identity[4] not in _HEADERS:
        raise OSError("no ELF file")
    if (identity[5] == 1) != (sys.byteorder == "little"):
        raise OSError("an ELF file of another byte order")
    header, entry = _HEADERS[identity[4]], _ENTRIES[identity[4]]
    table, entry_size, count = header.unpack_from(identity)
    if table > _OFFSET_MAX:
        raise OSError("no ELF file")
    for number in range(count):
        file.seek(table + number * entry_size)
        kind, offset, size = entry.unpack(file.read(entry.size))
        if kind == _PT_INTERP and offset <= _OFFSET_MAX:
            file.seek(offset)
            return os.fsdecode(file.read(min(size, 4096)).rstrip(b"\0"))
    return None


def _own_loader() -> str | None:
    """Return the loader of the interpreter that runs this, None if that cannot be said."""
    try:
        with Path(sys.executable).open("rb") as file:
            return elf_loader(file)
    except (OSError, struct.error):
        return None
