# SPDX-License-Identifier: Apache-2.0
"""The acceptance demo: a daemon, servers and many clients, calls of all sizes, and sudden deaths.

``workload`` is what travels and how it is checked, ``server`` and ``client`` are the processes that
do it, ``patience`` sends again what had no room, ``processes`` starts and stops the processes,
``daemon`` is binderd as seen from outside, ``stage`` is the order of events, ``report`` what is
said about it.
"""
