#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run pytest; where a few tests failed, tell those that always do from those that sometimes do.

Some tests measure how long others wait. On a machine that is busy with something else such a test
can fail with nothing wrong, and one of five thousand is enough to refuse a change. So with ``CI``
set, up to FAILED_MAX that failed are run again by themselves, TIMES in a row, each time in a new
process: what fails once more has failed. What passes each time is named at the very end, as
somebody must look at it: it is a fault that comes seldom, or a test that asks too much.

    python tests/again.py [ARGUMENT OF PYTEST]...
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

FAILED_MAX: Final = 3
TIMES: Final = 3
TESTS_FAILED: Final = 1  # pytest's exit status; others say that something else is wrong


def main(arguments: list[str]) -> int:
    """Return the exit status."""
    if not os.environ.get("CI"):
        os.execv(sys.executable, [sys.executable, "-m", "pytest", *arguments])
    with tempfile.TemporaryDirectory(prefix="binderd-again-") as cache:
        command = [sys.executable, "-m", "pytest", "-o", f"cache_dir={cache}"]
        status = subprocess.run([*command, *arguments], check=False).returncode
        failed = _failed(Path(cache))
        if status != TESTS_FAILED or not 0 < len(failed) <= FAILED_MAX:
            return status
        # A scenario that failed stays failed in the results of the first run: docs/parity.json is
        # about what always holds.
        environment = {**os.environ, "BINDERD_PARITY_RESULTS": os.path.join(cache, "again.json")}
        for number in range(TIMES):
            print(f"\n=== AGAIN, {number + 1} of {TIMES}: {' '.join(failed)}", flush=True)
            run = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *failed]
            if subprocess.run(run, env=environment, check=False).returncode:
                return TESTS_FAILED
    for test in failed:
        print(f"=== WAVERED: {test} failed, then passed {TIMES} times alone", flush=True)
    return 0


def _failed(cache: Path) -> list[str]:
    """Return what the run that had this cache ended with."""
    try:
        return list(json.loads((cache / "v/cache/lastfailed").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
