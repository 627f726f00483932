# SPDX-License-Identifier: Apache-2.0
"""``binderctl stress``: loads a binder device with many processes, and checks all that happens.

The work is done by ``binderd-stress-worker``, a C program that knows only the driver's ABI; its
sources are in ``client/stress``. Workers and this package share a piece of memory (``board``), so
that nothing is lost of a worker that is killed.

``conductor`` runs a test from its beginning to its end. ``options`` are its arguments, ``place`` is
the device, ``crew`` the worker processes, ``accidents`` injects faults at the times that
``schedule`` makes from a seed, ``audit`` checks the counts in the shared memory, ``driver`` asks
the driver and its daemon what they keep, ``latency`` reads the histograms, ``report`` and
``picture`` (an SVG file) show the result.
"""

from __future__ import annotations

from binderclient.stress.command import add_command as add_command
