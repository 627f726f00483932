# SPDX-License-Identifier: Apache-2.0
"""Thin adapters over the operating system: clients' memory, receive buffers, thread deaths.

``client.py`` puts them together for one open file.  Nothing here may know FUSE frames or trio.
"""
