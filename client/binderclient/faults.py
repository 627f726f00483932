# SPDX-License-Identifier: Apache-2.0
"""When a handler fails: what its caller gets to know, and what the log says.

A caller is to hear what went wrong, in the way that it can understand: an interface's callers
expect an exception with a text in front of each result, those of an object without one a status.
Nothing here may know how a reply is sent.
"""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Final

from binderclient import android
from binderclient.errors import DeadObject, FailedTransaction, ParcelError, RemoteException
from binderclient.parcel import Parcel
from binderwire.binder_abi import TF_STATUS_CODE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binderclient.objects import Caller, Service

# What becomes of a handler's exceptions; the first row that fits.
_STATUS_OF: Final[dict[type[Exception], int]] = {
    ParcelError: android.STATUS_BAD_VALUE,
    DeadObject: android.STATUS_DEAD_OBJECT,
    FailedTransaction: android.STATUS_FAILED_TRANSACTION,
}
_EXCEPTION_CODE_OF: Final[dict[type[Exception], int]] = {
    PermissionError: android.EX_SECURITY,
    ValueError: android.EX_ILLEGAL_ARGUMENT,
    NotImplementedError: android.EX_UNSUPPORTED_OPERATION,
}
# Codes that are none of an exception.
_HEADERS: Final = (android.EX_HAS_REPLY_HEADER, android.EX_HAS_NOTED_APPOPS_REPLY_HEADER)
_TEXT_MAX: Final = 4000  # characters of an exception's text that travel
_LEAVES_MAX: Final = 16  # exceptions of a group whose texts travel
_log: Final = logging.getLogger("binderclient")


def place_of(service: Service, code: int) -> str:
    """Return what messages call the handler of a code."""
    name = service.method_name(code)
    owner = service.descriptor or type(service).__name__
    return f"{owner}, code {code:#x}" if name is None else f"{owner}.{name}()"


def caller_text(caller: Caller) -> str:
    """Return what messages call a caller; of a one-way call only the user is known."""
    if caller.one_way:
        return f"one-way by user {caller.sender_euid}"
    return f"by process {caller.sender_pid} of user {caller.sender_euid}"


def answer_to(
    error: BaseException, service: Service, code: int, caller: Caller
) -> tuple[Parcel, int]:
    """Return the reply that tells a caller about the exception of a handler, and its TF_ flags.

    What the handler has not raised on purpose is logged, with the service, the method and the
    caller; of a one-way call everything is, as nobody else hears of it.
    """
    remote = known(error)
    text = _text_of(error)
    place, who = place_of(service, code), caller_text(caller)
    if remote is not None:
        try:
            answer = error_reply(remote)
        except Exception as failure:  # what is in it is the program's own, and anything
            text = f"a RemoteException that cannot be sent: {_text_of(failure)}"[:_TEXT_MAX]
        else:
            if caller.one_way:
                _log.warning("%s, called %s, refused it: %s", place, who, text)
            return answer
    _log.error("%s, called %s, failed", place, who, exc_info=error)
    remote = RemoteException(status=android.STATUS_UNKNOWN_ERROR)
    if service.descriptor:
        remote = RemoteException(android.EX_ILLEGAL_STATE, text)
    return error_reply(remote)


def error_reply(error: RemoteException) -> tuple[Parcel, int]:
    """Return a reply that is an error, and its TF_ flags.

    Raises:
        TypeError, ValueError: no reader would take it for one, or it has what no parcel carries.
    """
    reply = Parcel()
    if error.exception_code in _HEADERS:
        raise ValueError(f"{error.exception_code} is what other replies begin with")
    if error.exception_code != android.EX_NONE:
        reply.write_exception(error)
        return reply, 0
    if error.status == android.STATUS_OK:
        raise ValueError("it has neither an exception_code nor a status")
    reply.write_int32(error.status)
    return reply, TF_STATUS_CODE


def known(error: BaseException) -> RemoteException | None:
    """Return what stands for an exception that handlers raise on purpose; None for another.

    One that comes out of a nursery or a TaskGroup has a group around it, which says nothing.
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        (error,) = error.exceptions
    if isinstance(error, RemoteException):
        return error
    for kind, status in _STATUS_OF.items():
        if isinstance(error, kind):
            return RemoteException(status=status)
    for kind, code in _EXCEPTION_CODE_OF.items():
        if isinstance(error, kind):
            return RemoteException(code, _own_text(error)[:_TEXT_MAX])
    return None


def _own_text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # the program's own, and as faulty as it may be
        return ""


def _text_of(error: BaseException) -> str:
    """Return type and text of an exception; of a group, those of what is in it."""
    name, text = type(error).__name__, _own_text(error)
    if isinstance(error, BaseExceptionGroup):
        inside = "; ".join(itertools.islice(map(_text_of, _leaves(error)), _LEAVES_MAX))
        more = sum(1 for _ in _leaves(error)) - _LEAVES_MAX
        text = f"{error.message}: {inside}" + (f"; and {more} more" if more > 0 else "")
    return f"{name}: {text}"[:_TEXT_MAX] if text else name


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield what is in a group, and in the groups in it."""
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if isinstance(each, BaseExceptionGroup):
            waiting += reversed(each.exceptions)
        else:
            yield each
