# SPDX-License-Identifier: Apache-2.0
"""A FUSE server without I/O: frames in, frames out.

Start reading at ``session.py``.  Nothing here may know the engine, file descriptors or trio.
"""
