# SPDX-License-Identifier: Apache-2.0
"""The command ``binderclient-aidl``: files in, modules out, errors as compilers print them."""

from __future__ import annotations

import argparse
import importlib.util
import json
import keyword
import os
import sys
from typing import TYPE_CHECKING, Final

from binderclient import tool
from binderclient.aidl.errors import AidlError, Note
from binderclient.aidl.output import OutputRefusedError, depfile, write_modules
from binderclient.version import add_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from binderclient.aidl.checks import Compiled
    from binderclient.aidl.syntax import Document

_NO_LARK: Final = (
    "the library lark is missing: install Debian's python3-lark, or 'binderd[aidl]' with pip"
)
_DESCRIPTION: Final = """\
Compiles interfaces in AIDL, the Android Interface Definition Language, to Python: typed modules on
top of binderclient, for services and their callers, blocking and awaiting."""
_EPILOG: Final = """\
A file's package says where it lies: org.example.IEcho is in org/example/IEcho.aidl, and becomes
the module org.example.IEcho below DIR. For an interface IEcho it has the classes IEcho and, for
programs that await, AsyncIEcho; for a parcelable a dataclass, for an enum an IntEnum, for a union a
class that takes one of its members by name. Names are those of AIDL, with an underscore behind what
Python or binderclient needs itself.

examples:
  org/example/IEcho.aidl is: package org.example; interface IEcho { String echo(String text); }
  %(prog)s -o generated org/example/IEcho.aidl
  in Python, with 'generated' on the search path:
    from org.example.IEcho import IEcho
    class Echo(IEcho):                                        # one side
        def echo(self, text: str) -> str:
            return text
    as_interface(IEcho, manager.get("echo")).echo("hello")    # the other

What is given is compiled; what is imported is looked for in the folders of -I, and in those where
the packages of the given files begin. out arguments come back as results, after the method's own.
Map is as Java has it; List needs a type, as in the NDK.

exit status: 0 done, 1 something is wrong with the files, 2 with the arguments. Errors are printed
as FILE:LINE:COLUMN: error: TEXT, and then nothing is written."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = _parser()
    words = list(sys.argv[1:] if arguments is None else arguments)

    def act() -> int:
        chosen = parser.parse_args(words)
        if chosen.out is None and not chosen.check:
            parser.error("say where to write with -o DIR, or that you only want to know: --check")
        if not _has_lark():
            tool.complain(_NO_LARK, as_json=chosen.json)
            return tool.FAILED
        return _run(chosen)

    return tool.guarded(act, as_json="--json" in words)


def _parser() -> argparse.ArgumentParser:
    parser = tool.Parser(prog=tool.program_name(), description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("files", metavar="FILE", nargs="+", type=tool.path, help="a file of AIDL")
    parser.add_argument(
        "-o", "--out", metavar="DIR", type=tool.path, help="where the modules' packages begin"
    )
    parser.add_argument(
        "-I",
        "--include",
        metavar="DIR",
        type=tool.path,
        action="append",
        default=[],
        help="where packages of imported files begin; may be repeated",
    )
    parser.add_argument(
        "--with-imports", action="store_true", help="compile what is imported as well"
    )
    parser.add_argument(
        "--package",
        metavar="NAME",
        type=_package,
        default=None,
        help="the Python package that DIR is, if it is not itself on the search path: modules "
        "import each other from there",
    )
    parser.add_argument(
        "--interface-version",
        metavar="N",
        type=tool.whole_number(1, (1 << 31) - 1),
        default=0,
        help="what services answer to getInterfaceVersion()",
    )
    parser.add_argument(
        "--interface-hash",
        metavar="TEXT",
        type=_hash,
        default=None,
        help="what they answer to getInterfaceHash()",
    )
    parser.add_argument("--check", action="store_true", help="write nothing, say what is wrong")
    parser.add_argument("--depfile", metavar="FILE", type=tool.path, help="write a rule for make")
    parser.add_argument("--quiet", action="store_true", help="print no notes")
    parser.add_argument(
        "--json",
        action="store_true",
        help='print {"files": […], "notes": […], "errors": […]}, the last two with file, line, '
        "column and text",
    )
    add_version(parser)
    return parser


def _has_lark() -> bool:
    try:
        return importlib.util.find_spec("lark") is not None
    except ModuleNotFoundError:
        return False


def _package(text: str) -> str:
    if not all(each.isidentifier() and not keyword.iskeyword(each) for each in text.split(".")):
        raise argparse.ArgumentTypeError(f"{tool.quoted(text)} is no name of a Python package")
    return text


def _hash(text: str) -> str:
    if not text.isascii() or not text.isalnum():
        raise argparse.ArgumentTypeError(f"{tool.quoted(text)} is not of letters and digits")
    return text


def _run(chosen: argparse.Namespace) -> int:
    from binderclient.aidl.checks import compile_files  # which needs lark

    try:
        compiled = compile_files(chosen.files, chosen.include)
    except AidlError as error:
        _report(chosen, [], (), error.all)
        return tool.FAILED
    try:
        written = _write(chosen, compiled)
    except OutputRefusedError as error:
        tool.complain(str(error), as_json=chosen.json)
        return tool.FAILED
    _report(chosen, written, compiled.notes, ())
    return 0


def _write(chosen: argparse.Namespace, compiled: Compiled) -> list[str]:
    from binderclient.aidl.generator import Version, generate

    version = Version(chosen.interface_version, chosen.interface_hash or "")

    documents = [*compiled.documents, *(compiled.imported if chosen.with_imports else [])]
    paths = {each.path for each in documents}
    compiled.notes = [each for each in compiled.notes if each.position.path in paths]
    modules: dict[str, str] = {}
    for document in documents:
        modules.update(generate(document, chosen.package or "", version))
    for document in documents if not chosen.package else []:
        _note_hidden(document, compiled)
    if chosen.check:
        return []
    if not chosen.with_imports:
        _note_missing(chosen.out, compiled)
    written = write_modules(chosen.out, modules)
    if chosen.depfile:
        sources = [each.path for each in [*compiled.documents, *compiled.imported]]
        depfile(chosen.depfile, written, sources)
    return written


def _note_missing(folder: str, compiled: Compiled) -> None:
    """Note what will be imported and is not there."""
    from binderclient.aidl.generator import path_of

    for document in compiled.imported:
        for declared in document.declarations:
            path = path_of(declared)
            if path is not None and not os.path.exists(os.path.join(folder, path)):
                text = f"{declared.qualified} is imported, and was not given: see --with-imports"
                compiled.notes.append(Note(declared.position, text))


def _note_hidden(document: Document, compiled: Compiled) -> None:
    """Note that a package cannot be imported by its own name."""
    first = document.package.split(".")[0]
    if first in sys.stdlib_module_names and document.package_position is not None:
        text = f"Python has a module {first} itself: use --package to import this one"
        compiled.notes.append(Note(document.package_position, text))


def _report(
    chosen: argparse.Namespace,
    written: list[str],
    notes: Iterable[Note],
    errors: Iterable[AidlError],
) -> None:
    if chosen.json:
        told = {
            "files": written,
            "notes": [_as_json(each) for each in notes],
            "errors": [_as_json(each) for each in errors],
        }
        tool.show(json.dumps(told))
        return
    for each in errors:
        tool.say(tool.printable(str(each)))
    for note in () if chosen.quiet else notes:
        tool.say(tool.printable(str(note)))


def _as_json(told: AidlError | Note) -> dict[str, object]:
    path, line, column = told.position
    return {"file": path, "line": line, "column": column, "text": told.text}
