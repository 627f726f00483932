# SPDX-License-Identifier: Apache-2.0
"""Fault injection: workers are killed, stopped and continued, frozen and thawed."""

from __future__ import annotations

import errno
import signal
from typing import TYPE_CHECKING, Final

from binderclient.stress.crew import CLIENT, SERVER
from binderclient.stress.driver import freeze
from binderclient.stress.schedule import Schedule

if TYPE_CHECKING:
    from binderclient.stress.crew import Crew, Worker
    from binderclient.stress.options import Options
    from binderclient.stress.schedule import Event

_STOPPED_SECONDS: Final = 0.2  # at most
_FROZEN_SECONDS: Final = 0.2
_FREEZE_TIMEOUT_MS: Final = 50  # for the calls that are under way; we wait for it ourselves


class Accidents:
    """Injects faults when they are due.

    Args:
        options: how often each kind is to happen.
        crew: the workers that they happen to.
        device: descriptor of an open device, for freezing.
    """

    def __init__(self, options: Options, crew: Crew, device: int) -> None:
        rates = {"kill": options.kill, "stop": options.stop, "freeze": options.freeze}
        self._schedule = Schedule(options.seed, rates)
        self._acts = {"kill": self._kill, "stop": self._stop, "freeze": self._freeze}
        self._crew = crew
        self._device = device
        self.counts = {"killed": 0, "stopped": 0, "frozen": 0, "too busy to be frozen": 0}

    def happen(self, seconds: float) -> None:
        """Do what is due ``seconds`` after the start."""
        for worker in self._crew.of(SERVER, CLIENT):
            self._restore(worker, seconds)
        for event in self._schedule.due(seconds):
            roles = (SERVER,) if event.kind == "freeze" else (SERVER, CLIENT)
            candidates = [w for w in self._crew.of(*roles) if not w.was_killed]
            if candidates:
                worker = candidates[int(event.dice * len(candidates))]
                self._acts[event.kind](worker, event, seconds)

    def end(self) -> None:
        """Continue stopped workers, thaw frozen ones; no more accidents happen."""
        for worker in self._crew.of(SERVER, CLIENT):
            self._restore(worker, float("inf"))

    def _restore(self, worker: Worker, seconds: float) -> None:
        if worker.continue_at is not None and worker.continue_at <= seconds:
            worker.continue_at = None
            self._crew.signal(worker, signal.SIGCONT)
        if worker.thaw_at is not None and worker.thaw_at <= seconds:
            worker.thaw_at = None
            freeze(self._device, worker.pid, is_on=False, timeout_ms=0)

    def _kill(self, worker: Worker, _event: Event, _seconds: float) -> None:
        self._crew.signal(worker, signal.SIGKILL)
        self.counts["killed"] += 1

    def _stop(self, worker: Worker, event: Event, seconds: float) -> None:
        if worker.continue_at is None:
            self._crew.signal(worker, signal.SIGSTOP)
            worker.continue_at = seconds + event.strength * _STOPPED_SECONDS
            self.counts["stopped"] += 1

    def _freeze(self, worker: Worker, event: Event, seconds: float) -> None:
        if worker.thaw_at is not None:
            return
        error = freeze(self._device, worker.pid, is_on=True, timeout_ms=_FREEZE_TIMEOUT_MS)
        if error == 0:
            worker.thaw_at = seconds + event.strength * _FROZEN_SECONDS
            self.counts["frozen"] += 1
        elif error == errno.EAGAIN:
            self.counts["too busy to be frozen"] += 1
