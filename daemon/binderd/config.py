# SPDX-License-Identifier: Apache-2.0
"""What to serve, where, how talkative: the command line and the configuration file, checked.

The command line wins over the file. A mistake is refused with its place, the option and the
reason. Nothing here may know how any of it is done.
"""

from __future__ import annotations

import argparse
import difflib
import grp
import pwd
from dataclasses import dataclass, fields, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from binderd import compilation
from binderd.config_file import ConfigError, plain, read_entries
from binderd.fuse.directory import CONFIGURED_MODE, DEVICES_MAX, FIXED_NAMES
from binderd.linux import rights
from binderd.options import (
    ACCOUNTS,
    BY_NAME,
    DEFAULT_DEVICES,
    DEFAULT_FILE,
    DEFAULT_MOUNT,
    LIMIT_MAX,
    LIMIT_NAMES,
    LIMITS_TABLE,
    LOGS_MODE,
    NAMES,
    OPTIONS,
    SECURITY_CONTEXT,
    SPIN_US,
    SPIN_US_MAX,
    STALL_LIMIT,
    STALL_LIMIT_MAX,
    STALL_LIMIT_MIN,
    Option,
    example,
    toml_value,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_MODE_MAX: Final = 0o777
_NO_ID: Final = (1 << 32) - 1
# Fields of Settings that SIGHUP changes in a running daemon.
_RELOADED: Final = {"limits"} | {o.name.replace("-", "_") for o in OPTIONS if o.reloads}
_NAME_SIZE_MAX: Final = 255  # bytes, BINDERFS_MAX_NAME
_CONTEXT_SIZE_MAX: Final = 255  # bytes; a call to a node that asks for it takes so much more room

_DESCRIPTION: Final = """\
Serves Android's binder devices from user space: a directory like the kernel's binderfs with
one file per device, which programs open, mmap and ioctl as they would /dev/binder."""

_EPILOG: Final = """\
examples:
  binderd                                    /dev/binderfs/{binder,hwbinder,vndbinder}
  binderd --mount /tmp/b --device binder     only /tmp/b/binder, to try something out
  binderd --mount ~/binder                   as an ordinary user, for programs of his alone; takes
                                             fusermount3 instead of root
  mount --rbind /dev/binderfs /somewhere/else
                                             the same devices in another place: bind the
                                             directory, never a single file of it
  umount --recursive /dev/binderfs           ends it, as a failure (status 3); with --lazy when
                                             the last user has gone
  binderd --transport cuse                   /dev/{binder,hwbinder,vndbinder}, character devices
  binderd --transport both --device-prefix binderd/
                                             /dev/binderd/binder beside /dev/binderfs/binder and
                                             so on: two ways to the same contexts
  binderd --print-config                     every option, as a configuration file
  binderd --check-config                     is /etc/binderd/binderd.toml right?
  binderd --check                            what does this machine allow?

Beside the devices there is what the kernel's binderfs has: binder-control, through which root
adds devices (they can be renamed and removed), features/, and binder_logs/ in the driver's
text formats.

It runs in the foreground and says on stderr when it is ready (and to the service
manager through $NOTIFY_SOCKET). SIGTERM and SIGINT take all away and end it. SIGHUP reads the
configuration again and changes what can be changed in a running daemon. SIGUSR1 writes one line
of JSON to stderr: how many processes, threads, nodes, references and buffers live, how many files
are open, how many pages the receive buffers take.

Exit status: 0 after one of those signals; 1 if it cannot serve what it was asked to, with the
reason in one line; 2 for a mistake on the command line; 3 if somebody else unmounted what it
serves, or aborted its connection.

Needs /dev/fuse on Linux 6.9 or newer with CONFIG_FUSE_PASSTHROUGH, or else /dev/cuse (modprobe
cuse), whose clients get their receive area through an extension: binderclient and programs that
'binderctl run' starts do so by themselves. Also these capabilities, which root has:
{rights}
In a container:
  --device /dev/fuse (for CUSE --device /dev/cuse)
{container}
where seccomp=unconfined is for giving files to programs that are under a seccomp filter, and
apparmor=unconfined for mounting where AppArmor is in use. What is missing is said at the start."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the daemon was asked to do."""

    mount: str = DEFAULT_MOUNT  # the directory
    devices: tuple[str, ...] = DEFAULT_DEVICES  # one binder context each
    log_level: str = "info"
    max_devices: int = DEVICES_MAX  # how many there may be, those that are added later included
    stall_limit: float = STALL_LIMIT  # seconds; 0: none
    injects: bool = True  # may clients be stopped to give them descriptors?
    passthrough: bool = True  # let mmap of a FUSE file show the receive area, if the kernel can
    transport: str = "auto"  # one of TRANSPORTS
    device_prefix: str = ""  # before the name of a CUSE device, below /dev
    access: tuple[int, int, int] = (CONFIGURED_MODE, 0, 0)  # of a device: mode, user, group
    logs_access: tuple[int, int, int] = (LOGS_MODE, 0, 0)  # of binder_logs: mode, user, group
    symlinks: str = ""  # directory for links to the devices; "": none
    log_to: str = "stderr"  # or syslog
    limits: tuple[tuple[str, int], ...] = ()  # fields of engine/limits.py that are not the default
    # [DEVICE=]ACCOUNT: see access.py
    manager_uid: tuple[str, ...] = ()
    allow_users: tuple[str, ...] = ()
    allow_groups: tuple[str, ...] = ()
    freeze: str = "any"  # or own: whose processes a client may freeze
    security_context: str = SECURITY_CONTEXT  # of processes that have none; "": none
    spin_ns: int = SPIN_US * 1000  # so long is the next request looked for without sleeping
    check: str = ""  # or table, json: only say what this machine allows
    host: tuple[int, int] = (0, 0)  # user and group of what is not configured: the daemon's own


class _Value(NamedTuple):
    """One value, and what to call it in an error."""

    value: Any
    origin: str


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """Return the settings that a command line and the configuration file ask for.

    Args:
        arguments: without the program's name; None for the process' own.

    Raises:
        SystemExit: 2 with a line on stderr for a mistake, 0 after --help and the like.
    """
    parser = make_parser()
    chosen = parser.parse_args(arguments)
    if chosen.print_config:
        print(example(), end="")
        parser.exit()
    try:
        settings = _load(vars(chosen))
    except ConfigError as error:
        parser.exit(2, f"binderd: {error}\n")
    if chosen.check_config:
        print(f"{chosen.config or DEFAULT_FILE}: nothing is wrong with it")
        parser.exit()
    if chosen.json and not chosen.check:
        parser.exit(2, "binderd: --json says how --check prints: give both\n")
    return replace(settings, check="json" if chosen.json else "table" if chosen.check else "")


def load(arguments: Sequence[str] | None = None) -> Settings:
    """Return the settings, as ``parse``; for a daemon that runs already.

    Raises:
        ConfigError: what is wrong, and where.
    """
    return _load(vars(make_parser().parse_args(arguments)))


def _load(chosen: Mapping[str, Any]) -> Settings:
    """Return the settings that a parsed command line and the configuration file ask for.

    Raises:
        ConfigError: what is wrong, and where.
    """
    values = {option.name: _Value(option.default, option.name) for option in OPTIONS}
    limits: dict[str, _Value] = {}
    must_exist = chosen["config"] is not None or chosen["check_config"]
    _read_file(chosen["config"] or DEFAULT_FILE, values, limits, must_exist=must_exist)
    for option in OPTIONS:
        given = chosen[option.argument or option.name]
        if given is not None:
            given = tuple(given) if option.kind in {NAMES, ACCOUNTS} else given
            values[option.name] = _Value(given, f"--{option.argument or option.name}")
    for word in chosen["limit"] or ():
        name, _, number = word.partition("=")
        if name not in LIMIT_NAMES or not number.isdecimal():
            raise ConfigError(f"--limit {word}: NAME=NUMBER; names: {', '.join(LIMIT_NAMES)}")
        limits[name] = _Value(int(number), f"--limit {name}")
    return _settings(values, limits)


def _read_file(
    path: str, values: dict[str, _Value], limits: dict[str, _Value], *, must_exist: bool
) -> None:
    try:
        entries = read_entries(path)
    except FileNotFoundError:
        if must_exist:
            raise ConfigError(f"{path}: there is no such file") from None
        return
    for table, key, value, line in entries:
        place = f"{path}:{line}: {plain(key)}"
        if table == LIMITS_TABLE:
            if key not in LIMIT_NAMES:
                raise ConfigError(f"{place}: there is no such limit; {_nearest(key, LIMIT_NAMES)}")
            if type(value) is not int:
                raise ConfigError(f"{place}: must be a whole number")
            limits[key] = _Value(value, place)
            continue
        option = BY_NAME.get(key) if not table else None
        if option is None:
            where = f"in [{plain(table)}] " if table else ""
            raise ConfigError(f"{place}: {where}there is no such option; {_nearest(key, BY_NAME)}")
        values[key] = _Value(_typed(option, value, place), place)


def _typed(option: Option, value: object, place: str) -> object:
    """Return a value of the file as the command line would have it.

    Raises:
        ConfigError: it has the wrong type, or is none of the choices.
    """
    if isinstance(value, bool) or not isinstance(value, option.kind.types):
        raise ConfigError(f"{place}: must be {option.kind.name}, not {value!r}")
    if isinstance(value, list):
        is_enough = value or option.kind is ACCOUNTS
        if not is_enough or not all(isinstance(item, str) for item in value):
            filled = "" if option.kind is ACCOUNTS else ", and not empty"
            raise ConfigError(f"{place}: must be a list of names, each in quotes{filled}")
        return tuple(value)
    if option.choices and value not in option.choices:
        raise ConfigError(f"{place}: {value!r} is none of {', '.join(option.choices)}")
    return str(value) if str in option.kind.types else value


def _nearest(key: str, names: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(key, names, 1)
    return f"is {close[0]} meant?" if close else "binderd --print-config shows all"


def _settings(values: Mapping[str, _Value], limits: Mapping[str, _Value]) -> Settings:
    """Check values against each other and against the world.

    Raises:
        ConfigError: what cannot be, and why.
    """
    value = {name: option.value for name, option in values.items()}
    check_text(values)
    devices = value["devices"]
    _checked(values["devices"], check_device_names, devices)
    if value["transport"] in {"cuse", "both"}:
        prefix = values["device-prefix"] if value["device-prefix"] else values["devices"]
        _checked(prefix, check_node_names, devices, value["device-prefix"])
    for name in ("mount", "symlinks"):
        if (name == "mount" or value[name]) and not value[name].strip():
            raise ConfigError(f"{values[name].origin}: needs a directory")
    if not len(devices) <= value["max-devices"] <= DEVICES_MAX:
        raise ConfigError(
            f"{values['max-devices'].origin} {value['max-devices']}: must be from {len(devices)}, "
            f"the devices to start with, to {DEVICES_MAX}"
        )
    stall = value["stall-limit"]
    if stall and not STALL_LIMIT_MIN <= stall <= STALL_LIMIT_MAX:
        raise ConfigError(
            f"{values['stall-limit'].origin} {stall:g}: must be from {STALL_LIMIT_MIN:g} to "
            f"{STALL_LIMIT_MAX:g} seconds, or 0 for none"
        )
    if not 0 <= value["spin"] <= SPIN_US_MAX:
        raise ConfigError(
            f"{values['spin'].origin} {value['spin']}: must be from 0 to {SPIN_US_MAX} microseconds"
        )
    for limit in limits.values():
        if not 1 <= limit.value <= LIMIT_MAX:
            raise ConfigError(f"{limit.origin} {limit.value}: must be from 1 to {LIMIT_MAX}")
    host = rights.owner()
    return Settings(
        value["mount"],
        devices,
        value["log-level"],
        value["max-devices"],
        float(stall),
        value["descriptors"] == "inject",
        value["passthrough"] == "auto",
        value["transport"],
        value["device-prefix"],
        (
            _checked(values["mode"], _parse_mode, value["mode"]),
            _checked(values["owner"], _parse_owner, value["owner"]) or host[0],
            _checked(values["group"], _parse_group, value["group"]) or host[1],
        ),
        (
            _checked(values["logs-mode"], _parse_mode, value["logs-mode"]),
            _checked(values["logs-owner"], _parse_owner, value["logs-owner"]) or host[0],
            _checked(values["logs-group"], _parse_group, value["logs-group"]) or host[1],
        ),
        value["symlinks"],
        value["log-to"],
        tuple((LIMIT_NAMES[name], limit.value) for name, limit in sorted(limits.items())),
        _checked(values["manager-uid"], check_accounts, value["manager-uid"]),
        _checked(values["allow-users"], check_accounts, value["allow-users"]),
        _checked(values["allow-groups"], check_accounts, value["allow-groups"]),
        value["freeze"],
        _checked(values["security-context"], check_context, value["security-context"]),
        value["spin"] * 1000,
        host=host,
    )


def check_text(values: Mapping[str, _Value]) -> None:
    """Refuse what can be in no path and would spoil a line of the log.

    Raises:
        ConfigError: the first one.
    """
    accounts = ("owner", "group", "logs-owner", "logs-group")
    places = ("mount", "symlinks", "device-prefix")
    for name in (*places, "mode", "logs-mode", "security-context", *accounts):
        text, origin = values[name]
        if not text.isprintable():
            raise ConfigError(f"{origin} {text!r}: must be printable UTF-8 text, as logs show it")


def _checked(source: _Value, check: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401
    try:
        return check(*arguments)
    except ValueError as error:
        raise ConfigError(f"{source.origin} {error}") from None


def changed(old: Settings, new: Settings) -> tuple[list[str], list[str]]:
    """Return the fields that differ: those that a running daemon takes over, and the others."""
    names = [
        field.name
        for field in fields(Settings)
        if getattr(old, field.name) != getattr(new, field.name)
    ]
    return [name for name in names if name in _RELOADED], [n for n in names if n not in _RELOADED]


def make_parser() -> _Parser:
    """Return the parser of the command line, from which the manual page is made, too."""
    parser = _Parser(
        prog="binderd",
        description=_DESCRIPTION,
        epilog=_EPILOG.replace("{rights}", _indented(rights.describe())).replace(
            "{container}", _indented(rights.container_options())
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for option in OPTIONS:
        shown = toml_value(option.default).strip("[]").replace('"', "") or "none"
        parser.add_argument(
            f"--{option.argument or option.name}",
            dest=option.argument or option.name,
            metavar=option.metavar or None,
            type=option.kind.read,
            choices=option.choices or None,
            action="append" if option.kind in {NAMES, ACCOUNTS} else "store",
            help=f"{option.text} (default: {shown})",
        )
    _add_config(parser)
    parser.add_argument(
        "--version",
        action=_ShowVersion,
        nargs=0,
        help="show the version, and whether the daemon's request path is compiled, and exit",
    )
    return parser


def _indented(lines: Sequence[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)


def _add_config(parser: _Parser) -> None:
    """Add what concerns the configuration as a whole."""
    parser.add_argument(
        "--limit",
        metavar="NAME=N",
        action="append",
        help="how much clients can make the daemon keep, a name and number of the [limits] in "
        "--print-config; may be repeated",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the configuration; what the command line says wins over it "
        f"(default: {DEFAULT_FILE}, if it is there)",
    )
    parser.add_argument(
        "--check-config", action="store_true", help="only say whether the configuration is right"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="only try what serving takes on this machine, and say what is allowed: exit status 1 "
        "if clients cannot be served",
    )
    parser.add_argument("--json", action="store_true", help="have --check print JSON")
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print a configuration file with every option, its meaning and its default",
    )


def check_device_names(names: Sequence[str]) -> None:
    """Check device names by the rules of binderfs.

    Raises:
        ValueError: the first name that cannot be, and why.
    """
    seen: dict[str, None] = {}
    for name in names:
        if not name or name in {".", ".."} or "/" in name or "\0" in name:
            raise ValueError(f"{name!r}: a device name is a plain file name")
        if not name.isprintable():
            raise ValueError(f"{name!r}: a device name is printable UTF-8 text")
        size = len(name.encode())
        if size > _NAME_SIZE_MAX:
            raise ValueError(f"a name of {size} bytes is longer than {_NAME_SIZE_MAX}")
        if name in seen:
            raise ValueError(f"{name}: named twice")
        if name.encode() in FIXED_NAMES:
            raise ValueError(f"{name}: binderfs itself has that name")
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
            raise ValueError(f"{path!r} is longer than {_NAME_SIZE_MAX}")


def check_accounts(entries: Sequence[str]) -> tuple[str, ...]:
    """Return entries of [DEVICE=]ACCOUNT if each can be one.

    Whether there is such an account is another matter.

    Raises:
        ValueError: the first that cannot be, and why.
    """
    for entry in entries:
        device, equals, name = entry.rpartition("=")
        if not entry.isprintable():
            raise ValueError(f"{entry!r}: must be printable UTF-8 text, as logs show it")
        if not name or name != name.strip() or (equals and not device):
            raise ValueError(f"{entry!r}: must be a name or number, or DEVICE=NAME")
        if name.isdecimal():
            _id(int(name))
    return tuple(entries)


def check_context(label: str) -> str:
    """Return a security context if it is short enough.

    Raises:
        ValueError: it is not.
    """
    if len(label.encode()) > _CONTEXT_SIZE_MAX:
        raise ValueError(f"of {len(label.encode())} bytes is longer than {_CONTEXT_SIZE_MAX}")
    return label


def _parse_mode(mode: str) -> int:
    try:
        bits = int(mode, 8)
    except ValueError:
        bits = -1
    if not 0 <= bits <= _MODE_MAX:
        raise ValueError(f"{mode}: must be an octal number up to 0777")
    return bits


def _parse_owner(owner: str) -> int:
    try:
        return _id(int(owner) if owner.isdecimal() else pwd.getpwnam(owner).pw_uid)
    except KeyError:
        raise ValueError(f"{owner}: there is no such user") from None


def _parse_group(group: str) -> int:
    try:
        return _id(int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid)
    except KeyError:
        raise ValueError(f"{group}: there is no such group") from None


def _id(number: int) -> int:
    if number >= _NO_ID:
        raise ValueError(f"{number}: numbers end at {_NO_ID - 1}")
    return number


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage in front of it."""

    def error(self, message: str) -> NoReturn:
        line = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in message)
        self.exit(2, f"{self.prog}: {line}; see {self.prog} --help\n")


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
