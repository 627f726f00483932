# SPDX-License-Identifier: Apache-2.0
"""The flavour of ``binderclient`` for asyncio, with parcels."""

from __future__ import annotations

import asyncio

import timing
from awaiting import call, serve

from binderclient.aio import open_device

if __name__ == "__main__":
    timing.run(
        lambda path: asyncio.run(serve(open_device, path)),
        lambda path, seconds: asyncio.run(call(open_device, path, seconds)),
    )
