# SPDX-License-Identifier: Apache-2.0
"""``--version`` of the commands of this package."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

_DISTRIBUTION = "binderd"  # binderclient is installed with it


def add_version(parser: argparse.ArgumentParser) -> None:
    """Let a command say which version it is."""
    try:
        version = metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        version = "(not installed)"
    parser.add_argument("--version", action="version", version=f"{parser.prog} {version}")
