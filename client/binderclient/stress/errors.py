# SPDX-License-Identifier: Apache-2.0
"""``StressError``: why a stress test cannot be run."""

from __future__ import annotations

from binderclient.errors import BinderError


class StressError(BinderError):
    """It cannot be run, or not to its end; the text says why and what to do."""
