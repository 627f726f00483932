# SPDX-License-Identifier: Apache-2.0
"""``binderd`` and ``python -m binderd``: arguments to settings to service, nothing else."""

from __future__ import annotations

import sys

from binderd import config, service


def main() -> int:
    """Run the daemon until it is told to end; return the exit status."""
    return service.main(config.parse(), config.load)


if __name__ == "__main__":
    sys.exit(main())
