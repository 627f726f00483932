# SPDX-License-Identifier: Apache-2.0
"""Descriptor delivery: files of transactions into the processes that read them, and out again.

``deliveries.py`` is the whole. ``delivery.py`` chooses the way for each process: through the
extension's socket that it has attached (``attachment.py``; ``in_flight.py`` counts what it has not
taken), or by having the helper process stop its thread (``injector.py`` has the jobs,
``helper_process.py`` the process, ``outbox.py`` what that has still to be told; what it does is in
``binderd.injector``). ``disposer.py`` closes what clients gave us.

The engine knows when (``engine/installation.py``). Nothing here may know requests or trio.
"""
