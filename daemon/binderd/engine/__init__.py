# SPDX-License-Identifier: Apache-2.0
"""The binder driver as plain synchronous Python: no I/O, no clock, no trio.

Start reading at ``engine.py``; each other file is one noun of the driver.
"""
