# SPDX-License-Identifier: Apache-2.0
"""What a process needs before it can load the rest of itself and say what is wrong.

Nothing here may import anything of ours, or anything big: it runs where a handful of descriptors is
all that there is.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Final

# Two dozen for ourselves, and some clients.
DESCRIPTORS_MIN: Final = 64


def prepare() -> str | None:
    """Make the process fit to start; return what is missing, None if nothing is."""
    # Ctrl-C while modules are loaded is no traceback; nothing is there yet that had to be undone.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        _fill_standard_descriptors()
    except OSError as error:
        return f"a standard descriptor is closed, and there is no /dev/null for it: {error}"
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS_MIN:
        return (
            f"the limit of open files is {hard}, and at least {DESCRIPTORS_MIN} are needed: "
            "raise it (ulimit -n, LimitNOFILE=)"
        )
    return None


def _fill_standard_descriptors() -> None:
    """Put something where a standard stream was closed.

    Else the next file that is opened would get its number, and with it what is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number, so this one; closed ones before it have been filled.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - to the end


def say(program: str, text: str) -> None:
    """Write one line to stderr, if that is open."""
    with suppress(OSError):
        os.write(2, f"{program}: {text}\n".encode(errors="backslashreplace"))
