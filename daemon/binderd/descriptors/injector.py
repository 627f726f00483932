# SPDX-License-Identifier: Apache-2.0
"""Jobs of the helper process: it stops a thread, and puts files into its process or closes some.

A job is one of two things: to install files, or to close descriptors. It is in one of three states:

    SENT       the helper has it, or will have it as soon as its socket takes it
    STOPPED    the thread will run no code of its own before the job is over; the engine knows
    CANCELLED  the engine does not want it any more, and the helper knows

It is over when the helper says so, whatever its state, or when the helper ends: then nothing of it
is on its way any more, and the engine hears of it unless it was cancelled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from binderd.injector import messages
from binderd.injector.architecture import own_architecture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from binderd.descriptors.helper_process import HelperProcess
    from binderd.descriptors.outbox import Charge
    from binderd.engine.ports import Charged

SENT: Final = 0
STOPPED: Final = 1
CANCELLED: Final = 2

_CLOSES_MAX: Final = 16384  # descriptors to close, of one job
_NO_ROOM: Final = (0, 0)


class Reports(Protocol):
    """Is told how jobs go on; see ``Engine``."""

    def stopped(self, number: int) -> None:
        """The thread will run no code of its own before ``installed``."""

    def installed(self, number: int, numbers: Sequence[int] | None) -> None:
        """The job is over."""


class _Job:
    __slots__ = ("payment", "state")

    def __init__(self, payment: Charged | None) -> None:
        self.state = SENT
        self.payment = payment  # for files on their way


class Injector:
    """The jobs that the helper process has.

    Args:
        helper: does them.
        injects: may it stop clients?

    ``reports`` is told how the jobs go on; it must be set before the first one.
    """

    def __init__(self, helper: HelperProcess, *, injects: bool = True) -> None:
        self.reports: Reports | None = None
        self.injects = injects and own_architecture() is not None
        self._helper = helper
        self._jobs: dict[int, _Job] = {}  # by number

    def install(
        self,
        number: int,
        tid: int,
        files: Sequence[int],
        room: tuple[int, int],
        payment: Charged,
        charge: Charge | None,
        owner: int,
    ) -> bool:
        """Begin to put files into the process of a thread; False if that cannot be.

        Args:
            number: what the job is called from now on.
            tid: a thread that has a request open.
            files: descriptors of ours, which remain ours.
            room: the unused part of its read buffer: address, bytes.
            payment: for those that are sent at once; it ends when nothing is on its way any more,
                whatever is returned.
            charge: called with bytes that must wait; returns None if there is no room for them.
            owner: the user whose thread it is; one whose thread has kept us waiting is refused.
        """
        if not self.injects or not self._helper.is_running():
            payment.end()
            return False
        parts = messages.of_job(number, tid, files, (), room, payment.number, owner)
        return self._begin(number, _Job(payment), parts, charge)

    def close_descriptors(
        self, number: int, tid: int, numbers: Sequence[int], charge: Charge | None, owner: int
    ) -> bool:
        """Begin to close descriptors of the process of a thread; False if that cannot be.

        Args:
            number, tid, charge, owner: as of ``install``.
            numbers: the descriptors, there.
        """
        if not self.injects or len(numbers) > _CLOSES_MAX or not self._helper.is_running():
            return False
        parts = messages.of_job(number, tid, (), numbers, _NO_ROOM, 0, owner)
        return self._begin(number, _Job(None), parts, charge)

    def _begin(self, number: int, job: _Job, parts: messages.Parts, charge: Charge | None) -> bool:
        self._jobs[number] = job
        for message, files in parts:
            if not self._helper.send(number, message, files, charge=charge):
                self.cancel(number)  # half a job is worse than none
                return False
        return True

    def cancel(self, number: int) -> None:
        """The job is no longer wanted; one that is over is ignored."""
        job = self._jobs.get(number)
        if job is None or job.state == CANCELLED:
            return
        job.state = CANCELLED
        self._helper.drop(number)
        self._helper.send(number, messages.head.pack(messages.CANCEL, number), (), must=True)

    def thread_stopped(self, number: int) -> None:
        """The helper has stopped the thread of a job."""
        job = self._jobs.get(number)
        if job is not None and job.state == SENT:
            job.state = STOPPED
            if self.reports is not None:
                self.reports.stopped(number)

    def ended(self, number: int, numbers: Sequence[int] | None) -> None:
        """The helper says that a job is over.

        Args:
            numbers: of the files, in order; None: it failed and has left none behind.
        """
        job = self._jobs.pop(number, None)
        if job is None:
            return
        if job.payment is not None:
            job.payment.end()
        if job.state != CANCELLED and self.reports is not None:
            self.reports.installed(number, numbers)

    def helper_is_lost(self) -> None:
        """The helper has ended: so have all jobs."""
        jobs, self._jobs = self._jobs, {}
        for job in jobs.values():  # first, as the engine may begin others when it is told
            if job.payment is not None:
                job.payment.end()
        for number, job in jobs.items():
            if job.state != CANCELLED and self.reports is not None:
                self.reports.installed(number, None)
