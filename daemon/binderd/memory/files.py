# SPDX-License-Identifier: Apache-2.0
"""Taking open files out of clients (the port ``File``).

A sender's descriptor is looked up while its request is open, so the thread and its table of
descriptors are still there; afterwards the sender may close it (O7).
"""

from __future__ import annotations

import fcntl
import os
import stat
from errno import EBADF
from typing import TYPE_CHECKING, Protocol

from binderd.engine.limits import CLOSES
from binderd.engine.ports import NoAnswer
from binderd.linux import pidfd
from binderd.linux.statx import device_of, memory_device

if TYPE_CHECKING:
    from binderd.engine.ports import Accounts, Charged


class Disposal(Protocol):
    """Closes what clients gave us, which may take any time."""

    def has_room(self) -> bool:
        """Whether it may be that one more has to be closed one day."""

    def dispose(self, fd: int, *, flushes: bool) -> None:
        """Close ``fd``, without waiting for what that may do.

        Args:
            flushes: may any close, not only the last, take its time?
        """


class Disposer(Protocol):
    """Closes what one of many gave us."""

    def dispose(self, fd: int, *, flushes: bool, owner: int, payment: Charged | None) -> None:
        """Close ``fd`` as ``Disposal.dispose`` does.

        Args:
            flushes: as there.
            owner: on whose account.
            payment: ends when it is closed.
        """


class UsersFiles:
    """Closes the files that an open file's user has sent, and charges the user (a ``Disposal``).

    Args:
        disposer: does it.
        payer: the user.
    """

    __slots__ = ("_disposer", "_payer", "accounts")

    def __init__(self, disposer: Disposer, payer: int) -> None:
        self._disposer = disposer
        self._payer = payer
        self.accounts: Accounts | None = None  # once the engine has the open file

    def has_room(self) -> bool:
        """Whether the user may send one more: what it has sent and what is closed is bounded so."""
        accounts = self.accounts
        return accounts is None or accounts.share_of(self._payer, CLOSES).has_room(1)

    def dispose(self, fd: int, *, flushes: bool) -> None:
        """Close ``fd``, and have the user pay until that is done."""
        # The open file may be gone, and what was known of its user with it.
        accounts = self.accounts
        payment = None if accounts is None else accounts.charge_anyway(self._payer, CLOSES)
        self._disposer.dispose(fd, flushes=flushes, owner=self._payer, payment=payment)


class TakenFile:
    """An open file of a sender, under a descriptor of ours."""

    __slots__ = ("_disposal", "fd")

    def __init__(self, fd: int, disposal: Disposal) -> None:
        self.fd = fd
        self._disposal = disposal

    def close(self) -> None:
        """Let go of the file; a second call does nothing."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            self._disposal.dispose(fd, flushes=_flushes(fd))


def _flushes(fd: int) -> bool:
    """Whether a file's file system may want to know of each close.

    Such are those of a network and of user space, our own first of all. They have no disk; it does
    no harm to suspect others without one.
    """
    mode, major, minor = device_of(fd)
    has_data = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
    return has_data and not major and (major, minor) != memory_device()


def take_file(tid: int, fd: int, disposal: Disposal) -> TakenFile | None:
    """Return the open file that thread ``tid`` has under ``fd``, None if it has none.

    Raises:
        NoAnswer: it could not be asked, for want of a descriptor of ours for example; or so many
            are being closed already that no more are taken.
    """
    if not disposal.has_room():
        raise NoAnswer
    if not 0 <= fd < 1 << 31:
        return None
    try:
        owner = pidfd.open_for_descriptors(tid)
    except OSError as error:
        raise NoAnswer from error
    try:
        taken = pidfd.take_descriptor(owner, fd)
    except OSError as error:
        if error.errno != EBADF:
            raise NoAnswer from error
        return None
    finally:
        os.close(owner)
    if fcntl.fcntl(taken, fcntl.F_GETFL) & os.O_PATH:  # the driver's fget takes none of these
        disposal.dispose(taken, flushes=False)  # it may be the last that holds a file system
        return None
    return TakenFile(taken, disposal)
