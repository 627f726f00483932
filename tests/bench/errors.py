# SPDX-License-Identifier: Apache-2.0
"""What ends a benchmark with a sentence for its user."""

from __future__ import annotations


class BenchError(Exception):
    """Something outside this program is missing or went wrong; the text is for the user."""


class Missing(BenchError):
    """What a system needs is not here; others can be measured without it."""
