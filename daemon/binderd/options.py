# SPDX-License-Identifier: Apache-2.0
"""Every option of the daemon, once: name, type, default, meaning.

The command line, the configuration file, the commented example of it and the man page derive from
the table. Nothing here may know where a value comes from, or what is done with it.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final, NamedTuple

from binderd.engine.limits import Limits
from binderd.fuse.directory import CONFIGURED_MODE, DEVICES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_FILE: Final = "/etc/binderd/binderd.toml"
DEFAULT_MOUNT: Final = "/dev/binderfs"
DEFAULT_DEVICES: Final = ("binder", "hwbinder", "vndbinder")
TRANSPORTS: Final = ("auto", "fuse", "cuse", "both")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOG_PLACES: Final = ("stderr", "syslog")
STALL_LIMIT: Final = 0.4  # seconds that clients of one user may hold us
STALL_LIMIT_MIN: Final = 0.1  # some looks of the watchdog's
STALL_LIMIT_MAX: Final = 86400.0
SPIN_US: Final = 50  # microseconds; longer is no faster
SPIN_US_MAX: Final = 1000
LOGS_MODE: Final = 0o444  # as the driver's
SECURITY_CONTEXT: Final = "kernel"  # what the driver has under SELinux without a policy
LIMIT_MAX: Final = (1 << 62) - 1


class Kind(NamedTuple):
    """A type of value."""

    name: str  # for messages
    types: tuple[type, ...]  # what the file may have
    read: Callable[[str], object]  # from a word of the command line; raises ValueError


TEXT: Final = Kind("text in quotes", (str,), str)
NUMBER: Final = Kind("a whole number", (int,), int)
SECONDS: Final = Kind("a number of seconds", (int, float), float)
OCTAL: Final = Kind('an octal number in quotes, as "0666"', (str,), str)
ACCOUNT: Final = Kind("a name in quotes or a number", (str, int), str)
NAMES: Final = Kind("a list of names", (list,), str)
ACCOUNTS: Final = Kind("a list of names or numbers in quotes", (list,), str)  # may be empty


class Option(NamedTuple):
    """One option."""

    name: str  # in the file; --name on the command line
    kind: Kind
    default: object
    metavar: str
    text: str
    choices: tuple[str, ...] = ()
    reloads: bool = False  # does SIGHUP change it in a running daemon?
    argument: str = ""  # what it is called on the command line if it is not --name
    service: object = None  # what the system service has, if that is not the default


OPTIONS: Final = (
    Option(
        "mount",
        TEXT,
        DEFAULT_MOUNT,
        "DIR",
        "directory for the devices; made if missing, and removed again at the end",
    ),
    Option(
        "devices",
        NAMES,
        DEFAULT_DEVICES,
        "NAME",
        "what devices to serve, each with a context manager of its own; on the command line a name "
        "each time",
        reloads=True,
        argument="device",
    ),
    Option(
        "max-devices",
        NUMBER,
        DEVICES_MAX,
        "N",
        "how many devices there may be at once, those that are added through binder-control "
        "included; binderfs' mount option max=",
        reloads=True,
    ),
    Option(
        "transport",
        TEXT,
        "auto",
        "",
        "how the devices reach programs: as files in the directory, as character devices in /dev, "
        "or both; auto: files if the kernel lets them be mapped, else devices. A wrong --mount is "
        "never answered with devices",
        TRANSPORTS,
    ),
    Option(
        "device-prefix",
        TEXT,
        "",
        "PREFIX",
        "what the names of CUSE devices begin with, where Linux's own driver has the others; "
        "may end in a slash: with binderd/ they are /dev/binderd/binder and so on",
    ),
    Option(
        "symlinks",
        TEXT,
        "",
        "DIR",
        "make DIR/NAME a symbolic link to each device where nothing else has that name, and take "
        "the links away again at the end; the system service has /dev, so that /dev/binder works",
        service="/dev",
    ),
    Option("mode", OCTAL, f"{CONFIGURED_MODE:04o}", "OCTAL", "permissions of the devices"),
    Option("owner", ACCOUNT, "0", "USER", "whose they are: a name or number"),
    Option("group", ACCOUNT, "0", "GROUP", "a name or number"),
    Option(
        "logs-mode",
        OCTAL,
        f"{LOGS_MODE:04o}",
        "OCTAL",
        "permissions of the files of binder_logs; who may read one may look into the directory. "
        "Pointers in them are shown to root and to the user whose process it is, whatever the mode",
    ),
    Option("logs-owner", ACCOUNT, "0", "USER", "whose binder_logs are: a name or number"),
    Option("logs-group", ACCOUNT, "0", "GROUP", "a name or number"),
    Option(
        "manager-uid",
        ACCOUNTS,
        (),
        "[DEVICE=]USER",
        "who may become context manager: names or numbers, for one device or for all that have no "
        "entry of their own; none: whoever is the first, and from then on that user, as in the "
        "driver. The system service has root and the user of its service manager",
        reloads=True,
        service=("root", "binder-servicemanager"),
    ),
    Option(
        "allow-users",
        ACCOUNTS,
        (),
        "[DEVICE=]USER",
        "who may open a device, beside root and members of allow-groups, if its mode lets them; "
        "entries as of manager-uid. Without any of both: everybody",
        reloads=True,
        argument="allow-user",
    ),
    Option(
        "allow-groups",
        ACCOUNTS,
        (),
        "[DEVICE=]GROUP",
        "whose members may open a device; see allow-users",
        reloads=True,
        argument="allow-group",
    ),
    Option(
        "freeze",
        TEXT,
        "any",
        "",
        "which processes a client may freeze with BINDER_FREEZE: any, as in the driver, or only "
        "those of its own user, root's any",
        ("any", "own"),
        reloads=True,
    ),
    Option(
        "security-context",
        TEXT,
        SECURITY_CONTEXT,
        "LABEL",
        "what services that ask for the security contexts of their callers are told of one that no "
        "security module has given any; Android's servicemanager and all that call "
        "setRequestingSid are such. An empty one: calls of those fail, as in the driver",
    ),
    Option(
        "passthrough",
        TEXT,
        "auto",
        "",
        "off: do as on a kernel whose FUSE cannot map the receive area, so that clients have "
        "to ask for it",
        ("auto", "off"),
    ),
    Option(
        "stall-limit",
        SECONDS,
        STALL_LIMIT,
        "SECONDS",
        "kill a client that keeps everybody waiting for so long, as its memory does not answer "
        "(pages of a file system or a userfaultfd of its own) or it holds its own locks; 0: never",
    ),
    Option(
        "spin",
        NUMBER,
        SPIN_US,
        "MICROSECONDS",
        "how long to look for the next request of clients that call often before sleeping until it "
        "comes, four times as long where they have lanes (docs/EXTENSION.md), which saves them the "
        "time that waking takes; 0: sleep at once, and no lanes",
    ),
    Option(
        "descriptors",
        TEXT,
        "inject",
        "",
        "how clients receive file descriptors: by being stopped with ptrace for a moment "
        "unless they attach (docs/EXTENSION.md), or only if they attach",
        ("inject", "attach-only"),
    ),
    Option(
        "log-level",
        TEXT,
        "info",
        "",
        "debug shows every request and reply",
        LOG_LEVELS,
        reloads=True,
    ),
    Option(
        "log-to",
        TEXT,
        "stderr",
        "",
        "where the log goes; under systemd stderr is the journal",
        LOG_PLACES,
    ),
)

BY_NAME: Final = {option.name: option for option in OPTIONS}
LIMITS_TABLE: Final = "limits"  # of the file: numbers for the fields of engine/limits.py
LIMIT_NAMES: Final = {name.replace("_", "-"): name for name in Limits().numbers()}

_EXAMPLE_HEAD: Final = """\
The configuration of binderd: every option, and its default behind a comment sign. The command line
wins over this file. After a change: binderd --check-config, then systemctl reload binderd for what
is marked (reload), systemctl restart binderd for the rest."""

_LIMITS_HEAD: Final = """\
How much clients can make the daemon keep, where its own numbers do not fit (reload). What each one
means, and what a client sees at the limit, is in docs/LIMITS.md. Those of everybody and per user
are derived from the machine (memory, RLIMIT_NOFILE): a small one has less than stands here."""


def example() -> str:
    """Return the system service's configuration file: every option, most of them in comments."""
    parts = [_comment(_EXAMPLE_HEAD)]
    for option in OPTIONS:
        text = option.text[0].upper() + option.text[1:] + "."
        if option.choices:
            text += f" One of: {', '.join(option.choices)}."
        if option.reloads:
            text += " (reload)"
        value = f"#{option.name} = {toml_value(option.default)}"
        if option.service is not None:
            value = f"{option.name} = {toml_value(option.service)}"
        parts.append(f"{_comment(text)}\n{value}")
    defaults = Limits().numbers()
    numbers = [f"#{name} = {defaults[field]}" for name, field in LIMIT_NAMES.items()]
    parts.append("\n".join([_comment(_LIMITS_HEAD), f"[{LIMITS_TABLE}]", *numbers]))
    return "\n\n".join(parts) + "\n"


def toml_value(value: object) -> str:
    """Return a value as TOML has it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, str):
        return f'"{value}"'
    return f"{value:g}" if isinstance(value, float) else str(value)


def _comment(text: str) -> str:
    return textwrap.fill(text, 98, initial_indent="# ", subsequent_indent="# ")
