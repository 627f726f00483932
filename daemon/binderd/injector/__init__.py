# SPDX-License-Identifier: Apache-2.0
"""Descriptors for programs that know nothing of us: a helper process puts them there with ptrace.

``injector.py`` is the daemon's end, ``helper.py`` the helper's main loop, ``injection.py`` what is
done to a thread; below it ``tracee.py`` has a stopped thread carry out system calls, ``ptrace.py``
is ptrace itself, ``architecture.py`` the registers. ``messages.py`` is what the two ends say.
"""
