# SPDX-License-Identifier: Apache-2.0
"""``binderctl with``: the order of events, and the command line."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any, Final

from binderclient import tool
from binderclient.preload import RunError, find_program
from binderclient.private import namespace
from binderclient.private.processes import Ended, Server, Signals, end_leftovers, run
from binderwire.service_manager import DEFAULT_ANDROID

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_DEVICES: Final = ("binder", "hwbinder", "vndbinder")
_PLACE: Final = "/dev/binderfs"
_TAKEN: Final = ("binderfs", "binder-control", "features", "binder_logs")
_BINDER: Final = "binder"  # what is called so in /dev may be replaced
_NAME_SIZE_MAX: Final = 255  # bytes
# What is configured is the system's daemon, which this is not.
_DAEMON: Final = (
    *("--config", os.devnull, "--transport", "fuse", "--mount", _PLACE, "--symlinks", "/dev"),
    *("--log-level", "warning"),
)

_DESCRIPTION: Final = """\
Runs a program with binder devices of its own: /dev/binder, /dev/hwbinder and /dev/vndbinder (links
into /dev/binderfs, where new ones can be added), and a service manager on /dev/binder. Nobody else
sees them, and nothing else is seen in their place; what is on other devices of this machine is left
alone. Everything is gone when the program ends, and so is whatever it has left running."""

_EPILOG: Final = """\
examples:
  %(prog)s -- make check
  %(prog)s --android 12 -- ./my_service_test
  %(prog)s --no-manager -- ./servicemanager          a service manager of your own
  %(prog)s --manager binder --manager hwbinder=hidl -- ./hal_test
  %(prog)s -- sh -c 'service & exec client'

Standard input and output are the program's. This takes /dev/fuse, and root or user namespaces; in a
container --device /dev/fuse and --cap-add SYS_ADMIN. Programs that were written for Linux's own
driver, and need help, are started with 'binderctl run' inside:
  %(prog)s -- binderctl run -- PROGRAM

exit status: the program's, 128 + N if signal N has killed it; 127 no such program, 126 it cannot be
executed, 1 there can be no devices"""


def add_command(commands: Any, android: Callable[[str], str]) -> None:  # noqa: ANN401
    """Add the parser of ``with`` to those of the other commands.

    Args:
        commands: what ``add_subparsers`` has returned.
        android: reads which Android a service manager is of.
    """
    parser = commands.add_parser(
        "with",
        as_json=False,
        help="run a program with binder devices of its own",
        usage="%(prog)s [OPTION ...] [--] PROGRAM [ARGUMENT ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument(
        "--device",
        dest="names",
        metavar="NAME",
        action="append",
        type=_name,
        help=f"a device; may be repeated (default: {', '.join(_DEVICES)})",
    )
    parser.add_argument(
        "--manager",
        dest="managers",
        metavar="NAME[=N]",
        action="append",
        type=lambda text: _manager(text, android),
        help="a device with a service manager, and which Android's; may be repeated (default: the "
        "first device)",
    )
    parser.add_argument("--no-manager", action="store_true", help="no service manager at all")
    parser.add_argument(
        "--android",
        dest="version",
        metavar="N",
        type=android,
        default=DEFAULT_ANDROID,
        help="of service managers for which nothing else is said; see 'binderctl --help'",
    )
    # Everything from the program's name on is the program's.
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.set_defaults(start=lambda chosen: _start(chosen, parser))


def _name(text: str) -> str:
    is_plain = text and "/" not in text and text not in {".", ".."} and text.isprintable()
    if not is_plain or len(os.fsencode(text)) > _NAME_SIZE_MAX:
        raise argparse.ArgumentTypeError(f"{tool.quoted(text)} is no name of a device")
    if text in _TAKEN:
        raise argparse.ArgumentTypeError(f"{text} is what binderfs itself has: take another name")
    if _BINDER not in text and os.path.lexists(f"/dev/{text}"):
        raise argparse.ArgumentTypeError(
            f"/dev/{text} is there for something else, which programs may need: take another name"
        )
    return text


def _manager(text: str, android: Callable[[str], str]) -> tuple[str, str]:
    name, _, version = text.partition("=")
    return _name(name), android(version) if version else ""


def _start(chosen: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    words = chosen.command
    if words[:1] == ["--"]:
        words = words[1:]
    elif words and words[0].startswith("-"):
        parser.error(
            f"no such option: {tool.quoted(words[0])}; a program of that name comes behind --"
        )
    if not words:
        parser.error("which program?")
    names = chosen.names or list(_DEVICES)
    if chosen.no_manager and chosen.managers:
        parser.error("--manager and --no-manager exclude each other")
    managers = [] if chosen.no_manager else chosen.managers or [(names[0], "")]
    if len(set(names)) < len(names):
        parser.error("--device: a name is there twice")
    for name, _ in managers:
        if name not in names:
            parser.error(f"--manager: there is no device {tool.quoted(name)}")
    try:
        # What is found here has a slash in its name, or would be looked for once more.
        path = os.path.join(".", find_program(words[0]))
        return _run(names, [(n, v or chosen.version) for n, v in managers], path, words)
    except RunError as error:
        tool.complain(str(error))
        return error.status


def _run(
    names: Sequence[str], managers: Sequence[tuple[str, str]], path: str, words: Sequence[str]
) -> int:
    user = namespace.enter()
    namespace.own_dev([os.path.basename(_PLACE), *_DEVICES, *names])
    namespace.adopt_orphans()
    servers: list[Server] = []
    with Signals() as signals:
        try:
            devices = [word for name in names for word in ("--device", name)]
            servers.append(Server(["binderd", *_DAEMON, *devices]))
            for name, version in managers:
                options = ["--device", f"{_PLACE}/{name}", "--android", str(version)]
                servers.append(Server(["binderclient.servicemanager", *options]))
            status = run(path, words, user, signals)
            if not end_leftovers(servers):
                tool.say(f"{tool.program_name()}: {words[0]} has left processes that do not end")
            for server in servers:
                if server.process.poll() is not None:
                    why = server.why_it_ended()
                    tool.say(f"{tool.program_name()}: {server.name} has ended: {why}")
            return status
        except Ended as end:
            return end.status
        finally:
            signals.are_over()
            for server in reversed(servers):
                server.end()
            end_leftovers()
