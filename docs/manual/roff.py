# SPDX-License-Identifier: Apache-2.0
"""A manual page, man(7), made of a command's parser: the text of --help in another form."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from commands import help_of, shown_actions, subcommands, text_of, version

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from commands import Command

_HEADING = re.compile(r"(?P<title>[a-z][^\n]*):\n(?=[ ])")  # "examples:" above indented lines


def page(command: Command, parser: argparse.ArgumentParser) -> str:
    """Return the source of the page."""
    lines = [
        '.\\" SPDX-License-Identifier: Apache-2.0',
        f'.TH {command.name.upper()} {command.section} "" "binderd {version()}"',
        ".nh",
        ".ad l",
        ".SH NAME",
        f"{command.name} \\- {_escaped(command.summary)}",
        ".SH SYNOPSIS",
        *_usage(parser),
        ".SH DESCRIPTION",
        *_filled(text_of(parser, parser.description)),
        ".SH OPTIONS",
        *_arguments(parser),
    ]
    commands = subcommands(parser)
    if commands:
        lines.append(".SH COMMANDS")
    for name, (one, summary) in commands.items():
        lines += [f".SS {_escaped(name)}", *_usage(one)]
        texts = dict.fromkeys((summary, text_of(one, one.description)))
        lines += [line for text in texts if text for line in (".PP", *_filled(text))]
        lines += [*_arguments(one), *_notes(text_of(one, one.epilog), ".PP")]
    lines += _notes(text_of(parser, parser.epilog), ".SH")
    lines += [".SH SEE ALSO", ", ".join(map(_reference, command.see_also))]
    return "\n".join(lines) + "\n"


def _usage(parser: argparse.ArgumentParser) -> list[str]:
    usage = parser.format_usage().removeprefix("usage: ").strip("\n")
    return [".nf", *map(_escaped, usage.replace("\n       ", "\n").splitlines()), ".fi"]


def _arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    formatter = parser._get_formatter()
    for action in shown_actions(parser):
        yield ".TP"
        yield ".B " + _escaped(formatter._format_action_invocation(action))
        yield _escaped(help_of(parser, action)) or "\\&"


def _filled(text: str) -> Iterator[str]:
    """Yield paragraphs; those with indented lines stay as they are."""
    for number, block in enumerate(text.split("\n\n")):
        if number:
            yield ".PP"
        if any(line.startswith(" ") for line in block.splitlines()):
            yield from (".nf", *map(_escaped, block.splitlines()), ".fi")
        else:
            yield _escaped(" ".join(block.split()))


def _notes(text: str, heading: str) -> Iterator[str]:
    """Yield an epilog: blocks with a title of their own, then the paragraphs without."""
    plain = []
    for block in text.split("\n\n") if text else ():
        title = _HEADING.match(block)
        if title is None:
            plain.append(block)
            continue
        words = title["title"]
        yield f".SH {_escaped(words.upper())}" if heading == ".SH" else f".PP\n{_escaped(words)}:"
        yield from (".nf", *map(_escaped, block[title.end() :].splitlines()), ".fi")
    if plain:
        yield ".SH NOTES" if heading == ".SH" else ".PP"
        yield from _filled("\n\n".join(plain))


def _reference(name: str) -> str:
    title, _, section = name.rstrip(")").partition("(")
    return f"\\fB{_escaped(title)}\\fR({section})"


def _escaped(text: str) -> str:
    """Return text that roff shows as it is."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("^", "\\(ha")
    text = text.replace("~", "\\(ti").replace("`", "\\(ga")
    return f"\\&{text}" if text.startswith((".", " ")) else text
