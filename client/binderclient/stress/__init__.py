# SPDX-License-Identifier: Apache-2.0
"""``binderctl stress``: loads a binder device with many processes, and checks all that happens.

The work is done by ``binderd-stress-worker``, a C program that knows only the driver's ABI; its
sources are in ``client/stress``. Workers and this package share a piece of memory (``board``), so
that nothing is lost of a worker that is killed.

``options`` are the arguments, ``place`` is the device, ``crew`` the processes, ``schedule`` says
when something bad happens, ``conductor`` is the order of events, ``audit`` judges what the board
says, ``driver`` asks the driver and its daemon what they keep, ``latency`` reads the histograms,
``report`` and ``picture`` show it all.
"""

from __future__ import annotations

from binderclient.stress.command import add_command as add_command
