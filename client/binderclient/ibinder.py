# SPDX-License-Identifier: Apache-2.0
"""``IBinder``: what a parcel can carry a reference to; ``objects`` has the kinds of it."""

from __future__ import annotations


class IBinder:
    """A ``Service`` of this process, or a proxy for one elsewhere."""
