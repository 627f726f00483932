# SPDX-License-Identifier: Apache-2.0
"""What binderd asks of Linux, a file per noun: /proc, pidfds, mounts, ptrace, rights and so on.

It is the only place that loads the C library, opens files of /proc, or sends descriptors through
sockets (a test holds us to it). What Python's own modules offer as it is, os.memfd_create for
example, is used where it is needed.

A call that fails raises OSError with its errno, as Python's do. Nothing here may know what it is
used for: not binder, not FUSE, and no other part of binderd.
"""
