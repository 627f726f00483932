# SPDX-License-Identifier: Apache-2.0
"""The calls of the request path to the kernel, in C where that is compiled.

``calls.py`` is what the others import.
"""
