# SPDX-License-Identifier: Apache-2.0
"""``Recovery``: what a device does when its driver goes, and when it comes back.

A daemon that ends takes everything with it: handles, objects, calls under way.  So nothing of a
``Session`` outlives it; a device that comes back is a new session under the same path, in which
this process is again what it was: the context manager, a serving process, the owner of services.

The threads.  Any thread may notice the end; it runs nothing of the program's own.  Deaths and
callbacks are told by threads that exist for that alone, one after the other, so that a callback
may wait for the return.  With ``reconnect`` a further thread watches over the device as long as it
is open: it opens the path again, and offers the services to each new service manager.

Nothing here may know what an offer is.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import threading
import time
from typing import TYPE_CHECKING, Final

from binderclient import android
from binderclient.errors import BinderError, DeadObject, DeviceError, FrozenObject
from binderclient.objects import call_flags
from binderclient.parcel import Parcel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from binderclient.deaths import Obituary
    from binderclient.objects import Service
    from binderclient.session import Session

    # Offers a service again to the service manager of a session.
    Offer = Callable[[Session], None]

FIRST_PAUSE_SECONDS: Final = 0.01
LONGEST_PAUSE_SECONDS: Final = 1.0
OFFER_FLAGS: Final = call_flags(oneway=False, clear=False)
REFUSALS_MAX: Final = 5  # of an offer, by a manager that answers
_CLOSE_SECONDS: Final = 5.0
_log: Final = logging.getLogger("binderclient")


def pauses() -> Iterator[float]:
    """Yield how long to wait before each new attempt, in seconds: longer and longer, to a limit."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


class Recovery:
    """Keeps a device in a session, and tells the program when there is none.

    Args:
        open_session: opens the device; gets what the session is to call when it ends.
        reconnect: come back, or end with the first session?

    Attributes:
        is_serving: is the pool to be started in each session?
        context_manager: what is to be the object behind handle 0 in each session.
    """

    def __init__(
        self,
        open_session: Callable[[Callable[[Session, list[Obituary]], None]], Session],
        *,
        reconnect: bool,
    ) -> None:
        self.reconnect = reconnect
        self.is_serving = False
        self.context_manager: Service | None = None
        self._open_session = open_session
        self._lock = threading.RLock()
        self._gone_callbacks: list[Callable[[], object]] = []
        self._back_callbacks: list[Callable[[], object]] = []
        self._is_told = False  # that the latest session is gone
        self._is_over = False
        self._callback_thread: threading.Thread | None = None
        self._wakeups: list[queue.SimpleQueue[None]] = []
        self._offers: dict[str, Offer] = {}
        self._due: dict[str, int] = {}  # offers to be made, with how often they were refused
        self._manager: object = None  # the proxy of the service manager whose death will be told
        self._is_new_manager = False  # does it know nothing of the offers?
        self._probed: Session | None = None  # has been probed: its lifeline says nothing more
        self._alarm = -1  # wakes the thread
        self._thread: threading.Thread | None = None
        self._session: Session | None = None
        self._session = open_session(self._session_gone)
        if reconnect:
            self._alarm = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._thread = threading.Thread(target=self._run, name="binder-recovery", daemon=True)
            self._thread.start()

    @property
    def session(self) -> Session:
        """The latest; it may be gone."""
        assert self._session is not None
        return self._session

    # What the program may ask

    def on_gone(self, callback: Callable[[], object]) -> None:
        """Have ``callback`` called when the driver goes; at once if it is gone now."""
        with self._lock:
            self._gone_callbacks.append(callback)
            is_late = self._is_told
        if is_late:
            callback()

    def on_back(self, callback: Callable[[], object]) -> None:
        """Have ``callback`` called when the device is back."""
        with self._lock:
            self._back_callbacks.append(callback)

    def wait_back(self, timeout: float | None) -> bool:
        """Wait up to ``timeout`` seconds for a session that is not gone; return whether there is.

        Raises:
            DeviceGone: there will not be one.
        """
        if self.session.gone and not self.reconnect:
            raise self.session.driver.gone_error()
        return self._wait_until(lambda: self._is_over or not self.session.gone, timeout)

    def next_session(self, last: Session, is_wanted: Callable[[], bool]) -> Session | None:
        """Wait for the session after ``last``; None if there is none, or it is not wanted."""

        def is_reached() -> bool:
            return self._is_over or self.session is not last or not is_wanted()

        if self.reconnect:
            self._wait_until(is_reached, None)
        return self.session if self.session is not last and is_wanted() else None

    @contextlib.contextmanager
    def offering(self, name: str, offer: Offer) -> Iterator[None]:
        """Have an offer, which the block makes, made again to each new service manager.

        From the beginning of the block on, as the manager may change during it; not if it fails.
        """
        if not self.reconnect:
            yield
            return
        previous = self._offers.get(name)
        self._offers[name] = offer
        try:
            yield
        except BaseException:
            self._offers.pop(name, None)
            if previous is not None:
                self._offers[name] = previous
            raise
        self._wake()

    def wake(self) -> None:
        """Have all that wait here look again; safe in a signal handler."""
        for wakeup in list(self._wakeups):
            wakeup.put(None)

    # The end of a session

    def _session_gone(self, session: Session, deaths: list[Obituary]) -> None:
        """Have deaths and callbacks told; called by the thread that notices the end."""
        callbacks: list[Callable[[], object]] = []
        with self._lock:
            is_latest = self._session in {None, session}
            if is_latest and not self._is_told and not self._is_over:
                self._is_told = True
                callbacks = list(self._gone_callbacks)
                _log.warning(
                    "%s: the driver behind it is gone%s",
                    session.path,
                    "; waiting for it to come back" if self.reconnect else "",
                )
        tellings: list[Callable[[], object]] = [death.tell for death in deaths]
        self._tell(tellings + callbacks)
        self._wake()

    def _tell(self, tellings: list[Callable[[], object]]) -> None:
        """Run functions of the program's in a thread, after those that run already."""
        if not tellings:
            return
        with self._lock:
            previous = self._callback_thread

            def work() -> None:
                if previous is not None:
                    previous.join()
                for telling in tellings:
                    try:
                        telling()
                    except Exception:
                        _log.exception("a callback failed")

            thread = threading.Thread(target=work, name="binder-callbacks", daemon=True)
            with contextlib.suppress(RuntimeError):  # the interpreter is about to end
                thread.start()
                self._callback_thread = thread

    # The thread that watches over the device

    def _run(self) -> None:
        while not self._is_over:
            if self.session.gone:
                self._come_back()
            else:
                self._attend(self.session)

    def _attend(self, session: Session) -> None:
        """See to it that services can be found, until the session is gone."""
        waits = pauses()
        while not (session.gone or self._is_over):
            if not self._offers or self._is_offered(session):
                waits = pauses()
                self._sleep(None, session)
            else:
                self._sleep(next(waits), session)

    def _come_back(self) -> None:
        """Open the device until there is a session in which everything is as before."""
        waits = pauses()
        said = ""
        while not self._is_over:
            try:
                if self._restore():
                    return
            except (BinderError, OSError) as error:
                if str(error) != said:
                    said = str(error)
                    _log.info("not back yet: %s", error)
            self._sleep(next(waits), None)

    def _restore(self) -> bool:
        session = self._open_session(self._session_gone)
        try:
            if self.context_manager is not None:
                session.become_context_manager(self.context_manager)
        except BaseException:
            session.close()
            raise
        with self._lock:
            is_wanted = not self._is_over
            if is_wanted:
                self._session = session
                self._is_told = False
                self._manager, self._is_new_manager = None, True
        if not is_wanted:
            session.close()
            return True
        if self.is_serving:
            with contextlib.suppress(DeviceError):
                session.pool.start()
        _log.warning("%s: the driver is back", session.path)
        self.wake()
        self._tell(list(self._back_callbacks))
        if session.gone:  # since before it was the latest, when its end was not reported
            self._session_gone(session, [])
        return True

    # Services

    def _is_offered(self, session: Session) -> bool:
        """Make the offers that are due; return whether none is left, and the manager watched."""
        if self._manager is None and not self._watch_manager(session):
            self._is_new_manager = True
            return False
        if self._is_new_manager:
            self._is_new_manager = False
            self._due = dict.fromkeys(list(self._offers), 0)
        for name, refusals in list(self._due.items()):
            try:
                self._offers[name](session)
            except (DeadObject, FrozenObject):
                return False
            except (BinderError, KeyError) as error:
                if refusals + 1 < REFUSALS_MAX:
                    self._due[name] = refusals + 1
                    continue
                _log.error("%s cannot be offered again: %s", name, error)
            del self._due[name]
        return not self._due

    def _watch_manager(self, session: Session) -> bool:
        """Be told of the death of the service manager; False if none answers."""
        try:
            # First, as the driver says nothing if there is none to be linked to.
            session.transact(0, android.PING_TRANSACTION, Parcel(), OFFER_FLAGS).close()
            self._manager = manager = session.proxy(0)
            session.link_to_death(manager, self._manager_died)
        except BinderError:
            self._manager = None
        return self._manager is not None

    def _manager_died(self, manager: object) -> None:
        if manager is self._manager:
            self._is_new_manager = True
            self._manager = None
            self._wake()

    # Waiting

    def _wait_until(self, is_reached: Callable[[], bool], timeout: float | None) -> bool:
        """Wait up to ``timeout`` seconds; signal handlers run meanwhile."""
        deadline = None if timeout is None else time.monotonic() + timeout
        # A queue for each waiting thread: waking them takes no lock, so a signal handler may do it.
        wakeup: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._wakeups.append(wakeup)
        try:
            while not is_reached():
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                try:
                    wakeup.get(timeout=left)
                except queue.Empty:
                    return is_reached()
            return True
        finally:
            self._wakeups.remove(wakeup)

    def _wake(self) -> None:
        """Have all waiting threads look again, our own as well."""
        with self._lock:
            if self._alarm >= 0:
                os.eventfd_write(self._alarm, 1)
        self.wake()

    def _sleep(self, seconds: float | None, session: Session | None) -> None:
        """Sleep until there is something to do; notice the end of a driver that no call notices."""
        poller = select.poll()
        poller.register(self._alarm, select.POLLIN)
        lifeline = session.driver.lifeline if session is not None else -1
        if lifeline >= 0 and session is not self._probed:
            poller.register(lifeline, 0)  # for POLLHUP alone
        ready = dict(poller.poll(None if seconds is None else 1000 * seconds))
        if self._alarm in ready:
            os.eventfd_read(self._alarm)
        if session is not None and lifeline in ready:
            session.driver.probe()
            self._probed = session  # if its driver is there all the same, once was enough

    # Lifetime

    def close(self) -> None:
        """End all that goes on here, and the session."""
        with self._lock:
            self._is_over = True
        self._wake()
        self.session.close()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        thread.join(_CLOSE_SECONDS)
        if not thread.is_alive():
            self._close_alarm()

    def forget(self) -> None:
        """For a forked child, in which none of the threads is."""
        self._is_over = True
        self.session.forget()
        self._lock = threading.RLock()  # another thread may have held the old one in the fork
        self._close_alarm()

    def _close_alarm(self) -> None:
        with self._lock:
            number, self._alarm = self._alarm, -1
        if number >= 0:
            os.close(number)
