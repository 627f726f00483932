# SPDX-License-Identifier: Apache-2.0
"""Reaching into memory that may never answer: processes that can be given up, one per access.

``fetcher.py`` is the daemon's end.  ``manager.py`` and ``worker.py`` are processes of their own.
Nothing here may know binder, requests or trio.
"""
