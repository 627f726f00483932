# SPDX-License-Identifier: Apache-2.0
"""Processes that do their service manager, or its clients, no good: real ones, or an engine's."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from binderclient.blocking import Device
from binderclient.objects import Service
from binderclient.servicemanager import ServiceManager
from client.drivers import PATIENCE
from dialects.lenient import Lenient
from dialects.silent import offer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binderclient.testing import Process
    from client.conftest import Bench

_FOLDER: Final = Path(__file__).parent


class SilentProcess:
    """``silent.py``, running."""

    def __init__(self, device: Path) -> None:
        command = [sys.executable, str(_FOLDER / "silent.py"), str(device)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def word(self) -> str:
        """Return what it says next."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()


class LocalSilent:
    """The same as a process of an engine."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._over = threading.Event()
        arguments = (process.path(), self._said.put, self._over)
        self._thread = threading.Thread(target=offer, args=arguments)
        self._thread.start()

    def word(self) -> str:
        return self._said.get(timeout=PATIENCE)

    def kill(self) -> None:
        self._process.kill()
        self._over.set()
        self._thread.join(PATIENCE)


def silent(bench: Bench) -> SilentProcess | LocalSilent:
    """Start a service that never answers."""
    if bench.binder is None:
        return SilentProcess(bench.device)
    return LocalSilent(bench.binder.process(uid=os.geteuid()))


@contextmanager
def lenient(bench: Bench) -> Iterator[None]:
    """A device's context manager is one that reads no request to its end."""
    if bench.binder is not None:
        with Device(bench.another()) as device:
            device.become_context_manager(Lenient())
            device.start_thread_pool()
            yield
        return
    command = [sys.executable, str(_FOLDER / "lenient.py"), str(bench.device)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
        process.stdin.close()


@contextmanager
def stopped(bench: Bench, name: str) -> Iterator[None]:
    """A service of that name is there, in a process that reads nothing."""
    if bench.binder is not None:
        with Device(bench.another()) as device:  # no thread of which ever serves
            ServiceManager(device).add(name, Service())
            yield
        return
    process = bench.peer("--name", name)
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)
