# SPDX-License-Identifier: Apache-2.0
"""What the command lines of this package have in common: name, arguments, errors, exit status.

Exit status: 0 done, 1 it could not be done (one line says why), 2 the arguments are wrong, 130
interrupted by Ctrl-C, 141 nobody reads the output any more. This file must not know any command.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from binderclient.errors import BinderError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed import SupportsWrite

FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 128 + signal.SIGINT
NO_READER: Final = 128 + signal.SIGPIPE

U32_MAX: Final = 0xFFFFFFFF
_QUOTED_MAX: Final = 80  # characters
_MESSAGE_MAX: Final = 400


class OutputError(Exception):
    """Standard output takes nothing; the cause is in ``__cause__``, None if it is closed."""


def program_name() -> str:
    """Return the command as the user has to write it: the beginning of usage and errors."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:
        return f"python -m {spec.name.removesuffix('.__main__')}"
    return Path(sys.argv[0]).name


# Arguments


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that takes no shortened options.

    Args:
        as_json: print errors as ``{"error": TEXT}`` on standard output.
        options: see ``argparse.ArgumentParser``.
    """

    def __init__(self, *, as_json: bool = False, **options: Any) -> None:  # noqa: ANN401
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options)
        self._as_json = as_json

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Print the help like any other result: where it cannot be printed, that is an error."""
        if file is None:
            show(self.format_help().removesuffix("\n"))
        else:
            super().print_help(file)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments, and end with status 2."""
        if len(message) > _MESSAGE_MAX:  # argparse quotes what was typed, however long
            message = f"{message[:_MESSAGE_MAX]}…"
        if self._as_json:
            show(json.dumps({"error": message}))
            raise SystemExit(USAGE)
        super().error(printable(message))


def whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    """Return an argument type: whole numbers in a range, in any notation of Python's."""

    def convert(text: str) -> int:
        try:
            number = int(text, 0)
        except ValueError:
            number = lowest - 1
        if not lowest <= number <= highest:
            raise argparse.ArgumentTypeError(
                f"{quoted(text)} is no whole number from {lowest} to {highest}"
            )
        return number

    return convert


def seconds(text: str) -> float:
    """Argument type: a time above 0, in seconds; ``infinity`` is none (``math.inf``)."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number > 0:
        raise argparse.ArgumentTypeError(
            f"{quoted(text)} is no number of seconds above 0, or 'infinity'"
        )
    return number


def path(text: str) -> str:
    """Argument type: the name of a file."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{quoted(text)} cannot be the name of a file")
    return text


# Output


def quoted(text: str) -> str:
    """Return what was typed as errors quote it: on one line, and not all of a long one."""
    return repr(text if len(text) <= _QUOTED_MAX else f"{text[:_QUOTED_MAX]}…")


def printable(text: str) -> str:
    """Return the text on one line: what a service says cannot move the cursor or begin a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def show(text: str) -> None:
    """Print a result on standard output.

    Raises:
        OutputError: it is closed, full, or has no reader.
    """
    if sys.stdout is None:
        raise OutputError
    try:
        data = (text + "\n").encode(sys.stdout.encoding, "backslashreplace")
        sys.stdout.write(data.decode(sys.stdout.encoding))
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        raise OutputError from error


def say(text: str) -> None:
    """Print a line for people on standard error, if that is possible."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)


def complain(text: str, *, as_json: bool = False) -> None:
    """Say what could not be done: on standard error, or as JSON on standard output."""
    if as_json:
        show(json.dumps({"error": text}))
    else:
        say(f"{program_name()}: {text}")


def error_text(error: BaseException) -> str:
    """Return what an error means, on one line, the file that it is about first."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return printable(f"{os.fsdecode(error.filename)}: {error.strerror}")
    return printable(str(error) or type(error).__name__)


# Running


def guarded(action: Callable[[], int], *, as_json: bool = False) -> int:
    """Do what a command line does; returns the exit status: its own, or that of its error."""
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see __main__
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return _reported(action, as_json=as_json)
    except OutputError as error:
        cause = error.__cause__
        # Python flushes once more when it ends, and would complain.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if isinstance(cause, BrokenPipeError):
            return NO_READER
        say(f"{program_name()}: cannot write to standard output: {cause or 'it is closed'}")
        return FAILED
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would only disturb the end
        return INTERRUPTED


def _reported(action: Callable[[], int], *, as_json: bool) -> int:
    try:
        return action()
    except (BinderError, OSError, MemoryError) as error:
        complain(error_text(error), as_json=as_json)
        return FAILED


@contextmanager
def time_limit(limit: float, expired: str, *, as_json: bool = False) -> Iterator[None]:
    """End this process with status 1 when the block takes too long, whatever it waits for.

    A thread does it, as a daemon that is stopped does not let a signal interrupt the one that
    waits for it.

    Args:
        limit: seconds; ``math.inf`` for none.
        expired: what is said then.
        as_json: see ``complain``.
    """

    def give_up() -> None:
        with contextlib.suppress(OutputError):
            complain(expired, as_json=as_json)
        os._exit(FAILED)

    timer = threading.Timer(min(limit, threading.TIMEOUT_MAX), give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Status:
    """A line on standard error that is replaced by the next one; nothing where that is no terminal.

    Use it in a ``with`` statement: at its end the line is gone.
    """

    def __init__(self) -> None:
        self._shown = False

    def show(self, text: str) -> None:
        """Show what is going on."""
        if sys.stderr is not None and sys.stderr.isatty():
            self._shown = True
            self._rewrite(text)

    def _rewrite(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"\r\033[K{text}")
            sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._rewrite("")
