# SPDX-License-Identifier: Apache-2.0
"""How a benchmark ends: in good order, whatever ends it."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_orderly(name: str, work: Callable[[], object]) -> None:
    """Do the work of a program; a signal unwinds its stack like an error.

    Args:
        name: of the program, before what it says of an error.
    """
    for number in _SIGNALS:
        signal.signal(number, _end)
    try:
        work()
        sys.stdout.flush()
    except (BenchError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes once more at its end
        raise SystemExit(f"{name}: {error}") from None


def _end(number: int, _frame: object) -> NoReturn:
    """None interrupts the unwinding."""
    for ignored in _SIGNALS:
        signal.signal(ignored, signal.SIG_IGN)
    raise SystemExit(128 + number)
