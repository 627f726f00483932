# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, as exceptions.

Three families: what the driver answers in the BR_ stream (``DeadObject`` and its like), what the
other process answers in the payload (``RemoteException``), and what this process did wrong or lost
itself (``ParcelError``, ``MisuseError``, ``DeviceError``).  ``DeviceGone`` is in the first and in
the third: with its device an object is dead.  This file must not know parcels or connections.
"""

from __future__ import annotations

import errno
import os

from binderclient.android import (
    EX_NONE,
    EX_SERVICE_SPECIFIC,
    EXCEPTION_NAMES,
    LAST_CALL_TRANSACTION,
    STATUS_NAMES,
    STATUS_OK,
)


class BinderError(Exception):
    """Base of everything that this package raises on purpose."""


# Answers of the driver


class DeadObject(BinderError):
    """The target's process is gone, or went before it replied (BR_DEAD_REPLY)."""


class FailedTransaction(BinderError):
    """The driver refused to carry the transaction (BR_FAILED_REPLY).

    Args:
        reason: the errno of BINDER_GET_EXTENDED_ERROR as a positive number; 0 where the driver
            does not tell.
    """

    def __init__(self, reason: int = 0) -> None:
        self.reason = reason
        hint = _HINTS.get(reason, "")
        named = f" ({errno.errorcode.get(reason, reason)}{hint})" if reason else ""
        super().__init__(f"the driver refused the transaction{named}")


# Statement E2: what each reason usually means, in words that say where to look.
_HINTS = {
    errno.ENOSPC: ": no room in the receiver's buffer area",
    errno.EPROTO: ": this thread has an outgoing call already",
    errno.EPERM: ": not permitted, or the receiver takes no file descriptors",
    errno.EINVAL: ": a handle, object or size that is not valid",
    errno.EFAULT: ": memory that cannot be read",
}


class FrozenObject(BinderError):
    """The target's process is frozen (BR_FROZEN_REPLY)."""


class ProtocolError(BinderError):
    """The driver said something that the ABI does not allow at that point, or BR_ERROR."""


# Answers of the other process


class RemoteException(BinderError):
    """The service answered with an error instead of a result.

    A handler raises it to send one; a caller gets it from ``Proxy.call`` (``status``) or from
    ``Parcel.read_exception`` (``exception_code``).

    Args:
        exception_code: one of ``android.EX_*``; EX_NONE when it is a bare status.
        message: text for humans.
        status: one of ``android.STATUS_*``; only for a bare status (TF_STATUS_CODE).
        service_specific: the interface's own error number, with EX_SERVICE_SPECIFIC.
    """

    def __init__(
        self,
        exception_code: int = EX_NONE,
        message: str = "",
        *,
        status: int = STATUS_OK,
        service_specific: int = 0,
    ) -> None:
        self.exception_code = exception_code
        self.message = message
        self.status = status
        self.service_specific = service_specific
        if exception_code == EX_NONE:
            name = STATUS_NAMES.get(status, f"status {status}")
        else:
            name = EXCEPTION_NAMES.get(exception_code, f"exception {exception_code}")
        if exception_code == EX_SERVICE_SPECIFIC:
            name = f"{name} {service_specific}"
        super().__init__(f"{name}: {message}" if message else name)


# Local faults


class ParcelError(BinderError, ValueError):
    """A parcel that cannot be read or written that way: too short, freed, not an object …"""


class MisuseError(BinderError, RuntimeError):
    """A call that the state of this thread or device does not allow; nothing was sent."""


class DeviceError(BinderError, OSError):
    """The device file cannot be used: missing, closed, inherited by fork.

    Args:
        number: the errno.
        message: what was tried, and what to do about it.
        path: the device file.
    """

    def __init__(self, number: int, message: str, path: str) -> None:
        OSError.__init__(self, number, f"{message} ({os.strerror(number)})", path)


class DeviceGone(DeviceError, DeadObject):
    """The driver behind an open device file is gone, and with it everything that it had given out.

    Its objects are dead, so this is a ``DeadObject`` as well.  ``errno`` is ECONNABORTED for a call
    that was under way, which may or may not have been handled, and ENOTCONN for one that was not.
    """


class CallAbandoned(BinderError):
    """The caller gave up waiting.  The service may or may not have handled the call."""


class CallTimeout(CallAbandoned, TimeoutError):
    """There was no reply within the time that the caller gave; the call may still be handled.

    Args:
        seconds: that time.
        interface: the called interface's name; empty if the request did not tell.
        code: what was called, as a number.
        method: its name, if that is known.
        service: the name under which the service was looked up, if it was.
        sent: False if it was not even sent, as too many others were waiting for their replies
            (``max_calls`` of asynchronous devices); then it is not handled.
    """

    def __init__(
        self,
        seconds: float,
        interface: str,
        code: int,
        method: str = "",
        service: str = "",
        *,
        sent: bool = True,
    ) -> None:
        self.seconds = seconds
        self.interface = interface
        self.code = code
        self.method = method
        self.service = service
        self.sent = sent
        # Those that every object answers are four letters.
        shown = code if code <= LAST_CALL_TRANSACTION else repr(code.to_bytes(4).decode("latin-1"))
        place = f".{method}()" if method else f", code {shown},"
        of = f" of {service!r}" if service else ""
        target = f"{interface or 'the object'}{place}{of}"
        within = f"within {round(seconds, 3) or seconds:g} s"
        text = f"{target} did not answer {within}; it may still do what was asked"
        if not sent:
            text = (
                f"{target} was not called {within}: so many calls were under way as max_calls of"
                " open_device() allows"
            )
        super().__init__(text)

    def named(self, *, method: str = "", service: str = "") -> CallTimeout:
        """Return the same with what a caller knows better."""
        return CallTimeout(
            self.seconds,
            self.interface,
            self.code,
            method or self.method,
            service or self.service,
            sent=self.sent,
        )
