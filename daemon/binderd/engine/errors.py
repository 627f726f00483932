# SPDX-License-Identifier: Apache-2.0
"""The two ways in which a client is told that something failed; they are never mixed.

``BinderFailure`` is an in-band outcome: the ioctl succeeds and the client reads a BR_ code.
``KernelErrno`` is the result of the ioctl itself.  Anything else that is raised is our own bug.
"""

from __future__ import annotations


class BinderFailure(Exception):
    """A transaction that failed while it was being sent.

    Args:
        reply: BR_FAILED_REPLY, BR_DEAD_REPLY or another reply code.
        param: the negative errno that the driver reports in its extended error.
    """

    def __init__(self, reply: int, param: int) -> None:
        super().__init__(reply, param)
        self.reply = reply
        self.param = param


class KernelErrno(Exception):
    """An ioctl, or an open, that ends with an errno.

    Args:
        errno: the positive number.
    """

    def __init__(self, errno: int) -> None:
        super().__init__(errno)
        self.errno = errno
