# SPDX-License-Identifier: Apache-2.0
"""``python -m binderd.injector``: what the daemon starts beside itself; nothing for people."""

from binderd.injector.helper import main

main()
