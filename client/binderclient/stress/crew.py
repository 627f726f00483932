# SPDX-License-Identifier: Apache-2.0
"""The worker processes: started, watched, stopped, killed, and none left behind.

Knows nothing of binder. A process is only ever signalled before it was collected, so its number
cannot be somebody else's.
"""

from __future__ import annotations

import os
import resource
import selectors
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Final

from binderclient.stress.errors import StressError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SERVER, CLIENT, IDLE, REGISTRY = "server", "client", "idle", "registry"
_FILES_BESIDE: Final = 64


class Worker:
    """A process, from its start until it was collected."""

    def __init__(self, role: str, number: int, life: int, popen: subprocess.Popen[bytes]) -> None:
        self.role = role
        self.number = number
        self.life = life
        self.popen = popen
        self.pidfd = os.pidfd_open(popen.pid)
        self.was_killed = False
        self.continue_at: float | None = None  # while it is stopped
        self.thaw_at: float | None = None  # while it is frozen

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.popen.pid

    @property
    def name(self) -> str:
        """What to call it."""
        return f"{self.role} {self.number} (process {self.pid})"


class Crew:
    """All of them.

    Args:
        program: the worker program.
        device: its first argument.
        board: descriptor of the shared memory.
        environment: of the processes.
        size: how many there will be at a time, at most.
    """

    def __init__(
        self, program: Path, device: str, board: int, environment: Mapping[str, str], size: int
    ) -> None:
        self._program, self._device, self._board = program, device, board
        self._environment = environment
        self._selector = selectors.DefaultSelector()
        self._inputs = {role: os.pipe() for role in (SERVER, CLIENT, IDLE, REGISTRY)}
        self._closed: set[str] = set()
        self.pids: set[int] = set()  # of all that there ever were
        self.workers: dict[tuple[str, int], Worker] = {}
        _allow_files(2 * size + _FILES_BESIDE)

    def start(self, role: str, number: int, life: int) -> Worker:
        """Start a process.

        Raises:
            StressError: the system gives no more.
        """
        arguments = [self._device, str(self._board), str(number), str(life)]
        try:
            popen = subprocess.Popen(
                [self._program, role, *arguments],
                stdin=self._inputs[role][0],
                stdout=subprocess.PIPE if role in {REGISTRY, IDLE} else subprocess.DEVNULL,
                pass_fds=[self._board],
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for us alone
            )
        except OSError as error:
            raise StressError(
                f"cannot start process {len(self.workers) + 1}: {error.strerror}; "
                "fewer --clients, --servers or --idle, or a higher limit (ulimit -u, -n)"
            ) from None
        worker = self.workers[role, number] = Worker(role, number, life, popen)
        self.pids.add(popen.pid)
        self._selector.register(worker.pidfd, selectors.EVENT_READ, worker)
        return worker

    def of(self, *roles: str) -> list[Worker]:
        """Return the processes of these roles, in the order of their numbers."""
        found = [worker for worker in self.workers.values() if worker.role in roles]
        return sorted(found, key=lambda worker: (worker.role, worker.number))

    def ended(self, seconds: float) -> Iterator[Worker]:
        """Wait for so long at most, and yield those that have ended; they are collected."""
        for key, _ in self._selector.select(max(seconds, 0.0)):
            worker: Worker = key.data
            worker.popen.wait()
            self._forget(worker)
            yield worker

    def signal(self, worker: Worker, number: signal.Signals) -> None:
        """Send a signal."""
        worker.was_killed = worker.was_killed or number == signal.SIGKILL
        worker.popen.send_signal(number)

    def end(self, role: str, deadline: float) -> list[Worker]:
        """Close the input of a role; returns how all have ended. Workers that do not are killed."""
        self._close_input(role)
        ended: list[Worker] = []
        while self.of(role) and time.monotonic() < deadline:
            ended += self.ended(deadline - time.monotonic())
        for worker in self.of(role):
            self.signal(worker, signal.SIGKILL)
            worker.popen.wait()
            self._forget(worker)
            ended.append(worker)
        return [worker for worker in ended if worker.role == role]

    def close(self) -> None:
        """Kill the workers that are left."""
        for worker in list(self.workers.values()):
            worker.popen.kill()
        for worker in list(self.workers.values()):
            worker.popen.wait()
            self._forget(worker)
        for role, (ours, _) in self._inputs.items():
            os.close(ours)
            self._close_input(role)
        self._selector.close()

    def _close_input(self, role: str) -> None:
        if role not in self._closed:
            self._closed.add(role)
            os.close(self._inputs[role][1])

    def _forget(self, worker: Worker) -> None:
        self._selector.unregister(worker.pidfd)
        os.close(worker.pidfd)
        if worker.popen.stdout is not None:
            worker.popen.stdout.close()
        del self.workers[worker.role, worker.number]


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise StressError(f"so many processes need {count} open files, and {hard} are allowed")
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
