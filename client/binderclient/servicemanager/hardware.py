# SPDX-License-Identifier: Apache-2.0
"""``HardwareServiceManager``: ``android.hidl.manager`` 1.0 to 1.2, the manager of hwbinder.

A HIDL service is entered under each interface of its *chain*, which the manager has to ask it for
while it adds itself.  The call must come from the thread that handles the request, as a service may
have no other thread than the one that waits for the answer.  So several threads serve, no lock is
held meanwhile, and of services that do not answer there are few at a time (``_Asking``): those of
others are added all the same.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar, Final

from binderclient import android, hidl
from binderclient.errors import BinderError, ParcelError, RemoteException
from binderclient.objects import Proxy, caller
from binderclient.parcel import Parcel
from binderclient.servicemanager.complaints import Complaints
from binderclient.servicemanager.entries import (
    Entry,
    Subscriber,
    Subscribers,
)
from binderclient.servicemanager.hidl_base import (
    ARCHITECTURE_UNKNOWN,
    METHODS,
    begin,
    finish,
)
from binderclient.servicemanager.names import is_hidl_part
from binderclient.servicemanager.registry import Registry
from binderclient.servicemanager.values import Offered
from binderwire import hidl as wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from binderclient.ibinder import IBinder
    from binderclient.servicemanager.declared import Declared

SERVING_THREADS: Final = 15
_ASKED_PER_PROCESS: Final = 2
_ASKED_PER_USER: Final = 6
_ASKED_MAX: Final = 12  # some threads are left for all others
_CHAIN_MAX: Final = 32
_HINT: Final = "this manager has HIDL services only; others have --android N"


class _Asking:
    """Counts the services that are being asked for their chain."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of_process: Counter[int] = Counter()
        self._of_user: Counter[int] = Counter()

    @contextlib.contextmanager
    def slot(self, pid: int, uid: int) -> Iterator[None]:
        """Count one meanwhile.

        Raises:
            RemoteException: STATUS_WOULD_BLOCK, too many do not answer.
        """
        with self._lock:
            if (
                self._of_process[pid] >= _ASKED_PER_PROCESS
                or self._of_user[uid] >= _ASKED_PER_USER
                or self._of_user.total() >= _ASKED_MAX
            ):
                raise RemoteException(status=android.STATUS_WOULD_BLOCK)
            self._of_process[pid] += 1
            self._of_user[uid] += 1
        try:
            yield
        finally:
            with self._lock:
                self._of_process -= Counter({pid: 1})
                self._of_user -= Counter({uid: 1})


class HardwareServiceManager(Registry):
    """The service manager of hwbinder; several threads are to serve it (``SERVING_THREADS``).

    Args:
        declared: the instances that listManifestByInterface knows.
    """

    descriptor: ClassVar[str] = wire.MANAGER_1_2

    def __init__(self, declared: Iterable[Declared] = ()) -> None:
        super().__init__(_notify_clients)
        self._declared = tuple(declared)
        self._asking = _Asking()
        self._complaints = Complaints(_HINT)
        self._handlers: dict[int, tuple[str, Callable[[Parcel, Parcel], None]]] = {
            **{code: (wire.IBASE, method) for code, method in METHODS.items()},
            wire.GET: (wire.MANAGER_1_0, self._get),
            wire.ADD: (wire.MANAGER_1_0, self._add),
            wire.GET_TRANSPORT: (wire.MANAGER_1_0, self._get_transport),
            wire.LIST: (wire.MANAGER_1_0, self._list),
            wire.LIST_BY_INTERFACE: (wire.MANAGER_1_0, self._list_by_interface),
            wire.REGISTER_FOR_NOTIFICATIONS: (wire.MANAGER_1_0, self._register),
            wire.DEBUG_DUMP: (wire.MANAGER_1_0, self._debug_dump),
            wire.REGISTER_PASSTHROUGH_CLIENT: (wire.MANAGER_1_0, _register_passthrough_client),
            wire.UNREGISTER_FOR_NOTIFICATIONS: (wire.MANAGER_1_1, self._unregister),
            wire.REGISTER_CLIENT_CALLBACK: (wire.MANAGER_1_2, self._register_client_callback),
            wire.UNREGISTER_CLIENT_CALLBACK: (wire.MANAGER_1_2, self._unregister_client_callback),
            wire.ADD_WITH_CHAIN: (wire.MANAGER_1_2, self._add_with_chain),
            wire.LIST_MANIFEST_BY_INTERFACE: (wire.MANAGER_1_2, self._list_manifest),
            wire.TRY_UNREGISTER: (wire.MANAGER_1_2, self._try_unregister),
        }

    def on_transact(
        self, code: int, data: Parcel, reply: Parcel, _flags: int
    ) -> Awaitable[None] | None:
        """See ``Service``."""
        row = self._handlers.get(code)
        if row is None:
            self._complaints.refused(code, "there is no such method")
            raise RemoteException(status=android.STATUS_UNKNOWN_TRANSACTION)
        interface, handler = row
        try:
            token = data.read_cstring()
            if token != interface:
                self._complaints.refused(code, f"it is a method of {interface}")
                raise RemoteException(status=android.STATUS_BAD_TYPE)
            handler(data, reply)
        except ParcelError as error:
            self._complaints.refused(code, str(error))
            raise
        return None

    # Services

    def _get(self, data: Parcel, reply: Parcel) -> None:
        key = _read_key(data)
        finish(data)
        with self._lock:
            entry = self._find(key)
            if entry is not None:
                self._watch.hand_out(key, entry)
        begin(reply)
        reply.write_bare_binder(None if entry is None else entry.offered.binder)

    def _get_transport(self, data: Parcel, reply: Parcel) -> None:
        key = _read_key(data)
        finish(data)
        with self._lock:
            is_there = self._find(key) is not None
        begin(reply)
        reply.write_int32(wire.TRANSPORT_HWBINDER if is_there else wire.TRANSPORT_EMPTY)

    def _add(self, data: Parcel, reply: Parcel) -> None:
        name, service = hidl.read_string(data), _read_binder(data)
        finish(data)
        who = caller()
        chain: list[str] = []
        if isinstance(service, Proxy):
            with self._asking.slot(who.sender_pid, who.sender_euid):
                chain = _ask_chain(service)
        _answer(reply, self._enter(name, service, chain))

    def _add_with_chain(self, data: Parcel, reply: Parcel) -> None:
        name, service = hidl.read_string(data), _read_binder(data)
        chain = hidl.read_strings(data)
        finish(data)
        _answer(reply, self._enter(name, service, chain))

    def _enter(self, name: str, service: IBinder, chain: list[str]) -> bool:
        """Enter a service under each interface of its chain; False if there are too many."""
        if not 0 < len(chain) <= _CHAIN_MAX or not all(map(is_hidl_part, (name, *chain))):
            return False
        who = caller()
        with self._lock:
            done: list[str] = []
            try:
                for interface in chain:
                    key = _key(interface, name)
                    entry = Entry(Offered(service), True, 0, who.sender_pid, who.sender_euid)
                    self._put(key, entry)
                    done.append(key)
            except RemoteException:
                for key in done:
                    self._services.remove(key)
                self._let_go(service)
                return False
            for interface in chain:
                self._tell_of(interface, name, is_old=False)
        return True

    def _put(self, key: str, entry: Entry) -> None:
        previous = self._services.find(key)
        if previous is not None:
            entry.has_clients = previous.has_clients
        self._keep(entry.offered.binder, lambda: self._services.put(key, entry))
        if previous is not None:
            self._let_go(previous.offered.binder)

    def _find(self, key: str) -> Entry | None:
        entry = self._services.find(key)
        if entry is None:
            return None
        binder = entry.offered.binder
        return None if isinstance(binder, Proxy) and binder.dead else entry

    def _keys(self) -> list[str]:
        with self._lock:
            return [key for key, _entry in self._services.items() if self._find(key)]

    def _instances(self, interface: str) -> list[str]:
        pairs = [key.split("/", 1) for key in self._keys()]
        return [name for known, name in pairs if known == interface]

    def _list(self, data: Parcel, reply: Parcel) -> None:
        finish(data)
        begin(reply)
        hidl.write_strings(reply, self._keys())

    def _list_by_interface(self, data: Parcel, reply: Parcel) -> None:
        interface = hidl.read_string(data)
        finish(data)
        begin(reply)
        hidl.write_strings(reply, self._instances(interface))

    def _list_manifest(self, data: Parcel, reply: Parcel) -> None:
        interface = hidl.read_string(data)
        finish(data)
        begin(reply)
        names = sorted(each.instance for each in self._declared if each.interface == interface)
        hidl.write_strings(reply, names)

    def _debug_dump(self, data: Parcel, reply: Parcel) -> None:
        """List services and the processes that serve them, but not those that use them."""
        finish(data)
        rows = []
        with self._lock:
            for key, entry in self._services.items():
                interface, _, name = key.partition("/")
                if self._find(key) is not None:
                    rows.append((interface, name, entry.pid, ARCHITECTURE_UNKNOWN))
        begin(reply)
        hidl.write_instances(reply, rows)

    # Notifications: of one instance, or with an empty name of all

    def _register(self, data: Parcel, reply: Parcel) -> None:
        interface, name = hidl.read_string(data), hidl.read_string(data)
        callback = _read_binder(data)
        finish(data)
        is_entered = is_hidl_part(interface) and (not name or is_hidl_part(name))
        if is_entered:
            with self._lock:
                is_entered = self._subscribe(self._callbacks, _key(interface, name), callback)
                if is_entered:
                    for known in self._instances(interface):
                        if name in ("", known):
                            _notify_registered(callback, interface, known, is_old=True)
        _answer(reply, is_entered)

    def _unregister(self, data: Parcel, reply: Parcel) -> None:
        interface, name = hidl.read_string(data), hidl.read_string(data)
        callback = _read_binder(data)
        finish(data)
        with self._lock:
            if interface:
                is_removed = self._callbacks.remove(_key(interface, name), callback)
            else:  # from all
                is_removed = self._callbacks.knows(callback)
                self._callbacks.remove_binder(callback)
            self._let_go(callback)
        _answer(reply, is_removed)

    def _tell_of(self, interface: str, name: str, *, is_old: bool) -> None:
        for key in (_key(interface, name), _key(interface, "")):
            for subscriber in list(self._callbacks.of(key)):
                _notify_registered(subscriber.binder, interface, name, is_old=is_old)

    # Lazy services

    def _register_client_callback(self, data: Parcel, reply: Parcel) -> None:
        key = _read_key(data)
        service, callback = _read_binder(data), _read_binder(data)
        finish(data)
        with self._lock:
            entry = self._own(key, service)
            done = entry is not None and self._subscribe(self._client_callbacks, key, callback)
            if done and entry is not None:
                if entry.has_clients:
                    _notify_clients(Subscriber(callback, entry.uid), entry, True)
                self._watch.has_clients(key)
        _answer(reply, done)

    def _unregister_client_callback(self, data: Parcel, reply: Parcel) -> None:
        _service, callback = _read_binder(data), _read_binder(data)
        finish(data)
        with self._lock:
            is_removed = self._client_callbacks.knows(callback)
            self._client_callbacks.remove_binder(callback)
            self._let_go(callback)
        _answer(reply, is_removed)

    def _try_unregister(self, data: Parcel, reply: Parcel) -> None:
        key, service = _read_key(data), _read_binder(data)
        finish(data)
        with self._lock:
            entry = self._own(key, service)
            done = (
                entry is not None
                and not entry.guarantee_client
                and not self._watch.has_clients(key)
            )
            if done:
                self._services.remove_binder(service)
                self._let_go(service)
        _answer(reply, done)

    def _own(self, key: str, service: IBinder) -> Entry | None:
        """Return a service if it is the one meant, and of the caller."""
        entry, who = self._find(key), caller()
        if entry is None or entry.offered.binder is not service or who.one_way:
            return None
        return entry if (entry.pid, entry.uid) == (who.sender_pid, who.sender_euid) else None

    def _subscribe(self, table: Subscribers, key: str, callback: IBinder) -> bool:
        try:
            subscriber = Subscriber(callback, caller().sender_euid)
            self._keep(callback, lambda: table.add(key, subscriber))
        except RemoteException:
            return False
        return True


def _key(interface: str, name: str) -> str:
    return f"{interface}/{name}"


def _read_key(data: Parcel) -> str:
    interface = hidl.read_string(data)
    return _key(interface, hidl.read_string(data))


def _read_binder(data: Parcel) -> IBinder:
    binder = data.read_bare_binder()
    if binder is None:
        raise RemoteException(status=android.STATUS_UNEXPECTED_NULL)
    return binder


def _answer(reply: Parcel, value: bool) -> None:
    begin(reply)
    reply.write_bool(value)


def _register_passthrough_client(data: Parcel, reply: Parcel) -> None:
    _read_key(data)
    finish(data)
    begin(reply)


def _ask_chain(service: Proxy) -> list[str]:
    """Ask a service for its interfaces; none if it does not say."""
    request = Parcel()
    request.write_cstring(wire.IBASE)
    try:
        with service.call(wire.INTERFACE_CHAIN, request) as reply:
            if reply.read_int32() != android.STATUS_OK:
                return []
            chain = hidl.read_strings(reply)
            return [] if reply.remaining else chain
    except BinderError:
        return []


def _notify_registered(callback: IBinder, interface: str, name: str, *, is_old: bool) -> None:
    def write(notice: Parcel) -> None:
        hidl.write_string(notice, interface)
        hidl.write_string(notice, name)
        notice.write_bool(is_old)

    _notify(callback, wire.NOTIFICATION, wire.ON_REGISTRATION, write)


def _notify_clients(subscriber: Subscriber, entry: Entry, has_clients: bool) -> None:
    def write(notice: Parcel) -> None:
        notice.write_bare_binder(entry.offered.binder)
        notice.write_bool(has_clients)

    _notify(subscriber.binder, wire.CLIENT_CALLBACK, wire.ON_CLIENTS, write)


def _notify(callback: IBinder, descriptor: str, code: int, write: Callable[[Parcel], Any]) -> None:
    """Tell one callback; what became of it is its own business."""
    if isinstance(callback, Proxy):
        notice = Parcel()
        notice.write_cstring(descriptor)
        write(notice)
        with contextlib.suppress(BinderError):
            callback.call(code, notice, oneway=True)
