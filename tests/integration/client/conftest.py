# SPDX-License-Identifier: Apache-2.0
"""What the client does with real devices, files and processes; ``tests/client`` has its devices."""

from __future__ import annotations

from client.conftest import bench, daemon, driver_kind

__all__ = ["bench", "daemon", "driver_kind"]
