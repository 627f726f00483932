# SPDX-License-Identifier: Apache-2.0
"""``python -m binderclient``: see ``commandline``."""

from __future__ import annotations

import sys

from binderclient.commandline import main

if __name__ == "__main__":
    sys.exit(main())
