# SPDX-License-Identifier: Apache-2.0
"""``binderd`` and ``python -m binderd``: arguments to settings to service, nothing else."""

from __future__ import annotations

import sys

from binderd import preflight


def main() -> int:
    """Run the daemon until it is told to end; return the exit status."""
    missing = preflight.prepare()
    if missing is not None:
        preflight.say("binderd", missing)
        return 1
    # What it takes to load them has been looked at now.
    from binderd import check, config, service

    settings = config.parse()
    if settings.check:
        return check.main(settings)
    return service.main(settings, config.load)


if __name__ == "__main__":
    sys.exit(main())
