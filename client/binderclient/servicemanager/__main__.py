# SPDX-License-Identifier: Apache-2.0
"""``python -m binderclient.servicemanager``: see ``commandline``."""

from __future__ import annotations

import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    # Ctrl-C while the rest is loaded is no traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from binderclient.commandline import serve_manager

if __name__ == "__main__":
    sys.exit(serve_manager())
