# SPDX-License-Identifier: Apache-2.0
"""The one way in which a stress run cannot take place."""

from __future__ import annotations

from binderclient.errors import BinderError


class StressError(BinderError):
    """It cannot be run, or not to its end; the text says why and what to do."""
