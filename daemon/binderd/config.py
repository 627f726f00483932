# SPDX-License-Identifier: Apache-2.0
"""The command line: what to serve, where, how talkative.

Nothing here may know how any of it is done.
"""

from __future__ import annotations

import argparse
import grp
import pwd
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Final, NoReturn

from binderd import compilation
from binderd.fuse.directory import CONFIGURED_MODE, DEVICES_MAX, FIXED_NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_MOUNT: Final = "/dev/binderfs"
DEFAULT_DEVICES: Final = ("binder", "hwbinder", "vndbinder")
TRANSPORTS: Final = ("auto", "fuse", "cuse", "both")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
STALL_LIMIT: Final = 15.0  # seconds that an access to a client's memory may take
_STALL_LIMIT_MIN: Final = 1.0  # less would hit clients whose pages come from a busy disk
_STALL_LIMIT_MAX: Final = 86400.0
_MODE_MAX: Final = 0o777
_NO_ID: Final = (1 << 32) - 1
_NAME_SIZE_MAX: Final = 255  # bytes, BINDERFS_MAX_NAME

_DESCRIPTION: Final = """\
Serves Android's binder devices from user space: a directory like the kernel's binderfs with
one file per device, which programs open, mmap and ioctl as they would /dev/binder."""

_EPILOG: Final = """\
examples:
  binderd                                    /dev/binderfs/{binder,hwbinder,vndbinder}
  binderd --mount /tmp/b --device binder     only /tmp/b/binder, to try something out
  mount --rbind /dev/binderfs /somewhere/else
                                             the same devices in another place: bind the
                                             directory, never a single file of it
  umount --recursive /dev/binderfs           ends it, too
  binderd --transport cuse                   /dev/{binder,hwbinder,vndbinder}, character devices
  binderd --transport both --device-prefix binderd/
                                             /dev/binderd/binder beside /dev/binderfs/binder and
                                             so on: two doors to the same contexts

Beside the devices there is what the kernel's binderfs has: binder-control, through which root
adds devices (they can be renamed and removed), features/, and binder_logs/ in the driver's
text formats.

It runs in the foreground, as root, and says on stderr when it is ready (and to the service
manager through $NOTIFY_SOCKET). SIGTERM, SIGINT and SIGHUP take all away and end it. SIGUSR1 writes
one line of JSON to stderr: how many processes, threads, nodes, references and buffers live, how
many files are open, how many pages the receive buffers take.

Needs /dev/fuse on Linux 6.9 or newer with CONFIG_FUSE_PASSTHROUGH, or else /dev/cuse (modprobe
cuse), whose clients get their receive area through an extension: binderclient and programs that
'binderctl run' starts do so by themselves. Also the capabilities CAP_SYS_ADMIN, CAP_SYS_PTRACE
and CAP_DAC_OVERRIDE, which root has. In a container: --device /dev/fuse --cap-add SYS_ADMIN
--cap-add SYS_PTRACE; for CUSE --device /dev/cuse."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the daemon was asked to do."""

    mount: str = DEFAULT_MOUNT  # the directory
    devices: tuple[str, ...] = DEFAULT_DEVICES  # one binder context each
    log_level: str = "info"
    devices_max: int = DEVICES_MAX  # how many there may be, those that are added later included
    stall_limit: float = STALL_LIMIT  # seconds; 0: none
    injects: bool = True  # may clients be stopped to give them descriptors?
    passthrough: bool = True  # let mmap of a FUSE file show the receive area, if the kernel can
    transport: str = "auto"  # one of TRANSPORTS
    device_prefix: str = ""  # before the name of a CUSE device, below /dev
    access: tuple[int, int, int] = (CONFIGURED_MODE, 0, 0)  # of a device: mode, user, group


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """Return the settings that a command line asks for.

    Args:
        arguments: without the program's name; None for the process' own.

    Raises:
        SystemExit: 2 with a line on stderr for a mistake, 0 after --help and --version.
    """
    parser = make_parser()
    chosen = parser.parse_args(arguments)
    devices = tuple(chosen.device or DEFAULT_DEVICES)
    try:
        check_device_names(devices)
        if chosen.transport in {"cuse", "both"}:
            check_node_names(devices, chosen.device_prefix)
        access = _parse_access(chosen.mode, chosen.owner, chosen.group)
    except ValueError as error:
        parser.error(str(error))
    if not chosen.mount:
        parser.error("--mount needs a directory")
    if not len(devices) <= chosen.max_devices <= DEVICES_MAX:
        parser.error(
            f"--max-devices {chosen.max_devices}: must be from {len(devices)}, the devices "
            f"to start with, to {DEVICES_MAX}"
        )
    if chosen.stall_limit and not _STALL_LIMIT_MIN <= chosen.stall_limit <= _STALL_LIMIT_MAX:
        parser.error(
            f"--stall-limit {chosen.stall_limit:g}: must be from {_STALL_LIMIT_MIN:g} to "
            f"{_STALL_LIMIT_MAX:g} seconds, or 0 for none"
        )
    return Settings(
        chosen.mount,
        devices,
        chosen.log_level,
        chosen.max_devices,
        chosen.stall_limit,
        chosen.descriptors == "inject",
        chosen.passthrough == "auto",
        chosen.transport,
        chosen.device_prefix,
        access,
    )


def make_parser() -> _Parser:
    """Return the parser of the command line, from which the manual page is made, too."""
    parser = _Parser(
        prog="binderd",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--mount",
        metavar="DIR",
        default=DEFAULT_MOUNT,
        help="directory for the devices; made if missing, and removed again at the end "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        metavar="NAME",
        action="append",
        help="a device to serve, each with a context manager of its own; may be repeated "
        f"(default: {', '.join(DEFAULT_DEVICES)})",
    )
    parser.add_argument(
        "--max-devices",
        metavar="N",
        type=int,
        default=DEVICES_MAX,
        help="how many devices there may be at once, those that are added through binder-control "
        "included; binderfs' mount option max= (default: %(default)s)",
    )
    _add_transports(parser)
    parser.add_argument(
        "--stall-limit",
        metavar="SECONDS",
        type=float,
        default=STALL_LIMIT,
        help="kill a client whose memory does not answer for so long (pages of a file system or "
        "a userfaultfd of its own), which keeps everybody waiting; 0: never (default: %(default)g)",
    )
    parser.add_argument(
        "--descriptors",
        choices=("inject", "attach-only"),
        default="inject",
        help="how clients receive file descriptors: by being stopped with ptrace for a moment "
        "unless they attach (docs/EXTENSION.md), or only if they attach (default: %(default)s)",
    )
    parser.add_argument(
        "--log-level",
        choices=LOG_LEVELS,
        default="info",
        help="debug shows every request and reply (default: %(default)s)",
    )
    parser.add_argument(
        "--version",
        action=_ShowVersion,
        nargs=0,
        help="show the version, and whether the daemon's request path is compiled, and exit",
    )
    return parser


def _add_transports(parser: _Parser) -> None:
    """Add what says how the devices reach programs, and whose they are."""
    parser.add_argument(
        "--transport",
        choices=TRANSPORTS,
        default="auto",
        help="how the devices reach programs: as files in --mount, as character devices in /dev, "
        "or both; auto: files if the kernel lets them be mapped, else devices (default: auto)",
    )
    parser.add_argument(
        "--device-prefix",
        metavar="PREFIX",
        default="",
        help="what the names of CUSE devices begin with, where Linux's own driver has the others; "
        "may end in a slash: with binderd/ they are /dev/binderd/binder and so on (default: none)",
    )
    parser.add_argument(
        "--mode",
        metavar="OCTAL",
        default=f"{CONFIGURED_MODE:04o}",
        help="permissions of the devices (default: %(default)s, as on Android)",
    )
    parser.add_argument(
        "--owner", metavar="USER", default="0", help="whose they are: a name or number (default: 0)"
    )
    parser.add_argument(
        "--group", metavar="GROUP", default="0", help="a name or number (default: 0)"
    )
    parser.add_argument(
        "--passthrough",
        choices=("auto", "off"),
        default="auto",
        help="off: do as on a kernel whose FUSE cannot map the receive area, so that clients have "
        "to ask for it (default: auto)",
    )


def check_device_names(names: Sequence[str]) -> None:
    """Check device names by the rules of binderfs.

    Raises:
        ValueError: the first name that cannot be, and why.
    """
    seen: dict[str, None] = {}
    for name in names:
        if not name or name in {".", ".."} or "/" in name or "\0" in name:
            raise ValueError(f"--device {name!r}: a device name is a plain file name")
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            raise ValueError(f"--device {name!r}: a device name is UTF-8 text") from None
        if size > _NAME_SIZE_MAX:
            raise ValueError(f"--device: a name of {size} bytes is longer than {_NAME_SIZE_MAX}")
        if name in seen:
            raise ValueError(f"--device {name}: named twice")
        if name.encode() in FIXED_NAMES:
            raise ValueError(f"--device {name}: binderfs itself has that name")
        seen[name] = None


def check_node_names(names: Sequence[str], prefix: str) -> None:
    """Check names of CUSE devices, which the kernel is more particular about.

    Raises:
        ValueError: the first name that cannot be, and why.
    """
    for name in names:
        path = f"{prefix}{name}"
        if path != path.strip() or not path.isascii() or not path.isprintable():
            raise ValueError(f"{path!r}: the name of a CUSE device is plain ASCII")
        if "!" in path or any(part in {"", ".", ".."} for part in path.split("/")):
            raise ValueError(f"{path!r}: no name for a file in /dev")
        if len(path) > _NAME_SIZE_MAX:
            raise ValueError(f"--device-prefix: {path!r} is longer than {_NAME_SIZE_MAX}")


def _parse_access(mode: str, owner: str, group: str) -> tuple[int, int, int]:
    """Return permission bits, user and group.

    Raises:
        ValueError: what cannot be, and why.
    """
    try:
        bits = int(mode, 8)
    except ValueError:
        bits = -1
    if not 0 <= bits <= _MODE_MAX:
        raise ValueError(f"--mode {mode}: an octal number up to 0777")
    try:
        uid = int(owner) if owner.isdecimal() else pwd.getpwnam(owner).pw_uid
    except KeyError:
        raise ValueError(f"--owner {owner}: there is no such user") from None
    try:
        gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise ValueError(f"--group {group}: there is no such group") from None
    if max(uid, gid) >= _NO_ID:
        raise ValueError(f"--owner, --group: numbers end at {_NO_ID - 1}")
    return bits, uid, gid


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage in front of it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class _ShowVersion(argparse.Action):
    """Looks at what is loaded only if it is asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print(f"binderd {_version()} ({compilation.describe()})")
        parser.exit()


def _version() -> str:
    try:
        return metadata.version("binderd")
    except metadata.PackageNotFoundError:
        return "(not installed)"
