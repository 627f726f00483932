# SPDX-License-Identifier: Apache-2.0
"""Binder for tests: the daemon's own engine in the test's process, without a daemon.

No root, no /dev/fuse, nothing to start: a ``Binder`` has devices that ``binderclient`` opens like
any other, and behind them the very code that the daemon runs. Whatever a test lets stand for a
program is a ``Process``. With pytest the fixture ``binder`` gives each test its own::

    def test_echo(binder):
        with binder.device() as server, binder.device() as client:
            server.become_context_manager(Echo())
            server.start_thread_pool()
            with client.context_manager.call(ECHO, request) as reply:
                assert reply.read_string16() == "hello"

``world`` has ``Binder`` and ``Process``; ``ioctls`` what the kernel does around an ioctl, and the
driver's clock; ``ports`` memory and files, as the engine asks for them; ``process_state`` what
these see of a process; ``driver`` what stands in for an open device file. These files alone may
know both the client and the engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from binderclient.testing.world import Binder, LeakError, Process

__all__ = ["Binder", "LeakError", "Process"]


def __getattr__(name: str) -> object:
    """Import the engine only where a test uses it: pytest loads the plugin in every run."""
    if name in __all__:
        return getattr(import_module("binderclient.testing.world"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
