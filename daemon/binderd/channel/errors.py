# SPDX-License-Identifier: Apache-2.0
"""Why a transport cannot be had: this machine has not got it, or what was asked for is wrong.

The difference decides whether another transport may be taken instead, so it is one of type. Every
text says why and what to do, and is true by itself: a handler adds nothing to it.
"""

from __future__ import annotations

from errno import EACCES, EAGAIN, EMFILE, ENFILE, ENOMEM, EPERM
from typing import Final

_RIGHTS: Final = "start as root; a container needs --cap-add SYS_ADMIN, and no profile against it"
# What to do about an error of the system, whatever it was that failed.
_ADVICE: Final = {
    EPERM: _RIGHTS,
    EACCES: _RIGHTS,
    EMFILE: "raise the limit of open files (ulimit -n, LimitNOFILE=)",
    ENFILE: "the whole system has too many files open (sysctl fs.file-max)",
    ENOMEM: "give it more memory",
    EAGAIN: "let it have more processes and threads (ulimit -u, LimitNPROC=, pids.max)",
}


class StartError(Exception):
    """The daemon cannot serve what it was asked to: that is wrong, taken, or not allowed."""


class Unsupported(StartError):
    """This kernel or machine has not what the transport needs; another transport may do."""


class Unmappable(Unsupported):
    """Files can be served, but a plain mmap cannot show every client its receive area."""


def explain(error: OSError, what: str, advice: str = "") -> str:
    """Return what failed, why, and what to do.

    Args:
        error: what the system said.
        what: begins the sentence, for example "cannot make /x".
        advice: what to do, where that is not what the error itself suggests.
    """
    advice = advice or _ADVICE.get(error.errno or 0, "")
    return f"{what} ({error.strerror})" + (f": {advice}" if advice else "")
