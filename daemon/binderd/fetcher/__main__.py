# SPDX-License-Identifier: Apache-2.0
"""``python -m binderd.fetcher``: what the daemon starts beside itself; nothing for people."""

from binderd.fetcher.manager import main

main()
