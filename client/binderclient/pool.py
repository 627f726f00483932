# SPDX-License-Identifier: Apache-2.0
"""``ThreadPool``: the threads of one session that serve incoming calls.

One that the program starts, and as many more, up to ``max_threads``, as the driver asks for when
all of them are busy.  What a thread does with what it reads is the session's business.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from binderclient.errors import BinderError, DeviceGone

if TYPE_CHECKING:
    from binderclient.session import Session

# How long ``Device.close`` waits for handlers.
CLOSE_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 0.05  # between two attempts to wake threads at close
_log: Final = logging.getLogger("binderclient")


class ThreadPool:
    """The serving threads of ``session``."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._threads: list[threading.Thread] = []
        self._is_started = self._is_stopping = False
        self.is_owed = False  # has the driver asked for a thread that could not be started?
        self.returns = 0  # how often a thread of the program's own has come back; see ``serve``

    def start(self) -> None:
        """Serve in the background: start the first thread; idempotent.

        Raises:
            DeviceError: closed, inherited by fork; DeviceGone, the driver is gone.
        """
        self._session.thread()
        with self._session.lock:
            if not self._is_started:
                self._start_thread(register=False)
                self._is_started = True

    def grow(self) -> None:
        """Start another thread, because the driver asks for one.

        If the system has none it is tried again with each call that comes, as the driver does not
        ask twice.
        """
        with self._session.lock:
            if self._is_stopping:
                return
            was_owed = self.is_owed
            try:
                self._start_thread(register=True)
                self.is_owed = False
            except RuntimeError as error:
                self.is_owed = True
                if not was_owed:
                    _log.warning("the pool stays with %d threads: %s", len(self._threads), error)

    def serve(self) -> None:
        """Serve in the calling thread until ``stop``.

        Raises:
            DeviceError: see ``start``.
        """
        self._is_started = True
        self._loop(register=False, is_joined=True)

    def stop(self) -> None:
        """End all serving threads, each after the call that it is serving; signal-safe."""
        self._is_stopping = True
        self._session.wake_all()

    def wait_ended(self) -> None:
        """Wait up to CLOSE_SECONDS for the threads that were started here."""
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            while thread.is_alive() and thread is not threading.current_thread():
                thread.join(_RETRY_SECONDS)
                if time.monotonic() > deadline:
                    _log.warning("%s still handles a call of a closed device", thread.name)
                    return
                # A thread that was on its way into a read did not notice the last time.
                self._session.wake_all()

    def _start_thread(self, *, register: bool) -> None:
        thread = threading.Thread(
            target=self._run,
            kwargs={"register": register},
            name=f"binder-{len(self._threads) + 1}",
            daemon=True,
        )
        thread.start()
        self._threads.append(thread)

    def _run(self, *, register: bool) -> None:
        try:
            self._loop(register=register)
        except DeviceGone:
            pass  # logged once, by the session
        except BinderError as error:
            if not self._session.closed:
                _log.error("a serving thread ended: %s", error)

    def _loop(self, *, register: bool, is_joined: bool = False) -> None:
        session = self._session
        thread = session.thread()

        def go_on() -> bool:
            return not self._is_stopping

        with session.lock:
            if register:
                thread.state.register_looper()
            else:
                thread.state.enter_looper()
        try:
            while go_on():
                session.exchange(thread, read=True, go_on=go_on)
                self.returns += is_joined
            with session.lock:
                thread.state.exit_looper()
        finally:
            session.leave(thread)
