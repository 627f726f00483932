# SPDX-License-Identifier: Apache-2.0
"""``mount.binder``: what mount(8) runs for ``mount -t binder``, and for such a line in fstab.

It starts a daemon for that directory in the background and returns when the devices are there. As
with other file systems in user space the daemon ends when its file system is unmounted.

``umount.fuse.binderd`` is what umount(8) runs for such a directory: what is shown in it, features
and binder_logs, are mounts of their own and have to go first.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Final, NoReturn

from binderd.fuse.directory import DEVICES_MAX
from binderd.linux import pidfd
from binderd.log import SYSLOG

if TYPE_CHECKING:
    from collections.abc import Sequence

# mount(8), RETURN VALUE
_USAGE: Final = 1
_SYSTEM: Final = 2
_FAILED: Final = 32

_START_SECONDS: Final = 60.0
_MESSAGE_SIZE: Final = 4096  # bytes of what the daemon says about its readiness

# What mount(8) passes on for every file system, and what is as they want it here anyway.
_GENERIC: Final = frozenset(
    """rw defaults suid nosuid dev nodev exec noexec sync async dirsync atime noatime diratime
    nodiratime relatime norelatime strictatime nostrictatime lazytime nolazytime silent loud
    iversion noiversion mand nomand auto noauto nofail _netdev user nouser users owner group
    stats=global""".split()  # noqa: SIM905 - one word a line would be a page
)
_REFUSED: Final = {
    "ro": "clients must be able to open the devices for writing",
    "remount": "unmount it and mount it again",
    "bind": "is for mount --bind",
}

_DESCRIPTION: Final = """\
Mounts binder devices in DIR: mount -t binder binder DIR. A daemon is started for it, which logs to
the system's log and ends when DIR is unmounted."""

_EPILOG: Final = """\
options for -o:
  max=N          how many devices there may be at once, as binderfs has it
  stats=global   accepted; there are statistics in any case
Others that mount(8) knows are accepted if they make no difference here.

in /etc/fstab:
  binder  /dev/binderfs  binder  nofail,max=64  0  0

exit status, as of mount(8): 0 mounted, 1 wrong arguments, 32 it failed"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(_USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``mount.binder``; return the exit status."""
    parser = _Parser(
        prog="mount.binder",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="SOURCE", help="any word; binder by custom")
    parser.add_argument("directory", metavar="DIR", help="where; must exist")
    parser.add_argument("-o", metavar="OPTIONS", action="append", default=[], help="see below")
    parser.add_argument("-f", action="store_true", help="fake: only look at the arguments")
    parser.add_argument("-s", action="store_true", help="sloppy: ignore unknown options")
    parser.add_argument("-v", action="store_true", help="say when it is mounted")
    parser.add_argument("-n", "-w", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-t", metavar="TYPE", help=argparse.SUPPRESS)
    parser.add_argument("-N", metavar="NAMESPACE", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.N is not None:
        parser.error("-N: enter the namespace first, with nsenter --mount")
    try:
        count_max = parse_options(chosen.o, is_sloppy=chosen.s)
    except ValueError as error:
        parser.error(str(error))
    if not os.path.isdir(chosen.directory):
        parser.exit(_FAILED, f"mount.binder: {chosen.directory}: there is no such directory\n")
    if chosen.f:
        return 0
    complaint = _start(chosen.directory, count_max)
    if complaint:
        print(f"mount.binder: {complaint}", file=sys.stderr)
        return _FAILED
    if chosen.v:
        print(f"mount.binder: {chosen.source} mounted on {chosen.directory}")
    return 0


def unmount(arguments: Sequence[str] | None = None) -> int:
    """Run ``umount.fuse.binderd DIR [OPTION ...]``: umount(8) once more, for all that is there."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0].startswith("-"):
        print("umount.fuse.binderd: is for umount(8): umount DIR", file=sys.stderr)
        return _USAGE
    directory, *options = words
    if "-t" in options:  # and what is mounted there
        del options[options.index("-t") : options.index("-t") + 2]
    # Internal only: it must not call us again.
    return subprocess.call(["umount", "-i", "-R", *options, "--", directory])


def parse_options(words: Sequence[str], *, is_sloppy: bool) -> int:
    """Return how many devices there may be.

    Args:
        words: what came with -o, each with commas between the options.
        is_sloppy: are unknown options to be ignored?

    Raises:
        ValueError: what cannot be, and why.
    """
    count_max = DEVICES_MAX
    for option in ",".join(words).split(","):
        name, _, value = option.partition("=")
        if name == "max":
            if not value.isdecimal() or not 1 <= int(value) <= DEVICES_MAX:
                raise ValueError(f"max={value}: must be a number from 1 to {DEVICES_MAX}")
            count_max = int(value)
        elif name in _REFUSED:
            raise ValueError(f"option {name}: {_REFUSED[name]}")
        elif not (is_sloppy or _is_generic(option)):
            raise ValueError(f"there is no option {option!r}")
    return count_max


def _is_generic(option: str) -> bool:
    """Return whether an option is of mount(8) itself, or for other programs that read fstab."""
    return not option or option in _GENERIC or option.startswith(("x-", "X-", "comment="))


def _start(directory: str, count_max: int) -> str:
    """Start a daemon; return why that failed, or an empty string when the devices are there."""
    command = [sys.executable, "-P", "-m", "binderd", "--mount", os.path.abspath(directory)]
    command += ["--transport", "fuse", "--max-devices", str(count_max), "--symlinks", ""]
    command += ["--log-to", "syslog" if os.path.exists(SYSLOG) else "stderr"]
    places = os.pathsep.join(os.path.abspath(place) for place in sys.path)  # as ours
    with (
        tempfile.TemporaryFile() as said,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as readiness,
    ):
        readiness.bind("")  # an abstract name that nobody else has
        name = "@" + readiness.getsockname()[1:].decode()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            cwd="/",
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": places, "NOTIFY_SOCKET": name},
        )
        if _is_ready(process, readiness):
            _have_umount_call_us(directory)
            return ""
        if process.poll() is None:
            process.terminate()
            process.wait()
            return f"the daemon was not ready after {_START_SECONDS:.0f} s, so it was ended"
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("binderd: ") if lines else "the daemon has ended"


def _have_umount_call_us(directory: str) -> None:
    """Note in libmount's own table that a helper unmounts this directory.

    Without the note umount(8) asks the directory what it is, learns no more than "FUSE", and looks
    for no helper of ours. Where the note cannot be made, "umount -R" does the same.
    """
    note = ["mount", "-i", "-o", "remount,uhelper=fuse.binderd", "--", directory]
    subprocess.run(note, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def _is_ready(process: subprocess.Popen[bytes], readiness: socket.socket) -> bool:
    """Wait until the daemon serves, or has ended."""
    with pidfd.opened_process(process.pid) as ended:
        deadline = time.monotonic() + _START_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([readiness.fileno(), ended], [], [], left)
            if readiness.fileno() in ready and b"READY=1" in readiness.recv(_MESSAGE_SIZE).split(
                b"\n"
            ):
                return True
            if ended in ready:
                return False
        return False


if __name__ == "__main__":
    sys.exit(main())
