# SPDX-License-Identifier: Apache-2.0
"""A process beside the daemon that ends what a client holds it with.

The daemon reaches into its clients: into their memory, mapping tables and descriptors. Memory can
be anything, pages of a file system that the client serves itself for example, and the locks of a
process can be held for ever by what it does with such a file system. Such a client can keep the
daemon waiting, and everybody else with it. The driver does not have that problem: there it is the
client's own thread that waits.

Theory of operation. The daemon notes in shared memory which request it is at and whose memory it is
in (``heartbeat.py``). ``watch.py`` looks ten times a second: does the daemon sleep in a call that
reaches into a client (``access.py``)? Time in such calls is charged to the client's user, whatever
number of requests, calls or pages it is made of. At the limit ``fault.py`` finds out what is waited
for, and whether the client (``culprit.py``) can be blamed; then ``remedies.py`` kills it and takes
away what holds the daemon: connections of FUSE file systems (``connections.py``), userfaultfds
(``userfaults.py``). Each line that is said tells what was done, not what was meant.

Whatever may get stuck itself is asked in a process of its own (``ask.py``). ``guard.py``, on the
daemon's side, starts the watchdog, and again should it end or hang.

Nothing here may be imported by what serves requests, or share anything with it but the heartbeat
and the questions to Linux (``binderd.linux``).
"""
