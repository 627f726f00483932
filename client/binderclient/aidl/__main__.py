# SPDX-License-Identifier: Apache-2.0
"""``python -m binderclient.aidl``: the same as ``binderclient-aidl``."""

from __future__ import annotations

import sys

from binderclient.aidl.command import main

if __name__ == "__main__":
    sys.exit(main())
