# SPDX-License-Identifier: Apache-2.0
"""Service managers for tests: as a process of its own on a device, or in the test's process."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Final

from binderclient import commandline
from binderclient.blocking import Device
from binderclient.servicemanager import Declared, ServiceManagerService
from binderclient.servicemanager.declared import parse_declared
from binderclient.servicemanager.hardware import SERVING_THREADS, HardwareServiceManager
from client.drivers import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from binderclient.testing import Process
    from client.conftest import Bench

_LOG: Final = logging.getLogger("binderclient.servicemanager")
_LOOK_SECONDS: Final = 0.2  # between looks for clients that have gone


class ManagerProcess:
    """``binder-servicemanager``, running.

    Args:
        device: its device.
        directory: for a socket, while it starts.
        arguments: more of the command line.
    """

    def __init__(self, device: Path, directory: Path, *arguments: str) -> None:
        address = str(directory / "ready")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as readiness:
            readiness.bind(address)
            readiness.settimeout(PATIENCE)
            self.popen = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "binderclient.servicemanager",
                    "--device",
                    str(device),
                    *arguments,
                ],
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "NOTIFY_SOCKET": address},
            )
            assert readiness.recv(4096).startswith(b"READY=1")
        os.unlink(address)

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def is_over(self) -> bool:
        return self.popen.poll() is not None

    def kill(self) -> None:
        self.popen.kill()
        self.popen.communicate(timeout=PATIENCE)

    def end(self) -> str:
        """End it as its supervisor would; return what it has said."""
        self.popen.send_signal(signal.SIGTERM)
        _, text = self.popen.communicate(timeout=PATIENCE)
        assert self.popen.returncode == 0
        assert "Traceback" not in text
        return text


class LocalManager:
    """The same manager in this very process, behind an engine of the test's own.

    Args:
        process: which it stands for.
        arguments: ``--android N`` and ``--declare NAME`` of the command line.
    """

    def __init__(self, process: Process, *arguments: str) -> None:
        self.pid = os.getpid()
        self.is_over = False
        self._process = process
        options = list(zip(arguments[::2], arguments[1::2], strict=True))
        declared = [parse_declared(text) for name, text in options if name == "--declare"]
        service = _service(dict(options).get("--android", "13"), declared)
        self._log = io.StringIO()
        self._handler = logging.StreamHandler(self._log)
        _LOG.addHandler(self._handler)
        is_hidl = isinstance(service, HardwareServiceManager)
        self._device = Device(process.path(), max_threads=SERVING_THREADS if is_hidl else 0)
        self._device.become_context_manager(service)
        self._ended = threading.Event()
        self._looking = threading.Thread(target=self._look, args=(service,), daemon=True)
        self._looking.start()
        self._device.start_thread_pool()

    def _look(self, service: ServiceManagerService | HardwareServiceManager) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            service.look_for_clients()

    def kill(self) -> None:
        self._process.kill()
        self.end()

    def end(self) -> str:
        """End it; return what it has said."""
        self.is_over = True
        self._ended.set()
        self._looking.join(PATIENCE)
        self._device.close()
        _LOG.removeHandler(self._handler)
        text = self._log.getvalue()
        assert "Traceback" not in text, text
        return text


Manager = ManagerProcess | LocalManager


def _service(
    android: str, declared: list[Declared]
) -> ServiceManagerService | HardwareServiceManager:
    if android == commandline.HIDL:
        return HardwareServiceManager(declared)
    return ServiceManagerService(android, declared)


def started(bench: Bench, directory: Path, *arguments: str) -> Manager:
    """Start the service manager of a test's device; see ``ManagerProcess``."""
    if bench.binder is None:
        return ManagerProcess(bench.device, directory, *arguments)
    return LocalManager(bench.binder.process(uid=os.geteuid()), *arguments)


def cli(bench: Bench, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``binderctl`` on a test's device to its end."""
    return _run(bench, "binderclient", commandline.main, arguments)


def one_more(bench: Bench) -> subprocess.CompletedProcess[str]:
    """Run another service manager on a test's device, that cannot become one, to its end."""
    return _run(bench, "binderclient.servicemanager", commandline.serve_manager, ())


def _run(
    bench: Bench, module: str, main: Callable[[list[str]], int], arguments: tuple[str, ...]
) -> subprocess.CompletedProcess[str]:
    words = ["--device", str(bench.another()), *arguments]
    if bench.binder is not None:
        return _run_here(main, words)
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def _run_here(
    main: Callable[[list[str]], int], words: list[str]
) -> subprocess.CompletedProcess[str]:
    """Run a command line in this very process."""
    texts = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    with contextlib.redirect_stdout(texts[0]), contextlib.redirect_stderr(texts[1]):
        try:
            status = main(words)
        except SystemExit as ended:
            status = int(ended.code or 0)
    for text in texts:
        text.seek(0)
    return subprocess.CompletedProcess(words, status, texts[0].read(), texts[1].read())
