# SPDX-License-Identifier: Apache-2.0
"""``python -m binderd.watchdog``: what the daemon starts beside itself; nothing for people."""

from binderd.watchdog.watch import main

main()
