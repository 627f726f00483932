# SPDX-License-Identifier: Apache-2.0
"""Completion for bash, zsh and fish, made of a command's parser."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING, Final

from commands import help_of, subcommands

if TYPE_CHECKING:
    from collections.abc import Iterator

# What an argument is, by how --help calls it: how bash, zsh and fish complete it.
_KINDS: Final = {
    "DIR": ("compgen -d", "_files -/", "(__fish_complete_directories)"),
    "PATH": ("compgen -f", "_files", "(__fish_complete_path)"),
    "FILE": ("compgen -f", "_files", "(__fish_complete_path)"),
    "USER": ("compgen -u", "_users", "(__fish_complete_users)"),
    "GROUP": ("compgen -g", "_groups", "(__fish_complete_groups)"),
}
_NOTE: Final = "# SPDX-License-Identifier: Apache-2.0\n# Made of the parser of {}.\n"


def _options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the options, those included that --help leaves out behind a subcommand."""
    for action in parser._actions:
        if action.option_strings:
            yield action


def _takes_value(action: argparse.Action) -> bool:
    return action.nargs != 0


def _words(parser: argparse.ArgumentParser) -> list[str]:
    names = [name for action in _options(parser) for name in action.option_strings]
    return [*names, *subcommands(parser)]


def _takes_program(parser: argparse.ArgumentParser) -> bool:
    return any(action.nargs == argparse.REMAINDER for action in parser._actions)


def _summary(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """Return the beginning of an option's help."""
    text = "" if action.help == argparse.SUPPRESS else help_of(parser, action)
    return text.split(" (default")[0].split(";")[0].split(":")[0]


def _dest(name: str) -> str:
    return "_" + name.replace("-", "_")


# bash


def bash(name: str, parser: argparse.ArgumentParser) -> str:
    """Return the completion for bash."""
    commands = subcommands(parser)
    lines = [
        f"{_dest(name)}() {{",
        "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}",
        '    local command="" word',
        "    COMPREPLY=()",
        '    if [[ $cur == "=" ]]; then cur=""; fi',
        '    if [[ $prev == "=" ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi',
    ]
    if commands:
        lines += [
            '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
            f"        case $word in {'|'.join(commands)}) command=$word; break ;; esac",
            "    done",
        ]
    lines.append("    case $command in")
    for command, (one, _) in commands.items():
        lines += [f"        {command})", *_bash_level(one), "            ;;"]
    lines += ["        *)", *_bash_level(parser), "            ;;", "    esac", "}"]
    return _NOTE.format(name) + "\n".join([*lines, f"complete -F {_dest(name)} {name}", ""])


def _bash_level(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield "            case $prev in"
    for action in _options(parser):
        if _takes_value(action):
            yield f"                {'|'.join(action.option_strings)})"
            yield f"                    {_bash_values(action)}"
            yield "                    return ;;"
    yield "            esac"
    words = " ".join(_words(parser))
    if _takes_program(parser):
        yield "            if [[ $cur != -* || $prev == -- ]]; then"
        yield '                COMPREPLY=($(compgen -c -- "$cur") $(compgen -f -- "$cur"))'
        yield "                return"
        yield "            fi"
    yield f'            COMPREPLY=($(compgen -W "{words}" -- "$cur"))'


def _bash_values(action: argparse.Action) -> str:
    if action.choices:
        return f'COMPREPLY=($(compgen -W "{" ".join(action.choices)}" -- "$cur"))'
    kind = _KINDS.get(str(action.metavar))
    return f'COMPREPLY=($({kind[0]} -- "$cur"))' if kind else ":"


# zsh


def zsh(name: str, parser: argparse.ArgumentParser) -> str:
    """Return the completion for zsh."""
    commands = subcommands(parser)
    lines = [f"#compdef {name}", _NOTE.format(name), f"{_dest(name)}() {{"]
    if not commands:
        lines += [*_zsh_level(parser, "    "), "}"]
        return "\n".join([*lines, f'{_dest(name)} "$@"', ""])
    lines += [
        "    local context state line curcontext=$curcontext",
        *_zsh_level(parser, "    ", "'1: :->command'", "'*:: :->arguments'"),
        "    case $state in",
        "        command)",
        "            local -a commands=(",
        *(f"                {_zsh_word(f'{one}:{text}')}" for one, (_, text) in commands.items()),
        "            )",
        "            _describe command commands ;;",
        "        arguments)",
        "            case $line[1] in",
    ]
    for command, (one, _) in commands.items():
        lines += [f"                {command})", *_zsh_level(one, " " * 20), " " * 20 + ";;"]
    lines += ["            esac ;;", "    esac", "}"]
    return "\n".join([*lines, f'{_dest(name)} "$@"', ""])


def _zsh_level(parser: argparse.ArgumentParser, indent: str, *more: str) -> list[str]:
    specifications = [
        _zsh_word(_zsh_option(parser, action, name))
        for action in _options(parser)
        for name in action.option_strings
    ]
    if _takes_program(parser):
        more = (*more, "'*::: :_normal'")
    options = "-C " if "'1: :->command'" in more else ""
    return [f"{indent}_arguments {options}{' '.join([*specifications, *more])}"]


def _zsh_option(parser: argparse.ArgumentParser, action: argparse.Action, name: str) -> str:
    text = _summary(parser, action).replace("[", "(").replace("]", ")")
    repeated = "*" if isinstance(action, argparse._AppendAction) else ""
    if not _takes_value(action):
        return f"{repeated}{name}[{text}]"
    values = " "
    if action.choices:
        values = f"({' '.join(action.choices)})"
    elif str(action.metavar) in _KINDS:
        values = _KINDS[str(action.metavar)][1]
    equals = "=" if name.startswith("--") else ""
    return f"{repeated}{name}{equals}[{text}]:{action.metavar or action.dest}:{values}"


def _zsh_word(text: str) -> str:
    return shlex.quote(text)


# fish


def fish(name: str, parser: argparse.ArgumentParser) -> str:
    """Return the completion for fish."""
    commands = subcommands(parser)
    known = " ".join(commands)
    none_yet = f"not __fish_seen_subcommand_from {known}" if commands else ""
    lines = [f"complete -c {name} -f", *_fish_level(name, parser, none_yet)]
    for command, (one, text) in commands.items():
        lines.append(f"complete -c {name} -n '{none_yet}' -a {command} -d {_fish_word(text)}")
        seen = f"__fish_seen_subcommand_from {command}"
        lines += _fish_level(name, one, seen)
        if _takes_program(one):
            lines.append(f"complete -c {name} -n '{seen}' -x -a '(__fish_complete_subcommand)'")
    return _NOTE.format(name) + "\n".join([*lines, ""])


def _fish_level(name: str, parser: argparse.ArgumentParser, condition: str) -> Iterator[str]:
    when = f" -n '{condition}'" if condition else ""
    for action in _options(parser):
        words = [f"complete -c {name}{when}"]
        for option in action.option_strings:
            is_long = option.startswith("--")
            words.append(f"-l {option[2:]}" if is_long else f"-s {option[1:]}")
        if _takes_value(action):
            words.append("-x")
            if action.choices:
                words.append(f"-a {_fish_word(' '.join(action.choices))}")
            elif str(action.metavar) in _KINDS:
                words.append(f"-a {_fish_word(_KINDS[str(action.metavar)][2])}")
        text = _summary(parser, action)
        yield " ".join([*words, *(["-d", _fish_word(text)] if text else [])])


def _fish_word(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
