# SPDX-License-Identifier: Apache-2.0
"""The commands of the project, and their parsers as they really parse.

The rest of this folder knows a command only through what is here.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Final, NoReturn
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Iterator

COLUMNS: Final = 96  # of what argparse wraps, so that it is the same everywhere


@dataclass(frozen=True)
class Command:
    """A command that is installed.

    Args:
        name: of the program.
        section: of the manual.
        main: module:function, as in pyproject.toml.
        summary: what apropos(1) finds.
        see_also: names with their sections.
    """

    name: str
    section: int
    main: str
    summary: str
    see_also: tuple[str, ...]


COMMANDS: Final = (
    Command(
        "binderd",
        8,
        "binderd.config:parse",
        "Android's binder devices, from user space",
        ("binderctl(1)", "binder-servicemanager(1)", "fuse(4)"),
    ),
    Command(
        "binderctl",
        1,
        "binderclient.commandline:main",
        "call services on a binder device, start programs that use one",
        ("binderd(8)", "binder-servicemanager(1)"),
    ),
    Command(
        "binder-servicemanager",
        1,
        "binderclient.commandline:serve_manager",
        "the service manager of a binder device",
        ("binderd(8)", "binderctl(1)"),
    ),
    Command(
        "binderclient-aidl",
        1,
        "binderclient.aidl.command:main",
        "compile interfaces in AIDL to Python",
        ("binderctl(1)", "binder-servicemanager(1)"),
    ),
    Command(
        "mount.binder",
        8,
        "binderd.mount_helper:main",
        "mount binder devices from user space",
        ("binderd(8)", "mount(8)", "fstab(5)"),
    ),
)


class _Captured(BaseException):
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def parser_of(command: Command) -> argparse.ArgumentParser:
    """Return the parser that the command itself makes, at the moment when it would use it."""

    def capture(self: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        raise _Captured(self)

    module, _, function = command.main.partition(":")
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", capture),
        mock.patch.object(sys, "argv", [command.name]),
        mock.patch.object(sys.modules["__main__"], "__spec__", None),  # it is no "python -m"
        mock.patch.dict(os.environ, {"COLUMNS": str(COLUMNS)}),
        contextlib.suppress(SystemExit),
    ):
        try:
            getattr(import_module(module), function)()
        except _Captured as captured:
            captured.parser.prog = command.name
            return captured.parser
    raise LookupError(f"{command.name} parses no arguments")


def version() -> str:
    """Return the version of the project."""
    return metadata.version("binderd")


def shown_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments that --help shows, but for subcommands."""
    for action in parser._actions:
        if action.help != argparse.SUPPRESS and not is_subcommands(action):
            yield action


def is_subcommands(action: argparse.Action) -> bool:
    """Whether it is what add_subparsers returned."""
    return isinstance(action, argparse._SubParsersAction)


def subcommands(parser: argparse.ArgumentParser) -> dict[str, tuple[argparse.ArgumentParser, str]]:
    """Return name -> parser and help of each subcommand."""
    found = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, one in action.choices.items():
                found[name] = (one, helps.get(name, ""))
    return found


def help_of(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """Return the help of an argument, with its default filled in."""
    return parser._get_formatter()._expand_help(action) if action.help else ""


def text_of(parser: argparse.ArgumentParser, text: str | None) -> str:
    """Return a description or epilog as --help shows it."""
    if text and "%(prog)" in text:
        return text % {"prog": parser.prog}
    return text or ""
