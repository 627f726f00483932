# SPDX-License-Identifier: Apache-2.0
"""``python -m binderclient.servicemanager``: see ``commandline``."""

from __future__ import annotations

import sys

from binderclient.commandline import serve_manager

if __name__ == "__main__":
    sys.exit(serve_manager())
