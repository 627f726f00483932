# SPDX-License-Identifier: Apache-2.0
"""``binderctl with``: devices, a daemon and service managers of its own for one command.

``namespace.py`` is what Linux is asked for; ``processes.py`` starts and ends what runs there;
``command.py`` is the order of events, and the command line.
"""
