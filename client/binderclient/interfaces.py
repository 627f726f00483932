# SPDX-License-Identifier: Apache-2.0
"""Services and their callers as annotated methods, without parcels.

    @interface("org.example.IEcho")
    class Echo(Service):
        def echo(self, text: str) -> str:
            return text

    manager.add("org.example.echo", Echo())                              # one side
    as_interface(Echo, manager.get("org.example.echo")).echo("hello")    # the other

The public methods of the class are numbered from 1 on as they stand there, which is how AIDL does
it; ``@transaction(7)`` says otherwise.  ``annotations`` has the types.  A method that returns a
tuple has several results (AIDL's out parameters), one with ``@oneway`` none, and its callers do not
wait.  A class without an implementation (``raise NotImplementedError``, or just ``...``) is as good
for callers; a service is a subclass.

A request that does not fit its method to the last byte is refused with EX_BAD_PARCELABLE, as
Android does; a caller that passes what does not fit gets a TypeError or ValueError before anything
is sent.  What a handler raises reaches the caller: see ``Service``; what is not listed there as
EX_ILLEGAL_STATE with its type and text, and with a traceback in the service's log.
"""

from __future__ import annotations

import functools
import inspect
import typing
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from binderclient import android
from binderclient.annotations import codec_of
from binderclient.arguments import check_callable, check_type
from binderclient.deadlines import checked_timeout
from binderclient.errors import CallTimeout, ParcelError, RemoteException
from binderclient.objects import HANDLER_PREFIX, Proxy, RemoteObject, Service
from binderclient.parcel import Parcel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable

    from binderclient.annotations import Codec
    from binderclient.ibinder import IBinder

_T = TypeVar("_T")
_S = TypeVar("_S", bound=Service)
_F = TypeVar("_F", bound="Callable[..., object]")

_ATTRIBUTE: Final = "binder_interface"  # of a class: its Interface
_TIMEOUT: Final = "timeout"
_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes, list})  # nobody awaits these
_OF_CALLERS: Final = frozenset({"binder", _TIMEOUT})  # attributes of an InterfaceProxy


def oneway(method: _F) -> _F:
    """Have callers of a method not wait for it; it returns nothing, and cannot fail for them."""
    check_callable("oneway(): method", method)
    method.__dict__["binder_oneway"] = True
    return method


def interface(descriptor: str) -> Callable[[type[_S]], type[_S]]:
    """Make the public methods of a ``Service`` an interface.

    Args:
        descriptor: its name, for example org.example.IEcho.

    Raises:
        TypeError: a method's arguments or result have no type, or one that no parcel carries; or
            its name is one that services or their callers have for themselves.
    """

    check_type("interface(): descriptor", descriptor, str)

    def make(cls: type[_S]) -> type[_S]:
        _check_class(cls)
        if inspect.isfunction(vars(cls).get("descriptor")):
            raise _taken(cls, "descriptor")
        cls.descriptor = descriptor
        setattr(cls, _ATTRIBUTE, Interface(cls))
        return cls

    return make


def _check_class(cls: object) -> None:
    if not (isinstance(cls, type) and issubclass(cls, Service)):
        raise TypeError(f"interface() is for subclasses of Service, not {cls!r}")


def as_interface(cls: type[_T], binder: IBinder, *, timeout: float | None = None) -> _T:
    """Return a proxy that has the methods of an interface, and calls an object with them.

    Args:
        cls: a class with ``@interface``.
        binder: a proxy of any flavour; of those for event loops all methods are to be awaited. A
            service of this process that is of that class is returned as it is.
        timeout: seconds that each call may take, None for ever. A call with a keyword argument of
            that name has its own, unless that is what the method calls an argument of its own.

    Raises:
        TypeError: ``cls`` is no interface, or ``binder`` is neither.
        ValueError: ``timeout`` is not more than 0.
    """
    check_type("as_interface(): cls", cls, type)
    found = interface_of(cls)
    if found is None:
        raise TypeError(f"{cls.__name__} has no @interface")
    return cast("_T", found(binder, checked_timeout(timeout)))


def interface_of(cls: type) -> Interface | None:
    """Return what a class with ``@interface``, or a subclass of it, is; None for another."""
    found: Interface | None = getattr(cls, _ATTRIBUTE, None)
    return found


class InterfaceProxy:
    """An object of another process, with the methods of an interface.

    Args:
        binder: the proxy by which it is reached.
        timeout: seconds that each call may take, None for ever.
    """

    def __init__(self, binder: RemoteObject, timeout: float | None = None) -> None:
        self.binder = binder
        self.timeout = timeout

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.binder!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InterfaceProxy) and self.binder is other.binder

    def __hash__(self) -> int:
        return hash(self.binder)


def _is_hook(cls: type[Service], name: str) -> bool:
    """Does a method override one of ``Service``, so that it is none of the interface's?

    Raises:
        TypeError: it only has a name that services or their callers have for themselves.
    """
    own = getattr(Service, name, None)
    if own is None and name not in _OF_CALLERS:
        return False
    count = len(inspect.signature(vars(cls)[name]).parameters)
    if not inspect.isfunction(own) or len(inspect.signature(own).parameters) != count:
        raise _taken(cls, name)
    return True


def _taken(cls: type[Service], name: str) -> TypeError:
    return TypeError(
        f"{cls.__name__}.{name}: services or their callers have a {name} themselves;"
        " write another name (on the wire there are only numbers)"
    )


class Interface:
    """The methods of a class.

    Args:
        cls: has a descriptor.
    """

    def __init__(self, cls: type[Service]) -> None:
        self._class = cls
        self.descriptor = cls.descriptor
        self.methods: dict[str, Method] = {}
        number = android.FIRST_CALL_TRANSACTION
        for name, function in list(vars(cls).items()):
            if name.startswith("_") or not inspect.isfunction(function) or _is_hook(cls, name):
                continue
            codes = function.__dict__.get("binder_codes") or [number]
            if len(codes) != 1:
                raise TypeError(f"{cls.__name__}.{name} has several codes")
            method = self.methods[name] = Method(self, name, codes[0], function)
            number = codes[0] + 1
            setattr(cls, f"{HANDLER_PREFIX}{name}", method.handler())
        handlers = {each.code: f"{HANDLER_PREFIX}{name}" for name, each in self.methods.items()}
        if len(handlers) != len(self.methods):
            raise TypeError(f"{cls.__name__}: two methods have one code")
        cls._methods = {**cls._methods, **handlers}
        self._blocking = self._make("Proxy", Method.caller)
        self._awaiting = self._make("AsyncProxy", Method.async_caller)

    def _make(self, suffix: str, make: Callable[[Method], object]) -> type[InterfaceProxy]:
        members: dict[str, object] = {  # what is the same on both sides: constants, and types
            name: value
            for name, value in vars(self._class).items()
            if name.isupper() or (isinstance(value, type) and not name.startswith("_"))
        }
        members |= {name: make(method) for name, method in self.methods.items()}
        members[_ATTRIBUTE] = self
        return type(f"{self._class.__name__}{suffix}", (InterfaceProxy,), members)

    def __call__(self, binder: IBinder, timeout: float | None = None) -> Any:  # noqa: ANN401 - like the class, to its users
        if isinstance(binder, Proxy):
            return self._blocking(binder, timeout)
        if isinstance(binder, RemoteObject):
            return self._awaiting(binder, timeout)
        if isinstance(binder, self._class):
            return binder
        raise TypeError(f"{binder!r} is no {self.descriptor}, nor a proxy")

    def may_be(self, value: object) -> bool:
        """Could it be such an object, as far as this process can tell?"""
        known = ""
        if isinstance(value, Service):
            known = value.descriptor
        elif isinstance(value, InterfaceProxy):
            owner = interface_of(type(value))
            known = "" if owner is None else owner.descriptor
        return known in ("", self.descriptor) or isinstance(value, self._class)


def _read_all(codecs: Iterable[Codec], parcel: Parcel) -> list[object]:
    try:
        return [codec.read(parcel) for codec in codecs]
    except RecursionError:  # the sender has put parcelables in parcelables, too deep
        raise ParcelError(f"values are nested too deeply, at {parcel.position}") from None


def _write(codec: Codec, parcel: Parcel, value: object, place: str) -> None:
    try:
        codec.write(parcel, value, place)
    except RecursionError:  # a parcelable that is in itself, for one
        raise ValueError(f"{place}: values are nested too deeply") from None


class _Finishing:
    """A handler that is to be awaited, and then its reply to be written.

    Args:
        result: what is to be awaited.
        write: writes the reply.
    """

    def __init__(self, result: Awaitable[object], write: Callable[[object], None]) -> None:
        self._result = result
        self._write = write

    def __await__(self) -> Generator[Any, Any, None]:
        self._write((yield from self._result.__await__()))

    def close(self) -> None:
        """Give it up, before it began: a coroutine that nobody awaits would complain."""
        if inspect.iscoroutine(self._result):
            self._result.close()


class Method:
    """One method: how its arguments and results travel.

    Args:
        owner: whose it is.
        name: its name.
        code: its transaction's.
        function: what was written down.
    """

    def __init__(
        self, owner: Interface, name: str, code: int, function: Callable[..., object]
    ) -> None:
        self.code = code
        self._owner = owner
        self._name = name
        self._function = function
        self._oneway = bool(function.__dict__.get("binder_oneway"))
        self._signature = inspect.signature(function)
        self.place = f"{owner.descriptor}.{name}()"  # what it is called in messages
        names = list(self._signature.parameters)[1:]
        self._places = {each: f"{self.place}: {each}" for each in names}
        self._places["return"] = f"{self.place}: result"
        self._types: tuple[dict[str, Codec], list[Codec], bool] | None = None
        try:
            self._resolve()
        except NameError:
            self._types = None  # of a class that comes later in its file, or is this very one

    def _resolve(self) -> tuple[dict[str, Codec], list[Codec], bool]:
        """Return the arguments' codecs, the results', and whether these are a tuple."""
        if self._types is not None:
            return self._types
        hints = typing.get_type_hints(self._function, include_extras=True)
        arguments: dict[str, Codec] = {}
        for name, parameter in list(self._signature.parameters.items())[1:]:
            if parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
                raise TypeError(f"{self.place}: {parameter} is no plain argument")
            arguments[name] = self._codec(hints, name)
        if "return" not in hints:
            raise TypeError(f"{self.place}: its result has no type (-> None for none)")
        result = hints["return"]
        is_tuple = typing.get_origin(result) is tuple
        results = list(typing.get_args(result)) if is_tuple else [result]
        if result is type(None):
            results = []
        elif self._oneway:
            raise TypeError(f"{self.place} is one-way: it has no result")
        self._types = arguments, [self._checked(each, "result") for each in results], is_tuple
        return self._types

    def _codec(self, hints: dict[str, Any], name: str) -> Codec:
        if name not in hints:
            raise TypeError(f"{self.place}: {name} has no type")
        return self._checked(hints[name], name)

    def _checked(self, annotation: object, name: str) -> Codec:
        try:
            return codec_of(annotation, interface_of)
        except TypeError as error:
            raise TypeError(f"{self.place}: {name}: {error}") from None

    # Callers

    def caller(self) -> Callable[..., object]:
        """Return the method of a blocking proxy."""

        def call(proxy: InterfaceProxy, *values: object, **named: object) -> object:
            timeout = self._timeout(proxy, named)
            request = self._request(proxy, values, named)
            binder: Any = proxy.binder
            try:
                reply = binder.call(self.code, request, oneway=self._oneway, timeout=timeout)
            except CallTimeout as error:
                raise error.named(method=self._name) from None
            with reply:
                return self._read_reply(reply)

        return self._dressed(call)

    def async_caller(self) -> Callable[..., object]:
        """Return the method of a proxy whose calls are awaited."""

        async def call(proxy: InterfaceProxy, *values: object, **named: object) -> object:
            timeout = self._timeout(proxy, named)
            request = self._request(proxy, values, named)
            binder: Any = proxy.binder
            try:
                reply = await binder.call(self.code, request, oneway=self._oneway, timeout=timeout)
            except CallTimeout as error:
                raise error.named(method=self._name) from None
            with reply:
                return self._read_reply(reply)

        return self._dressed(call)

    def _timeout(self, proxy: InterfaceProxy, named: dict[str, object]) -> Any:  # noqa: ANN401 - checked later
        if named and _TIMEOUT in named and _TIMEOUT not in self._signature.parameters:
            return named.pop(_TIMEOUT)
        return proxy.timeout

    def _dressed(self, call: Callable[..., object]) -> Callable[..., object]:
        return functools.wraps(self._function)(call)  # for help(), and inspection of the types

    def _request(
        self, proxy: object, values: tuple[object, ...], named: dict[str, object]
    ) -> Parcel:
        arguments, _, _ = self._types or self._resolve()
        if named or len(values) != len(arguments):
            values = self._in_order(proxy, values, named)
        request = Parcel.for_interface(self._owner.descriptor)
        for (name, codec), value in zip(arguments.items(), values, strict=True):
            _write(codec, request, value, self._places[name])
        return request

    def _in_order(
        self, proxy: object, values: tuple[object, ...], named: dict[str, object]
    ) -> tuple[object, ...]:
        """Return the values of all arguments, as a signature binds them."""
        try:
            bound = self._signature.bind(proxy, *values, **named)
        except TypeError as error:
            raise TypeError(f"{self.place}: {error}") from None
        bound.apply_defaults()
        return tuple(bound.arguments.values())[1:]

    def _read_reply(self, reply: Parcel) -> object:
        if self._oneway:
            return None
        _, results, is_tuple = self._types or self._resolve()
        reply.read_exception()
        values = _read_all(results, reply)
        if reply.remaining:
            raise ParcelError(f"{self.place}: {reply.remaining} bytes of the reply are left over")
        if is_tuple:
            return tuple(values)
        return values[0] if values else None

    # The service

    def handler(self) -> Callable[[Service, Parcel, Parcel], Awaitable[None] | None]:
        """Return what handles the method's transactions."""

        def handle(service: Service, data: Parcel, reply: Parcel) -> Awaitable[None] | None:
            result = getattr(service, self._name)(*self._read_request(data))
            if type(result) not in _PLAIN and inspect.isawaitable(result):
                return _Finishing(result, functools.partial(self._write_reply, reply))
            self._write_reply(reply, result)
            return None

        return handle

    def _read_request(self, data: Parcel) -> list[object]:
        arguments, _, _ = self._types or self._resolve()
        values = _read_all(arguments.values(), data)
        if data.remaining:
            raise RemoteException(
                android.EX_BAD_PARCELABLE,
                f"Parcel data not fully consumed, unread size: {data.remaining}",
            )
        return values

    def _write_reply(self, reply: Parcel, value: object) -> None:
        _, results, is_tuple = self._types or self._resolve()
        values: tuple[object, ...] = (value,)
        if is_tuple:
            values = value if isinstance(value, tuple) else ()
        reply.write_no_exception()  # and if what follows fails, all of it goes
        try:
            if is_tuple and len(values) != len(results):
                raise TypeError(f"{self.place}: must return {len(results)} values")
            for codec, each in zip(results, values, strict=False):
                _write(codec, reply, each, self._places["return"])
            if not results and value is not None:
                raise TypeError(f"{self.place}: must return nothing")
        except (TypeError, ValueError) as error:
            raise TypeError(str(error)) from None  # as it is the service's fault, not the caller's
