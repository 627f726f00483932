# SPDX-License-Identifier: Apache-2.0
"""Binder objects as a program sees them: ``Service`` here, ``Proxy`` for one elsewhere.

This file knows the calling conventions of Android's user space (which codes every object answers,
how errors travel back) and nothing of threads, file descriptors or the driver: a proxy asks its
``Transport``, and the thread that received a call runs ``answer``.
"""

from __future__ import annotations

import contextvars
import inspect
import os
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Protocol, TypeVar

from binderclient import android
from binderclient.arguments import check_callable, check_code, check_type
from binderclient.deadlines import Ticket, checked_timeout
from binderclient.errors import (
    MisuseError,
    RemoteException,
)
from binderclient.ibinder import IBinder
from binderclient.parcel import Parcel
from binderwire.binder_abi import TF_ACCEPT_FDS, TF_CLEAR_BUF, TF_ONE_WAY, TF_STATUS_CODE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_F = TypeVar("_F", bound="Callable[..., object]")


class Caller(NamedTuple):
    """The sender of the call that is being handled, as the driver vouches for it."""

    sender_pid: int  # 0 for a one-way call: its sender may be gone
    sender_euid: int
    one_way: bool


HANDLER_PREFIX: Final = "_binder_"  # of the handlers that ``interfaces`` makes
_caller: Final[contextvars.ContextVar[Caller | None]] = contextvars.ContextVar(
    "binder_caller", default=None
)


def caller() -> Caller:
    """Return which process and user have sent the call that is being handled.

    Raises:
        MisuseError: no call is being handled here.
    """
    current = _caller.get()
    if current is None:
        raise MisuseError("caller() outside of a handler")
    return current


def set_caller(identity: Caller) -> contextvars.Token[Caller | None]:
    """For other flavours: set what ``caller`` returns in this context."""
    return _caller.set(identity)


def reset_caller(token: contextvars.Token[Caller | None]) -> None:
    """For other flavours: undo ``set_caller``."""
    _caller.reset(token)


def transaction(code: int) -> Callable[[_F], _F]:
    """Make a method of a ``Service`` the handler of transactions with this code.

    Args:
        code: 1 … 0xffffff; what the interface gave to the method.

    Raises:
        TypeError, ValueError: ``code`` is no number, or out of that range.
    """
    check_type("transaction(): code", code, int)
    if not android.FIRST_CALL_TRANSACTION <= code <= android.LAST_CALL_TRANSACTION:
        raise ValueError(f"{code:#x} is no code of an interface's method")

    def mark(method: _F) -> _F:
        check_callable("transaction(): what is marked", method)
        method.__dict__.setdefault("binder_codes", []).append(code)
        return method

    return mark


class Service(IBinder):
    """Base of an object that other processes may call.

    A subclass names its interface and marks its methods::

        class Echo(Service):
            descriptor = "org.example.IEcho"

            @transaction(1)
            def echo(self, data: Parcel, reply: Parcel) -> None:
                reply.write_bytes(data.read_blob())

    ``data`` is valid until the method returns.  Whatever the method raises goes back to the
    caller: RemoteException as it is, ParcelError as STATUS_BAD_VALUE, DeadObject as
    STATUS_DEAD_OBJECT, FailedTransaction as STATUS_FAILED_TRANSACTION, PermissionError as
    EX_SECURITY, ValueError as EX_ILLEGAL_ARGUMENT, NotImplementedError as
    EX_UNSUPPORTED_OPERATION, anything else as EX_ILLEGAL_STATE with its type and text, or without a
    ``descriptor`` as STATUS_UNKNOWN_ERROR, and with a traceback in the log.
    """

    descriptor: ClassVar[str] = ""
    """The interface's name.  If it is set, requests must start with its token."""

    accepts_descriptors: ClassVar[bool] = False
    """May callers send open files?"""

    _methods: ClassVar[dict[int, str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401 - passed on
        super().__init_subclass__(**kwargs)
        cls._methods = dict(cls._methods)
        for name, method in vars(cls).items():
            for code in getattr(method, "binder_codes", ()):
                known = cls._methods.get(code, name)
                if known != name and known in vars(cls):
                    raise TypeError(f"{cls.__name__}: {known} and {name} both handle {code}")
                cls._methods[code] = name

    def on_transact(
        self, code: int, data: Parcel, reply: Parcel, flags: int
    ) -> Awaitable[None] | None:
        """Handle a transaction; override it to do without the table of methods.

        Args:
            code: the transaction's code.
            data: the request, at its start.
            reply: what goes back; ignored for a one-way call.
            flags: TF_*.

        Raises:
            RemoteException: STATUS_UNKNOWN_TRANSACTION if nothing handles ``code``.
        """
        name = self._methods.get(code)
        if name is None:
            raise RemoteException(status=android.STATUS_UNKNOWN_TRANSACTION)
        if self.descriptor:
            data.enforce_interface(self.descriptor)
        result: Awaitable[None] | None = getattr(self, name)(data, reply)
        return result

    @classmethod
    def method_name(cls, code: int) -> str | None:
        """Return the name of the method that handles ``code``; None if there is none."""
        name = cls._methods.get(code)
        return None if name is None else name.removeprefix(HANDLER_PREFIX)

    def dump(self, descriptor: int, arguments: list[str]) -> None:
        """Write the object's state to an open file, for ``dumpsys`` and its like.

        Args:
            descriptor: the file; it is closed when this returns.
            arguments: the words behind the service's name.
        """

    def shell_command(self, _command: ShellCommand) -> int | None:
        """Do what the ``cmd`` program asks for; override it for a service that knows commands.

        Returns:
            The result, which becomes the exit status; None if ``finish`` is called later.
        """
        return android.STATUS_INVALID_OPERATION


class ShellCommand(NamedTuple):
    """A command for a service, as ``cmd`` sends it; the files are closed afterwards."""

    input: int  # descriptors
    output: int
    error: int
    arguments: list[str]
    receiver: Any  # the proxy that wants the result, of the flavour's kind; or None

    def finish(self, result: int) -> Any:  # noqa: ANN401 - what the flavour's proxy returns
        """Send the result to the program that waits for it; to be called once."""
        if not isinstance(self.receiver, RemoteObject):
            return None
        told = Parcel.for_interface(android.RESULT_RECEIVER_DESCRIPTOR)
        told.write_int32(result)
        told.write_int32(0)  # no Bundle
        receiver: Any = self.receiver
        return receiver.call(android.RESULT_RECEIVER_SEND, told, oneway=True)


def dispatch(
    service: Service, code: int, data: Parcel, reply: Parcel, flags: int
) -> Awaitable[object] | None:
    """Run a call: those that every object answers here, the others by ``on_transact``."""
    if code == android.PING_TRANSACTION:
        return None
    if code == android.INTERFACE_TRANSACTION:
        reply.write_string16(service.descriptor)
        return None
    if code == android.DUMP_TRANSACTION and service.accepts_descriptors:
        _dump(service, data)
        return None
    if code == android.SHELL_COMMAND_TRANSACTION and service.accepts_descriptors:
        return _run_shell_command(service, data)
    result: Any = service.on_transact(code, data, reply, flags)
    if result is None:
        return None
    if inspect.isawaitable(result):
        return result
    check_nothing(result)
    return None


def check_nothing(result: object) -> None:
    """Refuse what a handler must not return, as nobody would get it.

    Raises:
        TypeError: it is not None.
    """
    if result is not None:
        kind = type(result).__name__
        raise TypeError(f"a handler writes into its reply and returns None, not {kind}")


def _read_words(data: Parcel) -> list[str]:
    return [data.read_string16() or "" for _ in range(data.read_int32())]


def _dump(service: Service, data: Parcel) -> None:
    descriptor = data.read_file_descriptor()
    try:
        service.dump(descriptor, _read_words(data))
    finally:
        os.close(descriptor)


def _run_shell_command(service: Service, data: Parcel) -> Awaitable[None] | None:
    with data.read_file() as input_, data.read_file() as output, data.read_file() as error:
        words = _read_words(data)
        data.read_strong_binder()  # a callback that opens files, which nothing here needs
        receiver = data.read_strong_binder()
        files = input_.fileno(), output.fileno(), error.fileno()
        command = ShellCommand(*files, words, receiver)
        result = service.shell_command(command)
        told = None if result is None else command.finish(result)
    return told if inspect.isawaitable(told) else None


def check_status(flags: int, reply: Parcel) -> None:
    """Raise what a reply with TF_STATUS_CODE stands for.

    Raises:
        RemoteException: with ``status``; the reply is closed.
    """
    if not flags & TF_STATUS_CODE:
        return
    with reply:
        status = reply.read_int32()
    if status != android.STATUS_OK:
        raise RemoteException(status=status)


def request_of(data: Parcel | None) -> Parcel:
    """Return what a call sends.

    Raises:
        TypeError: it is no parcel.
    """
    if data is None:
        return Parcel()
    if not isinstance(data, Parcel):
        raise TypeError(f"call(): data must be Parcel, not {type(data).__name__}")
    return data


def call_flags(*, oneway: bool, clear: bool) -> int:
    """Return the TF_ flags of a call; like Android's, it lets the reply bring open files."""
    return TF_ACCEPT_FDS | TF_ONE_WAY * bool(oneway) | TF_CLEAR_BUF * bool(clear)


class Transport(Protocol):
    """The device that a ``Proxy`` belongs to."""

    def transact(
        self, handle: int, code: int, data: Parcel, flags: int, ticket: Ticket | None = None
    ) -> Parcel:
        """Send a transaction and return the reply (an empty parcel for a one-way one)."""

    def link_to_death(self, proxy: Proxy, callback: Callable[[Proxy], object]) -> None:
        """See ``Proxy.link_to_death``."""

    def unlink_to_death(self, proxy: Proxy, callback: Callable[[Proxy], object]) -> bool:
        """See ``Proxy.unlink_to_death``."""

    def strong_count(self, handle: int) -> int | None:
        """Return how many strong references an object has, ours included; None: not told."""


class RemoteObject(IBinder):
    """What every kind of proxy is: a handle of a device, and whether its object is known dead.

    Equal objects are the same proxy: a device has one for each handle, as long as it is in use.
    """

    def __init__(self, handle: int, device: Any) -> None:  # noqa: ANN401 - the flavour's device
        self.handle = handle
        self.device = device
        self.dead = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.handle}{', dead' if self.dead else ''}>"


class Proxy(RemoteObject):
    """An object of another process; blocking flavour."""

    device: Transport

    def call(
        self,
        code: int,
        data: Parcel | None = None,
        *,
        oneway: bool = False,
        clear: bool = False,
        timeout: float | None = None,
    ) -> Parcel:
        """Call the object; blocks until the reply is there, and serves calls meanwhile.

        Args:
            code: what to do; the interface's number for it.
            data: the request; most interfaces want ``Parcel.for_interface(name)``.
            oneway: do not wait for the object, which cannot answer then.  Several one-way calls to
                one object are handled one after the other, in order.
            clear: overwrite the request in the receiver's memory when it is done with (secrets).
            timeout: seconds to wait for the reply, more than 0; None for ever.  A call that comes
                back meanwhile is served to its end first.  The reply that comes too late is given
                back.  Inside of a handler such a call is made by another thread, so that the
                handler can go on and answer its own caller.

        Returns:
            The reply.  Its pages belong to it until ``close``: use it in a ``with`` statement.
            For a one-way call an empty parcel.

        Raises:
            DeadObject: the object's process is gone; DeviceGone, the whole driver is.
            FailedTransaction: the driver refused, for example a request that is too large.
            FrozenObject: the object's process is frozen.
            RemoteException: the object answered with a bare status.
            CallTimeout: no reply within ``timeout``; the object may still handle the call.
        """
        if type(code) is not int or code < 0 or code > android.LAST_CALL_TRANSACTION:
            check_code(code)
        request = data if isinstance(data, Parcel) else request_of(data)
        flags = call_flags(oneway=oneway, clear=clear) if oneway or clear else TF_ACCEPT_FDS
        seconds = None if timeout is None else checked_timeout(timeout)
        if seconds is None:
            return self.device.transact(self.handle, code, request, flags)
        return self.device.transact(self.handle, code, request, flags, Ticket(seconds))

    def ping(self, *, timeout: float | None = None) -> None:
        """Return if the object answers; arguments and exceptions as ``call``."""
        self.call(android.PING_TRANSACTION, timeout=timeout).close()

    def interface(self, *, timeout: float | None = None) -> str:
        """Return the name of the object's interface; arguments and exceptions as ``call``."""
        with self.call(android.INTERFACE_TRANSACTION, timeout=timeout) as reply:
            return reply.read_string16() or ""

    def link_to_death(self, callback: Callable[[Proxy], object]) -> None:
        """Have ``callback(proxy)`` called once when the object's process is gone.

        It runs in a thread that serves: start the thread pool.  The link keeps the proxy alive.
        When the driver goes it runs in a thread of its own.

        Raises:
            DeadObject: that is known already; ``callback`` will not be called.
        """
        check_callable("link_to_death(): callback", callback)
        self.device.link_to_death(self, callback)

    def unlink_to_death(self, callback: Callable[[Proxy], object]) -> bool:
        """Take back ``link_to_death``; False if there is nothing to take back any more."""
        return self.device.unlink_to_death(self, callback)
