# SPDX-License-Identifier: Apache-2.0
"""The flavour of ``binderclient`` for trio, with parcels."""

from __future__ import annotations

import timing
import trio
from awaiting import call, serve

from binderclient.trio import open_device

if __name__ == "__main__":
    timing.run(
        lambda path: trio.run(serve, open_device, path),
        lambda path, seconds: trio.run(call, open_device, path, seconds),
    )
