# SPDX-License-Identifier: Apache-2.0
"""``binderctl stress`` on the command line: arguments in, a report out, the exit status."""

from __future__ import annotations

import argparse
import json
import os
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from binderclient.blocking import DEFAULT_PATH
from binderclient.demo.report import Progress
from binderclient.stress.conductor import Conductor
from binderclient.stress.errors import StressError
from binderclient.stress.latency import check_library
from binderclient.stress.options import DESCRIPTION, EPILOG, add_arguments, from_namespace
from binderclient.stress.picture import draw
from binderclient.stress.report import Result, as_json, as_text

PROGRAM: Final = "binderd-stress-worker"
_NOT_BUILT: Final = (
    "{} is not there: it is built when the package is installed, if there is a C compiler. Install "
    "one and the kernel's headers (Debian: apt-get install gcc libc6-dev linux-libc-dev), then "
    'install binderd again; in a checkout, "make stress-worker" is enough'
)


def add_command(commands: Any, as_json: bool = False) -> None:  # noqa: ANN401
    """Add the parser of ``stress`` to those of the other commands.

    Args:
        commands: what ``add_subparsers`` has returned.
        as_json: for parsers that can say what is wrong as JSON.
    """
    more = {"as_json": True} if as_json else {}
    parser = commands.add_parser(
        "stress",
        help="load a device with many processes, and check everything",
        description=DESCRIPTION.format(device=DEFAULT_PATH),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **more,
    )
    add_arguments(parser)
    parser.set_defaults(start=lambda chosen: start(chosen, parser))


def start(chosen: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Do it; returns the exit status.

    Raises:
        StressError: it cannot be done.
    """
    options = from_namespace(chosen, DEFAULT_PATH)
    complaint = options.complaint()
    if complaint is not None:
        parser.error(complaint)
    check_library()
    picture = _writable(options.histogram)
    result = Conductor(options, worker_program(options.worker), Progress(sys.stderr)).run()
    print(json.dumps(as_json(result)) if options.json else as_text(result))
    if picture is not None:
        picture.write_text(draw(_title(result), result.latencies), encoding="utf-8")
    return 0 if result.passed else 1


def worker_program(path: str | None = None) -> Path:
    """Return where the program is that does the work.

    Raises:
        StressError: it was not built.
    """
    program = Path(path) if path is not None else Path(str(files("binderclient") / PROGRAM))
    if not program.is_file() or not os.access(program, os.X_OK):
        raise StressError(_NOT_BUILT.format(program))
    return program.resolve()


def _writable(path: str | None) -> Path | None:
    """Make sure, before all the work, that the picture can be written."""
    if path is None:
        return None
    try:
        with open(path, "a", encoding="utf-8"):
            return Path(path)
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) else error
        raise StressError(f"{path!r} cannot be written: {text}") from None


def _title(result: Result) -> str:
    options = result.options
    return (
        f"{result.device}: {options.clients} clients, {options.servers} servers, "
        f"{result.calls:,} calls in {result.seconds:.0f} s"
    )
