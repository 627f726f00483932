# SPDX-License-Identifier: Apache-2.0
"""Taking a thread's descriptors on a kernel that has pidfds of processes only."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

from binderd.injector.injection import _take_socket
from binderd.linux.pidfd import open_for_descriptors

if TYPE_CHECKING:
    import pytest


def before_thread_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the kernel be one before Linux 6.9, which also knows no pidfd of another thread."""
    real = os.pidfd_open

    def pidfd_open(pid: int, flags: int = 0) -> int:
        if flags or pid != os.getpid():
            raise OSError(22, "before Linux 6.9")
        return real(pid)

    monkeypatch.setattr(os, "pidfd_open", pidfd_open)


def test_the_helper_takes_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the socket through which files go into a thread that it has stopped."""
    before_thread_pidfds(monkeypatch)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    taken: list[int] = []

    def serve() -> None:
        taken.append(_take_socket(threading.get_native_id(), theirs.fileno()).fd)

    with ours, theirs:
        thread = threading.Thread(target=serve)
        thread.start()
        thread.join()
        assert os.path.samestat(os.fstat(taken[0]), os.fstat(theirs.fileno()))
    os.close(taken[0])


def test_another_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    before_thread_pidfds(monkeypatch)
    opened: list[int] = []
    thread = threading.Thread(
        target=lambda: opened.append(open_for_descriptors(threading.get_native_id()))
    )
    thread.start()
    thread.join()
    os.close(opened[0])
